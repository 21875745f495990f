"""Where the arrangement stage found structures, read so that memory holds some 40 bytes a structure and image."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from minia.mining.arrangement.tables import PLACES

_NUMBERS = ("structure", "image", "share", "x", "y", "size", "angle")


@dataclass(frozen=True)
class PlacedParts:
    """Parts in their places, by structure and then by image, as the arrangement stage writes them.

    Attributes:
        table: the columns structure, image, share, x, y, size and angle (see the arrangement's ``places.parquet``).
        keypoints: a list a row: the keypoints, numbered inside the image.
        structures: those that are in it, ascending.
    """

    table: pd.DataFrame
    keypoints: pa.ListArray
    structures: npt.NDArray[np.int64]

    @classmethod
    def load(cls, artifact: Path) -> PlacedParts | None:
        """Those of an artifact of the arrangement stage; None of one of the mining stage, which has none."""
        file = artifact / PLACES
        if not file.exists():
            return None
        read = pq.read_table(file, columns=[*_NUMBERS, "keypoints"])
        table = read.select(list(_NUMBERS)).to_pandas()
        structures = np.unique(table["structure"].to_numpy()).astype(np.int64)
        return cls(table, read["keypoints"].combine_chunks(), structures)

    def of(self, structure: int) -> pd.DataFrame:
        """The rows of a structure, by image."""
        return self.table.iloc[slice(*self._rows_of(structure))]

    @functools.cached_property
    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {name: self.table[name].to_numpy() for name in _NUMBERS}

    def find(self, structure: int, image: int) -> int | None:
        """The row of a structure in an image; None where it is not."""
        images, (first, last) = self._arrays["image"], self._rows_of(structure)
        at = int(first + np.searchsorted(images[first:last], image))
        return at if at < last and images[at] == image else None

    def _rows_of(self, structure: int) -> npt.NDArray[np.int64]:
        """The first row of a structure and the one after its last."""
        return np.searchsorted(self._arrays["structure"], [structure, structure + 1])

    def place(self, row: int) -> tuple[float, float, float, float]:
        """x, y, size and angle of a row."""
        x, y, size, angle = (float(self._arrays[name][row]) for name in ("x", "y", "size", "angle"))
        return x, y, size, angle
