"""Nested linkage: planted sets are found and nothing else, words may be shared, parts have parents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import Score, planted_corpus, read_corpus, read_truth, score
from scipy.stats import hypergeom
from threadpoolctl import threadpool_limits

from minia.core.artifact import InputError
from minia.mining.arrangement.swaps import exchange_words
from minia.mining.lists.listdb import ListDB
from minia.mining.structures.linkage import word_pairs
from minia.mining.structures.linkage.chance import fit_chance
from minia.mining.structures.linkage.factors import link_factors
from minia.mining.structures.linkage.growth import distinct_groups, grow_groups
from minia.mining.structures.linkage.nested import link_nested
from minia.mining.structures.linkage.nested_search import NestedSearch, _Node
from minia.mining.structures.linkage.pair_test import Draws, HypergeometricTest
from minia.mining.structures.linkage.word_pairs import candidate_pairs, count_shared, proposed_pairs
from minia.mining.structures.minhash.choose_tuples import choose_tuples
from minia.mining.structures.minhash.cooccurring_sets import mine_cooccurring_sets
from minia.mining.structures.minhash.tuple_tables import TupleHashing

pytestmark = pytest.mark.usefixtures("one_thread")


def structures_of(bags: ListDB, seed: int = 0, tuple_size: int = 2, num_tuples: int = 750) -> ListDB:
    sets = mine_cooccurring_sets(bags, TupleHashing(tuple_size, num_tuples, seed), min_set_size=3)
    return link_nested(sets, bags)[0]


def assert_found(result: Score) -> None:
    assert min(result.recall, result.precision) >= 0.98 and result.mean_best >= 0.97


@pytest.mark.parametrize(("tuple_size", "num_tuples"), [(3, 252), (2, 750)])
@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_planted_sets_are_found(seed: int, overlapping: bool, tuple_size: int, num_tuples: int) -> None:
    bags, truth = planted_corpus(seed, overlapping=overlapping)
    assert_found(score(structures_of(bags, seed, tuple_size, num_tuples), truth))


@pytest.mark.parametrize(
    "corpus",
    [
        {"noise": 200.0, "num_words": 1000, "alpha": 0.5, "support": 0.1},  # an image holds a fifth of the words
        {"num_sets": 60, "overlapping": True},  # a third of the planted words are planted twice
        {"retention": 0.6},
        {"support": 0.02},
    ],
)
def test_hard_corpora(corpus: dict[str, Any]) -> None:
    bags, truth = planted_corpus(0, **corpus)
    result = score(structures_of(bags), truth)
    assert min(result.recall, result.precision) >= 0.95 and result.mean_best >= 0.95


@pytest.mark.parametrize("name", ["planted_small", "planted_flat", "planted_large"])
def test_planted_sets_of_the_shared_data_are_found(shared_data: Path, tmp_path: Path, name: str) -> None:
    folder = shared_data / "smh"
    bags, truth = read_corpus(folder, name, tmp_path), read_truth(folder, name)
    for seed in range(1 if name == "planted_large" else 3):
        assert_found(score(structures_of(bags, seed), truth))


def test_a_word_may_belong_to_several_structures() -> None:
    bags, truth = planted_corpus(3, num_words=250, num_sets=10, overlapping=True, alpha=0.4, noise=15)
    planted_twice = {word for word in set(np.concatenate(truth)) if sum(word in words for words in truth) > 1}
    structures = structures_of(bags)
    found_twice = set(np.flatnonzero(np.bincount(structures.items) > 1))
    assert len(planted_twice) >= 10
    assert len(found_twice & planted_twice) >= 0.7 * len(planted_twice)


def test_one_set_alone_is_found() -> None:
    bags, truth = planted_corpus(4, num_sets=1)
    assert_found(score(structures_of(bags), truth))


@pytest.mark.parametrize("seed", range(3))
def test_noise_holds_no_structures(seed: int) -> None:
    bags, _ = planted_corpus(seed, num_sets=1, support=0.0)
    assert structures_of(bags, seed, tuple_size=2, num_tuples=750).num_lists == 0


def test_image_sizes_and_word_frequencies_alone_make_no_structures() -> None:
    """Words of very different frequencies in images of very different sizes share many images by chance."""
    random = np.random.default_rng(0)
    odds = np.outer(random.lognormal(-1, 1.2, 1500), random.lognormal(-1, 1.2, 300))
    held = random.random(odds.shape) < odds / (1 + odds)
    bags = ListDB.from_lists([np.flatnonzero(row).tolist() for row in held], 300)
    sets = mine_cooccurring_sets(bags, TupleHashing(2, 400), min_set_size=3)
    assert len(proposed_pairs(sets)[0]) > 20_000
    assert link_nested(sets, bags)[0].num_lists == 0


def test_chance_model_keeps_frequencies_and_sizes_and_foretells_shared_images() -> None:
    random = np.random.default_rng(1)
    odds = np.outer(random.lognormal(-1, 1, 800), random.lognormal(-1, 1.5, 50))
    probability = odds / (1 + odds)
    held = random.random(odds.shape) < probability
    chance = fit_chance(held.sum(axis=0), held.sum(axis=1))
    per_word = chance.probability[chance.word_class] @ chance.num_images
    assert np.allclose(per_word, held.sum(axis=0), rtol=1e-4)
    left, right = np.triu_indices(50, 1)
    mean, variance = chance.shared_images(left, right)
    true_mean = (probability.T @ probability)[left, right]
    assert np.abs(mean - true_mean).max() < 0.15 * true_mean.max()
    shared = (held.T.astype(int) @ held)[left, right]
    z = (shared - mean) / np.sqrt(variance)
    assert abs(mean.sum() / shared.sum() - 1) < 1e-6
    assert abs(z.mean()) < 0.15 and 0.7 < z.std() < 1.1


def some_draws() -> Draws:
    """Pairs of which the words share more images than in the mean."""
    random = np.random.default_rng(0)
    images = np.exp(random.uniform(np.log(10), np.log(1e5), 5000)).astype(np.int64)
    left, right = (1 + (images * random.beta(1, 4, len(images))).astype(np.int64) for _ in range(2))
    mean = left * right / images
    shared = np.minimum(np.ceil(mean + 6 * random.random(len(images)) * np.sqrt(mean)), np.minimum(left, right))
    return Draws.of(shared.astype(np.int64), left, right, mean, int(images.max()))


def test_probability_of_at_least_is_that_of_the_hypergeometric_distribution() -> None:
    draws = some_draws()
    found = HypergeometricTest(1000).probability_of_at_least(draws)
    expected = hypergeom.sf(draws.shared - 1, draws.images, draws.left, draws.right)
    assert expected.min() < 1e-9
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (np.exp(HypergeometricTest(200_000).log_probability_of(draws)) <= found * (1 + 1e-9)).all()


def test_bags_of_chance_alone_are_below_a_probability_at_most_as_often_as_it_says() -> None:
    """Words exchanged between images, which keeps how many hold each and how many each holds."""
    random = np.random.default_rng(3)
    odds = np.outer(random.lognormal(-1.2, 0.7, 90), random.lognormal(0, 1, 400))
    held = random.random(odds.shape) < odds / (1 + odds)
    bags = exchange_words(ListDB.from_lists([np.flatnonzero(row).tolist() for row in held], 400), 0)
    images = bags.transpose()
    images = images.select(images.sizes > 0)
    pairs = candidate_pairs(images, ListDB.from_lists([], images.num_lists))
    mean, _ = fit_chance(images.sizes, bags.sizes).shared_images(pairs.left, pairs.right)
    draws = Draws.of(pairs.shared.astype(np.int64), images.sizes[pairs.left], images.sizes[pairs.right], mean, 90)
    probability = HypergeometricTest(90).probability_of_at_least(draws)[pairs.shared > mean]
    num_all = images.num_lists * (images.num_lists - 1) / 2
    for limit in (0.03, 0.01, 0.003, 0.001):
        assert 0.1 < np.count_nonzero(probability <= limit) / (limit * num_all) <= 1


def test_two_groups_with_a_word_in_common_stay_apart() -> None:
    left, right, strength = zip(
        *[(a, b, 1.0) for a in range(6) for b in range(a)],
        *[(a, b, 1.0) for a in range(5, 11) for b in range(5, a)],
        (11, 0, 0.3),
        strict=True,
    )
    half = np.zeros((12, 12), np.float32)
    half[list(left), list(right)] = strength
    import scipy.sparse

    associations = scipy.sparse.csr_matrix(half + half.T)
    groups = distinct_groups(grow_groups(associations, np.array([5, 5]), np.array([4, 6])), associations)
    assert sorted(words.tolist() for words in groups) == [list(range(6)), list(range(5, 11))]


def dense_bags(seed: int, strength: float) -> tuple[ListDB, list[np.ndarray]]:
    """800 images of very different sizes; of 400 words four times 40 go each with one of 4 hidden traits, weakly."""
    random = np.random.default_rng(seed)
    trait = random.integers(0, 2, (800, 4)) * 2 - 1
    groups = np.split(random.permutation(400)[:160], 4)
    log_odds = random.normal(-1, 0.7, (800, 1)) + random.normal(0, 0.7, (1, 400))
    for number, words in enumerate(groups):
        log_odds[:, words] += strength * trait[:, [number]]
    held = random.random((800, 400)) < 1 / (1 + np.exp(-log_odds))
    return ListDB.from_lists([np.flatnonzero(row).tolist() for row in held], 400), groups


def test_dense_bags_are_analysed_together() -> None:
    """Images of very different sizes, yet the four largest structures are the groups; without traits there are none."""
    bags, groups = dense_bags(0, 0.6)
    sets = mine_cooccurring_sets(bags, TupleHashing(2, 50), min_set_size=3)
    structures, table = link_factors(sets, bags)
    largest = structures.select(np.argsort(-structures.sizes, kind="stable")[:4])
    result = score(largest, groups)
    assert result.recall == 1 and result.mean_best > 0.9
    assert set(table["parent"]) == {-1} and len(table["structure"]) == structures.num_lists
    assert link_factors(sets, dense_bags(1, 0.0)[0])[0].num_lists == 0


def test_factors_say_that_bags_are_too_sparse() -> None:
    bags = ListDB.from_lists([[0, 1], [2, 3]], 5)
    with pytest.raises(InputError, match="here an image holds 2 of 4 words, and there are 2 images"):
        link_factors(ListDB.from_lists([[0, 1, 2]], 5), bags)


def test_parts_have_their_structure_as_parent() -> None:
    """Sixteen words that a part of the images hold, six of which come and go together within these."""
    random = np.random.default_rng(2)
    holds, more = random.random(2000) < 0.4, random.random(2000) < 0.5
    chance = np.where(holds[:, None], 0.6, 0.03) * np.ones(16)
    chance[:, :6] *= np.where(more, 1.3, 0.6)[:, None]
    rows = random.random((2000, 316)) < np.hstack([chance, np.full((2000, 300), 0.02)])
    bags = ListDB.from_lists([np.flatnonzero(row).tolist() for row in rows], 316)
    sets = mine_cooccurring_sets(bags, TupleHashing(2, 750), min_set_size=3)
    structures, table = link_nested(sets, bags)
    words = [set(words.tolist()) for words in structures]
    assert words == [set(range(16)), set(range(6))] and table["parent"].tolist() == [-1, 0]
    whole, part = 0, 1
    assert abs(table["num_images"][whole] - holds.sum()) < 0.2 * holds.sum()
    assert table["num_images"][part] < table["num_images"][whole]
    assert (table["significance"] > 5).all() and (table["association"] > 0).all()


def test_another_seed_finds_nearly_the_same(shared_data: Path, tmp_path: Path) -> None:
    bags = read_corpus(shared_data / "smh", "gz_sift_v1000", tmp_path)
    one, other = (structures_of(bags, seed) for seed in (0, 1))
    assert score(one, list(other)).mean_best > 0.9 and score(other, list(one)).mean_best > 0.9
    assert one.num_lists >= 10


def test_form_of_the_structures() -> None:
    bags, _ = planted_corpus(5, overlapping=True)
    sets = mine_cooccurring_sets(bags, TupleHashing(3, 252), min_set_size=3)
    structures, table = link_nested(sets, bags)
    assert structures.num_items == bags.num_items and structures.sizes.min() >= 3
    holds = [set(words.tolist()) for words in sets]
    counts = []
    for index, words in enumerate(structures):
        frequencies = structures.frequencies[structures.offsets[index] : structures.offsets[index + 1]]
        assert np.array_equal(np.lexsort((words, -frequencies)), np.arange(len(words)))
        meeting = [held & set(words.tolist()) for held in holds if len(held & set(words.tolist())) >= 2]
        assert frequencies.tolist() == [max(1, sum(word in held for held in meeting)) for word in words.tolist()]
        counts.append(len(meeting))
    assert counts == table["num_cooccurring_sets"].tolist()
    significance = table["significance"].tolist()
    assert significance == sorted(significance, reverse=True) and significance[-1] > 0
    assert table["num_words"].tolist() == structures.sizes.tolist()
    again, same_table = link_nested(sets, bags)
    assert again == structures and all(np.array_equal(same_table[name], table[name]) for name in table)
    assert link_nested(sets, bags, min_structure_size=10)[0].sizes.min() >= 10


def test_words_of_which_no_pairs_are_proposed_are_no_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight words go together, but the sets pair only the first four with the others: growth swings between these."""
    monkeypatch.setattr("minia.mining.structures.linkage.word_pairs._MOST_PAIRS", 100)
    random = np.random.default_rng(1)
    held = random.random((400, 60)) < 0.1
    held[:, :8] |= (random.random((400, 1)) < 0.1) & (random.random((400, 8)) < 0.9)
    bags = ListDB.from_lists([np.flatnonzero(row).tolist() for row in held], 60)
    sets = ListDB.from_lists([[one, 4 + other] for one in range(4) for other in range(4)], 60)
    _, table = link_nested(sets, bags)
    assert (table["significance"] > 0).all() and (table["association"] > 0).all()


@pytest.mark.parametrize("num_images", [40, 900])
def test_shared_images_are_counted_exactly(num_images: int) -> None:
    random = np.random.default_rng(num_images)
    share = random.random(60) ** 6  # from words in hardly any image to words in nearly all
    words = ListDB.from_lists([np.flatnonzero(random.random(num_images) < part).tolist() for part in share], num_images)
    left, right = np.triu_indices(60, 1)
    dense = words.to_scipy(binary=False).toarray()
    assert np.array_equal(count_shared(words, left, right), (dense @ dense.T)[left, right])


def test_shared_images_are_counted_some_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    share = np.exp(-9 * random.random(40))
    words = ListDB.from_lists([np.flatnonzero(random.random(30_000) < part).tolist() for part in share], 30_000)
    left, right = np.triu_indices(40, 1)
    at_once = count_shared(words, left, right)
    monkeypatch.setattr(word_pairs, "_BITS_AT_A_TIME", 1 << 10)
    assert np.array_equal(count_shared(words, left, right), at_once)
    dense = words.to_scipy(binary=False).toarray()
    assert np.array_equal(at_once, (dense @ dense.T)[left, right])


def test_of_too_many_pairs_those_of_most_sets_are_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = ListDB.from_lists([[0, 1, 2, 3], [0, 1, 2], [0, 1, 4], [5, 6, 7]], 9)
    monkeypatch.setattr(word_pairs, "_MOST_PAIRS", 4)
    left, right = proposed_pairs(sets)
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2)]


def test_pairs_of_sets_are_proposed_once_and_large_sets_in_pieces() -> None:
    sets = ListDB.from_lists([[0, 1, 2], [0, 1, 2], [1, 2, 5], list(range(10, 1310))], 1400)
    left, right = proposed_pairs(sets)
    pairs = set(zip(left.tolist(), right.tolist(), strict=True))
    assert len(pairs) == len(left)
    assert {pair for pair in pairs if pair[0] < 10} == {(0, 1), (0, 2), (1, 2), (1, 5), (2, 5)}
    assert 3 * 433 * 432 / 2 <= len(pairs) - 5 <= 3 * 434 * 433 / 2


def test_nothing_to_link() -> None:
    empty = ListDB.from_lists([], 5)
    structures, table = link_nested(empty, ListDB.from_lists([[0, 1], []], 5))
    assert structures == empty and len(table["structure"]) == 0
    assert link_nested(ListDB.from_lists([[0, 1, 2]]), ListDB.from_lists([[], []], 3))[0].num_lists == 0


def test_words_that_all_images_hold_say_nothing() -> None:
    bags = ListDB.from_lists([[0, 1, 2, 3]] * 50)
    sets = mine_cooccurring_sets(bags, TupleHashing(2, 20), min_set_size=3)
    assert sets.num_lists == 20 and link_nested(sets, bags)[0].num_lists == 0


def test_settings_that_are_refused() -> None:
    sets, bags = ListDB.from_lists([[0, 1, 2]]), ListDB.from_lists([[0, 1, 2]])
    for change in ({"false_structures": 0.0}, {"false_structures": 1.0}, {"min_structure_size": 1}):
        with pytest.raises(InputError):
            link_nested(sets, bags, **change)
    with pytest.raises(InputError, match="3 words"):
        link_nested(sets, ListDB.from_lists([[0, 1, 5]]))


def test_tuples_grow_with_what_chance_brings_together() -> None:
    def chosen(
        frequency: int, num_words: int, size: int, num_images: int, given: tuple[Any, ...] = (None, None, None)
    ) -> tuple[int, int]:
        frequencies, sizes = np.full(num_words, frequency), np.full(num_images, size)
        return choose_tuples(*given, word_frequencies=frequencies, image_sizes=sizes)

    assert chosen(50, 1000, 20, 10_000) == (2, 750)
    assert chosen(5000, 20_000, 10_000, 10_000) == (6, 250)  # words in half of all images
    assert chosen(100, 30_000, 300, 10_000)[0] <= chosen(1000, 30_000, 3000, 10_000)[0]
    assert chosen(50, 1000, 20, 10_000, (3, None, None)) == (3, 500)
    assert chosen(50, 1000, 20, 10_000, (None, 10, None)) == (2, 10)
    assert chosen(50, 1000, 20, 10_000, (3, None, 0.14)) == (3, 252)
    assert chosen(0, 5, 0, 3) == (2, 750)


def test_the_pairs_kept_are_those_that_all_probabilities_give() -> None:
    """Testing only the pairs whose bound can pass keeps the same ones as working out the probability of all."""
    bags, _ = planted_corpus(6, num_sets=20)
    plain = ListDB.from_lists([words.tolist() for words in bags], bags.num_items).transpose()
    words = np.flatnonzero(plain.sizes)
    images = plain.select(words)
    pairs = candidate_pairs(images, ListDB.from_lists([], len(words)))
    chance = fit_chance(images.sizes, bags.sizes)
    mean, _ = chance.shared_images(pairs.left, pairs.right)
    left, right = images.sizes[pairs.left], images.sizes[pairs.right]
    draws = Draws.of(pairs.shared.astype(np.int64), left, right, mean, bags.num_lists)
    probability = HypergeometricTest(bags.num_lists).probability_of_at_least(draws)
    more = pairs.shared > mean
    ranked = np.sort(np.where(more, probability, 1.0))
    num_all = len(words) * (len(words) - 1) / 2
    for level in (0, 1):
        node = _Node(words, np.arange(len(words)), images, bags.sizes, pairs, -1, level)
        kept = NestedSearch(0.05, 3, 1 << 30)._tested(node, chance)[1]
        passing = ranked[ranked <= 0.05 * (np.arange(1, len(ranked) + 1) if level else 1) / num_all]
        assert np.array_equal(kept, np.flatnonzero(more & (probability <= passing.max())))
        assert 500 < len(kept) < len(probability) / 10


def test_threads_change_nothing(shared_data: Path, tmp_path: Path) -> None:
    bags = read_corpus(shared_data / "smh", "gz_sift_v1000", tmp_path)
    sets = mine_cooccurring_sets(bags, TupleHashing(3, 252), min_set_size=3)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(link_nested(sets, bags))
    assert found[0][0] == found[1][0] and found[0][0].num_lists > 20
    assert all(np.array_equal(found[0][1][name], found[1][1][name]) for name in found[0][1])


def test_a_hundred_thousand_sets_of_the_same_words_are_no_more_than_one() -> None:
    bags, truth = planted_corpus(7, num_sets=3)
    alike = [np.delete(truth[0], [number % len(truth[0])]).tolist() for number in range(100_000)]
    once = link_nested(ListDB.from_lists(alike[: len(truth[0])], bags.num_items), bags)
    structures, table = link_nested(ListDB.from_lists(alike, bags.num_items), bags)
    assert [sorted(words.tolist()) for words in structures] == [sorted(words.tolist()) for words in once[0]]
    assert table["num_cooccurring_sets"].max() == 100_000
