"""Label metrics and the ranking of structures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from minia.mining.lists.listdb import ListDB
from minia.mining.matching.overlap import overlap_matrix
from minia.mining.report.label_metrics import (
    BEST_IMAGES,
    accuracy_metrics,
    best_labelled_images,
    chance_purity,
    count_labels,
    encode_labels,
    fill_at_random,
    purities,
    purity_metrics,
)
from minia.mining.report.ranking import Scores, ranked, score_structures

CLASSES = ("disc", "ring", "smooth")
WORDS_PER_CLASS = 6
NUM_NOISE_WORDS = 40
NUM_WORDS = len(CLASSES) * WORDS_PER_CLASS + NUM_NOISE_WORDS


def collection(num_images: int, seed: int = 0, noise: int = 10) -> tuple[ListDB, ListDB, np.ndarray]:
    """Images that hold the words of their class and random words; one structure a class; labels."""
    generator = np.random.default_rng(seed)
    classes = generator.integers(0, len(CLASSES), num_images)
    first_noise = len(CLASSES) * WORDS_PER_CLASS
    structures = [list(range(c * WORDS_PER_CLASS, (c + 1) * WORDS_PER_CLASS)) for c in range(len(CLASSES))]
    random = [sorted(generator.choice(NUM_NOISE_WORDS, noise, replace=False) + first_noise) for _ in classes]
    bags = [[*structures[c], *words] for c, words in zip(classes, random, strict=True)]
    labels = np.array(CLASSES, dtype=object)[classes]
    return ListDB.from_lists(bags, NUM_WORDS), ListDB.from_lists(structures, NUM_WORDS), labels


def measure(bags: ListDB, structures: ListDB, labels: np.ndarray, seed: int = 0) -> dict[str, float]:
    codes, _ = encode_labels(labels)
    best = best_labelled_images(bags, structures, codes, formula="distinct", seed=seed)
    return purity_metrics(best, codes, 20, seed) | accuracy_metrics(bags, structures, codes, "distinct", seed, 2)


def test_perfect_structures_are_pure_and_tell_the_label() -> None:
    bags, structures, labels = collection(240)
    metrics = measure(bags, structures, labels)
    assert metrics["mean_purity_at_30"] == 1
    assert metrics["structure_accuracy"] == 1
    assert metrics["word_accuracy"] == 1
    assert metrics["base_rate"] == max(np.mean(labels == name) for name in CLASSES)
    assert metrics["chance_purity_at_30"] < 0.6


def test_labels_without_meaning_give_chance() -> None:
    bags, structures, labels = collection(600)
    shuffled = np.random.default_rng(5).permutation(labels)
    metrics = measure(bags, structures, shuffled)
    assert abs(metrics["mean_purity_at_30"] - metrics["chance_purity_at_30"]) < 0.12
    for name in ("structure_accuracy", "word_accuracy"):
        assert metrics[name] == pytest.approx(metrics["base_rate"], abs=0.08)


def test_same_seed_gives_the_same_metrics() -> None:
    bags, structures, labels = collection(90)
    labels[::2] = np.random.default_rng(0).permutation(labels[::2])
    assert measure(bags, structures, labels, seed=3) == measure(bags, structures, labels, seed=3)
    assert measure(bags, structures, labels, seed=3) != measure(bags, structures, labels, seed=4)


def test_ties_are_broken_at_random_not_by_file_order() -> None:
    # 400 images of equal overlap, sorted by class: file order would give a purity of 1.
    bags = ListDB.from_lists([[0, 1, 2]] * 400, 3)
    structures = ListDB.from_lists([[0, 1, 2]] * 20, 3)
    metrics = measure(bags, structures, np.array(["a"] * 200 + ["b"] * 200, dtype=object))
    assert metrics["mean_purity_at_30"] < 0.7
    assert metrics["mean_purity_at_30"] == pytest.approx(metrics["chance_purity_at_30"], abs=0.05)


def test_best_images_have_the_highest_overlaps(monkeypatch: pytest.MonkeyPatch) -> None:
    bags, structures, labels = collection(150, noise=20)
    monkeypatch.setattr("minia.mining.matching.overlap._IMAGES_PER_BLOCK", 37)
    labels[::3] = None
    codes, _ = encode_labels(labels)
    extended = ListDB.from_lists([*map(list, structures), [20, 25, 30, 35]], NUM_WORDS)
    best = best_labelled_images(bags, extended, codes, formula="distinct", seed=0)
    overlaps = overlap_matrix(bags, extended, "distinct").toarray()
    overlaps[codes < 0] = 0
    for structure, images in enumerate(best):
        held = images[images >= 0]
        assert len(set(held)) == len(held)
        assert (codes[held] >= 0).all()
        expected = np.sort(overlaps[:, structure])[::-1][:BEST_IMAGES]
        assert overlaps[held, structure].tolist() == expected[expected > 0].tolist()


def test_only_images_that_share_a_word_count() -> None:
    bags = ListDB.from_lists([[0, 1], [0, 1], [2], []], 3)
    codes, names = encode_labels(["a", "b", "b", "b"])
    assert names == ["a", "b"]
    best = best_labelled_images(bags, ListDB.from_lists([[0, 1], [2]], 3), codes, formula="distinct", seed=0)
    assert sorted(best[0][best[0] >= 0]) == [0, 1]
    assert count_labels(best, codes).tolist() == [[1, 1], [0, 1]]
    assert purities(best, codes).tolist() == [0.5, 1.0]


def test_few_holders_are_filled_up_with_other_images_at_random() -> None:
    codes = np.repeat([0, 1, -1], 200)
    best = np.full((50, BEST_IMAGES), -1)
    best[:, 0] = np.arange(50)
    filled = fill_at_random(best, codes, seed=0)
    assert np.array_equal(filled[:, 0], best[:, 0])
    assert all(len(set(row)) == BEST_IMAGES for row in filled)
    assert (codes[filled] >= 0).all()
    assert purities(filled, codes).mean() == pytest.approx(chance_purity(filled, codes, 20, seed=0), abs=0.03)
    assert (fill_at_random(best[:1], codes[:20], seed=0) >= 0).sum() == 20


def test_metrics_that_cannot_be_computed_are_absent() -> None:
    bags, structures, labels = collection(60)
    none = ListDB.from_lists([], NUM_WORDS)
    assert measure(bags, structures, np.full(60, None, dtype=object)) == {}
    assert set(measure(bags, none, labels)) == {"base_rate", "word_accuracy", "num_images_for_accuracy"}
    few = np.array(["a"] * 3 + ["b"] * 3 + [None] * 54, dtype=object)
    assert set(measure(bags, structures, few)) == {"base_rate", "mean_purity_at_30", "chance_purity_at_30"}
    one = np.array(["a"] * 60, dtype=object)
    assert measure(bags, structures, one)["mean_purity_at_30"] == 1


def test_small_classes_are_left_out_of_the_folds() -> None:
    bags, structures, labels = collection(120)
    labels[:3] = "rare"
    assert measure(bags, structures, labels)["structure_accuracy"] == 1


def test_empty_bags_count_as_rows_of_zeros() -> None:
    bags, structures, labels = collection(120)
    extended = ListDB.from_lists([*map(list, bags), *[[]] * 120], NUM_WORDS)
    metrics = measure(extended, structures, np.concatenate([labels, np.full(120, "empty", dtype=object)]))
    assert metrics["structure_accuracy"] == 1
    assert metrics["mean_purity_at_30"] == 1


def test_missing_labels_of_any_kind_are_none() -> None:
    codes, names = encode_labels(np.array(["b", None, float("nan"), "a"], dtype=object))
    assert codes.tolist() == [1, -1, -1, 0]
    assert names == ["a", "b"]
    assert encode_labels(np.array([], dtype=object))[1] == []


def random_bags(generator: np.random.Generator, num_images: int, num_words: int, rates: np.ndarray) -> np.ndarray:
    """Presence of words that are independent given each image's rate."""
    return generator.random((num_images, num_words)) < rates[:, None]


def to_bags(present: np.ndarray) -> ListDB:
    return ListDB.from_lists([np.flatnonzero(row).tolist() for row in present], present.shape[1])


def test_planted_structures_score_above_random_sets() -> None:
    generator = np.random.default_rng(0)
    present = random_bags(generator, 600, 60, np.full(600, 0.2))
    present[generator.choice(600, 120, replace=False)[:, None], np.arange(8)] = True
    structures = [list(range(8)), *(generator.choice(np.arange(8, 60), 8, replace=False).tolist() for _ in range(20))]
    scores = score_structures(to_bags(present), ListDB.from_lists(structures, 60))
    assert scores.order[0] == 0
    assert scores.score[0] > 10 * np.abs(scores.score[1:]).max()
    assert scores.coherence[0] > 0.2
    assert np.abs(scores.coherence[1:]).max() < 0.05


def test_a_set_of_two_images_scores_below_a_structure_of_many() -> None:
    generator = np.random.default_rng(1)
    present = random_bags(generator, 1000, 40, np.full(1000, 0.2))
    present[:, :3] = False
    present[:2, :3] = True  # three words that only ever met in two images: coherence 1
    present[generator.choice(1000, 200, replace=False)[:, None], np.arange(10, 16)] = True
    scores = score_structures(to_bags(present), ListDB.from_lists([[0, 1, 2], list(range(10, 16))], 40))
    assert scores.coherence[0] == pytest.approx(1)
    assert scores.order.tolist() == [1, 0]


def test_images_rich_in_words_alone_do_not_make_a_structure() -> None:
    generator = np.random.default_rng(2)
    rates = generator.choice([0.05, 0.6], 2000)  # poor and rich images, words independent in each
    present = random_bags(generator, 2000, 60, rates)
    planted = generator.choice(2000, 150, replace=False)
    present[planted[:, None], np.arange(6)] = True
    scores = score_structures(to_bags(present), ListDB.from_lists([list(range(6)), list(range(20, 26))], 60))
    assert scores.coherence[1] > 0.3  # coherent, but only because rich images hold more of everything
    assert scores.score[0] > 5 * abs(scores.score[1])


def test_ubiquitous_words_and_single_words_score_nothing() -> None:
    bags = ListDB.from_lists([[0, 1, 2]] * 50 + [[0, 1]] * 50, 3)
    scores = score_structures(bags, ListDB.from_lists([[0, 1], [2], []], 3))
    assert scores.score.tolist() == [0, 0, 0]
    assert scores.coherence.tolist() == [0, 0, 0]
    assert scores.order.tolist() == [0, 1, 2]  # ties by number


def test_of_words_that_agree_equally_well_the_longer_structure_scores_higher() -> None:
    generator = np.random.default_rng(7)
    present = random_bags(generator, 2000, 60, np.full(2000, 0.2))
    present[generator.choice(2000, 300, replace=False)[:, None], np.arange(8)] = True
    eight, three, two = score_structures(
        to_bags(present), ListDB.from_lists([list(range(8)), [0, 1, 2], [0, 1]], 60)
    ).score
    assert (eight / two, three / two) == pytest.approx((7, 2), rel=0.35)  # a tree's edges; pairs differ by chance


def test_structures_in_nearly_all_images_are_ranked_last() -> None:
    scores = Scores(coherence=np.zeros(4), score=np.array([1.0, 9.0, 5.0, 7.0]))
    assert ranked(scores, pd.DataFrame()).tolist() == [1, 3, 2, 0]
    assert ranked(scores, pd.DataFrame({"everywhere": [0.0, 1.0, 0.0, np.nan]})).tolist() == [3, 2, 0, 1]


def test_words_that_avoid_each_other_score_below_zero() -> None:
    bags = ListDB.from_lists([[0], [1]] * 200, 2)
    scores = score_structures(bags, ListDB.from_lists([[0, 1]], 2))
    assert scores.coherence[0] == -1
    assert scores.score[0] == pytest.approx(-1000)  # one bit an image


def test_scores_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    bags, structures, _ = collection(130)
    whole = score_structures(bags, structures)
    monkeypatch.setattr("minia.mining.report.ranking._CELLS_PER_BLOCK", 300)
    monkeypatch.setattr("minia.mining.report.ranking._STRUCTURES_PER_BLOCK", 2)
    cut = score_structures(bags, structures)
    assert np.allclose(whole.score, cut.score)
    assert np.allclose(whole.coherence, cut.coherence)


def test_scores_of_an_empty_collection() -> None:
    none = ListDB.from_lists([], 5)
    assert score_structures(none, none).score.shape == (0,)
    scores = score_structures(ListDB.from_lists([[], []], 5), ListDB.from_lists([[0, 1]], 5))
    assert scores.score.tolist() == [0]
    assert np.isfinite(scores.coherence).all()
