"""Linkage of co-occurring sets: the overlap rule, duplicates, planted structures, the reference's recall."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import planted_corpus, read_corpus, read_truth, score

from minia.core.artifact import InputError
from minia.mining.lists.listdb import ListDB, offsets_of
from minia.mining.structures.linkage import single as linkage
from minia.mining.structures.linkage.single import _PURPOSE, cluster_sets, unique_sets
from minia.mining.structures.minhash.cooccurring_sets import mine_cooccurring_sets
from minia.mining.structures.minhash.tuple_tables import TupleHashing, TupleTables

pytestmark = pytest.mark.usefixtures("one_thread")


def structures_as_dictionaries(db: ListDB) -> list[dict[int, int]]:
    bounds = zip(db.offsets[:-1], db.offsets[1:], strict=True)
    return [dict(zip(db.items[a:b].tolist(), db.frequencies[a:b].tolist(), strict=True)) for a, b in bounds]


@pytest.mark.parametrize(("shared", "linked"), [(6, False), (7, False), (8, True)])
def test_overlap_must_exceed_the_threshold(shared: int, linked: bool) -> None:
    sets = ListDB.from_lists([range(10), [*range(shared), *range(20, 30 - shared)]])
    structures = cluster_sets(sets, overlap=0.7, min_cluster_size=2)
    assert structures.num_lists == int(linked)


def test_overlap_is_relative_to_the_smaller_set() -> None:
    sets = ListDB.from_lists([range(12), [0, 1, 2], [3, 4, 5, 20], [6, 7, 20, 21]])
    structures = cluster_sets(sets, TupleHashing(3, 2000))  # 3 of 3 and 3 of 4 link, 2 of 4 does not
    assert structures_as_dictionaries(structures) == [
        dict.fromkeys([0, 1, 2, 3, 4, 5], 2) | dict.fromkeys([6, 7, 8, 9, 10, 11, 20], 1)
    ]


def test_duplicates_count() -> None:
    sets = ListDB.from_lists([[4, 5, 6], [0, 1, 2], [4, 5, 6], [0, 1, 2], [4, 5, 6], [7, 8, 9]])
    assert structures_as_dictionaries(cluster_sets(sets)) == [{4: 3, 5: 3, 6: 3}]
    assert structures_as_dictionaries(cluster_sets(sets, min_cluster_size=2)) == [
        {4: 3, 5: 3, 6: 3},
        {0: 2, 1: 2, 2: 2},
    ]
    assert cluster_sets(sets, min_cluster_size=1).num_lists == 3


def test_unique_sets() -> None:
    sets = ListDB.from_lists([[1, 2, 3], [5, 6], [3, 2, 1], [], [0, 1, 2], [6, 5], [1, 2, 3], [7]], num_items=300)
    distinct, copies = unique_sets(sets)
    assert [words.tolist() for words in distinct] == [[1, 2, 3], [0, 1, 2], [5, 6], [7]]
    assert copies.tolist() == [3, 1, 2, 1]


def plain_clusters(sets: ListDB, num_tuples: int, seed: int) -> set[frozenset[tuple[int, int]]]:
    """The same rule without de-duplication, blocks or skipping: every leader pair, one after another."""
    groups = {index: {index} for index in range(sets.num_lists)}
    words = [set(items.tolist()) for items in sets]
    tables = TupleTables(sets, TupleHashing(3, 1, seed), purpose=_PURPOSE)
    for table in range(num_tuples):
        buckets = tables.buckets(table, table + 1, 2)
        for bucket in np.split(buckets.members, offsets_of(buckets.sizes)[1:-1]):
            for leader, other in ((bucket[0], other) for other in bucket[1:]):
                shared = len(words[leader] & words[other])
                if groups[leader] is not groups[other] and shared / min(len(words[leader]), len(words[other])) > 0.7:
                    groups[leader] |= groups[other]
                    groups.update(dict.fromkeys(groups[other], groups[leader]))
    merged = {id(group): group for group in groups.values() if len(group) >= 3}.values()
    counts = [np.unique(np.concatenate([sets[index] for index in group]), return_counts=True) for group in merged]
    return {frozenset(zip(items.tolist(), count.tolist(), strict=True)) for items, count in counts}


@pytest.mark.parametrize("seed", range(3))
def test_same_clusters_as_the_plain_rule_with_all_duplicates(seed: int) -> None:
    bags, _ = planted_corpus(seed, num_images=800, num_words=500, num_sets=8)
    sets = mine_cooccurring_sets(bags, TupleHashing(3, 120, seed), min_set_size=3)
    assert unique_sets(sets)[0].num_lists < sets.num_lists  # there are duplicates
    structures = cluster_sets(sets, TupleHashing(3, 60, seed))
    found = {frozenset(entries.items()) for entries in structures_as_dictionaries(structures)}
    assert len(found) == structures.num_lists > 3
    assert found == plain_clusters(sets, 60, seed)


def test_copies_of_all_sets_only_multiply_the_frequencies() -> None:
    bags, _ = planted_corpus(4, num_images=800, num_words=500, num_sets=8)
    sets = mine_cooccurring_sets(bags, TupleHashing(3, 120), min_set_size=3)
    once = cluster_sets(sets, min_cluster_size=2)
    thrice = cluster_sets(sets.select(np.arange(sets.num_lists).repeat(3)), min_cluster_size=6)
    assert once.num_lists > 3
    assert np.array_equal(once.offsets, thrice.offsets) and np.array_equal(once.items, thrice.items)
    assert np.array_equal(3 * once.frequencies, thrice.frequencies)


def test_form_of_the_structures() -> None:
    bags, _ = planted_corpus(5)
    sets = mine_cooccurring_sets(bags, TupleHashing(2, 200), min_set_size=3)
    structures = cluster_sets(sets)
    assert structures.num_items == bags.num_items and structures.num_lists > 5
    for index, words in enumerate(structures):
        frequencies = structures.frequencies[structures.offsets[index] : structures.offsets[index + 1]]
        order = np.lexsort((words, -frequencies))
        assert np.array_equal(order, np.arange(len(words)))
    assert cluster_sets(sets) == structures
    one_less = cluster_sets(sets, min_cluster_size=4)
    assert one_less == structures.select(np.arange(one_less.num_lists))  # the smallest come last


@pytest.mark.parametrize(
    "change", [{"overlap": 1.0}, {"overlap": -0.1}, {"hashing": TupleHashing(0, 255)}, {"hashing": TupleHashing(3, 0)}]
)
def test_settings_that_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        cluster_sets(ListDB.from_lists([[0, 1, 2]]), **change)


@pytest.mark.parametrize(
    ("name", "recall", "precision", "spread", "seeds"),
    [  # of the reference over 8 seeds, with the standard deviation of one run
        ("planted_small", 0.78, 0.81, 0.12, 6),
        ("planted_flat", 0.95, 0.98, 0.06, 6),
        ("planted_large", 0.995, 0.995, 0.01, 1),
    ],
)
def test_planted_sets_are_found_as_by_the_reference(
    shared_data: Path, tmp_path: Path, name: str, recall: float, precision: float, spread: float, seeds: int
) -> None:
    folder = shared_data / "smh"
    bags, truth = read_corpus(folder, name, tmp_path), read_truth(folder, name)
    scores = []
    for seed in range(seeds):
        sets = mine_cooccurring_sets(bags, TupleHashing(3, 252, seed), min_set_size=3)
        scores.append(score(cluster_sets(sets, TupleHashing(3, 255, seed)), truth))
    margin = 3 * spread * np.sqrt(1 / seeds + 1 / 8)  # of the difference of two means
    assert np.mean([one.recall for one in scores]) > recall - margin
    assert np.mean([one.precision for one in scores]) > precision - margin


def test_a_bucket_of_a_hundred_thousand_sets_is_compared_with_its_first_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """All sets share twenty words and nearly all buckets: their comparisons grow with their number, not its square."""
    count = 100_000
    rows = np.hstack([np.tile(np.arange(20), (count, 1)), 20 + np.arange(count)[:, None]])
    items = rows.ravel().astype(np.int32)
    sets = ListDB(np.arange(count + 1) * 21, items, np.ones_like(items), 20 + count)
    compared: list[int] = []
    overlapping = linkage._Links._overlapping

    def counted(self: linkage._Links, left: np.ndarray, right: np.ndarray) -> Any:
        compared.append(len(left))
        return overlapping(self, left, right)

    monkeypatch.setattr(linkage._Links, "_overlapping", counted)
    structures = cluster_sets(sets, TupleHashing(3, 20))
    assert structures.num_lists == 1 and structures.sizes[0] > 0.9 * count
    assert 0.9 * count < sum(compared) < 3 * count
