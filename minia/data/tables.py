"""Reading tables in the formats of the field: CSV, Parquet, FITS, VOTable and ECSV."""

from __future__ import annotations

import gzip
import logging
import re
import warnings
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pandas as pd

from minia.core.artifact import InputError

logger = logging.getLogger(__name__)

_ASTROPY_FORMATS = {  # by the end of a file's name, after .gz is taken away
    ".fits": "fits", ".fit": "fits", ".vot": "votable", ".votable": "votable", ".xml": "votable", ".ecsv": "ascii.ecsv",
}  # fmt: skip
TABLE_FORMATS = "CSV, .parquet, FITS (.fits, .fit), VOTable (.vot, .votable, .xml) or ECSV (.ecsv)"
_BLOCK = 1 << 20
_REMOTE_STREAM = re.compile(rb"<STREAM\b[^>]*\bhref\b", re.IGNORECASE)
_LONGEST_TAG = 4096
_WHOLE_NUMBER = r"-?(?:0|[1-9]\d{0,17})"


def read_table(path: Path, key: str) -> pd.DataFrame:
    """Read a table: CSV, Parquet, FITS (the first table in it), VOTable (likewise) or ECSV, each ``.gz`` too.

    Args:
        path: the file; its name says what it is, and what it does not name is CSV.
        key: the configuration key that named it, for the message.

    Returns:
        The table. Cells of CSV, between the commas, or else semicolons or tabs, that its first line has, are texts: ids
        like 0012 and labels like NA stay what they are; an empty cell is missing. Columns of FITS, VOTable and ECSV
        that hold arrays are left out, and named in the log.

    Raises:
        InputError: the file is missing, not such a table, or fetches its rows from elsewhere.
    """
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        if table_format := _ASTROPY_FORMATS.get(Path(path.name.lower().removesuffix(".gz")).suffix):
            return _read_astropy(path, table_format)
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            mark = _separator(path)
            return pd.read_csv(path, sep=mark, dtype="str", keep_default_na=False, na_values=[""], index_col=False)
    except FileNotFoundError:
        raise InputError(f"{key}={path}: there is no such file") from None
    except pd.errors.ParserWarning:
        raise InputError(f"{key}={path}: not a readable table: a row has more cells than there are columns") from None
    except Exception as error:  # pandas, pyarrow and astropy raise many kinds for a malformed file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{key}={path}: not a readable table: {reason}") from error


def _separator(path: Path) -> str:
    """What separates the cells of a CSV file: spreadsheets write semicolons where the comma is in numbers, or tabs."""
    if not path.is_file():  # a pipe is read once
        return ","
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        header = stream.readline(_BLOCK)
    return next((mark for mark in ",;\t" if mark.encode() in header), ",")


def require_columns(table: pd.DataFrame, columns: list[str], given: str) -> None:
    """Check that a table has columns.

    Raises:
        InputError: names every missing column and those that are there.
    """
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(f"{given}: no column {', '.join(missing)}; it has {', '.join(map(str, table.columns))}")


def typed(column: pd.Series[Any]) -> pd.Series[Any]:
    """A column of texts as numbers, where every text is the usual way to write a number; else as it is.

    A number with a leading zero or of more than 18 digits is a name, and stays one.
    """
    texts = column.dropna()
    if not len(texts) or not all(isinstance(text, str) for text in texts.head(100)):
        return column
    if texts.str.fullmatch(_WHOLE_NUMBER).all():
        return column.astype("Int64")
    if texts.str.fullmatch(r"[+-]?(?:0\d+|\d{19,})").any():
        return column
    try:
        return column.astype("float64")  # which knows nan and inf too
    except (ValueError, TypeError):
        return column


def _read_astropy(path: Path, table_format: str) -> pd.DataFrame:
    from astropy.table import Table  # half a second to import, which other tables do without

    if table_format == "votable":
        _refuse_remote_rows(path)
    table = Table.read(path, format=table_format)
    arrays = [name for name in table.colnames if len(getattr(table[name], "shape", ())) > 1]
    if arrays:
        logger.info("%s: leaving out the columns that hold arrays: %s", path, ", ".join(arrays))
        table.remove_columns(arrays)
    table.convert_bytestring_to_unicode()
    frame: pd.DataFrame = table.to_pandas()
    for name in frame.columns:  # a text without characters is missing, as in CSV
        if frame[name].dtype == object or isinstance(frame[name].dtype, pd.StringDtype):
            frame[name] = frame[name].replace("", np.nan)
    return frame


def _refuse_remote_rows(path: Path) -> None:
    """A VOTable may name an address, or another file, that its rows are fetched from: reading must not do that."""
    with path.open("rb") as stream:
        compressed = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        content = cast(BinaryIO, gzip.GzipFile(fileobj=stream)) if compressed else stream
        before = b""
        while block := content.read(_BLOCK):
            if _REMOTE_STREAM.search(before + block):
                raise ValueError("its rows are elsewhere (a STREAM with href); save it with its rows inside")
            before = block[-_LONGEST_TAG:]
