"""HATS catalogues, which LSDB reads and writes: folders of Parquet files, one or more for each partition of the sky."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from minia.core.artifact import InputError, fingerprint
from minia.core.checksums import fingerprint_file

PARTITION = "partition"  # column of an image's partition
_PARTITION = re.compile(r"Norder=(\d{1,2})/Dir=\d+/Npix=(\d{1,19})(?:\.parquet|/[^/]+\.parquet)")
_DEEPEST = 29  # order of HEALPix, at which a pixel has a number of 62 bits


def fingerprint_hats(folder: Path) -> str:
    """Hash of the content of a HATS catalogue's partitions, 64 hex digits."""
    return fingerprint([[file.relative_to(folder).as_posix(), fingerprint_file(file)] for file, _ in _files(folder)])


def read_hats(folder: Path, given: str) -> pd.DataFrame:
    """Read a HATS catalogue.

    Args:
        folder: of the catalogue, with ``dataset/Norder=*/Dir=*/Npix=*.parquet`` (or folders of such files).
        given: the catalogue's key and value, for messages.

    Returns:
        All rows, with the column ``partition``: the number of the row's partition, from 0 along the sky. Columns
        that hold bytes are left out.

    Raises:
        InputError: there is no such catalogue, or a file of it cannot be read.
    """
    files = _files(folder)
    if not files:
        raise InputError(f"{given}: a folder without dataset/Norder=*/Dir=*/Npix=*.parquet; allowed: a HATS catalogue")
    tables: list[pd.DataFrame] = []
    partitions = {place: number for number, place in enumerate(dict.fromkeys(place for _, place in files))}
    for file, place in files:
        try:
            with pq.ParquetFile(file) as parquet:
                names = [field.name for field in parquet.schema_arrow if not str(field.type).endswith("binary")]
                table = parquet.read(columns=names).to_pandas()
        except (OSError, ValueError) as error:
            why = " ".join(str(error).split())
            raise InputError(f"{given}: {file.relative_to(folder)} cannot be read: {why}") from None
        tables.append(table.assign(**{PARTITION: partitions[place]}))
    return pd.concat(tables, ignore_index=True)


def _files(folder: Path) -> list[tuple[Path, tuple[int, int]]]:
    """The Parquet files, along the sky, each with the order and the number of its partition in HEALPix."""
    found = []
    for file in folder.glob("dataset/Norder=*/Dir=*/**/*.parquet"):
        if named := _PARTITION.fullmatch(file.relative_to(folder / "dataset").as_posix()):
            found.append((file, (int(named[1]), int(named[2]))))
    return sorted(found, key=lambda each: (each[1][1] << 2 * max(0, _DEEPEST - each[1][0]), each[1], each[0].name))
