"""Groups of words that belong together, grown from the links between words.

From a pair of words a group takes in every word whose mean association with the group is more
than half of what is strong there, and drops every other word, until nothing changes. What is
strong in a group is the mean, over its words, of a word's strongest association with any word.
So a single word or link between two groups cannot join them: each half of such a union reaches
only half of the association inside. A word may belong to several groups.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse

from minia.mining.linkage import unique_sets
from minia.mining.listdb import ListDB, offsets_of

_HALF = 0.5
_MOST_ROUNDS = 30  # a group may swing between two forms: then the last one counts
_FIRST_PAIRS, _MOST_ENTRIES = 64, 1 << 22  # pairs from which groups grow at once, and links of their words


def grow_groups(
    associations: scipy.sparse.csr_matrix, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]
) -> ListDB:
    """Grow groups from pairs of words, the first pairs first; none grows from a pair inside a group.

    Args:
        associations: (num_words, num_words) float32, symmetric; above 0 where two words are found
            together more often than by chance, below where less often.
        left: (num_pairs,) words of the pairs to grow from.
        right: (num_pairs,) the other words of these pairs.

    Returns:
        A list a group: words ascending, each group once.
    """
    num_words = associations.shape[0]
    strongest = np.asarray(associations.max(axis=1).toarray(), dtype=np.float32).ravel()
    degree = np.diff(associations.indptr)
    found, begin = [ListDB.from_lists([], num_words)], _FIRST_PAIRS
    size = begin
    while len(left):
        fits = np.searchsorted(np.cumsum(degree[left] + degree[right]), _MOST_ENTRIES)
        size = max(1, min(size, int(fits)))
        found.append(_grow(_pairs(left[:size], right[:size], num_words), associations, strongest))
        left, right = left[size:], right[size:]
        inside = _inside(found[-1], left, right)
        left, right, size = left[~inside], right[~inside], 2 * size
    items = np.concatenate([groups.items for groups in found])
    sizes = np.concatenate([groups.sizes for groups in found])
    return unique_sets(ListDB(offsets_of(sizes), items, np.ones_like(items), num_words))[0]


def distinct_groups(groups: ListDB, associations: scipy.sparse.csr_matrix) -> ListDB:
    """Of groups that share more than half of the smaller one keep the one with most association a word."""
    membership = groups.to_scipy(binary=True)
    inner = np.asarray((membership @ associations).multiply(membership).sum(axis=1)).ravel()
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


def _pairs(left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], num_words: int) -> ListDB:
    words = np.sort(np.stack([left, right], axis=1), axis=1).astype(np.int32).ravel()
    return ListDB(np.arange(len(left) + 1) * 2, words, np.ones_like(words), num_words)


def _inside(groups: ListDB, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which pairs have both words in one of the groups."""
    groups_of_word = groups.transpose().to_scipy(binary=True)
    return np.asarray(np.diff(groups_of_word[left].multiply(groups_of_word[right]).tocsr().indptr) > 0)


def _grow(groups: ListDB, associations: scipy.sparse.csr_matrix, strongest: npt.NDArray[np.float32]) -> ListDB:
    groups = unique_sets(groups)[0]
    for _ in range(_MOST_ROUNDS):
        membership = groups.to_scipy(binary=True)
        total = (membership @ associations).tocsr()
        row = np.repeat(np.arange(groups.num_lists), np.diff(total.indptr))
        strong = membership @ strongest / groups.sizes
        others = groups.sizes[row] - _held(groups, row, total.indices)
        kept = total.data > _HALF * strong[row] * np.maximum(others, 1)
        sizes = np.bincount(row[kept], minlength=groups.num_lists)
        items = total.indices[kept]
        grown = ListDB(offsets_of(sizes), items, np.ones_like(items), groups.num_items)
        grown = unique_sets(grown.select(sizes >= 2))[0]
        if grown == groups or grown.num_lists == 0:
            return grown
        groups = grown
    return groups


def _held(groups: ListDB, row: npt.NDArray[np.int64], words: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Whether each group of ``row`` holds the word beside it."""
    width = max(1, groups.num_items)
    held = np.repeat(np.arange(groups.num_lists), groups.sizes) * width + groups.items
    return np.isin(row * width + words, held, assume_unique=True)
