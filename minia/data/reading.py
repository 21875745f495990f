"""Reading an image file as RGB of 8 bits, whatever it holds."""

from __future__ import annotations

import errno
import logging
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from minia.core.artifact import InputError
from minia.core.foreign import read_json
from minia.data.files import UnreadableImageError, open_file
from minia.data.fits_images import is_fits, read_bands, too_many_pixels
from minia.data.stretch import Stretch, to_grey_levels

logger = logging.getLogger(__name__)

MAX_PIXELS = 100_000_000
_OF_THE_FILE = (  # error numbers; None: raised by a decoder; EINVAL: it looked for pixels before the file's start
    None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EINVAL
)  # fmt: skip
_FULL_RANGE = 1 << 14  # a quarter of 16 bits: images that use more are shown as they are
_LARGEST_SIDE = 8192  # of enlarged images, pixels
_PNG_START, _PNG_DEPTH = b"\x89PNG\r\n\x1a\n", 24  # the first bytes, and where the bits a channel are
_TIFF_BITS = 258  # tag


@dataclass(frozen=True)
class Reading:
    """How image files are read.

    Attributes:
        stretch: of FITS images and of others of more than 8 bits (see :mod:`minia.data.stretch`).
        bands: of FITS images (see :func:`minia.data.fits_images.read_bands`); None chooses by itself.
        max_pixels: images of more pixels are not read, at least 1.
    """

    stretch: Stretch = "asinh"
    bands: tuple[str, ...] | None = None
    max_pixels: int = MAX_PIXELS

    @classmethod
    def load(cls, artifact: Path) -> Reading:
        """How the images of an artifact of the stage images or features are read; by default where it says nothing."""
        try:
            values = read_json(artifact / "source.json").get("reading")
            if values is None:
                return cls()
            bands = values["bands"]
            return cls(values["stretch"], None if bands is None else tuple(bands), int(values["max_pixels"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{artifact / 'source.json'}: does not tell how images are read") from None

    def to_json(self) -> dict[str, Any]:
        """As JSON values, for ``reading`` in an artifact's ``source.json``."""
        return asdict(self)


DEFAULT_READING = Reading()
_reading = threading.local()
_before = warnings.showwarning


def read_image(path: Path, reading: Reading = DEFAULT_READING) -> NDArray[np.uint8]:
    """Read an image file as RGB.

    Orientation tags are applied and FITS images turned as DS9 shows them. Images of more than 8 bits are stretched;
    those of 16 bits that use the range (the middle 99 % of their pixels span a quarter of it) are divided by 257.

    Args:
        path: the file.
        reading: how.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        UnreadableImageError: the file is missing, no file, empty, truncated, not an image, has too many pixels, or
            may not be read.
        OSError: the file may be whole, but the machine cannot read it now.
    """
    try:
        with open_file(path) as stream, _warnings_named(path):
            if is_fits(stream, path.name):
                levels = to_grey_levels(read_bands(stream, reading.bands, reading.max_pixels), reading.stretch)
                return np.repeat(levels, 3, axis=2) if levels.shape[2] == 1 else levels
            return _read_picture(stream, reading)
    except UnidentifiedImageError:
        empty = path.stat().st_size == 0
        raise UnreadableImageError("empty file" if empty else "no image of a known format") from None
    except UnreadableImageError:
        raise
    except Exception as error:  # decoders raise many kinds for damaged files
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in _OF_THE_FILE):
            raise  # the machine's trouble, not the file's: it must not be recorded as a broken image
        reason = str(error) or type(error).__name__
        raise UnreadableImageError(" ".join(reason.replace(str(path), "file").split())) from None


def fit_sides(image: NDArray[np.uint8], min_side: int, max_side: int) -> NDArray[np.uint8]:
    """Resize an image so that its shorter side is at least min_side and its longer at most max_side.

    The aspect is kept; an image that fits is returned as it is; where both cannot hold, max_side does.
    No image is enlarged beyond 8,192 pixels: a strip of one pixel would not fit into memory.

    Args:
        image: (height, width, 3) uint8.
        min_side: in pixels, 0 for no lower limit.
        max_side: in pixels, 0 for no upper limit.
    """
    height, width = image.shape[:2]
    factor = max(1.0, min_side / min(height, width))
    if max_side and factor * max(height, width) > max_side:
        factor = max_side / max(height, width)
    if factor > 1.0 and factor * max(height, width) > _LARGEST_SIDE:
        factor = max(1.0, _LARGEST_SIDE / max(height, width))
    if factor == 1.0:
        return image
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    method = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, size, interpolation=method), dtype=np.uint8)


@contextmanager
def _warnings_named(path: Path) -> Iterator[None]:
    """Let what a decoder warns of go to the log with the name of the file that this thread is reading."""
    warnings.showwarning = _tell_warning
    _reading.path = path
    try:
        yield
    finally:
        _reading.path = None


def _tell_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *others: Any, **named: Any
) -> None:
    if (path := getattr(_reading, "path", None)) is not None:
        logger.warning("%s: %s", path, message)
    else:
        _before(message, category, filename, lineno, *others, **named)


def check_pixels(stream: BinaryIO, max_pixels: int) -> None:
    """Check from an image's header, before it is decoded, that it does not have too many pixels.

    Raises:
        UnreadableImageError: it has.
        OSError, ValueError: it is no image.
    """
    with Image.open(stream) as opened:
        _check_size(opened, max_pixels)
    stream.seek(0)


def _check_size(opened: Image.Image, max_pixels: int) -> None:
    if opened.width * opened.height > max_pixels:
        raise UnreadableImageError(too_many_pixels(opened.width, opened.height, max_pixels))


def _read_picture(stream: BinaryIO, reading: Reading) -> NDArray[np.uint8]:
    """What Pillow can open, as (height, width, 3) uint8."""
    own_limit = Image.MAX_IMAGE_PIXELS
    if own_limit is not None and reading.max_pixels > own_limit:
        Image.MAX_IMAGE_PIXELS = reading.max_pixels  # Pillow's own guard would overrule who asked for more
    with Image.open(stream) as opened:
        _check_size(opened, reading.max_pixels)
        if _is_deep_colour(opened, stream):
            stream.seek(0)
            return _deep_colour(stream.read(), reading.stretch)
        image = _upright(opened)
        if image.mode.startswith(("I", "F")):
            return np.repeat(_deep_to_bytes(np.asarray(image)[None], reading.stretch), 3, axis=2)
        return np.asarray(image.convert("RGB"))


def _is_deep_colour(opened: Image.Image, stream: BinaryIO) -> bool:
    """Whether a PNG or TIFF has more than one channel of more than 8 bits, which Pillow cuts to 8."""
    if opened.mode.startswith(("I", "F")):
        return False
    if opened.format == "PNG":
        position = stream.tell()
        stream.seek(0)
        start = stream.read(_PNG_DEPTH + 1)
        stream.seek(position)
        return start.startswith(_PNG_START) and start[_PNG_DEPTH] > 8
    return opened.format == "TIFF" and max(opened.tag_v2.get(_TIFF_BITS, (8,))) > 8  # type: ignore[attr-defined]


def _deep_colour(content: bytes, stretch: Stretch) -> NDArray[np.uint8]:
    # These flags keep the depth, drop transparency and turn the image upright. (OpenCV 5.0 spoils TIFF where it is
    # asked for RGB.)
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR_BGR)
    if decoded is None:
        raise ValueError("damaged, or of a kind that is not known")
    return _deep_to_bytes(decoded[:, :, ::-1].transpose(2, 0, 1), stretch)


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its orientation tag says; damaged tags are no reason to lose an image."""
    try:
        return ImageOps.exif_transpose(image)
    except (TypeError, ValueError, struct.error, SyntaxError):
        return image


def _deep_to_bytes(bands: NDArray[Any], stretch: Stretch) -> NDArray[np.uint8]:
    """Bands of more than 8 bits, (num_bands, height, width), as (height, width, num_bands) uint8."""
    if bands.dtype.kind == "u" and bands.dtype.itemsize == 2:  # of either byte order
        low, high = np.percentile(bands, [0.5, 99.5])
        if high - low >= _FULL_RANGE:
            return np.asarray(np.rint(bands.transpose(1, 2, 0) / 257), dtype=np.uint8)
    return to_grey_levels(bands, stretch)
