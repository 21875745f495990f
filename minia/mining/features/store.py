"""How features are stored: keypoints and descriptors of every image, in shards of flat arrays.

The artifact holds ``images.parquet``, one row a readable image in the order of the images stage:

==============  ======  ====================================================================
column          type    meaning
==============  ======  ====================================================================
image           string  the image's name
path            string  its file, absolute or relative to ``root`` in ``source.json``
width, height   int32   of the original image, in pixels
shard           int32   the shard that holds its keypoints
first_keypoint  int64   its first keypoint's row in the shard's arrays
num_keypoints   int32   how many rows it has there
==============  ======  ====================================================================

``failed.csv`` (image, reason: the files that could not be read) and one folder a shard,
``shard-00000`` and so on, with five NumPy files that can be memory-mapped:

===============  ===================  ======================================================
file             shape and dtype      meaning
===============  ===================  ======================================================
keypoints.npy    (n, 2) float32       x, y in pixels of the original image, pixel centres
sizes.npy        (n,) float32         diameter in pixels of the original image
angles.npy       (n,) float32         direction in degrees from x towards y (down); -1: none
scores.npy       (n,) float32         strength, falling inside an image
descriptors.npy  (n, descriptor_size) uint8 or float16
===============  ===================  ======================================================

Features made elsewhere may lack ``angles.npy``: then no keypoint has a direction.

Features that do not keep descriptors hold two files a shard in the place of these: ``compact.npy`` (see ``compact``)
and ``words.npy``, (n,) int32, the visual word of each keypoint. Their keypoints have no scores; their order remains.

A shard is written under a temporary name and renamed, so that the shards of a killed run stay. Where
descriptors were shortened, the folder ``pca`` holds what by (see ``pca``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minia.core.artifact import InputError, Stage, fingerprint, read_manifest
from minia.core.foreign import map_array, read_json
from minia.core.progress import progress
from minia.mining.features.compact import COMPACT, NO_ANGLE, decode

if TYPE_CHECKING:
    import pandas as pd

SIFT_WIDTH = 6.0  # of a window, in what SIFT and SURF call a keypoint's size; others tell the window's width itself
_OF_SIFT_KIND = ("sift", "surf")
ARRAYS = ("keypoints", "sizes", "angles", "scores", "descriptors")
WORDS = "words.npy"
_OPTIONAL = "angles"
_COLUMNS = {  # of images.parquet, with the kinds of their numpy types
    "image": "OTU", "path": "OTU", "width": "iu", "height": "iu", "shard": "iu", "first_keypoint": "iu",
    "num_keypoints": "iu",
}  # fmt: skip
_NUMBERS_AT_A_TIME = 1 << 24
_MOST_OPEN = 16  # arrays of shards while images are read one by one: a process may not hold thousands of files open
_CHECKS = 1  # raise it when more is checked


@dataclass(frozen=True)
class FeatureStore:
    """A finished features artifact, read.

    Attributes:
        artifact: its folder.
        root: the folder that relative image paths start from.
        images: the table of images (see the module).
        offsets: (num_images + 1,) int64; image i's keypoints are offsets[i] .. offsets[i + 1] - 1
            when the shards are laid end to end.
        num_shards: how many shards there are.
    """

    artifact: Path
    root: Path
    images: pd.DataFrame
    offsets: NDArray[np.int64]
    num_shards: int

    @classmethod
    def load(cls, artifact: Path) -> FeatureStore:
        """Read the artifact of the features stage.

        Raises:
            InputError: it is not one, or lacks a file or a column.
        """
        import pandas as pd  # takes a second; a job that mines a file of words does without

        manifest = read_manifest(artifact)
        if manifest.get("stage") != "features":
            raise InputError(f"{artifact} is an artifact of the stage {manifest.get('stage')}, not of features")
        try:
            images = pd.read_parquet(artifact / "images.parquet")
            root = artifact / read_json(artifact / "source.json")["root"]
            num_shards = int(manifest["counts"]["num_shards"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = str(error).split("\n")[0]
            raise InputError(f"{artifact}: the features' table, root or num_shards cannot be read: {why}") from None
        if num_shards and not shard_path(artifact, num_shards - 1).is_dir():
            raise InputError(f"{artifact}: has fewer than the {num_shards} shards that its manifest tells")
        if missing := [name for name in _COLUMNS if name not in images]:
            raise InputError(f"{artifact / 'images.parquet'}: lacks the column {', '.join(missing)}")
        offsets = np.concatenate([[0], np.cumsum(images["num_keypoints"].to_numpy(np.int64))])
        return cls(artifact, root, images, offsets, num_shards)

    @functools.cached_property
    def has_descriptors(self) -> bool:
        """Whether descriptors were kept."""
        return not (self.num_shards and (shard_path(self.artifact, 0) / COMPACT).exists())

    @functools.cached_property
    def failed_images(self) -> list[str]:
        """The names of the images that could not be read; none where features made elsewhere do not tell."""
        import pandas as pd

        file = self.artifact / "failed.csv"
        failed = pd.read_csv(file, dtype=str, keep_default_na=False) if file.exists() else pd.DataFrame()
        return failed["image"].tolist() if "image" in failed else []

    def of_rows(self, rows: NDArray[np.int64]) -> FeatureStore:
        """The features of some images alone.

        Args:
            rows: (n,) int64 rows of the table of images, ascending.
        """
        images = self.images.iloc[rows].reset_index(drop=True)
        offsets = np.concatenate([[0], np.cumsum(images["num_keypoints"].to_numpy(np.int64))])
        return FeatureStore(self.artifact, self.root, images, offsets, self.num_shards)

    @property
    def descriptor_size(self) -> int:
        """Length of a descriptor; 0 without shards."""
        return int(self.shard(0, "descriptors").shape[1]) if self.num_shards else 0

    def images_of_shard(self, shard: int) -> range:
        """The rows of the table of images that a shard holds."""
        first, last = np.searchsorted(self.images["shard"].to_numpy(), [shard, shard + 1])
        return range(int(first), int(last))

    def check(self) -> None:
        """Check features made elsewhere: that the table and every shard fit together.

        Raises:
            InputError: they do not, an image's name is repeated, an array holds numbers that are not finite, or there
                are no descriptors.
        """
        self.check_descriptors()
        self._check_table()
        for shard in range(self.num_shards):
            for name in ARRAYS:
                try:
                    self.shard(shard, name)
                except (OSError, ValueError, EOFError):
                    file = shard_path(self.artifact, shard) / f"{name}.npy"
                    raise InputError(f"{file}: not a .npy file of numbers") from None
        with progress("checking features", self.num_shards, "shard") as advance:
            for shard in range(self.num_shards):
                self._check_shard(shard)
                advance(1)

    def check_descriptors(self) -> None:
        """Check that there are descriptors.

        Raises:
            InputError: they were not kept.
        """
        if not self.has_descriptors:
            raise InputError(
                f"{self.artifact}: holds no descriptors, which this needs; allowed: features made with"
                " features.keep_descriptors=true"
            )

    def _check_table(self) -> None:
        table = self.artifact / "images.parquet"
        for name, kinds in _COLUMNS.items():
            if self.images[name].dtype.kind not in kinds:
                wanted = "whole numbers" if "i" in kinds else "strings"
                raise InputError(f"{table}: expected {wanted} in the column {name}, found {self.images[name].dtype}")
        repeated = self.images["image"][self.images["image"].duplicated()]
        if len(repeated):
            raise InputError(f"{table}: names must differ; {len(repeated)} repeat another, first {repeated.iloc[0]}")
        if (self.images["num_keypoints"] < 0).any():
            raise InputError(f"{table}: num_keypoints must be 0 or more")
        shards = self.images["shard"].to_numpy()
        if np.any(np.diff(shards) < 0):
            raise InputError(f"{self.artifact}: the rows of images.parquet are not in the order of their shards")
        if len(shards) and not 0 <= shards[0] <= shards[-1] < self.num_shards:
            raise InputError(f"{table}: shard must be 0 to {self.num_shards - 1}, counts.num_shards of the manifest")

    def _check_shard(self, shard: int) -> None:
        rows, size = self.images_of_shard(shard), self.descriptor_size
        own = self.images["num_keypoints"].to_numpy(np.int64)[rows.start : rows.stop]
        first = self.images["first_keypoint"].to_numpy()[rows.start : rows.stop]
        if not np.array_equal(first, np.cumsum(own) - own):
            raise InputError(f"{shard_path(self.artifact, shard)}: first_keypoint does not add up num_keypoints")
        total = int(own.sum())
        shapes = {"keypoints": (total, 2), "descriptors": (total, size)}
        for name in ARRAYS:
            shape = shapes.get(name, (total,))
            array = self.shard(shard, name)
            file = shard_path(self.artifact, shard) / f"{name}.npy"
            if array.shape != shape or array.dtype.kind not in "fu":
                raise InputError(
                    f"{file}: expected numbers of shape {shape}, found {array.dtype} of shape {array.shape}"
                )
            if (row := _first_not_finite(array)) is not None:
                raise InputError(f"{file}: row {row} is not finite; allowed: finite numbers")

    @property
    def num_keypoints(self) -> int:
        """Keypoints of all images together."""
        return int(self.offsets[-1])

    def image_path(self, row: int) -> Path:
        """The file of the image in a row of the table of images."""
        return self.root / str(self.images["path"].iat[row])

    def shard(self, shard: int, array: str) -> NDArray[Any]:
        """One array of one shard: keypoints, sizes, angles, scores or descriptors.

        It is memory-mapped; where descriptors were not kept it is float32 in memory, and scores are nan.

        Raises:
            InputError: the descriptors are asked for and were not kept.
        """
        if not self.has_descriptors:
            return self._compact(shard, array)
        file = shard_path(self.artifact, shard) / f"{array}.npy"
        if array == _OPTIONAL and not file.exists():
            return np.full(len(self.shard(shard, "scores")), NO_ANGLE, dtype=np.float32)
        return map_array(file)

    def _compact(self, shard: int, array: str) -> NDArray[Any]:
        records = np.load(shard_path(self.artifact, shard) / COMPACT, mmap_mode="r")
        if array == "descriptors":
            self.check_descriptors()
        if array == "scores":
            return np.full(len(records), np.nan, dtype=np.float32)
        rows = self.images_of_shard(shard)
        own = self.images.iloc[rows.start : rows.stop]
        sides = own[["width", "height"]].max(axis=1).to_numpy(np.float32)
        return decode(records, np.repeat(sides, own["num_keypoints"]), array)

    def shards(self, array: str) -> Iterator[NDArray[Any]]:
        """That array of each shard in turn (see ``shard``)."""
        return (self.shard(shard, array) for shard in range(self.num_shards))

    def of_image(self, row: int, array: str) -> NDArray[Any]:
        """That array's rows of one image, by its row in the table of images."""
        shard, first, count = (int(column[row]) for column in self._places)
        return self._opened(shard, array)[first : first + count]

    @functools.cached_property
    def _places(self) -> list[NDArray[np.integer[Any]]]:
        """Shard, first keypoint and number of keypoints of each image: to get a table's column takes long."""
        return [self.images[name].to_numpy() for name in ("shard", "first_keypoint", "num_keypoints")]

    @functools.cached_property
    def _opened(self) -> Callable[[int, str], NDArray[Any]]:
        """The last shards that images were read from: to open one takes far longer than to read an image's part."""
        return functools.lru_cache(maxsize=_MOST_OPEN)(self.shard)


def shard_path(artifact: Path, shard: int) -> Path:
    """The folder of a shard."""
    return artifact / f"shard-{shard:05d}"


def check_features(features: Path, store: Path) -> Path:
    """Check features made elsewhere, once: the store remembers those that it found whole, by their files' times.

    Args:
        features: what was made elsewhere in the place of an artifact of the features stage.
        store: folder of artifacts.

    Returns:
        The features.

    Raises:
        InputError: see :meth:`FeatureStore.check`.
    """
    found = FeatureStore.load(features)
    found.check_descriptors()
    inputs = {"features": features_fingerprint(features, store)}
    stage = Stage("checked", "features", store, {}, inputs, version=_CHECKS)

    def check(_: Path) -> dict[str, int]:
        found.check()
        return {"num_images": len(found.images), "num_keypoints": found.num_keypoints}

    stage.run(check)
    return features


@dataclass(frozen=True)
class HowExtracted:
    """What a features artifact tells of its extractor; empty where features made elsewhere do not tell.

    Attributes:
        label: the extractor's kind.
        objects: where keypoints may lie.
    """

    label: str
    objects: str

    @classmethod
    def of(cls, features: Path) -> HowExtracted:
        """Read the manifest of a features artifact."""
        manifest = read_manifest(features)
        return cls(str(manifest.get("label", "")), str(manifest.get("parameters", {}).get("objects", "")))

    @property
    def window(self) -> float:
        """The width of the window that a keypoint describes, in its sizes."""
        return SIFT_WIDTH if self.label in _OF_SIFT_KIND else 1.0

    def as_sift(self, sizes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Keypoints' sizes as SIFT has them, a sixth of their windows' widths."""
        return sizes / np.float32(SIFT_WIDTH / self.window)


def features_fingerprint(features: Path, store: Path) -> str:
    """What tells features from others: decides which artifacts made of them can be reused.

    Of an artifact that this store made it is the manifest's, which its settings and inputs decide. The manifest of
    features made elsewhere says what its author wrote there, whatever the files hold: the names, sizes and times of
    change of the files stand for their content, as those of images do.

    Args:
        features: artifact of the features stage, or what was made elsewhere in its place.
        store: folder of artifacts.

    Raises:
        InputError: there is no artifact, or one of its files is missing.
    """
    manifest = read_manifest(features)
    own, place = str(manifest["fingerprint"]), features.resolve()
    if place.parent == (store / "features").resolve() and place.name.endswith(f"-{own[:12]}"):
        return own
    shards = [shard_path(features, shard) for shard in range(int(manifest["counts"]["num_shards"]))]
    files = [features / "images.parquet", features / "source.json"]
    compact = bool(shards) and (shards[0] / COMPACT).exists()
    needed = (COMPACT, WORDS) if compact else tuple(f"{name}.npy" for name in ARRAYS if name != _OPTIONAL)
    files += [shard / name for shard in shards for name in needed]
    files += [file for shard in shards if (file := shard / f"{_OPTIONAL}.npy").exists()]
    try:
        states = [(file.relative_to(features).as_posix(), file.stat()) for file in files]
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}; features need this file") from None
    return fingerprint([own, [[name, state.st_size, state.st_mtime_ns] for name, state in states]])


def _first_not_finite(array: NDArray[Any]) -> int | None:
    """The first row that holds a number that is not finite, in blocks: the array may be larger than memory."""
    if array.dtype.kind == "u":
        return None
    step = max(1, _NUMBERS_AT_A_TIME // max(1, array[:1].size))
    for begin in range(0, len(array), step):
        finite = np.isfinite(array[begin : begin + step]).reshape(len(array[begin : begin + step]), -1).all(axis=1)
        if not finite.all():
            return begin + int(finite.argmin())
    return None
