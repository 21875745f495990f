"""What k-means is asked for, by whichever algorithm."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Clustering:
    """What to cluster descriptors into.

    Attributes:
        size: number of centroids, at least 1.
        iterations: of Lloyd's algorithm on all descriptors, at most; with 0 faiss leaves the first centroids as
            they are.
        restarts: times the clustering is done, at least 1; the one of least distance is kept.
        initialisation: how the first centroids are chosen: ``random``, ``kmeans++`` (Arthur, Vassilvitskii 2007)
            or ``afk-mc2`` (Bachem et al. 2016).
        seed: of all that is random, 0 to 2^31 - 1.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    size: int
    iterations: int = 10
    restarts: int = 1
    initialisation: str = "random"
    seed: int = 0
    device: str = "cpu"
