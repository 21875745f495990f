"""Overlap: how much of a structure an image holds, of all images in blocks that fit memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from minia.mining.lists.listdb import ListDB, blocks_of, offsets_of

_IMAGES_PER_BLOCK = 1 << 14
_WORDS_PER_BLOCK = 1 << 22  # words of images at hand at a time, of one image at least
_PAIRS_PER_BLOCK = 1 << 22  # overlaps at hand at a time, of one image at least: some 150 MB of temporaries
_BELOW = np.float32(0.999)  # of the least overlap that holds a part in its place
_BELOW_HALF = np.float32(0.499)


def overlap_matrix(bags: ListDB, structures: ListDB, formula: str) -> scipy.sparse.csr_matrix:
    """Overlap of every image with every structure.

    ``distinct``: the overlap coefficient of the sets of distinct words, |S n I| / min(|S|, |I|).
    ``multiset``: the original minIA's, sum over shared words of the smaller frequency, over the
    smaller of the two sums of frequencies; it compares numbers of co-occurring sets with numbers of keypoints.

    Args:
        bags: images and their words.
        structures: structures and their words, of the same vocabulary.
        formula: ``distinct`` or ``multiset``.

    Returns:
        (num_images, num_structures) float32 in [0, 1]; an image without words overlaps nothing.
    """
    return _Overlaps(structures, formula).of(bags)


def overlap_blocks(
    bags: ListDB, structures: ListDB, formula: str, images: NDArray[np.int64] | None = None
) -> Iterator[tuple[int, ListDB, scipy.sparse.csr_matrix]]:
    """The overlap matrix in blocks of images, so that neither it nor the bags have to fit into memory.

    Args:
        bags: images and their words; may be memory-mapped.
        structures: structures and their words, of the same vocabulary.
        formula: ``distinct`` compares sets of words, ``multiset`` counts how often a word occurs.
        images: (n,) image numbers, the rows of the matrix; default: all images.

    Yields:
        The block's first row, its bags, and its overlaps, (block length, num_structures).
    """
    overlaps = _Overlaps(structures, formula)
    for first, block in _blocks(bags, structures, images):
        yield first, block, overlaps.of(block)


def count_shared_words(bags: ListDB, structures: ListDB) -> scipy.sparse.csr_matrix:
    """Number of distinct words that an image and a structure share, (num_images, num_structures) float32."""
    return bags.to_scipy(binary=True) @ structures.to_scipy(binary=True).T.tocsr()


def most_of_near_misses(
    structure: NDArray[np.int32], share: NDArray[np.float32], num_structures: int
) -> NDArray[np.float32]:
    """The overlap that a near miss of each structure has at most: below that of any image that holds it in its place.

    Args:
        structure: (n,) int32, the structures that images hold in their place.
        share: (n,) float32 in (0, 1], how much of it each does.
        num_structures: of all.

    Returns:
        (num_structures,) float32, below one half; inf for structures without places, which have no near misses.
    """
    most = np.full(num_structures, np.inf, dtype=np.float32)
    np.minimum.at(most, structure, np.minimum(_BELOW * share, _BELOW_HALF))
    return most


def near_miss(overlap: NDArray[np.float32], most: NDArray[np.float32]) -> NDArray[np.float32]:
    """The overlap of images that do not hold a structure in its place, from that of their words wherever they are.

    It rises with that overlap and is below that of any image that holds the structure. The root keeps small overlaps
    apart from none: a structure of hundreds of words may be held by images with a tenth of them.

    Args:
        overlap: (n,) float32 in [0, 1], of words.
        most: (n,) float32, see :func:`most_of_near_misses`.

    Returns:
        (n,) float32; the overlap itself where the structure has no places.
    """
    return np.where(np.isfinite(most), most * np.sqrt(overlap), overlap)


class _Overlaps:
    """Overlaps of images with the same structures, whose matrices are made once."""

    def __init__(self, structures: ListDB, formula: str) -> None:
        self.distinct = formula == "distinct"
        self.structures = structures.to_scipy(binary=self.distinct)
        self.transposed = self.structures.T.tocsr()
        self.sizes = structures.sizes if self.distinct else _row_sums(self.structures)

    def of(self, bags: ListDB) -> scipy.sparse.csr_matrix:
        words = bags.to_scipy(binary=self.distinct)
        sizes = bags.sizes if self.distinct else _row_sums(words)
        result = words @ self.transposed if self.distinct else _shared_frequency(words, self.structures)
        row = np.repeat(np.arange(result.shape[0], dtype=np.int32), np.diff(result.indptr))
        smaller = np.minimum(sizes[row], self.sizes[result.indices])
        result.data = (result.data / smaller).astype(np.float32)
        return result


def _row_sums(matrix: scipy.sparse.csr_matrix) -> NDArray[np.int64]:
    return np.asarray(matrix.sum(axis=1)).ravel()


def _shared_frequency(bags: scipy.sparse.csr_matrix, structures: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """Sum over shared words of min(frequency in the image, frequency in the structure).

    With the different frequencies t_1 < t_2 < ... of the bags, min(a, b) is the sum over j of
    [a >= t_j] (min(b, t_j) - min(b, t_(j-1))): one sparse product a level, exact.
    """
    total = scipy.sparse.csr_matrix((bags.shape[0], structures.shape[0]), dtype=np.float64)
    below = 0
    bags = bags.copy()
    bags.data = np.minimum(bags.data, structures.data.max(initial=1))  # what is beyond is never the smaller
    for level in np.unique(bags.data):
        at_least = bags.copy()
        at_least.data = (bags.data >= level).astype(np.float64)
        at_least.eliminate_zeros()
        step = structures.copy()
        step.data = (np.minimum(structures.data, level) - np.minimum(structures.data, below)).astype(np.float64)
        step.eliminate_zeros()
        total = total + at_least @ step.T
        below = level
    return scipy.sparse.csr_matrix(total)


def _blocks(bags: ListDB, structures: ListDB, images: NDArray[np.int64] | None) -> Iterator[tuple[int, ListDB]]:
    """Blocks of images of few enough words and overlaps: the first one's place, and the bags."""
    holding = np.bincount(structures.items, minlength=bags.num_items)  # structures that hold a word
    num_images = bags.num_lists if images is None else len(images)
    begin = 0
    while begin < num_images:
        end = min(begin + _IMAGES_PER_BLOCK, num_images)
        sizes = _sizes(bags, begin, end, images)
        end = begin + next(blocks_of(offsets_of(sizes), _WORDS_PER_BLOCK))[1]
        chunk = _bags(bags, begin, end, images)
        pairs = np.minimum(np.diff(offsets_of(holding[chunk.items])[chunk.offsets]), structures.num_lists)  # at most
        for first, last in blocks_of(offsets_of(pairs), _PAIRS_PER_BLOCK):
            yield begin + first, _bags(chunk, first, last, None)
        begin = end


def _sizes(bags: ListDB, first: int, last: int, images: NDArray[np.int64] | None) -> NDArray[np.int64]:
    if images is None:
        return np.diff(bags.offsets[first : last + 1])
    chosen = images[first:last]
    return bags.offsets[chosen + 1] - bags.offsets[chosen]


def _bags(bags: ListDB, first: int, last: int, images: NDArray[np.int64] | None) -> ListDB:
    """The bags of images first .. last - 1, of all images or of the given ones."""
    if images is not None:
        return bags.select(images[first:last])
    entries = slice(int(bags.offsets[first]), int(bags.offsets[last]))
    offsets = bags.offsets[first : last + 1] - bags.offsets[first]
    return ListDB(offsets, bags.items[entries], bags.frequencies[entries], bags.num_items)
