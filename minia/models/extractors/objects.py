"""Which pixels of a survey image belong to objects, and to which: sky and noise estimated from the image itself.

Detection, deblending and shapes are those of Source Extractor (Bertin and Arnouts 1996) by the library
``sep`` (Barbary 2016), on the image reduced to a side that is enough for outlines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import sep
from numpy.typing import NDArray

from minia.models.extractors.background import foreground_mask
from minia.models.extractors.settings import ObjectsChoice

_SIDE = 128  # pixels of the longer side that detection works on: outlines need no more, and it takes 3 ms
_LEAST_SIDE = 16  # pixels of an image's shorter side
_RING = 1 / 16  # of the shorter side: how far the ring along the border reaches, where sky is likeliest
_SKY_PERCENTILE = 35  # of the ring: neighbours brighten some of it
_LEAST_NOISE = 0.8  # grey levels; clipped skies have none
_SIGMA = 1.4826  # standard deviations in a median absolute deviation
_THRESHOLD = 2.5  # noise above the sky
_BLUR = 1.0  # pixels of the reduced image, before the threshold
_LEAST_AREA = 12  # pixels of the reduced image
_DEBLEND_LEVELS, _DEBLEND_CONTRAST = 16, 0.04  # a neighbour has 4 % of the light, else it is an arm or a knot
_OPENING = 5 / 128  # of the longer side: tendrils of noise are thinner than that
_THICK = 0.4  # of the central object's radius: what hangs on it by a thinner neck is another
_FAR = 0.2  # of the shorter side: a central object lies nearer to the centre of the image


@dataclass(frozen=True)
class Objects:
    """The objects that were asked for.

    Attributes:
        mask: (height, width) bool, True on the objects.
        found: whether any was found; where not, the mask is True everywhere.
        centre: x and y in pixels of the central object's centre of light, if that was asked for, else of the image's.
        radius: pixels, of the circle of the central object's area, else of the image's shorter side / 2.
        angle: degrees in [0, 180) from the x axis towards the y axis, of the central object's long axis; else 0.
        elongation: in [0, 1), 1 - short axis / long axis of the central object; else 0.
        sky: grey level of the sky; NaN where it was not asked for.
        noise: standard deviation of the sky in the reduced image; NaN where it was not asked for.
    """

    mask: NDArray[np.bool_]
    found: bool
    centre: tuple[float, float]
    radius: float
    angle: float = 0.0
    elongation: float = 0.0
    sky: float = math.nan
    noise: float = math.nan


def find_objects(image: NDArray[np.uint8], choice: ObjectsChoice) -> Objects:
    """Find the objects of an image.

    Args:
        image: (height, width, 3) uint8, RGB.
        choice: ``central``: the object in the middle, without the neighbours that overlap it; ``all``: all that stands
            out of the sky; ``original``: the original's fixed grey level (see :func:`foreground_mask`); ``none``.

    Returns:
        See :class:`Objects`. Where nothing stands out of the sky, the mask leaves all in; only ``original`` may
        leave nothing.
    """
    height, width = image.shape[:2]
    if choice == "original":
        return _whole(foreground_mask(image), True)
    everything = np.ones((height, width), dtype=np.bool_)
    if choice == "none" or min(height, width) < _LEAST_SIDE:
        return _whole(everything, False)
    light, sky, noise = light_above_sky(image)
    found, labels, middle = detect(light, noise)
    if not len(found) or (choice == "central" and middle is None):
        return _whole(everything, False, sky, noise)
    if choice == "all" or middle is None:
        mask = _without_tendrils(_fill_holes(labels > 0), one=False)
        return _whole(_enlarge(mask, width, height), True, sky, noise)
    mask = _without_tendrils(_fill_holes(labels == middle + 1), one=True)
    scale_x, scale_y = width / labels.shape[1], height / labels.shape[0]
    shape = found[middle]
    return Objects(
        mask=_enlarge(mask, width, height),
        found=True,
        centre=((float(shape["x"]) + 0.5) * scale_x - 0.5, (float(shape["y"]) + 0.5) * scale_y - 0.5),
        radius=math.sqrt(float(mask.sum()) * scale_x * scale_y / math.pi),
        angle=math.degrees(float(shape["theta"])) % 180,
        elongation=1 - float(shape["b"]) / max(float(shape["a"]), 1e-6),
        sky=sky,
        noise=noise,
    )


def _whole(mask: NDArray[np.bool_], found: bool, sky: float = math.nan, noise: float = math.nan) -> Objects:
    """The mask with the image's own centre and radius."""
    height, width = mask.shape
    return Objects(mask, found, ((width - 1) / 2, (height - 1) / 2), min(height, width) / 2, sky=sky, noise=noise)


def light_above_sky(image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float, float]:
    """The reduced, slightly blurred image's mean of the colours less the sky, in grey levels; the sky; its noise.

    The sky is looked for in the ring along the border: an object may fill all the rest.

    Args:
        image: (height, width, 3) uint8, RGB, at least 16 pixels wide and high.

    Returns:
        (rows, columns) float32, at most 128 of either; the sky's level; its standard deviation, at least 0.8.
    """
    height, width = image.shape[:2]
    factor = max(1.0, max(height, width) / _SIDE)
    size = (max(_LEAST_SIDE, round(width / factor)), max(_LEAST_SIDE, round(height / factor)))
    colours = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    light = np.asarray(cv2.transform(colours, np.full((1, 3), 1 / 3, np.float32)))
    border = border_of(light)
    sky = float(np.percentile(border, _SKY_PERCENTILE))
    below = sky - border[border < sky]
    noise = max(_LEAST_NOISE, _SIGMA * float(np.median(below)) if len(below) else 0.0)
    return cv2.GaussianBlur(light - np.float32(sky), (0, 0), _BLUR, borderType=cv2.BORDER_REFLECT), sky, noise


def border_of(light: NDArray[np.float32]) -> NDArray[np.float32]:
    """The pixels of the ring along the border, one after another."""
    ring = max(2, round(min(light.shape) * _RING))
    sides = (light[:ring], light[-ring:], light[ring:-ring, :ring], light[ring:-ring, -ring:])
    return np.concatenate([side.ravel() for side in sides])


def detect(light: NDArray[np.float32], noise: float) -> tuple[Any, NDArray[np.int32], int | None]:
    """Detect and deblend.

    Args:
        light: (rows, columns) float32, the result of :func:`light_above_sky`.
        noise: its noise.

    Returns:
        The table of objects of ``sep``; (rows, columns) int32, each pixel's object, from 1, and 0 for none; the row in
        the table of the central object, None where there is none.
    """
    found, labels = sep.extract(
        np.ascontiguousarray(light), _THRESHOLD * noise, minarea=_LEAST_AREA, filter_kernel=None,
        deblend_nthresh=_DEBLEND_LEVELS, deblend_cont=_DEBLEND_CONTRAST, clean=False, segmentation_map=True,
    )  # fmt: skip
    return found, labels, _central(found, labels)


def _central(found: Any, labels: NDArray[np.int32]) -> int | None:
    """The object that covers the centre, else the brightest for its distance among those that are near."""
    if not len(found):
        return None
    height, width = labels.shape
    if here := int(labels[height // 2, width // 2]):
        return here - 1
    distance = np.hypot(found["x"] - (width - 1) / 2, found["y"] - (height - 1) / 2) / min(height, width)
    worth = found["flux"] * (distance < _FAR) / (0.05 + distance) ** 2
    best = int(np.argmax(worth))
    return best if worth[best] > 0 else None


def _fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask without holes: a knot that was told apart, or a dark lane."""
    framed = np.pad(mask.astype(np.uint8), 1)
    cv2.floodFill(framed, None, (0, 0), (2,))
    return np.asarray(framed[1:-1, 1:-1] != 2)


def _without_tendrils(mask: NDArray[np.bool_], *, one: bool) -> NDArray[np.bool_]:
    """What an opening leaves, or the largest piece of it; a thin object, of which it would leave little, stays."""
    thick = _THICK * math.sqrt(float(mask.sum()) / math.pi) if one else 0.0
    side = round(max(3.0, max(mask.shape) * _OPENING, thick)) | 1
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, ellipse)
    if one and opened.any():
        _, pieces, statistics, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
        opened = (pieces == 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
    return np.asarray(opened > 0) if opened.sum() > mask.sum() / 2 else mask


def _enlarge(mask: NDArray[np.bool_], width: int, height: int) -> NDArray[np.bool_]:
    return np.asarray(cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5)
