"""The vocabulary stage: centroids of the descriptors, which are the visual words.

The artifact holds ``centroids.npy``, (size, descriptor_size) float32, and ``pca.png``, the first two
principal components of a sample of descriptors with the centroids.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minia.core.artifact import InputError, Stage
from minia.core.checksums import fingerprint_file
from minia.core.context import Context
from minia.core.device import choose_device
from minia.core.foreign import map_array
from minia.core.principal_axes import principal_axes
from minia.core.processes import processes
from minia.mining.features.store import FeatureStore, features_fingerprint
from minia.mining.vocabulary import faiss_kmeans
from minia.mining.vocabulary.clustering import Clustering
from minia.mining.vocabulary.contract import VocabularyMaker
from minia.mining.vocabulary.sample import count_distinct, sample_descriptors, sample_images
from minia.mining.vocabulary.settings import KMeansVocabulary, PlugInVocabulary
from minia.mining.vocabulary.size import choose_size, count_draws

logger = logging.getLogger(__name__)

MOST_SAMPLED = 1 << 20  # descriptors to train on: 512 MB of float32 at 128 numbers
_DESCRIPTORS_IN_PLOT = 20_000


def build_vocabulary(
    features: Path, store: Path, settings: KMeansVocabulary | PlugInVocabulary, context: Context
) -> Path:
    """Cluster a sample of the descriptors into visual words.

    Args:
        features: artifact of the features stage.
        store: folder of artifacts.
        settings: of the clustering; ``lloyd`` uses the GPU only where faiss was built for it.
        context: ``seed`` of the sample and of the initialisation.

    Returns:
        The vocabulary artifact.

    Raises:
        InputError: faiss is needed and missing, there are fewer distinct descriptors than visual
            words, or a descriptor is not finite.
    """
    if isinstance(settings, PlugInVocabulary):
        return _build_by_plug_in(features, store, settings, context)
    on_gpu = choose_device(context.device) == "cuda"
    if settings.algorithm == "lloyd":
        on_gpu = faiss_kmeans.uses_gpu(context.device)
    parameters = settings.model_dump(exclude={"kind", "search"}) | {"seed": context.seed, "gpu": on_gpu}
    inputs = {"features": features_fingerprint(features, store)}
    stage = Stage("vocabulary", f"kmeans{settings.size}", store, parameters, inputs, version=3)

    def make(work: Path | None) -> dict[str, Any]:
        images = _images(features, settings, context.seed)
        size = _auto_size(images, context.seed) if settings.size == "auto" else settings.size
        target = min(size * settings.points_per_word, max(size, MOST_SAMPLED))
        sample = _sample(images, target, context.seed)
        distinct = count_distinct(sample, enough=size)
        if distinct < size:
            raise InputError(
                f"vocabulary.size={size}: there are only {distinct} distinct descriptors; "
                f"allowed: 1 to {distinct}, or more images or features"
            )
        logger.info("vocabulary: k-means of %d descriptors into %d words", len(sample), size)
        centroids, mean_squared_distance = _train(sample, size, settings, context)
        if work is None:  # of the processes that cluster together the first one writes
            return {}
        counts = _write(work, sample, centroids, context.seed) | {"mean_squared_distance": mean_squared_distance}
        if settings.algorithm == "lloyd":  # its sums of floats depend on how the threads split them
            counts["num_threads"] = faiss_kmeans.import_faiss().omp_get_max_threads()
        return counts

    if settings.algorithm == "lloyd":  # faiss works in one process
        return stage.run(make)
    return processes().make(stage, make)


def check_vocabulary(settings: KMeansVocabulary | PlugInVocabulary, context: Context) -> None:
    """Check that a vocabulary can be made here.

    Raises:
        InputError: faiss is needed and missing, or a class from elsewhere does not keep to the contract.
    """
    if isinstance(settings, PlugInVocabulary):
        _maker(settings, context)
    elif settings.needs_faiss:
        faiss_kmeans.import_faiss()


def _images(features: Path, settings: KMeansVocabulary | PlugInVocabulary, seed: int) -> FeatureStore:
    """The features of the images that the vocabulary is made of; the log says where these are not all."""
    found = FeatureStore.load(features)
    sample = sample_images(found, settings.sample_images, seed)
    if len(sample.images) < len(found.images):
        logger.info("vocabulary: of a sample of %d of %d images", len(sample.images), len(found.images))
    return sample


def _auto_size(store: FeatureStore, seed: int) -> int:
    """The number of words for a collection (see ``choose_size``), and no more than it has distinct descriptors."""
    draws, num_images = count_draws(store, seed)
    size = choose_size(draws, num_images)
    if store.num_keypoints < 4 * size:  # so few that they can be counted
        size = max(1, min(size, count_distinct(sample_descriptors(store, store.num_keypoints, seed), size)))
    keypoints = store.num_keypoints / max(1, num_images)
    logger.info(
        "vocabulary: %d words, for the %.0f keypoints of an image fall into as many words as %.0f independent ones",
        size, keypoints, draws,
    )  # fmt: skip
    return size


def _train(
    sample: NDArray[np.float32], size: int, settings: KMeansVocabulary, context: Context
) -> tuple[NDArray[np.float32], float]:
    clustering = Clustering(
        size, settings.iterations, settings.restarts, settings.initialisation, context.seed, context.device
    )
    if settings.algorithm == "lloyd":
        return faiss_kmeans.train_centroids(sample, clustering)
    from minia.mining.vocabulary import kmeans  # imports torch, which takes seconds: only where it clusters

    return kmeans.train_centroids(sample, clustering)


def _maker(settings: PlugInVocabulary, context: Context) -> VocabularyMaker:
    built = settings.build(context)
    if not isinstance(built, VocabularyMaker):
        raise InputError(
            f"vocabulary._target_={settings.target}: expected num_descriptors and make_centroids; see"
            " minia.mining.vocabulary.contract.VocabularyMaker"
        )
    return built


def _build_by_plug_in(features: Path, store: Path, settings: PlugInVocabulary, context: Context) -> Path:
    label = settings.target.rpartition(".")[2].lower()
    parameters = settings.parameters(context) | {"sample_images": settings.sample_images, "seed": context.seed}
    stage = Stage("vocabulary", label, store, parameters, {"features": features_fingerprint(features, store)})

    def make(work: Path) -> dict[str, Any]:
        maker = _maker(settings, context)
        sample = _sample(_images(features, settings, context.seed), maker.num_descriptors, context.seed)
        centroids = np.asarray(maker.make_centroids(sample, context.seed))
        if centroids.ndim != 2 or centroids.shape[1:] != sample.shape[1:] or not len(centroids):
            raise InputError(
                f"vocabulary._target_={settings.target}: gave centroids of shape {centroids.shape}; expected"
                f" (num_words, {sample.shape[1]})"
            )
        if centroids.dtype.kind not in "fiu" or not np.isfinite(centroids).all():
            raise InputError(f"vocabulary._target_={settings.target}: gave centroids that are not finite numbers")
        return _write(work, sample, centroids.astype(np.float32), context.seed)

    return stage.run(make)


def _sample(images: FeatureStore, num_descriptors: int, seed: int) -> NDArray[np.float32]:
    sample = sample_descriptors(images, num_descriptors, seed)
    if not len(sample):
        raise InputError("no keypoints were found in any image: lower features.contrast_threshold or the like")
    return sample


def _write(work: Path, sample: NDArray[np.float32], centroids: NDArray[np.float32], seed: int) -> dict[str, Any]:
    """Write centroids and their plot; the counts."""
    np.save(work / "centroids.npy", centroids)
    plot_principal_components(work / "pca.png", sample, centroids, seed)
    return {"num_words": len(centroids), "num_sampled_descriptors": len(sample)}


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
        centroids = map_array(path)
    except (OSError, ValueError):
        raise InputError(f"vocabulary.path={path}: not a .npy file of numbers") from None
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
    mean, variances, axes = principal_axes(sample)
    share = variances[:2].sum() / max(variances.sum(), 1e-12)
    points, words = (sample - mean) @ axes[:2].T, (centroids - mean) @ axes[:2].T

    figure = Figure(figsize=(7, 6), layout="constrained")
    plot = figure.add_subplot()
    plot.scatter(points[:, 0], points[:, 1], s=1, color="#9aa5b1", linewidths=0, label=f"{len(points)} descriptors")
    plot.scatter(words[:, 0], words[:, 1], s=5, color="#d1495b", linewidths=0, label=f"{len(words)} visual words")
    plot.set_xlabel("first principal component")
    plot.set_ylabel("second principal component")
    plot.set_title(f"Descriptors and visual words ({share:.0%} of the variance)")
    plot.legend(markerscale=3, loc="upper right")  # to look for the best place takes seconds
    figure.savefig(path, dpi=120)
