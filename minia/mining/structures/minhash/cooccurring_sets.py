"""Sampled Min-Hashing: sets of visual words that occur in the same images.

A visual word is the set of images that hold it. A min-hash of such a set is its element of smallest
key, the keys being random; two sets have the same min-hash with the probability of their Jaccard
similarity J. Words whose ``tuple_size`` min-hashes all agree (probability J^tuple_size) fall into
one bucket, and a bucket of enough words is a co-occurring set. ``num_tuples`` tables repeat that.

Sources: Fuentes-Pineda, Koga, Watanabe, "Scalable object discovery: a hash-based approach to
clustering co-occurring visual words" (2011); Fuentes-Pineda, Meza-Ruiz, arXiv:1807.00938, sections
3 and 4; Chum, Philbin, Zisserman, "Near duplicate image detection: min-hash and tf-idf weighting"
(2008), section 4, for weights and frequencies.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from minia.core.artifact import InputError
from minia.core.processes import processes
from minia.core.progress import progress
from minia.mining.lists.listdb import ListDB, offsets_of, ones, read_weights
from minia.mining.structures.minhash.random_keys import Universe, frequency_levels
from minia.mining.structures.minhash.tuple_tables import MEMORY_BUDGET, TupleHashing, TupleTables

SMALLEST_WEIGHT, LARGEST_WEIGHT = 1e-20, 1e20  # beyond, keys might not fit float32
_ENTRIES_AT_A_TIME = 1 << 20


def image_weights(bags: ListDB, scheme: str, path: Path | None = None) -> npt.NDArray[np.float64] | None:
    """Weights of the images for mining.

    Args:
        bags: bags of visual words, a list an image.
        scheme: ``none``; ``ids``: ln(number of words / number of distinct words of the image), so
            that an image that holds everything says nothing, inf for an image without words; or ``file``.
        path: for ``file``, the file of weights: a number a line, 0 or from 1e-20 to 1e20, anything
            for an image without words.

    Returns:
        (num_images,) float64, or None for ``none``.

    Raises:
        InputError: the scheme is unknown, or the file cannot be read or does not fit the bags.
    """
    if scheme == "none":
        return None
    if scheme == "file" and path is not None:
        try:
            return _checked_weights(bags, read_weights(path))
        except InputError as error:
            raise InputError(f"mining.weights_path={path}: {error}") from None
    if scheme != "ids":
        raise InputError(f"unknown weighting {scheme!r}: use none, ids, or file with a path")
    sizes = bags.sizes.astype(np.float64)
    weights = np.full(bags.num_lists, np.inf)
    weights[sizes > 0] = np.log(bags.num_items / sizes[sizes > 0])
    return weights


def mine_cooccurring_sets(
    bags: ListDB,
    hashing: TupleHashing,
    *,
    min_set_size: int,
    weights: npt.NDArray[np.float64] | None = None,
    expand_frequencies: bool = False,
    memory_budget: int = MEMORY_BUDGET,
) -> ListDB:
    """Mine sets of co-occurring visual words.

    Two words meet in a table with probability J^tuple_size, J being the Jaccard similarity of the
    sets of images that hold them: ``sum min / sum max`` over images of weight (default 1) times
    presence, or times frequency with ``expand_frequencies``.

    Args:
        bags: bags of visual words, a list an image.
        hashing: min-hashes that must agree, number of tables, seed and device.
        min_set_size: smallest set kept, at least 2 words.
        weights: (num_images,) float64, 0 or from 1e-20 to 1e20; that of an image without words does not matter.
        expand_frequencies: a word that an image holds f times counts as f elements.
        memory_budget: bytes. The bags, what is made of them and what is mined with them take together
            at most three times the bags' memory, and this much more; the sets themselves are not counted.
            Of a CUDA device's own memory at most half of what is free is taken.

    Returns:
        A list a co-occurring set: words ascending, frequency 1; duplicates are kept; largest sets first,
        in the order of tables among equally large ones. Of the processes of a run the first has them all, others none.

    Raises:
        InputError: a setting is out of range, or the weights do not fit the bags.
    """
    if hashing.tuple_size < 1 or hashing.num_tuples < 1 or min_set_size < 2:
        raise InputError(
            "mining needs a tuple size and a number of tuples of at least 1 and a set size of at least 2, "
            f"not {hashing.tuple_size}, {hashing.num_tuples} and {min_set_size}"
        )
    numbers, compact = _without_unused_words(bags)
    words, universe = _hashed_words(compact, _checked_weights(bags, weights), expand_frequencies)
    massive = np.flatnonzero(universe.mass_of(words))  # words in no image, or in such of weight 0 only, form no sets
    words, numbers = words.select(massive), numbers[massive]
    memory = memory_budget // 2 + _spare_memory(bags, words, universe)  # the other half is for temporaries
    tables = TupleTables(words, hashing, universe=universe, memory=memory)
    members, sizes = _found(tables, numbers, min_set_size)
    unsorted = ListDB(offsets_of(sizes), members, ones(len(members)), bags.num_items)
    return unsorted.select(np.argsort(-unsorted.sizes, kind="stable"))


def _found(
    tables: TupleTables, numbers: npt.NDArray[np.int32], smallest: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """The words of all buckets of enough words, end to end, and how many each has; in a run's first process alone.

    Args:
        tables: of the words.
        numbers: (num_lists,) int32, what the words' numbers were.
        smallest: number of words.
    """
    together = processes()
    blocks = list(tables.blocks() if together.count == 1 else tables.blocks_for_all())
    members, sizes = list[npt.NDArray[np.int32]](), list[npt.NDArray[np.int32]]()
    with progress("mining", tables.num_tuples, "tuple") as advance:
        for begin, end in together.own(blocks):
            buckets = tables.buckets(begin, end, smallest)
            members.append(numbers[buckets.members])
            sizes.append(buckets.sizes.astype(np.int32))
            advance(end - begin)
        members, sizes = together.gather(members, len(blocks)), together.gather(sizes, len(blocks))
        advance(sum(end - begin for begin, end in blocks) - sum(end - begin for begin, end in together.own(blocks)))
    none = np.zeros(0, np.int32)
    return np.concatenate([none, *members]), np.concatenate([none, *sizes]).astype(np.int64)


def _checked_weights(bags: ListDB, weights: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64] | None:
    if weights is None:
        return None
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (bags.num_lists,):
        raise InputError(f"there are {weights.size} weights for {bags.num_lists} images")
    fits = (weights == 0) | ((weights >= SMALLEST_WEIGHT) & (weights <= LARGEST_WEIGHT))  # false for nan
    wrong = np.flatnonzero(~fits & (bags.sizes > 0))
    if len(wrong):
        raise InputError(
            f"image {wrong[0]} has words and the weight {weights[wrong[0]]:g}; "
            f"allowed: 0, or from {SMALLEST_WEIGHT:g} to {LARGEST_WEIGHT:g}"
        )
    return weights


def _without_unused_words(bags: ListDB) -> tuple[npt.NDArray[np.int32], ListDB]:
    """Bags over no more words than they have entries, and what these words' numbers were, (num_words,) int32."""
    if bags.num_items <= bags.num_entries:
        return np.arange(bags.num_items, dtype=np.int32), bags
    used = np.unique(bags.items)
    items = np.empty_like(bags.items)
    for begin in range(0, len(items), _ENTRIES_AT_A_TIME):
        block = slice(begin, begin + _ENTRIES_AT_A_TIME)
        items[block] = np.searchsorted(used, bags.items[block])
    return used, ListDB(bags.offsets, items, bags.frequencies, len(used))


def _hashed_words(
    bags: ListDB, weights: npt.NDArray[np.float64] | None, expand_frequencies: bool
) -> tuple[ListDB, Universe]:
    """What is hashed: a list a word, of the elements that hold it, and all elements there are."""
    if weights is not None:
        weights = np.where(bags.offsets[1:] > bags.offsets[:-1], weights, 0.0)
    if expand_frequencies:
        return frequency_levels(bags, weights)
    rates = None if weights is None else weights.astype(np.float32)
    words = ListDB(bags.offsets, bags.items, ones(bags.num_entries), bags.num_items).transpose()
    return words, Universe(bags.num_lists, rates)


def _spare_memory(bags: ListDB, words: ListDB, universe: Universe) -> int:
    """What is left of three times the bags' memory, in bytes, beside the bags and all that is made of them."""
    matrix = 8 * (bags.num_lists + bags.num_entries)
    kernel = 9 * words.num_entries  # at most: the entries twice, and a quarter more
    of_universe = sum(array.nbytes for array in (universe.rates, universe.groups) if array is not None)
    return max(0, 3 * matrix - bags.num_bytes - words.num_bytes - kernel - of_universe)
