"""The extractor ``features=surf``."""

from __future__ import annotations

import cv2

from minia.core.artifact import InputError
from minia.models.extractors.opencv import OpenCVExtractor
from minia.models.extractors.settings import SURFSettings


class SURFExtractor(OpenCVExtractor):
    """SURF (Bay et al. 2008) by OpenCV, where the installed OpenCV was built with it.

    Raises:
        InputError: the installed OpenCV has no SURF.
    """

    descriptor_dtype = "float16"

    def __init__(self, settings: SURFSettings) -> None:
        super().__init__(num_features=settings.num_features, objects=settings.objects)
        self.descriptor_size = 128 if settings.extended else 64
        try:
            self._detector = cv2.xfeatures2d.SURF.create(
                settings.hessian_threshold,
                settings.octaves,
                settings.octave_layers,
                settings.extended,
                settings.upright,
            )
        except (AttributeError, cv2.error):
            raise InputError(
                f"features=surf: the installed OpenCV {cv2.__version__} was built without SURF"
                " (it needs OPENCV_ENABLE_NONFREE); allowed here: features=sift"
            ) from None
