"""K-means by faiss: Lloyd's algorithm on all descriptors from the start, and ways to seed it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minia.core.artifact import InputError
from minia.core.device import choose_device
from minia.mining.vocabulary.clustering import Clustering


def import_faiss() -> ModuleType:
    """The faiss module.

    Raises:
        InputError: neither build of it is installed.
    """
    try:
        import faiss
    except ImportError:
        raise InputError(
            'faiss is not installed: pip install -e ".[cpu]", or pip install -e ".[gpu]" on a machine with a GPU'
        ) from None
    module: ModuleType = faiss
    return module


def uses_gpu(device: str) -> bool:
    """Whether k-means runs on a GPU: where the device allows it and faiss was built for it."""
    return import_faiss().get_num_gpus() > 0 and choose_device(device) == "cuda"


def train_centroids(descriptors: NDArray[np.float32], clustering: Clustering) -> tuple[NDArray[np.float32], float]:
    """Cluster descriptors by faiss k-means.

    Args:
        descriptors: (num_descriptors, descriptor_size) float32, at least as many distinct ones as words are asked for.
        clustering: how.

    Returns:
        The centroids, (size, descriptor_size) float32, and the mean squared distance of the descriptors to the
        nearest of them, as it was before they moved for the last time. The last digits depend on the number of threads.

    Raises:
        InputError: faiss is missing, or a descriptor is not finite.
    """
    faiss = import_faiss()
    if not np.isfinite(descriptors).all():
        raise InputError("the features hold descriptors that are not finite numbers")
    methods = {
        "random": faiss.ClusteringInitMethod_RANDOM,
        "kmeans++": faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
        "afk-mc2": faiss.ClusteringInitMethod_AFK_MC2,
    }
    kmeans: Any = faiss.Kmeans(
        descriptors.shape[1],
        clustering.size,
        niter=clustering.iterations,
        nredo=clustering.restarts,
        init_method=methods[clustering.initialisation],
        seed=clustering.seed,
        gpu=uses_gpu(clustering.device),
        # The sample is drawn by image already: faiss must neither draw again nor warn that it is small.
        max_points_per_centroid=2**31 - 1,
        min_points_per_centroid=1,
    )
    objective = float(kmeans.train(descriptors))
    return np.asarray(kmeans.centroids, dtype=np.float32), objective / len(descriptors)
