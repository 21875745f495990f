"""The places that the arrangement stage wrote, read so that memory does not grow with the number of images.

``places.parquet`` has its rows by structure, and those of a structure by image. What goes by structure reads it row
group by row group; what goes by image has them put aside on disk by image first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from minia.mining.arrangement.aside import Aside
from minia.mining.arrangement.tables import PLACES, SCHEMA

_ROWS_AT_HAND = 1 << 20  # of a file that is read as a whole: some 100 bytes each
_IMAGES_TOGETHER = 1 << 14  # whose rows are put aside under one number

Numbers = npt.NDArray[np.int64]


class PlacesFile:
    """The rows of a ``places.parquet``.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path)
        self.path = path
        self.num_rows: int = self._file.metadata.num_rows
        bounds = [self._bounds(number) for number in range(self._file.metadata.num_row_groups)]
        self._first, self._last = (np.array([each[side] for each in bounds], np.int64) for side in (0, 1))

    @classmethod
    def of(cls, artifact: Path) -> PlacesFile | None:
        """That of an artifact of the arrangement stage; None of one of the mining stage, which has none."""
        return cls(artifact / PLACES) if (artifact / PLACES).exists() else None

    def _bounds(self, number: int) -> tuple[int, int]:
        """The first and the last structure of a row group."""
        group = self._file.metadata.row_group(number)
        found = group.column(0).statistics if group.num_rows else None
        if found is None or not found.has_min_max:
            return (0, np.iinfo(np.int32).max) if group.num_rows else (0, -1)
        return int(found.min), int(found.max)

    def pieces(self, columns: Sequence[str], structures: Numbers | None = None) -> Iterator[pa.Table]:
        """The rows, some at a time and at least one, in their order.

        Args:
            columns: to read, ``structure`` among them.
            structures: whose rows, ascending; default: all.
        """
        for number, (first, last) in enumerate(zip(self._first.tolist(), self._last.tolist(), strict=True)):
            begin, end = (0, 1) if structures is None else np.searchsorted(structures, [first, last + 1])
            if begin == end:
                continue
            rows = self._read(number, columns)
            if structures is not None and first != last:
                rows = rows.filter(pa.array(np.isin(rows["structure"], structures[begin:end])))
            if len(rows):
                yield rows

    def structures(self) -> Numbers:
        """Those that have places, ascending."""
        found = [np.unique(piece["structure"]) for piece in self.pieces(["structure"])]
        return np.unique(np.concatenate([np.zeros(0, np.int64), *found])).astype(np.int64)

    def of_images(self, columns: Sequence[str], images: Numbers) -> pa.Table:
        """The rows of some images, by structure and then by image.

        Args:
            columns: to read, ``structure`` among them.
            images: ascending.
        """
        some = [self._schema(columns).empty_table()]
        asked = np.zeros(int(images.max(initial=0)) + 2, dtype=np.bool_)  # the last one stands for all beyond
        asked[images] = True
        for number in range(len(self._first)):
            image = self._read(number, ["image"])["image"].to_numpy()
            inside = np.flatnonzero(asked[np.minimum(image, len(asked) - 1)])
            if len(inside):
                some.append(self._read(number, columns).take(pa.array(inside)))
        return pa.concat_tables(some).combine_chunks()

    @contextmanager
    def by_image(self, columns: Sequence[str], scratch: Path, structures: Numbers | None = None) -> Iterator[ByImage]:
        """The rows by image; those of a large file are put aside on disk, as many bytes as it has.

        Args:
            columns: to read, ``structure`` and ``image`` among them.
            scratch: a file for them, not there yet; removed at the end.
            structures: whose rows, ascending; default: all.
        """
        schema = self._schema(columns)
        if self.num_rows <= _ROWS_AT_HAND:
            yield ByImage(pa.concat_tables([schema.empty_table(), *self.pieces(columns, structures)]).combine_chunks())
            return
        with Aside(scratch, schema) as aside:
            for rows in self.pieces(columns, structures):
                aside.put_each(rows["image"].to_numpy() // _IMAGES_TOGETHER, rows)
            yield ByImage(aside)

    def _schema(self, columns: Sequence[str]) -> pa.Schema:
        return pa.schema([(name, SCHEMA.field(name).type) for name in columns])

    def _read(self, number: int, columns: Sequence[str]) -> pa.Table:
        """A row group, of the types that this stage writes whoever wrote it."""
        return self._file.read_row_group(number, list(columns)).select(list(columns)).cast(self._schema(columns))


@dataclass(frozen=True)
class ByImage:
    """Places, to be had by image.

    Attributes:
        rows: all of them, by structure and then by image, or put aside by image.
    """

    rows: pa.Table | Aside

    def between(self, first: int, last: int) -> pa.Table:
        """The rows of images ``first`` to ``last - 1``, by structure and then by image."""
        found = self.rows
        if isinstance(found, Aside):
            together = range(first // _IMAGES_TOGETHER, -(-last // _IMAGES_TOGETHER))
            found = pa.concat_tables([found.take(number) for number in together])
        image = found["image"].to_numpy()
        found = found.filter(pa.array((image >= first) & (image < last)))
        order = np.argsort(found["structure"].to_numpy(), kind="stable")
        return found.take(pa.array(order)).combine_chunks()
