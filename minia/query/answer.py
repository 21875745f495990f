"""What a query found, as tables.

``images``, a row an image asked about that could be read:

==============  =======  ==========================================================================
image           string   its name: the file's name, or its path in the folder
path            string   its file
width, height   int32    in pixels
num_keypoints   int32    keypoints that were found
num_words       int32    distinct visual words in its bag
num_structures  int32    structures that it holds
==============  =======  ==========================================================================

``structures``, a row an image and structure that it holds, best first: image, ``structure`` (its number in the run),
``overlap``, ``num_keypoints`` of the image that are it, ``x``, ``y`` and ``size``, the middle and the diameter of the
place in pixels, ``angle`` in degrees from x towards y where it has one, and ``keypoints``, the keypoints' numbers.
Where FITS images have a place on the sky, also ``part_ra`` and ``part_dec`` of the middle in degrees, ICRS, and
``part_size`` in seconds of arc.

``similar``, a row an image and one of the images of the run most like it: image, ``rank`` from 1, ``similar``, the name
of the run's image, ``likeness``, from 0 to 1, and ``label``, the run's label of that image.

``found``, only of a query by an example: see :func:`minia.query.example.find_example`, and ``label``.

``failed``: image and ``reason``, the files that could not be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from minia.query.held import Held
from minia.query.look import SeenImages

_STRUCTURES = pa.schema(
    [
        ("image", pa.string()),
        ("structure", pa.int32()),
        ("overlap", pa.float32()),
        ("num_keypoints", pa.int32()),
        ("x", pa.float32()),
        ("y", pa.float32()),
        ("size", pa.float32()),
        ("angle", pa.float32()),
        ("keypoints", pa.list_(pa.int32())),
    ]
)
_SIMILAR = pa.schema(
    [
        ("image", pa.string()),
        ("rank", pa.int32()),
        ("similar", pa.string()),
        ("likeness", pa.float32()),
        ("label", pa.string()),
    ]
)
_COUNTS = ("width", "height", "num_keypoints", "num_words", "num_structures")
_IMAGES = pa.schema([("image", pa.string()), ("path", pa.string()), *((name, pa.int32()) for name in _COUNTS)])


@dataclass(frozen=True)
class Answer:
    """What a query found: tables (see the module).

    Attributes:
        images: the images asked about.
        structures: the structures that they hold.
        similar: the images of the run most like them.
        failed: the files that could not be read.
        found: where else a marked place is; None where none was marked.
    """

    images: pd.DataFrame
    structures: pd.DataFrame
    similar: pd.DataFrame
    failed: pd.DataFrame
    found: pd.DataFrame | None = None

    def __repr__(self) -> str:
        counts = [f"{len(self.images):,} images", f"{len(self.structures):,} structures in them"]
        counts += [f"{len(self.failed):,} not readable"] if len(self.failed) else []
        counts += [f"found in {len(self.found):,} images"] if self.found is not None else []
        return f"Answer({', '.join(counts)})"


@dataclass
class Gathering:
    """An answer that grows.

    Attributes:
        labels: of the run's images, in their order; null where there is none.
        names: of the run's images, in their order.
    """

    names: pa.Array
    labels: pa.Array
    _images: list[tuple[Any, ...]] = field(default_factory=list)
    _structures: list[pa.Table] = field(default_factory=list)
    _similar: list[pa.Table] = field(default_factory=list)
    _failed: list[tuple[str, str]] = field(default_factory=list)

    def add(
        self, seen: SeenImages, held: Sequence[Sequence[Held]], rows: NDArray[np.int64], alike: NDArray[np.float64]
    ) -> None:
        """Add what was found of some images.

        Args:
            seen: the images.
            held: the structures of each.
            rows: (num_images, n) the run's images most like each, best first.
            alike: (num_images, n) how alike they are.
        """
        self._failed += seen.failed
        sizes = seen.bags.sizes.tolist()
        for image, features, num_words, own in zip(seen.images, seen.features, sizes, held, strict=True):
            width, height = features["image_size"].tolist()
            counts = (width, height, len(features["scores"]), num_words, len(own))
            self._images.append((image.name, str(image.path), *counts))
        names = [image.name for image in seen.images]
        self._structures.append(_structures_table(names, held))
        row = np.repeat(np.arange(len(names)), rows.shape[1])
        some = np.flatnonzero(alike.ravel() > 0)
        of_run = pa.array(rows.ravel()[some])
        columns = [
            pa.array(names, pa.string()).take(pa.array(row[some])),
            np.broadcast_to(np.arange(1, rows.shape[1] + 1), rows.shape).ravel()[some].astype(np.int32),
            self.names.take(of_run),
            alike.ravel()[some].astype(np.float32),
            self.labels.take(of_run),
        ]
        self._similar.append(pa.table(columns, schema=_SIMILAR))

    def answer(self, found: pd.DataFrame | None) -> Answer:
        """All together, with where else a marked place is."""
        columns = [[row[place] for row in self._images] for place in range(len(_IMAGES))]
        images = pa.table(columns, schema=_IMAGES)
        if found is not None:
            labels = dict(zip(self.names.to_pylist(), self.labels.to_pylist(), strict=True))
            found = found.assign(label=found["image"].map(labels).astype("string"))
        return Answer(
            images.to_pandas(),
            pa.concat_tables([_STRUCTURES.empty_table(), *self._structures]).combine_chunks().to_pandas(),
            pa.concat_tables([_SIMILAR.empty_table(), *self._similar]).combine_chunks().to_pandas(),
            pd.DataFrame(self._failed, columns=["image", "reason"]),
            found,
        )


def _structures_table(names: Sequence[str], held: Sequence[Sequence[Held]]) -> pa.Table:
    flat = [(name, each) for name, own in zip(names, held, strict=True) for each in own]
    places = np.array([each.place for _, each in flat], dtype=np.float32).reshape(-1, 4)
    columns = [
        [name for name, _ in flat],
        [each.structure for _, each in flat],
        np.array([each.overlap for _, each in flat], dtype=np.float32),
        [len(each.keypoints) for _, each in flat],
        *places.T,
        [each.keypoints for _, each in flat],
    ]
    return pa.table(
        [pa.array(column, kind.type) for column, kind in zip(columns, _STRUCTURES, strict=True)], _STRUCTURES
    )
