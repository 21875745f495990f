"""Nested linkage: structures are groups of words found together beyond chance, and parts of such groups.

Single linkage of co-occurring sets chains: one set across two structures joins them, and what all
bright images share swallows the rest. Here the sets only propose pairs of words (in small vocabularies not
even that: all pairs are tested), and each pair is tested on the images themselves, step by step:

1. Test. Under the chance model of the words and images at hand every
   proposed pair gets a probability. Among all words the pairs kept are those that would make one
   false pair with a probability of ``false_structures`` (Bonferroni, over ALL pairs of words, proposed or
   not); further down those of a false discovery rate of ``false_structures`` (Benjamini, Hochberg 1995),
   which finds more where much is there, and is as strict where nothing is.
2. Growth. Each word's strongest kept pair grows into a group, by the association
   ``(shared - expected) / sqrt(n_a n_b)`` of all its words. Groups
   that share more than half of the smaller one are the same structure.
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

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
from scipy.special import ndtri
from threadpoolctl import threadpool_limits

from minia.core.artifact import InputError
from minia.mining.lists.listdb import ListDB, offsets_of, ones
from minia.mining.structures.linkage.chance import Chance, deviations, fit_chance, probability_of_at_least
from minia.mining.structures.linkage.factors import are_dense, factor_groups
from minia.mining.structures.linkage.growth import Associations, distinct_groups, grow_groups
from minia.mining.structures.linkage.word_pairs import MEMORY_BUDGET, Pairs, candidate_pairs, count_shared

_ROUNDING = 1e-6  # of standard deviations
_FULL = 8  # cells a pair: 32 bytes
_ROWS_AT_A_TIME = 512
_TOP = -1  # the parent of a structure that is part of no other

Numbers = npt.NDArray[np.int64]
Integers = npt.NDArray[np.integer[Any]]
Table = dict[str, npt.NDArray[Any]]  # columns by name


@dataclass(frozen=True)
class _Node:
    """Words to look for structures in.

    Attributes:
        words: (num_words,) int64, their numbers in the vocabulary.
        lists: (num_words,) int64, their lists in the inverted file.
        images: an inverted file: a list a word, over the images that count here.
        image_sizes: (num_images,) int64, of the node's words, in each image.
        pairs: the proposed pairs among the words, by their place.
        parent: the structure that all of them are in, -1 for none.
        level: 0 for all words.
    """

    words: Numbers
    lists: Numbers
    images: ListDB
    image_sizes: Numbers
    pairs: Pairs
    parent: int
    level: int

    @property
    def sizes(self) -> Numbers:
        """Images that hold each word, (num_words,) int64."""
        return self.images.offsets[self.lists + 1] - self.images.offsets[self.lists]


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

        In dense bags the last two are of the residuals' correlations instead (see
        :func:`minia.mining.structures.linkage.factors.factor_groups`).

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
        found = _Search(false_structures, min_structure_size, memory_budget).run(sets, bags)
    return _described(found, sets)


class _Search:
    """The search for structures, from all words down."""

    def __init__(self, false_structures: float, min_structure_size: int, memory_budget: int) -> None:
        self._false = false_structures
        self._smallest = min_structure_size
        self._memory = memory_budget
        self._found: list[_Found] = []
        self._number: dict[bytes, int] = {}  # of the structure of these words

    def run(self, sets: ListDB, bags: ListDB) -> list[_Found]:
        """Structures in the order in which they are found: a parent comes before its parts."""
        images = ListDB(bags.offsets, bags.items, ones(bags.num_entries), bags.num_items).transpose()
        words = np.flatnonzero(images.sizes)
        if len(words) < images.num_lists:
            images = images.select(words)
        if are_dense(images):
            self._take_factors(words, images, bags.sizes)
            if self._found:
                return self._found
        pairs = candidate_pairs(images, _renumbered(sets, words), self._memory)
        waiting = [_Node(words, np.arange(len(words)), images, bags.sizes, pairs, _TOP, 0)]
        del pairs, images  # a node that was searched is let go
        while waiting:
            node = waiting.pop()
            waiting.extend(self._below(node, self._groups(node)))
        return self._found

    def _take_factors(self, words: Numbers, images: ListDB, image_sizes: Numbers) -> None:
        """Take down the groups of words that vary together in dense bags."""
        groups, *values = factor_groups(images, fit_chance(images.sizes, image_sizes), self._false)
        for group, association, significance in zip(groups, *values, strict=True):
            if self._smallest <= len(group) < len(words):
                num_images = int(np.count_nonzero(_holding(images.select(group))[1]))
                self._found.append(_Found(words[group], _TOP, num_images, float(association), float(significance)))

    def _groups(self, node: _Node) -> list[_Group]:
        """The groups among the words of a node, none where chance explains all pairs."""
        num_words, pairs, sizes = len(node.words), node.pairs, node.sizes
        if num_words <= self._smallest or pairs.count == 0:
            return []
        chance = fit_chance(sizes, node.image_sizes)
        associations, kept = self._tested(node, chance)
        if len(kept) == 0:
            return []
        groups = grow_groups(associations, *_strongest_pairs(pairs.select(kept), chance, sizes))
        groups = distinct_groups(groups.select(groups.sizes >= self._smallest), associations)
        del associations
        groups = groups.select((groups.sizes >= self._smallest) & (groups.sizes < num_words))
        association, excess, variance = _totals(groups, pairs, chance, sizes)
        num_pairs = groups.sizes * (groups.sizes - 1) / 2
        # Growth that swung between two forms may have ended in words that are not together.
        return [
            _Group(
                groups[group].astype(np.int64),
                float(association[group] / num_pairs[group]),
                float(excess[group] / np.sqrt(variance[group])),
            )
            for group in np.flatnonzero(excess > 0).tolist()
        ]

    def _tested(self, node: _Node, chance: Chance) -> tuple[Associations, Numbers]:
        """The associations of all pairs of a node, and the numbers of the pairs beyond chance."""
        pairs, sizes, num_words = node.pairs, node.sizes.astype(np.float64), len(node.words)
        num_all = num_words * (num_words - 1) / 2
        ranks = 1.0 if node.level == 0 else float(pairs.count)
        least = -ndtri(self._false * ranks / num_all) - _ROUNDING
        association = np.empty(pairs.count, dtype=np.float32)  # of 4 bytes: there may be millions of pairs
        candidates, beyond = [np.zeros(0, np.int64)], [np.zeros(0)]
        for part, (mean, variance) in chance.shared_in_parts(pairs.left, pairs.right):
            shared = pairs.shared[part]
            excess = shared - mean
            association[part] = excess / np.sqrt(sizes[pairs.left[part]] * sizes[pairs.right[part]])
            more = np.flatnonzero(excess > 0)
            z = deviations(shared[more], mean[more], variance[more])
            candidates.append(part.start + more[z >= least])
            beyond.append(z[z >= least])
        kept, z = np.concatenate(candidates), np.concatenate(beyond)
        while node.level > 0 and len(kept) < ranks:  # fewer can pass: so the limit is lower, and fewer still can
            ranks = float(len(kept))
            passing = z >= (-ndtri(self._false * ranks / num_all) - _ROUNDING if ranks else np.inf)
            kept, z = kept[passing], z[passing]
        left = pairs.select(kept)
        probability = probability_of_at_least(left.shared, *chance.shared_images(left.left, left.right))
        kept = kept[probability <= self._limit(probability, num_all, node.level)]
        if len(kept) == 0:
            return scipy.sparse.csr_matrix((num_words, num_words), dtype=np.float32), kept
        return _symmetric(pairs, association, num_words), kept

    def _limit(self, probability: npt.NDArray[np.float64], num_all: float, level: int) -> float:
        """The largest probability of a pair that is kept, 0 or less for none."""
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
            images = _inside(node, group.words)
            parent = self._take(node, group, images.num_items)
            if len(self._found[parent].words) < 2 * self._smallest:
                continue  # no part of it is large enough, and no more than half of it
            sizes = np.bincount(images.items, minlength=images.num_items)
            words, pairs = np.arange(len(group.words)), _pairs_inside(node, group.words, images)
            below.append(_Node(node.words[group.words], words, images, sizes, pairs, parent, node.level + 1))
        rest = np.flatnonzero(~taken)
        if groups and len(rest) > self._smallest:
            gone = node.images.select(node.lists[taken])
            sizes = node.image_sizes - np.bincount(gone.items, minlength=gone.num_items)
            pairs = node.pairs.among(rest, len(node.words))
            lists, words = node.lists[rest], node.words[rest]
            below.append(_Node(words, lists, node.images, sizes, pairs, node.parent, node.level + 1))
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
    return ListDB(offsets, items, ones(len(items)), len(words))


def _inside(node: _Node, group: Numbers) -> ListDB:
    """The inverted file of a group over the images that hold it."""
    lists = node.images.select(node.lists[group])
    used, holds = _holding(lists)
    place = np.searchsorted(used, lists.items)
    kept = holds[place]
    number = np.cumsum(holds) - 1
    word = np.repeat(np.arange(len(group)), lists.sizes)[kept]
    offsets = offsets_of(np.bincount(word, minlength=len(group)))
    items = number[place[kept]].astype(np.int32)
    return ListDB(offsets, items, ones(len(items)), int(holds.sum()))


def _pairs_inside(node: _Node, group: Numbers, images: ListDB) -> Pairs:
    """The pairs of a group over the images that hold it, whose inverted file is given."""
    pairs = node.pairs.among(group, len(node.words))
    shared = count_shared(images, pairs.left, pairs.right).astype(np.int32)
    found = (images.sizes[pairs.left] > 0) & (images.sizes[pairs.right] > 0)
    return Pairs(pairs.left, pairs.right, shared).select(found)


def _totals(groups: ListDB, pairs: Pairs, chance: Chance, sizes: Numbers) -> list[npt.NDArray[np.float64]]:
    """Association, excess and variance summed over the pairs of words of each group."""
    if groups.num_lists == 0:
        return [np.zeros(0)] * 3
    words = np.unique(groups.items).astype(np.int64)
    inside = pairs.among(words, len(sizes))
    groups_of_word = groups.transpose().to_scipy(binary=True).astype(np.float64)
    left, right = words[inside.left], words[inside.right]
    both = groups_of_word[left].multiply(groups_of_word[right]).T.tocsr()
    return [np.asarray(both @ value) for value in _excess(left, right, inside.shared, chance, sizes)]


def _holding(lists: ListDB) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """The images in the lists of some words, ascending, and which of them hold these words as a group."""
    used, held = np.unique(lists.items, return_counts=True)
    typical = (held @ held) / held.sum()
    return used, held >= typical / 2


def _excess(
    left: Integers, right: Integers, shared: Integers, chance: Chance, sizes: Numbers
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Association of pairs, their shared images above the expected ones, and the variance of these."""
    mean, variance = chance.shared_images(left, right)
    excess = shared - mean
    return excess / np.sqrt(sizes[left].astype(np.float64) * sizes[right]), excess, variance


def _symmetric(pairs: Pairs, values: npt.NDArray[np.float32], num_words: int) -> Associations:
    """Values of pairs as a matrix: a full one where it takes no more memory than a sparse one in the making."""
    offsets = np.searchsorted(pairs.left, np.arange(num_words + 1, dtype=np.int32)).astype(np.int32)
    half = scipy.sparse.csr_matrix((values, pairs.right, offsets), shape=(num_words, num_words))
    if num_words**2 > _FULL * pairs.count:
        return half + half.T.tocsr()
    full = half.toarray()
    for begin in range(0, num_words, _ROWS_AT_A_TIME):  # a block and the one across the diagonal at a time
        rows = slice(begin, begin + _ROWS_AT_A_TIME)
        full[rows, :begin] = full[:begin, rows].T
        full[rows, rows] += full[rows, rows].T.copy()
    return np.asarray(full)


def _strongest_pairs(pairs: Pairs, chance: Chance, sizes: Numbers) -> tuple[Numbers, Numbers]:
    """Each word's strongest of some pairs, every pair once, strongest first."""
    association = _excess(pairs.left, pairs.right, pairs.shared, chance, sizes)[0]
    order = np.lexsort((pairs.right, pairs.left, -association))
    words = np.stack([pairs.left[order], pairs.right[order]], axis=1).ravel()
    first = np.unique(words, return_index=True)[1] // 2  # the first pair, in this order, that holds the word
    chosen = order[np.unique(first)]
    return pairs.left[chosen].astype(np.int64), pairs.right[chosen].astype(np.int64)


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
    num_sets, significance = np.diff(holds.indptr), np.array([one.significance for one in found])
    order = np.argsort(-significance, kind="stable")
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
        "significance": significance[order].astype(np.float64),
    }
    return structures, table
