"""Where dense keypoints lie: on a square grid that is laid through the object's middle along its long axis.

About the middle of a single object the grid is drawn together, as the cells of an eye are: a place at a distance u on
the even grid comes to u (1 - fovea + fovea u / R), R being the object's radius. A bar or a bulge is a few hundredths of
its galaxy's area, and even places leave it a handful of keypoints. Besides, a galaxy has one middle: words of that one
place are never together in an image, those of many windows about it are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minia.models.extractors.objects import Objects

REACH = (
    0.66  # of a window's width: how far a turned window looks from its middle, to its corner cells' middles and blur
)
_LINES = 100  # of the shorter side: enough to measure an area by
_HALVINGS = 30

Floats = NDArray[np.floating]


class Places(NamedTuple):
    """Places of one size."""

    window: float  # width in pixels
    x: NDArray[np.float32]  # pixels
    y: NDArray[np.float32]


class Fovea(NamedTuple):
    """How a grid is drawn together about its middle."""

    strength: float  # in [0, 1): 0 leaves it as it is
    radius: float  # pixels: at this distance places stay where they are

    def drawn(self, distance: Floats) -> Floats:
        """By what a place's distance from the middle is multiplied, by its distance before."""
        return 1 - self.strength + self.strength * distance / self.radius

    def spread(self, distance: Floats) -> Floats:
        """The distance before, by that after."""
        rest, bend = 1 - self.strength, self.strength / self.radius
        return np.asarray(2 * distance / (rest + np.sqrt(rest**2 + 4 * bend * distance)))

    def closeness(self, distance: Floats) -> Floats:
        """Places for each that an even grid has, by the distance in the image."""
        factor = self.drawn(self.spread(distance))
        return 1 / (factor * (2 * factor - 1 + self.strength))


def places_of(objects: Objects, windows: Sequence[float], step: float, most: int, fovea: float = 0.0) -> list[Places]:
    """Lay the grids; no window reaches past the image.

    Args:
        objects: of the image.
        windows: widths in pixels.
        step: the least distance of neighbours at the object's radius, as a share of the window's width.
        most: about as many places at most, for which the finest grids are widened; 0 for no limit.
        fovea: in [0, 1), by how much closer neighbours are in the objects' middle than at their radius.
    """
    lens = Fovea(fovea, objects.radius)
    height, width = objects.mask.shape
    stride = max(1, min(height, width) // _LINES)
    y, x = np.nonzero(objects.mask[::stride, ::stride])
    x, y = x * stride, y * stride
    weight = stride**2 * lens.closeness(np.hypot(x - objects.centre[0], y - objects.centre[1]))
    areas = [weight[_inside(x, y, window, (width, height))].sum() for window in windows]
    steps = _widen(np.array(areas, np.float64), np.array([max(1.0, step * window) for window in windows]), most)
    return [_grid(objects, window, float(each), lens) for window, each in zip(windows, steps, strict=True)]


def _inside(x: NDArray[np.number], y: NDArray[np.number], window: float, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Whether the windows at these places lie within the image of this width and height."""
    reach = REACH * window - 0.5  # the outermost pixels' outer edges
    return (x >= reach) & (x <= size[0] - 1 - reach) & (y >= reach) & (y <= size[1] - 1 - reach)


def _widen(areas: NDArray[np.float64], steps: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """The steps, none below the least one with which the areas hold ``most`` places."""
    if not most or (areas / steps**2).sum() <= most:
        return steps
    low, high = float(steps.min()), math.sqrt(areas.sum() / most) + float(steps.max())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if (areas / np.maximum(steps, middle) ** 2).sum() > most:
            low = middle
        else:
            high = middle
    return np.maximum(steps, high)


def _grid(objects: Objects, window: float, step: float, lens: Fovea) -> Places:
    height, width = objects.mask.shape
    centre_x, centre_y = objects.centre
    rows, columns = (np.flatnonzero(objects.mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return Places(window, np.zeros(0, np.float32), np.zeros(0, np.float32))
    far_x = max(centre_x - columns[0], columns[-1] - centre_x)
    far_y = max(centre_y - rows[0], rows[-1] - centre_y)
    number = int(lens.spread(np.array(math.hypot(far_x, far_y))) / step)
    line = np.arange(-number, number + 1) * step
    along, across = np.meshgrid(line, line)
    factor = lens.drawn(np.hypot(along, across))
    along, across = along * factor, across * factor
    angle = math.radians(objects.angle)
    x = (centre_x + math.cos(angle) * along - math.sin(angle) * across).ravel()
    y = (centre_y + math.sin(angle) * along + math.cos(angle) * across).ravel()
    inside = _inside(x, y, window, (width, height))
    x, y = x[inside], y[inside]
    on = objects.mask[np.rint(y).astype(np.int64), np.rint(x).astype(np.int64)]
    return Places(window, x[on].astype(np.float32), y[on].astype(np.float32))
