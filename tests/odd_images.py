"""A folder of odd and hostile images from a seed: cut, damaged, misnamed, enormous, linked in circles."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from astropy.io import fits
from PIL import Image, PngImagePlugin

FORMATS = {".jpg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".bmp": "BMP", ".webp": "WEBP"}
NAMES = (
    "a\nb", "a\x1b[31mb", "\U0001f600", "it's", 'say "so"', "$(touch evil)", "-rf", "%s%n", "a,b;c",
    "<script>alert(1)<", "..a", "a ", "\u202egnp", "a\\b", "x" * 240, "\u0301", "a\tb", "~", "&amp;", "nul",
)  # fmt: skip
Maker = Callable[[Random, Path], None]


def picture(random: Random, mode: str = "RGB", side: int = 0) -> Image.Image:
    """Some blobs and noise."""
    numbers = np.random.default_rng(random.randrange(2**32))
    side = side or random.randrange(24, 72)
    image = numbers.integers(0, 60, (side, side, 3), dtype=np.uint8)
    for _ in range(6):
        y, x = numbers.integers(0, side - 8, 2)
        image[y : y + 7, x : x + 7] = numbers.integers(100, 255, 3)
    return Image.fromarray(image).convert(mode)


def encoded(image: Image.Image, suffix: str, **further: object) -> bytes:
    """The bytes of a file."""
    stream = io.BytesIO()
    image.save(stream, FORMATS[suffix], **further)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, raw: bytes) -> bytes:
    """A PNG that claims a size, whatever data it holds."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")


def _good(random: Random, stem: Path) -> None:
    suffix = random.choice([*FORMATS])
    stem.with_suffix(suffix).write_bytes(encoded(picture(random), suffix))


def _truncated(random: Random, stem: Path) -> None:
    suffix = random.choice([*FORMATS])
    data = encoded(picture(random), suffix)
    stem.with_suffix(suffix).write_bytes(data[: random.randrange(len(data))])


def _damaged(random: Random, stem: Path) -> None:
    suffix = random.choice([*FORMATS])
    data = bytearray(encoded(picture(random), suffix))
    for _ in range(random.choice([1, 3, 30])):
        data[random.randrange(len(data))] = random.randrange(256)
    stem.with_suffix(suffix).write_bytes(data)


def _misnamed(random: Random, stem: Path) -> None:
    contents = [encoded(picture(random), random.choice([*FORMATS])), b"<html>", b"%PDF-1.7", random.randbytes(500)]
    stem.with_suffix(random.choice([*FORMATS, ".fits", ".fz", ".fits.gz"])).write_bytes(random.choice(contents))


def _mode(random: Random, stem: Path) -> None:
    mode, suffix = random.choice(
        [("CMYK", ".jpg"), ("L", ".jpg"), ("LA", ".png"), ("P", ".png"), ("1", ".png"), ("RGBA", ".png"), ("I", ".tif"),
         ("F", ".tif"), ("CMYK", ".tif"), ("YCbCr", ".tif"), ("I;16", ".png"), ("RGBA", ".webp"), ("LAB", ".tif")]
    )  # fmt: skip
    image = picture(random, "L" if mode == "I;16" else "RGB" if mode == "LAB" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 200)
    if mode == "LAB":
        image = Image.frombytes("LAB", image.size, image.tobytes())
    stem.with_suffix(suffix).write_bytes(encoded(image, suffix))


def _animated(random: Random, stem: Path) -> None:
    suffix = random.choice([".png", ".webp", ".tif"])
    side = random.randrange(24, 72)
    more = [picture(random, side=side) for _ in range(3)]
    stem.with_suffix(suffix).write_bytes(encoded(more[0], suffix, save_all=True, append_images=more[1:]))


def _turned(random: Random, stem: Path) -> None:
    exif = Image.Exif()
    exif[274] = random.choice([2, 3, 5, 6, 8, 0, 99, 65535])
    stem.with_suffix(".jpg").write_bytes(encoded(picture(random), ".jpg", exif=exif))


def _empty(random: Random, stem: Path) -> None:
    stem.with_suffix(random.choice([*FORMATS, ".fits"])).touch()


def _bomb(random: Random, stem: Path) -> None:
    kind = random.randrange(6)
    if kind == 0:  # claims 20,000 x 20,000
        stem.with_suffix(".png").write_bytes(png(20_000, 20_000, 8, 2, bytes(1000)))
    elif kind == 1:  # holds them
        stem.with_suffix(".png").write_bytes(png(12_000, 12_000, 1, 0, bytes(12_000 * 1501)))
    elif kind == 2:  # text that unpacks to 100 MB
        info = PngImagePlugin.PngInfo()
        info.add_text("comment", "x" * 100_000_000, zip=True)
        stem.with_suffix(".png").write_bytes(encoded(picture(random), ".png", pnginfo=info))
    elif kind == 3:  # a header of a FITS image that nobody could hold
        header = fits.Header([("SIMPLE", True), ("BITPIX", -64), ("NAXIS", 2), ("NAXIS1", 10**6), ("NAXIS2", 10**6)])
        stem.with_suffix(".fits").write_bytes(header.tostring().encode("ascii") + bytes(2880))
    elif kind == 4:  # zeros without end, packed
        header = fits.Header([("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 2), ("NAXIS1", 20_000), ("NAXIS2", 20_000)])
        data = header.tostring().encode("ascii") + bytes(400_003_200)
        stem.with_suffix(".fits.gz").write_bytes(gzip.compress(data, 1))
    else:
        stem.with_suffix(".bmp").write_bytes(
            b"BM" + struct.pack("<IHHIIiiHHIIiiII", 200, 0, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0)
        )


def _fits(random: Random, stem: Path) -> None:
    data = np.asarray(picture(random, "L")).astype(random.choice(["f4", "i2", "u1"]))
    if random.random() < 0.3:
        data = data.astype(np.float32)
        data[::2] = random.choice([np.nan, np.inf, -np.inf])
    stream = io.BytesIO()
    fits.PrimaryHDU(data).writeto(stream)
    content = bytearray(stream.getvalue())
    for _ in range(random.choice([0, 1, 5])):
        content[random.randrange(2880)] = random.randrange(32, 127)
    stem.with_suffix(".fits").write_bytes(content[: random.choice([None, 100, 2880, 3000])])


def _linked(random: Random, stem: Path) -> None:
    link = stem.with_suffix(".png")
    kind = random.randrange(5)
    if kind == 0:
        link.symlink_to(link.name)  # to itself
    elif kind == 1:
        link.symlink_to("nowhere.png")
    elif kind == 2:
        stem.symlink_to(stem.parent, target_is_directory=True)  # folders in a circle
    elif kind == 3:
        os.mkfifo(link)
    else:
        link.mkdir()


def _named(random: Random, stem: Path) -> None:
    name = f"{random.choice(NAMES)}{stem.name}.png"
    stem.with_name(name).write_bytes(encoded(picture(random), ".png"))


def _undecodable(random: Random, stem: Path) -> None:
    with open(os.fsencode(stem) + b"\xff\xfe.png", "wb") as stream:  # noqa: PTH123, a Path takes no bytes
        stream.write(encoded(picture(random), ".png"))


MAKERS: tuple[tuple[int, Maker], ...] = (
    (6, _good), (6, _truncated), (8, _damaged), (4, _misnamed), (6, _mode), (3, _animated), (3, _turned), (2, _empty),
    (2, _bomb), (4, _fits), (3, _linked), (5, _named), (1, _undecodable),
)  # fmt: skip


def write_odd_images(folder: Path, count: int, seed: int) -> None:
    """Write so many files, and each kind at least once where there are enough."""
    random = Random(seed)
    weights = [weight for weight, _ in MAKERS]
    for number in range(count):
        parent = folder / f"sub{number % 3}"
        parent.mkdir(parents=True, exist_ok=True)
        make = MAKERS[number][1] if number < len(MAKERS) else random.choices(MAKERS, weights)[0][1]
        make(random, parent / f"{number:05d}")
