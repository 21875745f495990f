"""The extractor contract, and the classic extractors SIFT and SURF.

Every extractor, classic or neural, gives the same feature dict, so that everything downstream is
the same for all of them.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray

from minia.core.artifact import InputError
from minia.models.extractors.background import foreground_mask


class Features(TypedDict):
    """What an extractor finds in one image; num_keypoints may be 0.

    keypoints: (num_keypoints, 2) float32, x and y in pixels, centre of the top-left pixel = (0, 0).
    sizes: (num_keypoints,) float32, diameter of the described region in pixels.
    scores: (num_keypoints,) float32, strength, larger is better, falling.
    descriptors: (num_keypoints, descriptor_size) float32.
    image_size: (2,) int32, width and height of the image in pixels.
    """

    keypoints: NDArray[np.float32]
    sizes: NDArray[np.float32]
    scores: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    image_size: NDArray[np.int32]


class Extractor(ABC):
    """Finds and describes keypoints.

    Args:
        num_features: keep at most this many keypoints an image, those of the highest score; 0 keeps all.
        background_mask: keep only keypoints whose centre lies on an object (see ``foreground_mask``).

    Attributes:
        descriptor_size: length of a descriptor.
        descriptor_dtype: the type descriptors are stored in: ``uint8`` where they are whole numbers
            up to 255, else ``float16``.
        batch_size: the most images of one size that ``extract_batch`` is worth calling with.
        in_threads: whether to spread images over threads of this process, which ``extract_batch``
            may then be called from at once, rather than over processes.
    """

    descriptor_size: int
    descriptor_dtype: str
    batch_size = 1
    in_threads = False

    def __init__(self, *, num_features: int, background_mask: bool) -> None:
        self.num_features = num_features
        self.background_mask = background_mask

    @abstractmethod
    def extract(self, image: NDArray[np.uint8]) -> Features:
        """Find and describe the keypoints of one image.

        Args:
            image: (height, width, 3) uint8, RGB.

        Returns:
            The feature dict in pixels of that image, sorted by falling score, then by position and
            size; what is equal in all of these (one keypoint, several orientations) stays in the
            detector's order.
        """

    def extract_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[Features]:
        """What ``extract`` gives for each of several images of one size, up to rounding.

        Args:
            images: each (height, width, 3) uint8, RGB.
        """
        return [self.extract(image) for image in images]

    def working(self) -> contextlib.AbstractContextManager[None]:
        """To be held by a process whose threads extract, if ``in_threads``."""
        return contextlib.nullcontext()


class OpenCVExtractor(Extractor):
    """An extractor whose keypoints and descriptors are OpenCV's; a subclass sets ``_detector``."""

    _detector: cv2.Feature2D

    def extract(self, image: NDArray[np.uint8]) -> Features:
        """See :class:`Extractor`."""
        mask = foreground_mask(image) if self.background_mask else None
        features = self._detect(image, mask)
        x, y = features["keypoints"].T
        order = np.lexsort((features["sizes"], x, y, -features["scores"]))
        if mask is not None:  # OpenCV's own test of the mask rounds otherwise
            column = np.clip(np.rint(x[order]).astype(np.int64), 0, mask.shape[1] - 1)
            row = np.clip(np.rint(y[order]).astype(np.int64), 0, mask.shape[0] - 1)
            order = order[mask[row, column]]
        if self.num_features:
            order = order[: self.num_features]
        return Features(
            keypoints=features["keypoints"][order],
            sizes=features["sizes"][order],
            scores=features["scores"][order],
            descriptors=features["descriptors"][order],
            image_size=features["image_size"],
        )

    def _detect(self, image: NDArray[np.uint8], mask: NDArray[np.bool_] | None) -> Features:
        """All keypoints of an image, in any order; outside the mask none is described, which saves most of the time."""
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        found, descriptors = self._detector.detectAndCompute(grey, None if mask is None else mask.astype(np.uint8))
        if descriptors is None:
            descriptors = np.empty((0, self.descriptor_size), np.float32)
        height, width = image.shape[:2]
        return Features(
            keypoints=np.array([point.pt for point in found], dtype=np.float32).reshape(-1, 2),
            sizes=np.array([point.size for point in found], dtype=np.float32),
            scores=np.array([point.response for point in found], dtype=np.float32),
            descriptors=np.asarray(descriptors),
            image_size=np.array([width, height], dtype=np.int32),
        )


class SIFTExtractor(OpenCVExtractor):
    """SIFT (Lowe 2004) by OpenCV, with its precise upscaling, so that keypoints are not shifted.

    Args:
        num_features: see :class:`Extractor`.
        octave_layers: layers in each octave.
        contrast_threshold: keypoints of lower contrast are dropped (OpenCV divides it by octave_layers).
        edge_threshold: keypoints on straighter edges are dropped; larger keeps more.
        sigma: blur of the first octave's base in pixels.
        root_sift: RootSIFT (Arandjelovic and Zisserman 2012): the square root of the L1-normalised
            descriptor, of unit L2 norm, so that Euclidean distance becomes the Hellinger kernel.
        background_mask: see :class:`Extractor`.
    """

    descriptor_size = 128

    def __init__(
        self,
        *,
        num_features: int,
        octave_layers: int,
        contrast_threshold: float,
        edge_threshold: float,
        sigma: float,
        root_sift: bool,
        background_mask: bool,
    ) -> None:
        super().__init__(num_features=num_features, background_mask=background_mask)
        self.root_sift = root_sift
        self.descriptor_dtype = "float16" if root_sift else "uint8"
        self._detector = cv2.SIFT.create(
            nfeatures=0,  # the best are chosen after the background mask
            nOctaveLayers=octave_layers,
            contrastThreshold=contrast_threshold,
            edgeThreshold=edge_threshold,
            sigma=sigma,
            descriptorType=cv2.CV_32F,
            enable_precise_upscale=True,
        )

    def _detect(self, image: NDArray[np.uint8], mask: NDArray[np.bool_] | None) -> Features:
        features = super()._detect(image, mask)
        if self.root_sift:
            descriptors = features["descriptors"]
            total = np.maximum(descriptors.sum(axis=1, keepdims=True), np.float32(1e-12))
            features["descriptors"] = np.sqrt(descriptors / total)
        return features


class SURFExtractor(OpenCVExtractor):
    """SURF (Bay et al. 2008) by OpenCV, where the installed OpenCV was built with it.

    Args:
        num_features: see :class:`Extractor`.
        hessian_threshold: keypoints of a smaller determinant of the Hessian are dropped.
        octaves: number of octaves.
        octave_layers: layers in each octave.
        extended: describe by 128 numbers rather than 64.
        upright: do not estimate the orientation.
        background_mask: see :class:`Extractor`.

    Raises:
        InputError: the installed OpenCV has no SURF.
    """

    descriptor_dtype = "float16"

    def __init__(
        self,
        *,
        num_features: int,
        hessian_threshold: float,
        octaves: int,
        octave_layers: int,
        extended: bool,
        upright: bool,
        background_mask: bool,
    ) -> None:
        super().__init__(num_features=num_features, background_mask=background_mask)
        self.descriptor_size = 128 if extended else 64
        try:
            self._detector = cv2.xfeatures2d.SURF.create(hessian_threshold, octaves, octave_layers, extended, upright)
        except (AttributeError, cv2.error):
            raise InputError(
                f"features=surf: the installed OpenCV {cv2.__version__} was built without SURF"
                " (it needs OPENCV_ENABLE_NONFREE); allowed here: features=sift"
            ) from None
