"""The features stage: extract every image, in several processes or threads; ``feature_store`` says what is stored."""

from __future__ import annotations

import functools
import itertools
import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from minia.core.artifact import InputError, Stage, fingerprint_file, read_manifest
from minia.core.progress import progress
from minia.core.workers import map_in_order
from minia.core.writing import appearing_whole
from minia.data.files import UnreadableImageError
from minia.data.images import ImageTable, fit_sides
from minia.data.reading import Reading, read_image
from minia.mining.features.pca import FOLDER as PCA_FOLDER
from minia.mining.features.pca import PCA
from minia.mining.features.store import ARRAYS, shard_path
from minia.models.extractors.base import Extractor, Features
from minia.models.extractors.build import build_extractor

logger = logging.getLogger(__name__)

_IMAGES_PER_TASK = 8
_IMAGES_FOR_ESTIMATE = 8
_DESCRIPTORS_FOR_PCA = 1000  # of an image, the strongest
_MAX_NAMES_IN_MANIFEST = 100


def extract_features(
    images: Path,
    store: Path,
    *,
    kind: str,
    parameters: Mapping[str, Any],
    shard_images: int,
    num_workers: int,
    extractor: Extractor | None = None,
    pca_dim: int | None = None,
    pca_images: int = 128,
    seed: int = 0,
) -> Path:
    """Extract the features of every image.

    Args:
        images: artifact of the images stage.
        store: folder of artifacts.
        kind: the extractor's kind (see ``build_extractor``).
        parameters: the extractor's arguments; ``model``, where it has one, is the path of a file.
        shard_images: images in a shard; a killed run loses at most one shard's work.
        num_workers: processes, or threads, to use; what is extracted does not depend on it.
        extractor: the extractor of this kind and these arguments, where there is one already.
        pca_dim: shorten descriptors to this many principal components (see :class:`PCA`); None for as they are.
        pca_images: images that the components are fitted on, at most 1,000 descriptors of each.
        seed: of the choice of these images.

    Returns:
        The features artifact.

    Raises:
        InputError: no image could be read, the extractor cannot run here, or the descriptors are too
            short or too few for ``pca_dim``.
    """
    settings = {"kind": kind, "shard_images": shard_images, **parameters}
    if pca_dim is not None:
        settings |= {"pca_dim": pca_dim, "pca_images": pca_images, "seed": seed}
    inputs = {"images": read_manifest(images)["counts"]["pixels"]}  # labels change nothing here
    if "model" in settings:  # what is in the file counts, not where it lies
        inputs["model"] = fingerprint_file(Path(settings.pop("model")))
    version = 1 if pca_dim is None else 2  # 2: shortened image by image, which rounds otherwise
    stage = Stage("features", kind, store, settings, inputs, resumable=True, version=version)
    if stage.done:
        return stage.run(lambda _: {})
    table = ImageTable.load(images)
    frozen = {name: tuple(value) if isinstance(value, list) else value for name, value in parameters.items()}
    extractor = extractor or build_extractor(kind, parameters)  # one that cannot run here says so before any work
    reader = _Reader(kind, tuple(sorted(frozen.items())), table.min_side, table.max_side, table.reading, extractor)
    check_pca_dim(pca_dim, extractor)

    def make(work: Path) -> dict[str, Any]:
        with extractor.working():
            _log_size_estimate(work, table, reader, pca_dim, num_workers)
            pca = None if pca_dim is None else _fit_pca(work, table, reader, pca_dim, pca_images, seed, num_workers)
            _write_shards(work, table, reader, pca, shard_images, num_workers)
        root = table.root.resolve()
        if root.is_relative_to(store.resolve()):  # a store can be moved whole
            root = Path("../..") / root.relative_to(store.resolve())
        source = {"root": root.as_posix(), "reading": table.reading.to_json()}
        (work / "source.json").write_text(json.dumps(source) + "\n", encoding="utf-8")
        return _write_images(work, table, _num_shards(len(table.table), shard_images))

    return stage.run(make)


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


class _Opened(NamedTuple):
    """An image that waits for others of its size."""

    number: int
    original_size: tuple[int, int]  # width and height in pixels, before it was resized
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class _Reader:
    """Reads and extracts images, in this process or in a worker."""

    kind: str
    parameters: tuple[tuple[str, Any], ...]
    min_side: int
    max_side: int
    reading: Reading
    built: Extractor | None  # of the process that built it; None in another

    def __reduce__(self) -> tuple[type[_Reader], tuple[Any, ...]]:
        return _Reader, (self.kind, self.parameters, self.min_side, self.max_side, self.reading, None)

    def extractor(self) -> Extractor:
        """The extractor, built once in each process."""
        return self.built or _build_once(self.kind, self.parameters)

    def extract_in_order(self, tasks: Iterable[list[Path]], num_workers: int) -> Iterator[Features | str]:
        """What ``extract_all`` gives for all tasks together, done by several workers."""
        in_threads = self.extractor().in_threads
        return itertools.chain.from_iterable(map_in_order(self.extract_all, tasks, num_workers, in_threads=in_threads))

    def extract_all(self, paths: list[Path]) -> list[Features | str]:
        """Features of each image in pixels of the original, or why it has none.

        Images of one size go through the extractor together, however they are mixed with others.
        """
        extractor = self.extractor()
        found: dict[int, Features | str] = {}
        waiting: dict[tuple[int, ...], list[_Opened]] = {}
        for number, path in enumerate(paths):
            try:
                original = read_image(path, self.reading)
            except UnreadableImageError as error:
                found[number] = str(error)
                continue
            pixels = fit_sides(original, self.min_side, self.max_side)
            alike = waiting.setdefault(pixels.shape, [])
            alike.append(_Opened(number, (original.shape[1], original.shape[0]), pixels))
            if len(alike) == extractor.batch_size:
                found |= _extract(extractor, waiting.pop(pixels.shape))
        for alike in waiting.values():
            found |= _extract(extractor, alike)
        return [found[number] for number in range(len(paths))]


def _extract(extractor: Extractor, images: Sequence[_Opened]) -> dict[int, Features | str]:
    """Features of images of one size, by their numbers."""
    found = extractor.extract_batch([image.pixels for image in images])
    return {image.number: _in_original_pixels(features, image) for image, features in zip(images, found, strict=True)}


def _in_original_pixels(features: Features, image: _Opened) -> Features | str:
    if not all(np.isfinite(features[name]).all() for name in ARRAYS):  # type: ignore[literal-required]
        return "its features are not finite (where a network overflows: features.precision=float32)"
    height, width = image.pixels.shape[:2]
    factor = np.array([image.original_size[0] / width, image.original_size[1] / height])
    # Pixel centres: the left edge of the resized image is at -0.5, as is the original's.
    features["keypoints"] = ((features["keypoints"] + 0.5) * factor - 0.5).astype(np.float32)
    features["sizes"] = (features["sizes"] * np.sqrt(factor.prod())).astype(np.float32)
    features["image_size"] = np.array(image.original_size, dtype=np.int32)
    return features


@functools.lru_cache(maxsize=1)
def _build_once(kind: str, parameters: tuple[tuple[str, Any], ...]) -> Extractor:
    return build_extractor(kind, dict(parameters))


def _num_shards(num_images: int, shard_images: int) -> int:
    return -(-num_images // shard_images)


def _log_size_estimate(work: Path, table: ImageTable, reader: _Reader, pca_dim: int | None, num_workers: int) -> None:
    """Say what the features will take on disk, before the work starts."""
    num_images = len(table.table)
    extractor = reader.extractor()
    rows = np.unique(np.linspace(0, num_images - 1, min(_IMAGES_FOR_ESTIMATE, num_images)).astype(int))
    workers = num_workers if extractor.in_threads else 1  # processes would take longer to start than the work
    found = reader.extract_in_order(([table.path(int(row))] for row in rows), workers)
    counts = [len(features["scores"]) for features in found if not isinstance(features, str)]
    mean = float(np.mean(counts)) if counts else 0.0
    bytes_each = (pca_dim or extractor.descriptor_size) * np.dtype(extractor.descriptor_dtype).itemsize + 16
    logger.info(
        "features: %d images with about %.0f keypoints each will take about %.0f MB; %.1f GB are free",
        num_images, mean, num_images * mean * bytes_each / 1e6, shutil.disk_usage(work).free / 1e9,
    )  # fmt: skip


def _fit_pca(
    work: Path, table: ImageTable, reader: _Reader, dim: int, num_images: int, seed: int, num_workers: int
) -> PCA:
    """The principal components of some images' descriptors, or those that an earlier, killed run has fitted."""
    if (work / PCA_FOLDER).exists():
        return PCA.load(work)
    total = len(table.table)
    rows = np.sort(np.random.default_rng(seed).choice(total, min(num_images, total), replace=False))
    sample = [np.empty((0, reader.extractor().descriptor_size), np.float32)]
    with progress("extracting a sample for the PCA", len(rows), "image") as advance:
        for features in reader.extract_in_order(_tasks([table.path(row) for row in rows], reader), num_workers):
            advance(1)
            if not isinstance(features, str):
                sample.append(features["descriptors"][:_DESCRIPTORS_FOR_PCA])
    pca = PCA.fit(np.concatenate(sample), dim)
    pca.save(work)
    return pca


def _tasks(paths: list[Path], reader: _Reader) -> Iterator[list[Path]]:
    """The images that a worker takes at a time."""
    size = max(_IMAGES_PER_TASK, reader.extractor().batch_size)
    return (paths[start : start + size] for start in range(0, len(paths), size))


def _write_shards(
    work: Path, table: ImageTable, reader: _Reader, pca: PCA | None, shard_images: int, num_workers: int
) -> None:
    """Extract the shards that an earlier, killed run has not finished."""
    num_images = len(table.table)
    missing = [shard for shard in range(_num_shards(num_images, shard_images)) if not shard_path(work, shard).exists()]
    rows_of = {shard: range(shard * shard_images, min((shard + 1) * shard_images, num_images)) for shard in missing}
    kept = num_images - sum(map(len, rows_of.values()))
    if kept:
        logger.info("features: keeping %d images that an earlier run had finished", kept)
    # A task lies within a shard: what is extracted together is the same whichever shards are missing.
    tasks = (task for rows in rows_of.values() for task in _tasks([table.path(row) for row in rows], reader))
    with progress("extracting features", num_images - kept, "image") as advance:
        results = reader.extract_in_order(tasks, num_workers)
        for shard, rows in rows_of.items():
            found = []
            for _ in rows:
                features = next(results)
                found.append(features if isinstance(features, str) else _as_stored(features, reader.extractor(), pca))
                advance(1)
            _write_shard(work, shard, rows, found, reader.extractor(), pca)


def _as_stored(features: Features, extractor: Extractor, pca: PCA | None) -> Features:
    """Features with the descriptors in their stored length and type: those of a whole shard wait in memory."""
    descriptors = features["descriptors"] if pca is None else pca.apply(features["descriptors"])
    features["descriptors"] = descriptors.astype(extractor.descriptor_dtype)
    return features


def _write_shard(
    work: Path, shard: int, rows: range, found: list[Features | str], extractor: Extractor, pca: PCA | None
) -> None:
    good = [features for features in found if not isinstance(features, str)]
    size = extractor.descriptor_size if pca is None else len(pca.axes)
    empty = {
        "keypoints": np.empty((0, 2), np.float32),
        "sizes": np.empty(0, np.float32),
        "scores": np.empty(0, np.float32),
        "descriptors": np.empty((0, size), extractor.descriptor_dtype),
    }
    images = pd.DataFrame(
        {
            "row": np.array(rows, dtype=np.int64),
            "width": [0 if isinstance(each, str) else int(each["image_size"][0]) for each in found],
            "height": [0 if isinstance(each, str) else int(each["image_size"][1]) for each in found],
            "num_keypoints": [0 if isinstance(each, str) else len(each["scores"]) for each in found],
            "reason": [each if isinstance(each, str) else "" for each in found],
        }
    )
    with appearing_whole(shard_path(work, shard)) as folder:
        folder.mkdir()
        for name in ARRAYS:
            arrays = [features[name] for features in good]  # type: ignore[literal-required]
            np.save(folder / f"{name}.npy", np.concatenate([empty[name], *arrays]))
        images.to_parquet(folder / "images.parquet", index=False)


def _write_images(work: Path, table: ImageTable, num_shards: int) -> dict[str, Any]:
    """Join the shards' image tables into one, and count."""
    parts = [pd.read_parquet(shard_path(work, shard) / "images.parquet") for shard in range(num_shards)]
    for shard, part in enumerate(parts):
        part["shard"] = np.int32(shard)
        part["first_keypoint"] = np.cumsum(part["num_keypoints"].to_numpy(np.int64)) - part["num_keypoints"]
    rows = pd.concat(parts, ignore_index=True)
    rows = pd.concat([table.table[["image", "path"]], rows.drop(columns="row")], axis=1)
    failed = rows[rows["reason"] != ""]
    if len(failed) == len(rows):
        first = failed.iloc[0]
        raise InputError(f"none of the {len(rows)} images can be read, first {first['image']}: {first['reason']}")
    for image, reason in zip(failed["image"], failed["reason"], strict=True):
        logger.warning("features: skipping %s: %s", image, reason)
    good = rows[rows["reason"] == ""].drop(columns="reason").reset_index(drop=True)
    dtypes = {
        "width": "int32",
        "height": "int32",
        "shard": "int32",
        "first_keypoint": "int64",
        "num_keypoints": "int32",
    }
    good.astype(dtypes).to_parquet(work / "images.parquet", index=False)
    failed[["image", "reason"]].to_csv(work / "failed.csv", index=False)
    return {
        "num_images": len(good),
        "num_failed_images": len(failed),
        "failed_images": [
            f"{image}: {reason}" for image, reason in zip(failed["image"], failed["reason"], strict=True)
        ][:_MAX_NAMES_IN_MANIFEST],
        "num_keypoints": int(good["num_keypoints"].sum()),
        "num_images_without_keypoints": int((good["num_keypoints"] == 0).sum()),
        "num_shards": num_shards,
    }
