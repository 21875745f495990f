"""Writes the shards of features and the table of their images; ``store`` says what they hold."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from minia.core.artifact import InputError
from minia.core.progress import progress
from minia.core.writing import appearing_whole
from minia.data.images import ImageTable
from minia.mining.features.pca import PCA
from minia.mining.features.reader import Reader
from minia.mining.features.store import ARRAYS, shard_path
from minia.models.extractors.base import Extractor, Features

logger = logging.getLogger(__name__)

_MAX_NAMES_IN_MANIFEST = 100


@dataclass(frozen=True)
class ShardWriter:
    """Extracts images and writes them in shards.

    Attributes:
        work: the artifact's folder.
        table: the images.
        reader: extracts them.
        shard_images: images in a shard.
        pca: shortens descriptors; None leaves them as they are.
    """

    work: Path
    table: ImageTable
    reader: Reader
    shard_images: int
    pca: PCA | None

    def write(self) -> dict[str, Any]:
        """Extract the shards that an earlier, killed run has not finished, and list all images; the counts."""
        num_images, size, table = len(self.table.table), self.shard_images, self.table
        num_shards = -(-num_images // size)
        missing = [shard for shard in range(num_shards) if not shard_path(self.work, shard).exists()]
        rows_of = {shard: range(shard * size, min((shard + 1) * size, num_images)) for shard in missing}
        kept = num_images - sum(map(len, rows_of.values()))
        if kept:
            logger.info("features: keeping %d images that an earlier run had finished", kept)
        # A task lies within a shard: what is extracted together is the same whichever shards are missing.
        tasks = (task for rows in rows_of.values() for task in self.reader.tasks([table.path(row) for row in rows]))
        with progress("extracting features", num_images - kept, "image") as advance:
            results = self.reader.extract_in_order(tasks)
            for shard, rows in rows_of.items():
                found = []
                for _ in rows:
                    features = next(results)
                    found.append(
                        features
                        if isinstance(features, str)
                        else as_stored(features, self.reader.extractor(), self.pca)
                    )
                    advance(1)
                self._write_shard(shard, rows, found)
        return _write_images(self.work, table, num_shards)

    def _write_shard(self, shard: int, rows: range, found: list[Features | str]) -> None:
        extractor = self.reader.extractor()
        good = [features for features in found if not isinstance(features, str)]
        size = extractor.descriptor_size if self.pca is None else len(self.pca.axes)
        empty = {
            "keypoints": np.empty((0, 2), np.float32),
            "sizes": np.empty(0, np.float32),
            "angles": np.empty(0, np.float32),
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
        with appearing_whole(shard_path(self.work, shard)) as folder:
            folder.mkdir()
            for name in ARRAYS:
                arrays = [features[name] for features in good]  # type: ignore[literal-required]
                np.save(folder / f"{name}.npy", np.concatenate([empty[name], *arrays]))
            images.to_parquet(folder / "images.parquet", index=False)


def as_stored(features: Features, extractor: Extractor, pca: PCA | None) -> Features:
    """Features with the descriptors in the length and type in which they are stored.

    Args:
        features: as the extractor gave them; they are changed.
        extractor: what they come from.
        pca: shortens descriptors; None leaves them as they are.
    """
    descriptors = features["descriptors"] if pca is None else pca.apply(features["descriptors"])
    features["descriptors"] = descriptors.astype(extractor.descriptor_dtype)
    return features


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
