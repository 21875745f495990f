"""The map of structures: places in a square, near each other where structures are found in the same images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse

Array = npt.NDArray[np.float64]

_FEWEST_TO_EMBED = 5
_PERPLEXITY = 15.0  # neighbours that count
_MOST_TO_SEPARATE = 1500  # all pairs are compared in every round
_STEPS = 500  # of the embedding: as many neighbours stay together as after 1,000
_ROUNDS = 80  # of pushing thumbnails apart


def map_places(together: scipy.sparse.csr_matrix, num_images: npt.NDArray[np.int64], seed: int) -> Array:
    """Place structures by the images that they share: t-SNE of the cosines of their sets of images.

    Args:
        together: (n, n) images that hold both of two structures.
        num_images: (n,) images that hold each.
        seed: of the start.

    Returns:
        (n, 2) float64 in [0, 1].
    """
    count = len(num_images)
    if count < _FEWEST_TO_EMBED:
        return np.column_stack([(np.arange(count) + 0.5) / max(1, count), np.full(count, 0.5)])
    norm = np.sqrt(np.maximum(num_images, 1)).astype(np.float32)
    distances = together.toarray().astype(np.float32)
    distances /= norm[:, None]
    distances /= norm
    np.subtract(1, distances, out=distances)
    np.clip(distances, 0, 1, out=distances)
    np.fill_diagonal(distances, 0)
    places = _embed(distances, seed)
    sizes = marker_sizes(num_images)
    return _separated(places, sizes) if count <= _MOST_TO_SEPARATE else places


def marker_sizes(num_images: npt.NDArray[np.int64]) -> Array:
    """The side of each structure's thumbnail as a share of the map's, (n,) float64; its area grows with the images.

    Args:
        num_images: (n,) images that hold each structure.
    """
    count = max(1, len(num_images))
    share = np.sqrt(num_images / max(1, num_images.max(initial=1)))
    return np.asarray((0.45 + 0.55 * share) * min(0.13, 0.85 / np.sqrt(count)), dtype=np.float64)


def _embed(distances: npt.NDArray[np.float32], seed: int) -> Array:
    """T-SNE in one thread: sums of several threads differ in their last digits from run to run."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(_PERPLEXITY, (len(distances) - 1) / 3)
    with threadpool_limits(1):
        embedding = TSNE(metric="precomputed", init="random", perplexity=perplexity, random_state=seed, max_iter=_STEPS)
        found = embedding.fit_transform(distances)
    return _in_unit_square(np.asarray(found, dtype=np.float64))


def _in_unit_square(places: Array) -> Array:
    low, high = places.min(axis=0), places.max(axis=0)
    return np.asarray(0.05 + 0.9 * (places - low) / np.maximum(high - low, 1e-9))


def _separated(places: Array, sizes: Array) -> Array:
    """Push thumbnails apart that overlap."""
    x, y = places.T.copy()
    wanted = (sizes[:, None] + sizes) / 2 * 1.1
    np.fill_diagonal(wanted, 0)
    for _ in range(_ROUNDS):
        away = np.maximum(np.abs(x[:, None] - x), np.abs(y[:, None] - y))
        one, other = np.nonzero(away < wanted)  # few of all pairs
        if not len(one):
            break
        apart_x, apart_y = x[one] - x[other], y[one] - y[other]
        push = 0.25 * (wanted - away)[one, other] / np.maximum(np.hypot(apart_x, apart_y), 1e-9)
        x += np.bincount(one, push * apart_x, len(x))
        y += np.bincount(one, push * apart_y, len(y))
        x, y = np.clip(x, sizes / 2, 1 - sizes / 2), np.clip(y, sizes / 2, 1 - sizes / 2)
    return np.column_stack([x, y])
