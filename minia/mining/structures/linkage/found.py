"""Structures as a linkage finds them, and what is told of them: their lists of words and a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minia.mining.lists.listdb import ListDB

NO_PARENT = -1  # the parent of a structure that is part of no other

Int64s = npt.NDArray[np.int64]
Table = dict[str, npt.NDArray[Any]]  # columns by name


@dataclass(frozen=True)
class FoundStructure:
    """A structure as a linkage finds it.

    Attributes:
        words: (num_words,) int64, their numbers in the vocabulary.
        parent: the number of the structure that it is a part of, in the order of finding; -1 for none.
        num_images: images that hold it.
        association: mean over its pairs of words.
        significance: in standard deviations of what chance alone would give.
    """

    words: Int64s
    parent: int
    num_images: int
    association: float
    significance: float


def holding_images(lists: ListDB) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """The images in the lists of some words, ascending, and which of them hold these words as a group."""
    used, held = np.unique(lists.items, return_counts=True)
    typical = (held @ held) / held.sum()
    return used, held >= typical / 2


def describe(found: list[FoundStructure], sets: ListDB) -> tuple[ListDB, Table]:
    """Structures with the co-occurring sets that hold each word and another one of its structure.

    Args:
        found: the structures; a parent comes before its parts.
        sets: co-occurring sets of words; a list a set.

    Returns:
        Lists and table as of :func:`minia.mining.structures.linkage.nested.link_nested`.
    """
    groups = ListDB.from_lists([one.words.tolist() for one in found], sets.num_items)
    membership, mined = groups.to_scipy(binary=False), sets.to_scipy(binary=False)
    holds = (membership @ mined.T).tocsr()
    holds.data = (holds.data >= 2).astype(np.int32)
    holds.eliminate_zeros()
    # A word that grew into the structure without ever sharing a set with its words keeps a frequency of 1.
    words = (membership + (holds @ mined).multiply(membership)).tocsr()
    words.data = np.maximum(words.data - 1, 1)
    num_sets, significance = np.diff(holds.indptr), np.array([one.significance for one in found])
    order = np.argsort(-significance, kind="stable")
    words = words[order]
    row = np.repeat(np.arange(groups.num_lists), np.diff(words.indptr))
    by_frequency = np.lexsort((words.indices, -words.data, row))
    structures = ListDB(words.indptr, words.indices[by_frequency], words.data[by_frequency], sets.num_items)
    number = np.empty(len(found) + 1, dtype=np.int64)
    number[order], number[NO_PARENT] = np.arange(len(found)), NO_PARENT
    ordered = [found[one] for one in order]
    table: Table = {
        "structure": np.arange(len(found)),
        "parent": number[np.array([one.parent for one in ordered], dtype=np.int64)],
        "num_words": groups.sizes[order],
        "num_images": np.array([one.num_images for one in ordered], dtype=np.int64),
        "num_cooccurring_sets": num_sets[order],
        "association": np.array([one.association for one in ordered], dtype=np.float64),
        "significance": significance[order].astype(np.float64),
    }
    return structures, table
