"""The structures of a run that new images hold, by their words, as the matching stage finds them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse
from numpy.typing import NDArray

from minia.core.artifact import InputError
from minia.export.parts import place_of
from minia.mining.arrangement.tables import PLACES
from minia.mining.lists.listdb import ListDB
from minia.mining.matching.overlap import overlap_matrix
from minia.mining.matching.settings import OverlapMatching
from minia.mining.structures.stage import load_structures
from minia.models.extractors.base import Features
from minia.query.look import SeenImages
from minia.query.recorded import Recorded


@dataclass(frozen=True)
class Held:
    """A structure that an image holds.

    Attributes:
        structure: its number.
        overlap: of the image and the structure.
        keypoints: (n,) int32, the keypoints whose word is in it, ascending.
        place: x, y and diameter in pixels; nan without keypoints.
    """

    structure: int
    overlap: float
    keypoints: NDArray[np.int32]
    place: tuple[float, float, float]


@dataclass(frozen=True)
class Structures:
    """The structures of a run.

    Attributes:
        lists: a list a structure, items words.
        matching: which overlap makes a match.
        arranged: those that the run found by the arrangement of their words; here their words alone count.
    """

    lists: ListDB
    matching: OverlapMatching
    arranged: frozenset[int]

    @classmethod
    def of(cls, run: Recorded, num_words: int) -> Structures:
        """Read the structures of a run, those that its arrangement lists where it has one.

        Raises:
            InputError: a structure holds a word outside the vocabulary.
        """
        folder = run.artifacts.get("arrangement", run.artifacts["mining"])
        arranged: frozenset[int] = frozenset()
        if (folder / PLACES).is_file():
            placed = pq.read_table(folder / PLACES, columns=["structure"])["structure"]
            arranged = frozenset(pc.unique(placed).to_pylist())
        try:
            return cls(load_structures(folder, num_words), run.matching, arranged)
        except InputError as error:
            raise InputError(f"{folder}: {error}") from None

    def overlaps(self, bags: ListDB) -> scipy.sparse.csr_matrix:
        """(num_images, num_structures) float32: the overlaps that are high enough for a match."""
        found = overlap_matrix(bags, self.lists, self.matching.formula)
        found.data[found.data < np.float32(self.matching.min_overlap)] = 0
        found.eliminate_zeros()
        found.sort_indices()
        return found

    def held_by(self, seen: SeenImages, overlaps: scipy.sparse.csr_matrix) -> Iterator[list[Held]]:
        """The structures that each image holds, of falling overlap, of equal overlap in their order."""
        for row, (features, words) in enumerate(zip(seen.features, seen.words, strict=True)):
            own = slice(overlaps.indptr[row], overlaps.indptr[row + 1])
            structures, values = overlaps.indices[own], overlaps.data[own]
            order = np.argsort(-values, kind="stable")
            yield [self._held(int(structures[each]), float(values[each]), features, words) for each in order.tolist()]

    def _held(self, structure: int, overlap: float, features: Features, words: NDArray[np.int32]) -> Held:
        chosen = np.flatnonzero(np.isin(words, self.lists[structure])).astype(np.int32)
        place = (float("nan"),) * 3
        if len(chosen):
            place = place_of(features["keypoints"][chosen], features["sizes"][chosen])
        return Held(structure, overlap, chosen, place)
