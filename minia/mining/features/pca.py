"""Principal components that shorten descriptors, as the original can apply to those of DELF.

They are kept beside the features that they shortened, in the folder ``pca``: ``mean.npy``,
(descriptor_size,) float32, and ``axes.npy``, (dim, descriptor_size) float32, orthonormal rows by
falling variance. A descriptor d became axes (d - mean), divided by its L2 norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from minia.core.artifact import InputError
from minia.core.principal_axes import principal_axes
from minia.core.writing import appearing_whole

FOLDER = "pca"
_SMALLEST_NORM = 1e-12


@dataclass(frozen=True)
class PCA:
    """Principal components of descriptors.

    Attributes:
        mean: (descriptor_size,) float32.
        axes: (dim, descriptor_size) float32.
    """

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]

    @classmethod
    def fit(cls, descriptors: NDArray[np.float32], dim: int) -> PCA:
        """The components of largest variance; the largest number of each axis is positive.

        Args:
            descriptors: (num_descriptors, descriptor_size).
            dim: how many, 1..descriptor_size.

        Raises:
            InputError: there are not more descriptors than components.
        """
        if len(descriptors) <= dim:
            raise InputError(
                f"features.pca_dim={dim}: the sampled images have {len(descriptors)} descriptors; expected a pca_dim"
                " below that, more features.pca_images, or null"
            )
        mean, _, axes = principal_axes(descriptors)
        axes = axes[:dim]
        largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1, keepdims=True), axis=1)
        return cls(mean.astype(np.float32), np.ascontiguousarray(axes * np.sign(largest), dtype=np.float32))

    @classmethod
    def load(cls, artifact: Path) -> PCA:
        """Those that an artifact of the features stage holds."""
        return cls(np.load(artifact / FOLDER / "mean.npy"), np.load(artifact / FOLDER / "axes.npy"))

    def save(self, artifact: Path) -> None:
        """Write them, whole or not at all."""
        with appearing_whole(artifact / FOLDER) as temporary:
            temporary.mkdir()
            np.save(temporary / "mean.npy", self.mean)
            np.save(temporary / "axes.npy", self.axes)

    def apply(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Shorten descriptors (n, descriptor_size) to (n, dim) of unit L2 norm."""
        with threadpool_limits(limits=1):
            shortened = (descriptors - self.mean) @ self.axes.T
        norms = np.linalg.norm(shortened, axis=1, keepdims=True)
        return np.asarray(shortened / np.maximum(norms, _SMALLEST_NORM), dtype=np.float32)
