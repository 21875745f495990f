"""The background mask: which pixels of a survey image belong to objects rather than to the sky."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_MEDIAN_SIDE = 3  # pixels
_SKY_LEVEL = 11  # grey levels: brighter is foreground
_ERODE_SIDE, _ERODE_TIMES = 5, 3
_DILATE_SIDE, _DILATE_TIMES = 11, 2


def foreground_mask(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Mark the pixels that belong to objects.

    The recipe of the original minIA: grey, median filter of 3 pixels, threshold at 11, erosion by an
    ellipse of 5 pixels three times (removes stars and noise), dilation by an ellipse of 11 pixels
    twice (gives back more than the rim that the erosion took).

    Args:
        image: (height, width, 3) uint8, RGB.

    Returns:
        (height, width) bool, True on objects.
    """
    grey = cv2.medianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), _MEDIAN_SIDE)
    foreground = (grey > _SKY_LEVEL).astype(np.uint8)
    foreground = cv2.erode(foreground, _ellipse(_ERODE_SIDE), iterations=_ERODE_TIMES)
    foreground = cv2.dilate(foreground, _ellipse(_DILATE_SIDE), iterations=_DILATE_TIMES)
    return np.asarray(foreground, dtype=np.bool_)


def _ellipse(side: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), dtype=np.uint8)
