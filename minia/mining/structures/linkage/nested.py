"""Nested linkage: structures are groups of words found together beyond chance, and parts of such groups.

Single linkage of co-occurring sets chains: one set across two structures joins them, and what all
bright images share swallows the rest. Here the sets only propose pairs of words (in small vocabularies not
even that: all pairs are tested), and each pair is tested on the images themselves, step by step:

1. Test. Under the chance model of the words and images at hand every proposed pair gets the probability of sharing
   as many images as it does. Among all words the limit is so low that chance brings a single false pair below it with
   a probability of ``false_structures`` (Bonferroni, over all pairs of words, proposed or not). Inside a group the
   limit is that of a false discovery rate of ``false_structures`` (Benjamini, Hochberg 1995), which finds more where
   much is there, and is as strict where nothing is.
2. Growth. Each word's strongest kept pair grows into a group, by the association
   ``(shared - expected) / sqrt(n_a n_b)`` of all its words, where n_a and n_b are the images that hold each of two
   words. Groups that share more than half of the smaller one are the same structure.
3. Descent. The same is done inside each group, and among the words that no group took. Inside, only
   images count that hold at least half as many words of the group as the image of a typical occurrence of
   one, and the chance model knows how many each holds: so a group whose words come and go together has no
   parts. A part of more than half of its structure is the structure itself and not told again.

With dense bags, such as hundreds of keypoints an image and a vocabulary of a thousand words, hardly a pair is
beyond chance by itself although many together are. There factor analysis, to which all pairs speak at once,
takes the place of all three steps, if it finds any factor.

Nothing is tuned to the corpus.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from minia.core.artifact import InputError
from minia.mining.lists.listdb import ListDB
from minia.mining.structures.linkage.nested_search import NO_PARENT, FoundStructure, NestedSearch
from minia.mining.structures.linkage.word_pairs import MEMORY_BUDGET

Table = dict[str, npt.NDArray[Any]]  # columns by name


def link_nested(
    sets: ListDB,
    bags: ListDB,
    *,
    false_structures: float = 0.05,
    min_structure_size: int = 3,
    memory_budget: int = MEMORY_BUDGET,
) -> tuple[ListDB, Table]:
    """Find structures and their parts.

    Args:
        sets: co-occurring sets of words; a list a set.
        bags: the bags of words they were mined from, a list an image.
        false_structures: probability that chance alone makes a structure, in 0 .. 1, both excluded.
        min_structure_size: fewest words of a structure, at least 2.
        memory_budget: bytes. The bags and all that linkage makes take together at most three times the bags'
            memory, and this much more; the sets are not counted. It changes nothing about what is found.

    Returns:
        A list a structure: words by falling frequency (ties: rising word), the frequency being the
        number of co-occurring sets that hold the word and another one of the structure, at least 1;
        structures by falling significance.
        And a table with a row a structure, as arrays by column:

        ===================  ================================================================
        structure            from 0
        parent               the structure that it is a part of, -1 for none
        num_words            its words
        num_images           images that hold it: at least half as many of its words as the
                             image of a typical occurrence of one, and its parent
        num_cooccurring_sets the sets that hold two words of it
        association          mean over its pairs of words of (shared - expected) / sqrt(n_a n_b)
        significance         shared images of all its pairs above the expected ones, in
                             standard deviations of independent pairs
        ===================  ================================================================

        In dense bags, where factor analysis finds the structures, the last two are made of correlations instead: those
        of how far each image holds the words beyond chance.

    Raises:
        InputError: a setting is out of range, sets and bags are not over the same words, or there are more
            pairs of words than the memory allows.
    """
    if not 0 < false_structures < 1 or min_structure_size < 2:
        raise InputError(
            "linkage needs a probability of false structures between 0 and 1 and a structure size of at least 2, "
            f"not {false_structures} and {min_structure_size}"
        )
    if sets.num_items != bags.num_items:
        raise InputError(f"the sets are over {sets.num_items} words, the bags over {bags.num_items}")
    with threadpool_limits(1):  # more threads would change the last digits
        found = NestedSearch(false_structures, min_structure_size, memory_budget).run(sets, bags)
    return _described(found, sets)


def _described(found: list[FoundStructure], sets: ListDB) -> tuple[ListDB, Table]:
    """Structures with the co-occurring sets that hold each word and another one of its structure."""
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
