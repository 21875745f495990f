"""What collages are made of: cluttered scenes, and the parts that are set into them.

A scene is a *dead leaves* image: opaque shapes of all sizes, the later ones over the earlier ones, their radii
following a power law, which has the statistics of natural images (Lee, Mumford, Huang 2001, IJCV 41, 35). Every shape,
colour, grain and shading is drawn anew for every image, so nothing recurs but what chance and the likeness of all
edges bring. How fine, how angular and how contrasted the leaves are changes from image to image, as it does
from photograph to photograph.

A part is a disc, a rounded square or a shield, either *drawn* (flat colours, strokes, letters: a logo) or
*photographic* (a crop of a dead leaves image of its own, with grain and shading, as clutter has them).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

PATCH = 256  # pixels: side of a part before it is set into an image
_OUTLINE_POINTS = 48
_COARSEST = 40.0  # pixels, in an image of 480: the largest radius of a leaf
_MOST_LEAVES = 60_000
_CORNERS = 16
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ2345678&%#"


@dataclass(frozen=True)
class Part:
    """What recurs.

    Attributes:
        kind: ``drawn`` or ``photographic``.
        rgb: (PATCH, PATCH, 3) uint8.
        outline: (num_points, 2) float64, x and y about the part's centre, in units of its size (half a unit at most).
    """

    kind: str
    rgb: NDArray[np.uint8]
    outline: NDArray[np.float64]


def draw_scene(side: int, finest: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw clutter.

    Args:
        side: of the image, pixels.
        finest: radius of the smallest leaves, pixels: the smaller, the more keypoints.
        rng: draws everything.

    Returns:
        RGB, uint8, (side, side, 3).
    """
    smallest = max(0.5, finest * math.exp(rng.normal(0, 0.12)))
    largest = max(_COARSEST * side / 480, 4 * smallest)
    # Leaves with radii of density r^-3 between the two: this many of them leave little of the ground.
    covered = 2 * math.pi * smallest**2 * math.log(largest / smallest)
    count = min(round(3.5 * side**2 / covered), _MOST_LEAVES)
    radii = 1.0 / np.sqrt(1 / smallest**2 - rng.random(count) * (1 / smallest**2 - 1 / largest**2))
    palette = rng.uniform(20, 235, (int(rng.integers(5, 12)), 3))
    colours = np.clip(palette[rng.integers(len(palette), size=count)] + rng.normal(0, 22, (count, 3)), 8, 250)
    corners = np.rint(_leaves(radii, side, rng.uniform(0.2, 0.8), rng) * 8).astype(np.int32)
    image = np.empty((side, side, 3), np.uint8)
    image[:] = palette[0]
    for leaf, colour in zip(corners, colours.tolist(), strict=True):
        cv2.fillPoly(image, [leaf], colour, cv2.LINE_AA, 3)
    return _shaded(image, rng.uniform(0.1, 0.35), finest, rng)


def _leaves(radii: NDArray[np.float64], side: int, angular: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Corners of leaves, pixels, (num_leaves, _CORNERS, 2): a share are polygons of 3 to 7 corners, the rest round."""
    count = len(radii)
    even = np.linspace(0, 2 * math.pi, _CORNERS, endpoint=False)
    lobes = rng.integers(2, 5, (count, 1))
    waves = 0.25 * rng.random((count, 1)) * np.sin(lobes * even + rng.uniform(0, 6.28, (count, 1)))
    corner = np.sort(rng.uniform(0, 2 * math.pi, (count, 7)), axis=1)
    reach = rng.uniform(0.6, 1.3, (count, 7))
    which = np.minimum(np.arange(_CORNERS), rng.integers(2, 7, (count, 1)))  # the last corner many times over
    is_polygon = rng.random((count, 1)) < angular
    angles = np.where(is_polygon, np.take_along_axis(corner, which, 1), even)
    distance = radii[:, None] * np.where(is_polygon, np.take_along_axis(reach, which, 1), 1 + waves)
    stretch, turn = rng.uniform(0.35, 1.0, (count, 1)), rng.uniform(0, 2 * math.pi, (count, 1))
    x, y = distance * np.cos(angles), distance * stretch * np.sin(angles)
    centres = rng.uniform(-0.05 * side, 1.05 * side, (count, 1, 2))
    turned = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=2)
    return np.asarray(turned + centres)


def _shaded(image: NDArray[np.uint8], contrast: float, finest: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The image under uneven light, the same for all colours, whose finest detail is that of the leaves."""
    side = len(image)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    frequency[0, 0] = np.inf
    spectrum = (
        np.fft.rfft2(rng.standard_normal((side, side))) * frequency**-1.2 * np.exp(-((finest * frequency) ** 2) * 4)
    )
    light = np.fft.irfft2(spectrum, s=(side, side))
    lit = image * np.exp(contrast * light / light.std())[..., None]
    return np.clip(cv2.GaussianBlur(lit, (0, 0), 0.6), 0, 255).astype(np.uint8)


def draw_part(kind: str, rng: np.random.Generator) -> Part:
    """Draw what is to recur.

    Args:
        kind: ``drawn`` or ``photographic``.
        rng: draws everything.
    """
    rgb = draw_scene(PATCH, 3.0, rng) if kind == "photographic" else _logo(rng)
    return Part(kind, rgb, _outline(rng))


def _outline(rng: np.random.Generator) -> NDArray[np.float64]:
    """A disc, a rounded square or a shield inside the circle of diameter 1: (num_points, 2)."""
    angles = np.linspace(0, 2 * math.pi, _OUTLINE_POINTS, endpoint=False)
    power = rng.choice([2.0, 4.0, 6.0])
    radius = (np.abs(np.cos(angles)) ** power + np.abs(np.sin(angles)) ** power) ** (-1 / power)
    if rng.random() < 0.33:
        radius = radius * (1 + 0.18 * np.sin(angles))
    points = np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)
    return np.asarray(points * (0.5 / np.linalg.norm(points, axis=1).max()))


def _logo(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Flat colours, strokes, rings and letters, (PATCH, PATCH, 3)."""
    image = np.empty((PATCH, PATCH, 3), np.uint8)
    colours = rng.uniform(10, 250, (5, 3))
    image[:] = colours[0]
    for _ in range(int(rng.integers(14, 22))):
        colour = tuple(np.clip(colours[rng.integers(1, 5)] + rng.normal(0, 12, 3), 0, 255).tolist())
        x, y = (int(value) for value in rng.integers(30, PATCH - 30, 2))
        width = int(rng.integers(4, 14))
        shape = rng.integers(4)
        if shape == 0:
            other = tuple(int(value) for value in rng.integers(20, PATCH - 20, 2))
            cv2.line(image, (x, y), other, colour, width, cv2.LINE_AA)
        elif shape == 1:
            axes = tuple(int(value) for value in rng.integers(10, 60, 2))
            filled = -1 if rng.random() < 0.5 else width
            cv2.ellipse(image, (x, y), axes, rng.uniform(0, 180), 0, rng.uniform(120, 360), colour, filled, cv2.LINE_AA)
        elif shape == 2:
            corners = np.array([x, y]) + rng.integers(-60, 60, (int(rng.integers(3, 6)), 2))
            cv2.fillPoly(image, [corners.astype(np.int32)], colour, cv2.LINE_AA)
        else:
            letter = _LETTERS[rng.integers(len(_LETTERS))]
            place = (max(5, x - 30), min(PATCH - 10, y + 30))
            scale = rng.uniform(1.2, 3.0)
            cv2.putText(image, letter, place, int(rng.integers(0, 5)), scale, colour, width // 2 + 2, cv2.LINE_AA)
    return image
