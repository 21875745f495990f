"""Where the labelled images of a galaxy table come from: Galaxy Zoo 2, or tables and folders of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from minia.core.artifact import InputError, Stage, read_manifest
from minia.core.checksums import fingerprint_file
from minia.core.context import Context
from minia.data.files import find_images
from minia.data.images import simulate_images
from minia.data.labelled.galaxy_zoo import (
    CATALOGUE_FILE,
    CLASS_RULES,
    CLASSES,
    DEBIASED_COLUMNS,
    MAPPING_COLUMNS,
    MAPPING_FILE,
    assign_classes,
)
from minia.data.labelled.listing import files_of, listing
from minia.data.labelled.original_list import list_table
from minia.data.labelled.settings import (
    CSVData,
    FolderData,
    GZ2Data,
    ImagesData,
    LabelledData,
    SimulatedData,
    VoteRules,
)
from minia.data.labelled.table import (
    NO_LABEL,
    Candidates,
    Selection,
    drop_missing,
    make_table,
    split_of,
    write_table,
)
from minia.data.labelled.votes import Questions, count_columns, votes_of, votes_of_labels, with_galaxy_zoo_votes
from minia.data.settings import SimulatedImages
from minia.data.tables import read_table, require_columns

IMAGE_FOLDER = "images"  # of a simulated survey


def labelled_table(store: Path, settings: LabelledData, context: Context) -> Path:
    """The table stage: labelled images from whatever source the settings name.

    Args:
        store: folder of artifacts.
        settings: the source, and what is kept of it.
        context: ``seed`` of what is drawn and of the split; the number of processes that draw and check images.

    Returns:
        The table artifact.

    Raises:
        InputError: a file is missing or malformed, or too few images or classes are left to train on.
    """
    selection = Selection.of(settings, context)
    if isinstance(settings, SimulatedData):
        sides: dict[str, Any] = {"image_size": settings.image_size, "min_side": 0, "max_side": 0}
        drawn = SimulatedImages(kind="simulated", num_images=settings.num_images, **sides)
        return simulated_table(simulate_images(store, drawn, context), store, settings, selection)
    if isinstance(settings, GZ2Data):
        return gz2_table(store, settings, selection)
    if isinstance(settings, CSVData):
        return csv_table(store, settings, selection)
    if isinstance(settings, (FolderData, ImagesData)):
        return folder_table(store, settings, selection)
    return list_table(store, settings, selection)


def check_source(settings: LabelledData) -> None:
    """Check before any work that the files of a source are there, as far as that is not part of its settings.

    Raises:
        InputError: names all that are missing at once.
    """
    if isinstance(settings, GZ2Data):
        GZ2Files.of(settings)


@dataclass(frozen=True)
class GZ2Files:
    """Where the three parts of Galaxy Zoo 2 are.

    Attributes:
        catalogue: ``gz2_hart16.csv`` or ``.csv.gz``, votes by ``dr7objid``.
        mapping: ``gz2_filename_mapping.csv``, which gives the ``asset_id`` of each ``objid``.
        images: folder of the cut-outs, ``<asset_id>.jpg``.
    """

    catalogue: Path
    mapping: Path
    images: Path

    @classmethod
    def of(cls, settings: GZ2Data) -> GZ2Files:
        """The files that the settings name, and the usual names in the root for those that they do not.

        Raises:
            InputError: names all that are missing at once.
        """
        unpacked = settings.root / CATALOGUE_FILE
        packed = unpacked.with_name(CATALOGUE_FILE + ".gz")
        files = {
            "catalogue": settings.catalogue or (packed if packed.exists() and not unpacked.exists() else unpacked),
            "mapping": settings.mapping or settings.root / MAPPING_FILE,
            "images": settings.images or settings.root / "images",
        }
        missing = [f"{path} (data.{key})" for key, path in files.items() if not path.exists()]
        if missing:
            raise InputError(f"data.root={settings.root}: missing {', '.join(missing)}")
        return cls(**files)


def gz2_table(store: Path, settings: GZ2Data, selection: Selection) -> Path:
    """The table of Galaxy Zoo 2, from the files of its release.

    Raises:
        InputError: a file is missing or lacks a column, or too little is left.
    """
    files = GZ2Files.of(settings)
    digest, names = listing(files.images)
    parameters = selection.parameters | _rules(settings) | {"root": str(files.images.absolute())}
    inputs = {"catalogue": fingerprint_file(files.catalogue), "mapping": fingerprint_file(files.mapping)}
    stage = Stage("table", "gz2", store, parameters, inputs | {"images": digest})
    return stage.run(lambda work: write_table(work, gz2_candidates(files, names, settings), selection))


def simulated_table(survey: Path, store: Path, rules: VoteRules, selection: Selection) -> Path:
    """The table of a simulated survey, an artifact of the images stage, as if it were Galaxy Zoo 2."""
    parameters = selection.parameters | _rules(rules)
    stage = Stage("table", "simulated", store, parameters, {"images": read_manifest(survey)["fingerprint"]})
    files = GZ2Files(survey / CATALOGUE_FILE, survey / MAPPING_FILE, survey / IMAGE_FOLDER)

    def make(work: Path) -> dict[str, Any]:
        candidates = gz2_candidates(files, listing(files.images)[1], rules)
        candidates.in_store = True
        return write_table(work, candidates, selection)

    return stage.run(make)


def _rules(rules: VoteRules) -> dict[str, Any]:
    return rules.model_dump(include=set(VoteRules.model_fields))


def read_votes(catalogue: Path, key: str = "data.catalogue", more: Sequence[str] = ()) -> pd.DataFrame:
    """The columns dr7objid and ``_debiased`` of a catalogue, the votes of the rules' questions, and further ones.

    Raises:
        InputError: the file cannot be read, or lacks columns; every one is named.
    """
    wanted = list(dict.fromkeys(["dr7objid", *DEBIASED_COLUMNS, *_count_columns(), *more]))
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


def label_rows(votes: pd.DataFrame, rules: VoteRules) -> tuple[pd.Series[Any], dict[str, Any]]:
    """The class of each row of a catalogue.

    Args:
        votes: by ``read_votes``; the counts only where ``rules.min_votes`` is above 0.
        rules: what makes a galaxy one of a class.

    Returns:
        The class, null where a row has none (any more), and counts by step.
    """
    member = assign_classes(votes, rules.gate, rules.threshold)
    counts: dict[str, Any] = {"rows_of_class": {name: int(member[name].sum()) for name in CLASSES}}
    if rules.min_votes:
        for rule in CLASS_RULES:
            question = rule.decisive.split("_a")[0]
            total = votes[[column for column in _count_columns() if column.split("_a")[0] == question]].sum(axis=1)
            member[rule.name] &= total >= rules.min_votes
    several = member.sum(axis=1) > 1
    counts["rows_in_a_class"] = int(member.any(axis=1).sum())
    counts["rows_in_several_classes"] = int(several.sum())
    strength = pd.DataFrame({rule.name: votes[rule.decisive] for rule in CLASS_RULES}).where(member, -1.0)
    order = (
        member[member.columns[::-1]]
        if rules.ambiguous == "last"
        else strength
        if rules.ambiguous == "strongest"
        else member
    )
    label = order.astype(float).idxmax(axis=1).where(member.any(axis=1))
    if rules.ambiguous == "drop":
        label = label.where(~several)
    counts["rows_with_one_class"] = int(label.notna().sum())
    return label, counts


def gz2_candidates(files: GZ2Files, names: Mapping[str, str], rules: VoteRules) -> Candidates:
    """The labelled images of Galaxy Zoo 2.

    Args:
        files: where they are.
        names: the file name of each ``asset_id`` in the folder of images.
        rules: what makes a galaxy one of a class.

    Raises:
        InputError: a file is missing or lacks a column, or no galaxy is in all three.
    """
    catalogue, mapping, root = files.catalogue, files.mapping, files.images.absolute()
    candidates = Candidates(pd.DataFrame(), root, list(CLASSES))
    votes = read_votes(catalogue, more=list(count_columns()) if rules.targets == "votes" else [])
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
    if rules.targets == "votes":
        table = with_galaxy_zoo_votes(table)
        candidates.classes = Questions.of(table).answers[0]
        candidates.count("rows_with_votes", len(table))
    else:
        table["label"], counts = label_rows(table, rules)
        candidates.counts |= counts
        table = table[table["label"].notna()]
        candidates.count("rows_with_one_class", len(table))
    table = table.rename(columns={"objid": "galaxy"})
    columns = ["id", "path", "label", "galaxy", *DEBIASED_COLUMNS, *votes_of(table)]
    candidates.table = table[columns].reset_index(drop=True)
    return candidates


def _whole(numbers: pd.Series[Any], file: Path) -> pd.Series[Any]:
    """A column of object ids, 18 digits, as int64: as floats their last digits would be lost."""
    try:
        return numbers.astype("int64")
    except (ValueError, TypeError, OverflowError):
        raise InputError(f"data.mapping={file}: column objid holds something else than whole numbers") from None


def csv_table(store: Path, settings: CSVData, selection: Selection) -> Path:
    """The table of a CSV or parquet file with one row an image.

    Raises:
        InputError: the file lacks a column, or too little is left.
    """
    path = settings.path
    given = read_table(path, "data.path")
    others = {"path": settings.path_column, "split": settings.split_column, "galaxy": settings.galaxy_column}
    others["label"] = settings.label_column
    columns = {"id": settings.id_column} | {ours: theirs for ours, theirs in others.items() if theirs}
    require_columns(given, [*columns.values(), *settings.more_labels], f"data.path={path}")
    table = pd.DataFrame({ours: given[theirs] for ours, theirs in columns.items()}, dtype=object)
    if settings.label_column is None:
        table["label"] = NO_LABEL
    elif settings.more_labels:
        questions = given[list(dict.fromkeys([settings.label_column, *settings.more_labels]))]
        table = pd.concat([table, votes_of_labels(questions, f"data.path={path}")], axis=1)
    root = (settings.dir or path.parent).absolute()
    candidates = Candidates(table, root, [])
    candidates.count("rows_in_table", len(table))
    table = table[table["label"].notna()].reset_index(drop=True)
    candidates.count("rows_with_label", len(table))
    table["id"], table["label"] = table["id"].astype(str), table["label"].astype(str)
    if "path" not in table:
        table["path"] = files_of(list(table["id"]), root)
    if "split" in table:
        table["split"] = [split_of(value) for value in table["split"]]
    candidates.table, candidates.classes = table, sorted(set(table["label"]))
    files = drop_missing(candidates)
    parameters = selection.parameters | {"root": str(root), "columns": columns, "more_labels": settings.more_labels}
    inputs = {"table": fingerprint_file(path), "files": files}
    return make_table(Stage("table", "csv", store, parameters, inputs, version=3), candidates, selection)


def folder_table(store: Path, settings: FolderData | ImagesData, selection: Selection) -> Path:
    """The table of a folder with one folder a class, each searched with its subfolders, or of one without labels.

    Raises:
        InputError: there are no such folders, or too little is left.
    """
    root = settings.dir.absolute()
    found, undecodable = find_images(root, store.absolute())
    if settings.labelled:
        rows = [(path, path, path.split("/")[0]) for path in found.to_pylist() if "/" in path]
    else:
        rows = [(path, path, NO_LABEL) for path in found.to_pylist()]
    if not rows:
        wanted = "folder of images; expected one folder a class" if settings.labelled else "image"
        raise InputError(f"data.dir={settings.dir}: holds no {wanted}")
    table = pd.DataFrame(rows, columns=["id", "path", "label"], dtype=object)
    candidates = Candidates(table.sort_values("id", ignore_index=True), root, sorted(set(table["label"])))
    candidates.skipped = [
        (name, "its name is not valid UTF-8") for name in undecodable if "/" in name or not settings.labelled
    ]
    files_digest = drop_missing(candidates)
    stage = Stage("table", settings.kind, store, selection.parameters | {"root": str(root)}, {"files": files_digest})
    return make_table(stage, candidates, selection)
