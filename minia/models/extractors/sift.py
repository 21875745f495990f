"""The extractor ``features=sift``."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from minia.models.extractors.base import Features
from minia.models.extractors.opencv import OpenCVExtractor
from minia.models.extractors.settings import SIFTSettings


class SIFTExtractor(OpenCVExtractor):
    """SIFT (Lowe 2004) by OpenCV, with its precise upscaling, so that keypoints are not shifted."""

    descriptor_size = 128

    def __init__(self, settings: SIFTSettings) -> None:
        super().__init__(num_features=settings.num_features, objects=settings.objects)
        self.root_sift = settings.root_sift
        self.descriptor_dtype = "float16" if settings.root_sift else "uint8"
        self._detector = cv2.SIFT.create(
            nfeatures=0,  # the best are chosen after the background mask
            nOctaveLayers=settings.octave_layers,
            contrastThreshold=settings.contrast_threshold,
            edgeThreshold=settings.edge_threshold,
            sigma=settings.sigma,
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
