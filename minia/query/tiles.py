"""Images with marks: circles where structures are, boxes where a marked place is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from minia.data.files import UnreadableImageError
from minia.data.reading import Reading, fit_sides, read_image
from minia.mining.report.panels import PALETTE, missing_tile, save_jpeg

Pixels = NDArray[np.uint8]
_SHIFT = 4  # bits after the point of the coordinates that OpenCV draws at
_HALO = (0, 0, 0)


class Tile:
    """An image at the size of a tile, to draw on.

    Args:
        path: the image's file; where it cannot be read there is its name instead.
        reading: how it is read.
        side: of the longer side, in pixels.
    """

    def __init__(self, path: Path, reading: Reading, side: int) -> None:
        try:
            image = read_image(path, reading)
        except (UnreadableImageError, OSError):
            self.factor = 0.0
            self.pixels: Pixels = missing_tile(path.name, side)
            return
        self.factor = side / max(image.shape[:2])
        self.pixels = fit_sides(image, side, side).copy()

    def circle(self, x: float, y: float, diameter: float, colour: int) -> None:
        """Draw a circle; its place in pixels of the image, its colour a number in the palette."""
        if self.factor and np.isfinite([x, y, diameter]).all():
            turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
            self._line(np.stack([x + diameter / 2 * np.cos(turn), y + diameter / 2 * np.sin(turn)], axis=1), colour)

    def box(self, middle: tuple[float, float], size: tuple[float, float], angle: float, colour: int) -> None:
        """Draw a box of a width and height, turned by an angle in degrees from x towards y."""
        if self.factor:
            corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * np.array(size) / 2
            turn = np.deg2rad(angle)
            matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
            self._line(corners @ matrix + np.array(middle), colour)

    def save(self, path: Path) -> None:
        """Write it as JPEG."""
        save_jpeg(path, self.pixels)

    def _line(self, points: NDArray[np.float64], colour: int) -> None:
        places = np.rint(((points + 0.5) * self.factor - 0.5) * (1 << _SHIFT)).astype(np.int32)
        for width, ink in ((4, _HALO), (2, PALETTE[colour % len(PALETTE)])):
            cv2.polylines(self.pixels, [places], True, ink, width, cv2.LINE_AA, _SHIFT)


def colour_of(colour: int) -> str:
    """A colour of the palette in CSS."""
    return "#{:02x}{:02x}{:02x}".format(*PALETTE[colour % len(PALETTE)])
