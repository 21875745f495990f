"""A survey of simulated galaxies as FITS images with stars at known places on the sky, and a run of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from minia.command_line.commands import mine
from minia.data.labelled.galaxy_zoo import CLASSES
from minia.data.simulation.render import draw_parameters, render_galaxy

SIDE, PIXEL = 160, 0.396  # pixels, arcsec
STAR_SIGMA = 2.0  # pixels
SIFT_RUN = (
    "vocabulary.size=60", "mining.linkage=single", "mining.num_tuples=100", "num_workers=1", "report.num_shuffles=2",
    "features.objects=none", "arrangement=none",
)  # fmt: skip


@dataclass(frozen=True)
class FitsSurvey:
    """Where the images are, and the stars drawn into them."""

    folder: Path
    catalogue: Path
    stars: pd.DataFrame  # image, ra, dec


def galaxy_wcs(number: int) -> WCS:
    """A gnomonic projection with a rotation and a reference pixel of its own."""
    turn = np.deg2rad(20.0 * number)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [150.0 + number, 2.0 - 3.0 * number]
    wcs.wcs.crpix = [SIDE / 2 + number, SIDE / 3]
    wcs.wcs.cd = PIXEL / 3600 * np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    wcs.wcs.radesys = "ICRS" if number % 2 else "FK5"
    return wcs


def write_survey(folder: Path, num_images: int) -> FitsSurvey:
    """Write ``galaxy00.fits`` and so on, every third in three bands, and a catalogue beside them."""
    images = folder / "images"
    images.mkdir()
    stars: list[tuple[str, float, float]] = []
    for number in range(num_images):
        rng = np.random.default_rng([9, number])
        rgb = render_galaxy(draw_parameters(CLASSES[number % len(CLASSES)], rng), rng, SIDE)
        sky = rng.normal(300.0, 10.0, (3, SIDE, SIDE))
        light = rgb[::-1].transpose(2, 0, 1) * 20.0 + sky  # FITS begins below
        wcs, rows, columns = galaxy_wcs(number), *np.mgrid[:SIDE, :SIDE]
        corners = np.array([[0, 0], [SIDE - 42, SIDE - 42]])
        for x, y in rng.uniform(12, 30, (2, 2)) + corners:
            place = wcs.pixel_to_world(x, y).icrs
            stars.append((f"galaxy{number:02d}.fits", place.ra.deg, place.dec.deg))
            square = (columns - x) ** 2 + (rows - y) ** 2
            light = np.where(square < 15**2, sky, light)  # no neighbour blends with the star
            light += 8000.0 * np.exp(-square / (2 * STAR_SIGMA**2))
        light[:, :3, :3] = np.nan
        data = light if number % 3 == 0 else light[1]
        fits.PrimaryHDU(data.astype(np.float32), wcs.to_header()).writeto(images / f"galaxy{number:02d}.fits")
    catalogue = Table(
        {
            "number": [f"{number:02d}" for number in range(num_images)],
            "ra": [150.0 + number for number in range(num_images)],
            "redshift": np.linspace(0.01, 0.1, num_images),
            "votes": np.arange(num_images),
            "kind": [CLASSES[number % len(CLASSES)] for number in range(num_images)],
        }
    )
    catalogue.write(folder / "catalogue.vot", format="votable")
    return FitsSurvey(images, folder / "catalogue.vot", pd.DataFrame(stars, columns=["image", "ra", "dec"]))


def run_mine(folder: Path, *overrides: str) -> int:
    """Run the command line of mining in this process, its folder being ``folder``."""
    with mock.patch.object(sys, "argv", ["mine.py", *SIFT_RUN, *overrides, f"hydra.run.dir={folder}"]):
        return mine()
