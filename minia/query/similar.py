"""The images of a run that are most like others: the cosine of the angle between two vectors of non-negative numbers.

By words, an image's vector is its bag: the frequency of each word times the logarithm of the number of images over
that of those that hold the word, so that words that are everywhere say nothing (Sivic and Zisserman 2003). By
structures it is its overlaps with the structures that it holds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse
from numpy.typing import NDArray

from minia.mining.arrangement.aside import Aside
from minia.mining.lists.listdb import ListDB, blocks_of
from minia.mining.matching.stage import MATCHES

_ENTRIES_AT_A_TIME = 1 << 22
_IMAGES_AT_A_TIME = 1 << 14
_MATCHES_AT_HAND = 1 << 22  # some 100 bytes each
_OF_MATCHES = ["image", "structure", "overlap"]
_NUMBERED = pa.schema([("image", pa.int32()), ("structure", pa.int32()), ("overlap", pa.float32())])


@dataclass(frozen=True)
class Vectors:
    """The vectors of a run's images.

    Attributes:
        offsets: (num_images + 1,) int64, where each image's entries start.
        columns: (num_entries,) int32.
        values: (num_entries,) numbers; both may be mapped from files.
        weights: (num_columns,) float64, what values are multiplied by.
    """

    offsets: NDArray[np.int64]
    columns: NDArray[np.int32]
    values: NDArray[np.int32] | NDArray[np.float32]
    weights: NDArray[np.float64]

    @classmethod
    def of_bags(cls, bags: ListDB) -> Vectors:
        """Vectors by words; a bag holds a word once."""
        weights = np.log(max(1, bags.num_lists) / np.maximum(bags.item_counts(), 1))
        return cls(bags.offsets, bags.items, bags.frequencies, weights)

    @classmethod
    def of_matches(cls, matching: Path, images: pa.Array, num_structures: int) -> Vectors:
        """Vectors by structures.

        Args:
            matching: artifact of the matching stage.
            images: the names of all images, in their order.
            num_structures: of the run.

        Raises:
            OSError: the disk of temporary files is full, which holds 20 bytes a match where there are many.
        """
        file = pq.ParquetFile(matching / MATCHES)
        weights = np.ones(num_structures)
        if file.metadata.num_rows <= _MATCHES_AT_HAND:
            table = file.read(columns=_OF_MATCHES)
            matrix = _matrix(_numbered(table, images), (0, len(images)), num_structures)
            return cls(matrix.indptr.astype(np.int64), matrix.indices, matrix.data, weights)
        with (
            tempfile.TemporaryDirectory(prefix="minia-query-") as folder,
            Aside(Path(folder) / "matches", _NUMBERED) as aside,
        ):
            for table in _pieces(file):
                matches = _numbered(table, images)
                where = matches["image"].to_numpy() // _IMAGES_AT_A_TIME
                order = np.argsort(where, kind="stable")
                aside.put_each(where[order], matches.take(pa.array(order)))
            return cls(*_on_disk(aside, len(images), num_structures), weights)

    def most_alike(
        self, asked: scipy.sparse.csr_matrix, number: int, *, per_image: bool = True
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The images that are most like those asked about.

        Args:
            asked: (num_asked, num_columns) their own values.
            number: how many, at most.
            per_image: divide by the length of an image's vector, so that 1 is the same direction; False lets images
                that hold much beside what is asked for come as early as others.

        Returns:
            (num_asked, n) images, best first, those that are equally alike in their order; and how alike they are.
            Images without anything in common have a likeness of 0.
        """
        vectors = scipy.sparse.csr_matrix(asked, dtype=np.float64).multiply(self.weights).tocsr()
        lengths = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
        columns = np.asarray((vectors.multiply(self.weights) / np.maximum(lengths, 1e-30)[:, None]).todense()).T
        best = np.zeros((asked.shape[0], 0), dtype=np.int64)
        alike = np.zeros((asked.shape[0], 0))
        if not number:
            return best, alike
        for first, last in blocks_of(self.offsets, _ENTRIES_AT_A_TIME):
            for begin in range(first, last, _IMAGES_AT_A_TIME):
                end = min(begin + _IMAGES_AT_A_TIME, last)
                scores = (self._block(begin, end, per_image) @ np.ascontiguousarray(columns)).T
                rows = np.broadcast_to(np.arange(begin, end), scores.shape)
                best, alike = _best(np.hstack([best, rows]), np.hstack([alike, scores]), number)
        return best, alike

    def _block(self, begin: int, end: int, per_image: bool) -> scipy.sparse.csr_matrix:
        """The values of some images, divided by the lengths of their weighted vectors."""
        entries = slice(int(self.offsets[begin]), int(self.offsets[end]))
        offsets = self.offsets[begin : end + 1] - self.offsets[begin]
        columns, values = np.asarray(self.columns[entries]), np.asarray(self.values[entries], dtype=np.float64)
        if per_image:
            row = np.repeat(np.arange(end - begin), np.diff(offsets))
            lengths = np.sqrt(np.bincount(row, (values * self.weights[columns]) ** 2, minlength=end - begin))
            values = values / np.maximum(lengths, 1e-30)[row]
        return scipy.sparse.csr_matrix((values, columns, offsets), shape=(end - begin, len(self.weights)))


def _pieces(file: pq.ParquetFile) -> Iterator[pa.Table]:
    """The matches, several row groups at a time: to look up the names of few takes as long as of many."""
    groups: list[int] = []
    for number in range(file.metadata.num_row_groups):
        groups.append(number)
        count = sum(file.metadata.row_group(group).num_rows for group in groups)
        if count >= _MATCHES_AT_HAND or number == file.metadata.num_row_groups - 1:
            yield file.read_row_groups(groups, columns=_OF_MATCHES)
            groups = []


def _numbered(matches: pa.Table, images: pa.Array) -> pa.Table:
    """Matches with the numbers of their images."""
    rows = pc.index_in(matches["image"], value_set=images)
    return pa.table([rows, matches["structure"], matches["overlap"]], schema=_NUMBERED)


def _on_disk(
    aside: Aside, num_images: int, num_structures: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """Where each image's entries start, and the entries, mapped from files that go when they are not used any more."""
    offsets = [np.zeros(1, np.int64)]
    with tempfile.TemporaryFile() as columns, tempfile.TemporaryFile() as values:
        for number, first in enumerate(range(0, num_images, _IMAGES_AT_A_TIME)):
            bounds = first, min(first + _IMAGES_AT_A_TIME, num_images)
            matrix = _matrix(aside.take(number), bounds, num_structures)
            offsets.append(offsets[-1][-1] + matrix.indptr[1:].astype(np.int64))
            columns.write(matrix.indices.astype(np.int32).data)
            values.write(matrix.data.astype(np.float32).data)
        columns.flush()
        values.flush()
        return np.concatenate(offsets), np.memmap(columns, np.int32, "r"), np.memmap(values, np.float32, "r")


def _matrix(matches: pa.Table, bounds: tuple[int, int], num_structures: int) -> scipy.sparse.csr_matrix:
    """The overlaps of images ``bounds[0]`` to ``bounds[1] - 1`` with all structures."""
    image, structure, overlap = (column.to_numpy() for column in matches.columns)
    shape = bounds[1] - bounds[0], num_structures
    return scipy.sparse.csr_matrix((overlap, (image - bounds[0], structure)), shape=shape, dtype=np.float32)


def _best(
    rows: NDArray[np.int64], scores: NDArray[np.float64], number: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The largest scores of each line, falling, with their rows; of equal ones the first."""
    if scores.shape[1] > number:  # sorting all would take most of the time
        smallest = np.partition(scores, scores.shape[1] - number, axis=1)[:, scores.shape[1] - number]
        chosen = [_first_largest(line, least, number) for line, least in zip(scores, smallest.tolist(), strict=True)]
        picked = np.stack(chosen) if chosen else np.zeros((0, number), np.int64)
        rows, scores = np.take_along_axis(rows, picked, axis=1), np.take_along_axis(scores, picked, axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _first_largest(scores: NDArray[np.float64], least: float, number: int) -> NDArray[np.int64]:
    """The places of so many largest scores, ascending; of those equal to the least one, the first."""
    above, equal = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
    return np.sort(np.concatenate([above, equal[: number - len(above)]]))
