"""The vocabulary stage: k-means centroids of the descriptors, and the visual word of every keypoint.

The vocabulary artifact holds ``centroids.npy``, (size, descriptor_size) float32, and ``pca.png``,
the first two principal components of a sample of descriptors with the centroids.
The assignment artifact holds one file a shard of the features, ``words-00000.npy`` and so on,
(n,) int32: the visual word of each keypoint.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minia.core.artifact import InputError, Stage, fingerprint_file, read_manifest
from minia.core.device import choose_device
from minia.core.progress import progress
from minia.core.workers import map_in_order
from minia.core.writing import appearing_whole
from minia.mining.features.store import FeatureStore, features_fingerprint
from minia.mining.vocabulary import faiss_kmeans
from minia.mining.vocabulary.clustering import Clustering

logger = logging.getLogger(__name__)

_DESCRIPTORS_PER_BLOCK = 16384  # 8 MB of float32 at 128 dimensions
_DESCRIPTORS_IN_PLOT = 20_000


def build_vocabulary(
    features: Path,
    store: Path,
    *,
    algorithm: str,
    size: int,
    iterations: int,
    restarts: int,
    initialisation: str,
    points_per_word: int,
    seed: int,
    device: str,
) -> Path:
    """Cluster a sample of the descriptors into visual words by k-means.

    Args:
        features: artifact of the features stage.
        store: folder of artifacts.
        algorithm: ``doubling`` (k-means on samples that double) or ``lloyd`` (faiss).
        size: number of visual words.
        iterations: of Lloyd's algorithm on the whole sample; ``doubling`` stops when they gain little.
        restarts: times the clustering is done; the one of lowest objective is kept.
        initialisation: ``random``, ``kmeans++`` or ``afk-mc2`` (Bachem et al. 2016).
        points_per_word: descriptors sampled for training, per visual word; all images give the
            same number, as far as they have it.
        seed: of the sample and of the initialisation.
        device: ``auto``, ``cpu`` or ``cuda``; ``lloyd`` uses the GPU only where faiss was built for it.

    Returns:
        The vocabulary artifact.

    Raises:
        InputError: faiss is needed and missing, there are fewer distinct descriptors than visual
            words, or a descriptor is not finite.
    """
    parameters: dict[str, Any] = {
        "algorithm": algorithm,
        "size": size,
        "iterations": iterations,
        "restarts": restarts,
        "initialisation": initialisation,
        "points_per_word": points_per_word,
        "seed": seed,
    }
    inputs = {"features": features_fingerprint(features, store)}
    on_gpu = faiss_kmeans.uses_gpu(device) if algorithm == "lloyd" else choose_device(device) == "cuda"
    stage = Stage("vocabulary", f"kmeans{size}", store, parameters | {"gpu": on_gpu}, inputs, version=3)

    def make(work: Path) -> dict[str, Any]:
        sample = sample_descriptors(FeatureStore.load(features), size * points_per_word, seed)
        distinct = count_distinct(sample, enough=size)
        if distinct == 0:
            raise InputError("no keypoints were found in any image: lower features.contrast_threshold or the like")
        if distinct < size:
            raise InputError(
                f"vocabulary.size={size}: there are only {distinct} distinct descriptors; "
                f"allowed: 1 to {distinct}, or more images or features"
            )
        logger.info("vocabulary: k-means of %d descriptors into %d words", len(sample), size)
        from minia.mining.vocabulary import (
            kmeans,  # imports torch, which takes seconds: only where something is to be clustered
        )

        train_centroids = faiss_kmeans.train_centroids if algorithm == "lloyd" else kmeans.train_centroids
        clustering = Clustering(size, iterations, restarts, initialisation, seed, device)
        centroids, mean_squared_distance = train_centroids(sample, clustering)
        np.save(work / "centroids.npy", centroids)
        plot_principal_components(work / "pca.png", sample, centroids, seed)
        counts = {
            "num_words": size,
            "num_sampled_descriptors": len(sample),
            "mean_squared_distance": mean_squared_distance,
        }
        if algorithm == "lloyd":  # its sums of floats depend on how the threads split them
            counts["num_threads"] = faiss_kmeans.import_faiss().omp_get_max_threads()
        return counts

    return stage.run(make)


def import_vocabulary(path: Path, store: Path) -> Path:
    """Take over a vocabulary made elsewhere.

    Args:
        path: a ``.npy`` file of centroids, (size, descriptor_size), or a vocabulary artifact.
        store: folder of artifacts.

    Raises:
        InputError: the file is missing or holds no finite two-dimensional array.
    """
    path = path / "centroids.npy" if path.is_dir() else path
    try:
        centroids = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise InputError(f"vocabulary.path={path}: not a .npy file of numbers") from None
    if not isinstance(centroids, np.ndarray):
        raise InputError(f"vocabulary.path={path}: an archive of arrays; expected one array in a .npy file")
    if centroids.ndim != 2 or not centroids.size or centroids.dtype.kind not in "fiu":
        raise InputError(
            f"vocabulary.path={path}: expected numbers of shape (size, descriptor_size), "
            f"found {centroids.dtype} of shape {centroids.shape}"
        )
    if not np.isfinite(centroids).all():
        raise InputError(f"vocabulary.path={path}: holds centroids that are not finite numbers")
    stage = Stage("vocabulary", f"imported{len(centroids)}", store, {}, {"file": fingerprint_file(path)})

    def make(work: Path) -> dict[str, Any]:
        np.save(work / "centroids.npy", centroids.astype(np.float32))
        return {"num_words": len(centroids)}

    return stage.run(make)


def load_centroids(vocabulary: Path) -> NDArray[np.float32]:
    """The centroids of a vocabulary artifact, (size, descriptor_size) float32."""
    centroids: NDArray[np.float32] = np.load(vocabulary / "centroids.npy")
    return centroids


def assign_words(features: Path, vocabulary: Path, store: Path, *, device: str) -> Path:
    """Find the visual word, the nearest centroid in Euclidean distance, of every keypoint.

    The descriptors are streamed; a finished shard survives a kill.

    Args:
        features: artifact of the features stage.
        vocabulary: artifact of the vocabulary stage.
        store: folder of artifacts.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        The assignment artifact.

    Raises:
        InputError: the descriptors and the centroids differ in length, or a descriptor is not finite.
    """
    inputs = {
        "features": features_fingerprint(features, store),
        "vocabulary": read_manifest(vocabulary)["fingerprint"],
    }
    device = choose_device(device)
    label, parameters = vocabulary.name.rsplit("-", 1)[0], {"gpu": device == "cuda"}  # it breaks ties its own way
    stage = Stage("assignment", label, store, parameters, inputs, resumable=True, version=3)
    if stage.done:
        return stage.run(lambda _: {})
    centroids = load_centroids(vocabulary)
    found = FeatureStore.load(features)
    if found.descriptor_size != centroids.shape[1]:
        raise InputError(
            f"the vocabulary's centroids have {centroids.shape[1]} numbers, "
            f"the descriptors {found.descriptor_size}: they must be of one kind"
        )

    def make(work: Path) -> dict[str, Any]:
        missing = [shard for shard in range(found.num_shards) if not (work / _words_file(shard)).exists()]
        remaining = sum(len(found.shard(shard, "scores")) for shard in missing)
        with progress("assigning words", remaining, "keypoint") as advance:
            for shard in missing:
                words = _nearest(found.shard(shard, "descriptors"), centroids, device)
                with appearing_whole(work / _words_file(shard)) as file:
                    np.save(file, words)
                advance(len(words))
        return {"num_keypoints": found.num_keypoints}

    return stage.run(make)


def load_assignment(assignment: Path, shard: int) -> NDArray[np.int32]:
    """The visual word of each keypoint of one shard, (n,) int32, memory-mapped."""
    words: NDArray[np.int32] = np.load(assignment / _words_file(shard), mmap_mode="r")
    return words


def sample_descriptors(features: FeatureStore, target: int, seed: int) -> NDArray[np.float32]:
    """Draw ``target`` descriptors, the same number (or one more) from every image as far as it has them.

    Returns:
        (min(target, num_keypoints), descriptor_size) float32, in the order of the images.
    """
    wanted = _share(np.diff(features.offsets), target, np.random.default_rng([seed, 0]))
    parts = []
    for shard, descriptors in enumerate(features.shards("descriptors")):
        images = features.images_of_shard(shard)
        counts = np.diff(features.offsets[images.start : images.stop + 1])
        rows = _choose(counts, wanted[images.start : images.stop], np.random.default_rng([seed, 1, shard]))
        parts.append(descriptors[rows].astype(np.float32))
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def _share(counts: NDArray[np.int64], target: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """How many descriptors to take of each image: in all min(target, those there are).

    All images give the same number, as far as they have it, and images drawn at random one more.

    Args:
        counts: (num_images,) int64, keypoints of each image.
        target: descriptors to take in all.
        generator: draws the images that give one more.

    Returns:
        (num_images,) int64.
    """
    low, high = 0, int(counts.max(initial=0))
    while low < high:  # the largest number per image that does not exceed the target
        middle = (low + high + 1) // 2
        if int(np.minimum(counts, middle).sum()) <= target:
            low = middle
        else:
            high = middle - 1
    wanted = np.minimum(counts, low)
    more = np.flatnonzero(counts > low)
    wanted[generator.permutation(more)[: target - int(wanted.sum())]] += 1
    return wanted


def _choose(counts: NDArray[np.int64], wanted: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Rows of the wanted numbers of keypoints of each image, of images laid end to end, ascending."""
    image = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((generator.random(len(image)), image))
    rank = np.arange(len(image)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[rank < np.repeat(wanted, counts)])


def count_distinct(descriptors: NDArray[np.float32], enough: int) -> int:
    """How many different descriptors there are; counting stops soon after ``enough``."""
    seen: set[bytes] = set()
    for first in range(0, len(descriptors), _DESCRIPTORS_PER_BLOCK):
        block = np.ascontiguousarray(descriptors[first : first + _DESCRIPTORS_PER_BLOCK])
        seen.update(row.tobytes() for row in block)
        if len(seen) >= enough:
            break
    return len(seen)


def _nearest(descriptors: NDArray[Any], centroids: NDArray[np.float32], device: str) -> NDArray[np.int32]:
    import torch

    from minia.core.threads import single_threaded_torch
    from minia.mining.vocabulary.nearest import nearest_centroids

    on_device = torch.from_numpy(centroids).to(device)

    def assign(first: int) -> NDArray[np.int32]:
        block = torch.from_numpy(np.array(descriptors[first : first + _DESCRIPTORS_PER_BLOCK], dtype=np.float32))
        words: NDArray[np.int32] = nearest_centroids(block.to(device), on_device)[0].int().cpu().numpy()
        return words

    with single_threaded_torch(device) as num_threads:
        blocks = range(0, len(descriptors), _DESCRIPTORS_PER_BLOCK)
        found = list(map_in_order(assign, blocks, num_threads, in_threads=True))
    return np.concatenate(found) if found else np.empty(0, np.int32)


def _words_file(shard: int) -> str:
    return f"words-{shard:05d}.npy"


def plot_principal_components(
    path: Path, descriptors: NDArray[np.float32], centroids: NDArray[np.float32], seed: int
) -> None:
    """Save a plot of a sample of descriptors and all centroids in their first two principal components.

    Args:
        path: the PNG file to write.
        descriptors: (num_descriptors, descriptor_size) float32.
        centroids: (size, descriptor_size) float32.
        seed: of the sample that is drawn.
    """
    from matplotlib.figure import Figure

    rows = np.random.default_rng(seed).permutation(len(descriptors))[:_DESCRIPTORS_IN_PLOT]
    sample = descriptors[np.sort(rows)].astype(np.float64)
    mean = sample.mean(axis=0)
    covariance = np.cov((sample - mean).T) if len(sample) > 1 else np.eye(sample.shape[1])
    variances, axes = np.linalg.eigh(covariance)
    plane = axes[:, ::-1][:, :2]
    share = variances[::-1][:2].sum() / max(variances.sum(), 1e-12)
    points, words = (sample - mean) @ plane, (centroids - mean) @ plane

    figure = Figure(figsize=(7, 6), layout="constrained")
    plot = figure.add_subplot()
    plot.scatter(points[:, 0], points[:, 1], s=1, color="#9aa5b1", linewidths=0, label=f"{len(points)} descriptors")
    plot.scatter(words[:, 0], words[:, 1], s=5, color="#d1495b", linewidths=0, label=f"{len(words)} visual words")
    plot.set_xlabel("first principal component")
    plot.set_ylabel("second principal component")
    plot.set_title(f"Descriptors and visual words ({share:.0%} of the variance)")
    plot.legend(markerscale=3)
    figure.savefig(path, dpi=120)
