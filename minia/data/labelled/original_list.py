"""Labelled images by a list as the original minIA writes it, with the copies that it made for training."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd

from minia.core.artifact import InputError, Stage
from minia.core.checksums import fingerprint_file
from minia.data.labelled.listing import files_of
from minia.data.labelled.settings import ListData
from minia.data.labelled.table import Candidates, Selection, drop_missing, make_table


def list_table(store: Path, settings: ListData, selection: Selection) -> Path:
    """The table of a list as the original writes it.

    The copies that the original keeps beside its images (prefixes F and A) are images of the same galaxy, and train
    alone: it is measured on the images as they are.

    Raises:
        InputError: a line is not of that form, or too little is left.
    """
    rows = _read_list(settings.path)
    root = settings.dir.absolute()
    table = pd.DataFrame(rows, columns=["label", "id"], dtype=object)
    candidates = Candidates(table, root, sorted(set(table["label"]), key=int))
    candidates.count("names_in_list", len(table))
    several = table.groupby("id")["label"].transform("nunique") > 1
    candidates.count("names_in_several_classes", int(table["id"][several].nunique()))
    if settings.ambiguous == "drop":
        table = table[~several]
    table = table.drop_duplicates("id", keep="last" if settings.ambiguous == "last" else "first").reset_index(drop=True)
    table["galaxy"], table["copy"] = _copies(list(table["id"]))
    table["path"] = files_of(list(table["id"]), root)
    candidates.table = table
    files = drop_missing(candidates)
    parameters = selection.parameters | {"root": str(root), "ambiguous": settings.ambiguous}
    inputs = {"list": fingerprint_file(settings.path), "files": files}
    return make_table(Stage("table", "list", store, parameters, inputs, version=2), candidates, selection)


def _copies(names: list[str]) -> tuple[list[str], list[bool]]:
    """The galaxy of each name of a list, and whether the image is a copy: F123 and A123 are copies of 123."""
    known = set(names)
    galaxies, copies = [], []
    for name in names:
        rest = name[1:] if name[:1] in ("F", "A") else ""
        other = ("A" if name[:1] == "F" else "F") + rest
        copy = bool(rest) and (rest in known or other in known)
        galaxies.append(rest if copy else name)
        copies.append(copy)
    return galaxies, copies


def _read_list(path: Path) -> list[tuple[str, str]]:
    """(class id, name) of each image of a list."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            csv.field_size_limit(1 << 30)  # a class is one field of up to megabytes
            lines = [row for row in csv.reader(stream) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"data.path={path}: cannot be read: {error}") from None
    rows: list[tuple[str, str]] = []
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != 2 or not line[0].strip().isdigit():
            raise InputError(f"data.path={path}: line {number} is not class_id,name name name: {','.join(line)[:60]}")
        rows.extend((line[0].strip(), name) for name in line[1].split())
    if not rows:
        raise InputError(f"data.path={path}: names no images; expected a header line, then class_id,name name name")
    return rows
