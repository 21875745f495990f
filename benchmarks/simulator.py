"""Galaxies a second: the simulator, and beside it astropy's Sersic2D on the full grid of the image.

``python benchmarks/simulator.py --images 360 --workers 2``. The first figure includes starting the
processes and encoding the files. The peer draws no sky, noise, arms, colours or files: only the
Sersic profiles of a bulge and a disk in three bands on 424 x 424 pixels, in one process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.modeling.models import Sersic2D
from astropy.visualization import make_lupton_rgb

from minia.core.workers import num_cores
from minia.data.labelled.galaxy_zoo import CLASSES
from minia.data.simulation.render import CUTOUT_SIZE, draw_parameters, render_galaxy
from minia.data.simulation.survey import write_survey


def survey_rate(num_images: int, num_workers: int, image_size: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        write_survey(Path(folder), num_images=num_images, side=image_size, seed=1, num_workers=num_workers)
        return num_images / (time.perf_counter() - started)


def render_rate(num_images: int) -> float:
    started = time.perf_counter()
    for index in range(num_images):
        rng = np.random.default_rng([1, index])
        render_galaxy(draw_parameters(CLASSES[index % len(CLASSES)], rng), rng)
    return num_images / (time.perf_counter() - started)


def peer_rate(num_images: int) -> float:
    y, x = np.mgrid[:CUTOUT_SIZE, :CUTOUT_SIZE].astype(float)
    centre = CUTOUT_SIZE / 2
    bulge = Sersic2D(amplitude=1.0, r_eff=15.0, n=4.0, x_0=centre, y_0=centre)
    disk = Sersic2D(amplitude=1.0, r_eff=30.0, n=1.0, x_0=centre, y_0=centre, ellip=0.3)
    started = time.perf_counter()
    for _ in range(num_images):
        for _band in range(3):
            bulge(x, y) + disk(x, y)
    return num_images / (time.perf_counter() - started)


def lupton_rate(num_images: int) -> float:
    bands = np.random.default_rng(0).random((3, 200, 200))
    started = time.perf_counter()
    for _ in range(num_images):
        make_lupton_rgb(*bands, stretch=0.5, Q=8)
    return num_images / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=360)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--image-size", type=int, default=CUTOUT_SIZE)
    arguments = parser.parse_args()
    rate = survey_rate(arguments.images, arguments.workers, arguments.image_size)
    print(f"{num_cores()} cores, {arguments.images} galaxies of {arguments.image_size} x {arguments.image_size} pixels")
    print(f"survey, {arguments.workers} processes: {rate:.1f} galaxies a second")
    print(f"survey, in this process: {survey_rate(arguments.images // 2, 1, arguments.image_size):.1f} a second")
    print(f"render_galaxy alone, 1 process: {render_rate(arguments.images // 4):.1f} a second")
    print(f"peer: astropy Sersic2D, 2 profiles in 3 bands, full grid, 1 process: {peer_rate(20):.1f} a second")
    print(f"astropy make_lupton_rgb alone on 200 x 200 pixels: {lupton_rate(50):.0f} a second")


if __name__ == "__main__":
    main()
