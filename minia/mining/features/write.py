"""Writes the shards of features and the table of their images; ``store`` says what they hold."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from minia.core.artifact import InputError
from minia.core.claims import Claims
from minia.core.progress import progress
from minia.core.writing import appearing_whole
from minia.data.images import ImageTable
from minia.mining.features.compact import COMPACT, encode
from minia.mining.features.pca import PCA
from minia.mining.features.reader import Reader
from minia.mining.features.store import ARRAYS, WORDS, FeatureStore, shard_path
from minia.models.extractors.base import Extractor, Features

logger = logging.getLogger(__name__)

_MAX_NAMES_IN_MANIFEST = 100
_ASSIGNED_AT_ONCE = 1 << 16  # descriptors: enough for several threads, and forgotten soon


@dataclass(frozen=True)
class Forgetting:
    """What descriptors are needed for where they are not kept.

    Attributes:
        words_of: the visual words, (n,) int32, of descriptors, (n, descriptor_size) as they would be stored.
        known: the features of some of the images with descriptors, which are not extracted again; None for none.
    """

    words_of: Callable[[NDArray[Any]], NDArray[np.int32]]
    known: FeatureStore | None

    def forget(self, found: Iterable[Features | str]) -> Iterator[dict[str, NDArray[Any]] | str]:
        """The same features with ``words`` in the place of ``descriptors``; what is no features stays."""
        waiting: list[dict[str, NDArray[Any]] | str] = []
        number = 0
        for each in found:
            waiting.append(each if isinstance(each, str) else dict(each))  # type: ignore[arg-type]
            number += 0 if isinstance(each, str) else len(each["scores"])
            if number >= _ASSIGNED_AT_ONCE:
                yield from self._assigned(waiting)
                waiting, number = [], 0
        yield from self._assigned(waiting)

    def _assigned(self, waiting: list[dict[str, NDArray[Any]] | str]) -> list[dict[str, NDArray[Any]] | str]:
        some = [each for each in waiting if not isinstance(each, str) and len(each["scores"])]
        descriptors = [each.pop("descriptors") for each in some]
        if some:
            words = self.words_of(np.concatenate(descriptors))
            for each, own in zip(some, np.split(words, np.cumsum(list(map(len, descriptors)))[:-1]), strict=True):
                each["words"] = own
        return waiting


@dataclass(frozen=True)
class ShardWriter:
    """Extracts images and writes them in shards.

    Attributes:
        work: the artifact's folder.
        table: the images.
        reader: extracts them.
        pca: shortens descriptors; None leaves them as they are.
        forgetting: what becomes of descriptors; None keeps them.
    """

    work: Path
    table: ImageTable
    reader: Reader
    pca: PCA | None
    forgetting: Forgetting | None = None

    def write(self, claims: Claims) -> None:
        """Extract, beside other processes, the shards that an earlier, killed run has not finished."""
        num_images, rows_of = len(self.table.table), self._rows_of()
        shards = range(len(rows_of))
        left = sum(len(rows_of[shard]) for shard in shards if self._is_missing(shard))
        if left < num_images:
            logger.info("features: keeping %d images that were finished before", num_images - left)
        with progress("extracting features", left, "image") as advance:
            for claimed in claims.rounds(shards, self._is_missing):
                for shard in self._write_claimed(claimed, rows_of, advance):
                    claims.release(shard)

    def join(self) -> dict[str, Any]:
        """List the images of all shards, and count."""
        return _write_images(self.work, self.table, len(self._rows_of()))

    def _rows_of(self) -> list[range]:
        """The images of each shard: so many as the settings say, and of a partitioned catalogue of one partition."""
        size, rows_of = self.reader.settings.shard_images, list[range]()
        for rows in self.table.partitions():
            rows_of += [rows[first : first + size] for first in range(0, len(rows), size)]
        return rows_of

    def _is_missing(self, shard: int) -> bool:
        return not shard_path(self.work, shard).exists()

    def _write_claimed(
        self, shards: Iterator[int], rows_of: Sequence[range], advance: Callable[[int], None]
    ) -> Iterator[int]:
        """Extract shards in turn; yields each when it is written."""
        known, ahead = self._known(), deque[int]()

        def tasks() -> Iterator[list[Path]]:
            # A task lies within a shard: what is extracted together is the same whichever shards are missing.
            for shard in shards:
                ahead.append(shard)
                yield from self.reader.tasks([self.table.path(row) for row in rows_of[shard] if row not in known])

        results = self.reader.extract_in_order(tasks())
        first: list[Features | str] = []

        def take(row: int) -> Features | str:
            advance(1)
            if row in known:
                return self._of_known(known[row])
            found = first.pop() if first else next(results)
            return found if isinstance(found, str) else as_stored(found, self.reader.extractor(), self.pca)

        while True:
            if not first and not ahead:  # the next shard is known once its first image, or the end, has come
                first += itertools.islice(results, 1)
            if not ahead:
                return
            shard = ahead.popleft()
            if self.forgetting is None:
                self._write_shard(shard, rows_of[shard], [take(row) for row in rows_of[shard]])
            else:
                self._write_compact(shard, rows_of[shard], list(self.forgetting.forget(map(take, rows_of[shard]))))
            yield shard

    def _known(self) -> dict[int, int]:
        """The rows of images whose features are known, and their rows among these."""
        if self.forgetting is None or self.forgetting.known is None:
            return {}
        row_of = {name: row for row, name in enumerate(self.forgetting.known.images["image"])}
        return {row: row_of[name] for row, name in enumerate(self.table.table["image"]) if name in row_of}

    def _of_known(self, row: int) -> Features:
        assert self.forgetting is not None and self.forgetting.known is not None
        known = self.forgetting.known
        found: dict[str, Any] = {name: np.asarray(known.of_image(row, name)) for name in ARRAYS}
        found["image_size"] = known.images[["width", "height"]].iloc[row].to_numpy(np.int32)
        return cast(Features, found)

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
        with appearing_whole(shard_path(self.work, shard)) as folder:
            folder.mkdir()
            for name in ARRAYS:
                arrays = [features[name] for features in good]  # type: ignore[literal-required]
                np.save(folder / f"{name}.npy", np.concatenate([empty[name], *arrays]))
            _write_rows(folder, rows, found)

    def _write_compact(self, shard: int, rows: range, found: list[dict[str, NDArray[Any]] | str]) -> None:
        good = [features for features in found if not isinstance(features, str) and len(features["scores"])]
        empty = {"keypoints": np.empty((0, 2), np.float32), "words": np.empty(0, np.int32)}
        arrays = {
            name: np.concatenate([empty.get(name, np.empty(0, np.float32)), *(each[name] for each in good)])
            for name in ("keypoints", "sizes", "angles", "words")
        }
        sides = [np.full(len(each["scores"]), each["image_size"].max(), np.float32) for each in good]
        with appearing_whole(shard_path(self.work, shard)) as folder:
            folder.mkdir()
            np.save(folder / COMPACT, encode(arrays, np.concatenate([np.empty(0, np.float32), *sides])))
            np.save(folder / WORDS, arrays["words"])
            _write_rows(folder, rows, found)


def _write_rows(folder: Path, rows: range, found: Sequence[Mapping[str, Any] | str]) -> None:
    """The table of a shard's images, for :func:`_write_images`."""
    sizes = [(0, 0) if isinstance(each, str) else tuple(map(int, each["image_size"])) for each in found]
    images = pd.DataFrame(
        {
            "row": np.array(rows, dtype=np.int64),
            "width": [width for width, _ in sizes],
            "height": [height for _, height in sizes],
            "num_keypoints": [0 if isinstance(each, str) else len(each["scores"]) for each in found],
            "reason": [each if isinstance(each, str) else "" for each in found],
        }
    )
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
