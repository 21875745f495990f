"""K-means for the vocabulary beside scikit-learn's MiniBatchKMeans and faiss: inertia and time, and assignment.

    python benchmarks/vocabulary.py FEATURES... [--sizes 1000 5000] [--descriptors 1000000] [--seeds 1] [--threads 1]
    python benchmarks/vocabulary.py synthetic
    python benchmarks/vocabulary.py FEATURES... --assignment
    python benchmarks/vocabulary.py FEATURES... --search [--sizes 5000 20000]

FEATURES are features artifacts of runs (``outputs/store/features/sift-...``), of which descriptors are drawn
at random; ``synthetic`` draws them from 3,000 Gaussians instead. 50,000 more are held out: their mean squared
distance to the nearest centroid is the quality. The methods run in this process in turns, a seed each; times
are the least over the seeds, and ratios are of processor seconds, which other work on the machine disturbs
less: how many times ours each takes. The last column is the quality as a ratio to ours; above 1 ours is better.

``--search`` clusters the descriptors and finds the words of 300,000 held out ones exactly and by approximate
searches, ours, faiss's HNSW graph and its inverted lists, in turns: the share of right words, and seconds.

The original minIA has two programs with MiniBatchKMeans: ``minibatch`` is its ``cluster.py``,
``minibatch-chunks`` its ``cluster_chunks.py``, ten calls of ``partial_fit`` (one step each, on a tenth of the
descriptors). ``minibatch-10000``, one initialisation and larger batches, is the best of what we tried of it.

What bounds it: comparing n descriptors of d numbers with k centroids takes 2 n k d operations, 0.26, 1.3 and
5.1 TFLOP for a million SIFT descriptors and k = 1,000, 5,000 and 20,000: 1.2, 5.8 and 23 s at the 220 GFLOP/s
that one core (AMD EPYC, AVX-512) reaches in a float32 matrix product. Ours does it once with 1,000 to 1,250
centroids, MiniBatchKMeans in its 250 to 360 batches of 10,000 some three times with all and at half the rate,
Lloyd's algorithm 25 times. Comparing with 64 near centroids takes 16 GFLOP in small products at a third of
that rate: 0.2 s whatever k, and 0.2 s to fetch them and to find the largest; 5 to 10 times in all samples together.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from minia.mining.features.store import FeatureStore
from minia.mining.vocabulary import faiss_kmeans, kmeans, nearest
from minia.mining.vocabulary.approximate import NearLists
from minia.mining.vocabulary.assignment import nearest_words
from minia.mining.vocabulary.clustering import Clustering

Method = Callable[[NDArray[np.float32], int, int], NDArray[np.float32]]

NUM_HELD_OUT = 50_000


def ours(descriptors: NDArray[np.float32], size: int, seed: int) -> NDArray[np.float32]:
    return kmeans.train_centroids(descriptors, Clustering(size, seed=seed))[0]


def ours_of_256(descriptors: NDArray[np.float32], size: int, seed: int) -> NDArray[np.float32]:
    """As ``mine.py`` does: with ``vocabulary.points_per_word=256`` descriptors a word, all from 3,907 words on."""
    return ours(descriptors[: 256 * size], size, seed)


def mini_batch(**settings: Any) -> Method:
    def run(descriptors: NDArray[np.float32], size: int, seed: int) -> NDArray[np.float32]:
        from sklearn.cluster import MiniBatchKMeans

        clusters = MiniBatchKMeans(size, random_state=seed, **settings).fit(descriptors)
        return clusters.cluster_centers_.astype(np.float32)

    return run


def mini_batch_in_chunks(descriptors: NDArray[np.float32], size: int, seed: int) -> NDArray[np.float32]:
    from sklearn.cluster import MiniBatchKMeans

    clusters = MiniBatchKMeans(size, random_state=seed, n_init=1)  # its other settings say nothing to partial_fit
    for chunk in np.array_split(descriptors, 10):
        clusters.partial_fit(chunk)
    return clusters.cluster_centers_.astype(np.float32)


def by_faiss(initialisation: str) -> Method:
    def run(descriptors: NDArray[np.float32], size: int, seed: int) -> NDArray[np.float32]:
        clustering = Clustering(size, iterations=25, initialisation=initialisation, seed=seed)
        return faiss_kmeans.train_centroids(descriptors, clustering)[0]

    return run


METHODS: dict[str, Method] = {
    "ours": ours,
    "ours-256": ours_of_256,
    "minibatch": mini_batch(n_init=10, max_iter=300, tol=1e-4),
    "minibatch-chunks": mini_batch_in_chunks,
    "minibatch-10000": mini_batch(n_init=1, batch_size=10_000),
    "faiss": by_faiss("random"),
    "faiss-afk-mc2": by_faiss("afk-mc2"),
}


def load(artifacts: list[str], count: int) -> NDArray[np.float32]:
    """(count, descriptor_size) float32, in random order."""
    generator = np.random.default_rng(0)
    if artifacts == ["synthetic"]:
        centres = generator.normal(0, 0.35, (3000, 128)).astype(np.float32)
        noise = generator.standard_normal((count, 128), dtype=np.float32)
        return noise * np.float32(0.9) + centres[generator.integers(3000, size=count)]
    shards = [shard for path in artifacts for shard in FeatureStore.load(Path(path)).shards("descriptors")]
    descriptors = np.concatenate(shards)
    return descriptors[generator.permutation(len(descriptors))[:count]].astype(np.float32)


def compare_methods(descriptors: NDArray[np.float32], size: int, methods: list[str], seeds: int) -> None:
    held_out, train = descriptors[:NUM_HELD_OUT], descriptors[NUM_HELD_OUT:]
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    distances: dict[str, list[float]] = {name: [] for name in methods}
    for seed in range(seeds):
        for name in methods:
            begin = time.perf_counter(), time.process_time()
            centroids = METHODS[name](train, size, seed)
            seconds[name].append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
            index = faiss.IndexFlatL2(train.shape[1])
            index.add(centroids)
            distances[name].append(float(index.search(held_out, 1)[0].mean()))
    best = {name: np.min(seconds[name], axis=0) for name in methods}
    for name, (wall, processor) in best.items():
        ratios = f"{processor / best[methods[0]][1]:6.2f}"
        quality = f"{np.mean(distances[name]):12.5f} {np.mean(distances[name]) / np.mean(distances[methods[0]]):8.4f}"
        print(f"{size:6} {len(train):8} {name:16} {wall:8.1f} {processor:8.1f} {ratios} {quality}", flush=True)


def compare_assignment(descriptors: NDArray[np.float32], size: int, repeats: int) -> None:
    """Descriptors assigned a second and operations a second, beside faiss and the matrix product alone."""
    points = torch.from_numpy(descriptors[NUM_HELD_OUT:][:100_000])
    centroids = torch.from_numpy(descriptors[:size].copy())
    stored = points.numpy().astype(np.float16)  # as features are
    index = faiss.IndexFlatL2(points.shape[1])
    index.add(centroids.numpy())
    square, offsets = torch.randn(2048, 2048), torch.zeros(2048)
    runs: dict[str, tuple[float, Callable[[], object]]] = {
        "ours": (2.0 * points.numel() * size, lambda: nearest.nearest_centroids(points, centroids)),
        "words stage": (2.0 * points.numel() * size, lambda: nearest_words(stored, centroids.numpy(), "cpu")),
        "faiss": (2.0 * points.numel() * size, lambda: index.search(points.numpy(), 1)),
        "product (oneDNN)": (2.0 * 2048**3, lambda: nearest.scores_of(square, square, offsets)),
        "product (torch.mm)": (2.0 * 2048**3, lambda: torch.mm(square, square)),
    }
    best = dict.fromkeys(runs, np.inf)
    for _ in range(repeats):
        for name, (_, run) in runs.items():
            begin = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - begin)
    rates = {name: operations / best[name] / 1e9 for name, (operations, _) in runs.items()}
    peak = max(rates.values())
    for name, rate in rates.items():
        share = f"{rate / peak:6.0%} of the peak"
        each = f"{len(points) / best[name]:12,.0f} descriptors a second" if "product" not in name else ""
        print(f"{size:6} {name:20} {rate:7.0f} GFLOP/s {share} {each}", flush=True)


def compare_searches(descriptors: NDArray[np.float32], size: int, repeats: int) -> None:
    """Right words and seconds of approximate searches, their preparation included, beside the exact one."""
    points, train = descriptors[:300_000].copy(), descriptors[300_000:]
    centroids = kmeans.train_centroids(train[: 256 * size], Clustering(size, iterations=3))[0]

    def graph(breadth: int) -> NDArray[np.int64]:
        index = faiss.IndexHNSWFlat(centroids.shape[1], 16)
        index.hnsw.efConstruction, index.hnsw.efSearch = 40, breadth
        index.add(centroids)
        return np.asarray(index.search(points, 1)[1][:, 0])

    def inverted_lists(visited: int) -> NDArray[np.int64]:
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(centroids.shape[1]), centroids.shape[1], 256)
        index.train(centroids)
        index.add(centroids)
        index.nprobe = visited
        return np.asarray(index.search(points, 1)[1][:, 0])

    runs: dict[str, Callable[[], NDArray[Any]]] = {
        "exact": lambda: nearest_words(points, centroids, "cpu"),
        "ours": lambda: NearLists.of(centroids, "cpu").nearest(points),
        **{f"HNSW, efSearch={breadth}": functools.partial(graph, breadth) for breadth in (8, 16)},
        **{f"IVF256, nprobe={visited}": functools.partial(inverted_lists, visited) for visited in (4, 16)},
    }
    best, words = dict.fromkeys(runs, (np.inf, np.inf)), {}
    for _ in range(repeats):
        for name, run in runs.items():
            begin = time.perf_counter(), time.process_time()
            words[name] = run()
            taken = time.perf_counter() - begin[0], time.process_time() - begin[1]
            best[name] = min(best[name], taken, key=lambda seconds: seconds[1])
    for name, (wall, processor) in best.items():
        right = float((words[name] == words["exact"]).mean())
        ratio = best["exact"][1] / processor
        print(f"{size:6} {name:18} {right:8.4f} {wall:8.2f} {processor:8.2f} {ratio:7.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", nargs="+")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--descriptors", type=int, default=1_000_000)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--assignment", action="store_true", help="compare assignment alone, in one thread")
    parser.add_argument("--search", action="store_true", help="compare approximate searches of the nearest word")
    arguments = parser.parse_args()

    torch.set_num_threads(1 if arguments.assignment else arguments.threads)
    faiss.omp_set_num_threads(torch.get_num_threads())
    descriptors = load(arguments.features, arguments.descriptors + NUM_HELD_OUT)
    with threadpool_limits(torch.get_num_threads()):
        if arguments.search:
            print(f"{'words':>6} {'search':18} {'right':>8} {'seconds':>8} {'cpu':>8} {'faster':>7}")
        elif not arguments.assignment:
            print(
                f"{'words':>6} {'given':>8} {'method':16} {'seconds':>8} {'cpu':>8}"
                f" {'ratio':>6} {'held out':>12} {'to ours':>8}"
            )
        for size in arguments.sizes:
            if arguments.search:
                compare_searches(descriptors, size, repeats=2)
            elif arguments.assignment:
                compare_assignment(descriptors, size, repeats=5)
            else:
                compare_methods(descriptors, size, arguments.methods, arguments.seeds)


if __name__ == "__main__":
    main()
