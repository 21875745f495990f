"""Where structures are in images, and pictures of that: cut-outs that line up, their average, and panels."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from minia.core.progress import progress
from minia.core.workers import map_in_order
from minia.mining.matching.stage import matched_keypoints
from minia.mining.report import panels
from minia.mining.report.cutouts import Place, average, cut_part, most_typical, place_of_keypoints, turns_alike
from minia.mining.report.panels import Pixels
from minia.mining.report.pictures import Pictures
from minia.mining.report.placed import PlacedInImages
from minia.mining.report.run import Run
from minia.mining.report.scripts import rounded
from minia.mining.report.sprites import SPRITES, Sheets

CUT_OUT_SIDE = 128
_MAP_SIDE = 64
_PANEL_COLUMNS = 4
_MOST_PANELS = 40  # of the structures of highest score: drawing one takes longer than all else of a structure

Keypoints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sighting:
    """A structure in an image.

    Attributes:
        row: the image.
        overlap: in (0, 1].
        keypoints: (n,) int64 the image's keypoints that are the structure, strongest first.
        words: (n,) int64 places of their words in the structure's list.
        place: in pixels; None without keypoints.
    """

    row: int
    overlap: float
    keypoints: Keypoints
    words: Keypoints
    place: Place | None


class InBestImages(NamedTuple):
    """A structure and the images to draw it in.

    Attributes:
        place: among the structures that are drawn, from 0.
        structure: its number.
        rows: its best images.
        overlaps: of these.
    """

    place: int
    structure: int
    rows: list[int]
    overlaps: list[float]


class PartPlaces:
    """The places of structures in images.

    Args:
        run: of which.
        placed: those that the arrangement found in the images that will be asked for; None where it did not run.
    """

    def __init__(self, run: Run, placed: PlacedInImages | None) -> None:
        self.run, self.placed = run, placed
        self.keypoints = functools.lru_cache(maxsize=64)(self._load_keypoints)
        self.words = functools.lru_cache(maxsize=64)(run.words_of_keypoints)

    def find(self, structure: int, row: int, overlap: float, matched: Keypoints | None = None) -> Sighting:
        """A structure in an image that holds it.

        Args:
            structure: its number.
            row: the image.
            overlap: of both.
            matched: the keypoints, if they are known already.
        """
        placed = self._placed(structure, row)
        own = self.run.structures[structure]
        if self.run.features is None:
            return Sighting(row, overlap, np.zeros(0, np.int64), np.zeros(0, np.int64), None)
        words = self.words(row)
        if placed is not None:
            keypoints = placed[1]
        elif matched is not None:
            keypoints = matched
        else:
            keypoints = np.zeros(0, np.int64) if words is None else np.flatnonzero(np.isin(words, own))
        if words is None:
            order = np.zeros(len(keypoints), np.int64)
        else:
            place_of = np.zeros(self.run.bags.num_items, np.int64)
            place_of[own] = np.arange(len(own))
            order = place_of[words[keypoints]]
        if placed is not None:
            return Sighting(row, overlap, keypoints, order, placed[0])
        points, sizes = self.keypoints(row)
        return Sighting(row, overlap, keypoints, order, place_of_keypoints(points[keypoints], sizes[keypoints]))

    def _placed(self, structure: int, row: int) -> tuple[Place, Keypoints] | None:
        """The place that the arrangement found, and the keypoints there."""
        at = None if self.placed is None else self.placed.find(structure, row)
        if self.placed is None or at is None:
            return None
        x, y, size, angle = self.placed.place[at].tolist()
        return Place(x, y, size, angle, True), self.placed.keypoints[at].values.to_numpy().astype(np.int64)

    def _load_keypoints(self, row: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        assert self.run.features is not None
        stored = self.run.features
        # Plain arrays: each piece of a mapped one costs as much as what is done with it here.
        return np.asarray(stored.of_image(row, "keypoints")), np.asarray(stored.of_image(row, "sizes"))


def place_for_page(place: Place | None) -> list[float | None] | None:
    """x, y, size, angle and 1 where the arrangement found it, 0 where it is guessed."""
    if place is None:
        return None
    return [*rounded((place.x, place.y, place.size, place.angle), 1), int(place.known)]


class PartPictures:
    """Draws structures: for each its cut-outs, their average and a panel, and its thumbnail for the map.

    Args:
        report: the report's folder.
        pictures: with a copy of every image to draw.
        places: of structures in these images.
        side: of a panel's tile in pixels.
    """

    def __init__(self, report: Path, pictures: Pictures, places: PartPlaces, side: int) -> None:
        (report / "panels").mkdir()
        self.report, self.run, self.pictures, self.places, self.side = report, places.run, pictures, places, side
        self.map = Sheets(report, "structures", (_MAP_SIDE, _MAP_SIDE), 16, 16)

    def draw(self, structures: Sequence[InBestImages], num_threads: int) -> list[dict[str, Any]]:
        """Draw structures in their best images, so many at a time.

        Args:
            structures: in their places.
            num_threads: no picture depends on it.

        Returns:
            For each what the page needs: ``gallery``, an entry an image; ``parts``, the sheet of cut-outs;
            ``typical``, which of these is the most like the average; ``map``, the thumbnail's number; ``panel``, the
            panel's file, None where it has none.
        """
        drawn = []
        with progress("drawing structures", len(structures), "structure") as advance:
            for for_page, thumbnail in map_in_order(self._draw, structures, num_threads, in_threads=True):
                self.map.add(thumbnail)
                drawn.append(for_page)
                advance(1)
        self.map.finish()
        return drawn

    def _draw(self, drawn: InBestImages) -> tuple[dict[str, Any], Pixels]:
        """Draw a structure; what the page needs, and its thumbnail for the map."""
        structure, matched = drawn.structure, self._matched(drawn.structure, drawn.rows)
        found = [
            self.places.find(structure, row, overlap, matched.get(row))
            for row, overlap in zip(drawn.rows, drawn.overlaps, strict=True)
        ]
        cutouts = self._cut_outs(found)
        if not cutouts:
            return {"gallery": [], "map": drawn.place}, panels.missing_tile("", _MAP_SIDE)
        sheet = Sheets(self.report, f"parts-{structure:04d}", (CUT_OUT_SIDE, CUT_OUT_SIDE), 1 + len(cutouts), 1)
        for each in (average(cutouts), *cutouts):
            sheet.add(each)
        sheet.finish()
        typical = most_typical(cutouts)
        for_page = {
            "gallery": [self._entry(each) for each in found],
            "parts": f"{SPRITES}/parts-{structure:04d}_0000.jpg",
            "typical": typical,
            "map": drawn.place,
            "panel": self._draw_panel(structure, found) if drawn.place < _MOST_PANELS else None,
        }
        return for_page, panels.fit_tile(cutouts[typical], _MAP_SIDE)

    def _matched(self, structure: int, rows: list[int]) -> dict[int, Keypoints]:
        """The keypoints that are the structure as the matches tell them, where the words do not."""
        if self.run.keypoint_words is not None:
            return {}
        names = self.run.names.iloc[rows].tolist()
        matched = matched_keypoints(self.run.matches, structure, names)
        return {row: matched[name].astype(np.int64) for row, name in zip(rows, names, strict=True)}

    def _cut_outs(self, found: list[Sighting]) -> list[Pixels]:
        """The cut-outs; where no place is known, and so no angle, turned so that they look alike."""
        cutouts = [self._cut_out(each) for each in found]
        if not cutouts or any(each.place is None or each.place.known for each in found):
            return cutouts
        return [
            self._cut_out(dataclasses.replace(each, place=each.place._replace(angle=angle)))
            for each, angle in zip(found, turns_alike(cutouts), strict=True)
            if each.place is not None
        ]

    def _cut_out(self, found: Sighting) -> Pixels:
        image = self.pictures.load(found.row)
        if found.place is None:
            return panels.fit_tile(image, CUT_OUT_SIDE)
        factor = self.pictures.factor(found.row, image)
        x, y, size = (factor * value for value in found.place[:3])
        return cut_part(image, found.place._replace(x=x, y=y, size=size), CUT_OUT_SIDE)

    def _entry(self, found: Sighting) -> dict[str, Any]:
        width, height = self.pictures.size_of(found.row)
        return {
            "row": found.row,
            "name": str(self.run.names.iat[found.row]),
            "label": int(self.run.codes[found.row]),
            "overlap": round(found.overlap, 4),
            "width": width,
            "height": height,
            "place": place_for_page(found.place),
            "keypoints": self.keypoints_for_page(found),
        }

    def keypoints_for_page(self, found: Sighting) -> list[float]:
        """x, y, size and the word's place in the structure's list of the keypoints to draw, laid end to end."""
        if not len(found.keypoints):
            return []
        points, sizes = self.places.keypoints(found.row)
        shown = panels.spread_out(points[found.keypoints])
        chosen = found.keypoints[shown]
        table = np.column_stack([points[chosen], sizes[chosen], found.words[shown]])
        return table.round(1).ravel().tolist()

    def _draw_panel(self, structure: int, found: list[Sighting]) -> str:
        """Draw the panel of a structure; its file, relative to the report."""
        tiles = [self._tile(each) for each in found]
        labels = [self.run.labels[code] if code >= 0 else "" for code in self.run.codes[[each.row for each in found]]]
        names = [str(self.run.names.iat[each.row]) for each in found]
        captions = [
            (f"overlap {each.overlap:.2f}  {label}".rstrip(), name)
            for each, label, name in zip(found, labels, names, strict=True)
        ]
        score = self.run.scores.score[structure]
        title = f"structure {structure}: {len(self.run.structures[structure])} words, score {score:.2f}"
        panel = panels.draw_panel(title, tiles, captions, _PANEL_COLUMNS)
        file = f"panels/structure_{structure:04d}.png"
        panels.save_png(self.report / file, panel)
        return file

    def _tile(self, found: Sighting) -> Pixels:
        image, size = self.pictures.load(found.row), self.pictures.size_of(found.row)
        points, sizes = (array[found.keypoints] for array in self.places.keypoints(found.row))
        return panels.draw_part(image, self.side, size, points, sizes, panels.word_colours(found.words))
