"""Structures that a run found by the arrangement of their words, sought in new images.

The arrangement stage leaves, of each structure that it placed, where it is in each image and which keypoints are it.
What it looked for is, of a concentric part, the bands of radii of its words, which it leaves too. Of a constellation it
is taken back from the keypoints, brought into the part's own frame: those of one word at one place, in two images or
more, are a feature again, at their mean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from minia.core.artifact import read_manifest
from minia.mining.arrangement.concentric import Objects, sightings_in_bands
from minia.mining.arrangement.constellation import Constellation, locate
from minia.mining.arrangement.part import Bands
from minia.mining.arrangement.places import Places
from minia.mining.arrangement.places_file import PlacesFile
from minia.mining.arrangement.sightings import Sightings
from minia.mining.arrangement.tables import SCHEMA, read_bands
from minia.mining.lists.listdb import ListDB
from minia.mining.matching.placed import near_misses
from minia.mining.structures.stage import STRUCTURE_TABLE
from minia.query.places import keypoints_of_run, places_of
from minia.query.recorded import Recorded

_MOST_IMAGES = 2000  # of the run, to learn from
_PER_STRUCTURE = 200  # of those that hold it best
_NEAR = 1.0  # keypoint sizes that keypoints of one feature lie apart
_ZOOM = np.log(1.5)  # of their sizes
_FEWEST = 2  # images that a feature is seen in


@dataclass(frozen=True)
class Sighting:
    """A structure in an image.

    Attributes:
        image: number of the image.
        structure: number of the structure.
        share: spots in their place over all of the structure.
        keypoints: (n,) int32, the keypoints that are it, ascending.
        place: x, y, diameter in pixels, and angle in degrees from x towards y.
    """

    image: int
    structure: int
    share: float
    keypoints: NDArray[np.int32]
    place: tuple[float, float, float, float]


@dataclass(frozen=True)
class PlacedPart(ABC):
    """What is sought of a structure.

    Attributes:
        structure: its number.
        words: its words, ascending, each once.
        num_spots: spots of the part.
        fewest_spots: spots in their place that make a match.
    """

    structure: int
    words: NDArray[np.int32]
    num_spots: int
    fewest_spots: int

    @abstractmethod
    def find(self, places: Places, objects: Objects | None) -> Iterator[Sighting]:
        """Find it in images.

        Args:
            places: the keypoints of the images.
            objects: where they lie in the object of each image, for concentric parts.
        """

    def _each(self, places: Places, seen: Sightings) -> Iterator[Sighting]:
        """The sightings one by one."""
        ends = np.cumsum(seen.counts)
        for row, image in enumerate(seen.images.tolist()):
            keypoints = seen.keypoints[ends[row] - seen.counts[row] : ends[row]]
            inside = np.sort(keypoints - places.offsets[image]).astype(np.int32)
            centre, frame = complex(seen.centre[row]), complex(seen.frame[row])
            angle = float(np.float32(np.degrees(np.angle(seen.frame[row])) % 360))
            where = (centre.real, centre.imag, 2 * abs(frame), angle)
            share = min(1.0, int(seen.spots[row]) / self.num_spots)
            yield Sighting(image, self.structure, share, inside, where)


@dataclass(frozen=True)
class ConcentricPart(PlacedPart):
    """Words in their bands of radii.

    Attributes:
        bands: of the words.
    """

    bands: Bands

    def find(self, places: Places, objects: Objects | None) -> Iterator[Sighting]:
        """See :class:`PlacedPart`."""
        assert objects is not None
        yield from self._each(places, sightings_in_bands(places, objects, self.words, self.bands, self.fewest_spots))


@dataclass(frozen=True)
class ConstellationPart(PlacedPart):
    """Words at places relative to each other.

    Attributes:
        constellation: them.
    """

    constellation: Constellation

    def find(self, places: Places, objects: Objects | None) -> Iterator[Sighting]:
        """See :class:`PlacedPart`."""
        seen = locate(self.constellation, places, places.of_words(self.words))
        yield from self._each(places, seen.select(seen.spots >= self.fewest_spots))


@dataclass(frozen=True)
class PlacedParts:
    """All structures that a run placed.

    Attributes:
        parts: by the structure's number.
        near_misses: (num_structures,) float32, the overlap that an image which does not hold the structure in its
            place has at most: less than any image that does; inf for structures without places.
        concentric: whether they are concentric parts.
    """

    parts: Mapping[int, PlacedPart]
    near_misses: NDArray[np.float32]
    concentric: bool

    @classmethod
    def of(cls, run: Recorded, structures: ListDB) -> PlacedParts:
        """Learn from what a run found; nothing where it arranged nothing.

        Args:
            run: the run.
            structures: those that it lists.
        """
        folder = run.artifacts.get("arrangement")
        file = None if folder is None else PlacesFile.of(folder)
        if folder is None or file is None or not file.num_rows:
            return cls({}, np.full(structures.num_lists, np.inf, np.float32), concentric=False)
        concentric = read_manifest(folder)["parameters"].get("kind") == "concentric"
        spots = pd.read_csv(folder / STRUCTURE_TABLE)[["spots", "fewest_spots"]].to_numpy(np.float64)
        learned = _concentric(folder, spots) if concentric else _constellations(run, file, structures, spots)
        return cls(learned, near_misses(file, structures.num_lists), concentric)

    def find(self, places: Places) -> Iterator[Sighting]:
        """All of them in images, structure by structure."""
        if self.parts and len(places.words):
            objects = Objects.of(places) if self.concentric else None
            for part in self.parts.values():
                yield from part.find(places, objects)


def _concentric(folder: Path, spots: NDArray[np.float64]) -> dict[int, PlacedPart]:
    """The concentric parts that the arrangement stage left; ``spots`` are all and the fewest of each structure."""
    return {
        structure: ConcentricPart(structure, words, int(spots[structure, 0]), int(spots[structure, 1]), bands)
        for structure, (words, bands) in read_bands(folder).items()
    }


def _constellations(
    run: Recorded, file: PlacesFile, structures: ListDB, spots: NDArray[np.float64]
) -> dict[int, PlacedPart]:
    """The constellations, learned from what the run found of each."""
    table = _best_sightings(file)
    rows = np.unique(table["image"].to_numpy(np.int64))
    places = places_of(run, list(keypoints_of_run(run, rows.tolist())), structures.num_items)
    table["row"] = np.searchsorted(rows, table["image"].to_numpy(np.int64))
    parts: dict[int, PlacedPart] = {}
    rows_of = dict(list(table.groupby("structure")))
    for structure in np.unique(table["structure"].to_numpy()).tolist():
        own = rows_of[structure].sort_values("inliers", ascending=False, kind="stable").head(_PER_STRUCTURE)
        begins = places.offsets[own["row"].to_numpy()]
        keypoints = np.concatenate([begin + each for begin, each in zip(begins, own["keypoints"], strict=True)])
        constellation = _constellation(places, own, keypoints)
        words = np.unique(constellation.words)
        number, fewest = spots[structure].astype(int).tolist()
        parts[structure] = ConstellationPart(structure, words, number, fewest, constellation)
    return parts


def _best_sightings(file: PlacesFile) -> pd.DataFrame:
    """The sightings to learn from, in so many images at most: those of the images that hold each structure best."""
    columns = ["structure", "image", "inliers"]
    every, best = np.zeros(0, np.int64), pd.DataFrame({name: np.zeros(0, np.int32) for name in columns})
    for rows in file.pieces(columns):
        if len(every) <= _MOST_IMAGES:
            every = np.union1d(every, rows["image"].to_numpy())
        best = pd.concat([best, rows.to_pandas()])
        best = best.sort_values("inliers", ascending=False, kind="stable").groupby("structure").head(_PER_STRUCTURE)
    if len(every) > _MOST_IMAGES:
        every = np.sort(best["image"].drop_duplicates().head(_MOST_IMAGES).to_numpy(np.int64))
    found: pd.DataFrame = file.of_images(SCHEMA.names, every).to_pandas()
    return found


def _constellation(places: Places, own: pd.DataFrame, keypoints: NDArray[np.int64]) -> Constellation:
    """The features of a part, those seen in most images first.

    Args:
        places: the images.
        own: where the part is in them.
        keypoints: those that are it, image by image.
    """
    row = np.repeat(np.arange(len(own)), [len(each) for each in own["keypoints"]])
    frame = own["size"].to_numpy() / 2 * np.exp(1j * np.deg2rad(own["angle"].to_numpy()))
    centre = own["x"].to_numpy() + 1j * own["y"].to_numpy()
    position = (places.position[keypoints] - centre[row]) / frame[row]
    pose = places.pose[keypoints] / frame[row]
    if not places.turns:
        pose = np.abs(pose).astype(np.complex128)
    words = places.words[keypoints]
    found: list[tuple[int, int, complex, complex]] = []
    for word in np.unique(words[words >= 0]).tolist():
        left = np.flatnonzero(words == word)
        while len(left):
            size = np.abs(pose[left])
            near = np.abs(position[left][:, None] - position[left]) < _NEAR * size[:, None]
            near &= np.abs(np.log(size[:, None] / size)) < _ZOOM
            seed = int(near.sum(axis=1).argmax())
            members = left[near[seed]]
            support = len(np.unique(row[members]))
            if support < min(_FEWEST, len(own)):
                break
            turn = np.exp(1j * np.angle(pose[members].mean()))
            mean = np.exp(np.log(np.abs(pose[members])).mean()) * turn
            found.append((-support, word, complex(position[members].mean()), complex(mean)))
            left = left[~near[seed]]
    found.sort(key=lambda each: each[:2])
    where = np.array([each[2] for each in found], dtype=np.complex64)
    poses = np.array([each[3] for each in found], dtype=np.complex64)
    return Constellation.of(np.array([each[1] for each in found], dtype=np.int32), where, poses, places.turns)
