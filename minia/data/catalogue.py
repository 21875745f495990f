"""Catalogues: which row is which image, where its file or its bytes are, and what else the catalogue says of it."""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from minia.core.artifact import InputError
from minia.data.hats import PARTITION, read_hats
from minia.data.tables import read_table, require_columns, typed

CATALOGUE = "catalogue.parquet"
_LABEL_COLUMN = "label"
_OUTSIDE = r"^[/\\]|^[A-Za-z]:|(?:^|[/\\])\.\.(?:[/\\]|$)|\x00"  # an absolute path, one that climbs, no path at all
_ROWS_AT_A_TIME = 256
_FILES_PER_FOLDER = 1000


@dataclass(frozen=True)
class Columns:
    """Which columns of a catalogue mean what.

    Attributes:
        image: the image's name, unique.
        path: its file, or in a Parquet file its bytes (a binary column, or a struct with the field ``bytes``).
        path_template: its file as a text with names of columns in braces, ``{asset_id}.jpg``, instead of ``path``;
            it stays inside the folder of the images.
        label: its label; None takes the column ``label`` if there is one.
    """

    image: str
    path: str
    path_template: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Catalogue:
    """A catalogue, read.

    Attributes:
        images: one row an image, sorted by image: the columns image, path and label. Of images whose bytes are in
            the catalogue, ``path`` is where :func:`write_embedded` writes them. Those of a HATS catalogue are sorted
            by the further column partition, and by image within.
        others: one row an image, in the same order: image and every other column of the catalogue under its own
            name, numbers as numbers; ``image`` of the catalogue's own is renamed ``catalogue_image``.
        columns: what was read as what, for the parameters of the stage.
        embedded: the bytes of the images are in the catalogue.
    """

    images: pd.DataFrame
    others: pd.DataFrame
    columns: dict[str, str]
    embedded: bool


def read_catalogue(path: Path, columns: Columns) -> Catalogue:
    """Read a catalogue: a table, or the folder of a HATS catalogue.

    Raises:
        InputError: the table is missing or unreadable, has no rows, lacks a column, repeats an id, or a path that the
            template gives leads outside.
    """
    given = f"images.path={path}"
    embedded = columns.path_template is None and _is_embedded(path, columns.path)
    if path.is_dir():
        table = read_hats(path, given)
    else:
        table = _without_bytes(path) if path.suffix == ".parquet" else read_table(path, "images.path")
    partition = table.pop(PARTITION) if path.is_dir() else None
    label = columns.label or (_LABEL_COLUMN if _LABEL_COLUMN in table.columns else None)
    used = {"image": columns.image} | ({"label": label} if label else {})
    if columns.path_template is None and not embedded:
        used["path"] = columns.path
    require_columns(table, list(used.values()), given)
    if table.empty:
        raise InputError(f"{given}: has no rows")
    if columns.path_template is not None:
        path_of, used["path"] = fill_template(columns.path_template, table, given), columns.path_template
    elif embedded:
        path_of, used["path"] = pd.Series(_places(len(table)), table.index), columns.path
    else:
        path_of = table[columns.path]
    images = pd.DataFrame({"image": table[columns.image], "path": path_of})
    if images.isna().any(axis=None):
        row = int(images.isna().any(axis=1).to_numpy().argmax())
        raise InputError(f"{given}: row {row + 1} has no {columns.image} or no {used['path']}")
    images = images.astype({"image": str, "path": str})
    repeated = images["image"][images["image"].duplicated()]
    if len(repeated):
        raise InputError(f"{given}: column {columns.image} repeats {repeated.iat[0]}; ids must be unique")
    images["label"] = table[label] if label else None
    others = other_columns(table, columns.image, images["image"])
    order = images["image"].sort_values(kind="stable").index
    if partition is not None:
        images[PARTITION] = partition
        order = images.loc[order].sort_values(PARTITION, kind="stable").index
    return Catalogue(images.loc[order].reset_index(drop=True), others.loc[order].reset_index(drop=True), used, embedded)


def fill_template(template: str, table: pd.DataFrame, given: str) -> pd.Series[Any]:
    """The path of each row's image.

    Args:
        template: text with names of columns in braces; ``{{`` and ``}}`` are braces.
        table: the catalogue.
        given: the catalogue's key and value, for messages.

    Returns:
        Texts, missing where a column is.

    Raises:
        InputError: something else than a name of a column is in braces, or a path leads outside the folder.
    """
    key = f"images.path_template={template}"
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise InputError(f"{key}: {error}; expected names of columns in braces, for example {{asset_id}}.jpg") from None
    names = [name for _, name, _, _ in parts if name is not None]
    if not names or any(form or conversion for _, _, form, conversion in parts):
        raise InputError(f"{key}: expected names of columns in braces and nothing else there, as in {{asset_id}}.jpg")
    require_columns(table, names, given)
    paths = pd.Series("", index=table.index, dtype=object)
    for text, name, _, _ in parts:
        paths = paths + text
        if name is not None:
            column = table[name]
            paths = (paths + column.astype(str)).where(column.notna())
    outside = paths.str.contains(_OUTSIDE, regex=True, na=False)
    if outside.any():
        row = int(outside.to_numpy().argmax())
        raise InputError(f"{key}: row {row + 1} gives {paths.iat[row]!r}, which is not a path inside images.dir")
    return paths


def write_embedded(path: Path, column: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Write the images of a catalogue that holds their bytes to files, a few at a time.

    Args:
        path: the Parquet file.
        column: of the bytes (see :class:`Columns`).
        folder: gets ``images/00000/00000000`` and so on, as :func:`read_catalogue` names them.

    Yields:
        (path relative to the folder, reason) of each row without bytes.
    """
    with pq.ParquetFile(path) as file:
        first = 0
        for batch in file.iter_batches(_ROWS_AT_A_TIME, columns=[column]):
            contents = batch.column(0)
            contents = pc.struct_field(contents, "bytes") if pa.types.is_struct(contents.type) else contents
            for row, content in enumerate(contents, start=first):
                place = _place(row)
                data = content.as_py()
                if not data:
                    yield place, "empty file" if data is not None else "no bytes"
                    continue
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                (folder / place).write_bytes(data)  # its first bytes say what it is
            first += len(contents)


def other_columns(table: pd.DataFrame, name_column: str, images: pd.Series[Any]) -> pd.DataFrame:
    """What a table says of images beside their names.

    Args:
        table: one row an image.
        name_column: the column with the image's name.
        images: names; of one that the table lacks everything is missing.

    Returns:
        A row for each of the names, in their order: image and the table's columns under their own names, texts that
        are numbers as numbers; ``image`` of the table's own is renamed ``catalogue_image`` unless it is the name.
    """
    others = pd.DataFrame({str(name): typed(table[name]) for name in table.columns})
    others = others.set_index(pd.Index(table[name_column].astype(str)))
    others = (
        others.drop(columns="image") if name_column == "image" else others.rename(columns={"image": "catalogue_image"})
    )
    others = others.reindex(images).reset_index(drop=True)
    others.insert(0, "image", images.reset_index(drop=True))
    return others


def _is_embedded(path: Path, column: str) -> bool:
    if path.suffix != ".parquet" or path.is_dir():
        return False
    schema = _schema(path)
    return column in schema.names and _holds_bytes(schema.field(column).type)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return "bytes" in {kind.field(number).name for number in range(kind.num_fields)}
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except FileNotFoundError:
        raise InputError(f"images.path={path}: there is no such file") from None
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise InputError(f"images.path={path}: not a readable table: {' '.join(str(error).split())}") from None


def _without_bytes(path: Path) -> pd.DataFrame:
    """A Parquet table without its columns of bytes, which may be larger than memory."""
    names = [field.name for field in _schema(path) if not _holds_bytes(field.type)]
    try:
        table: pd.DataFrame = pq.read_table(path, columns=names).to_pandas()
    except MemoryError:
        raise
    except Exception as error:  # pyarrow and pandas raise many kinds for what a damaged table says of its columns
        raise InputError(f"images.path={path}: not a readable table: {' '.join(str(error).split())}") from None
    return table


def _places(num_rows: int) -> list[str]:
    return [_place(row) for row in range(num_rows)]


def _place(row: int) -> str:
    return f"images/{row // _FILES_PER_FOLDER:05d}/{row:08d}"
