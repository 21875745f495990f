"""Where the labelled images of a galaxy table come from: Galaxy Zoo 2, or tables and folders of one's own."""

from __future__ import annotations

import csv
import hashlib
import os
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pandas as pd

from minia.core.artifact import InputError, Stage, fingerprint_file, read_manifest
from minia.data.files import IMAGE_SUFFIXES, find_images
from minia.data.labelled.galaxy_zoo import (
    CATALOGUE_FILE,
    CLASS_RULES,
    CLASSES,
    DEBIASED_COLUMNS,
    MAPPING_COLUMNS,
    MAPPING_FILE,
    assign_classes,
)
from minia.data.labelled.table import (
    Candidates,
    Selection,
    drop_missing,
    make_table,
    split_of,
    write_table,
)
from minia.data.tables import read_table, require_columns

IMAGE_FOLDER = "images"  # of a simulated survey
Ambiguous: TypeAlias = Literal["drop", "first", "last", "strongest"]


def gz2_table(
    store: Path,
    selection: Selection,
    *,
    catalogue: Path,
    mapping: Path,
    images: Path,
    gate: float,
    threshold: float,
    min_votes: int,
    ambiguous: Ambiguous,
) -> Path:
    """The table of Galaxy Zoo 2, from the files of its release.

    Args:
        store: folder of artifacts.
        selection: what is kept of it.
        catalogue: ``gz2_hart16.csv`` or ``.csv.gz``, votes by ``dr7objid``.
        mapping: ``gz2_filename_mapping.csv``, which gives the ``asset_id`` of each ``objid``.
        images: folder of the cut-outs, ``<asset_id>.jpg``.
        gate: see :func:`~minia.data.galaxy_zoo.assign_classes`.
        threshold: see there.
        min_votes: votes that the decisive question must have; 0 for any.
        ambiguous: a galaxy of several classes is dropped, or kept in the ``first`` or ``last`` of
            them by id (the original's files keep the last), or in the one of the ``strongest`` vote.

    Raises:
        InputError: a file is missing or lacks a column, or too little is left.
    """
    digest, names = _listing(images)
    parameters = selection.parameters | _rules(gate, threshold, min_votes, ambiguous) | {"root": str(images.absolute())}
    inputs = {"catalogue": fingerprint_file(catalogue), "mapping": fingerprint_file(mapping), "images": digest}
    stage = Stage("table", "gz2", store, parameters, inputs)

    def make(work: Path) -> dict[str, Any]:
        candidates = gz2_candidates(catalogue, mapping, names, images.absolute(), gate, threshold, min_votes, ambiguous)
        return write_table(work, candidates, selection)

    return stage.run(make)


def simulated_table(
    store: Path,
    selection: Selection,
    survey: Path,
    *,
    gate: float,
    threshold: float,
    min_votes: int,
    ambiguous: Ambiguous,
) -> Path:
    """The table of a simulated survey (an artifact of the images stage), as if it were Galaxy Zoo 2."""
    parameters = selection.parameters | _rules(gate, threshold, min_votes, ambiguous)
    stage = Stage("table", "simulated", store, parameters, {"images": read_manifest(survey)["fingerprint"]})
    images = survey / IMAGE_FOLDER

    def make(work: Path) -> dict[str, Any]:
        _, names = _listing(images)
        files = (survey / CATALOGUE_FILE, survey / MAPPING_FILE)
        candidates = gz2_candidates(*files, names, images, gate, threshold, min_votes, ambiguous)
        candidates.in_store = True
        return write_table(work, candidates, selection)

    return stage.run(make)


def _rules(gate: float, threshold: float, min_votes: int, ambiguous: str) -> dict[str, Any]:
    return {"gate": gate, "threshold": threshold, "min_votes": min_votes, "ambiguous": ambiguous}


def _listing(folder: Path) -> tuple[str, dict[str, str]]:
    """A fingerprint of a folder's images (names, sizes, times), and their file names by name without extension.

    Raises:
        InputError: the folder is missing or holds no images.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder of images")
    names, digest = {}, hashlib.sha256()
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122 - 240,000 Path objects cost a second
            if suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith("."):
                names[stem] = entry.name
                state = entry.stat()
                digest.update(f"{entry.name} {state.st_size} {state.st_mtime_ns}\n".encode())
    if not names:
        raise InputError(f"{folder}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return digest.hexdigest(), names


def read_votes(catalogue: Path, key: str = "data.catalogue") -> pd.DataFrame:
    """The columns dr7objid and ``_debiased`` of a catalogue, and the votes of the rules' questions.

    Raises:
        InputError: the file cannot be read, or lacks columns; every one is named.
    """
    wanted = ["dr7objid", *DEBIASED_COLUMNS, *_count_columns()]
    try:
        header = list(pd.read_csv(catalogue, nrows=0).columns)
    except FileNotFoundError:
        raise InputError(f"{key}={catalogue}: there is no such file") from None
    except Exception as error:  # pandas raises many kinds for a malformed file
        raise InputError(f"{key}={catalogue}: not a readable table: {' '.join(str(error).split())}") from error
    missing = [column for column in wanted if column not in header]
    if missing:
        raise InputError(
            f"{key}={catalogue}: {len(missing)} columns of {CATALOGUE_FILE} are missing: {', '.join(missing)}"
        )
    return pd.read_csv(catalogue, usecols=wanted)[wanted]


def _count_columns() -> list[str]:
    """The vote counts of every answer of the questions that decide."""
    decisive = {rule.decisive.split("_a")[0] for rule in CLASS_RULES}
    return [
        column.removesuffix("_debiased") + "_count" for column in DEBIASED_COLUMNS if column.split("_a")[0] in decisive
    ]


def label_rows(
    votes: pd.DataFrame, gate: float, threshold: float, min_votes: int = 0, ambiguous: Ambiguous = "drop"
) -> tuple[pd.Series[Any], dict[str, Any]]:
    """The class of each row of a catalogue.

    Args:
        votes: by ``read_votes``; the counts only where min_votes is above 0.
        gate: see :func:`~minia.data.galaxy_zoo.assign_classes`.
        threshold: see there.
        min_votes: see :func:`gz2_table`.
        ambiguous: see :func:`gz2_table`.

    Returns:
        The class, null where a row has none (any more), and counts by step.
    """
    member = assign_classes(votes, gate, threshold)
    counts: dict[str, Any] = {"rows_of_class": {name: int(member[name].sum()) for name in CLASSES}}
    if min_votes:
        for rule in CLASS_RULES:
            question = rule.decisive.split("_a")[0]
            total = votes[[column for column in _count_columns() if column.split("_a")[0] == question]].sum(axis=1)
            member[rule.name] &= total >= min_votes
    several = member.sum(axis=1) > 1
    counts["rows_in_a_class"] = int(member.any(axis=1).sum())
    counts["rows_in_several_classes"] = int(several.sum())
    strength = pd.DataFrame({rule.name: votes[rule.decisive] for rule in CLASS_RULES}).where(member, -1.0)
    order = member[member.columns[::-1]] if ambiguous == "last" else strength if ambiguous == "strongest" else member
    label = order.astype(float).idxmax(axis=1).where(member.any(axis=1))
    if ambiguous == "drop":
        label = label.where(~several)
    counts["rows_with_one_class"] = int(label.notna().sum())
    return label, counts


def gz2_candidates(
    catalogue: Path,
    mapping: Path,
    names: dict[str, str],
    root: Path,
    gate: float,
    threshold: float,
    min_votes: int,
    ambiguous: Ambiguous,
) -> Candidates:
    """The labelled images of Galaxy Zoo 2 in a folder ``root``; ``names`` has its files by asset id, the rest is
    as in :func:`gz2_table`.
    """
    candidates = Candidates(pd.DataFrame(), root, list(CLASSES))
    votes = read_votes(catalogue)
    candidates.count("rows_in_catalogue", len(votes))
    assets = read_table(mapping, "data.mapping")
    require_columns(assets, list(MAPPING_COLUMNS), f"data.mapping={mapping}")
    candidates.count("rows_in_mapping", len(assets))
    assets = pd.DataFrame({"objid": _whole(assets["objid"], mapping), "asset_id": assets["asset_id"].astype(str)})
    table = votes.merge(assets, left_on="dr7objid", right_on="objid", how="inner")
    table = table.drop_duplicates("asset_id", ignore_index=True)
    candidates.count("rows_with_asset_id", len(table))
    table["id"] = table["asset_id"]
    table["path"] = table["id"].map(names)
    table = table[table["path"].notna()].reset_index(drop=True)
    candidates.count("rows_with_image", len(table))
    if not len(table):
        raise InputError(
            f"data: no galaxy is in the catalogue {catalogue}, in the mapping {mapping} and in the folder {root};"
            f" counts: {candidates.counts}"
        )
    table["label"], counts = label_rows(table, gate, threshold, min_votes, ambiguous)
    candidates.counts |= counts
    table = table[table["label"].notna()]
    candidates.count("rows_with_one_class", len(table))
    table = table.rename(columns={"objid": "galaxy"})
    candidates.table = table[["id", "path", "label", "galaxy", *DEBIASED_COLUMNS]].reset_index(drop=True)
    return candidates


def _whole(numbers: pd.Series[Any], file: Path) -> pd.Series[Any]:
    """A column of object ids, 18 digits, as int64: as floats their last digits would be lost."""
    try:
        return numbers.astype("int64")
    except (ValueError, TypeError, OverflowError):
        raise InputError(f"data.mapping={file}: column objid holds something else than whole numbers") from None


def csv_table(
    store: Path,
    selection: Selection,
    *,
    path: Path,
    folder: Path | None,
    id_column: str,
    path_column: str | None,
    label_column: str,
    split_column: str | None,
    galaxy_column: str | None,
) -> Path:
    """The table of a CSV or parquet file with one row an image.

    Args:
        store: folder of artifacts.
        selection: what is kept of it.
        path: the file.
        folder: where paths start; None for the file's own folder.
        id_column: the image's name, unique.
        path_column: the image's file; None where the name is the file, with its extension or without.
        label_column: the class; rows without one are left out.
        split_column: ``train`` or ``validation``; None to split here.
        galaxy_column: images with the same value stay on one side of the split, those without one on
            either; None where every image is of another galaxy.

    Raises:
        InputError: the file lacks a column, or too little is left.
    """
    given = read_table(path, "data.path")
    columns = {"id": id_column, "label": label_column} | {
        ours: theirs
        for ours, theirs in (("path", path_column), ("split", split_column), ("galaxy", galaxy_column))
        if theirs
    }
    require_columns(given, list(columns.values()), f"data.path={path}")
    table = pd.DataFrame({ours: given[theirs] for ours, theirs in columns.items()}, dtype=object)
    root = (folder or path.parent).absolute()
    candidates = Candidates(table, root, [])
    candidates.count("rows_in_table", len(table))
    table = table[table["label"].notna()].reset_index(drop=True)
    candidates.count("rows_with_label", len(table))
    table["id"], table["label"] = table["id"].astype(str), table["label"].astype(str)
    if "path" not in table:
        table["path"] = _files_of(list(table["id"]), root)
    if "split" in table:
        table["split"] = [split_of(value) for value in table["split"]]
    candidates.table, candidates.classes = table, sorted(set(table["label"]))
    files = drop_missing(candidates)
    parameters = selection.parameters | {"root": str(root), "columns": columns}
    inputs = {"table": fingerprint_file(path), "files": files}
    return make_table(Stage("table", "csv", store, parameters, inputs, version=2), candidates, selection)


def folder_table(store: Path, selection: Selection, *, folder: Path) -> Path:
    """The table of a folder with one folder a class, each searched with its subfolders.

    Raises:
        InputError: there are no such folders, or too little is left.
    """
    root = folder.absolute()
    if not root.is_dir():
        raise InputError(f"data.dir={folder}: there is no such folder")
    found, undecodable = find_images(root, store.absolute())
    rows = [(path, path, path.split("/")[0]) for path in found.to_pylist() if "/" in path]
    if not rows:
        raise InputError(f"data.dir={folder}: holds no folder of images; expected one folder a class")
    table = pd.DataFrame(rows, columns=["id", "path", "label"], dtype=object)
    candidates = Candidates(table.sort_values("id", ignore_index=True), root, sorted(set(table["label"])))
    candidates.skipped = [(name, "its name is not valid UTF-8") for name in undecodable if "/" in name]
    files_digest = drop_missing(candidates)
    stage = Stage("table", "folder", store, selection.parameters | {"root": str(root)}, {"files": files_digest})
    return make_table(stage, candidates, selection)


def list_table(store: Path, selection: Selection, *, path: Path, folder: Path, ambiguous: Ambiguous) -> Path:
    """The table of a list as the original writes it.

    A header line, then ``class_id,name name name`` for each class: names without extension. The
    copies that the original keeps beside its images (prefixes F and A) are images of the same galaxy.

    Raises:
        InputError: a line is not of that form, or too little is left.
    """
    if ambiguous == "strongest":
        raise InputError("data.ambiguous=strongest: a list holds no votes; allowed: drop, first, last")
    rows = _read_list(path)
    root = folder.absolute()
    table = pd.DataFrame(rows, columns=["label", "id"], dtype=object)
    candidates = Candidates(table, root, sorted(set(table["label"]), key=int))
    candidates.count("names_in_list", len(table))
    several = table.groupby("id")["label"].transform("nunique") > 1
    candidates.count("names_in_several_classes", int(table["id"][several].nunique()))
    if ambiguous == "drop":
        table = table[~several]
    table = table.drop_duplicates("id", keep="last" if ambiguous == "last" else "first").reset_index(drop=True)
    table["galaxy"] = [name[1:] if name[:1] in ("F", "A") and len(name) > 1 else name for name in table["id"]]
    table["path"] = _files_of(list(table["id"]), root)
    candidates.table = table
    files = drop_missing(candidates)
    parameters = selection.parameters | {"root": str(root), "ambiguous": ambiguous}
    return make_table(Stage("table", "list", store, parameters, {"list": fingerprint_file(path), "files": files}),
                      candidates, selection)  # fmt: skip


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


def _files_of(names: list[str], root: Path) -> list[str]:
    """The file of each name: the name itself if it has an image's extension, else that with one that is there."""
    files: dict[str, dict[str, str]] = {}
    found = []
    for name in names:
        if name.lower().endswith(IMAGE_SUFFIXES):
            found.append(name)
            continue
        parent = os.path.dirname(name)  # noqa: PTH120 - one per image
        if parent not in files:
            folder = root / parent
            files[parent] = _listing(folder)[1] if folder.is_dir() else {}
        file = files[parent].get(os.path.basename(name), name)  # noqa: PTH119
        found.append(f"{parent}/{file}" if parent else file)
    return found
