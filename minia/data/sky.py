"""Where the pixels of images are on the sky: kept beside the table of images, and asked for by name and pixel.

``wcs.parquet`` in the artifact of the images stage has a row for each image whose FITS header places it on the sky:
``image``, its name; ``wcs``, the cards of the header's celestial coordinates, distortions included; ``height`` of the
image in pixels, which FITS counts from below.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from minia.core.progress import progress
from minia.core.workers import map_in_order
from minia.data.files import FITS_SUFFIXES, UnreadableImageError, open_file
from minia.data.fits_images import is_fits, read_wcs

logger = logging.getLogger(__name__)

WCS_TABLE = "wcs.parquet"
_FILES_PER_TASK = 64
_MOST_PARSED = 1024
_ARCSEC = 3600.0  # in a degree


@dataclass(frozen=True)
class SkyPositions:
    """The places of images on the sky.

    Attributes:
        table: the columns wcs and height (see the module), by image.
    """

    table: pd.DataFrame
    _parsed: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(cls, images: Path) -> SkyPositions:
        """Read them from an artifact of the images stage; empty where it has none."""
        if not (images / WCS_TABLE).is_file():
            return cls.none()
        return cls(pd.read_parquet(images / WCS_TABLE).set_index("image"))

    @classmethod
    def none(cls) -> SkyPositions:
        """Those of images without any."""
        return cls(pd.DataFrame({"wcs": [], "height": []}))

    def __contains__(self, image: str) -> bool:
        return image in self.table.index

    def of_pixels(self, image: str, pixels: NDArray[Any]) -> NDArray[np.float64]:
        """The places of an image's pixels.

        Args:
            image: its name, one of those that are here.
            pixels: (n, 2) x, y from the centre of the first pixel at the top left, as keypoints are stored.

        Returns:
            (n, 2) right ascension and declination in degrees, ICRS; NaN outside the projection.
        """
        pixels = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
        wcs, height = self._wcs(image)
        pixels = np.stack([pixels[:, 0], height - 1 - pixels[:, 1]], axis=1)
        if wcs.wcs.radesys == "ICRS" and wcs.wcs.lngtyp == "RA":  # a hundred times faster than by SkyCoord
            return np.asarray(wcs.all_pix2world(pixels, 0)[:, [wcs.wcs.lng, wcs.wcs.lat]])
        places = wcs.pixel_to_world(pixels[:, 0], pixels[:, 1]).icrs
        return np.stack([places.ra.deg, places.dec.deg], axis=1)

    def pixel_scale(self, image: str) -> float:
        """The side of an image's pixel at its reference point, in seconds of arc."""
        from astropy.wcs.utils import proj_plane_pixel_scales

        return float(np.sqrt(np.prod(proj_plane_pixel_scales(self._wcs(image)[0])))) * _ARCSEC

    def _wcs(self, image: str) -> tuple[Any, int]:
        from astropy.io import fits
        from astropy.wcs import WCS

        if image not in self._parsed:
            if len(self._parsed) >= _MOST_PARSED:  # a survey's would fill the memory
                self._parsed.clear()
            self._parsed[image] = WCS(fits.Header.fromstring(self.table["wcs"][image]))
        return self._parsed[image], int(self.table["height"][image])


def write_wcs(
    work: Path, table: pd.DataFrame, root: Path, bands: Sequence[str] | None, num_workers: int
) -> dict[str, int]:
    """Write the table of places of the FITS images among a table of images, if there are any.

    Files that cannot be read are passed over; reading their pixels will name them.

    Args:
        work: gets the table.
        table: of images, with the columns image and path.
        root: where relative paths start.
        bands: see :func:`minia.data.fits_images.read_bands`.
        num_workers: processes to use.

    Returns:
        Counts for the manifest: ``num_images_on_sky``; nothing without FITS images.
    """
    rows = table[table["path"].str.lower().str.endswith(FITS_SUFFIXES)]
    if not len(rows):
        return {}
    placed = _read_table(rows["image"].tolist(), [root / path for path in rows["path"]], bands, num_workers)
    placed.to_parquet(work / WCS_TABLE, index=False)
    logger.info("images: the headers of %d of %d FITS images place them on the sky", len(placed), len(rows))
    return {"num_images_on_sky": len(placed)}


def read_sky(names: Sequence[str], paths: Sequence[Path], bands: Sequence[str] | None) -> SkyPositions:
    """The places on the sky of images that are in no artifact; none of those that are no FITS images.

    Args:
        names: of the images.
        paths: their files.
        bands: see :func:`minia.data.fits_images.read_bands`.
    """
    there = [place for place, path in enumerate(paths) if path.name.lower().endswith(FITS_SUFFIXES)]
    if not there:
        return SkyPositions.none()
    table = _read_table([names[place] for place in there], [paths[place] for place in there], bands, 1)
    return SkyPositions(table.set_index("image"))


def _read_table(names: list[str], paths: list[Path], bands: Sequence[str] | None, num_workers: int) -> pd.DataFrame:
    """The columns image, wcs and height of the FITS images that their headers place on the sky."""
    tasks = [paths[first : first + _FILES_PER_TASK] for first in range(0, len(paths), _FILES_PER_TASK)]
    found: list[tuple[str, int] | None] = []
    look = functools.partial(_wcs_of_files, bands=bands)
    with progress("reading FITS headers", len(paths), "image") as advance:
        for places in map_in_order(look, tasks, num_workers if len(tasks) > num_workers else 1):
            found += places
            advance(len(places))
    there = [(image, *place) for image, place in zip(names, found, strict=True) if place is not None]
    table = pd.DataFrame(there, columns=["image", "wcs", "height"])
    return table.astype({"image": "string", "wcs": "string", "height": "int32"})


def _wcs_of_files(paths: list[Path], bands: Sequence[str] | None) -> list[tuple[str, int] | None]:
    return [_wcs_of_file(path, bands) for path in paths]


def _wcs_of_file(path: Path, bands: Sequence[str] | None) -> tuple[str, int] | None:
    try:
        with open_file(path) as stream:
            return read_wcs(stream, bands) if is_fits(stream, path.name) else None
    except (UnreadableImageError, OSError, ValueError, TypeError, LookupError) as error:
        logger.debug("images: no place on the sky for %s: %s", path, error)
        return None
    except Exception as error:  # wcslib raises its own kinds for headers that contradict themselves
        logger.warning("images: no place on the sky for %s: %s", path, " ".join(str(error).split()))
        return None
