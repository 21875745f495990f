"""What is known of the images: columns of their catalogue, their places on the sky, and what the run itself counts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from minia.core.progress import progress
from minia.data.catalogue import CATALOGUE
from minia.data.sky import WCS_TABLE, SkyPositions
from minia.mining.report.associations import ranks
from minia.mining.report.run import Run

_MOST_COLUMNS = 60  # that structures are compared in: 4 bytes an image each
_MOST_VALUES = 12  # of a column of words, to be compared in each
_FEWEST_IMAGES = 5  # with a number; of a word, on the average
_SKY = (("ra", "dec"), ("raj2000", "dej2000"), ("ra_deg", "dec_deg"), ("alpha", "delta"))

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Columns:
    """Numbers known of the images, as ranks.

    Attributes:
        names: of the columns.
        values: for a column of words, which of its values this one is about; None for a column of numbers.
        ranks: (num_columns, num_images) float32, nan where there is none.
        ties: (num_columns,) float64, see ``associations.shift``.
        catalogue: that some of them are of.
    """

    names: list[str]
    values: list[str | None]
    ranks: npt.NDArray[np.float32]
    ties: Numbers
    catalogue: Catalogue

    @classmethod
    def of(cls, run: Run) -> Columns:
        """The columns in which the images of a run differ, those that the run counts itself first."""
        names: list[str] = []
        values: list[str | None] = []
        ranked: list[npt.NDArray[np.float32]] = []
        ties: list[float] = []
        catalogue = Catalogue.of(run)
        for name, value, numbers in _columns(run, catalogue):
            known = numbers[np.isfinite(numbers)]
            if len(known) < _FEWEST_IMAGES or np.ptp(known) == 0:
                continue
            if len(names) == _MOST_COLUMNS:
                break
            rank, tie = ranks(numbers)
            names.append(name)
            values.append(value)
            ranked.append(rank.astype(np.float32))
            ties.append(tie)
        table = np.stack(ranked) if ranked else np.zeros((0, len(run.names)), np.float32)
        return cls(names, values, table, np.array(ties, dtype=np.float64), catalogue)


def _columns(run: Run, catalogue: Catalogue) -> Iterator[tuple[str, str | None, Numbers]]:
    yield "number of words", None, run.bags.sizes.astype(np.float64)
    if run.features is not None:
        for name, text in (("width", "width in pixels"), ("height", "height in pixels")):
            yield text, None, run.features.images[name].to_numpy(np.float64)
    for name in catalogue.names:
        column = catalogue.read(name)
        if pa.types.is_boolean(column.type) or pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            yield name, None, _numbers(column)
        elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            counts = pc.value_counts(column.drop_null()).to_pylist()
            known = sum(entry["counts"] for entry in counts)
            if name != "label" and 2 <= len(counts) <= min(_MOST_VALUES, known / _FEWEST_IMAGES):
                for value in sorted(entry["values"] for entry in counts):
                    yield name, value, _numbers(pc.equal(column, value))


def _numbers(column: pa.Array) -> Numbers:
    numbers = column.cast(pa.float64()) if not pa.types.is_boolean(column.type) else column.cast(pa.int8())
    return np.asarray(numbers.to_numpy(zero_copy_only=False), dtype=np.float64)


@dataclass(frozen=True)
class Catalogue:
    """What a run's catalogue says of its images.

    Attributes:
        file: the table; None where there is none.
        names: of its columns, beside the image's name.
        rows: (num_images,) the table's row of each image of the run; null where it has none.
    """

    file: Path | None
    names: list[str]
    rows: pa.Array

    @classmethod
    def of(cls, run: Run) -> Catalogue:
        """That of a run."""
        file = run.artifacts["images"] / CATALOGUE if "images" in run.artifacts else None
        if file is None or not file.is_file():
            return cls(None, [], pa.nulls(len(run.names), pa.int32()))
        images = pq.read_table(file, columns=["image"])["image"].combine_chunks().cast(pa.large_string())
        names = [name for name in pq.read_schema(file).names if name != "image"]
        return cls(file, names, pc.index_in(pa.array(run.names, pa.large_string()), images))

    def read(self, name: str) -> pa.Array:
        """A column, an entry an image of the run."""
        return pq.read_table(self.file, columns=[name])[name].combine_chunks().take(self.rows)

    def of_images(self, images: npt.NDArray[np.int64]) -> Iterator[list[list[Any]]]:
        """For each of some images the names of the columns and what they say, as text or number; not what is missing.

        Args:
            images: (n,) numbers of images.
        """
        columns = [self.read(name).take(pa.array(images)) for name in self.names]
        for place in range(len(images)):
            values = [column[place].as_py() for column in columns]
            yield [
                [name, _plain(value)]
                for name, value in zip(self.names, values, strict=True)
                if value is not None and not (isinstance(value, float) and math.isnan(value))
            ]


def _plain(value: Any) -> str | int | float:
    """A value as JSON can hold it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if isinstance(value, bool | int | str) else str(value)


def sky_positions(run: Run, catalogue: Catalogue) -> Numbers | None:
    """Right ascension and declination of each image in degrees, (num_images, 2); nan where it is not known.

    They are the middles of FITS images whose header knows it, else two columns of the catalogue that are named for it.

    Args:
        run: of which.
        catalogue: of the run.

    Returns:
        None where no image has a place on the sky.
    """
    by_name = {name.lower(): name for name in reversed(catalogue.names)}
    if "images" in run.artifacts and (run.artifacts["images"] / WCS_TABLE).is_file():
        places = _middles(run, SkyPositions.load(run.artifacts["images"]))
    else:
        pair = next((pair for pair in _SKY if all(name in by_name for name in pair)), None)
        if pair is None:
            return None
        columns = [pd.to_numeric(catalogue.read(by_name[name]).to_pandas(), errors="coerce") for name in pair]
        places = np.column_stack([column.to_numpy(np.float64, na_value=np.nan) for column in columns])
    outside = ~((places[:, 0] >= -360) & (places[:, 0] <= 360) & (np.abs(places[:, 1]) <= 90))
    places[outside] = np.nan
    return None if outside.all() else places


def _middles(run: Run, sky: SkyPositions) -> Numbers:
    places = np.full((len(run.names), 2), np.nan)
    if run.features is None:
        return places
    sizes = run.features.images[["width", "height"]].to_numpy(np.float64)
    here = np.flatnonzero(run.names.isin(sky.table.index).to_numpy()).tolist()
    with progress("places on the sky", len(here), "image") as advance:
        for row in here:
            places[row] = sky.of_pixels(str(run.names.iat[row]), (sizes[row : row + 1] - 1) / 2)[0]
            advance(1)
    return places
