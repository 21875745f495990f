"""Pairs of words: which may belong together, and in how many images they are found together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import scipy.sparse

from minia.mining.linkage import unique_sets
from minia.mining.listdb import ListDB, offsets_of
from minia.progress import progress

Numbers = npt.NDArray[np.int64]

_MOST_PAIRS = 1 << 24  # so many pairs are compared whatever the sets say: a minute, and 1 GB
_MOST_PRODUCTS = 1 << 28  # up to so many pairs of occurrences a sparse product is the quickest count
_LARGEST_SET = 512  # words of a set that are paired with each other; a larger set is cut into pieces
_PAIRS_AT_A_TIME = 1 << 24  # pairs of sets that are merged at once
_ENTRIES_AT_A_TIME = 1 << 22
_FREQUENT = 64  # words in more than 1 of so many images are kept as bits: no more bytes than 8 times the entries


def candidate_pairs(words: ListDB, sets: ListDB) -> tuple[Numbers, Numbers, Numbers]:
    """Pairs of words that may belong together, and the images that hold both.

    Where all pairs of words are at most 17 million (vocabularies up to some 5,800 words) these are all that
    share an image: then nothing hangs on the random numbers of the mining. In larger vocabularies
    they are the pairs that share a co-occurring set.

    Args:
        words: the inverted file; a list a word, images ascending.
        sets: co-occurring sets of these words; a list a set.

    Returns:
        left: (num_pairs,) int64 words, the smaller ones; ascending.
        right: (num_pairs,) int64 words, the larger ones.
        shared: (num_pairs,) int64 images.
    """
    num_words = words.num_lists
    if num_words * (num_words - 1) // 2 > _MOST_PAIRS:
        left, right = proposed_pairs(sets)
    else:
        sizes = np.bincount(words.items, minlength=words.num_items)
        if sizes @ sizes <= _MOST_PRODUCTS:
            matrix = words.to_scipy(binary=False).astype(np.int32)
            matrix.data[:] = 1
            pairs = scipy.sparse.triu(matrix @ matrix.T, 1).tocsr().tocoo()  # rows ascending
            return pairs.row.astype(np.int64), pairs.col.astype(np.int64), pairs.data.astype(np.int64)
        left, right = np.triu_indices(num_words, 1)
    with progress("comparing", len(left), "pair") as advance:
        shared = count_shared(words, left, right, advance)
    return left[shared > 0], right[shared > 0], shared[shared > 0]


def proposed_pairs(sets: ListDB) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pairs of words that share a co-occurring set, the smaller word first, each pair once, ascending.

    A set of more than 512 words is cut into pieces that are paired each for itself, so that the work
    grows with the words of the sets and not with their square. Words that are alike share many sets,
    cut in other places.
    """
    distinct, _ = unique_sets(sets)
    pieces = _cut(distinct).to_scipy(binary=False).astype(np.int32)
    words, width = pieces.tocsc(), distinct.num_items
    cost = np.asarray(pieces.T @ np.diff(pieces.indptr)).ravel()  # pairs that a word brings, repeats counted
    keys = [np.zeros(0, np.int64)]
    for block in _parts(np.arange(width), cost, _PAIRS_AT_A_TIME):
        shared = (words[:, block].T.tocsr() @ pieces).tocoo()
        left, right = block[shared.row].astype(np.int64), shared.col.astype(np.int64)
        keys.append(np.sort((left * width + right)[left < right]))
    left, right = np.divmod(np.concatenate(keys), max(1, width))
    return left, right


def _cut(sets: ListDB) -> ListDB:
    """The sets, those of too many words in pieces; where a set is cut depends on its number."""
    if sets.sizes.max(initial=0) <= _LARGEST_SET:
        return sets
    lists = [
        np.array_split(np.random.default_rng(number).permutation(words), -(-len(words) // _LARGEST_SET))
        if len(words) > _LARGEST_SET
        else [words]
        for number, words in enumerate(sets)
    ]
    pieces = [piece for parts in lists for piece in parts]
    sizes = np.array([len(piece) for piece in pieces], dtype=np.int64)
    items = np.concatenate(pieces)
    return ListDB(offsets_of(sizes), items, np.ones_like(items), sets.num_items)


def count_shared(
    words: ListDB,
    left: npt.NDArray[np.int64],
    right: npt.NDArray[np.int64],
    advance: Callable[[int], object] = lambda _: None,
) -> npt.NDArray[np.int64]:
    """Images that hold both words of each pair, (num_pairs,) int64.

    Two frequent words are compared eight images at a time, as bits; a rare one is looked up in the
    bits of a frequent one; two rare ones are compared image by image.

    Args:
        words: the inverted file; a list a word, images ascending.
        left: (num_pairs,) words.
        right: (num_pairs,) words.
        advance: called with the numbers of pairs as they are done.
    """
    swap = words.sizes[left] > words.sizes[right]
    rarer, commoner = np.where(swap, right, left), np.where(swap, left, right)
    frequent = words.sizes * _FREQUENT > words.num_items
    bits = _Bits(words, np.flatnonzero(frequent))
    matrix = words.to_scipy(binary=True)
    shared = np.zeros(len(left), dtype=np.int64)
    width = np.full(len(left), bits.width)
    for part in _parts(np.flatnonzero(frequent[rarer]), width, _ENTRIES_AT_A_TIME):
        shared[part] = bits.common(rarer[part], commoner[part])
        advance(len(part))
    for part in _parts(np.flatnonzero(frequent[commoner] & ~frequent[rarer]), words.sizes[rarer], _ENTRIES_AT_A_TIME):
        shared[part] = bits.count(words.select(rarer[part]), commoner[part])
        advance(len(part))
    both = words.sizes[left] + words.sizes[right]
    for part in _parts(np.flatnonzero(~frequent[commoner]), both, _ENTRIES_AT_A_TIME):
        shared[part] = np.diff(matrix[rarer[part]].multiply(matrix[commoner[part]]).tocsr().indptr)
        advance(len(part))
    return shared


def _parts(numbers: npt.NDArray[np.int64], cost: npt.NDArray[np.int64], most: int) -> list[npt.NDArray[np.int64]]:
    """Split numbers into parts of a bounded cost (at least one number each)."""
    if len(numbers) == 0:
        return []
    part = np.cumsum(cost[numbers], dtype=np.int64) // most
    return np.split(numbers, np.flatnonzero(np.diff(part)) + 1)


class _Bits:
    """Images of frequent words as bits: a byte tells of eight images."""

    def __init__(self, words: ListDB, frequent: npt.NDArray[np.int64]) -> None:
        self._row = np.zeros(words.num_lists, dtype=np.int64)
        self._row[frequent] = np.arange(len(frequent))
        self._bits = np.zeros((len(frequent), 8 * (words.num_items // 64 + 1)), dtype=np.uint8)
        for row, word in enumerate(frequent):
            held = np.zeros(8 * self._bits.shape[1], dtype=bool)
            held[words[word]] = True
            self._bits[row] = np.packbits(held, bitorder="little")

    @property
    def width(self) -> int:
        """Bytes a word."""
        return int(self._bits.shape[1])

    def common(self, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many images hold both frequent words of each pair."""
        both = self._bits[self._row[left]] & self._bits[self._row[right]]
        return np.asarray(np.bitwise_count(both.view(np.uint64)).sum(axis=1, dtype=np.int64))

    def count(self, lists: ListDB, words: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many images of each list hold the frequent word beside it."""
        row = np.repeat(self._row[words], lists.sizes)
        held = (self._bits[row, lists.items >> 3] >> (lists.items & 7).astype(np.uint8)) & 1
        total = offsets_of(held)
        return total[lists.offsets[1:]] - total[lists.offsets[:-1]]
