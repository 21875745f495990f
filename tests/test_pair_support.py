"""Linkage by pairs of words: planted sets are found, words may be shared, chance finds nothing."""

from __future__ import annotations

import numpy as np
import pytest
from planted import Score, planted_corpus, read_corpus, read_truth, score

from minia.mining.listdb import ListDB
from minia.mining.minhash import mine_cooccurring_sets
from minia.mining.pair_support import count_shared, link_by_support, pair_strengths, proposed_pairs
from minia.stage import InputError

pytestmark = pytest.mark.usefixtures("one_thread")


def structures_of(bags: ListDB, seed: int = 0, tuple_size: int = 3, num_tuples: int = 252) -> ListDB:
    sets = mine_cooccurring_sets(bags, tuple_size=tuple_size, num_tuples=num_tuples, min_set_size=3, seed=seed)
    return link_by_support(sets, bags)


def assert_found(result: Score) -> None:
    assert min(result.recall, result.precision) >= 0.98 and result.mean_best >= 0.97


@pytest.mark.parametrize(("tuple_size", "num_tuples"), [(3, 252), (2, 750)])
@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_planted_sets_are_found(seed, overlapping, tuple_size, num_tuples):
    bags, truth = planted_corpus(seed, overlapping=overlapping)
    assert_found(score(structures_of(bags, seed, tuple_size, num_tuples), truth))


@pytest.mark.parametrize("name", ["planted_small", "planted_flat", "planted_large"])
def test_planted_sets_of_the_shared_data_are_found(shared_data, tmp_path, name):
    folder = shared_data / "smh"
    bags, truth = read_corpus(folder, name, tmp_path), read_truth(folder, name)
    for seed in range(1 if name == "planted_large" else 3):
        assert_found(score(structures_of(bags, seed), truth))


def test_a_word_may_belong_to_several_structures():
    bags, truth = planted_corpus(3, num_words=250, num_sets=10, overlapping=True, alpha=0.4, noise=15)
    planted_twice = {word for word in set(np.concatenate(truth)) if sum(word in words for words in truth) > 1}
    structures = structures_of(bags)
    found_twice = set(np.flatnonzero(np.bincount(structures.items) > 1))
    assert len(planted_twice) >= 10
    assert len(found_twice & planted_twice) >= 0.7 * len(planted_twice)


def test_one_set_alone_is_found():
    bags, truth = planted_corpus(4, num_sets=1)
    assert_found(score(structures_of(bags), truth))


@pytest.mark.parametrize("seed", range(3))
def test_noise_holds_no_structures(seed):
    bags, _ = planted_corpus(seed, num_sets=1, support=0.0)
    assert structures_of(bags, seed, tuple_size=2, num_tuples=750).num_lists == 0


def test_image_sizes_alone_make_no_structures():
    """Images of very different sizes: words then share more images than independent words would."""
    random = np.random.default_rng(0)
    chance = random.lognormal(-3, 1.2, 1500).clip(max=0.6)
    bags = ListDB.from_lists([np.flatnonzero(random.random(300) < part).tolist() for part in chance], 300)
    sets = mine_cooccurring_sets(bags, tuple_size=2, num_tuples=400, min_set_size=3)
    left, right = proposed_pairs(sets)
    assert len(left) > 5000
    assert np.count_nonzero(pair_strengths(bags, left, right, 0.01)) < 0.002 * len(left)
    assert link_by_support(sets, bags).num_lists == 0


def test_another_seed_finds_nearly_the_same(shared_data, tmp_path):
    bags = read_corpus(shared_data / "smh", "gz_sift_v1000", tmp_path)
    one, other = (structures_of(bags, seed, tuple_size=2, num_tuples=750) for seed in (0, 1))
    assert score(one, list(other)).mean_best > 0.9 and score(other, list(one)).mean_best > 0.9
    assert one.num_lists >= 10 and one.sizes.max() < 30


def test_form_of_the_structures():
    bags, _ = planted_corpus(5, overlapping=True)
    sets = mine_cooccurring_sets(bags, tuple_size=3, num_tuples=252, min_set_size=3)
    structures = link_by_support(sets, bags)
    assert structures.num_items == bags.num_items and structures.sizes.min() >= 3
    holds = [set(words.tolist()) for words in sets]
    counts = []
    for index, words in enumerate(structures):
        frequencies = structures.frequencies[structures.offsets[index] : structures.offsets[index + 1]]
        assert np.array_equal(np.lexsort((words, -frequencies)), np.arange(len(words)))
        meeting = [held & set(words.tolist()) for held in holds if len(held & set(words.tolist())) >= 2]
        assert frequencies.tolist() == [sum(word in held for held in meeting) for word in words.tolist()]
        counts.append(len(meeting))
    assert counts == sorted(counts, reverse=True)
    assert link_by_support(sets, bags) == structures
    larger = link_by_support(sets, bags, min_structure_size=10)
    assert larger == structures.select(structures.sizes >= 10)


@pytest.mark.parametrize("num_images", [40, 900])
def test_shared_images_are_counted_exactly(num_images):
    random = np.random.default_rng(num_images)
    share = random.random(60) ** 6  # from words in hardly any image to words in nearly all
    words = ListDB.from_lists([np.flatnonzero(random.random(num_images) < part).tolist() for part in share], num_images)
    left, right = np.triu_indices(60, 1)
    dense = words.to_scipy(binary=False).toarray()
    assert np.array_equal(count_shared(words, left, right), (dense @ dense.T)[left, right])


def test_nothing_to_link():
    empty = ListDB.from_lists([], 5)
    assert link_by_support(empty, ListDB.from_lists([[0, 1], []], 5)) == empty
    assert link_by_support(ListDB.from_lists([[0, 1, 2]]), ListDB.from_lists([[], []], 3)).num_lists == 0


def test_settings_that_are_refused():
    sets, bags = ListDB.from_lists([[0, 1, 2]]), ListDB.from_lists([[0, 1, 2]])
    for change in ({"false_discovery_rate": 0.0}, {"false_discovery_rate": 1.0}, {"min_structure_size": 1}):
        with pytest.raises(InputError):
            link_by_support(sets, bags, **change)
    with pytest.raises(InputError, match="3 words"):
        link_by_support(sets, ListDB.from_lists([[0, 1, 5]]))
