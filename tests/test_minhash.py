"""Sampled Min-Hashing: collision probabilities, determinism, kernels, agreement with the reference."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from planted import bags_from_pairs, planted_corpus, read_corpus

from minia.mining import minhash, minima
from minia.mining.linkage import cluster_sets
from minia.mining.listdb import ListDB, read_listdb, read_weights
from minia.mining.minhash import (
    Elements,
    TupleTables,
    image_weights,
    mine_cooccurring_sets,
)
from minia.mining.structures import num_tuples_for_threshold
from minia.stage import InputError

pytestmark = pytest.mark.usefixtures("one_thread")


def similar_words(seed: int, num_words: int = 9, num_images: int = 120) -> ListDB:
    """A few words with Jaccard similarities from about 0.1 to 0.9, and skewed frequencies."""
    random = np.random.default_rng(seed)
    common = random.random(num_images) < 0.6
    presence = np.where(
        random.random((num_images, num_words)) < np.linspace(0.95, 0.3, num_words),
        common[:, None],
        random.random((num_images, num_words)) < 0.3,
    )
    image, word = np.nonzero(presence)
    return bags_from_pairs(image, word, random.geometric(0.35, len(image)), num_images, num_words)


def similarity(bags: ListDB, weights: np.ndarray | None, expand: bool) -> np.ndarray:
    """(num_words, num_words) sum of minima over sum of maxima."""
    mass = bags.to_scipy(binary=not expand).toarray().astype(float)
    if weights is not None:
        mass *= weights[:, None]
    smaller = np.minimum(mass[:, :, None], mass[:, None, :]).sum(0)
    return smaller / np.maximum(mass[:, :, None], mass[:, None, :]).sum(0)


def pair_counts(sets: ListDB) -> Counter[tuple[int, int]]:
    return Counter(pair for words in sets for pair in combinations(words.tolist(), 2))


@pytest.mark.parametrize("expand", [False, True], ids=["presence", "expanded"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("tuple_size", [1, 2, 3])
def test_words_meet_with_the_power_of_their_similarity(tuple_size, weighted, expand):
    num_tuples, scores = 2000, []
    for seed in range(3):
        bags = similar_words(seed)
        weights = np.random.default_rng(seed).exponential(size=bags.num_lists) if weighted else None
        sets = mine_cooccurring_sets(
            bags, tuple_size=tuple_size, num_tuples=num_tuples, min_set_size=2,
            weights=weights, expand_frequencies=expand, seed=seed,
        )  # fmt: skip
        expected = similarity(bags, weights, expand) ** tuple_size
        counts = pair_counts(sets)
        for pair in combinations(range(bags.num_items), 2):
            chance = expected[pair]
            scores.append((counts[pair] - num_tuples * chance) / np.sqrt(num_tuples * chance * (1 - chance)))
    # 108 z-scores, correlated where pairs share a word: mean 0 and standard deviation 1 within a margin.
    assert np.max(np.abs(scores)) < 4.5
    assert abs(np.mean(scores)) < 0.6
    assert 0.7 < np.std(scores) < 1.35


def test_weight_zero_is_absence():
    bags = similar_words(5)
    weights = np.where(np.arange(bags.num_lists) % 3 == 0, 0.0, 1.0)
    sets = mine_cooccurring_sets(bags, tuple_size=1, num_tuples=400, min_set_size=2, weights=weights)
    removed = ListDB.from_lists([[] if not weights[i] else bags[i].tolist() for i in range(bags.num_lists)])
    chance = similarity(removed, None, False)
    for (one, other), count in pair_counts(sets).items():
        assert abs(count - 400 * chance[one, other]) < 5 * np.sqrt(400 * chance[one, other] * (1 - chance[one, other]))
    nothing = mine_cooccurring_sets(bags, tuple_size=1, num_tuples=10, min_set_size=2, weights=np.zeros(bags.num_lists))
    assert nothing.num_lists == 0


def test_form_of_the_result():
    planted, _ = planted_corpus(2)
    bags = ListDB(planted.offsets, planted.items + 3, planted.frequencies, planted.num_items + 5)
    unused = {0, 1, 2, bags.num_items - 1}
    sets = mine_cooccurring_sets(bags, tuple_size=2, num_tuples=100, min_set_size=4)
    assert sets.num_lists > 100 and sets.num_items == bags.num_items
    assert np.all(np.diff(sets.sizes) <= 0) and sets.sizes[-1] == 4
    assert np.all(sets.frequencies == 1)
    assert all(np.all(np.diff(words) > 0) for words in sets)
    assert not set(sets.items.tolist()) & unused


def test_smaller_sets_are_a_superset():
    bags, _ = planted_corpus(2)
    loose, strict = (mine_cooccurring_sets(bags, tuple_size=2, num_tuples=40, min_set_size=size) for size in (2, 4))
    assert strict == loose.select(loose.sizes >= 4)


def test_same_seed_same_sets_whatever_the_threads_and_blocks(monkeypatch):
    bags, _ = planted_corpus(3)
    weights = image_weights(bags, "ids")
    settings = {"tuple_size": 3, "num_tuples": 70, "min_set_size": 3, "weights": weights, "expand_frequencies": True}
    sets = mine_cooccurring_sets(bags, seed=7, **settings)
    assert sets.num_lists > 50
    assert sets != mine_cooccurring_sets(bags, seed=8, **settings)
    torch.set_num_threads(2)
    assert mine_cooccurring_sets(bags, seed=7, **settings) == sets
    monkeypatch.setattr(minhash, "TABLES_AT_A_TIME", 9)
    monkeypatch.setattr(minhash, "_ELEMENTS_AT_A_TIME", 1000)
    assert mine_cooccurring_sets(bags, seed=7, **settings) == sets


@pytest.mark.parametrize("elements_in_cache", [4096, 700, 37])
def test_kernels_agree_bit_for_bit(monkeypatch, elements_in_cache):
    monkeypatch.setattr(minima, "_ELEMENTS_IN_CACHE", elements_in_cache)
    bags = similar_words(1, num_words=40, num_images=5000)  # lists longer than a piece of the gather kernel
    words = bags.transpose()
    random = np.random.default_rng(0)
    rank = np.arange(bags.num_lists) % 4
    for elements in (None, Elements(bags.num_lists, random.exponential(size=bags.num_lists), rank)):
        product, gather = (
            TupleTables(words, elements, tuple_size=2, seed=3, kernel=kernel) for kernel in ("product", "gather")
        )
        keys = product.keys(np.arange(50))
        assert torch.equal(product._minima(keys).view(torch.int32), gather._minima(keys).view(torch.int32))
        one, other = product.buckets(0, 20, 2), gather.buckets(0, 20, 2)
        assert np.array_equal(one.members, other.members) and np.array_equal(one.sizes, other.sizes)


def test_keys_are_uniform_and_different():
    tables = TupleTables(ListDB.from_lists([[0]], num_items=100_000), tuple_size=1, seed=0)
    keys = tables.keys(np.arange(8)).double().numpy() * 2.0**-31
    for column in keys.T:
        counts, _ = np.histogram(column, bins=100, range=(0, 1))
        assert counts.sum() == 100_000 and np.sum((counts - 1000) ** 2 / 1000) < 180  # 99 degrees of freedom
    assert np.all(np.abs(np.corrcoef(keys.T) - np.eye(8)) < 0.02)
    smallest = np.sort(keys, axis=0)[:1000]
    assert all(len(np.unique(column)) == 1000 for column in smallest.T)


def test_exponential_is_the_logarithm():
    hashes = torch.cat([torch.arange(2000), torch.arange(2**31 - 2000, 2**31), torch.arange(0, 2**31, 999_983)])
    expected = -torch.log1p(-(hashes.double() + 0.5) * 2.0**-31)
    assert torch.allclose(minhash._exponential(hashes.to(torch.int32)), expected, rtol=1e-6, atol=0)


def test_tiny_corpus_by_hand(shared_data):
    tiny = read_listdb(shared_data / "smh" / "tiny.corpus")
    sets = mine_cooccurring_sets(tiny, tuple_size=1, num_tuples=400, min_set_size=3)
    for words in sets:  # words 3 and 4, and words 0 and 2, are in the same images; word 6 is in none
        held = set(words.tolist())
        assert (3 in held) == (4 in held) and (0 in held) == (2 in held) and 6 not in held
    together = sum({3, 4, 7} <= set(words.tolist()) for words in sets)
    assert 250 < together < 350  # word 7 is in 3 of the 4 images of words 3 and 4
    structures = cluster_sets(sets)
    assert {tuple(sorted(words[:3].tolist())) for words in structures} == {(3, 4, 7), (0, 2, 5)}
    weights = image_weights(tiny, "ids")
    assert np.allclose(weights, read_weights(shared_data / "smh" / "reference" / "tiny.ids.weights"), atol=1e-6)
    assert mine_cooccurring_sets(tiny, tuple_size=1, num_tuples=20, min_set_size=2, weights=weights).num_lists > 0


def test_number_of_tuples_as_the_reference():
    assert [num_tuples_for_threshold(0.14, size) for size in (2, 3, 4)] == [35, 252, 1803]
    assert num_tuples_for_threshold(0.99, 1) == 1
    for threshold, size in ((0.0, 2), (1.0, 2), (0.5, 0)):
        with pytest.raises(InputError):
            num_tuples_for_threshold(threshold, size)


def test_settings_that_are_refused():
    bags = similar_words(0)
    good = {"tuple_size": 2, "num_tuples": 5, "min_set_size": 3}
    ones = np.ones(bags.num_lists)
    changes = [{"tuple_size": 0}, {"num_tuples": 0}, {"min_set_size": 1}]
    for change in [*changes, {"weights": -ones}, {"weights": ones[1:]}, {"weights": ones * np.nan}]:
        with pytest.raises(InputError):
            mine_cooccurring_sets(bags, **(good | change))
    with pytest.raises(InputError, match="none or ids"):
        image_weights(bags, "tfidf")
    assert image_weights(bags, "none") is None


@pytest.mark.parametrize("lists", [[], [[], []], [[0], [], [0]]])
@pytest.mark.parametrize("expand", [False, True])
def test_nothing_to_mine(lists, expand):
    bags = ListDB.from_lists(lists, num_items=3)
    sets = mine_cooccurring_sets(bags, tuple_size=2, num_tuples=5, min_set_size=2, expand_frequencies=expand)
    assert sets.num_lists == 0 and sets.num_items == 3
    assert cluster_sets(sets).num_lists == 0


@pytest.mark.parametrize(
    ("name", "tuple_size", "num_tuples", "expand", "reference", "spread"),
    [
        ("planted_small", 2, 750, False, 32_760, 0.02),
        ("planted_small", 2, 750, True, 26_247, 0.02),
        ("planted_small", 3, 252, False, 5_635, 0.05),
        ("gz_sift_v1000", 2, 750, False, 27_535, 0.03),
        ("gz_sift_v1000", 2, 750, True, 23_749, 0.03),
        ("gz_sift_v5000", 2, 750, False, 87_091, 0.02),
        ("planted_flat", 3, 252, False, 7_797, 0.05),
        ("planted_large", 3, 252, False, 51_439, 0.02),
    ],
)
def test_as_many_sets_as_the_reference(shared_data, tmp_path, name, tuple_size, num_tuples, expand, reference, spread):
    bags = read_corpus(shared_data / "smh", name, tmp_path)
    counts = [
        mine_cooccurring_sets(
            bags, tuple_size=tuple_size, num_tuples=num_tuples, min_set_size=3, expand_frequencies=expand, seed=seed
        ).num_lists
        for seed in range(1 if name == "planted_large" else 3)
    ]
    assert np.mean(counts) == pytest.approx(reference, rel=spread)
