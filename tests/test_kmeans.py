"""K-means on samples that double: quality, the same for any number of threads, and input at the edges."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch

from minia.core.artifact import InputError
from minia.mining.features.store import FeatureStore
from minia.mining.vocabulary import faiss_kmeans, kmeans, nearest
from minia.mining.vocabulary.clustering import Clustering
from minia.mining.vocabulary.nearest import nearest_centroids
from minia.mining.vocabulary.sample import sample_descriptors


def blobs(count: int, num_blobs: int = 60, dimensions: int = 16, spread: float = 0.05) -> np.ndarray:
    """Descriptors around the given number of centres, as far apart as the side of a unit cube."""
    generator = np.random.default_rng(1)
    centres = generator.random((num_blobs, dimensions))
    noise = spread * generator.standard_normal((count, dimensions))
    # float16, as the features hold them: sums of them in float64 are exact
    return (centres[generator.integers(num_blobs, size=count)] + noise).astype(np.float16).astype(np.float32)


def inertia(descriptors: np.ndarray, centroids: np.ndarray) -> float:
    squares = (descriptors**2).sum(axis=1)[:, None] - 2 * descriptors @ centroids.T + (centroids**2).sum(axis=1)
    return float(squares.min(axis=1).mean())


def search_by_pivots(monkeypatch: pytest.MonkeyPatch) -> None:
    """What thousands of words do: compare with one centroid in some, then with the near ones."""
    monkeypatch.setattr(kmeans, "_PIVOTS", 16)
    monkeypatch.setattr(kmeans, "_PER_PIVOT", 8)
    monkeypatch.setattr(kmeans, "_NEAR", 24)


@pytest.mark.parametrize("pivots", [False, True])
def test_every_blob_gets_its_word(monkeypatch: pytest.MonkeyPatch, pivots: bool) -> None:
    if pivots:
        search_by_pivots(monkeypatch)
    descriptors = blobs(8000)
    centroids, distance = kmeans.train_centroids(descriptors, Clustering(60))
    # With a word for each blob the distance is the noise alone; a word that covers two adds some 0.01.
    assert inertia(descriptors, centroids) == pytest.approx(16 * 0.05**2, rel=0.03)
    assert distance == pytest.approx(inertia(descriptors, centroids), rel=0.01)


@pytest.mark.parametrize("pivots", [False, True])
def test_inertia_is_below_that_of_mini_batches(monkeypatch: pytest.MonkeyPatch, pivots: bool) -> None:
    from sklearn.cluster import MiniBatchKMeans

    if pivots:
        search_by_pivots(monkeypatch)
    descriptors = blobs(14_000, num_blobs=300, spread=0.2)
    train, held_out = descriptors[:12_000], descriptors[12_000:]
    theirs = MiniBatchKMeans(200, random_state=0, n_init=1).fit(train).cluster_centers_
    ours, _ = kmeans.train_centroids(train, Clustering(200))
    assert inertia(held_out, ours) < inertia(held_out, theirs)


@pytest.mark.parametrize("pivots", [False, True])
def test_same_bytes_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch, pivots: bool) -> None:
    if pivots:
        search_by_pivots(monkeypatch)
    monkeypatch.setattr(kmeans, "_BLOCK", 512)  # so that there is something to share out
    descriptors = blobs(6000, spread=0.2)
    threads, found = torch.get_num_threads(), []
    try:
        for num_threads in (1, 2, 3):
            torch.set_num_threads(num_threads)
            found.append(kmeans.train_centroids(descriptors, Clustering(90))[0].tobytes())
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1] == found[2]


def test_sums_follow_the_words() -> None:
    points = torch.from_numpy(blobs(4000, spread=0.2))
    clusters = kmeans._Clusters(points, points[:50].clone(), np.random.default_rng(0), num_threads=1)
    for sample in (torch.arange(2000), torch.arange(4000)):
        clusters.take_in(sample[clusters.words[sample] < 0], lambda _: None)
        clusters.move_words(sample)
        clusters.settle(sample, 3)
        inside = clusters.words >= 0
        assert int(inside.sum()) == len(sample)
        words = clusters.words[inside]
        sums = torch.zeros_like(clusters.sums).index_add_(0, words, points[inside].double())
        assert torch.equal(clusters.sums, sums)
        assert torch.equal(clusters.counts, torch.bincount(words, minlength=50))


@pytest.mark.parametrize("size", [1, 7, 8, 9, 1000])
def test_nearest_centroids_compares_with_all(size: int) -> None:
    generator = np.random.default_rng(0)
    points, centroids = generator.random((700, 20)), generator.random((size, 20))
    words, scores = nearest_centroids(
        torch.from_numpy(points.astype(np.float32)), torch.from_numpy(centroids.astype(np.float32))
    )
    distances = ((points[:, None] - centroids) ** 2).sum(axis=2)
    assert np.allclose(distances[np.arange(700), words.numpy()], distances.min(axis=1), atol=1e-5)
    assert np.allclose((points**2).sum(axis=1) - 2 * scores.numpy(), distances.min(axis=1), atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("module", [kmeans, faiss_kmeans], ids=["doubling", "lloyd"])
def test_descriptors_that_are_not_finite_are_an_error(module: Any, bad: float) -> None:
    descriptors = blobs(3000)
    descriptors[2345, 3] = bad
    with pytest.raises(InputError, match="descriptors that are not finite numbers"):
        module.train_centroids(descriptors, Clustering(10))


def test_as_many_words_as_descriptors_and_more() -> None:
    descriptors = blobs(100)
    centroids, distance = kmeans.train_centroids(descriptors, Clustering(100))
    assert distance == pytest.approx(0, abs=1e-5)
    assert inertia(descriptors, centroids) == pytest.approx(0, abs=1e-5)
    with pytest.raises(InputError, match=r"vocabulary\.size=101: there are only 100 descriptors"):
        kmeans.train_centroids(descriptors, Clustering(101))


@pytest.mark.parametrize("distinct", [1, 20])
def test_words_without_descriptors_do_no_harm(distinct: int) -> None:
    generator = np.random.default_rng(0)
    different = generator.random((distinct, 8)).astype(np.float16).astype(np.float32)
    descriptors = different[generator.integers(distinct, size=3000)]
    descriptors[:distinct] = different
    centroids, distance = kmeans.train_centroids(descriptors, Clustering(50))
    assert centroids.shape == (50, 8) and np.isfinite(centroids).all()
    assert distance == pytest.approx(0, abs=1e-5)
    assert inertia(descriptors, centroids) == pytest.approx(0, abs=1e-5)


def test_few_descriptors_are_sampled_of_a_file_without_reading_it_all(tmp_path: Path) -> None:
    count, images = 400_000, 1000
    np.save(tmp_path / "descriptors.npy", np.zeros((count, 128), np.float16))  # 102 MB
    offsets = np.linspace(0, count, images + 1).astype(np.int64)
    store = SimpleNamespace(
        offsets=offsets,
        descriptor_size=128,
        images=pd.DataFrame({"first_keypoint": offsets[:-1]}),
        shards=lambda _: iter([np.load(tmp_path / "descriptors.npy", mmap_mode="r")]),
        images_of_shard=lambda _: range(images),
    )
    tracemalloc.start()
    try:
        sample = sample_descriptors(cast(FeatureStore, store), 2000, seed=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sample.shape == (2000, 128)
    assert peak < 40e6  # some numbers a keypoint, and the 1 MB that is sampled


@pytest.fixture
def without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "_onednn_product", lambda: None)


def test_the_operations_of_a_gpu_give_the_same_words(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    descriptors = blobs(6000, spread=0.2)
    expected, expected_distance = kmeans.train_centroids(descriptors, Clustering(90))
    request.getfixturevalue("without_onednn")  # so the scores come from addmm
    monkeypatch.setattr(kmeans, "_BLOCK", kmeans._BLOCK_ON_GPU)
    monkeypatch.setattr(nearest, "_SCORES", nearest._SCORES_ON_GPU)
    centroids, distance = kmeans.train_centroids(descriptors, Clustering(90))
    assert distance == pytest.approx(expected_distance, rel=2e-3)  # rounded otherwise, so some go another way
    assert inertia(descriptors, centroids) == pytest.approx(inertia(descriptors, expected), rel=2e-3)


def gone(*_: object) -> torch.Tensor:
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")


def with_other_arguments(*_: object) -> torch.Tensor:
    raise RuntimeError("mkldnn::_linear_pointwise() is missing value for argument 'algorithm'")


def of_another_meaning(points: torch.Tensor, centroids: torch.Tensor, *_: object) -> torch.Tensor:
    return points @ centroids.T


@pytest.mark.parametrize("operator", [gone, with_other_arguments, of_another_meaning])
def test_without_the_private_operator_of_torch_the_public_one_takes_its_place(
    monkeypatch: pytest.MonkeyPatch, operator: Callable[..., torch.Tensor]
) -> None:
    generator = np.random.default_rng(0)
    points = torch.from_numpy(generator.random((300, 20), dtype=np.float32))
    centroids = torch.from_numpy(generator.random((70, 20), dtype=np.float32))
    expected = nearest_centroids(points, centroids)[0]
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", operator)
    nearest._onednn_product.cache_clear()
    try:
        assert nearest._onednn_product() is None
        assert torch.equal(nearest_centroids(points, centroids)[0], expected)
    finally:
        nearest._onednn_product.cache_clear()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device that torch can use")
@pytest.mark.parametrize("pivots", [False, True])
def test_a_gpu_clusters_as_well(monkeypatch: pytest.MonkeyPatch, pivots: bool) -> None:
    if pivots:
        search_by_pivots(monkeypatch)
    descriptors = blobs(6000, spread=0.2)
    expected, _ = kmeans.train_centroids(descriptors, Clustering(90))
    centroids, _ = kmeans.train_centroids(descriptors, Clustering(90, device="cuda"))
    assert inertia(descriptors, centroids) == pytest.approx(inertia(descriptors, expected), rel=5e-3)
