"""The page of a query: each image with its structures outlined and the run's images most like it."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import pandas as pd

from minia.data.reading import Reading
from minia.mining.features.store import FeatureStore
from minia.mining.report.page import templates_of
from minia.query.answer import Answer
from minia.query.example import Box
from minia.query.tiles import Tile, colour_of

MOST_IMAGES = 100
_STRUCTURES, _SIMILAR, _SIDE, _SMALL = 8, 6, 360, 120  # of an image; pixels
TILES = "tiles"


@dataclass(frozen=True)
class RunLinks:
    """Where the page of a run is.

    Attributes:
        name: of the run.
        report: its page, relative to that of the query and quoted; empty where it has none.
    """

    name: str
    report: str

    @classmethod
    def of(cls, run: Path, query: Path) -> RunLinks:
        """Of the folders of a run and of a query."""
        page = run / "report" / "index.html"
        if not page.is_file():
            return cls(run.name, "")
        try:
            return cls(run.name, quote(Path(os.path.relpath(page, query.absolute())).as_posix()))
        except ValueError:  # on another drive
            return cls(run.name, "")


@dataclass(frozen=True)
class ShownStructure:
    """A structure on the page: its number, overlap and keypoints, and its colour in CSS."""

    number: int
    overlap: float
    num_keypoints: int
    colour: str


@dataclass(frozen=True)
class ShownTile:
    """An image of the run on the page: its tile, its name, a number beside it, and its label if it has one."""

    tile: str
    name: str
    told: str
    label: str | None


@dataclass(frozen=True)
class ShownImage:
    """An image that was asked about.

    Attributes:
        tile: its picture, relative to the page.
        name: of the image.
        num_keypoints: keypoints that were found.
        structures: the best of those that it holds.
        num_structures: how many it holds.
        tiles: images of the run: those most like it, or those that show what was marked.
    """

    tile: str
    name: str
    num_keypoints: int
    structures: Sequence[ShownStructure]
    num_structures: int
    tiles: Sequence[ShownTile]


class PageWriter:
    """Writes the tiles of a page.

    Args:
        folder: where to; the page will lie beside it, under the name that ``TILES`` says.
        store: the features of the run, which say where its images are.
    """

    def __init__(self, folder: Path, store: FeatureStore) -> None:
        self.folder, self.store, self.reading = folder, store, Reading.load(store.artifact)
        self._rows = {str(name): row for row, name in enumerate(self.store.images["image"])}
        self._made: dict[str, str] = {}

    def write(self, answer: Answer, run: RunLinks, box: Box | None) -> str:
        """Write the tiles of the first images, and return the page as HTML."""
        images = answer.images.head(MOST_IMAGES)
        held = dict(list(answer.structures.groupby("image", sort=False)))
        near = dict(list(answer.similar.groupby("image", sort=False)))
        shown = [
            self._image(number, row, held.get(row["image"]), near.get(row["image"]), (answer.found, box))
            for number, (_, row) in enumerate(images.iterrows())
        ]
        return _environment().get_template("page.html").render(
            run=run, images=shown, num_images=len(answer.images), num_failed=len(answer.failed),
            num_found=None if answer.found is None else len(answer.found),
        )  # fmt: skip

    def _image(
        self,
        number: int,
        image: pd.Series[str],
        held: pd.DataFrame | None,
        near: pd.DataFrame | None,
        marked: tuple[pd.DataFrame | None, Box | None],
    ) -> ShownImage:
        tile, found, box = Tile(Path(image["path"]), self.reading, _SIDE), *marked
        structures = []
        for place, each in enumerate(_records(held, _STRUCTURES)):
            if box is None:
                tile.circle(each["x"], each["y"], each["size"], place)
            structures.append(
                ShownStructure(each["structure"], each["overlap"], each["num_keypoints"], colour_of(place))
            )
        if box is not None:
            tile.box((box.x + box.width / 2, box.y + box.height / 2), (box.width, box.height), 0.0, 0)
        name = self._saved(tile, f"asked-{number}.jpg")
        tiles = self._similar(near) if found is None else self._found(found)
        counts = int(image["num_keypoints"]), 0 if held is None else len(held)
        return ShownImage(name, str(image["image"]), counts[0], structures, counts[1], tiles)

    def _similar(self, near: pd.DataFrame | None) -> list[ShownTile]:
        return [
            ShownTile(
                self._run_tile(each["similar"]), each["similar"], format(each["likeness"], ".2f"), _text(each["label"])
            )
            for each in _records(near, _SIMILAR)
        ]

    def _found(self, found: pd.DataFrame) -> list[ShownTile]:
        tiles: list[ShownTile] = []
        for each in _records(found, MOST_IMAGES):
            tile = Tile(self.store.image_path(self._rows[each["image"]]), self.reading, 2 * _SMALL)
            tile.box((each["x"], each["y"]), (each["width"], each["height"]), each["angle"], 0)
            name = self._saved(tile, f"found-{len(tiles)}.jpg")
            tiles.append(ShownTile(name, each["image"], "{spots} spots".format(**each), _text(each["label"])))
        return tiles

    def _run_tile(self, image: str) -> str:
        """The small picture of an image of the run, made once."""
        if image not in self._made:
            row = self._rows[image]
            self._made[image] = self._saved(Tile(self.store.image_path(row), self.reading, _SMALL), f"run-{row}.jpg")
        return self._made[image]

    def _saved(self, tile: Tile, name: str) -> str:
        tile.save(self.folder / name)
        return f"{TILES}/{name}"


def _records(table: pd.DataFrame | None, number: int) -> list[dict[str, Any]]:
    return [] if table is None else table.head(number).to_dict("records")  # type: ignore[return-value]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


@functools.cache
def _environment() -> jinja2.Environment:
    environment = templates_of("minia.query")
    environment.filters |= {
        "grouped": "{:,}".format,
        "two_decimals": "{:.2f}".format,
        "quoted": functools.partial(quote, safe="/"),
        "quoted_whole": functools.partial(quote, safe=""),
    }
    return environment
