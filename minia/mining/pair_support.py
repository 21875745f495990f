"""Linkage by pairs of words: structures are groups of words that occur together beyond chance.

Single linkage of co-occurring sets chains: one set across two structures joins them. Here mining only
proposes pairs of words (those that share a co-occurring set). Each pair is then tested on the images
themselves, and structures grow in the graph of the pairs that pass:

1. Test. If words kept to no company, images i with more words would still hold more pairs. With
   image sizes s_i kept (the configuration model of random graphs), words of n_a and n_b images
   share on average ``E = n_a n_b sum s_i (s_i - 1) / (sum s_i)^2`` images, about Poisson
   distributed. The pairs kept are those of a false discovery rate (Benjamini, Hochberg 1995)
   among ALL pairs of words, proposed or not: nothing needs tuning to the corpus.
2. Growth. From the common neighbours of a pair, a group takes in every word linked to more than
   half of the group, and drops the others, until nothing changes. A single word or link between
   two groups cannot join them, and a word may belong to several groups.
3. Choice. Groups that share more than half of the smaller one are the same structure: the one of
   the strongest links stays.

Known limits: a co-occurring set of k words proposes k (k - 1) / 2 pairs. And where images differ in
more than their size (thousands of keypoints an image, of which a varying part is noise), one such
difference links hundreds of words, which then are one structure:
on the 1,700 galaxies with 1,000 words, one of 326 words beside ten of 3 to 12.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse
from scipy.special import pdtrc

from minia.mining.linkage import unique_sets
from minia.mining.listdb import ListDB, offsets_of
from minia.stage import InputError

_ENTRIES_AT_A_TIME = 1 << 22
_FREQUENT = 64  # words in more than 1 of so many images are kept as bits: no more bytes than 8 times the entries
_FIRST_PAIRS, _MOST_PAIRS = 64, 4096  # pairs from which groups grow at once
_MOST_ROUNDS = 20


def link_by_support(
    sets: ListDB, bags: ListDB, *, false_discovery_rate: float = 0.01, min_structure_size: int = 3
) -> ListDB:
    """Find structures: groups of words of which most pairs occur together more often than by chance.

    Args:
        sets: co-occurring sets of words; a list a set.
        bags: the bags of words they were mined from, a list an image.
        false_discovery_rate: expected share of chance among the linked pairs, in 0 .. 1, both excluded.
        min_structure_size: fewest words of a structure, at least 2.

    Returns:
        A list a structure: words by falling frequency (ties: rising word), the frequency being the
        number of co-occurring sets that hold the word and another one of the structure; structures by
        falling number of co-occurring sets that hold two words of it.

    Raises:
        InputError: a setting is out of range, or sets and bags are not over the same words.
    """
    if not 0 < false_discovery_rate < 1 or min_structure_size < 2:
        raise InputError(
            "linkage needs a false discovery rate between 0 and 1 and a structure size of at least 2, "
            f"not {false_discovery_rate} and {min_structure_size}"
        )
    if sets.num_items != bags.num_items:
        raise InputError(f"the sets are over {sets.num_items} words, the bags over {bags.num_items}")
    left, right = proposed_pairs(sets)
    strength = pair_strengths(bags, left, right, false_discovery_rate)
    linked = np.flatnonzero(strength > 0)
    graph = _Graph(left[linked], right[linked], strength[linked], bags.num_items)
    groups = graph.distinct(graph.groups())
    return _structures(groups.select(groups.sizes >= min_structure_size), sets)


def proposed_pairs(sets: ListDB) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pairs of words that share a co-occurring set, the smaller word first, each pair once."""
    distinct, _ = unique_sets(sets)
    membership = distinct.to_scipy(binary=False)
    pairs = scipy.sparse.triu(membership.T @ membership, 1).tocoo()
    return pairs.row.astype(np.int64), pairs.col.astype(np.int64)


def pair_strengths(
    bags: ListDB, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], false_discovery_rate: float
) -> npt.NDArray[np.float64]:
    """How much more alike two words are than by chance, where that is significant.

    Returns:
        (num_pairs,) float64: shared images above the expected ones, as a share of the images that
        hold either word; 0 for pairs that chance explains.
    """
    words = bags.transpose()
    shared = count_shared(words, left, right)
    sizes = bags.sizes.astype(np.float64)
    held_left, held_right = words.sizes[left].astype(np.float64), words.sizes[right].astype(np.float64)
    expected = held_left * held_right * (sizes @ (sizes - 1)) / max(1.0, sizes.sum() ** 2)
    chance = pdtrc(shared - 1, expected)  # probability of at least as many
    num_all = bags.num_items * (bags.num_items - 1) / 2
    ranked = np.sort(chance)
    passing = np.flatnonzero(ranked <= false_discovery_rate * np.arange(1, len(ranked) + 1) / num_all)
    if len(passing) == 0:
        return np.zeros(len(left))
    excess = (shared - expected) / (held_left + held_right - shared)
    return np.where(chance <= ranked[passing[-1]], np.maximum(excess, np.finfo(np.float64).tiny), 0.0)


def count_shared(words: ListDB, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Images that hold both words of each pair, (num_pairs,) int64.

    Args:
        words: the inverted file; a list a word, images ascending.
        left: (num_pairs,) words.
        right: (num_pairs,) words.
    """
    swap = words.sizes[left] > words.sizes[right]
    rarer, commoner = np.where(swap, right, left), np.where(swap, left, right)
    frequent = words.sizes * _FREQUENT > words.num_items
    shared = np.zeros(len(left), dtype=np.int64)
    lookup = frequent[commoner]
    bits = _Bits(words, np.flatnonzero(frequent))
    for part in _parts(np.flatnonzero(lookup), words.sizes[rarer]):
        shared[part] = bits.count(words.select(rarer[part]), commoner[part])
    matrix = words.to_scipy(binary=True)
    for part in _parts(np.flatnonzero(~lookup), words.sizes[left] + words.sizes[right]):
        shared[part] = np.diff(matrix[rarer[part]].multiply(matrix[commoner[part]]).tocsr().indptr)
    return shared


def _parts(pairs: npt.NDArray[np.int64], entries: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Split pairs into parts of a bounded number of entries (at least one pair each)."""
    if len(pairs) == 0:
        return []
    part = np.cumsum(entries[pairs]) // _ENTRIES_AT_A_TIME
    return np.split(pairs, np.flatnonzero(np.diff(part)) + 1)


class _Bits:
    """Images of frequent words as bits: a byte tells of eight images."""

    def __init__(self, words: ListDB, frequent: npt.NDArray[np.int64]) -> None:
        self._row = np.zeros(words.num_lists, dtype=np.int64)
        self._row[frequent] = np.arange(len(frequent))
        self._bits = np.zeros((len(frequent), words.num_items // 8 + 1), dtype=np.uint8)
        for row, word in enumerate(frequent):
            held = np.zeros(8 * self._bits.shape[1], dtype=bool)
            held[words[word]] = True
            self._bits[row] = np.packbits(held, bitorder="little")

    def count(self, lists: ListDB, words: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many images of each list hold the frequent word beside it."""
        row = np.repeat(self._row[words], lists.sizes)
        held = (self._bits[row, lists.items >> 3] >> (lists.items & 7).astype(np.uint8)) & 1
        total = offsets_of(held)
        return total[lists.offsets[1:]] - total[lists.offsets[:-1]]


class _Graph:
    """Words linked in pairs, and the groups that grow in it."""

    def __init__(
        self,
        left: npt.NDArray[np.int64],
        right: npt.NDArray[np.int64],
        strength: npt.NDArray[np.float64],
        num_words: int,
    ) -> None:
        order = np.lexsort((right, left, -strength))  # the strongest links first
        self._left, self._right = left[order], right[order]
        half = scipy.sparse.csr_matrix((strength, (left, right)), shape=(num_words, num_words))
        self._strength = (half + half.T).tocsr()
        links = self._strength.copy()
        links.data = np.ones_like(links.data)
        self._near = (links + scipy.sparse.identity(num_words, format="csr")).astype(np.int32)
        self._num_words = num_words

    def groups(self) -> ListDB:
        """Groups grown from the links, a list a group; from links inside a group none grows again."""
        found: list[ListDB] = []
        left, right, size = self._left, self._right, _FIRST_PAIRS
        while len(left):
            common = self._near[left[:size]].multiply(self._near[right[:size]]).tocsr()
            grown = self._grow(self._as_lists(common))
            found.append(grown)
            left, right = left[size:], right[size:]
            groups_of_word = grown.transpose().to_scipy(binary=True)
            inside = np.diff(groups_of_word[left].multiply(groups_of_word[right]).tocsr().indptr) > 0
            left, right, size = left[~inside], right[~inside], min(2 * size, _MOST_PAIRS)
        if not found:
            return ListDB.from_lists([], self._num_words)
        sizes = np.concatenate([grown.sizes for grown in found])
        items = np.concatenate([grown.items for grown in found])
        return unique_sets(ListDB(offsets_of(sizes), items, np.ones_like(items), self._num_words))[0]

    def _grow(self, groups: ListDB) -> ListDB:
        for _ in range(_MOST_ROUNDS):  # a group may swing between two forms: then the last one counts
            links = (groups.to_scipy(binary=False) @ self._near).tocsr()
            row = np.repeat(np.arange(groups.num_lists), np.diff(links.indptr))
            links.data = np.where(2 * links.data > groups.sizes[row], 1, 0).astype(np.int32)
            links.eliminate_zeros()
            grown = self._as_lists(links)
            if grown == groups:
                break
            groups = grown
        return groups

    def _as_lists(self, matrix: scipy.sparse.csr_matrix) -> ListDB:
        """The different non-empty rows of a matrix, as lists of words."""
        ones = np.ones(matrix.nnz, dtype=np.int32)
        return unique_sets(ListDB(matrix.indptr, matrix.indices, ones, self._num_words))[0]

    def distinct(self, groups: ListDB) -> ListDB:
        """Of groups that share more than half of the smaller one the one of the strongest links."""
        membership = groups.to_scipy(binary=True)
        inner = np.asarray((membership @ self._strength).multiply(membership).sum(axis=1)).ravel()
        groups = groups.select(np.argsort(-inner / np.maximum(groups.sizes, 1), kind="stable"))
        membership = groups.to_scipy(binary=True)
        shared = (membership @ membership.T).tocsr()
        alive = np.ones(groups.num_lists, dtype=bool)
        for group in range(groups.num_lists):
            if alive[group]:
                entries = slice(shared.indptr[group], shared.indptr[group + 1])
                others = shared.indices[entries]
                smaller = np.minimum(groups.sizes[group], groups.sizes[others])
                alive[others[(2 * shared.data[entries] > smaller) & (others > group)]] = False
        return groups.select(alive)


def _structures(groups: ListDB, sets: ListDB) -> ListDB:
    """Groups of words with the co-occurring sets that hold each word and another one of its group."""
    membership, mined = groups.to_scipy(binary=False), sets.to_scipy(binary=False)
    holds = (membership @ mined.T).tocsr()
    holds.data = (holds.data >= 2).astype(np.int32)
    holds.eliminate_zeros()
    words = (holds @ mined).multiply(membership).tocsr()
    by_sets = np.argsort(-np.diff(holds.indptr), kind="stable")
    words = words[by_sets]
    row = np.repeat(np.arange(groups.num_lists), np.diff(words.indptr))
    order = np.lexsort((words.indices, -words.data, row))
    return ListDB(words.indptr, words.indices[order], words.data[order], sets.num_items)
