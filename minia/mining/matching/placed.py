"""Matches of consecutive images, and where the arrangement stage found structures in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import scipy.sparse
from numpy.typing import NDArray

from minia.mining.arrangement.places_file import ByImage, PlacesFile
from minia.mining.arrangement.tables import SCHEMA as OF_ARRANGEMENT
from minia.mining.matching.overlap import most_of_near_misses, near_miss

OF_PLACE = ("x", "y", "size", "angle", "inliers")
SCHEMA = pa.schema(
    [("structure", pa.int32()), ("image", pa.string()), ("overlap", pa.float32()), ("keypoints", pa.list_(pa.int32()))]
    + [(name, pa.float32()) for name in ("x", "y", "size", "angle")]
    + [("inliers", pa.int32())]
)


@dataclass(frozen=True)
class Span:
    """The matches of consecutive images.

    Attributes:
        first: its first image.
        last: the one after its last.
        matches: (last - first, num_structures) float32 by column: the overlaps that are high enough.
    """

    first: int
    last: int
    matches: scipy.sparse.csc_matrix


def near_misses(file: PlacesFile, num_structures: int) -> NDArray[np.float32]:
    """The overlap that near misses of each structure have at most (see ``most_of_near_misses``).

    Args:
        file: where the arrangement found structures.
        num_structures: of all.
    """
    most = np.full(num_structures, np.inf, dtype=np.float32)
    for rows in file.pieces(["structure", "share"]):
        structure, share = (rows[name].to_numpy() for name in ("structure", "share"))
        most = np.minimum(most, most_of_near_misses(structure, share, num_structures))
    return most


@dataclass(frozen=True)
class Placed:
    """Where structures are, as the arrangement stage found it, by image.

    Attributes:
        by_image: the rows of its ``places.parquet``; None where it did not run, or placed nothing.
        near_misses: (num_structures,) float32, the overlap that an image which does not hold the structure in its
            place has at most: less than any image that does; inf for structures without places.
    """

    by_image: ByImage | None
    near_misses: NDArray[np.float32]

    @classmethod
    @contextmanager
    def of(cls, mining: Path, num_structures: int, scratch: Path) -> Iterator[Placed]:
        """Open an artifact of the arrangement stage, or of the mining stage, which has no places.

        Args:
            mining: the artifact.
            num_structures: of it.
            scratch: a file for what does not fit memory, not there yet; removed at the end.
        """
        file = PlacesFile.of(mining)
        if file is None or not file.num_rows:
            yield cls(None, np.full(num_structures, np.inf, dtype=np.float32))
            return
        with file.by_image(["structure", "image", "share", *OF_PLACE, "keypoints"], scratch) as by_image:
            yield cls(by_image, near_misses(file, num_structures))

    def within(self, span: Span) -> SpanPlaces:
        """The rows of a span's images."""
        if self.by_image is None:
            return SpanPlaces(OF_ARRANGEMENT.empty_table())
        return SpanPlaces(self.by_image.between(span.first, span.last))

    def put_in(self, span: Span, places: SpanPlaces, min_overlap: float) -> Span:
        """A span whose structures with places match by these.

        An image that does not hold the part in its place has an overlap that rises with that of its words wherever
        they are, less than that of any image that does, and than one half: a near miss, to be had by a low
        ``min_overlap``.

        Args:
            span: by words alone.
            places: its own.
            min_overlap: smallest overlap of a match.
        """
        if self.by_image is None:
            return span
        structure, image, share = (places.table[name].to_numpy() for name in ("structure", "image", "share"))
        own = scipy.sparse.csc_matrix((share, (image - span.first, structure)), span.matches.shape, dtype=np.float32)
        near = span.matches.copy()
        near.data = near_miss(near.data, np.repeat(self.near_misses, np.diff(near.indptr)))
        near.data[near.data < np.float32(min_overlap)] = 0
        near = near - near.multiply(own > 0)
        near.eliminate_zeros()
        return Span(span.first, span.last, (near + own).tocsc().astype(np.float32))


@dataclass(frozen=True)
class SpanPlaces:
    """Where structures are in a span's images.

    Attributes:
        table: of the arrangement stage, by structure and image.
    """

    table: pa.Table

    def of(self, structure: int, images: NDArray[np.int64]) -> pa.Table:
        """The rows of a structure for those of the images that hold it in its place, in the order given."""
        bounds = np.array([structure, structure + 1], np.int32)  # of another type, all rows would be converted
        first, last = np.searchsorted(self.table["structure"].to_numpy(), bounds)
        own = self.table.slice(first, last - first)
        known = own["image"].to_numpy() if first < last else np.zeros(0, np.int64)
        return own.take(np.searchsorted(known, images[np.isin(images, known)]))


def no_places(number: int) -> pa.Table:
    """So many rows of the columns ``OF_PLACE`` without a place."""
    return pa.table({name: pa.nulls(number, SCHEMA.field(name).type) for name in OF_PLACE})
