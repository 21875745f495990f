"""Pairs of words: which may belong together, and in how many images they are found together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from minia.core.artifact import InputError
from minia.core.progress import progress
from minia.mining.lists.listdb import ListDB, blocks_of, offsets_of, ones
from minia.mining.structures.linkage.single import unique_sets

Int64s = npt.NDArray[np.int64]

MEMORY_BUDGET = 1 << 30
_MOST_PAIRS = 1 << 24  # compared whatever the sets say, and at most
_BYTES_A_PAIR, _BYTES_BESIDE = 48, 1 << 26  # that linkage takes, the links between words included
_MOST_PRODUCTS = 1 << 28  # up to so many pairs of occurrences a sparse product is the quickest count
_PRODUCTS_AT_A_TIME = 1 << 20
_FEW_CELLS = 1 << 20  # words x images: few enough for a matrix
_LARGEST_SET = 512  # words of a set that are paired with each other; a larger set is cut into pieces
_PAIRS_AT_A_TIME = 1 << 20  # pairs of sets that are merged at once
_ENTRIES_AT_A_TIME = 1 << 20
_NONE = np.zeros(0, np.int32)
_LARGE_PART = 64  # of all words: from one in so many on, a position for each is quicker than a search
_FREQUENT = 512  # words in more than 1 of so many images are compared as bits: at most 64 bytes for an entry
_BITS_AT_A_TIME = 1 << 28  # 32 MB


@dataclass(frozen=True)
class WordPairs:
    """Pairs of words, and the images that hold both.

    Attributes:
        left: (num_pairs,) int32 words, the smaller ones; ascending.
        right: (num_pairs,) int32 words, the larger ones; ascending for each left one.
        shared: (num_pairs,) int32 images, at least 1.
    """

    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    shared: npt.NDArray[np.int32]

    @property
    def count(self) -> int:
        """Number of pairs."""
        return len(self.left)

    def among(self, words: Int64s, num_words: int) -> WordPairs:
        """The pairs of two given words, which ascend, a word renumbered by its position among these.

        Args:
            words: (num_given,) int64, some of the words 0 .. ``num_words - 1`` that the pairs are of.
            num_words: how many words there are in all.
        """
        first = np.searchsorted(self.left, words.astype(np.int32))
        sizes = np.searchsorted(self.left, words.astype(np.int32), side="right") - first
        position_of = _positions(words.astype(np.int32), num_words)
        parts = []
        for begin, end in blocks_of(offsets_of(sizes), _ENTRIES_AT_A_TIME):
            counts = sizes[begin:end]
            offsets = offsets_of(counts)
            entries = np.arange(offsets[-1]) + np.repeat(first[begin:end] - offsets[:-1], counts)
            right = position_of(self.right[entries])
            kept = np.flatnonzero(right >= 0)
            left = np.repeat(np.arange(begin, end, dtype=np.int32), counts)
            parts.append((left[kept], right[kept], self.shared[entries[kept]]))
        return _joined(parts)

    def select(self, kept: npt.NDArray[np.bool_] | Int64s) -> WordPairs:
        """Some of the pairs, by their ascending numbers or by a mask."""
        return WordPairs(self.left[kept], self.right[kept], self.shared[kept])


def _positions(
    words: npt.NDArray[np.int32], num_words: int
) -> Callable[[npt.NDArray[np.int32]], npt.NDArray[np.int32]]:
    """A function that gives the positions of words among the given ones, which ascend, and -1 for other words.

    For a few words it searches, so that it need not hold a position for each of all ``num_words`` words.
    """
    if len(words) * _LARGE_PART > num_words:
        positions = np.full(num_words, -1, dtype=np.int32)
        positions[words] = np.arange(len(words), dtype=np.int32)
        return lambda some: np.asarray(positions[some])

    def search(some: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        position = np.minimum(np.searchsorted(words, some), len(words) - 1).astype(np.int32)
        return np.where(words[position] == some, position, np.int32(-1))

    return search


def _joined(parts: Sequence[tuple[npt.NDArray[np.int32], ...]]) -> WordPairs:
    left, right, shared = zip(*parts, strict=True) if parts else ([_NONE], [_NONE], [_NONE])
    return WordPairs(np.concatenate(left), np.concatenate(right), np.concatenate(shared))


def all_are_compared(num_words: int) -> bool:
    """Whether all pairs of so many words are few enough to be compared, whatever the co-occurring sets say."""
    return num_words * (num_words - 1) // 2 <= _MOST_PAIRS


def candidate_pairs(words: ListDB, sets: ListDB, memory_budget: int = MEMORY_BUDGET) -> WordPairs:
    """Pairs of words that may belong together.

    Where all pairs of words are at most 17 million (vocabularies up to some 5,800 words) these are all that
    share an image: then nothing hangs on the random numbers of the mining. In larger vocabularies
    they are the pairs that share a co-occurring set, and never more than 17 million, those of most sets.

    Args:
        words: the inverted file; a list a word, images ascending; frequencies 1.
        sets: co-occurring sets of these words; a list a set.
        memory_budget: bytes that pairs and what linkage makes of them may take.

    Raises:
        InputError: the pairs take more.
    """
    num_words = words.num_lists
    if not all_are_compared(num_words):
        left, right = proposed_pairs(sets)
    else:
        sizes = np.bincount(words.items, minlength=words.num_items)
        if sizes @ sizes <= _MOST_PRODUCTS:
            return _all_pairs(words, sizes, memory_budget)
        _check_memory(num_words * (num_words - 1) // 2, memory_budget)
        left, right = np.triu_indices(num_words, 1)
    _check_memory(len(left), memory_budget)
    with progress("comparing", len(left), "pair") as advance:
        shared = count_shared(words, left, right, advance)
    return WordPairs(left.astype(np.int32), right.astype(np.int32), shared.astype(np.int32)).select(shared > 0)


def _check_memory(num_pairs: int, memory_budget: int) -> None:
    needed = num_pairs * _BYTES_A_PAIR + _BYTES_BESIDE
    if needed > memory_budget:
        raise InputError(
            f"mining.memory_budget={memory_budget / 1e9:g}: to link {num_pairs:,} pairs of words takes "
            f"{needed / 1e9:.2f} GB; allow as much, or use mining.linkage=single"
        )


def _all_pairs(words: ListDB, sizes: Int64s, memory_budget: int) -> WordPairs:
    """All pairs that share an image, by a product of the inverted file with the bags, of ``sizes`` words."""
    inverted = words.to_scipy(binary=False)
    bags = inverted.T.tocsr()
    cost = np.add.reduceat(np.append(sizes.astype(np.int32)[words.items], 0), words.offsets[:-1]) * (words.sizes > 0)
    parts, count = [], 0
    for block in _split_by_cost(np.arange(words.num_lists), cost, _PRODUCTS_AT_A_TIME):
        product = inverted[block[0] : block[-1] + 1] @ bags
        left = np.repeat(block.astype(np.int32), np.diff(product.indptr))
        kept = np.flatnonzero(left < product.indices)
        offsets = offsets_of(np.bincount(left[kept] - block[0], minlength=len(block)))
        half = scipy.sparse.csr_matrix((product.data[kept], product.indices[kept], offsets), shape=product.shape)
        half.sort_indices()
        parts.append((left[kept], half.indices.astype(np.int32), half.data))
        count += len(kept)
        _check_memory(count, memory_budget)
    return _joined(parts)


def proposed_pairs(sets: ListDB) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pairs of words that share a co-occurring set, the smaller word first, each pair once, ascending.

    A set of more than 512 words is cut into pieces that are paired each for itself, so that the work
    grows with the words of the sets and not with their square. Words that are alike share many sets,
    cut in other places. Of more than 17 million pairs only those are proposed that share most sets.
    """
    distinct, _ = unique_sets(sets)
    pieces = _cut(distinct).to_scipy(binary=False).astype(np.int32)
    words, width = pieces.tocsc(), distinct.num_items
    cost = np.asarray(pieces.T @ np.diff(pieces.indptr)).ravel()  # pairs that a word brings, repeats counted
    keys, counts, fewest = np.zeros(0, np.int64), np.zeros(0, np.int32), 1
    for block in _split_by_cost(np.arange(width), cost, _PAIRS_AT_A_TIME):
        shared = (words[:, block].T.tocsr() @ pieces).tocoo()
        left, right = block[shared.row].astype(np.int64), shared.col.astype(np.int64)
        chosen = np.flatnonzero((left < right) & (shared.data >= fewest))
        new = left[chosen] * width + right[chosen]
        order = np.argsort(new)
        keys, counts = np.concatenate([keys, new[order]]), np.concatenate([counts, shared.data[chosen][order]])
        if len(keys) > _MOST_PAIRS:
            with_at_least = np.cumsum(np.bincount(counts)[::-1])[::-1]
            fewest = int(np.flatnonzero(np.append(with_at_least, 0) <= _MOST_PAIRS)[0])
            keys, counts = keys[counts >= fewest], counts[counts >= fewest]
    left, right = np.divmod(keys, max(1, width))
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
    left: npt.NDArray[np.int64] | npt.NDArray[np.int32],
    right: npt.NDArray[np.int64] | npt.NDArray[np.int32],
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
    if words.num_lists * words.num_items <= _FEW_CELLS:
        held = words.to_scipy(binary=True).toarray()
        return np.asarray((held @ held.T)[left, right].astype(np.int64))  # exact: whole numbers below 2^24
    swap = words.sizes[left] > words.sizes[right]
    rarer, commoner = np.where(swap, right, left), np.where(swap, left, right)
    frequent = words.sizes * _FREQUENT > words.num_items
    shared = np.zeros(len(left), dtype=np.int64)
    both = words.sizes[left] + words.sizes[right]
    rare = np.flatnonzero(~frequent[commoner])
    for block in _split_by_cost(rare, both, _ENTRIES_AT_A_TIME):
        ends = [words.select(some[block]).to_scipy(binary=True) for some in (rarer, commoner)]
        shared[block] = np.diff(ends[0].multiply(ends[1]).tocsr().indptr)
        advance(len(block))
    with_bits, looked_up = np.flatnonzero(frequent[rarer]), np.flatnonzero(frequent[commoner] & ~frequent[rarer])
    for lists, bits in _bits_of(words, frequent, np.concatenate([rarer[looked_up], rarer[with_bits]]), commoner):
        for block in _split_by_cost(with_bits, np.full(len(left), bits.width), _ENTRIES_AT_A_TIME):
            shared[block] += bits.count_common(rarer[block], commoner[block])
        for block in _split_by_cost(looked_up, words.sizes[rarer], _ENTRIES_AT_A_TIME):
            shared[block] += bits.count_in_lists(lists.select(rarer[block]), commoner[block])
    advance(len(with_bits) + len(looked_up))
    return shared


def _bits_of(
    words: ListDB, frequent: npt.NDArray[np.bool_], *used: npt.NDArray[np.integer[Any]]
) -> Iterator[tuple[ListDB, _Bits]]:
    """The lists of the used words, and the bits of the frequent ones, for so many images at a time that all fit."""
    chosen = np.zeros(words.num_lists, dtype=bool)
    for some in used:
        chosen[some] = True
    rows = np.flatnonzero(chosen & frequent)
    if len(rows) == 0:
        return
    width = max(1 << 12, _BITS_AT_A_TIME // len(rows) // 64 * 64)
    edges = np.append(np.arange(0, words.num_items, width), words.num_items)
    if len(edges) == 2:
        yield words, _Bits(words, rows)
        return
    bounds = np.zeros((words.num_lists, len(edges)), dtype=np.int64)
    for word in np.flatnonzero(chosen).tolist():
        bounds[word] = np.searchsorted(words[word], edges.astype(np.int32))
    for number, begin in enumerate(edges[:-1]):
        sizes = bounds[:, number + 1] - bounds[:, number]
        offsets = offsets_of(sizes)
        items = np.empty(offsets[-1], dtype=np.int32)
        for first, last in blocks_of(offsets, _ENTRIES_AT_A_TIME):
            new = slice(offsets[first], offsets[last])
            shift = words.offsets[first:last] + bounds[first:last, number] - offsets[first:last]
            items[new] = words.items[np.arange(new.start, new.stop) + np.repeat(shift, sizes[first:last])] - begin
        lists = ListDB(offsets, items, ones(len(items)), int(edges[number + 1] - begin))
        yield lists, _Bits(lists, rows)


def _split_by_cost(
    numbers: npt.NDArray[np.int64], cost: npt.NDArray[np.int64], most: int
) -> list[npt.NDArray[np.int64]]:
    """Split numbers into runs whose costs add up to at most about ``most``, of at least one number each.

    Args:
        numbers: (n,) int64, rows of ``cost``.
        cost: (num_rows,) int64.
        most: cost of a run.
    """
    if len(numbers) == 0:
        return []
    run = np.cumsum(cost[numbers], dtype=np.int64) // most
    return np.split(numbers, np.flatnonzero(np.diff(run)) + 1)


class _Bits:
    """The images of frequent words as bits, eight images a byte.

    Args:
        words: an inverted file; a list a word, of images.
        frequent: (num_frequent,) int64, the words whose lists become bits.
    """

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

    def count_common(self, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many images hold both frequent words of each pair."""
        both = self._bits[self._row[left]] & self._bits[self._row[right]]
        return np.asarray(np.bitwise_count(both.view(np.uint64)).sum(axis=1, dtype=np.int64))

    def count_in_lists(self, lists: ListDB, words: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many images of each list, of a rare word, hold the frequent word that is paired with it."""
        row = np.repeat(self._row[words], lists.sizes)
        held = (self._bits[row, lists.items >> 3] >> (lists.items & 7).astype(np.uint8)) & 1
        total = offsets_of(held)
        return total[lists.offsets[1:]] - total[lists.offsets[:-1]]
