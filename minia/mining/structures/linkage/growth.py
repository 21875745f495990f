"""Groups of words that belong together, grown from the links between words.

From a pair of words a group takes in every word whose mean association with the group is more
than half of what is strong there, and drops every other word, until nothing changes. What is
strong in a group is the mean, over its words, of a word's strongest association with any word.
So a single word or link between two groups cannot join them: each half of such a union reaches
only half of the association inside. A word may belong to several groups.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse

from minia.mining.lists.listdb import ListDB, blocks_of, offsets_of, ones

_HALF = 0.5
_MOST_ROUNDS = 30  # a group may swing between two forms: then the last one counts
_FIRST_PAIRS, _MOST_ENTRIES = 64, 1 << 22  # pairs from which groups grow at once, and links of their words
_ENTRIES_AT_A_TIME = 1 << 20
_TWO_WORDS = 8  # bytes

Associations: TypeAlias = scipy.sparse.csr_matrix | npt.NDArray[np.float32]


def grow_groups(associations: Associations, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> ListDB:
    """Grow groups from pairs of words, the first pairs first; none grows from a pair inside a group.

    Args:
        associations: (num_words, num_words) float32, symmetric, sparse or full; above 0 where two words are
            found together more often than by chance, below where less often.
        left: (num_pairs,) words of the pairs to grow from.
        right: (num_pairs,) the other words of these pairs.

    Returns:
        A list a group: words ascending, each group once.
    """
    num_words = associations.shape[0]
    grower = _Grower(associations)
    degree = grower.degree
    found: dict[bytes, None] = {}
    size = _FIRST_PAIRS
    while len(left):
        fits = np.searchsorted(np.cumsum(degree[left] + degree[right]), _MOST_ENTRIES)
        size = max(1, min(size, int(fits)))
        groups = grower.grow(left[:size], right[:size])
        found |= dict.fromkeys(groups)
        left, right = left[size:], right[size:]
        if len(left):
            inside = _inside(_lists(groups, num_words), left, right)
            left, right, size = left[~inside], right[~inside], 2 * size
    return _lists(_largest_first(found), num_words)


def distinct_groups(groups: ListDB, associations: Associations) -> ListDB:
    """Of groups that share more than half of the smaller one keep the one with most association a word.

    Args:
        groups: a list a group.
        associations: (num_words, num_words) float32, symmetric, sparse or full.

    Returns:
        The groups that are kept, those of most association a word first.
    """
    if groups.num_lists < 2:
        return groups
    membership = groups.to_scipy(binary=True)
    inner = np.asarray(membership.multiply(membership @ associations).sum(axis=1)).ravel()
    groups = groups.select(np.argsort(-inner / np.maximum(groups.sizes, 1), kind="stable"))
    membership = groups.to_scipy(binary=True)
    shared = (membership @ membership.T).tocsr()
    alive = np.ones(groups.num_lists, dtype=bool)
    for group in range(groups.num_lists):
        if alive[group]:
            entries = slice(shared.indptr[group], shared.indptr[group + 1])
            others = shared.indices[entries]
            smaller = np.minimum(groups.sizes[group], groups.sizes[others])
            alive[others[(shared.data[entries] > _HALF * smaller) & (others > group)]] = False
    return groups.select(alive)


def _inside(groups: ListDB, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which pairs have both words in one of the groups."""
    groups_of_word = groups.transpose().to_scipy(binary=True)
    return np.asarray(np.diff(groups_of_word[left].multiply(groups_of_word[right]).tocsr().indptr) > 0)


class _Grower:
    """Grows groups round by round, by the associations of words.

    A group is kept as the bytes of its words, ascending, int32. What a group becomes in a round is worked out once,
    since many pairs grow into the same groups; what has shrunk below two words is no group any more, ``b""``.
    """

    def __init__(self, associations: Associations) -> None:
        self._num_words = associations.shape[0]
        self._associations = associations
        if isinstance(associations, np.ndarray):
            self._strongest = np.maximum(associations.max(axis=1), 0)
            self.degree = np.count_nonzero(associations, axis=1)
        else:
            self._strongest = np.asarray(associations.max(axis=1).toarray(), dtype=np.float32).ravel()
            self.degree = np.diff(associations.indptr)
        self._next: dict[bytes, bytes] = {}

    def grow(self, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> list[bytes]:
        """What these pairs grow into: each group once, largest first."""
        pairs = np.sort(np.stack([left, right], axis=1), axis=1).astype(np.int32)
        groups = list(dict.fromkeys(pair.tobytes() for pair in pairs))
        for _ in range(_MOST_ROUNDS):
            new = [group for group in groups if group not in self._next]
            if new:
                self._work_out(new)
            grown = _largest_first(dict.fromkeys(filter(None, map(self._next.__getitem__, groups))))
            if grown == groups or not grown:
                return grown
            groups = grown
        return groups

    def _work_out(self, groups: list[bytes]) -> None:
        lists = _lists(groups, self._num_words)
        if isinstance(self._associations, np.ndarray):
            cost = np.arange(len(groups) + 1) * self._num_words
        else:
            cost = offsets_of(self.degree[lists.items])[lists.offsets]
        for begin, end in blocks_of(cost, _ENTRIES_AT_A_TIME):
            row, words = self._kept(lists.select(np.arange(begin, end)))
            data, bounds = words.astype(np.int32).tobytes(), 4 * np.searchsorted(row, np.arange(end - begin + 1))
            for group, first, last in zip(groups[begin:end], bounds[:-1], bounds[1:], strict=True):
                self._next[group] = data[first:last] if last - first >= _TWO_WORDS else b""

    def _kept(self, groups: ListDB) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The words that groups of the given ones keep or take in: rows, ascending, and words, ascending in a row."""
        membership = groups.to_scipy(binary=True)
        total = membership @ self._associations
        strong = _HALF * (membership @ self._strongest / groups.sizes)
        # A word of the group is compared with one other word less: the limit that is lower comes first.
        limit = strong * np.maximum(groups.sizes - 1, 1)
        lower = np.nextafter(limit.astype(np.float32), np.float32(-np.inf))
        if isinstance(total, np.ndarray):
            row, words = np.nonzero(total > lower[:, None])
            values = total[row, words]
        else:
            row = np.repeat(np.arange(groups.num_lists), np.diff(total.indptr))
            kept = np.flatnonzero(total.data > lower[row])
            row, words, values = row[kept], total.indices[kept].astype(np.int64), total.data[kept]
            order = np.lexsort((words, row))
            row, words, values = row[order], words[order], values[order]
        held = values > strong[row] * groups.sizes[row]
        near = np.flatnonzero(~held & (values > limit[row]))
        held[near] = _held(groups, row[near], words[near])
        return row[held], words[held]


def _largest_first(groups: dict[bytes, None]) -> list[bytes]:
    return sorted(groups, key=len, reverse=True)  # stable


def _lists(groups: list[bytes], num_words: int) -> ListDB:
    items = np.frombuffer(b"".join(groups), dtype=np.int32)
    return ListDB(offsets_of([len(group) // 4 for group in groups]), items, ones(len(items)), num_words)


def _held(groups: ListDB, row: npt.NDArray[np.int64], words: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether each group of ``row`` holds the word beside it."""
    width = max(1, groups.num_items)
    held = np.repeat(np.arange(groups.num_lists), groups.sizes) * width + groups.items
    return np.isin(row * width + words, held, assume_unique=True)
