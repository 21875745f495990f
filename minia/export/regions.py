"""The parts as regions for DS9, which Aladin reads too."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from minia.core.artifact import InputError
from minia.core.writing import appearing_whole
from minia.export.parts import Parts

_HEADER = "# Region file format: DS9 version 4.1\n"
_COLOURS = ("green", "cyan", "magenta", "yellow", "red", "blue", "white")  # those that DS9 and Aladin know by name
_ARROW = 0.5  # of the diameter: from the centre to the rim


def write_sky_regions(parts: Parts, path: Path, structures: Collection[int] | None) -> int:
    """Write the circles of all parts that have a place on the sky, ICRS, a tag a structure.

    Returns:
        How many circles were written.

    Raises:
        InputError: none of the parts has such a place; no file is left.
    """
    written = 0
    with appearing_whole(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write(_HEADER + "icrs\n")
        for table in parts.read(structures):
            placed = table[table["part_ra"].notna()]
            columns = (placed[name] for name in ("part_ra", "part_dec", "part_size", "structure", "image"))
            for ra, dec, size, structure, image in zip(*columns, strict=True):
                stream.write(f'circle({ra:.7f},{dec:.7f},{size / 2:.3f}") # {_note(structure, image)}\n')
            written += len(placed)
        if not written:
            raise InputError("none of the parts has a place on the sky: the images have no FITS header with one")
    return written


def write_image_regions(parts: Parts, folder: Path, structures: Collection[int] | None) -> int:
    """Write the circles of the parts in pixels of their images, a file an image: ``<image>.reg``.

    An arrow leads from the centre to the rim where the direction of the part is known. DS9 counts pixels from 1 at
    the bottom left, whatever the file.

    Returns:
        How many files were written.
    """
    if parts.features is None:
        raise InputError("the bags of words came without images: their parts have no places")
    heights = parts.features.images.set_index("image")["height"]
    begun: set[str] = set()
    for table in parts.read(structures):
        for image, rows in table[table["x"].notna()].groupby("image", sort=False):
            name = str(image)
            path = folder / f"{name}.reg"
            if not path.resolve().is_relative_to(folder.resolve()):
                raise InputError(f"the image {name} names a file outside {folder}")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a" if name in begun else "w", encoding="utf-8") as stream:
                if name not in begun:
                    stream.write(_HEADER + "image\n")
                    begun.add(name)
                stream.writelines(_lines_of_image(rows, int(heights[name])))
    return len(begun)


def _lines_of_image(rows: pd.DataFrame, height: int) -> Iterator[str]:
    columns = (rows[name] for name in ("x", "y", "size", "angle", "structure", "image"))
    for x, y, size, angle, structure, image in zip(*columns, strict=True):
        place = f"{x + 1:.3f},{height - y:.3f}"
        yield f"circle({place},{size / 2:.3f}) # {_note(structure, image)}\n"
        if not np.isnan(angle):  # DS9 counts angles upwards
            yield f"# vector({place},{size * _ARROW:.3f},{-angle % 360:.2f}) {_note(structure, image)}\n"


def _note(structure: int, image: str) -> str:
    text = image.translate(str.maketrans("{}\n\r", "()  "))
    colour = _COLOURS[structure % len(_COLOURS)]
    return f"color={colour} text={{structure {structure}}} tag={{structure {structure}}} tag={{{text}}}"
