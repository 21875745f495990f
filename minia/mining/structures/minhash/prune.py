"""Pruning: co-occurring sets keep the words that the images confirm.

A co-occurring set comes from few min-hashes. Whether its words belong together shows in the images
that hold most of them (Fuentes-Pineda, Koga, Watanabe 2011: sets that too few images confirm, and
words that too few of these images hold, come from chance).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from minia.core.artifact import InputError
from minia.mining.lists.listdb import ListDB, blocks_of, offsets_of, ones

_ENTRIES_AT_A_TIME = 1 << 20


def prune_sets(
    sets: ListDB,
    bags: ListDB,
    *,
    overlap: float,
    cooccurrence: float,
    min_images: int,
    min_set_size: int,
) -> ListDB:
    """Drop words and sets that the images do not confirm.

    The images of a set are those that hold at least ``overlap`` of its words. From the set go the words that
    fewer than ``cooccurrence`` of these images hold; the set goes if it has fewer than ``min_images``
    images, or fewer than ``min_set_size`` words left. The images are not sought again after that.

    Args:
        sets: co-occurring sets of words, a list a set, no word twice in it.
        bags: the bags of words, a list an image; frequencies are not used.
        overlap: share of a set's words, above 0, at most 1.
        cooccurrence: share of a set's images, 0 .. 1.
        min_images: at least 0.
        min_set_size: at least 1.

    Returns:
        The sets that are left, in their order, their words in theirs, with their frequencies.

    Raises:
        InputError: a setting is out of range, or sets and bags are not over the same words.
    """
    if not (0 < overlap <= 1 and 0 <= cooccurrence <= 1) or min_images < 0 or min_set_size < 1:
        raise InputError(
            "pruning needs an overlap above 0 and at most 1, a co-occurrence from 0 to 1, a number of images "
            f"of at least 0 and a set size of at least 1, not {overlap}, {cooccurrence}, {min_images}, {min_set_size}"
        )
    if sets.num_items != bags.num_items:
        raise InputError(f"the sets are over {sets.num_items} words, the bags over {bags.num_items}")
    images_of_word = ListDB(bags.offsets, bags.items, ones(bags.num_entries), bags.num_items).transpose()
    kept = np.zeros(sets.num_entries, dtype=bool)
    visits = offsets_of(images_of_word.sizes[sets.items])[sets.offsets]  # of images, through the sets' words
    for begin, end in blocks_of(visits, _ENTRIES_AT_A_TIME):
        block = slice(sets.offsets[begin], sets.offsets[end])
        sizes = sets.offsets[begin + 1 : end + 1] - sets.offsets[begin:end]
        num_images, held = _counts(sizes, images_of_word.select(sets.items[block]), overlap)
        images = np.repeat(num_images, sizes)
        # A share is compared as a quotient: rounded alike, 7 of 10 is not below 0.7.
        kept[block] = (images >= min_images) & (images > 0) & (held / np.maximum(images, 1) >= cooccurrence)
    before = offsets_of(kept)
    sizes = before[sets.offsets[1:]] - before[sets.offsets[:-1]]
    large = sizes >= min_set_size
    kept &= np.repeat(large, sets.sizes)
    return ListDB(offsets_of(sizes[large]), sets.items[kept], sets.frequencies[kept], sets.num_items)


def _counts(
    sizes: npt.NDArray[np.int64], images_of_entry: ListDB, overlap: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How many images each set has, and how many of them hold each of its words.

    Args:
        sizes: (num_sets,) words of each set.
        images_of_entry: a list a word of each set: the images that hold it.
        overlap: share of a set's words that its images hold.

    Returns:
        (num_sets,) and (num_entries,).
    """
    set_of_entry = np.repeat(np.arange(len(sizes)), sizes)
    keys = np.repeat(set_of_entry, images_of_entry.sizes) * max(1, images_of_entry.num_items) + images_of_entry.items
    pairs, pair, words = np.unique(keys, return_inverse=True, return_counts=True)  # of set and image
    set_of_pair = pairs // max(1, images_of_entry.num_items)
    holds = words / sizes[set_of_pair] >= overlap
    held = offsets_of(holds[pair])[images_of_entry.offsets]
    return np.bincount(set_of_pair[holds], minlength=len(sizes)), np.diff(held)
