"""The table stage: labelled images for training, from whatever source, as one table.

The artifact holds ``table.parquet``, one row an image, sorted by id:

=================  =======  ==================================================================
column             type     meaning
=================  =======  ==================================================================
id                 string   the image's name, unique
path               string   its file, relative to ``root`` in ``source.json`` (or absolute)
label              string   its class; ``unlabelled`` for all where there are none
split              string   ``train``, ``validation`` or ``test``
``..._debiased``   float    the vote fractions, 0..1 (Galaxy Zoo 2 alone)
``votes:...``      float    the votes for each answer of each question, where they are trained on
=================  =======  ==================================================================

``source.json`` (the root and the classes in the order of their ids) and ``skipped.csv``, the images
that cannot be read with the reason. The split is by galaxy: all images of one are on one side. Copies that were made
for training (moved, filtered) are on that side alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from minia.core.artifact import InputError, Stage
from minia.core.context import Context
from minia.core.progress import progress
from minia.core.workers import map_in_order
from minia.data.files import UnreadableImageError
from minia.data.labelled.decoding import decode_image
from minia.data.labelled.settings import LabelledImages
from minia.data.labelled.votes import votes_of

logger = logging.getLogger(__name__)

TABLE = "table.parquet"
NO_LABEL = "unlabelled"  # the one class of images without labels
SPLITS = ("train", "validation", "test")
_IMAGES_PER_TASK = 64
_MAX_NAMES_IN_MANIFEST = 100
_MAX_NAMES_IN_MESSAGE = 5
_SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(
    ("validation", "valid", "val"), "validation"
)


@dataclass(frozen=True)
class GalaxyTable:
    """A finished table artifact, read.

    Attributes:
        table: one row an image (see the module).
        root: the folder that relative paths start from.
        classes: the class of each class id.
    """

    table: pd.DataFrame
    root: Path
    classes: list[str]

    @classmethod
    def load(cls, artifact: Path) -> GalaxyTable:
        """Read the artifact of the table stage."""
        source = json.loads((artifact / "source.json").read_text(encoding="utf-8"))
        return cls(pd.read_parquet(artifact / TABLE), artifact / source["root"], source["classes"])

    def of_split(self, split: str) -> GalaxyTable:
        """The images of one split alone."""
        return GalaxyTable(self.table[self.table["split"] == split], self.root, self.classes)

    def counts(self) -> dict[str, dict[str, int]]:
        """Images of each class in each split; without the test where there is none."""
        pairs = Counter(zip(self.table["label"], self.table["split"], strict=True))
        splits = SPLITS if (self.table["split"] == "test").any() else SPLITS[:2]
        return {label: {split: pairs[label, split] for split in splits} for label in self.classes}


@dataclass(frozen=True)
class Selection:
    """How a table is made from labelled images, whatever their source.

    Attributes:
        class_size: keep at most this many images of a class, drawn with the seed; None keeps all.
        validation_share: share of each class's galaxies that validate, 0..1; not used where the
            source brings its own split.
        test_share: share of each class's galaxies that are kept for a test at the end, 0..1; likewise.
        check_images: decode every image once and leave out those that cannot be read.
        seed: of the draw and the split.
        num_workers: processes that decode; the table does not depend on it.
    """

    class_size: int | None
    validation_share: float
    check_images: bool
    seed: int
    num_workers: int = 1
    test_share: float = 0.0

    @classmethod
    def of(cls, settings: LabelledImages, context: Context) -> Selection:
        """What the settings and the context say."""
        return cls(
            settings.class_size, settings.validation_share, settings.check_images, context.seed, context.num_workers,
            settings.test_share,
        )  # fmt: skip

    @property
    def parameters(self) -> dict[str, Any]:
        """What decides the table."""
        names = ("class_size", "validation_share", "test_share", "check_images", "seed")
        return {name: getattr(self, name) for name in names}


@dataclass
class Candidates:
    """Labelled images of a source, before the selection.

    Attributes:
        table: columns id, path, label, and where the source has them galaxy (images of one galaxy
            share it; missing where there is no other), split, copy (made of another image for training) and vote
            fractions.
        root: where relative paths start.
        classes: names in the order of their ids.
        in_store: the root is an artifact of the same store, which may be moved as a whole.
        counts: what each step of the source left, for the manifest.
        skipped: images that are missing, with the reason.
    """

    table: pd.DataFrame
    root: Path
    classes: list[str]
    in_store: bool = False
    counts: dict[str, Any] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def count(self, step: str, number: int) -> None:
        """Log and keep the number of rows after a step."""
        logger.info("table: %s: %d", step.replace("_", " "), number)
        self.counts[step] = number


def make_table(stage: Stage, candidates: Candidates, selection: Selection) -> Path:
    """Run the table stage on a source's images; the artifact's path.

    Raises:
        InputError: too few images or classes are left to train on.
    """
    return stage.run(partial(write_table, candidates=candidates, selection=selection))


def write_table(work: Path, candidates: Candidates, selection: Selection) -> dict[str, Any]:
    """Choose, check and split a source's images, and write the table; the counts for the manifest."""
    table = candidates.table.sort_values("id", kind="stable", ignore_index=True)
    repeated = table["id"][table["id"].duplicated()]
    if len(repeated):
        raise InputError(f"{candidates.root}: the id {repeated.iat[0]} occurs twice; ids must be unique")
    # Fewer images to decode if those that no class has room for are left out first.
    table = _cap(table, selection)
    candidates.count("rows_after_class_size", len(table))
    if selection.check_images:
        table = _readable(table, candidates, selection.num_workers)
        candidates.count("rows_with_readable_image", len(table))
    classes = [label for label in candidates.classes if (table["label"] == label).any()]
    if len(classes) < 2 and candidates.classes != [NO_LABEL]:
        raise InputError(
            f"data: {len(table)} images of {len(classes)} classes are left, at least 2 classes are needed;"
            f" counts: {json.dumps(candidates.counts)}"
        )
    table = _only_originals_are_measured(with_splits(table, selection), candidates)
    table = _write(work, table, candidates, classes)
    per_class = GalaxyTable(table, candidates.root, classes).counts()
    for label, of_split in per_class.items():
        if not of_split["train"] or not of_split["validation"]:
            raise InputError(f"data: class {label} has {of_split['train']} images to train on and"
                             f" {of_split['validation']} to validate on; each class needs both")  # fmt: skip
    return {
        **candidates.counts,
        "num_images": len(table),
        "num_skipped_images": len(candidates.skipped),
        "skipped_images": [f"{name}: {reason}" for name, reason in candidates.skipped[:_MAX_NAMES_IN_MANIFEST]],
        "classes": per_class,
    }


def _write(work: Path, table: pd.DataFrame, candidates: Candidates, classes: list[str]) -> pd.DataFrame:
    votes = [column for column in table.columns if column.endswith("_debiased")] + votes_of(table)
    table = table[["id", "path", "label", "split", *votes]].reset_index(drop=True)
    table = table.astype(dict.fromkeys(("id", "path", "label", "split"), "string"))
    table.to_parquet(work / TABLE, index=False)
    pd.DataFrame(candidates.skipped, columns=["id", "reason"]).to_csv(work / "skipped.csv", index=False)
    root = os.path.relpath(candidates.root, work) if candidates.in_store else str(candidates.root)
    source = {"root": root, "classes": classes}
    (work / "source.json").write_text(json.dumps(source) + "\n", encoding="utf-8")
    return table


def _rank(values: Iterable[str], seed: int, purpose: str) -> list[bytes]:
    """A number for each name, as good as random, that depends on the seed and the name alone."""
    return [hashlib.blake2b(f"{purpose} {seed} {value}".encode(), digest_size=16).digest() for value in values]


def _cap(table: pd.DataFrame, selection: Selection) -> pd.DataFrame:
    """At most class_size images of each class; rows stay in order."""
    if selection.class_size is None:
        return table
    rank = pd.Series(_rank(table["id"], selection.seed, "class_size"), index=table.index)
    order = rank.sort_values().index
    kept = table.loc[order].groupby("label", sort=False).head(selection.class_size).index
    return table.loc[kept.sort_values()].reset_index(drop=True)


def with_splits(table: pd.DataFrame, selection: Selection) -> pd.DataFrame:
    """The table with a split for each row: the source's own, or drawn by galaxy with the seed.

    Where the source's own has no validation, it is drawn from what trains.

    Raises:
        InputError: galaxies are on two sides of the source's own split; some are named.
    """
    galaxy = _galaxies(table)
    if "split" not in table:
        return table.assign(split=_split(table, galaxy, selection))
    sides = table["split"].groupby(galaxy).nunique()
    both = [str(name) for name in sides[sides > 1].index]
    if both:
        told = ", ".join(
            f"{name} ({_sides(table[galaxy.astype(str) == name])})" for name in both[:_MAX_NAMES_IN_MESSAGE]
        )
        raise InputError(f"data: {len(both)} galaxies are on two sides of the split: {told}; allowed: each on one")
    if (table["split"] == "validation").any():
        return table
    trains = table["split"] == "train"
    drawn = _split(table[trains], galaxy[trains], dataclasses.replace(selection, test_share=0.0))
    return table.assign(split=table["split"].mask(trains, pd.Series(drawn, index=table.index[trains], dtype=object)))


def _galaxies(table: pd.DataFrame) -> pd.Series[Any]:
    """The galaxy of each row: an image without one's name is one of its own, as is a file of several rows."""
    alone = table["id"].groupby(table["path"]).transform("first")
    return table["galaxy"].where(table["galaxy"].notna(), alone) if "galaxy" in table else alone


def _sides(rows: pd.DataFrame) -> str:
    """The first image of a galaxy on each side, in words."""
    first = rows.drop_duplicates("split")
    return ", ".join(f"{image} in {split}" for image, split in zip(first["id"], first["split"], strict=True))


def _split(table: pd.DataFrame, galaxy: pd.Series[Any], selection: Selection) -> list[str]:
    """The split of each row: a share of each class's galaxies, at least one, validates; another share tests."""
    first = table.assign(galaxy=galaxy)
    if "copy" in table:  # a galaxy of which there are copies alone can only train
        first = first[~table["copy"]]
    first = first.drop_duplicates("galaxy")  # a galaxy's class is that of its first image
    first = first.assign(rank=_rank(first["galaxy"].astype(str), selection.seed, "split")).sort_values("rank")
    of: dict[Any, str] = {}
    for _, group in first.groupby("label"):
        names = list(group["galaxy"])
        validating = max(1, int(selection.validation_share * len(names)))
        testing = max(1, int(selection.test_share * len(names))) if selection.test_share else 0
        of |= dict.fromkeys(names[:validating], "validation")
        of |= dict.fromkeys(names[validating : validating + testing], "test")
    return [of.get(each, "train") for each in galaxy]


def _only_originals_are_measured(table: pd.DataFrame, candidates: Candidates) -> pd.DataFrame:
    """The table without the copies of galaxies that validate or test."""
    if "copy" not in table:
        return table
    measured = table["copy"] & (table["split"] != "train")
    candidates.count("copies_left_out_of_validation_and_test", int(measured.sum()))
    return table[~measured].reset_index(drop=True)


def _readable(table: pd.DataFrame, candidates: Candidates, num_workers: int) -> pd.DataFrame:
    """The rows whose image can be decoded; the others are named and counted."""
    paths = [candidates.root / str(path) for path in table["path"]]
    tasks = [paths[first : first + _IMAGES_PER_TASK] for first in range(0, len(paths), _IMAGES_PER_TASK)]
    reasons: list[str] = []
    with progress("checking", len(paths), "image") as advance:
        for found in map_in_order(_reasons, tasks, num_workers if len(tasks) > num_workers else 1):
            reasons.extend(found)
            advance(len(found))
    for name, reason in zip(table["id"], reasons, strict=True):
        if reason:
            logger.warning("table: %s is left out: %s", name, reason)
            candidates.skipped.append((str(name), reason))
    return table[[not reason for reason in reasons]].reset_index(drop=True)


def _reasons(paths: list[Path]) -> list[str]:
    """Why each image cannot be read; empty where it can."""
    reasons = []
    for path in paths:
        try:
            decode_image(path)
            reasons.append("")
        except UnreadableImageError as error:
            reasons.append(str(error))
    return reasons


def drop_missing(candidates: Candidates) -> str:
    """Leave out the rows without a file, name them, and give a fingerprint of the files that are there.

    Sizes and times stand for the content: reading a survey to hash it would cost minutes.
    """
    digest, there = hashlib.sha256(), []
    for name, path in zip(candidates.table["id"], candidates.table["path"], strict=True):
        try:
            state = os.stat(candidates.root / str(path))  # noqa: PTH116 - half the time of Path.stat
        except OSError:
            candidates.skipped.append((str(name), "no such file"))
            there.append(False)
            continue
        digest.update(f"{path} {state.st_size} {state.st_mtime_ns}\n".encode())
        there.append(True)
    candidates.table = candidates.table[np.asarray(there, dtype=bool)].reset_index(drop=True)
    candidates.count("rows_with_image", len(candidates.table))
    if not len(candidates.table):
        first = candidates.skipped[0][0] if candidates.skipped else "none given"
        raise InputError(f"{candidates.root}: none of the images is there, first {first}")
    return digest.hexdigest()


def split_of(value: object) -> str:
    """``train``, ``validation`` or ``test`` for a split as others name it.

    Raises:
        InputError: it is none of them.
    """
    found = _SPLIT_NAMES.get(str(value).strip().lower())
    if found is None:
        raise InputError(f"data: split {value}: expected train, validation (valid, val) or test")
    return found
