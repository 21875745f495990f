"""Outlines of what an image's keypoints may lie on, as the features stage decided it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from minia.mining.features.store import HowExtracted
from minia.mining.report.panels import Pixels
from minia.models.extractors.objects import find_objects
from minia.models.extractors.settings import ObjectsChoice

_MOST_OUTLINES = 40  # the largest
_SMOOTH = 1.0  # pixels that an outline may be off


def objects_choice(features: Path) -> ObjectsChoice:
    """Where the keypoints of a features artifact may lie; ``none``, anywhere, where it does not tell."""
    choice = HowExtracted.of(features).objects
    for known in ("central", "all", "original"):
        if choice == known:
            return known
    return "none"


def object_outlines(image: Pixels, choice: ObjectsChoice, factor: float) -> list[list[float]]:
    """The outlines of the objects of an image.

    Args:
        image: (height, width, 3) uint8, RGB.
        choice: which objects.
        factor: pixels of ``image`` per pixel of the original image.

    Returns:
        Polygons ``x, y, x, y, ...`` in pixels of the original image, the largest first; none where keypoints may lie
        anywhere, or where no object was found.
    """
    if choice == "none":
        return []
    found = find_objects(image, choice)
    if not found.found:
        return []
    contours, _ = cv2.findContours(found.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = sorted(contours, key=cv2.contourArea, reverse=True)[:_MOST_OUTLINES]
    polygons = [cv2.approxPolyDP(each, _SMOOTH, True).reshape(-1, 2) for each in largest]
    return [((each + 0.5) / factor - 0.5).round(1).ravel().tolist() for each in polygons if len(each) > 2]
