"""Pruning of co-occurring sets: cases by hand, and the same by loops over Python's sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from planted import bags_from_pairs, planted_corpus

from minia.core.artifact import InputError
from minia.mining.lists.listdb import ListDB, offsets_of
from minia.mining.structures.minhash import prune
from minia.mining.structures.minhash.cooccurring_sets import mine_cooccurring_sets
from minia.mining.structures.minhash.prune import prune_sets
from minia.mining.structures.minhash.tuple_tables import TupleHashing

LOOSE: dict[str, Any] = {"overlap": 0.01, "cooccurrence": 0.0, "min_images": 0, "min_set_size": 1}
BAGS = ListDB.from_lists([[0, 1, 2, 3], [0, 1, 2], [0, 1, 3], [1, 2], [4, 5], [], [0, 1, 2, 4]], num_items=8)


def pruned(sets: list[list[int]], **settings: float) -> list[list[int]]:
    kept = prune_sets(ListDB.from_lists(sets, num_items=8), BAGS, **(LOOSE | settings))
    return [words.tolist() for words in kept]


def by_loops(sets: ListDB, bags: ListDB, settings: dict[str, float]) -> list[list[int]]:
    images = [set(words.tolist()) for words in bags]
    found = []
    for words in sets:
        held_by = [image for image in images if len(image & set(words.tolist())) / len(words) >= settings["overlap"]]
        if not held_by or len(held_by) < settings["min_images"]:
            continue
        shares = [sum(word in image for image in held_by) / len(held_by) for word in words.tolist()]
        left = [w for w, share in zip(words.tolist(), shares, strict=True) if share >= settings["cooccurrence"]]
        if len(left) >= settings["min_set_size"]:
            found.append(left)
    return found


def test_words_that_few_of_the_images_hold_go() -> None:
    # Images 0, 1, 2 and 6 hold three of the four words; word 3 is in two of them, word 2 in three, 0 and 1 in all.
    assert pruned([[0, 1, 2, 3]], overlap=0.75, cooccurrence=0.5) == [[0, 1, 2, 3]]
    assert pruned([[0, 1, 2, 3]], overlap=0.75, cooccurrence=0.51) == [[0, 1, 2]]
    assert pruned([[3, 2, 1, 0]], overlap=0.75, cooccurrence=0.75) == [[2, 1, 0]]
    assert pruned([[0, 1, 2, 3]], overlap=0.75, cooccurrence=0.76) == [[0, 1]]


def test_sets_of_few_images_go() -> None:
    assert pruned([[0, 1, 2, 3]], overlap=0.75, min_images=4) == [[0, 1, 2, 3]]
    assert pruned([[0, 1, 2, 3]], overlap=0.75, min_images=5) == []
    assert pruned([[0, 1, 2, 3], [4, 5]], overlap=1.0, min_images=2) == []
    assert pruned([[0, 1], [4, 5], [1, 2]], overlap=1.0, min_images=4) == [[0, 1], [1, 2]]
    assert pruned([[6, 7], [0, 7]]) == [[0, 7]]  # no image holds a word of the first


def test_sets_that_become_small_go() -> None:
    assert pruned([[0, 1, 2, 3]], overlap=0.75, cooccurrence=0.76, min_set_size=2) == [[0, 1]]
    assert pruned([[0, 1, 2, 3], [1, 2]], overlap=0.75, cooccurrence=0.76, min_set_size=3) == []


def test_shares_are_exact() -> None:
    """7 of 10 images are not below 0.7, nor 7 of 10 words, whatever 0.7 times 10 is in floating point."""
    bags = ListDB.from_lists([[0, 1]] * 7 + [[0]] * 3, num_items=10)
    kept = prune_sets(ListDB.from_lists([[0, 1]], 10), bags, **(LOOSE | {"cooccurrence": 0.7}))
    assert kept[0].tolist() == [0, 1]
    bags = ListDB.from_lists([list(range(7))], num_items=10)
    assert prune_sets(ListDB.from_lists([list(range(10))], 10), bags, **(LOOSE | {"overlap": 0.7})).num_lists == 1


def test_frequencies_stay_and_those_of_the_bags_do_not_count() -> None:
    sets = ListDB(np.array([0, 3]), np.array([0, 1, 2], np.int32), np.array([7, 8, 9], np.int32), 3)
    bags = bags_from_pairs([0, 0, 1, 1, 2], [0, 1, 0, 1, 2], [1, 1, 1, 1, 99], 3, 3)
    kept = prune_sets(sets, bags, overlap=0.6, cooccurrence=0.5, min_images=1, min_set_size=1)
    assert kept[0].tolist() == [0, 1] and kept.frequencies.tolist() == [7, 8]


@pytest.mark.parametrize("at_a_time", [1 << 20, 500])
def test_as_by_loops(monkeypatch: pytest.MonkeyPatch, at_a_time: int) -> None:
    monkeypatch.setattr(prune, "_ENTRIES_AT_A_TIME", at_a_time)
    bags, _ = planted_corpus(1, num_images=300, num_words=150)
    sets = mine_cooccurring_sets(bags, TupleHashing(2, 60), min_set_size=3)
    settings: dict[str, Any] = {"overlap": 0.6, "cooccurrence": 0.5, "min_images": 4, "min_set_size": 3}
    found = [words.tolist() for words in prune_sets(sets, bags, **settings)]
    assert 0 < len(found) < sets.num_lists
    assert found == by_loops(sets, bags, settings)


def test_nothing_to_prune() -> None:
    empty = ListDB.from_lists([], num_items=8)
    assert prune_sets(empty, BAGS, **LOOSE) == empty
    none = ListDB(offsets_of([0, 0]), np.zeros(0, np.int32), np.zeros(0, np.int32), 8)
    assert prune_sets(ListDB.from_lists([[0, 1]], 8), none, **LOOSE).num_lists == 0


@pytest.mark.parametrize(
    "change", [{"overlap": 0.0}, {"overlap": 1.1}, {"cooccurrence": -0.1}, {"min_images": -1}, {"min_set_size": 0}]
)
def test_settings_that_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="pruning needs"):
        pruned([[0, 1]], **change)
    with pytest.raises(InputError, match="over 9 words"):
        prune_sets(ListDB.from_lists([[0]], 9), BAGS, **LOOSE)
