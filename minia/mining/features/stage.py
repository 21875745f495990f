"""The features stage: extract every image, in several processes or threads; ``store`` says what is stored."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from minia.core.artifact import InputError, Stage, read_manifest
from minia.core.checksums import fingerprint_file
from minia.core.context import Context
from minia.core.plug_in import PlugIn
from minia.core.progress import progress
from minia.data.images import ImageTable
from minia.mining.features.pca import FOLDER as PCA_FOLDER
from minia.mining.features.pca import PCA
from minia.mining.features.reader import Reader
from minia.mining.features.settings import ExtractedFeatures
from minia.mining.features.write import ShardWriter
from minia.models.extractors.base import Extractor
from minia.models.extractors.build import build_extractor

logger = logging.getLogger(__name__)

_IMAGES_FOR_ESTIMATE = 8
_DESCRIPTORS_FOR_PCA = 1000  # of an image, the strongest
_OF_MACHINE = ("device", "precision")  # parameters that change the last digits alone


def extract_features(
    images: Path, store: Path, settings: ExtractedFeatures, context: Context, extractor: Extractor | None = None
) -> Path:
    """Extract the features of every image.

    Args:
        images: artifact of the images stage.
        store: folder of artifacts.
        settings: of the extractor and of the stage.
        context: ``seed`` chooses the images that principal components are fitted on.
        extractor: the extractor of these settings, where there is one already.

    Returns:
        The features artifact.

    Raises:
        InputError: no image could be read, the extractor cannot run here, or the descriptors are too
            short or too few for ``pca_dim``.
    """
    stage = _stage(images, store, settings, context)
    if stage.done:
        return stage.run(lambda _: {})
    table = ImageTable.load(images)
    extractor = extractor or build_extractor(settings, context)  # one that cannot run here says so before any work
    reader = Reader(settings, context, table.min_side, table.max_side, table.reading, extractor)
    check_pca_dim(settings.pca_dim, extractor)

    def make(work: Path) -> dict[str, Any]:
        with extractor.working():
            _log_size_estimate(work, table, reader)
            pca = None if settings.pca_dim is None else _fit_pca(work, table, reader, settings.pca_dim)
            counts = ShardWriter(work, table, reader, settings.shard_images, pca).write()
        root = table.root.resolve()
        if root.is_relative_to(store.resolve()):  # a store can be moved whole
            root = Path("../..") / root.relative_to(store.resolve())
        source = {"root": root.as_posix(), "reading": table.reading.to_json()}
        (work / "source.json").write_text(json.dumps(source) + "\n", encoding="utf-8")
        return counts

    return stage.run(make)


def _stage(images: Path, store: Path, settings: ExtractedFeatures, context: Context) -> Stage:
    """The artifact to be made: the settings, the images' pixels and the content of files decide it."""
    label, parameters, files = _what_decides(settings, context)
    inputs = {"images": read_manifest(images)["counts"]["pixels"], **files}  # labels change nothing here
    return Stage("features", label, store, parameters, inputs, resumable=True, version=_version(settings))


def check_same_extraction(features: Path, settings: ExtractedFeatures, context: Context) -> None:
    """Check that images extracted now get what those of an artifact got.

    Args:
        features: artifact of the features stage.
        settings: of the extractor.
        context: of the run that made the artifact; another device only makes the log warn of last digits.

    Raises:
        InputError: a setting, the code of an extractor from elsewhere, the content of a file or minIA's own way of
            extracting has changed since.
    """
    manifest = read_manifest(features)
    label, parameters, files = _what_decides(settings, context)
    now = {"label": label, "version": _version(settings), **parameters, **files}
    then = {"label": manifest["label"], "version": manifest["version"], **manifest["parameters"]}
    then |= {name: value for name, value in manifest["inputs"].items() if name != "images"}
    other = [name for name in sorted({*now, *then}) if now.get(name) != then.get(name)]
    if changed := [name for name in other if name not in _OF_MACHINE]:
        raise InputError(
            f"{features}: new images cannot be given the features that its images have: different since then is"
            f" {', '.join(changed)}; allowed: a run made anew"
        )
    if other:
        logger.warning(
            "features: other %s than when the run was made: numbers may differ in their last digits",
            " and ".join(other),
        )


def _version(settings: ExtractedFeatures) -> int:
    return 3 if settings.pca_dim is None else 4  # one more: shortened image by image, which rounds otherwise


def _what_decides(settings: ExtractedFeatures, context: Context) -> tuple[str, dict[str, Any], dict[str, str]]:
    """The label, the parameters, and the fingerprints of the files that decide an image's features."""
    files: dict[str, str] = {}
    shortened = {"pca_dim": settings.pca_dim, "pca_images": settings.pca_images, "seed": context.seed}
    if isinstance(settings, PlugIn):
        label, parameters = settings.target.rpartition(".")[2].lower(), settings.parameters(context)
    else:
        label, parameters = settings.kind, {**settings.model_dump(mode="json"), **settings.of_machine(context)}
        for name in type(settings).model_fields:
            if isinstance(path := getattr(settings, name), Path):
                del parameters[name]
                files[name] = fingerprint_file(path)
    parameters = {name: value for name, value in parameters.items() if name not in shortened}
    parameters |= {"shard_images": settings.shard_images} | (shortened if settings.pca_dim is not None else {})
    return label, parameters, files


def check_pca_dim(pca_dim: int | None, extractor: Extractor) -> None:
    """Check that descriptors are long enough.

    Raises:
        InputError: they have fewer numbers than ``pca_dim``.
    """
    if pca_dim is not None and not 1 <= pca_dim <= extractor.descriptor_size:
        raise InputError(
            f"features.pca_dim={pca_dim}: expected 1 to {extractor.descriptor_size}, the length of this extractor's"
            " descriptors, or null"
        )


def _log_size_estimate(work: Path, table: ImageTable, reader: Reader) -> None:
    """Say what the features will take on disk, before the work starts."""
    num_images = len(table.table)
    extractor = reader.extractor()
    rows = np.unique(np.linspace(0, num_images - 1, min(_IMAGES_FOR_ESTIMATE, num_images)).astype(int))
    found = reader.extract_in_order(([table.path(int(row))] for row in rows), start_processes=False)
    counts = [len(features["scores"]) for features in found if not isinstance(features, str)]
    mean = float(np.mean(counts)) if counts else 0.0
    bytes_each = (reader.settings.pca_dim or extractor.descriptor_size) * np.dtype(
        extractor.descriptor_dtype
    ).itemsize + 16
    logger.info(
        "features: %d images with about %.0f keypoints each will take about %.0f MB; %.1f GB are free",
        num_images, mean, num_images * mean * bytes_each / 1e6, shutil.disk_usage(work).free / 1e9,
    )  # fmt: skip


def _fit_pca(work: Path, table: ImageTable, reader: Reader, dim: int) -> PCA:
    """The principal components of some images' descriptors, or those that an earlier, killed run has fitted."""
    if (work / PCA_FOLDER).exists():
        return PCA.load(work)
    total = len(table.table)
    num_images = min(reader.settings.pca_images, total)
    rows = np.sort(np.random.default_rng(reader.context.seed).choice(total, num_images, replace=False))
    sample = [np.empty((0, reader.extractor().descriptor_size), np.float32)]
    with progress("extracting a sample for the PCA", len(rows), "image") as advance:
        for features in reader.extract_in_order(reader.tasks([table.path(row) for row in rows])):
            advance(1)
            if not isinstance(features, str):
                sample.append(features["descriptors"][:_DESCRIPTORS_FOR_PCA])
    pca = PCA.fit(np.concatenate(sample), dim)
    pca.save(work)
    return pca
