"""FITS images: which of a file's arrays are the bands of the picture, their pixels, and their place on the sky.

A FITS array begins at the bottom of the picture. It is turned so that its last row is on top, as DS9 and Aladin
show it: a mirrored galaxy would wind the other way. Pixel ``x, y`` of the picture, counted from 0 at the top left,
is ``x + 1, height - y`` in the FITS standard's count.
"""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from minia.data.files import UnreadableImageError

_FITS_START = b"SIMPLE  ="
_GZIP_START = b"\x1f\x8b"


def is_fits(stream: BinaryIO, name: str) -> bool:
    """Whether an open file is a FITS file, by its first bytes; a compressed one also by its name."""
    start = stream.read(len(_FITS_START))
    stream.seek(0)
    return start == _FITS_START or (start.startswith(_GZIP_START) and name.lower().endswith((".fits.gz", ".fit.gz")))


def read_bands(stream: BinaryIO, bands: Sequence[str] | None, max_pixels: int) -> NDArray[Any]:
    """The bands of a FITS image.

    Args:
        stream: the file, opened.
        bands: one name, or three for red, green and blue: the name or number of an HDU, and after a slash the
            number of a plane from 0 where it holds several (``SCI``, ``1``, ``CUBE/4``). None takes the first HDU
            that holds an image of one plane, or of three: red, green and blue.
        max_pixels: of a plane; more are not read.

    Returns:
        (1 or 3, height, width) numbers, the top row first; pixels without a value are NaN.

    Raises:
        UnreadableImageError: the file does not hold them, or a plane has too many pixels.
        OSError, ValueError, TypeError: the file is damaged.
    """
    with _opened(stream) as hdus:
        found = [_plane(hdus, name, max_pixels) for name in bands] if bands else _first_image(hdus, max_pixels)
        if len({band.shape for band in found}) > 1:
            raise UnreadableImageError(f"its bands have the shapes {', '.join(str(band.shape) for band in found)}")
        return np.stack(found)[:, ::-1]


def read_wcs(stream: BinaryIO, bands: Sequence[str] | None) -> tuple[str, int] | None:
    """The world coordinates of a FITS image.

    Args:
        stream: the file, opened; its pixels are not read.
        bands: see :func:`read_bands`; the coordinates are those of the first.

    Returns:
        The header of its celestial coordinates as cards of 80 characters, distortions included, and the height of
        the image in pixels; None where it has none.

    Raises:
        UnreadableImageError: the file does not hold the band.
        OSError, ValueError, TypeError: the file is damaged.
    """
    from astropy.wcs import WCS

    with _opened(stream) as hdus:
        hdu = _hdu(hdus, bands[0].partition("/")[0]) if bands else next(_images(hdus), None)
        if hdu is None or hdu.header.get("NAXIS", 0) < 2:
            return None
        wcs = WCS(hdu.header)
        if not wcs.has_celestial:
            return None
        return wcs.celestial.to_header(relax=True).tostring(), int(hdu.shape[-2])


@contextmanager
def _opened(stream: BinaryIO) -> Iterator[Any]:
    from astropy.io import fits  # half a second to import, which other images do without
    from astropy.utils.exceptions import AstropyWarning

    compressed = stream.read(len(_GZIP_START)) == _GZIP_START
    stream.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)  # odd headers are common, and there may be a million
        content = cast(BinaryIO, gzip.GzipFile(fileobj=stream)) if compressed else stream
        with fits.open(content, memmap=False) as hdus:
            yield hdus


def _images(hdus: Any) -> Iterator[Any]:
    """The HDUs that hold an image, opened one after another."""
    return (hdu for hdu in hdus if hdu.is_image and len(hdu.shape) >= 2)


def _hdu(hdus: Any, name: str) -> Any:
    try:
        hdu = hdus[int(name) if name.isdecimal() else name]
    except (KeyError, IndexError):
        raise UnreadableImageError(f"it holds no HDU {name}; it has {', '.join(_names(hdus))}") from None
    if not hdu.is_image or len(hdu.shape) < 2:
        raise UnreadableImageError(f"its HDU {name} holds no image")
    return hdu


def _names(hdus: Any) -> list[str]:
    return [hdu.name or str(number) for number, hdu in enumerate(hdus)]


def _first_image(hdus: Any, max_pixels: int) -> list[NDArray[Any]]:
    hdu = next(_images(hdus), None)
    if hdu is None:
        raise UnreadableImageError("it holds no image")
    planes = int(np.prod(hdu.shape[:-2]))
    if planes not in (1, 3):
        raise UnreadableImageError(f"it holds {planes} planes; images.bands says which one or three to take")
    return [_read(hdu, plane, max_pixels) for plane in range(planes)]


def _plane(hdus: Any, name: str, max_pixels: int) -> NDArray[Any]:
    place, _, plane = name.partition("/")
    hdu = _hdu(hdus, place)
    planes = int(np.prod(hdu.shape[:-2]))
    if not plane and planes > 1:
        raise UnreadableImageError(f"its HDU {place} holds {planes} planes; {place}/0 is the first")
    if plane and not (plane.isdecimal() and int(plane) < planes):
        raise UnreadableImageError(f"its HDU {place} holds no plane {plane}; it has {planes}, from 0")
    return _read(hdu, int(plane or 0), max_pixels)


def _read(hdu: Any, plane: int, max_pixels: int) -> NDArray[Any]:
    """One plane of an HDU, (height, width)."""
    height, width = hdu.shape[-2:]
    if height * width > max_pixels:
        raise UnreadableImageError(too_many_pixels(width, height, max_pixels))
    if not height * width:
        raise UnreadableImageError("it has no pixels")
    # Axes of length 1 are common in radio images, and of a cube only this plane is read.
    place = np.unravel_index(plane, hdu.shape[:-2]) if len(hdu.shape) > 2 else ()
    return np.asarray(hdu.section[(*(int(index) for index in place), slice(None), slice(None))])


def too_many_pixels(width: int, height: int, max_pixels: int) -> str:
    """Why an image is not read."""
    return f"{width} x {height} pixels are more than images.max_pixels={max_pixels}"
