"""Sampled Min-Hashing: collision probabilities, determinism, kernels, agreement with the reference."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import bags_from_pairs, planted_corpus, read_corpus

from minia.core.artifact import InputError
from minia.mining.lists import listdb
from minia.mining.lists.listdb import ListDB, read_listdb, read_weights
from minia.mining.structures.linkage.single import cluster_sets
from minia.mining.structures.minhash import long_lists, minima, random_keys, tuple_tables
from minia.mining.structures.minhash.choose_tuples import num_tuples_for_threshold
from minia.mining.structures.minhash.cooccurring_sets import image_weights, mine_cooccurring_sets
from minia.mining.structures.minhash.long_lists import LongListMinima
from minia.mining.structures.minhash.random_keys import RandomKeys, Universe
from minia.mining.structures.minhash.tuple_tables import TupleHashing, TupleTables

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
    larger = np.maximum(mass[:, :, None], mass[:, None, :]).sum(0)
    return np.asarray(smaller / larger)


def pair_counts(sets: ListDB) -> np.ndarray:
    """(num_words, num_words) how many sets hold both words."""
    membership = sets.to_scipy(binary=False)
    return np.asarray((membership.T @ membership).toarray())


@pytest.mark.parametrize("expand", [False, True], ids=["presence", "expanded"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("tuple_size", [1, 2, 3])
def test_words_meet_with_the_power_of_their_similarity(tuple_size: int, weighted: bool, expand: bool) -> None:
    num_tuples, scores = 4000, []
    for seed in range(8):
        bags = similar_words(seed, num_words=13)
        weights = np.random.default_rng(seed).exponential(size=bags.num_lists) if weighted else None
        sets = mine_cooccurring_sets(
            bags, TupleHashing(tuple_size, num_tuples, seed), min_set_size=2, weights=weights, expand_frequencies=expand
        )
        pairs = np.triu_indices(bags.num_items, 1)
        chance = (similarity(bags, weights, expand) ** tuple_size)[pairs]
        met = pair_counts(sets)[pairs]
        often = num_tuples * chance > 20  # fewer are not near enough to normally distributed
        scores.extend(((met - num_tuples * chance) / np.sqrt(num_tuples * chance * (1 - chance)))[often])
    # Their mean has a standard deviation of 0.14, pairs of one corpus being correlated (measured over 24 corpora).
    assert len(scores) > 500
    assert np.max(np.abs(scores)) < 5
    assert abs(np.mean(scores)) < 0.5
    assert 0.85 < np.std(scores) < 1.15


def test_many_copies_cost_nothing() -> None:
    """Frequencies of up to two thousand million: the copies could not be made one by one."""
    image = np.repeat(np.arange(4), 2)
    word = np.tile([0, 1], 4)
    frequency = [2**31 - 1, 2**30, 7, 2**31 - 1, 1, 1, 2**30, 2**31 - 1]
    bags = bags_from_pairs(image, word, frequency, 4, 2)
    sets = mine_cooccurring_sets(bags, TupleHashing(1, 4000), min_set_size=2, expand_frequencies=True)
    chance = similarity(bags, None, True)[0, 1]
    assert abs(sets.num_lists - 4000 * chance) < 4.5 * np.sqrt(4000 * chance * (1 - chance))


def test_weight_zero_is_absence() -> None:
    bags = similar_words(5)
    weights = np.where(np.arange(bags.num_lists) % 3 == 0, 0.0, 1.0)
    sets = mine_cooccurring_sets(bags, TupleHashing(1, 400), min_set_size=2, weights=weights)
    removed = ListDB.from_lists([[] if not weights[i] else bags[i].tolist() for i in range(bags.num_lists)])
    pairs = np.triu_indices(bags.num_items, 1)
    chance, met = similarity(removed, None, False)[pairs], pair_counts(sets)[pairs]
    assert np.all(np.abs(met - 400 * chance) < 5 * np.sqrt(400 * chance * (1 - chance)))
    nothing = mine_cooccurring_sets(bags, TupleHashing(1, 10), min_set_size=2, weights=np.zeros(bags.num_lists))
    assert nothing.num_lists == 0


def test_form_of_the_result() -> None:
    planted, _ = planted_corpus(2)
    bags = ListDB(planted.offsets, planted.items + 3, planted.frequencies, planted.num_items + 5)
    unused = {0, 1, 2, bags.num_items - 1}
    sets = mine_cooccurring_sets(bags, TupleHashing(2, 100), min_set_size=4)
    assert sets.num_lists > 100 and sets.num_items == bags.num_items
    assert np.all(np.diff(sets.sizes) <= 0) and sets.sizes[-1] == 4
    assert np.all(sets.frequencies == 1)
    assert all(np.all(np.diff(words) > 0) for words in sets)
    assert not set(sets.items.tolist()) & unused


def test_smaller_sets_are_a_superset() -> None:
    bags, _ = planted_corpus(2)
    loose, strict = (mine_cooccurring_sets(bags, TupleHashing(2, 40), min_set_size=size) for size in (2, 4))
    assert strict == loose.select(loose.sizes >= 4)


def test_same_seed_same_sets_whatever_the_threads_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    bags, _ = planted_corpus(3)
    weights = image_weights(bags, "ids")
    settings: dict[str, Any] = {"min_set_size": 3, "weights": weights, "expand_frequencies": True}
    sets = mine_cooccurring_sets(bags, TupleHashing(3, 70, 7), **settings)
    assert sets.num_lists > 50
    assert sets != mine_cooccurring_sets(bags, TupleHashing(3, 70, 8), **settings)
    torch.set_num_threads(2)
    assert mine_cooccurring_sets(bags, TupleHashing(3, 70, 7), **settings) == sets
    monkeypatch.setattr(tuple_tables, "TABLES_AT_A_TIME", 9)
    monkeypatch.setattr(tuple_tables, "_CODES_AT_A_TIME", 1000)
    monkeypatch.setattr(random_keys, "_KEYS_AT_A_TIME", 1000)
    assert mine_cooccurring_sets(bags, TupleHashing(3, 70, 7), **settings) == sets
    monkeypatch.setattr(listdb, "_ENTRIES_AT_A_TIME", 3000)
    monkeypatch.setattr(listdb, "_MOST_SORTED_AT_ONCE", 5000)
    assert mine_cooccurring_sets(bags, TupleHashing(3, 70, 7), memory_budget=1, **settings) == sets


def same_minima(lists: ListDB, universe: Universe | None = None) -> None:
    """Every kernel gives the same bits, whatever stands in the others' place."""
    tables = [
        TupleTables(lists, TupleHashing(2, 20, 3), universe=universe, kernel=kernel)
        for kernel in ("gather", "product", "mixed")
    ]
    keys = tables[0].keys(np.arange(50))
    expected, *others = (table._minima(keys).view(torch.int32) for table in tables)
    for found in others:
        assert torch.equal(found, expected)
    first, *rest = (table.buckets(0, 20, 2) for table in tables)
    for buckets in rest:
        assert np.array_equal(buckets.members, first.members) and np.array_equal(buckets.sizes, first.sizes)


def universes(bags: ListDB) -> list[Universe | None]:
    """Images as elements: all alike; of skewed rates; in groups; of extreme rates."""
    rates = np.random.default_rng(0).exponential(size=bags.num_lists).astype(np.float32) ** 3 + np.float32(1e-6)
    groups = np.unique(np.append(np.arange(0, bags.num_lists, 3), bags.num_lists))
    tiny = np.where(np.arange(bags.num_lists) % 50, 1e-20, 1.0).astype(np.float32)
    return [
        None,
        Universe(bags.num_lists, rates),
        Universe(bags.num_lists, rates, groups),
        Universe(bags.num_lists, tiny),
    ]


@pytest.mark.parametrize("elements_in_cache", [4096, 700, 37])
def test_kernels_agree_bit_for_bit(monkeypatch: pytest.MonkeyPatch, elements_in_cache: int) -> None:
    monkeypatch.setattr(minima, "_ELEMENTS_IN_CACHE", elements_in_cache)
    if elements_in_cache == 700:  # as with more entries than 32-bit numbers count
        monkeypatch.setattr(minima, "_LARGEST_INT32", 100)
        monkeypatch.setattr(minima, "_MOST_ENTRIES", 2000)
    bags = similar_words(1, num_words=40, num_images=5000)  # lists longer than a piece of the gather kernel
    for universe in universes(bags):
        same_minima(bags.transpose(), universe)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("price", [1.0, 1e9], ids=["some lists", "all lists"])
def test_search_among_the_smallest_keys_finds_every_minimum(
    monkeypatch: pytest.MonkeyPatch, price: float, threads: int
) -> None:
    torch.set_num_threads(threads)
    for module, name, value in (
        (minima, "_PER_ENTRY", price), (long_lists, "_PER_STRATUM", 0), (long_lists, "_VISITS_AT_A_TIME", 100),
        (long_lists, "_VISITS_OF_A_TASK", 500), (long_lists, "_KEYS_AT_A_TIME", 7000),
        (long_lists, "_CODE_BITS", long_lists._KEY_BITS + 13 + 4),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    bags, _ = planted_corpus(4, num_images=5000, num_words=400)  # 31 columns' worth of codes, 16 at a time
    words = bags.transpose()
    words = words.select(words.sizes > 0)
    for universe in universes(bags):
        found = LongListMinima(words, universe or Universe(bags.num_lists), minima.ProductMinima.nanoseconds(words))
        assert (len(found.others) == 0) if price > 1 else (0 < len(found.others) < words.num_lists)
        same_minima(words, universe)


def test_numpy_and_torch_make_the_same_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_keys, "_KEYS_AT_A_TIME_CUDA", 10_000)
    bags = similar_words(1, num_images=5000)
    for kind in universes(bags):
        keys = RandomKeys(kind or Universe(bags.num_lists), 12345, torch.device("cpu"))
        assert torch.equal(keys._by_numpy(np.arange(7)), keys._by_torch(np.arange(7)))


def test_a_corpus_that_does_not_fit_the_device_is_mined_on_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bags, _ = planted_corpus(3)
    sets = mine_cooccurring_sets(bags, TupleHashing(3, 50), min_set_size=3)
    monkeypatch.setattr(tuple_tables, "free_memory", lambda device: (1 << 30) + 100_000)
    with caplog.at_level(logging.INFO):
        assert mine_cooccurring_sets(bags, TupleHashing(3, 50, device="cuda"), min_set_size=3) == sets
    assert [message for message in caplog.messages if "mining: on CPU, which gives the same bits" in message]


@pytest.mark.parametrize("weighted", [False, True])
def test_tables_at_a_time_fit_the_memory_that_is_free_on_the_device(
    monkeypatch: pytest.MonkeyPatch, weighted: bool
) -> None:
    bags = similar_words(1, num_images=50_000)
    lists, universe = bags.transpose(), universes(bags)[int(weighted)]
    lists = lists.select(lists.sizes > 0)

    def most_tables(free: int) -> tuple[str, int]:
        monkeypatch.setattr(
            tuple_tables, "free_memory", lambda device: free
        )  # meta: a device whose tensors hold nothing
        tables = TupleTables(lists, TupleHashing(2, 600, device="meta"), universe=universe)
        return tables.device.type, max(end - begin for begin, end in tables.blocks())

    fixed, of_function = minima.GatherMinima.num_bytes(lists)
    assert fixed >= 8 * lists.num_entries
    a_table = 4 * bags.num_lists + of_function + 64 * lists.num_lists
    fixed += 4 * bags.num_lists if weighted else 0
    assert most_tables(200 << 30) == ("meta", 256)
    assert most_tables((1 << 30) + fixed + 40 * a_table) == ("meta", 40)
    assert most_tables((1 << 30) + fixed + a_table) == ("meta", 1)
    assert most_tables((1 << 30) + fixed + a_table - 1) == ("cpu", 32)


def test_the_gather_kernel_gives_keys_back_as_they_were() -> None:
    lists = similar_words(1, num_images=3000).transpose()
    keys = torch.rand(lists.num_items, 5)
    before = keys.clone()
    expected = minima.ProductMinima(lists)(keys)
    assert torch.equal(minima.GatherMinima(lists, torch.device("cpu"))(keys), expected)
    assert torch.equal(keys, before)


def test_free_memory_counts_what_torch_holds_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 50)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 20)
    assert minima.free_memory(torch.device("cuda")) == 130


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("scheme", ["none", "ids"])
@pytest.mark.parametrize("expand", [False, True], ids=["presence", "expanded"])
def test_cuda_gives_the_sets_of_the_cpu(scheme: str, expand: bool) -> None:
    bags, _ = planted_corpus(3)
    settings: dict[str, Any] = {"min_set_size": 3, "expand_frequencies": expand}
    sets, there = (
        mine_cooccurring_sets(
            bags, TupleHashing(3, 300, device=device), weights=image_weights(bags, scheme), **settings
        )
        for device in ("cpu", "cuda")
    )
    assert sets.num_lists > 50 and there == sets


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    bags = ListDB.from_lists([[0, 1, 2], [], [0, 1, 2]])
    path = tmp_path / "weights"
    path.write_text(" 0.500000\n inf\n 0.000000\n")
    weights = image_weights(bags, "file", path)
    assert weights is not None and weights.tolist() == [0.5, np.inf, 0.0]
    for text, problem in (
        ("1\n2\n", "there are 2 weights for 3 images"),
        ("1\n1\ninf\n", "image 2 has words and the weight inf; allowed: 0, or from 1e-20 to 1e\\+20"),
        ("1\n-1\n1\n", "line 2: '-1' is not a number of 0 or more"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=rf"^mining.weights_path=.*weights.*: .*{problem}"):
            image_weights(bags, "file", path)


def test_keys_are_uniform_and_different() -> None:
    tables = TupleTables(ListDB.from_lists([[0]], num_items=100_000), TupleHashing(1, 1))
    keys = tables.keys(np.arange(8)).double().numpy() * 2.0**-31
    for column in keys.T:
        counts, _ = np.histogram(column, bins=100, range=(0, 1))
        assert counts.sum() == 100_000 and np.sum((counts - 1000) ** 2 / 1000) < 180  # 99 degrees of freedom
    assert np.all(np.abs(np.corrcoef(keys.T) - np.eye(8)) < 0.02)
    smallest = np.sort(keys, axis=0)[:1000]
    assert all(len(np.unique(column)) == 1000 for column in smallest.T)


def test_exponential_is_the_logarithm() -> None:
    hashes = torch.cat([torch.arange(2000), torch.arange(2**31 - 2000, 2**31), torch.arange(0, 2**31, 999_983)])
    expected = -torch.log1p(-(hashes.double() + 0.5) * 2.0**-31)
    assert torch.allclose(random_keys._exponential(torch, hashes.to(torch.int32)), expected, rtol=1e-6, atol=0)


def test_tiny_corpus_by_hand(shared_data: Path) -> None:
    tiny = read_listdb(shared_data / "smh" / "tiny.corpus")
    sets = mine_cooccurring_sets(tiny, TupleHashing(1, 400), min_set_size=3)
    for words in sets:  # words 3 and 4, and words 0 and 2, are in the same images; word 6 is in none
        held = set(words.tolist())
        assert (3 in held) == (4 in held) and (0 in held) == (2 in held) and 6 not in held
    together = sum({3, 4, 7} <= set(words.tolist()) for words in sets)
    assert 250 < together < 350  # word 7 is in 3 of the 4 images of words 3 and 4
    structures = cluster_sets(sets)
    assert {tuple(sorted(words[:3].tolist())) for words in structures} == {(3, 4, 7), (0, 2, 5)}
    weights = image_weights(tiny, "ids")
    assert weights is not None
    assert np.allclose(weights, read_weights(shared_data / "smh" / "reference" / "tiny.ids.weights"), atol=1e-6)
    assert mine_cooccurring_sets(tiny, TupleHashing(1, 20), min_set_size=2, weights=weights).num_lists > 0


def test_number_of_tuples_as_the_reference() -> None:
    assert [num_tuples_for_threshold(0.14, size) for size in (2, 3, 4)] == [35, 252, 1803]
    assert num_tuples_for_threshold(0.99, 1) == 1
    for threshold, size in ((0.0, 2), (1.0, 2), (0.5, 0)):
        with pytest.raises(InputError):
            num_tuples_for_threshold(threshold, size)


def test_word_numbers_may_have_gaps() -> None:
    bags, _ = planted_corpus(6, num_images=500, num_words=300)
    spread = ListDB(bags.offsets, bags.items * 7_000_000, bags.frequencies, 2_147_000_000)
    sets, apart = (mine_cooccurring_sets(lists, TupleHashing(2, 50), min_set_size=3) for lists in (bags, spread))
    assert sets.num_lists > 20 and apart.num_items == spread.num_items
    assert np.array_equal(apart.items, sets.items * 7_000_000) and np.array_equal(apart.offsets, sets.offsets)


def test_settings_that_are_refused() -> None:
    bags = similar_words(0)
    good: dict[str, Any] = {"hashing": TupleHashing(2, 5), "min_set_size": 3}
    ones = np.ones(bags.num_lists)
    changes: list[dict[str, Any]] = [
        {"hashing": TupleHashing(0, 5)},
        {"hashing": TupleHashing(2, 0)},
        {"min_set_size": 1},
    ]
    for change in [*changes, {"weights": -ones}, {"weights": ones[1:]}, {"weights": ones * np.nan}]:
        with pytest.raises(InputError):
            mine_cooccurring_sets(bags, **(good | change))
    with pytest.raises(InputError, match="none, ids, or file"):
        image_weights(bags, "tfidf")
    assert image_weights(bags, "none") is None


@pytest.mark.parametrize("lists", [[], [[], []], [[0], [], [0]]])
@pytest.mark.parametrize("expand", [False, True])
def test_nothing_to_mine(lists: list[list[int]], expand: bool) -> None:
    bags = ListDB.from_lists(lists, num_items=3)
    sets = mine_cooccurring_sets(bags, TupleHashing(2, 5), min_set_size=2, expand_frequencies=expand)
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
def test_as_many_sets_as_the_reference(
    shared_data: Path,
    tmp_path: Path,
    name: str,
    tuple_size: int,
    num_tuples: int,
    expand: bool,
    reference: int,
    spread: float,
) -> None:
    bags = read_corpus(shared_data / "smh", name, tmp_path)
    counts = [
        mine_cooccurring_sets(
            bags, TupleHashing(tuple_size, num_tuples, seed), min_set_size=3, expand_frequencies=expand
        ).num_lists
        for seed in range(1 if name == "planted_large" else 3)
    ]
    assert np.mean(counts) == pytest.approx(reference, rel=spread)
