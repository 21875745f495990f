"""The parts as tables for TOPCAT, Aladin and astropy: CSV, VOTable, FITS and Parquet."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from minia.core.writing import appearing_whole
from minia.export.parts import Parts

_ABOUT = {  # unit, UCD and description of the columns; the catalogue's own have none
    "structure": (None, "meta.id", "the structure: its line in structures.txt, from 0"),
    "image": (None, "meta.id;meta.main", "name of the image"),
    "overlap": (None, None, "share of the structure that the image holds, 0 to 1"),
    "num_keypoints": (None, "meta.number", "keypoints of the image whose word is in the structure"),
    "x": ("pix", "pos.cartesian.x", "centre of the part, from the centre of the pixel at the top left"),
    "y": ("pix", "pos.cartesian.y", "centre of the part, downwards from the centre of the pixel at the top left"),
    "size": ("pix", "phys.angSize", "diameter of the part"),
    "angle": ("deg", None, "direction of the part in the image, from x towards y (down)"),
    "part_ra": ("deg", "pos.eq.ra;meta.main", "right ascension of the part's centre, ICRS"),
    "part_dec": ("deg", "pos.eq.dec;meta.main", "declination of the part's centre, ICRS"),
    "part_size": ("arcsec", "phys.angSize", "diameter of the part on the sky"),
    "label": (None, "meta.code.class", "label of the image"),
    "s_region": (None, "pos.outline;obs.field", "the part's circle on the sky, STC-S"),
}


def write_csv(parts: Parts, path: Path, structures: Collection[int] | None) -> None:
    """Write the parts as CSV, piece by piece."""
    with appearing_whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        header = True
        for table in parts.read(structures):
            table.to_csv(stream, index=False, header=header)
            header = False
        if header:
            _whole(parts, structures).to_csv(stream, index=False)


def write_parquet(parts: Parts, path: Path, structures: Collection[int] | None) -> None:
    """Write the parts as Parquet, piece by piece."""
    schema = pa.Schema.from_pandas(parts.empty(), preserve_index=False)
    with appearing_whole(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for table in parts.read(structures):
            writer.write_table(pa.Table.from_pandas(table, schema=schema, preserve_index=False))


def write_votable(parts: Parts, path: Path, structures: Collection[int] | None) -> None:
    """Write the parts as a VOTable with units and UCDs; ``s_region`` draws them in Aladin and TOPCAT.

    It is held in memory: some 1 kB a part.
    """
    with appearing_whole(path) as temporary:
        _astropy_table(parts, structures).write(temporary, format="votable", tabledata_format="binary2")


def write_fits(parts: Parts, path: Path, structures: Collection[int] | None) -> None:
    r"""Write the parts as a FITS table with units; like a VOTable it is held in memory.

    FITS knows the printable letters of ASCII alone: others are written as Python escapes them, ``\xe9`` for é.
    """
    with appearing_whole(path) as temporary:
        _astropy_table(parts, structures, in_ascii=True).write(temporary, format="fits")


def _in_ascii(text: str) -> str:
    return "".join(each if " " <= each <= "~" else each.encode("unicode_escape").decode("ascii") for each in text)


def _whole(parts: Parts, structures: Collection[int] | None) -> pd.DataFrame:
    tables = list(parts.read(structures))
    return pd.concat(tables, ignore_index=True) if tables else parts.empty()


def _astropy_table(parts: Parts, structures: Collection[int] | None, *, in_ascii: bool = False) -> Any:
    """The parts as an astropy table with units, UCDs and descriptions."""
    from astropy.table import Table

    frame = _whole(parts, structures)
    if frame["part_ra"].notna().any():
        frame["s_region"] = [
            "" if np.isnan(ra) else f"CIRCLE ICRS {ra:.7f} {dec:.7f} {size / 7200:.7f}"
            for ra, dec, size in zip(frame["part_ra"], frame["part_dec"], frame["part_size"], strict=True)
        ]
    frame.columns = pd.Index(_names(list(frame.columns)))
    frame = _plain(frame)
    if in_ascii:
        frame = frame.apply(lambda column: column.map(_in_ascii) if column.dtype == object else column)
    table = Table.from_pandas(frame)
    for name in table.colnames:
        unit, ucd, description = _ABOUT.get(name, (None, None, None))
        table[name].unit, table[name].description = unit, description
        if ucd:
            table[name].meta["ucd"] = ucd
    table.meta["comments"] = ["Parts found by minIA: a row a structure and image"]
    return table


def _names(columns: list[str]) -> list[str]:
    """Names of columns that every format takes: letters, digits and underscores, no two alike in lower case."""
    names: list[str] = []
    for column in columns:
        name = re.sub(r"\W+", "_", column, flags=re.ASCII).strip("_") or "column"
        while name.lower() in {each.lower() for each in names}:
            name += "_"
        names.append(name)
    return names


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of numbers, truth values and texts alone: what else a catalogue holds becomes text."""
    plain = {}
    for name in frame.columns:
        column = frame[name]
        if column.dtype.kind in "iufb" or str(column.dtype) in ("Int64", "Int32", "boolean", "Float64"):
            plain[name] = column
        else:
            plain[name] = column.astype("string").fillna("").astype(object)
    return pd.DataFrame(plain)
