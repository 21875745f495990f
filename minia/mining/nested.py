"""Nested linkage: structures are groups of words found together beyond chance, and parts of such groups.

Single linkage of co-occurring sets chains: one set across two structures joins them, and what all
bright images share swallows the rest. Here the sets only propose pairs of words (in small vocabularies not
even that, see :func:`minia.mining.word_pairs.candidate_pairs`), and each pair is tested on the images
themselves, step by step:

1. Test. Under the chance model of the words and images at hand (see :mod:`minia.mining.chance`) every
   proposed pair gets a probability. Among all words the pairs kept are those that would make one
   false pair with a probability of ``false_structures`` (Bonferroni, over ALL pairs of words, proposed or
   not); further down those of a false discovery rate of ``false_structures`` (Benjamini, Hochberg 1995),
   which finds more where much is there, and is as strict where nothing is.
2. Growth. Each word's strongest kept pair grows into a group, by the association
   ``(shared - expected) / sqrt(n_a n_b)`` of all its words (see :mod:`minia.mining.growth`). Groups
   that share more than half of the smaller one are the same structure.
3. Descent. The same is done inside each group, and among the words that no group took. Inside, only
   images count that hold at least half as many words of the group as the image of a typical occurrence of
   one, and the chance model knows how many each holds: so a group whose words come and go together has no
   parts. A part of more than half of its structure is the structure itself and not told again.

With dense bags, such as hundreds of keypoints an image and a vocabulary of a thousand words, hardly a pair is
beyond chance by itself although many together are. There factor analysis, to which all pairs speak at once,
takes the place of all three steps, if it finds any factor (see :mod:`minia.mining.factors`).

Nothing is tuned to the corpus.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from minia.mining.chance import fit_chance, probability_of_at_least
from minia.mining.factors import are_dense, factor_groups
from minia.mining.growth import distinct_groups, grow_groups
from minia.mining.listdb import ListDB, offsets_of
from minia.mining.word_pairs import candidate_pairs, count_shared
from minia.stage import InputError

_TOP = -1  # the parent of a structure that is part of no other

Numbers = npt.NDArray[np.int64]
Table = dict[str, npt.NDArray[Any]]  # columns by name


@dataclass(frozen=True)
class _Pairs:
    """Pairs of words of one set of words, by their place in it, and the images that hold both."""

    left: Numbers
    right: Numbers
    shared: Numbers

    def among(self, words: Numbers, num_words: int) -> _Pairs:
        """Those among the given ones of ``num_words`` words, renumbered."""
        place = np.full(num_words, -1)
        place[words] = np.arange(len(words))
        left, right = place[self.left], place[self.right]
        kept = (left >= 0) & (right >= 0)
        return _Pairs(left[kept], right[kept], self.shared[kept])


@dataclass(frozen=True)
class _Node:
    """Words to look for structures in.

    Attributes:
        words: (num_words,) int64, their numbers in the vocabulary.
        images: the inverted file: a list a word, over the images that count here.
        pairs: the proposed pairs among the words.
        parent: the structure that all of them are in, -1 for none.
        level: 0 for all words.
    """

    words: Numbers
    images: ListDB
    pairs: _Pairs
    parent: int
    level: int


@dataclass(frozen=True)
class _Group:
    """A group of words found in a node, by their place in it."""

    words: Numbers
    association: float
    significance: float


@dataclass(frozen=True)
class _Found:
    words: Numbers
    parent: int
    num_images: int
    association: float
    significance: float


def link_nested(
    sets: ListDB, bags: ListDB, *, false_structures: float = 0.05, min_structure_size: int = 3
) -> tuple[ListDB, Table]:
    """Find structures and their parts.

    Args:
        sets: co-occurring sets of words; a list a set.
        bags: the bags of words they were mined from, a list an image.
        false_structures: probability that chance alone makes a structure, in 0 .. 1, both excluded.
        min_structure_size: fewest words of a structure, at least 2.

    Returns:
        A list a structure: words by falling frequency (ties: rising word), the frequency being the
        number of co-occurring sets that hold the word and another one of the structure, at least 1;
        structures by falling number of co-occurring sets that hold two words of them.
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
                             standard deviations of independent pairs; in dense bags it can be
                             below 0: words that vary alike in one factor may be apart in others
        ===================  ================================================================

    Raises:
        InputError: a setting is out of range, or sets and bags are not over the same words.
    """
    if not 0 < false_structures < 1 or min_structure_size < 2:
        raise InputError(
            "linkage needs a probability of false structures between 0 and 1 and a structure size of at least 2, "
            f"not {false_structures} and {min_structure_size}"
        )
    if sets.num_items != bags.num_items:
        raise InputError(f"the sets are over {sets.num_items} words, the bags over {bags.num_items}")
    found = _Search(false_structures, min_structure_size).run(sets, bags)
    return _described(found, sets)


class _Search:
    """The search for structures, from all words down."""

    def __init__(self, false_structures: float, min_structure_size: int) -> None:
        self._false = false_structures
        self._smallest = min_structure_size
        self._found: list[_Found] = []
        self._number: dict[bytes, int] = {}  # of the structure of these words

    def run(self, sets: ListDB, bags: ListDB) -> list[_Found]:
        """Structures in the order in which they are found: a parent comes before its parts."""
        inverted = bags.transpose()
        words = np.flatnonzero(inverted.sizes)
        images = inverted.select(words)
        pairs = _Pairs(*candidate_pairs(images, _renumbered(sets, words)))
        top = _Node(words, images, pairs, _TOP, 0)
        if are_dense(images):
            self._below(top, self._groups(top, dense=True))
        waiting = [] if self._found else [top]
        while waiting:
            node = waiting.pop()
            waiting.extend(self._below(node, self._groups(node)))
        return self._found

    def _groups(self, node: _Node, dense: bool = False) -> list[_Group]:
        """The groups among the words of a node, none where chance explains all pairs."""
        num_words, pairs = len(node.words), node.pairs
        if num_words <= self._smallest or len(pairs.left) == 0:
            return []
        sizes = node.images.sizes
        chance = fit_chance(sizes, np.bincount(node.images.items, minlength=node.images.num_items))
        mean, variance = chance.shared_images(pairs.left, pairs.right)
        excess = pairs.shared - mean
        more, probability = excess > 0, np.ones(len(excess))
        probability[more] = probability_of_at_least(pairs.shared[more], mean[more], variance[more])
        association = excess / np.sqrt(sizes[pairs.left].astype(np.float64) * sizes[pairs.right])
        associations = _symmetric(pairs, association, num_words).astype(np.float32)
        if dense:
            groups = factor_groups(node.images, chance, self._false)
        else:
            kept = (probability <= self._limit(probability, num_words, node.level)) & more
            groups = grow_groups(associations, *_strongest_pairs(pairs, association, np.flatnonzero(kept)))
            groups = distinct_groups(groups.select(groups.sizes >= self._smallest), associations)
        groups = groups.select((groups.sizes >= self._smallest) & (groups.sizes < num_words))
        membership = groups.to_scipy(binary=True).astype(np.float64)
        total = [_inner(membership, _symmetric(pairs, values, num_words)) for values in (association, excess, variance)]
        num_pairs = groups.sizes * (groups.sizes - 1) / 2
        return [
            _Group(groups[group].astype(np.int64), float(mean_association), float(significance))
            for group, (mean_association, significance) in enumerate(
                zip(total[0] / num_pairs, total[1] / np.sqrt(total[2]), strict=True)
            )
        ]

    def _limit(self, probability: npt.NDArray[np.float64], num_words: int, level: int) -> float:
        """The largest probability of a pair that is kept, 0 or less for none."""
        num_all = num_words * (num_words - 1) / 2
        if level == 0:
            return self._false / num_all
        ranked = np.sort(probability)
        passing = np.flatnonzero(ranked <= self._false * np.arange(1, len(ranked) + 1) / num_all)
        return float(ranked[passing[-1]]) if len(passing) else -1.0

    def _below(self, node: _Node, groups: list[_Group]) -> list[_Node]:
        """Take down the groups of a node, and make the nodes to search next: the last one first."""
        below, taken = [], np.zeros(len(node.words), dtype=bool)
        for group in groups:
            taken[group.words] = True
            inside, num_images = _inside(node, group.words)
            parent = self._take(node, group, num_images)
            below.append(_Node(node.words[group.words], inside[0], inside[1], parent, node.level + 1))
        rest = np.flatnonzero(~taken)
        if groups and len(rest) > self._smallest:
            pairs = node.pairs.among(rest, len(node.words))
            below.append(_Node(node.words[rest], node.images.select(rest), pairs, node.parent, node.level + 1))
        return below[::-1]

    def _take(self, node: _Node, group: _Group, num_images: int) -> int:
        """The number of the structure of these words: a new one, or its parent where it is most of it."""
        words = node.words[group.words]
        if node.parent != _TOP and 2 * len(words) > len(self._found[node.parent].words):
            return node.parent
        number = self._number.setdefault(words.tobytes(), len(self._found))
        if number == len(self._found):
            self._found.append(_Found(words, node.parent, num_images, group.association, group.significance))
        return number


def _renumbered(sets: ListDB, words: Numbers) -> ListDB:
    """The sets over the given words alone, by their place among these."""
    place = np.full(sets.num_items, -1, dtype=np.int32)
    place[words] = np.arange(len(words), dtype=np.int32)
    items = place[sets.items]
    offsets = offsets_of(items >= 0)[sets.offsets]
    items = items[items >= 0]
    return ListDB(offsets, items, np.ones_like(items), len(words))


def _inside(node: _Node, group: Numbers) -> tuple[tuple[ListDB, _Pairs], int]:
    """The inverted file and the pairs of a group over the images that hold it, and how many these are."""
    lists = node.images.select(group)
    held = np.bincount(lists.items, minlength=lists.num_items).astype(np.float64)
    typical = (held @ held) / held.sum()
    holds = held >= typical / 2
    number = np.cumsum(holds) - 1
    kept = holds[lists.items]
    word = np.repeat(np.arange(len(group)), lists.sizes)[kept]
    items = number[lists.items[kept]].astype(np.int32)
    offsets = offsets_of(np.bincount(word, minlength=len(group)))
    images = ListDB(offsets, items, np.ones_like(items), int(holds.sum()))
    pairs = node.pairs.among(group, len(node.words))
    found = (images.sizes[pairs.left] > 0) & (images.sizes[pairs.right] > 0)
    left, right = pairs.left[found], pairs.right[found]
    return (images, _Pairs(left, right, count_shared(images, left, right))), images.num_items


def _symmetric(pairs: _Pairs, values: npt.NDArray[np.float64], num_words: int) -> scipy.sparse.csr_matrix:
    half = scipy.sparse.csr_matrix((values, (pairs.left, pairs.right)), shape=(num_words, num_words))
    return (half + half.T).tocsr()


def _inner(membership: scipy.sparse.csr_matrix, values: scipy.sparse.csr_matrix) -> npt.NDArray[np.float64]:
    """The sum over the pairs of words of each group."""
    return np.asarray((membership @ values).multiply(membership).sum(axis=1)).ravel() / 2


def _strongest_pairs(pairs: _Pairs, association: npt.NDArray[np.float64], kept: Numbers) -> tuple[Numbers, Numbers]:
    """Each word's strongest of the kept pairs, every pair once, strongest first."""
    order = kept[np.lexsort((pairs.right[kept], pairs.left[kept], -association[kept]))]
    words = np.stack([pairs.left[order], pairs.right[order]], axis=1).ravel()
    first = np.unique(words, return_index=True)[1] // 2  # the first pair, in this order, that holds the word
    chosen = order[np.unique(first)]
    return pairs.left[chosen], pairs.right[chosen]


def _described(found: list[_Found], sets: ListDB) -> tuple[ListDB, Table]:
    """Structures with the co-occurring sets that hold each word and another one of its structure."""
    groups = ListDB.from_lists([one.words.tolist() for one in found], sets.num_items)
    membership, mined = groups.to_scipy(binary=False), sets.to_scipy(binary=False)
    holds = (membership @ mined.T).tocsr()
    holds.data = (holds.data >= 2).astype(np.int32)
    holds.eliminate_zeros()
    # A word that grew into the structure without ever sharing a set with its words keeps a frequency of 1.
    words = (membership + (holds @ mined).multiply(membership)).tocsr()
    words.data = np.maximum(words.data - 1, 1)
    num_sets = np.diff(holds.indptr)
    order = np.argsort(-num_sets, kind="stable")
    words = words[order]
    row = np.repeat(np.arange(groups.num_lists), np.diff(words.indptr))
    by_frequency = np.lexsort((words.indices, -words.data, row))
    structures = ListDB(words.indptr, words.indices[by_frequency], words.data[by_frequency], sets.num_items)
    number = np.empty(len(found) + 1, dtype=np.int64)
    number[order], number[_TOP] = np.arange(len(found)), _TOP
    ordered = [found[one] for one in order]
    table: Table = {
        "structure": np.arange(len(found)),
        "parent": number[np.array([one.parent for one in ordered], dtype=np.int64)],
        "num_words": groups.sizes[order],
        "num_images": np.array([one.num_images for one in ordered], dtype=np.int64),
        "num_cooccurring_sets": num_sets[order],
        "association": np.array([one.association for one in ordered], dtype=np.float64),
        "significance": np.array([one.significance for one in ordered], dtype=np.float64),
    }
    return structures, table
