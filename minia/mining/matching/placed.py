"""Matches of consecutive images, and where the arrangement stage found structures in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse
from numpy.typing import NDArray

from minia.mining.arrangement.tables import PLACES
from minia.mining.matching.overlap import near_miss_scale

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


@dataclass(frozen=True)
class Placed:
    """Where structures are, as the arrangement stage found it: 12 bytes a structure and image in memory.

    Attributes:
        file: its ``places.parquet``, by structure and image; None where it did not run.
        structure, image: (n,) int32.
        share: (n,) float32.
    """

    file: Path | None
    structure: NDArray[np.int32]
    image: NDArray[np.int32]
    share: NDArray[np.float32]

    @classmethod
    def load(cls, mining: Path) -> Placed:
        """Read an artifact of the arrangement stage, or of the mining stage, which has no places."""
        file = mining / PLACES
        if file.exists() and pq.read_metadata(file).num_rows:
            table = pq.read_table(file, columns=["structure", "image", "share"])
            return cls(file, *(table[name].to_numpy() for name in ("structure", "image", "share")))
        return cls(None, np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))

    def within(self, span: Span) -> SpanPlaces:
        """The rows of a span's images."""
        columns = ["structure", "image", *OF_PLACE, "keypoints"]
        if self.file is None:
            kinds = [pa.int32(), pa.int32(), *(SCHEMA.field(name).type for name in OF_PLACE), pa.list_(pa.int32())]
            return SpanPlaces(pa.schema(list(zip(columns, kinds, strict=True))).empty_table())
        inside = (pc.field("image") >= span.first) & (pc.field("image") < span.last)
        return SpanPlaces(pq.read_table(self.file, columns=columns, filters=inside))

    def put_in(self, span: Span, min_overlap: float) -> Span:
        """A span whose structures with places match by these.

        An image that does not hold the part in its place has the overlap of its words wherever they are, scaled to be
        less than that of any image that does, and than one half: a near miss, to be had by a low ``min_overlap``.
        """
        if self.file is None:
            return span
        inside = (self.image >= span.first) & (self.image < span.last)
        cells = (self.share[inside], (self.image[inside] - span.first, self.structure[inside]))
        own = scipy.sparse.csc_matrix(cells, span.matches.shape, dtype=np.float32)
        scale = near_miss_scale(self.structure, self.share, span.matches.shape[1])
        near = (span.matches @ scipy.sparse.diags(scale)).tocsc()
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
        first, last = np.searchsorted(self.table["structure"].to_numpy(), [structure, structure + 1])
        own = self.table.slice(first, last - first)
        known = own["image"].to_numpy() if first < last else np.zeros(0, np.int64)
        return own.take(np.searchsorted(known, images[np.isin(images, known)]))


def no_places(number: int) -> pa.Table:
    """So many rows of the columns ``OF_PLACE`` without a place."""
    return pa.table({name: pa.nulls(number, SCHEMA.field(name).type) for name in OF_PLACE})
