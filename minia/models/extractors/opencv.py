"""What the extractors of OpenCV have in common."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from minia.models.extractors.base import Extractor, Features, strongest
from minia.models.extractors.objects import find_objects


class OpenCVExtractor(Extractor):
    """An extractor whose keypoints and descriptors are OpenCV's; a subclass sets ``_detector``."""

    _detector: cv2.Feature2D

    def extract(self, image: NDArray[np.uint8]) -> Features:
        """See :class:`Extractor`."""
        mask = None if self.objects == "none" else find_objects(image, self.objects).mask
        # The mask once more: OpenCV's own test of it rounds otherwise.
        return strongest(self._detect(image, mask), mask, self.num_features)

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
            angles=np.array([point.angle for point in found], dtype=np.float32),
            scores=np.array([point.response for point in found], dtype=np.float32),
            descriptors=np.asarray(descriptors),
            image_size=np.array([width, height], dtype=np.int32),
        )
