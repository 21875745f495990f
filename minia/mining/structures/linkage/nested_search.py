"""The search for nested structures, from all words down to the parts of parts.

A *node* of the search is a set of words with the images that count for them: first all words and all images, then each
structure found and the images that hold it, and the words that are in no structure. In a node all pairs of words are
tested against chance, groups grow from the pairs beyond it, and each group is a structure and a new node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from minia.mining.lists.listdb import ListDB, offsets_of, ones
from minia.mining.structures.linkage.chance import Chance, fit_chance
from minia.mining.structures.linkage.found import NO_PARENT, FoundStructure, holding_images
from minia.mining.structures.linkage.growth import Associations, distinct_groups, grow_groups
from minia.mining.structures.linkage.pair_test import Draws, HypergeometricTest
from minia.mining.structures.linkage.word_pairs import WordPairs, candidate_pairs, count_shared

# A group that is below both is left out. What the chance model leaves out is beyond chance too, but weak: parts found
# in planted sets, which have none, had an association of at most 0.09 and a significance of at most 5.1 (1,500 images,
# 24 corpora), structures of dense bags of chance at most 0.07 and 6.4 (800 images, 200 corpora).
_WEAK, _SURE = 0.1, 8.0
_FULL = 8  # cells a pair: 32 bytes
_ROWS_AT_A_TIME = 512

Int64s = npt.NDArray[np.int64]
Integers = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Node:
    """Words to look for structures in.

    Attributes:
        words: (num_words,) int64, their numbers in the vocabulary.
        lists: (num_words,) int64, their lists in the inverted file ``images``.
        images: an inverted file: a list a word, of the images that count here and hold it.
        image_sizes: (num_images,) int64, how many of the node's words each image holds.
        pairs: the proposed pairs of words, by their positions among the node's words.
        parent: the structure that all of them are in, -1 for none.
        depth: 0 for all words, and one more in each step of the descent.
    """

    words: Int64s
    lists: Int64s
    images: ListDB
    image_sizes: Int64s
    pairs: WordPairs
    parent: int
    depth: int

    @property
    def sizes(self) -> Int64s:
        """Images that hold each word, (num_words,) int64."""
        return self.images.offsets[self.lists + 1] - self.images.offsets[self.lists]


@dataclass(frozen=True)
class _Group:
    """A group of words found in a node.

    Attributes:
        words: (num_words,) int64, their positions among the node's words.
        association: mean over its pairs of words.
        significance: in standard deviations of what chance alone would give.
    """

    words: Int64s
    association: float
    significance: float


class NestedSearch:
    """The search for structures, from all words down.

    Args:
        false_structures: probability that chance alone makes a structure, in 0 .. 1, both excluded.
        min_structure_size: fewest words of a structure, at least 2.
        memory_budget: bytes that the pairs of words and what is made of them may take.
    """

    def __init__(self, false_structures: float, min_structure_size: int, memory_budget: int) -> None:
        self._false = false_structures
        self._smallest = min_structure_size
        self._memory = memory_budget
        self._found: list[FoundStructure] = []
        self._number: dict[bytes, int] = {}  # of the structure of these words
        self._test = HypergeometricTest(0)

    def run(self, sets: ListDB, bags: ListDB) -> list[FoundStructure]:
        """Structures in the order in which they are found: a parent comes before its parts."""
        images = ListDB(bags.offsets, bags.items, ones(bags.num_entries), bags.num_items).transpose()
        words = np.flatnonzero(images.sizes)
        if len(words) < images.num_lists:
            images = images.select(words)
        pairs = candidate_pairs(images, _renumbered(sets, words), self._memory)
        self._test = HypergeometricTest(bags.num_lists)
        waiting = [_Node(words, np.arange(len(words)), images, bags.sizes, pairs, NO_PARENT, 0)]
        del pairs, images  # a node that was searched is let go
        while waiting:
            node = waiting.pop()
            waiting.extend(self._next_nodes(node, self._groups(node)))
        return self._found

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
        totals, excess, variance = _totals(groups, pairs, chance, sizes)
        association = 2 * totals / (groups.sizes * (groups.sizes - 1.0))
        significance = excess / np.sqrt(np.maximum(variance, np.finfo(float).tiny))
        together = excess > 0  # growth that swung between two forms may have ended in words that are not
        together &= (association >= _WEAK) | (significance >= _SURE)
        return [
            _Group(groups[group].astype(np.int64), float(association[group]), float(significance[group]))
            for group in np.flatnonzero(together).tolist()
        ]

    def _tested(self, node: _Node, chance: Chance) -> tuple[Associations, Int64s]:
        """The associations of all pairs of a node, and the numbers of the pairs beyond chance."""
        pairs, sizes, num_words = node.pairs, node.sizes.astype(np.int64), len(node.words)
        num_all = num_words * (num_words - 1) / 2
        limit = self._false * (1 if node.depth == 0 else pairs.count) / num_all  # of any pair that may be kept
        num_images = int(np.count_nonzero(node.image_sizes))
        association = np.empty(pairs.count, dtype=np.float32)  # of 4 bytes: there may be millions of pairs
        possible, probabilities = [np.zeros(0, np.int64)], [np.zeros(0)]
        for block, (mean, _) in chance.shared_in_blocks(pairs.left, pairs.right):
            left, right = sizes[pairs.left[block]], sizes[pairs.right[block]]
            shared = pairs.shared[block].astype(np.int64)
            association[block] = (shared - mean) / np.sqrt(left.astype(np.float64) * right)
            more = np.flatnonzero(shared > mean)
            draws = Draws.of(shared[more], left[more], right[more], mean[more], num_images)
            seldom, probability = self._test.improbable(draws, limit)
            possible.append(block.start + more[seldom])
            probabilities.append(probability)
        probability = np.concatenate(probabilities)
        kept = np.concatenate(possible)[probability <= self._limit(probability, num_all, node.depth)]
        if len(kept) == 0:
            return scipy.sparse.csr_matrix((num_words, num_words), dtype=np.float32), kept
        return _symmetric(pairs, association, num_words), kept

    def _limit(self, probability: Floats, num_all: float, depth: int) -> float:
        """The largest probability of a pair that is kept, 0 or less for none."""
        if depth == 0:
            return self._false / num_all
        ranked = np.sort(probability)
        passing = np.flatnonzero(ranked <= self._false * np.arange(1, len(ranked) + 1) / num_all)
        return float(ranked[passing[-1]]) if len(passing) else -1.0

    def _next_nodes(self, node: _Node, groups: list[_Group]) -> list[_Node]:
        """Note the groups of a node as structures, and make the nodes to search next, the last one first."""
        nodes, taken = [], np.zeros(len(node.words), dtype=bool)
        for group in groups:
            taken[group.words] = True
            images = _inside(node, group.words)
            parent = self._note(node, group, images.num_items)
            if len(self._found[parent].words) < 2 * self._smallest:
                continue  # no part of it is large enough, and no more than half of it
            sizes = np.bincount(images.items, minlength=images.num_items)
            words, pairs = np.arange(len(group.words)), _pairs_inside(node, group.words, images)
            nodes.append(_Node(node.words[group.words], words, images, sizes, pairs, parent, node.depth + 1))
        rest = np.flatnonzero(~taken)
        if groups and len(rest) > self._smallest:
            gone = node.images.select(node.lists[taken])
            sizes = node.image_sizes - np.bincount(gone.items, minlength=gone.num_items)
            pairs = node.pairs.among(rest, len(node.words))
            lists, words = node.lists[rest], node.words[rest]
            nodes.append(_Node(words, lists, node.images, sizes, pairs, node.parent, node.depth + 1))
        return nodes[::-1]

    def _note(self, node: _Node, group: _Group, num_images: int) -> int:
        """The number of the structure that a group is: a new one, or its parent where it is more than half of it."""
        words = node.words[group.words]
        if node.parent != NO_PARENT and 2 * len(words) > len(self._found[node.parent].words):
            return node.parent
        number = self._number.setdefault(words.tobytes(), len(self._found))
        if number == len(self._found):
            self._found.append(FoundStructure(words, node.parent, num_images, group.association, group.significance))
        return number


def _renumbered(sets: ListDB, words: Int64s) -> ListDB:
    """The sets over the given words alone, a word numbered by its position among them."""
    position = np.full(sets.num_items, -1, dtype=np.int32)
    position[words] = np.arange(len(words), dtype=np.int32)
    items = position[sets.items]
    offsets = offsets_of(items >= 0)[sets.offsets]
    items = items[items >= 0]
    return ListDB(offsets, items, ones(len(items)), len(words))


def _inside(node: _Node, group: Int64s) -> ListDB:
    """The inverted file of a group over the images that hold it."""
    lists = node.images.select(node.lists[group])
    used, holds = holding_images(lists)
    place = np.searchsorted(used, lists.items)
    kept = holds[place]
    number = np.cumsum(holds) - 1
    word = np.repeat(np.arange(len(group)), lists.sizes)[kept]
    offsets = offsets_of(np.bincount(word, minlength=len(group)))
    items = number[place[kept]].astype(np.int32)
    return ListDB(offsets, items, ones(len(items)), int(holds.sum()))


def _pairs_inside(node: _Node, group: Int64s, images: ListDB) -> WordPairs:
    """The pairs of a group over the images that hold it, whose inverted file is given."""
    pairs = node.pairs.among(group, len(node.words))
    shared = count_shared(images, pairs.left, pairs.right).astype(np.int32)
    found = (images.sizes[pairs.left] > 0) & (images.sizes[pairs.right] > 0)
    return WordPairs(pairs.left, pairs.right, shared).select(found)


def _totals(groups: ListDB, pairs: WordPairs, chance: Chance, sizes: Int64s) -> list[Floats]:
    """Association, excess and variance summed over the pairs of words of each group."""
    if groups.num_lists == 0:
        return [np.zeros(0)] * 3
    words = np.unique(groups.items).astype(np.int64)
    inside = pairs.among(words, len(sizes))
    groups_of_word = groups.transpose().to_scipy(binary=True).astype(np.float64)
    left, right = words[inside.left], words[inside.right]
    both = groups_of_word[left].multiply(groups_of_word[right]).T.tocsr()
    return [np.asarray(both @ value) for value in _excess(left, right, inside.shared, chance, sizes)]


def _excess(
    left: Integers, right: Integers, shared: Integers, chance: Chance, sizes: Int64s
) -> tuple[Floats, Floats, Floats]:
    """Association of pairs, their shared images above the expected ones, and the variance of these."""
    mean, variance = chance.shared_images(left, right)
    excess = shared - mean
    return excess / np.sqrt(sizes[left].astype(np.float64) * sizes[right]), excess, variance


def _symmetric(pairs: WordPairs, values: npt.NDArray[np.float32], num_words: int) -> Associations:
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


def _strongest_pairs(pairs: WordPairs, chance: Chance, sizes: Int64s) -> tuple[Int64s, Int64s]:
    """Each word's strongest of some pairs, every pair once, strongest first."""
    association = _excess(pairs.left, pairs.right, pairs.shared, chance, sizes)[0]
    order = np.lexsort((pairs.right, pairs.left, -association))
    words = np.stack([pairs.left[order], pairs.right[order]], axis=1).ravel()
    first = np.unique(words, return_index=True)[1] // 2  # the first pair, in this order, that holds the word
    chosen = order[np.unique(first)]
    return pairs.left[chosen].astype(np.int64), pairs.right[chosen].astype(np.int64)
