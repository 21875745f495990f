"""Cutting parts and words out of images, each at its place, size and angle, so that they line up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from minia.mining.matching.place import place_of
from minia.mining.report.panels import BACKGROUND, Pixels

_MARGIN = 1.8  # of a cut-out's side over the part's size, of which a disc evenly full of spots has 1.4 as its diameter
_ANGLES, _CIRCLES = 120, 32
_ALIGNING_ROUNDS = 4
_SMALLEST = 8.0  # pixels of a part's diameter


class Place(NamedTuple):
    """Where a part is in an image.

    Attributes:
        x, y: its middle in pixels, the centre of the top-left pixel being (0, 0).
        size: its diameter in pixels.
        angle: its direction in degrees from x towards y, nan where it is not known.
        known: whether it was found by the arrangement, not guessed from its keypoints.
    """

    x: float
    y: float
    size: float
    angle: float
    known: bool


def place_of_keypoints(keypoints: npt.NDArray[np.float32], sizes: npt.NDArray[np.float32]) -> Place | None:
    """A rough place: the median of some keypoints and twice their median distance from there; None without any.

    Args:
        keypoints: (n, 2) float32, x and y in pixels.
        sizes: (n,) float32 diameters in pixels; their median is added to the place's.
    """
    if not len(keypoints):
        return None
    x, y, size = place_of(keypoints, sizes)
    return Place(x, y, max(_SMALLEST, size), math.nan, False)


def cut_part(image: Pixels, place: Place, side: int) -> Pixels:
    """Cut a part out, turned so that its angle is 0, with some of what is around it.

    Args:
        image: (height, width, 3) uint8.
        place: in pixels of this image.
        side: of the cut-out.

    Returns:
        (side, side, 3) uint8.
    """
    return _cut(image, place, _MARGIN * max(place.size, _SMALLEST), side)


def cut_patch(image: Pixels, place: Place, side: int) -> Pixels:
    """Cut out the surroundings of a keypoint whose window is as wide as ``place.size``, turned likewise."""
    return _cut(image, place, max(place.size, 3.0), side)


def _cut(image: Pixels, place: Place, width: float, side: int) -> Pixels:
    image, place = _surroundings(image, place, width)
    scale = side / width
    turn = 0.0 if math.isnan(place.angle) else math.radians(place.angle)
    cosine, sine = scale * math.cos(turn), scale * math.sin(turn)
    middle = (side - 1) / 2
    matrix = np.array(
        [
            [cosine, sine, middle - cosine * place.x - sine * place.y],
            [-sine, cosine, middle + sine * place.x - cosine * place.y],
        ]
    )
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    if scale < 0.5:  # warping looks at single pixels: blur what would be skipped
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.4 / scale), dtype=np.uint8)
    warped = cv2.warpAffine(image, matrix, (side, side), flags=method, borderValue=BACKGROUND)
    return np.asarray(warped, dtype=np.uint8)


def _surroundings(image: Pixels, place: Place, width: float) -> tuple[Pixels, Place]:
    """The piece of an image that a cut-out may touch, and the place in it: blurring it all would take its time."""
    reach = math.ceil(width) + 2
    left, top = max(0, int(place.x) - reach), max(0, int(place.y) - reach)
    piece = image[top : max(top + 1, int(place.y) + reach), left : max(left + 1, int(place.x) + reach)]
    return np.ascontiguousarray(piece), place._replace(x=place.x - left, y=place.y - top)


def turns_alike(cutouts: Sequence[Pixels]) -> list[float]:
    """The angles by which cut-outs are turned against each other, found where they look most alike.

    Each is compared, on circles about its middle, with the mean of all as they are turned so far, the first one before
    the others.

    Args:
        cutouts: (side, side, 3) uint8 each, at least one.

    Returns:
        Degrees from x towards y for each; to cut out at these makes them alike.
    """
    spectra = np.stack([_circles(each) for each in cutouts])
    turns = np.exp(2j * np.pi * np.outer(np.arange(_ANGLES), np.arange(_ANGLES // 2 + 1)) / _ANGLES)
    template, best = spectra[0], np.zeros(len(cutouts), np.int64)
    for _ in range(_ALIGNING_ROUNDS):
        alike = np.fft.irfft((spectra * template.conj()).sum(axis=2), _ANGLES, axis=1)
        best = alike.argmax(axis=1)
        template = (spectra * turns[best][:, :, None]).mean(axis=0)
    return [float(each) * 360 / _ANGLES for each in best]


def _circles(cutout: Pixels) -> npt.NDArray[np.complex128]:
    """Spectra of the brightness along circles about the middle, (angles / 2 + 1, circles), without its mean."""
    side = len(cutout)
    grey = cutout.mean(axis=2).astype(np.float32)
    centre = ((side - 1) / 2, (side - 1) / 2)
    polar = cv2.warpPolar(grey, (_CIRCLES, _ANGLES), centre, side / 2, cv2.INTER_LINEAR)
    spectrum = np.fft.rfft(polar.astype(np.float64) * np.sqrt(np.arange(_CIRCLES) + 0.5), axis=0)
    spectrum[0] = 0
    return np.asarray(spectrum / max(float(np.linalg.norm(spectrum)), 1e-9))


def average(cutouts: Sequence[Pixels]) -> Pixels:
    """The mean of cut-outs of one size, of which there is at least one."""
    return np.asarray(np.rint(np.mean(np.stack(cutouts), axis=0, dtype=np.float64)), dtype=np.uint8)


def most_typical(cutouts: Sequence[Pixels]) -> int:
    """The cut-out that is most like the average of all: of highest correlation with it."""
    red, green, blue = np.moveaxis(np.stack(cutouts), 3, 0)
    grey = (red.astype(np.uint16) + green + blue).astype(np.float32).reshape(len(cutouts), -1)
    grey -= grey.mean(axis=1, keepdims=True)
    grey /= np.maximum(np.linalg.norm(grey, axis=1, keepdims=True), 1e-6)
    return int(np.argmax((grey * grey.mean(axis=0)).sum(axis=1)))
