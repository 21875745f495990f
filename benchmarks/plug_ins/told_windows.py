"""A plug-in: the windows of features=dense, described by what a small network trained without labels says of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minia.core.setting_types import CountOrZero, ExistingPath
from minia.models.extractors.base import Extractor, Features
from minia.models.extractors.dense import DenseExtractor
from minia.models.extractors.settings import DenseSettings

SIZES = (0.05, 0.1, 0.2)  # widths of the windows, as shares of the image's shorter side: those of features=dense
LENGTH = 16  # of a descriptor
_UNIT = 64.0  # of RootSIFT's whole numbers: a descriptor has length 8 then


def windows(num_features: int) -> DenseExtractor:
    """The extractor of features=dense with its defaults."""
    return DenseExtractor(
        DenseSettings(num_features=num_features, sizes=SIZES, step=0.055, fovea=0.0, objects="central", mirrored=True)
    )


def inputs(features: Features) -> NDArray[np.float32]:
    """What the network sees of each window, (num_keypoints, 67) float32: RootSIFT, and which of the sizes it is."""
    width = min(features["image_size"]) * np.array(SIZES)
    size = np.abs(features["sizes"][:, None] - width).argmin(axis=1)
    return np.concatenate([features["descriptors"] / _UNIT, np.eye(len(SIZES))[size]], axis=1).astype(np.float32)


class ToldWindows(Extractor):
    """RootSIFT windows through a network.

    Args:
        weights: matrices ``weight0``, ``weight1`` ... (out, in) and ``bias0`` ... (out,) float32, one pair a layer.
        num_features: at most so many keypoints an image; 0 for all.
    """

    descriptor_size, descriptor_dtype = LENGTH, "float16"

    def __init__(self, weights: ExistingPath, num_features: CountOrZero = 500) -> None:
        super().__init__(num_features=num_features, objects="central")
        self.windows = windows(num_features)
        with np.load(weights, allow_pickle=False) as file:
            self.layers = [(file[f"weight{number}"], file[f"bias{number}"]) for number in range(len(file) // 2)]

    def extract(self, image: NDArray[np.uint8]) -> Features:
        """See :class:`Extractor`; descriptors have length 1."""
        found = self.windows.extract(image)
        values = inputs(found)
        for weight, bias in self.layers[:-1]:
            values = np.maximum(values @ weight.T + bias, 0)
        weight, bias = self.layers[-1]
        values = values @ weight.T + bias
        values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.float32(1e-6))
        return Features(
            keypoints=found["keypoints"],
            sizes=found["sizes"],
            angles=found["angles"],
            scores=found["scores"],
            descriptors=values,
            image_size=found["image_size"],
        )
