"""The images stage: from a folder, a catalogue or the simulator to one table of images.

The artifact holds ``images.parquet`` with one row an image, sorted by image:

======  ======  =========================================================================
column  type    meaning
======  ======  =========================================================================
image   string  the image's name, unique: its path relative to the folder, or its catalogue id
path    string  its file, relative to ``root`` in ``source.json`` (or absolute)
label   string  its label, null where it has none
======  ======  =========================================================================

of a HATS catalogue with the further column partition, int32, the number of the image's partition, by which it is sorted
first; and ``skipped.csv``, the files that were left out with the reason. Images are sorted by name, so
that nothing downstream depends on the order of a catalogue or of a file system. ``counts.pixels`` in the
manifest is a fingerprint of the images without their labels: other labels extract nothing anew.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from minia.core.artifact import InputError, Stage, fingerprint
from minia.core.checksums import fingerprint_file
from minia.core.context import Context
from minia.data.catalogue import CATALOGUE, Catalogue, Columns, other_columns, read_catalogue, write_embedded
from minia.data.files import IMAGE_SUFFIXES, FileStates, find_images
from minia.data.hats import PARTITION, fingerprint_hats
from minia.data.reading import DEFAULT_READING, Reading
from minia.data.settings import CatalogueImages, FolderImages, ImageFiles, ImageSides, SimulatedImages
from minia.data.sky import write_wcs
from minia.data.tables import read_table, require_columns

logger = logging.getLogger(__name__)

_MAX_NAMES_IN_MANIFEST = 100
_READING = 3  # raise it when read_image gives other pixels for the same file
_VERSION = 2  # 2: what else a catalogue says, and places on the sky


@dataclass(frozen=True)
class ImageTable:
    """A finished images artifact, read.

    Attributes:
        table: one row an image with the columns image, path, label (see the module).
        root: the folder that relative paths start from.
        min_side: images whose shorter side is below it are enlarged to it when read, in pixels;
            0 for never.
        max_side: images whose longer side is above it are reduced to it when read, in pixels;
            0 for never.
        reading: how the files are read.
    """

    table: pd.DataFrame
    root: Path
    min_side: int
    max_side: int
    reading: Reading

    @classmethod
    def load(cls, artifact: Path) -> ImageTable:
        """Read the artifact of the images stage."""
        source = json.loads((artifact / "source.json").read_text(encoding="utf-8"))
        table = pd.read_parquet(artifact / "images.parquet")
        return cls(table, artifact / source["root"], source["min_side"], source["max_side"], Reading.load(artifact))

    def path(self, row: int) -> Path:
        """The file of the image in a row of the table."""
        return self.root / str(self.table["path"].iat[row])

    def partitions(self) -> list[range]:
        """The rows of each partition of the catalogue; all rows together where it has none."""
        if PARTITION not in self.table:
            return [range(len(self.table))]
        begins = np.flatnonzero(np.diff(self.table[PARTITION].to_numpy(), prepend=-1)).tolist()
        return [range(begin, end) for begin, end in zip(begins, [*begins[1:], len(self.table)], strict=True)]

    def chosen(self, rows: NDArray[np.int64]) -> ImageTable:
        """Some of the images, by their rows, in no partitions."""
        table = self.table.iloc[rows].drop(columns=PARTITION, errors="ignore").reset_index(drop=True)
        return dataclasses.replace(self, table=table)


def load_labels(artifact: Path) -> pd.DataFrame:
    """The columns image and label of an images artifact (see the module), and nothing else."""
    return pd.read_parquet(artifact / "images.parquet", columns=["image", "label"])


def simulate_images(store: Path, settings: SimulatedImages, context: Context) -> Path:
    """The images stage on a simulated survey of galaxies, rendered into the artifact.

    Args:
        store: folder of artifacts.
        settings: how many galaxies, how large, and what more they have than a survey's.
        context: ``seed`` of all that is drawn, ``num_workers`` processes that draw.
    """
    shares = {name: getattr(settings, name) for name in ("more_bars", "more_rings", "more_companions")}
    more = {name: share for name, share in shares.items() if share}  # a survey without them has the name that it had
    parameters = settings.model_dump(exclude={"kind", *shares}) | more | {"seed": context.seed}
    stage = Stage("images", "simulated", store, parameters, resumable=True)

    def make(work: Path) -> dict[str, Any]:
        from minia.data.simulation.parameters import Additions
        from minia.data.simulation.survey import write_survey  # brings astropy, which real images do not need

        counts = write_survey(
            work, num_images=settings.num_images, side=settings.image_size, seed=context.seed,
            num_workers=context.num_workers,
            additions=Additions(**{name.removeprefix("more_"): share for name, share in more.items()}),
        )  # fmt: skip
        truth = pd.read_csv(work / "truth.csv")
        table = pd.DataFrame({"image": truth["image"], "path": truth["image"], "label": truth["label"]})
        table = table.sort_values("image", kind="stable", ignore_index=True)
        written = _write_table(work, table, ".", settings, skipped=[])
        return {"galaxies": dict(counts), **written, "pixels": stage.fingerprint}

    return stage.run(make)


def list_folder(store: Path, settings: FolderImages, num_workers: int = 1) -> Path:
    """The images stage on a folder, searched with all its subfolders.

    Args:
        store: folder of artifacts.
        settings: the folder, which holds images with the suffixes of :data:`IMAGE_SUFFIXES`, in any case.
        num_workers: processes that read the headers of FITS images.

    Raises:
        InputError: the folder is missing or holds no images, or the label file lacks a column or
            names none of the images.
    """
    folder, labels = settings.dir.absolute(), settings.labels
    if not folder.is_dir():
        raise InputError(f"images.dir={folder}: there is no such folder")
    found, undecodable = find_images(folder, store.absolute())
    if not len(found) and not undecodable:
        raise InputError(f"images.dir={folder}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    names = found.to_pandas()
    table = pd.DataFrame({"image": names, "path": names})
    table["label"], others = None, None
    if labels is not None:
        table["label"], others = _labels_of(names, labels, settings.label_column)
    parameters = {
        "folder": str(folder),
        "labels": fingerprint_file(labels) if labels else None,
        "label_column": settings.label_column,
    }
    skipped = [(name, "its name is not valid UTF-8") for name in undecodable]
    return _table_stage(store, settings, parameters, _Listed(table, folder, skipped, others), num_workers)


def list_catalogue(store: Path, settings: CatalogueImages, num_workers: int = 1) -> Path:
    """The images stage on a catalogue: a table with one row an image (see :func:`minia.data.tables.read_table`).

    Args:
        store: folder of artifacts.
        settings: the table, or the folder of a HATS catalogue, and its columns.
        num_workers: processes that read the headers of FITS images.

    Raises:
        InputError: the table is missing or unreadable, lacks a column, repeats an id, gives a path outside the
            folder by its template, or none of its images is there.
    """
    path = settings.path
    root = (settings.dir or (path if path.is_dir() else path.parent)).absolute()
    given = Columns(settings.id_column, settings.path_column, settings.path_template, settings.label_column)
    catalogue = read_catalogue(path, given)
    content = fingerprint_hats(path) if path.is_dir() else fingerprint_file(path)
    parameters = {"catalogue": content, "columns": catalogue.columns}
    if catalogue.embedded:
        return _embedded_stage(store, settings, parameters, catalogue)
    listed = _Listed(catalogue.images, root, [], catalogue.others)
    return _table_stage(store, settings, parameters | {"folder": str(root)}, listed, num_workers)


def _labels_of(images: pd.Series[str], labels: Path, label_column: str) -> tuple[pd.Series[str], pd.DataFrame | None]:
    """The label of each image, missing where the label file has none, and its other columns if it has any."""
    whole = read_table(labels, "images.labels")
    require_columns(whole, ["image", label_column], f"images.labels={labels}")
    table = whole[["image", label_column]].drop_duplicates()
    repeated = table["image"][table["image"].duplicated()]
    if len(repeated):
        raise InputError(f"images.labels={labels}: column image repeats {repeated.iat[0]} with another label")
    of_image = table.astype({"image": str}).set_index("image")[label_column]
    if not images.isin(of_image.index).any():
        raise InputError(
            f"images.labels={labels}: column image names none of the {len(images)} images, first {images.iat[0]}"
        )
    if unknown := int((~of_image.index.isin(images)).sum()):
        logger.info("images.labels: %d of its %d images are not in the folder", unknown, len(of_image))
    others = None
    if set(whole.columns) > {"image", label_column}:
        others = other_columns(whole.drop_duplicates("image"), "image", images)
    return images.map(of_image), others


@dataclass(frozen=True)
class _Listed:
    """Images that were listed.

    Attributes:
        table: one row an image with the columns image, path, label, sorted by image.
        root: the folder that relative paths start from.
        skipped: files that are left out already, with the reason.
        others: what else is known of the images, in the same order; None for nothing.
    """

    table: pd.DataFrame
    root: Path
    skipped: list[tuple[str, str]]
    others: pd.DataFrame | None


def _table_stage(
    store: Path,
    settings: FolderImages | CatalogueImages,
    parameters: dict[str, Any],
    listed: _Listed,
    num_workers: int,
) -> Path:
    """Run the images stage on images that are on disk; missing and empty files are left out."""
    table, root = listed.table, listed.root
    states = FileStates.read(root, table["path"], len(table))
    problems = np.flatnonzero(states.problems).tolist()
    skipped = listed.skipped + [(str(table["image"].iat[row]), states.reason(row)) for row in problems]
    if len(problems) == len(table):
        raise InputError(f"none of the {len(skipped)} images can be read, first {skipped[0][0]}: {skipped[0][1]}")
    content = states.fingerprint(pa.chunked_array([pa.array(table["image"])]))
    if not table["path"].equals(table["image"]):  # else a file that has moved would be looked for where it was
        content = fingerprint([content, states.fingerprint(pa.chunked_array([pa.array(table["path"])]))])
    if len(skipped) > len(problems):
        content = fingerprint([content, skipped])
    reading = _reading(settings)
    decisive = {"min_side": settings.min_side, "max_side": settings.max_side, "reading": reading.to_json()}
    stage = Stage("images", settings.kind, store, parameters | decisive, {"files": content}, version=_VERSION)
    there = states.problems == 0
    pixels = fingerprint([content, str(root), decisive, _READING])
    if PARTITION in table:  # which decides the shards of features
        pixels = fingerprint([pixels, table.loc[there, PARTITION].tolist()])

    def make(work: Path) -> dict[str, Any]:
        counts = _write_table(work, table[there], str(root), settings, skipped=skipped)
        counts |= write_wcs(work, table[there], root, reading.bands, num_workers)
        if listed.others is not None:
            listed.others[there].to_parquet(work / CATALOGUE, index=False)
        return counts | {"pixels": pixels}

    return stage.run(make)


def _embedded_stage(store: Path, settings: CatalogueImages, parameters: dict[str, Any], catalogue: Catalogue) -> Path:
    """Run the images stage on a catalogue that holds the bytes of its images: they are written into the artifact."""
    reading = _reading(settings)
    decisive = {"min_side": settings.min_side, "max_side": settings.max_side, "reading": reading.to_json()}
    stage = Stage("images", settings.kind, store, parameters | decisive, version=_VERSION)
    pixels = fingerprint([parameters, decisive, _READING])

    def make(work: Path) -> dict[str, Any]:
        table = catalogue.images
        problems = dict(write_embedded(settings.path, settings.path_column, work))
        reasons = table["path"].map(problems)
        there = reasons.isna().to_numpy()
        skipped = list(zip(table["image"][~there], reasons[~there], strict=True))
        if not there.any():
            raise InputError(f"none of the {len(skipped)} images can be read, first {skipped[0][0]}: {skipped[0][1]}")
        catalogue.others[there].to_parquet(work / CATALOGUE, index=False)
        return _write_table(work, table[there], ".", settings, skipped=skipped) | {"pixels": pixels}

    return stage.run(make)


def _reading(settings: ImageFiles) -> Reading:
    return Reading(settings.stretch, None if settings.bands is None else tuple(settings.bands), settings.max_pixels)


def _write_table(
    work: Path, table: pd.DataFrame, root: str, sides: ImageSides, skipped: list[tuple[str, str]]
) -> dict[str, Any]:
    types = {"image": "string", "path": "string", "label": "string", PARTITION: "int32"}
    table.astype({name: types[name] for name in table.columns}).to_parquet(work / "images.parquet", index=False)
    pd.DataFrame(skipped, columns=["image", "reason"]).to_csv(work / "skipped.csv", index=False)
    reading = _reading(sides) if isinstance(sides, ImageFiles) else DEFAULT_READING
    source = {"root": root, "min_side": sides.min_side, "max_side": sides.max_side, "reading": reading.to_json()}
    (work / "source.json").write_text(json.dumps(source) + "\n", encoding="utf-8")
    logger.info(
        "images: %d, of which %d have a label; %d skipped", len(table), table["label"].notna().sum(), len(skipped)
    )
    return {
        "num_images": len(table),
        "num_labelled_images": int(table["label"].notna().sum()),
        "num_skipped_images": len(skipped),
        "skipped_images": [f"{image}: {reason}" for image, reason in skipped[:_MAX_NAMES_IN_MANIFEST]],
    }
