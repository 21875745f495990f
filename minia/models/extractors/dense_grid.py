"""Where dense keypoints lie: on a square grid that is laid through the object's middle along its long axis."""

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


class Places(NamedTuple):
    """Places of one size."""

    window: float  # width in pixels
    x: NDArray[np.float32]  # pixels
    y: NDArray[np.float32]


def places_of(objects: Objects, windows: Sequence[float], step: float, most: int) -> list[Places]:
    """Lay the grids; no window reaches past the image.

    Args:
        objects: of the image.
        windows: widths in pixels.
        step: the least distance of neighbours, as a share of the window's width.
        most: about as many places at most, for which the finest grids are widened; 0 for no limit.
    """
    height, width = objects.mask.shape
    stride = max(1, min(height, width) // _LINES)
    y, x = np.nonzero(objects.mask[::stride, ::stride])
    areas = [stride**2 * _inside(x * stride, y * stride, window, (width, height)).sum() for window in windows]
    steps = _widen(np.array(areas, np.float64), np.array([max(1.0, step * window) for window in windows]), most)
    return [_grid(objects, window, float(each)) for window, each in zip(windows, steps, strict=True)]


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


def _grid(objects: Objects, window: float, step: float) -> Places:
    height, width = objects.mask.shape
    centre_x, centre_y = objects.centre
    rows, columns = (np.flatnonzero(objects.mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return Places(window, np.zeros(0, np.float32), np.zeros(0, np.float32))
    far_x = max(centre_x - columns[0], columns[-1] - centre_x)
    far_y = max(centre_y - rows[0], rows[-1] - centre_y)
    number = int(math.hypot(far_x, far_y) / step)
    line = np.arange(-number, number + 1) * step
    along, across = np.meshgrid(line, line)
    angle = math.radians(objects.angle)
    x = (centre_x + math.cos(angle) * along - math.sin(angle) * across).ravel()
    y = (centre_y + math.sin(angle) * along + math.cos(angle) * across).ravel()
    inside = _inside(x, y, window, (width, height))
    x, y = x[inside], y[inside]
    on = objects.mask[np.rint(y).astype(np.int64), np.rint(x).astype(np.int64)]
    return Places(window, x[on].astype(np.float32), y[on].astype(np.float32))
