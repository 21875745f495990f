"""Rows put aside on disk under numbers and taken back by these, in any order, so that memory need not hold them."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


class Aside:
    """A file of rows, each put under a number: a context, at whose end the file is removed.

    All is put before anything is taken. Memory holds some 100 bytes for each time that rows are put; those that are
    taken are mapped, so that the system may drop them at any time.

    Args:
        file: where, not there yet.
        schema: of all rows.
    """

    def __init__(self, file: Path, schema: pa.Schema) -> None:
        self._file, self._schema = file, schema
        self._pieces: dict[int, list[int]] = {}
        self._count = 0
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._reader: pa.ipc.RecordBatchFileReader | None = None

    def __enter__(self) -> Aside:
        self._writer = pa.ipc.new_file(str(self._file), self._schema)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            self._finish()
        except OSError:  # a full disk, which is told already
            if error is None:
                raise
        finally:
            self._reader = None
            self._file.unlink(missing_ok=True)

    def put(self, number: int, rows: pa.Table) -> None:
        """Put rows under a number, after those that are there already.

        Raises:
            OSError: the disk is full.
        """
        assert self._writer is not None, "rows are put before any are taken"
        for piece in rows.to_batches():
            self._writer.write_batch(piece)
            self._pieces.setdefault(number, []).append(self._count)
            self._count += 1

    def put_each(self, numbers: npt.NDArray[np.integer[Any]], rows: pa.Table) -> None:
        """Put each of some rows under its own number; neighbours of one number go together.

        Args:
            numbers: (len(rows),) at least 0.
            rows: to be put.

        Raises:
            OSError: the disk is full.
        """
        begins = np.flatnonzero(np.diff(numbers, prepend=-1))
        for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(numbers)], strict=True):
            self.put(int(numbers[begin]), rows.slice(begin, end - begin))

    def take(self, number: int) -> pa.Table:
        """The rows under a number, in the order in which they were put."""
        if self._reader is None:
            self._finish()
            self._reader = pa.ipc.open_file(pa.memory_map(str(self._file)))
        pieces = [self._reader.get_batch(piece) for piece in self._pieces.get(number, [])]
        return pa.Table.from_batches(pieces, self._schema)

    def _finish(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
