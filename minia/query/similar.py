"""The images of a run that are most like others: the cosine of the angle between two vectors of non-negative numbers.

By words, an image's vector is its bag: the frequency of each word times the logarithm of the number of images over
that of those that hold the word, so that words that are everywhere say nothing (Sivic and Zisserman 2003). By
structures it is its overlaps with the structures that it holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse
from numpy.typing import NDArray

from minia.mining.lists.listdb import ListDB, blocks_of
from minia.mining.matching.stage import MATCHES

_ENTRIES_AT_A_TIME = 1 << 22
_IMAGES_AT_A_TIME = 1 << 14


@dataclass(frozen=True)
class Vectors:
    """The vectors of a run's images.

    Attributes:
        offsets: (num_images + 1,) int64, where each image's entries start.
        columns: (num_entries,) int32.
        values: (num_entries,) numbers; both may be memory-mapped.
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
        """
        table = pq.read_table(matching / MATCHES, columns=["structure", "image", "overlap"])
        rows = pc.index_in(table["image"], value_set=images).to_numpy()
        entries = (table["overlap"].to_numpy(), (rows, table["structure"].to_numpy()))
        matrix = scipy.sparse.csr_matrix(entries, shape=(len(images), num_structures), dtype=np.float32)
        return cls(matrix.indptr.astype(np.int64), matrix.indices, matrix.data, np.ones(num_structures))

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
