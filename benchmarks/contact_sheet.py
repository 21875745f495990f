"""Makes the contact sheet of simulated galaxies in the documentation, one row a class.

``python benchmarks/contact_sheet.py docs/simulated_galaxies.jpg``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from minia.data.labelled.galaxy_zoo import CLASSES
from minia.data.simulation.render import draw_parameters, render_galaxy


def contact_sheet(columns: int, tile: int, seed: int) -> np.ndarray:
    """Galaxies of all classes, the inner three quarters of each cut-out, BGR, uint8."""
    rows = []
    for row, label in enumerate(CLASSES):
        tiles = []
        for column in range(columns):
            rng = np.random.default_rng([seed, row, column])
            image = render_galaxy(draw_parameters(label, rng), rng)[53:-53, 53:-53]
            tiles.append(cv2.resize(image, (tile, tile), interpolation=cv2.INTER_AREA))
        tiles = [cv2.copyMakeBorder(each, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(60, 60, 60)) for each in tiles]
        name = np.zeros((tile + 2, 190, 3), dtype=np.uint8)
        words = label.replace("_", " ")
        cv2.putText(name, words, (6, tile // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.58, (230, 230, 230), 1, cv2.LINE_AA)
        rows.append(np.hstack([name, *tiles]))
    return cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--tile", type=int, default=159, help="side of a galaxy, pixels")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    sheet = contact_sheet(arguments.columns, arguments.tile, arguments.seed)
    if not cv2.imwrite(str(arguments.path), sheet, [cv2.IMWRITE_JPEG_QUALITY, 88]):
        raise SystemExit(f"{arguments.path} could not be written")


if __name__ == "__main__":
    main()
