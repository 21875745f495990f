"""Sheets of small pictures: a browser opens one file of hundreds faster than hundreds of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minia.mining.report.panels import BACKGROUND, Pixels, save_jpeg

SPRITES = "sprites"


class Sheets:
    """Writes pictures in the order in which they come, each sheet as soon as it is full.

    Args:
        report: the report's folder; ``sprites/NAME_0000.jpg`` and so on go there.
        name: of the sheets.
        size: width and height of a picture in pixels.
        columns: pictures of a sheet side by side.
        rows: pictures of a sheet one below the other.
    """

    def __init__(self, report: Path, name: str, size: tuple[int, int], columns: int, rows: int) -> None:
        (report / SPRITES).mkdir(exist_ok=True)
        self.folder, self.name, self.columns, self.rows = report / SPRITES, name, columns, rows
        self.width, self.height = size
        self.count = 0
        self._sheet: Pixels | None = None

    def add(self, picture: Pixels) -> int:
        """Add a picture, (height, width, 3) uint8; its number."""
        place = self.count % (self.columns * self.rows)
        if self._sheet is None:
            self._sheet = np.empty((self.rows * self.height, self.columns * self.width, 3), np.uint8)
            self._sheet[:] = BACKGROUND
        top, left = place // self.columns * self.height, place % self.columns * self.width
        self._sheet[top : top + self.height, left : left + self.width] = picture
        self.count += 1
        if place + 1 == self.columns * self.rows:
            self.finish()
        return self.count - 1

    def finish(self) -> None:
        """Write the sheet that is not full yet, if there is one."""
        if self._sheet is not None:
            sheet = (self.count - 1) // (self.columns * self.rows)
            used = -(-((self.count - 1) % (self.columns * self.rows) + 1) // self.columns)
            save_jpeg(self.folder / f"{self.name}_{sheet:04d}.jpg", self._sheet[: used * self.height])
            self._sheet = None

    def describe(self) -> dict[str, int | str]:
        """What the page needs to find a picture by its number."""
        return {
            "name": self.name,
            "width": self.width,
            "height": self.height,
            "columns": self.columns,
            "rows": self.rows,
        }
