"""Linkage: co-occurring sets of visual words are clustered into structures.

Single linkage over the overlap coefficient, candidates found by min-hashing, as the Sampled
Min-Hashing programs do it (Fuentes-Pineda, Meza-Ruiz, arXiv:1807.00938, section 4.2).
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import scipy.sparse
from scipy.sparse.csgraph import connected_components

from minia.core.artifact import InputError
from minia.core.progress import progress
from minia.mining.lists.listdb import ListDB, offsets_of
from minia.mining.structures.minhash.tuple_tables import TABLES_AT_A_TIME, TupleHashing, TupleTables

ORIGINAL_HASHING = TupleHashing(tuple_size=3, num_tuples=255)
_PURPOSE = 1  # keeps these tables independent of those of mining with the same seed
_FIRST_TABLES = 2  # components form early from few tables, and spare the later ones most comparisons
_PAIRS_AT_A_TIME = 1 << 18


def cluster_sets(
    sets: ListDB,
    hashing: TupleHashing = ORIGINAL_HASHING,
    *,
    overlap: float = 0.7,
    min_cluster_size: int = 3,
) -> ListDB:
    """Cluster co-occurring sets into structures.

    In every bucket of every table the first set (of largest size, then earliest) is compared with
    the others; sets A and B are linked when ``|A n B| / min(|A|, |B|) > overlap``. A structure is a
    connected component. Equal sets are handled once, as one that counts several times.

    Args:
        sets: co-occurring sets; a list a set, no word twice in it. Frequencies are not used.
        hashing: how the pairs of sets to compare are found.
        overlap: in 0 .. 1, 1 excluded; must be exceeded.
        min_cluster_size: fewest co-occurring sets of a structure, duplicates counted, at least 1.

    Returns:
        A list a structure: words by falling frequency (ties: rising word), the frequency being the
        number of co-occurring sets of the structure that hold the word; structures by falling number of
        co-occurring sets.

    Raises:
        InputError: a setting is out of range.
    """
    if not 0 <= overlap < 1:
        raise InputError(f"the overlap must be at least 0 and below 1, not {overlap}")
    if hashing.tuple_size < 1 or hashing.num_tuples < 1 or min_cluster_size < 1:
        raise InputError(
            "clustering needs a tuple size, a number of tuples and a cluster size of at least 1, "
            f"not {hashing.tuple_size}, {hashing.num_tuples} and {min_cluster_size}"
        )
    distinct, copies = unique_sets(sets)
    tables = TupleTables(distinct, hashing, purpose=_PURPOSE)
    links = _Links(distinct, overlap)
    with progress("linking", hashing.num_tuples, "tuple") as advance:
        for begin, end in _growing_blocks(hashing.num_tuples if distinct.num_lists else 0):
            buckets = tables.buckets(begin, end, 2)
            starts = offsets_of(buckets.sizes)[:-1]
            leaders = np.repeat(buckets.members[starts], buckets.sizes)
            links.add(leaders, buckets.members)
            advance(end - begin)
    return _structures(distinct, copies, links.component, min_cluster_size)


def unique_sets(sets: ListDB) -> tuple[ListDB, npt.NDArray[np.int64]]:
    """Different non-empty sets, words ascending, and how often each occurs.

    Returns:
        The sets, largest first, equally large ones in the order of their first occurrence; and
        their numbers of copies, (num_sets,) int64.
    """
    row = np.repeat(np.arange(sets.num_lists), sets.sizes)
    keys = row * max(1, sets.num_items) + sets.items
    if np.any(np.diff(keys) < 0):
        keys.sort()
    items = keys - row * max(1, sets.num_items)
    by_size = np.argsort(-sets.sizes, kind="stable")
    sorted_sizes = -sets.sizes[by_size]
    bounds = np.flatnonzero(np.diff(sorted_sizes, prepend=1, append=1))
    chosen, copies = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for begin, end in itertools.pairwise(bounds):  # a size at a time: sets are rows of a matrix
        size = -int(sorted_sizes[begin])
        if size == 0:
            continue
        rows = by_size[begin:end]
        words = items[sets.offsets[rows][:, None] + np.arange(size)].astype(">i4")
        # Rows as strings of bytes: numpy compares and sorts them whole.
        _, first, count = np.unique(words.view(f"V{4 * size}").ravel(), return_index=True, return_counts=True)
        order = np.argsort(first)
        chosen.append(rows[first[order]])
        copies.append(count[order].astype(np.int64))
    ascending = ListDB(sets.offsets, items, np.ones(len(items), np.int32), sets.num_items)
    return ascending.select(np.concatenate(chosen)), np.concatenate(copies)


def _growing_blocks(num_tables: int) -> list[tuple[int, int]]:
    """Tables 0 .. num_tables - 1 as ranges of growing length."""
    blocks, begin, length = [], 0, _FIRST_TABLES
    while begin < num_tables:
        end = min(num_tables, begin + length)
        blocks.append((begin, end))
        begin, length = end, min(2 * length, TABLES_AT_A_TIME)
    return blocks


class _Links:
    """Connected components of sets under a growing number of compared pairs.

    Attributes:
        component: (num_sets,) int32, the component of each set.
    """

    def __init__(self, sets: ListDB, overlap: float) -> None:
        self._matrix = sets.to_scipy(binary=True)
        self._matrix.sort_indices()
        self._sizes = sets.sizes
        self._overlap = overlap
        self._failed = np.zeros(0, np.int64)  # ascending; pairs known not to overlap enough
        self.component: npt.NDArray[np.int32] = np.arange(sets.num_lists, dtype=np.int32)

    def add(self, leaders: npt.NDArray[np.int64], members: npt.NDArray[np.int64]) -> None:
        """Compare pairs of sets and join those that overlap enough; pairs already settled are skipped."""
        apart = self.component[leaders] != self.component[members]
        count = len(self._sizes)
        pairs = _distinct(leaders[apart] * count + members[apart])
        if len(self._failed):
            position = np.searchsorted(self._failed, pairs)
            position[position == len(self._failed)] = 0
            pairs = pairs[self._failed[position] != pairs]
        left, right = np.divmod(pairs, count)
        linked = self._overlapping(left, right)
        self._failed = _distinct(np.concatenate([self._failed, pairs[~linked]]))
        edges = scipy.sparse.coo_matrix(
            (np.ones(int(linked.sum()), np.int8), (self.component[left[linked]], self.component[right[linked]])),
            shape=(count, count),
        )
        self.component = connected_components(edges, directed=False)[1][self.component]

    def _overlapping(self, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        shared = np.zeros(len(left), dtype=np.int64)
        for begin in range(0, len(left), _PAIRS_AT_A_TIME):
            block = slice(begin, begin + _PAIRS_AT_A_TIME)
            common = self._matrix[left[block]].multiply(self._matrix[right[block]])
            shared[block] = np.diff(common.tocsr().indptr)
        return shared / np.minimum(self._sizes[left], self._sizes[right]) > self._overlap


def _distinct(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Different keys, ascending; by sorting, ten times as fast as the hash table behind numpy's unique."""
    keys = np.sort(keys)
    return keys[np.diff(keys, prepend=-1) > 0]


def _structures(
    sets: ListDB, copies: npt.NDArray[np.int64], component: npt.NDArray[np.int32], min_cluster_size: int
) -> ListDB:
    """Components of enough co-occurring sets, as lists of words with the number of sets that hold each."""
    mined = np.bincount(component, weights=copies).astype(np.int64)
    first = np.unique(component, return_index=True)[1]
    kept = np.flatnonzero(mined >= min_cluster_size)
    kept = kept[np.lexsort((first[kept], -mined[kept]))]
    membership = scipy.sparse.csr_matrix(
        (copies, (component, np.arange(sets.num_lists))), shape=(len(mined), sets.num_lists)
    )
    words = (membership[kept] @ sets.to_scipy(binary=False)).tocsr()
    row = np.repeat(np.arange(len(kept)), np.diff(words.indptr))
    order = np.lexsort((words.indices, -words.data, row))
    return ListDB(words.indptr, words.indices[order], words.data[order], sets.num_items)
