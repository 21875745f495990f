from __future__ import annotations

import builtins
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from choices import CPU, kmeans
from test_features import extract, folder_images

from minia.core.artifact import InputError, read_manifest
from minia.core.context import Context
from minia.mining.features.store import FeatureStore
from minia.mining.vocabulary import assignment as assigning
from minia.mining.vocabulary.assignment import assign_words, load_assignment, load_centroids, search_of, words_by
from minia.mining.vocabulary.sample import sample_descriptors
from minia.mining.vocabulary.size import choose_size, count_draws
from minia.mining.vocabulary.stage import build_vocabulary, import_vocabulary


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def features(store: Path, image_folder: Path) -> Path:
    return extract(folder_images(store, image_folder), store)


def all_descriptors(features: Path) -> np.ndarray:
    return np.concatenate(list(FeatureStore.load(features).shards("descriptors"))).astype(np.float32)


@pytest.mark.parametrize("initialisation", ["random", "kmeans++", "afk-mc2"])
def test_words_are_the_nearest_centroids(features: Path, store: Path, initialisation: str) -> None:
    vocabulary = build_vocabulary(features, store, kmeans(initialisation=initialisation), CPU)
    centroids = load_centroids(vocabulary)
    assert centroids.shape == (12, 128)
    assignment = assign_words(features, vocabulary, store, CPU)
    words = np.concatenate([load_assignment(assignment, shard) for shard in range(3)])
    descriptors = all_descriptors(features)
    distances = ((descriptors[:, None] - centroids) ** 2).sum(axis=2)
    assert np.allclose(distances[np.arange(len(words)), words], distances.min(axis=1), atol=1e-5)
    assert (vocabulary / "pca.png").stat().st_size > 5000


def test_progress_shows_within_one_shard(features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = build_vocabulary(features, tmp_path, kmeans(), CPU)
    whole = assign_words(features, vocabulary, tmp_path / "whole", CPU)
    steps: list[int] = []
    monkeypatch.setattr(assigning, "_DESCRIPTORS_AT_ONCE", 32)
    monkeypatch.setattr(assigning, "progress", lambda *_: nullcontext(steps.append))
    pieces = assign_words(features, vocabulary, tmp_path / "pieces", CPU)
    sizes = [len(load_assignment(whole, shard)) for shard in range(3)]
    assert sum(steps) == sum(sizes)
    assert max(steps) == 32 < min(sizes)
    for shard in range(3):
        assert np.array_equal(load_assignment(whole, shard), load_assignment(pieces, shard))


def test_kmeans_lowers_the_distances(features: Path, store: Path) -> None:
    objectives = [
        read_manifest(build_vocabulary(features, store, kmeans(**change), CPU))["counts"]["mean_squared_distance"]
        for change in ({"iterations": 1}, {"iterations": 20}, {"size": 40, "iterations": 20})
    ]
    assert objectives[0] > objectives[1] > objectives[2]


def test_same_seed_same_bytes(features: Path, tmp_path: Path) -> None:
    def centroids(store: str, seed: int) -> bytes:
        vocabulary = build_vocabulary(features, tmp_path / store, kmeans(), Context(seed, "cpu"))
        return (vocabulary / "centroids.npy").read_bytes()

    assert centroids("one", 0) == centroids("two", 0) != centroids("one", 1)


def test_fewer_distinct_descriptors_than_words_gives_both_numbers(features: Path, store: Path) -> None:
    distinct = len(np.unique(all_descriptors(features), axis=0))
    with pytest.raises(InputError, match=f"vocabulary.size=100000: there are only {distinct} distinct descriptors"):
        build_vocabulary(features, store, kmeans(size=100_000), CPU)
    assert len(load_centroids(build_vocabulary(features, store, kmeans(size=distinct), CPU))) == distinct


@pytest.mark.parametrize(
    ("draws", "num_images", "size"),
    [
        (420, 10_000, 2100),
        (1925, 300, 9600),
        (8000, 300, 30_000),  # not beyond
        (300, 40, 600),  # a word is to be in some 20 images
        (10, 10, 100),
        (0, 0, 100),
    ],
)
def test_size_by_what_an_image_draws(draws: float, num_images: int, size: int) -> None:
    assert choose_size(draws, num_images) == size


@pytest.mark.parametrize("repeats", [1, 5])
def test_keypoints_alike_are_one_draw(tmp_path: Path, repeats: int) -> None:
    """Images of 60 independent descriptors, each there once or five times."""
    random = np.random.default_rng(0)
    points = [np.repeat(random.normal(size=(60, 8)), repeats, axis=0) for _ in range(40)]
    draws, num_images = count_draws(write_features(tmp_path, points), seed=0)
    assert num_images == 40 and 40 < draws < 70


def write_features(folder: Path, descriptors: list[np.ndarray]) -> FeatureStore:
    """Features with these descriptors of each image, and nothing else of use."""
    counts = np.array([len(each) for each in descriptors])
    names = [f"{number}.png" for number in range(len(descriptors))]
    shard = folder / "shard-00000"
    shard.mkdir()
    np.save(shard / "descriptors.npy", np.concatenate(descriptors).astype(np.float16))
    images = pd.DataFrame({"image": names, "path": names, "shard": 0, "num_keypoints": counts})
    images["first_keypoint"] = np.cumsum(counts) - counts
    return FeatureStore(folder, folder, images, np.concatenate([[0], np.cumsum(counts)]), 1)


def test_auto_is_never_more_than_there_is(features: Path, store: Path) -> None:
    vocabulary = build_vocabulary(features, store, kmeans(size="auto"), CPU)
    draws, num_images = count_draws(FeatureStore.load(features), CPU.seed)
    distinct = len(np.unique(all_descriptors(features), axis=0))
    assert len(load_centroids(vocabulary)) == min(choose_size(draws, num_images), distinct)


def test_sample_takes_the_same_number_from_every_image(features: Path) -> None:
    found = FeatureStore.load(features)
    counts = np.diff(found.offsets)
    sample = sample_descriptors(found, 65, seed=0)
    assert len(sample) == 65
    rows = {row.tobytes(): image for image in range(12) for row in found.of_image(image, "descriptors")}
    taken = Counter(rows[row.astype(np.float16).tobytes()] for row in sample)
    assert counts.min() >= 6
    assert set(taken.values()) == {5, 6}
    assert len(sample_descriptors(found, 7, seed=0)) == 7  # fewer than images
    sample = sample_descriptors(found, 60, seed=0)
    assert np.array_equal(sample, sample_descriptors(found, 60, seed=0))
    assert not np.array_equal(sample, sample_descriptors(found, 60, seed=1))
    assert np.array_equal(sample_descriptors(found, 10**9, seed=0), all_descriptors(features))


@pytest.mark.parametrize(("dimensions", "size"), [(8, 1024), (16, 3000)])
def test_an_approximate_search_finds_nearly_all_words(tmp_path: Path, dimensions: int, size: int) -> None:
    random, number = np.random.default_rng(0), 9000 + size
    centres = random.normal(size=(200, dimensions))[random.integers(200, size=number)]
    points = (centres + random.normal(size=(number, dimensions)) / 3).astype(np.float32)
    np.save(tmp_path / "mine.npy", points[:size])
    vocabulary = import_vocabulary(tmp_path / "mine.npy", tmp_path)
    exact, approximate = (words_by(vocabulary, CPU, search)[1] for search in ("exact", "approximate"))
    points = points[size:]
    found = approximate(points)
    assert 0.95 < (found == exact(points)).mean() <= 1
    assert np.array_equal(np.concatenate([approximate(points[:10]), approximate(points[10:])]), found)
    points[-1, 2] = np.nan
    with pytest.raises(InputError, match="not finite"):
        approximate(points)


def test_the_search_is_approximate_where_words_are_many(tmp_path: Path, features: Path, store: Path) -> None:
    searches = {}
    for size in (1023, 10_000):
        np.save(tmp_path / "mine.npy", np.random.default_rng(0).random((size, 128), dtype=np.float32))
        vocabulary = import_vocabulary(tmp_path / "mine.npy", tmp_path)
        searches[size] = [words_by(vocabulary, CPU, search)[0].get("search") for search in ("auto", "exact")]
        assert search_of(assign_words(features, vocabulary, tmp_path, CPU)) == (searches[size][0] or "exact")
    assert searches == {1023: [None, None], 10_000: ["approximate", None]}


def test_no_keypoints_at_all_is_an_error(tmp_path: Path, image_folder: Path) -> None:
    features = extract(folder_images(tmp_path, image_folder), tmp_path, contrast_threshold=10.0)
    with pytest.raises(InputError, match="no keypoints were found in any image"):
        build_vocabulary(features, tmp_path, kmeans(), CPU)


def test_vocabulary_made_elsewhere(features: Path, tmp_path: Path) -> None:
    centroids = np.random.default_rng(0).random((7, 128))
    np.save(tmp_path / "mine.npy", centroids)
    vocabulary = import_vocabulary(tmp_path / "mine.npy", tmp_path)
    assert np.array_equal(load_centroids(vocabulary), centroids.astype(np.float32))
    assert load_centroids(import_vocabulary(vocabulary, tmp_path)).shape == (7, 128)
    assert load_assignment(assign_words(features, vocabulary, tmp_path, CPU), 0).max() < 7


@pytest.mark.parametrize("array", [np.zeros(5), np.full((3, 128), np.nan), np.array(["a", "b"], dtype=object)])
def test_bad_vocabulary_file_is_an_error(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "bad.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=r"vocabulary.path=.*bad.npy"):
        import_vocabulary(tmp_path / "bad.npy", tmp_path)


def test_vocabulary_of_other_descriptors_is_an_error(features: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "surf.npy", np.random.default_rng(0).random((7, 64)))
    with pytest.raises(InputError, match="64 numbers, the descriptors 128"):
        assign_words(features, import_vocabulary(tmp_path / "surf.npy", tmp_path), tmp_path, CPU)


def test_missing_faiss_names_the_two_commands(features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_faiss(name: str, *rest: Any) -> Any:
        if name == "faiss":
            raise ImportError
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_faiss)
    with pytest.raises(InputError, match=r'pip install -e "\.\[cpu\]", or pip install -e "\.\[gpu\]"'):
        build_vocabulary(features, tmp_path, kmeans(initialisation="afk-mc2"), CPU)
