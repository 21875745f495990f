"""The structures of a run that new images hold, as the matching stage finds them.

Structures that the run found by the arrangement of their words are sought by it (see ``placed``); the others by their
words: where the overlap of image and structure is high enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from minia.core.artifact import InputError
from minia.mining.lists.listdb import ListDB
from minia.mining.matching.overlap import near_miss, overlap_matrix
from minia.mining.matching.place import place_of
from minia.mining.matching.settings import OverlapMatching
from minia.mining.structures.stage import load_structures
from minia.query.look import SeenImages
from minia.query.placed import PlacedParts
from minia.query.places import Keypoints, places_of
from minia.query.recorded import Recorded

_NOWHERE = (float("nan"),) * 4


@dataclass(frozen=True)
class Held:
    """A structure that an image holds.

    Attributes:
        structure: its number.
        overlap: of the image and the structure; of an arranged one the share of its spots that are in their place.
        keypoints: (n,) int32, the keypoints that are it, ascending.
        place: x, y, diameter in pixels, and angle in degrees from x towards y; nan where they are not known.
    """

    structure: int
    overlap: float
    keypoints: NDArray[np.int32]
    place: tuple[float, float, float, float]


@dataclass(frozen=True)
class Structures:
    """The structures of a run.

    Attributes:
        run: the run.
        lists: a list a structure, items words.
        matching: which overlap makes a match.
        placed: those that the run found by the arrangement of their words.
    """

    run: Recorded
    lists: ListDB
    matching: OverlapMatching
    placed: PlacedParts

    @classmethod
    def of(cls, run: Recorded, num_words: int) -> Structures:
        """Read the structures of a run, those that its arrangement lists where it has one.

        Raises:
            InputError: a structure holds a word outside the vocabulary.
        """
        folder = run.artifacts.get("arrangement", run.artifacts["mining"])
        try:
            lists = load_structures(folder, num_words)
        except InputError as error:
            raise InputError(f"{folder}: {error}") from None
        return cls(run, lists, run.matching, PlacedParts.of(run, lists))

    def held_by(self, seen: SeenImages) -> list[list[Held]]:
        """The structures that each image holds, of falling overlap, of equal overlap in their order."""
        found: list[list[Held]] = [[] for _ in seen.images]
        if self.placed.parts and seen.images:
            images = [
                Keypoints(each["keypoints"], each["sizes"], each["angles"], words)
                for each, words in zip(seen.features, seen.words, strict=True)
            ]
            for each in self.placed.find(places_of(self.run, images, self.lists.num_items)):
                found[each.image].append(Held(each.structure, each.share, each.keypoints, each.place))
        self._by_words(seen, found)
        return [sorted(own, key=lambda each: (-each.overlap, each.structure)) for own in found]

    def vectors(self, held: list[list[Held]]) -> scipy.sparse.csr_matrix:
        """(num_images, num_structures) the overlaps."""
        rows = np.repeat(np.arange(len(held)), [len(own) for own in held])
        columns = [each.structure for own in held for each in own]
        values = [each.overlap for own in held for each in own]
        return scipy.sparse.csr_matrix((values, (rows, columns)), shape=(len(held), self.lists.num_lists))

    def _by_words(self, seen: SeenImages, found: list[list[Held]]) -> None:
        """Add the structures that are matched by their words, and the near misses of arranged ones."""
        in_place = [{each.structure for each in own} for own in found]
        overlaps = overlap_matrix(seen.bags, self.lists, self.matching.formula).tocoo()
        least = np.float32(self.matching.min_overlap)
        values = near_miss(overlaps.data, self.placed.near_misses[overlaps.col])
        values[overlaps.data < least] = 0
        for row, structure, value in zip(overlaps.row.tolist(), overlaps.col.tolist(), values, strict=True):
            if value < least or structure in in_place[row]:
                continue
            chosen = np.flatnonzero(np.isin(seen.words[row], self.lists[structure])).astype(np.int32)
            place = _NOWHERE
            if len(chosen) and structure not in self.placed.parts:
                features = seen.features[row]
                place = (*place_of(features["keypoints"][chosen], features["sizes"][chosen]), float("nan"))
            found[row].append(Held(structure, float(value), chosen, place))
