"""Nested linkage: structures are groups of words found together beyond chance, and parts of such groups.

Single linkage of co-occurring sets chains: one set across two structures joins them, and what all
bright images share swallows the rest. Here the sets only propose pairs of words (in small vocabularies not
even that: all pairs are tested), and each pair is tested on the images themselves, step by step:

1. Test. Under the chance model of the words and images at hand every proposed pair gets the probability of sharing
   as many images as it does. Among all words the limit is so low that chance brings a single false pair below it with
   a probability of ``false_structures`` (Bonferroni, over all pairs of words, proposed or not). The probability is that
   of draws without replacement, since it is known how many images hold each of the two words. Inside a group the
   limit is that of a false discovery rate of ``false_structures`` (Benjamini, Hochberg 1995), which finds more where
   much is there, and is as strict where nothing is.
2. Growth. Each word's strongest kept pair grows into a group, by the association
   ``(shared - expected) / sqrt(n_a n_b)`` of all its words, where n_a and n_b are the images that hold each of two
   words. Groups that share more than half of the smaller one are the same structure.
3. Descent. The same is done inside each group, and among the words that no group took. Inside, only
   images count that hold at least half as many words of the group as the image of a typical occurrence of
   one, and the chance model knows how many each holds: so a group whose words come and go together has no
   parts. A part of more than half of its structure is the structure itself and not told again.

What is neither strong (an association of 0.1) nor sure (a significance of 8) is left out at every step, since the
chance model is not exact: it lets an image's number of words raise all words' odds alike.

In dense bags, such as thousands of keypoints an image and a vocabulary of a thousand words, hardly a pair is
beyond chance by itself although many together are. A larger vocabulary makes them sparse; who wants few, coarse groups
gets them from :mod:`minia.mining.structures.linkage.factors`, to which all pairs speak at once.

Nothing is tuned to the corpus.
"""

from __future__ import annotations

from threadpoolctl import threadpool_limits

from minia.core.artifact import InputError
from minia.mining.lists.listdb import ListDB
from minia.mining.structures.linkage.found import Table, describe
from minia.mining.structures.linkage.nested_search import NestedSearch
from minia.mining.structures.linkage.word_pairs import MEMORY_BUDGET


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
    return describe(found, sets)
