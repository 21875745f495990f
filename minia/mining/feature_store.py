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
``shard-00000`` and so on, with four NumPy files that can be memory-mapped:

===============  ===================  ======================================================
file             shape and dtype      meaning
===============  ===================  ======================================================
keypoints.npy    (n, 2) float32       x, y in pixels of the original image, pixel centres
sizes.npy        (n,) float32         diameter in pixels of the original image
scores.npy       (n,) float32         strength, falling inside an image
descriptors.npy  (n, descriptor_size) uint8 or float16
===============  ===================  ======================================================

A shard is written under a temporary name and renamed, so that the shards of a killed run stay. Where
descriptors were shortened, the folder ``pca`` holds what by (see ``pca``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minia.stage import InputError, read_manifest

if TYPE_CHECKING:
    import pandas as pd

ARRAYS = ("keypoints", "sizes", "scores", "descriptors")


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
            InputError: it is not one.
        """
        import pandas as pd  # takes a second; a job that mines a file of words does without

        manifest = read_manifest(artifact)
        if manifest.get("stage") != "features":
            raise InputError(f"{artifact} is an artifact of the stage {manifest.get('stage')}, not of features")
        images = pd.read_parquet(artifact / "images.parquet")
        offsets = np.concatenate([[0], np.cumsum(images["num_keypoints"].to_numpy(np.int64))])
        root = artifact / json.loads((artifact / "source.json").read_text(encoding="utf-8"))["root"]
        return cls(artifact, root, images, offsets, int(manifest["counts"]["num_shards"]))

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
            InputError: they do not, or hold numbers that are not finite.
        """
        shards, counts = self.images["shard"].to_numpy(), self.images["num_keypoints"].to_numpy()
        if np.any(np.diff(shards) < 0):
            raise InputError(f"{self.artifact}: the rows of images.parquet are not in the order of their shards")
        size = self.descriptor_size
        for shard in range(self.num_shards):
            rows = self.images_of_shard(shard)
            own = counts[rows.start : rows.stop]
            first = self.images["first_keypoint"].to_numpy()[rows.start : rows.stop]
            if not np.array_equal(first, np.cumsum(own) - own):
                raise InputError(f"{shard_path(self.artifact, shard)}: first_keypoint does not add up num_keypoints")
            shapes = {"keypoints": (own.sum(), 2), "sizes": (own.sum(),), "scores": (own.sum(),)}
            for name, shape in (shapes | {"descriptors": (own.sum(), size)}).items():
                array = self.shard(shard, name)
                if array.shape != shape or array.dtype.kind not in "fu":
                    raise InputError(
                        f"{shard_path(self.artifact, shard)}/{name}.npy: expected numbers of shape {shape}, "
                        f"found {array.dtype} of shape {array.shape}"
                    )

    @property
    def num_keypoints(self) -> int:
        """Keypoints of all images together."""
        return int(self.offsets[-1])

    def image_path(self, row: int) -> Path:
        """The file of the image in a row of the table of images."""
        return self.root / str(self.images["path"].iat[row])

    def shard(self, shard: int, array: str) -> NDArray[Any]:
        """One array of one shard, memory-mapped: keypoints, sizes, scores or descriptors."""
        loaded: NDArray[Any] = np.load(shard_path(self.artifact, shard) / f"{array}.npy", mmap_mode="r")
        return loaded

    def shards(self, array: str) -> Iterator[NDArray[Any]]:
        """That array of each shard in turn, memory-mapped."""
        return (self.shard(shard, array) for shard in range(self.num_shards))

    def of_image(self, row: int, array: str) -> NDArray[Any]:
        """That array's rows of one image, by its row in the table of images."""
        entry = self.images.iloc[row]
        first = int(entry["first_keypoint"])
        return self.shard(int(entry["shard"]), array)[first : first + int(entry["num_keypoints"])]


def shard_path(artifact: Path, shard: int) -> Path:
    """The folder of a shard."""
    return artifact / f"shard-{shard:05d}"
