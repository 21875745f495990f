"""The best images of each structure, chosen while the overlaps of all images stream by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from minia.core.random_bits import GOLDEN_64, mix_rounds
from minia.mining.lists.listdb import ListDB
from minia.mining.matching.overlap import count_shared_words, overlap_blocks

_MOST_WORDS = np.uint64(2**32 - 1)
_PAIRS_AT_A_TIME = 1 << 19


class BestImages:
    """Keeps the images of the highest keys of each structure; memory does not grow with the images.

    Images of equal keys are chosen at random: by a hash of the seed, the structure and the image, so
    that neither the order of files, which often goes by class, nor the size of blocks decides.

    Args:
        num_structures: structures to keep images of.
        num_kept: images to keep of each, at least 1.
        seed: of the choice among equal images, any integers.

    Attributes:
        images: (num_structures, num_kept) int64, by falling key, -1 where there are no more.
        keys: (num_structures, num_kept) uint64, 0 where there are no more.
    """

    def __init__(self, num_structures: int, num_kept: int, seed: list[int]) -> None:
        self.images = np.full((num_structures, num_kept), -1, dtype=np.int64)
        self.keys = np.zeros((num_structures, num_kept), dtype=np.uint64)
        self._second_keys = np.zeros((num_structures, num_kept), dtype=np.uint64)
        self._seed = np.random.SeedSequence(seed).generate_state(1, np.uint64)

    def offer(
        self,
        structures: NDArray[np.int32],
        images: NDArray[np.int64],
        keys: NDArray[np.uint64],
        num_words: NDArray[np.int64] | None = None,
    ) -> None:
        """Offer images to structures, no pair twice.

        Args:
            structures: (n,) integers.
            images: (n,) integers.
            keys: (n,) uint64 above 0: the higher, the better.
            num_words: (n,) integers below 2^32: the fewer, the better among equal keys.
        """
        for first in range(0, len(keys), _PAIRS_AT_A_TIME):  # the first ones bar most of the others
            some = slice(first, first + _PAIRS_AT_A_TIME)
            self._offer(structures[some], images[some], keys[some], None if num_words is None else num_words[some])

    def _offer(
        self,
        structures: NDArray[np.int32],
        images: NDArray[np.int64],
        keys: NDArray[np.uint64],
        num_words: NDArray[np.int64] | None,
    ) -> None:
        reach = np.flatnonzero(keys >= self.keys[structures, -1])
        if len(reach) == 0:
            return
        structures, images, keys = structures[reach], images[reach], keys[reach]
        second_keys = self._random(structures, images)
        if num_words is not None:
            second_keys |= (_MOST_WORDS - num_words[reach].astype(np.uint64)) << np.uint64(32)
        touched, place = np.unique(structures, return_inverse=True)
        num_kept = self.images.shape[1]
        place = np.concatenate([np.repeat(np.arange(len(touched)), num_kept), place])
        images = np.concatenate([self.images[touched].ravel(), images])
        keys = np.concatenate([self.keys[touched].ravel(), keys])
        second_keys = np.concatenate([self._second_keys[touched].ravel(), second_keys])
        order = np.lexsort((~second_keys, ~keys, place))
        starts = np.searchsorted(place[order], np.arange(len(touched)))
        best = order[starts[:, None] + np.arange(num_kept)]
        self.images[touched], self.keys[touched] = images[best], keys[best]
        self._second_keys[touched] = second_keys[best]

    def _random(self, structures: NDArray[np.int32], images: NDArray[np.int64]) -> NDArray[np.uint64]:
        """32 bits that look random for each pair, (n,) uint64."""
        mixed = images.astype(np.uint64) * np.uint64(GOLDEN_64) + self._seed
        mixed ^= structures.astype(np.uint64) * np.uint64(0xD1342543DE82EF95)
        return np.asarray(mix_rounds(mixed) >> np.uint64(32))


@dataclass(frozen=True)
class GalleryImages:
    """The images to show of each structure, best first (see :func:`choose_gallery_images`).

    Attributes:
        images: (num_structures, most_images) int64, -1 where there are no more.
        overlaps: (num_structures, most_images) float32 in (0, 1], 0 where there are no more.
        num_matches: (num_structures,) int64, images that hold the structure.
    """

    images: NDArray[np.int64]
    overlaps: NDArray[np.float32]
    num_matches: NDArray[np.int64]


def choose_gallery_images(
    bags: ListDB, structures: ListDB, *, formula: str, min_overlap: float, most_images: int, seed: list[int]
) -> GalleryImages:
    """Choose the images to show of each structure.

    They go by falling overlap. Small structures tie at overlap 1 in hundreds of images, so ties go
    by the number of distinct words shared with the structure, more first (an image of two words
    overlaps fully by holding two), then by the number of the image's words, fewer first (there the
    structure is a larger part of what the image holds), then at random.

    Args:
        bags: the images' words.
        structures: the structures to show, of the same vocabulary.
        formula: of the overlap: ``distinct`` compares sets of words, ``multiset`` counts how often a word occurs.
        min_overlap: smallest overlap of an image that holds a structure.
        most_images: images of a structure, at least 1.
        seed: of the last ties.
    """
    best = BestImages(structures.num_lists, most_images, seed)
    num_matches = np.zeros(structures.num_lists, dtype=np.int64)
    for first, block, overlaps in overlap_blocks(bags, structures, formula):
        shared = count_shared_words(block, structures)
        overlaps.sort_indices()
        shared.sort_indices()  # now both hold the same pairs in the same order
        high = np.flatnonzero(overlaps.data >= np.float32(min_overlap))
        structure, row = overlaps.indices[high], rows_of(overlaps)[high]
        keys = sort_bits(overlaps.data[high]) << np.uint64(32) | shared.data[high].astype(np.uint64)
        best.offer(structure, row + first, keys, block.sizes[row])
        num_matches += np.bincount(structure, minlength=structures.num_lists)
    overlaps_kept = (best.keys >> np.uint64(32)).astype(np.uint32).view(np.float32)
    return GalleryImages(best.images, overlaps_kept, num_matches)


def rows_of(matrix: scipy.sparse.csr_matrix) -> NDArray[np.int64]:
    """The row of each stored entry, (n,) int64."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def sort_bits(overlaps: NDArray[np.float32]) -> NDArray[np.uint64]:
    """The bits of floats of at least 0, which sort as the floats do, (n,) uint64 below 2^32."""
    return overlaps.view(np.uint32).astype(np.uint64)
