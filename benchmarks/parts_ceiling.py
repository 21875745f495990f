"""What bounds the F1 of single structures on drawn parts: sets of words in rings, chosen with the truth.

    python benchmarks/parts_ceiling.py RUN STORE [--nearest 1]     RUN: of images=simulated, dense features

A structure says that an image holds a part where enough of its words lie in the right ring about the object's middle.
Here the truth chooses the words: on one half of the images, for each part, the K pairs of a word and a ring of radii
that go with the part most (their count in its images against the expected one, in standard deviations), weighted by
their log likelihood ratio, and the threshold of highest F1. Measured on the other half: F1 of the images, and the share
of the chosen keypoints that lie on the part. Mean of 6 halvings drawn with a seed.

What no choice of words with all labels at hand reaches, mining without labels cannot either, whatever its rules.
The last column is a logistic regression on all words, 5-fold: it may also say no where a word of another part is.
``--nearest 2`` counts each keypoint for its two nearest words (multiple assignment).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from parts import PARTS, decisions_by_words, going_with, read_truth, regions, words_of_images
from run_results import RunResults, print_table

from minia.core.run_folder import RunFolder
from minia.mining.arrangement.concentric import Objects
from minia.mining.arrangement.stage import load_places
from minia.mining.features.store import FeatureStore
from minia.mining.vocabulary.assignment import load_centroids

GROUP_OF_RING = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6])  # of the twelve rings of radii, two or three together
GROUPS = 7
SIZES = (5, 10, 20, 40)
HALVINGS = 6


class Pairs(NamedTuple):
    """Keypoints as pairs of a word and a ring.

    Attributes:
        image: (n,) int64, the image of each.
        keypoint: (n,) int64, which keypoint it is.
        pair: (n,) int64.
        present: (num_images, num_pairs) which images hold which pair, 0 or 1.
    """

    image: NDArray[np.int64]
    keypoint: NDArray[np.int64]
    pair: NDArray[np.int64]
    present: scipy.sparse.csc_matrix


def read_pairs(run: Path, nearest: int) -> Pairs:
    """The pairs of a run's keypoints, each with its nearest words."""
    artifacts = RunFolder.read(run).artifacts
    centroids = load_centroids(artifacts["vocabulary"])
    places = load_places(artifacts["features"], artifacts["assignment"], len(centroids))
    objects = Objects.of(places)
    kept = np.flatnonzero(places.words >= 0)
    if nearest == 1:
        words = places.words[kept, None]
    else:
        shards = FeatureStore.load(artifacts["features"]).shards("descriptors")
        words = np.concatenate([nearest_words(np.asarray(shard), centroids, nearest) for shard in shards])[kept]
    pair = (words.astype(np.int64) * GROUPS + GROUP_OF_RING[objects.ring[kept]][:, None]).ravel()
    keypoint = np.repeat(kept, nearest)
    image = objects.image[keypoint]
    shape = (places.num_images, len(centroids) * GROUPS)
    present = scipy.sparse.csc_matrix((np.ones(len(pair), np.float32), (image, pair)), shape=shape)
    present.sum_duplicates()
    present.data[:] = 1
    return Pairs(image, keypoint, pair, present)


def nearest_words(descriptors: NDArray[np.generic], centroids: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The nearest words of descriptors, (n, count), nearest first."""
    import faiss

    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(np.ascontiguousarray(centroids, dtype=np.float32))
    return np.asarray(index.search(np.ascontiguousarray(descriptors, dtype=np.float32), count)[1])


def best_threshold(score: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """The threshold of highest F1."""
    return max(np.unique(score).tolist(), key=lambda threshold: f1(score >= threshold, positive))


def f1(found: NDArray[np.bool_], positive: NDArray[np.bool_]) -> float:
    return 2 * float((found & positive).sum()) / max(1, int(found.sum() + positive.sum()))


def halved(
    pairs: Pairs, positive: NDArray[np.bool_], on_part: NDArray[np.bool_], size: int, learned: NDArray[np.bool_]
) -> tuple[float, float]:
    """F1 and the share on the part in the half that the words were not chosen on."""
    with_part, all_images = (positive & learned).astype(float), learned.astype(float)
    holding, held = pairs.present.T @ with_part, pairs.present.T @ all_images
    number, total = with_part.sum(), all_images.sum()
    chosen = np.argsort(-going_with(holding, held, number, total), kind="stable")[:size]
    rate = (holding[chosen] + 0.5) / (number + 1)
    other = (held[chosen] - holding[chosen] + 0.5) / (total - number + 1)
    score = pairs.present[:, chosen] @ (np.log(rate / other) - np.log((1 - rate) / (1 - other)))
    found = (score >= best_threshold(score[learned], positive[learned])) & ~learned
    hits = np.isin(pairs.pair, chosen) & found[pairs.image]
    return f1(found[~learned], positive[~learned]), float(on_part[pairs.keypoint[hits]].mean()) if hits.any() else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--nearest", type=int, default=1, help="words of a keypoint")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    results = RunResults.load(given.run, given.store)
    on = regions(results, read_truth(results))
    pairs = read_pairs(given.run, given.nearest)
    words, names = words_of_images(given.run)
    rows: list[list[object]] = []
    for name in PARTS:
        if not on[name]:
            continue
        positive = np.array([image in on[name] for image in results.images])
        nowhere = {image: np.zeros(len(points), np.bool_) for image, points in results.keypoints.items()}
        on_part = np.concatenate([(nowhere | on[name])[image] for image in results.images])
        row: list[object] = [name, int(positive.sum())]
        for size in SIZES:
            rng = np.random.default_rng(given.seed)
            halves = [rng.permutation(len(positive)) % 2 == 0 for _ in range(HALVINGS)]
            found = np.mean([halved(pairs, positive, on_part, size, half) for half in halves], axis=0)
            row.append(f"{found[0]:.3f} ({found[1]:.2f})")
        decisions = decisions_by_words(words[names.get_indexer(results.images)], positive)
        row.append(f"{f1(decisions >= best_threshold(decisions, positive), positive):.3f}")
        rows.append(row)
    print("F1 (share on the part) of the best K pairs of a word and a ring, chosen with the truth\n")
    print_table(("part", "images", *(f"K = {size}" for size in SIZES), "all words"), rows)


if __name__ == "__main__":
    main()
