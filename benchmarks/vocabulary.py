"""Inertia and time of the vocabulary's k-means beside its other initialisations and scikit-learn's.

    python benchmarks/vocabulary.py FEATURES [--size 1000] [--seeds 3]

FEATURES is a features artifact of a run (``outputs/store/features/sift-...``). Nine tenths of a sample
of its descriptors train, one tenth is held out; the mean squared distance of the held-out descriptors
to their nearest centroid is the quality, mean over the seeds. All methods run in this process, in turn.

What bounds it: an iteration compares n descriptors with k centroids of d numbers, 2 n k d operations
(n = 256 k = 256,000, k = 1,000, d = 128: 66 GFLOP), so 25 iterations take 1.6 TFLOP: some 11 s at the
150 GFLOP/s that two cores reach in a float32 matrix product. Reading the descriptors, 131 MB an
iteration, is nothing beside it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from minia.mining.feature_store import FeatureStore
from minia.mining.vocabulary import import_faiss, sample_descriptors, train_centroids


def by_faiss(initialisation: str, iterations: int) -> Callable[[np.ndarray, int, int], np.ndarray]:
    def run(descriptors: np.ndarray, size: int, seed: int) -> np.ndarray:
        centroids, _ = train_centroids(
            descriptors,
            size=size,
            iterations=iterations,
            restarts=1,
            initialisation=initialisation,
            seed=seed,
            device="cpu",
        )
        return centroids

    return run


def by_minibatch(descriptors: np.ndarray, size: int, seed: int) -> np.ndarray:
    """The original minIA's method, with scikit-learn's defaults and its batch of 10,000."""
    from sklearn.cluster import MiniBatchKMeans

    clusters = MiniBatchKMeans(size, batch_size=10_000, random_state=seed, n_init=1)
    return clusters.fit(descriptors).cluster_centers_.astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()

    faiss = import_faiss()
    sample = sample_descriptors(FeatureStore.load(arguments.features), arguments.size * 256, seed=0)
    held_out = np.arange(len(sample)) % 10 == 0
    train, test = np.ascontiguousarray(sample[~held_out]), np.ascontiguousarray(sample[held_out])
    methods: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
        "ours (afk-mc2, 25 iterations)": by_faiss("afk-mc2", 25),
        "faiss random, 25 iterations": by_faiss("random", 25),
        "faiss kmeans++, 25 iterations": by_faiss("kmeans++", 25),
        "scikit-learn MiniBatchKMeans": by_minibatch,
    }
    print(f"{len(train)} descriptors of {train.shape[1]} numbers, {arguments.size} words, {arguments.seeds} seeds")
    print(f"{'method':32} {'seconds':>8} {'ratio':>6} {'held-out mean squared distance':>32}")
    ours = 0.0
    for name, method in methods.items():
        seconds, distances = [], []
        for seed in range(arguments.seeds):
            begin = time.perf_counter()
            centroids = method(train, arguments.size, seed)
            seconds.append(time.perf_counter() - begin)
            index = faiss.IndexFlatL2(train.shape[1])
            index.add(centroids)
            distances.append(float(index.search(test, 1)[0].mean()))
        ours = ours or float(np.median(seconds))
        ratio = np.median(seconds) / ours
        print(f"{name:32} {np.median(seconds):8.1f} {ratio:6.2f} {np.mean(distances):32.5f}", flush=True)


if __name__ == "__main__":
    main()
