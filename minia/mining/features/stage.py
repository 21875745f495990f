"""The features stage: extract every image, in several processes or threads; ``store`` says what is stored.

Descriptors are kept, or there are two passes that keep none: a sample of the images is extracted, of which the
vocabulary is made; then each image is extracted, its descriptors become words, and are forgotten.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minia.core.artifact import InputError, Stage, read_manifest
from minia.core.checksums import fingerprint_file
from minia.core.claims import Claims
from minia.core.context import Context
from minia.core.plug_in import PlugIn
from minia.core.progress import progress
from minia.core.random_bits import name_keys
from minia.data.images import ImageTable
from minia.mining.features.estimate import SizeEstimate, estimate_size
from minia.mining.features.pca import FOLDER as PCA_FOLDER
from minia.mining.features.pca import PCA
from minia.mining.features.reader import Reader
from minia.mining.features.settings import ExtractedFeatures
from minia.mining.features.store import FeatureStore
from minia.mining.features.write import Forgetting, ShardWriter
from minia.models.extractors.base import Extractor
from minia.models.extractors.build import build_extractor

logger = logging.getLogger(__name__)

_DESCRIPTORS_FOR_PCA = 1000  # of an image, the strongest
_OF_MACHINE = ("device", "precision")  # parameters that change the last digits alone
_OF_STORING = ("keep_descriptors", "disk_budget")  # settings that change nothing that is extracted
_OF_SAMPLE = ("sample_images", "sample_seed")  # parameters of an artifact that does not hold all images
_WORDS = "words"  # parameter of an artifact with words in the place of descriptors: how they were assigned


@dataclass(frozen=True)
class WordsOfDescriptors:
    """A vocabulary, as far as it makes words of descriptors.

    Attributes:
        artifact: of the vocabulary stage.
        parameters: all else that decides the words; JSON values only.
        words_of: the visual words, (n,) int32, of descriptors, (n, descriptor_size) as they would be stored.
        features: artifact with the features of the images that it was made of; None where it came from elsewhere.
    """

    artifact: Path
    parameters: Mapping[str, Any]
    words_of: Callable[[NDArray[Any]], NDArray[np.int32]]
    features: Path | None


def extract_features(
    images: Path,
    store: Path,
    settings: ExtractedFeatures,
    context: Context,
    extractor: Extractor | None = None,
    sample: int | None = None,
) -> Path:
    """Extract the features of every image, or of a sample of them.

    Args:
        images: artifact of the images stage.
        store: folder of artifacts.
        settings: of the extractor and of the stage.
        context: ``seed`` chooses the images that principal components are fitted on, and those of the sample.
        extractor: the extractor of these settings, where there is one already.
        sample: how many images, chosen by their names and the seed; None for all.

    Returns:
        The features artifact.

    Raises:
        InputError: no image could be read, the extractor cannot run here, or the descriptors are too
            short or too few for ``pca_dim``.
    """
    stage = _stage(images, store, settings, context)
    if sample is not None and sample < len(names := _names(images)):
        only = np.sort(np.argsort(name_keys(names, context.seed), kind="stable")[:sample])
        drawn = dict(zip(_OF_SAMPLE, (sample, context.seed), strict=True))
        stage = dataclasses.replace(stage, parameters={**stage.parameters, **drawn})
        logger.info("features: of a sample of %d of %d images, for the vocabulary", sample, len(names))
    else:
        only = None
    if stage.done:
        return stage.run(lambda _: {})
    extraction = _Extraction.prepared(images, settings, context, extractor)

    return stage.run(
        lambda work: extraction.join(work, store, only), lambda work, claims: extraction.write(work, claims, None, only)
    )


def extract_words(
    images: Path, store: Path, settings: ExtractedFeatures, context: Context, vocabulary: WordsOfDescriptors
) -> Path:
    """Extract every image, turn its descriptors into words, and forget them.

    Args:
        images: artifact of the images stage.
        store: folder of artifacts.
        settings: of the extractor and of the stage.
        context: ``seed`` chooses the images that principal components are fitted on.
        vocabulary: what makes words of descriptors.

    Returns:
        The features artifact, which holds words in the place of descriptors and is an assignment artifact too.

    Raises:
        InputError: see :func:`extract_features`.
    """
    stage = _stage(images, store, settings, context)
    stage = dataclasses.replace(
        stage,
        parameters={**stage.parameters, _WORDS: dict(vocabulary.parameters)},
        inputs={**stage.inputs, "vocabulary": read_manifest(vocabulary.artifact)["fingerprint"]},
    )
    if stage.done:
        return stage.run(lambda _: {})
    extraction = _Extraction.prepared(images, settings, context, None)

    def share(work: Path, claims: Claims) -> None:
        known = None if vocabulary.features is None else FeatureStore.load(vocabulary.features)
        extraction.write(work, claims, Forgetting(vocabulary.words_of, known), None)

    return stage.run(lambda work: extraction.join(work, store, None), share)


def try_out(
    images: Path, store: Path, settings: ExtractedFeatures, context: Context, extractor: Extractor | None = None
) -> SizeEstimate | None:
    """A look at some images, to say what all will take; None where the features of all, with descriptors, are there.

    Args:
        images: artifact of the images stage.
        store: folder of artifacts.
        settings: of the extractor and of the stage.
        context: of the run.
        extractor: the extractor of these settings, where there is one already.
    """
    if _stage(images, store, settings, context).done:
        return None
    extraction = _Extraction.prepared(images, settings, context, extractor)
    with extraction.reader.extractor().working():
        return estimate_size(extraction.table, extraction.reader)


def warn_of_images_without_keypoints(features: Path, settings: ExtractedFeatures) -> None:
    """Say what may be amiss where half of the images or more gave nothing.

    Args:
        features: artifact of the features stage.
        settings: of its extractor.
    """
    counts = read_manifest(features)["counts"]
    empty, total = counts["num_images_without_keypoints"], counts["num_images"]
    if 2 * empty < total:
        return
    masked = (
        "features.objects=original drops what is not brighter than 11 of 255 grey levels (allowed: all, central, none)"
    )
    logger.warning(
        "features: %d of %d images have no keypoints: their grey range may be too narrow or too dark (images of 8 bits"
        " are read as they are: stretch them to the whole range)%s",
        empty, total, f", or {masked}" if getattr(settings, "objects", None) == "original" else "",
    )  # fmt: skip


def _names(images: Path) -> list[str]:
    names: list[str] = ImageTable.load(images).table["image"].tolist()
    return names


@dataclass(frozen=True)
class _Extraction:
    """Images and what extracts them.

    Attributes:
        table: the images.
        reader: extracts them.
    """

    table: ImageTable
    reader: Reader

    @classmethod
    def prepared(
        cls, images: Path, settings: ExtractedFeatures, context: Context, extractor: Extractor | None
    ) -> _Extraction:
        """Read the table and build the extractor: one that cannot run here says so before any work."""
        table = ImageTable.load(images)
        extractor = extractor or build_extractor(settings, context)
        check_pca_dim(settings.pca_dim, extractor)
        return cls(table, Reader(settings, context, table.min_side, table.max_side, table.reading, extractor))

    def write(self, work: Path, claims: Claims, forgetting: Forgetting | None, only: NDArray[np.int64] | None) -> None:
        """Write the shards that are missing.

        Args:
            work: the artifact's folder.
            claims: of this process beside others.
            forgetting: what becomes of descriptors; None keeps them.
            only: rows of the images to extract; None for all.
        """
        table = self._chosen(only)
        with self.reader.extractor().working():
            if forgetting is None:
                _log_size_estimate(work, table, self.reader)
            pca = None
            if self.reader.settings.pca_dim is not None:
                with claims.alone("pca"):
                    pca = _fit_pca(work, self.table, self.reader, self.reader.settings.pca_dim)
            ShardWriter(work, table, self.reader, pca, forgetting).write(claims)

    def join(self, work: Path, store: Path, only: NDArray[np.int64] | None) -> dict[str, Any]:
        """Write what tells of all shards; returns the counts. See :meth:`write`."""
        table = self._chosen(only)
        counts = ShardWriter(work, table, self.reader, None, None).join()
        root = table.root.resolve()
        if root.is_relative_to(store.resolve()):  # a store can be moved whole
            root = Path("../..") / root.relative_to(store.resolve())
        source = {"root": root.as_posix(), "reading": table.reading.to_json()}
        (work / "source.json").write_text(json.dumps(source) + "\n", encoding="utf-8")
        return counts

    def _chosen(self, only: NDArray[np.int64] | None) -> ImageTable:
        return self.table if only is None else self.table.chosen(only)


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
    then |= {name: value for name, value in manifest["inputs"].items() if name not in ("images", "vocabulary")}
    then.pop(_WORDS, None)
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
    shortened = settings.pca_dim is not None  # image by image, which rounds otherwise
    tiled = not isinstance(settings, PlugIn) and settings.kind == "delf"  # large images, which rounds otherwise
    return 3 + shortened + 2 * tiled


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
    parameters = {
        name: value for name, value in parameters.items() if name not in shortened and name not in _OF_STORING
    }
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
    estimate = estimate_size(table, reader)
    logger.info(
        "features: %d images with about %.0f keypoints each will take about %.0f MB; %.1f GB are free",
        estimate.num_images, estimate.keypoints, estimate.num_bytes / 1e6, shutil.disk_usage(work).free / 1e9,
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
