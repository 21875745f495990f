"""What the page loads: an overview, and a script each for structures and for images that have a copy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from minia.core.artifact import read_manifest
from minia.core.progress import progress
from minia.core.workers import Beside
from minia.mining.matching.best_images import GalleryImages
from minia.mining.report.associations import Enrichment, Shift, enrichment, shift
from minia.mining.report.columns import Columns
from minia.mining.report.holding import (
    IMAGES_PER_SCRIPT,
    NAMES_PER_SCRIPT,
    Holding,
    count_holding,
    held_blocks,
)
from minia.mining.report.layout import map_places, marker_sizes
from minia.mining.report.parts import InBestImages, PartPictures, PartPlaces, place_for_page
from minia.mining.report.pictures import Pictures
from minia.mining.report.run import Run
from minia.mining.report.scripts import Scripts, rounded, significant

LISTED = 1000  # images of a structure that its page lists and saves as CSV
_COPIED_ANYWAY = 2000  # images: so many have a copy whether a structure shows them or not, where there are so many
_MOST_WORDS = 400  # of a structure on the page
_MOST_WITH = 12  # structures that one is found with
_MOST_HELD = 40  # structures of an image with keypoints on the page
_MOST_SIMILAR = 8
_MOST_WORDS_OF_AN_IMAGE = 24
_CLEAR = 0.05  # of q: what goes with a structure
_MOST_CLEAR = 8  # columns by which a structure can be found
_ROWS_PER_BLOCK = 256

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Explorer:
    """The data of the page.

    Attributes:
        report: the report's folder.
        run: of which.
        shown: (n,) structures, best first.
        chosen: their best images, up to 1,000 each.
        per_structure: images to draw of each.
        columns: what is known of the images.
        scripts: where to write.
        num_threads: that draw.
    """

    report: Path
    run: Run
    shown: Counts
    chosen: GalleryImages
    per_structure: int
    columns: Columns
    scripts: Scripts
    num_threads: int

    def write(self, tile_side: int, beside: Beside) -> dict[str, Any]:
        """Write all pictures, and all scripts but the overview.

        Args:
            tile_side: of a panel's image in pixels.
            beside: places the structures on the map meanwhile.

        Returns:
            The overview.
        """
        run = self.run
        holding = count_holding(run, self.shown, self.columns, self.scripts)
        places = beside.start(lambda: map_places(holding.together, holding.num_images, run.seed))
        tests = _Tests.of(run, holding, self.columns)
        copied: list[int] = []
        drawn: list[dict[str, Any]] = [{} for _ in self.shown]
        sheets: dict[str, Any] = {}
        if run.features is not None:
            copied = self._rows_to_copy(holding)
            pictures = Pictures(self.report, run, run.features, self._wanted_words())
            pictures.write(copied, self.num_threads)
            placed = None if run.places is None else run.places.of_images(np.sort(np.array(copied, np.int64)))
            parts = PartPictures(self.report, pictures, PartPlaces(run, placed), tile_side)
            drawn = self._draw(parts)
            words, sheet = pictures.patches.write(self.report)
            sheets = {"words": sheet.describe() | {"numbers": words}, "images": pictures.thumbnails.describe()}
            sheets["structures"] = parts.map.describe()
            _ImageScripts(self, parts, copied).write()
        for place, structure in enumerate(self.shown.tolist()):
            self.scripts.write(
                f"structure-{structure:04d}", self._structure(place, structure, holding, tests) | drawn[place]
            )
        self._write_words()
        return self._overview(holding, tests, drawn, places()) | {"copied": copied, "sheets": sheets}

    def _rows_to_copy(self, holding: Holding) -> list[int]:
        """Images to copy, in an order that does not go by name: the words' patches come from the first."""
        gallery = self.chosen.images[:, : self.per_structure]
        rows = np.union1d(gallery[gallery >= 0], holding.near[holding.near >= 0])
        count = len(self.run.names)
        if len(rows) < _COPIED_ANYWAY:
            others = np.setdiff1d(np.linspace(0, count - 1, min(count, _COPIED_ANYWAY)).astype(np.int64), rows)
            rows = np.concatenate([rows, others[: max(0, _COPIED_ANYWAY - len(rows))]])
        generator = np.random.default_rng([self.run.seed, 11])
        return [int(row) for row in generator.permutation(np.sort(rows))]

    def _wanted_words(self) -> Counts:
        """The words of the shown structures, those of most structures first."""
        uses = np.bincount(self.run.structures.select(self.shown).items, minlength=self.run.bags.num_items)
        order = np.argsort(-uses, kind="stable")
        return np.asarray(order[: np.count_nonzero(uses)], dtype=np.int64)

    def _draw(self, parts: PartPictures) -> list[dict[str, Any]]:
        drawn = []
        for place, structure in enumerate(self.shown.tolist()):
            rows = self.chosen.images[place, : self.per_structure]
            rows = rows[rows >= 0]
            overlaps = self.chosen.overlaps[place, : len(rows)]
            drawn.append(InBestImages(place, structure, rows.tolist(), overlaps.tolist()))
        return parts.draw(drawn, self.num_threads)

    def _structure(self, place: int, structure: int, holding: Holding, tests: _Tests) -> dict[str, Any]:
        run = self.run
        first, last = run.structures.offsets[structure : structure + 2]
        frequencies = run.structures.frequencies[first:last].tolist()
        rows = self.chosen.images[place][self.chosen.images[place] >= 0]
        near = holding.near[place][holding.near[place] >= 0]
        words = list(zip(run.structures[structure].tolist(), frequencies, strict=True))
        return {
            "number": structure,
            "words": [list(pair) for pair in words[:_MOST_WORDS]],
            "listed": self._named(rows) | {"overlaps": rounded(self.chosen.overlaps[place, : len(rows)], 4)},
            "places": self._listed_places(structure, rows),
            "near": self._named(near) | {"overlaps": rounded(holding.near_overlaps[place, : len(near)], 4)},
            "histogram": holding.histogram[place].tolist(),
            "labels": tests.labels_of(place, holding),
            "columns": tests.columns_of(place),
            "with": _found_with(place, self.shown, holding, len(run.names)),
        }

    def _named(self, rows: Counts) -> dict[str, list[Any]]:
        return {
            "rows": rows.tolist(),
            "names": self.run.names.iloc[rows].tolist(),
            "labels": self.run.codes[rows].tolist(),
        }

    def _listed_places(self, structure: int, rows: Counts) -> list[list[float | None]] | None:
        """x, y, size and angle of the listed images; None where no places are known."""
        if self.run.places is None:
            return None
        found = self.run.places.places_in(structure, rows)
        return None if found is None else [rounded(row, 2) for row in found]

    def _write_words(self) -> None:
        """The words of the shown structures: how many images hold each, and which structures use it."""
        run = self.run
        uses: dict[int, list[int]] = {}
        for structure in self.shown.tolist():
            for word in run.structures[structure].tolist():
                uses.setdefault(word, []).append(structure)
        images = run.bags.item_counts()
        words = sorted(uses, key=lambda word: (-len(uses[word]), word))
        value = {"numbers": words, "images": images[words].tolist(), "structures": [uses[word] for word in words]}
        self.scripts.write("words", value)

    def _overview(
        self, holding: Holding, tests: _Tests, drawn: list[dict[str, Any]], places: npt.NDArray[np.float64]
    ) -> dict[str, Any]:
        run = self.run
        column = self._table_column
        structures = {
            "number": self.shown.tolist(),
            "score": rounded(run.scores.score[self.shown], 3),
            "coherence": rounded(run.scores.coherence[self.shown], 3),
            "words": run.structures.sizes[self.shown].tolist(),
            "images": holding.num_images.tolist(),
            "x": rounded(places[:, 0], 4),
            "y": rounded(places[:, 1], 4),
            "side": rounded(marker_sizes(holding.num_images), 4),
            "map": [each.get("map", -1) for each in drawn],
            "label": tests.best_labels(holding),
            "columns": [tests.clear_columns(place) for place in range(len(self.shown))],
            "q": self._q(),
            "significance": column("significance"),
            "association": column("association"),
            "parent": column("parent"),
            "members": column("num_members"),
            "placed": [] if run.places is None else np.isin(self.shown, run.places.structures).astype(int).tolist(),
        }
        return {
            "structures": structures,
            "labels": run.labels,
            "numLabels": run.label_counts.tolist(),
            "columns": [list(pair) for pair in zip(self.columns.names, self.columns.values, strict=True)],
            "numImages": len(run.names),
            "numStructures": run.structures.num_lists,
            "imagesPerScript": IMAGES_PER_SCRIPT,
            "namesPerScript": NAMES_PER_SCRIPT,
            "minOverlap": run.matching.min_overlap,
            "formula": run.matching.formula,
            "made": _made(run),
        }

    def _table_column(self, name: str) -> list[float | None]:
        """A column of structures.csv for the shown structures; empty where there is none."""
        if name not in self.run.table or len(self.run.table) != self.run.structures.num_lists:
            return []
        return [significant(value) for value in self.run.table[name].to_numpy(np.float64)[self.shown]]

    def _q(self) -> list[float | None]:
        """The larger of the two rates of false discoveries, of those that are known."""
        known = [column for name in ("q_words", "q_places") if (column := self._table_column(name))]
        worst = [max((q for q in pair if q is not None), default=None) for pair in zip(*known, strict=True)]
        return [] if all(q is None for q in worst) else worst


def _made(run: Run) -> dict[str, str]:
    """Which choices made the run, by stage: the labels of its artifacts."""
    return {stage: str(read_manifest(path).get("label", "")) for stage, path in run.artifacts.items()}


def _found_with(place: int, shown: Counts, holding: Holding, num_images: int) -> list[list[float | int | None]]:
    """Structures that are found in the same images beyond chance: number, images with both, times as often."""
    row = holding.together[place]
    others = row.indices != place
    columns, both = row.indices[others], row.data[others]
    expected = holding.num_images[place] * holding.num_images[columns] / max(1, num_images)
    clear = (both - expected) / np.sqrt(np.maximum(expected, 0.5))
    order = np.lexsort((columns, -clear))[:_MOST_WITH]
    return [
        [int(shown[columns[each]]), int(both[each]), significant(both[each] / max(expected[each], 1e-9))]
        for each in order.tolist()
        if clear[each] > 1
    ]


@dataclass(frozen=True)
class _Tests:
    """What structures go with.

    Attributes:
        enriched: labels.
        shifted: columns.
    """

    enriched: Enrichment
    shifted: Shift

    @classmethod
    def of(cls, run: Run, holding: Holding, columns: Columns) -> _Tests:
        known = np.isfinite(columns.ranks).sum(axis=1)
        return cls(
            enrichment(holding.labels, holding.labels.sum(axis=1), run.label_counts),
            shift(holding.rank_sums, holding.known, known, columns.ties),
        )

    def labels_of(self, place: int, holding: Holding) -> list[list[float | int | None]]:
        """Label, images with it that hold the structure, images expected, and q, of labels that it is found with."""
        both, expected, q = holding.labels[place], self.enriched.expected[place], self.enriched.q[place]
        order = np.lexsort((-both, q))
        return [
            [int(label), int(both[label]), significant(expected[label]), significant(q[label])]
            for label in order.tolist()
            if both[label]
        ]

    def best_labels(self, holding: Holding) -> list[int]:
        """The label that goes most clearly with each structure, -1 where none does."""
        if not self.enriched.q.size:
            return [-1] * len(holding.num_images)
        best = [int(np.lexsort((-both, q))[0]) for both, q in zip(holding.labels, self.enriched.q, strict=True)]
        return [label if self.enriched.q[place, label] < _CLEAR else -1 for place, label in enumerate(best)]

    def clear_columns(self, place: int) -> list[int]:
        """The columns that differ clearly, clearest first: one more than their number, below 0 where they are low."""
        return [
            int(math.copysign(column + 1, share - 0.5))
            for column, share, q in self.columns_of(place)[:_MOST_CLEAR]
            if q < _CLEAR
        ]

    def columns_of(self, place: int) -> list[list[Any]]:
        """Column, how often the higher value is where the structure is, and q; the clearest first."""
        share, q = self.shifted.share[place], self.shifted.q[place]
        order = np.lexsort((-np.abs(share - 0.5), q))
        return [[int(each), significant(share[each]), significant(q[each])] for each in order if math.isfinite(q[each])]


class _ImageScripts:
    """Writes a script for each image with a copy.

    Args:
        explorer: the data of the page.
        parts: which know where structures are.
        copied: the images.
    """

    def __init__(self, explorer: Explorer, parts: PartPictures, copied: Sequence[int]) -> None:
        self.explorer, self.parts = explorer, parts
        self.rows = np.sort(np.asarray(copied, dtype=np.int64))
        placed = parts.places.placed
        shares = None if placed is None else placed.numbered(self.rows)
        blocks = [held for _, _, held in held_blocks(explorer.run, explorer.shown, shares, self.rows)]
        empty = scipy.sparse.csr_matrix((0, len(explorer.shown)), dtype=np.float32)
        self.held = scipy.sparse.vstack([empty, *blocks], format="csr")
        self.used = np.zeros(explorer.run.bags.num_items, dtype=np.bool_)
        self.used[explorer.run.structures.select(explorer.shown).items] = True

    def write(self) -> None:
        weights = self.held.multiply(1 / np.sqrt(1 + self.held.getnnz(axis=0))).tocsr()
        norms = np.sqrt(np.asarray(weights.multiply(weights).sum(axis=1)).ravel())
        weights = scipy.sparse.diags(1 / np.maximum(norms, 1e-9)) @ weights
        known = self.explorer.columns.catalogue.of_images(self.rows)
        with progress("describing images", len(self.rows), "image") as advance:
            for first in range(0, len(self.rows), _ROWS_PER_BLOCK):
                alike = (weights[first : first + _ROWS_PER_BLOCK] @ weights.T).toarray()
                rows = self.rows[first : first + _ROWS_PER_BLOCK]
                for number, row in enumerate(rows.tolist(), first):
                    similar = alike[number - first]
                    similar[number] = 0
                    best = [each for each in np.argsort(-similar, kind="stable")[:_MOST_SIMILAR] if similar[each] > 0]
                    value = self._image(number, row)
                    value["similar"] = [[int(self.rows[each]), round(float(similar[each]), 3)] for each in best]
                    value["values"] = next(known)
                    self.explorer.scripts.write(f"image-{row:06d}", value)
                advance(len(alike))

    def _image(self, number: int, row: int) -> dict[str, Any]:
        run, entries = self.explorer.run, slice(self.held.indptr[number], self.held.indptr[number + 1])
        structures = self.explorer.shown[self.held.indices[entries]]
        overlaps = self.held.data[entries]
        order = np.argsort(-overlaps, kind="stable")[:_MOST_HELD]
        held = []
        for each in order.tolist():
            sighting = self.parts.places.find(int(structures[each]), row, float(overlaps[each]))
            entry = [int(structures[each]), round(sighting.overlap, 4), place_for_page(sighting.place)]
            held.append([*entry, self.parts.keypoints_for_page(sighting)])
        width, height = self.parts.pictures.size_of(row)
        names = self.explorer.run.names
        value: dict[str, Any] = {"row": row, "name": str(names.iat[row]), "label": int(run.codes[row])}
        outlines = self.parts.pictures.outlines.get(row, [])
        value |= {"width": width, "height": height, "held": held, "words": self._words(row)}
        return value | {"objects": outlines}

    def _words(self, row: int) -> list[int]:
        """The words of an image's strongest keypoints that the shown structures use."""
        words = self.parts.places.words(row)
        if words is None:
            return []
        used = words[self.used[words]]
        _, first = np.unique(used, return_index=True)
        return [int(word) for word in used[np.sort(first)[:_MOST_WORDS_OF_AN_IMAGE]]]
