"""The report stage: the metrics of a run and a page to browse its structures.

The artifact holds ``metrics.json`` (flat), ``index.html``, which works opened from disk, and for
images (not for plain lists of words) ``images/`` (JPEG tiles, plain and with keypoints),
``panels/structure_0000.png`` and so on (a grid of the structure's best images) and ``figures/``.

Of nested structures (``structures.csv``, see the mining stage) the page tells what each is a part of, and its
significance. What is shown and measured is chosen while the overlaps of all images stream by; of an image that
is not shown, memory holds its name and its label alone.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from minia.core.artifact import Stage, read_manifest
from minia.core.context import Context
from minia.core.progress import progress
from minia.data.files import UnreadableImageError
from minia.data.images import load_labels
from minia.data.reading import Reading, read_image
from minia.mining.arrangement.tables import load_places_table
from minia.mining.features.store import FeatureStore, features_fingerprint
from minia.mining.lists.listdb import ListDB
from minia.mining.matching.best_images import GalleryImages, choose_gallery_images, with_places
from minia.mining.matching.overlap import overlap_blocks
from minia.mining.matching.settings import OverlapMatching
from minia.mining.matching.stage import MATCHES, matched_keypoints
from minia.mining.report import panels
from minia.mining.report.label_metrics import (
    accuracy_metrics,
    best_labelled_images,
    count_labels,
    encode_labels,
    purity_metrics,
)
from minia.mining.report.page import Nesting, Page, ShownImage, ShownStructure, copy_figures, search_entry
from minia.mining.report.ranking import Scores, score_structures
from minia.mining.report.settings import GalleryReport
from minia.mining.structures.stage import STRUCTURE_TABLE, load_structures, why_no_structures
from minia.mining.vocabulary.assignment import load_centroids
from minia.mining.words.stage import load_bags, load_images

logger = logging.getLogger(__name__)

METRICS = "metrics.json"
PAGE = "index.html"
_MOST_SEARCHABLE_IMAGES = 5000  # with 50 structures each they take some 2 MB of the page
_PANEL_COLUMNS = 4
_TIES = 3  # keeps these random numbers independent of the evaluation's


@dataclass(frozen=True)
class Artifacts:
    """The artifacts that a report is made of.

    Attributes:
        words: of the words stage.
        mining: of the mining stage.
        matching: of the matching stage.
        images: of the images stage, which knows the labels and how many files it left out; None without images.
        features: of the features stage; None where the bags came without images.
        vocabulary: of the vocabulary stage, None likewise.
    """

    words: Path
    mining: Path
    matching: Path
    images: Path | None = None
    features: Path | None = None
    vocabulary: Path | None = None

    def by_stage(self) -> dict[str, Path]:
        """Those that there are, by the name of their stage."""
        found = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {name: path for name, path in found.items() if path is not None}


def write_report(artifacts: Artifacts, store: Path, settings: GalleryReport, context: Context) -> Path:
    """Measure a run and write a page to browse its structures.

    Args:
        artifacts: what the earlier stages made.
        store: folder of artifacts.
        settings: what is shown and measured.
        context: ``seed`` of ties, shuffles, samples and folds.

    Returns:
        The report artifact.
    """
    sources = artifacts.by_stage()
    inputs = {name: read_manifest(path)["fingerprint"] for name, path in sources.items()}
    if artifacts.features is not None:
        inputs["features"] = features_fingerprint(artifacts.features, store)
    matching = OverlapMatching(**read_manifest(artifacts.matching)["parameters"])
    parameters = settings.model_dump(exclude={"kind"}) | {"formula": matching.formula, "seed": context.seed}
    stage = Stage("report", "gallery", store, parameters, inputs, version=3)

    def make(work: Path) -> dict[str, Any]:
        run = _Run.load(sources, matching, context.seed)
        metrics = _count(sources) | run.measure(settings.num_shuffles)
        shown = run.scores.order[: settings.max_structures]
        chosen = run.choose_images(shown, settings.images_per_structure)
        structures = _Gallery(work, run, settings.tile_side).write(shown, chosen)
        page = Page(
            metrics=metrics,
            structures=structures,
            labels=run.labels,
            images=_searchable(run, shown, chosen),
            tile_side=settings.tile_side,
            min_overlap=matching.min_overlap,
            figures=copy_figures(work, sources),
            nothing=None if run.structures.num_lists else why_no_structures(artifacts.mining),
        )
        (work / PAGE).write_text(page.render(), encoding="utf-8")
        (work / METRICS).write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return {"num_shown_structures": len(structures)}

    return stage.run(make)


@dataclass(frozen=True)
class _Run:
    """What earlier stages made, read, and what was measured on it.

    Attributes:
        bags: list = image, item = visual word.
        names: of the images, a bag each.
        structures: list = structure, item = visual word.
        nesting: of each structure; empty where the linkage does not nest.
        matches: the file of matches.
        places: of the arrangement stage; None where it did not run.
        features: None without images.
        centroids: of the vocabulary; None without images.
        codes: (num_images,) int64 places in ``labels``, -1 for none.
        labels: all labels, sorted.
        scores: of the structures.
        best: see ``best_labelled_images``.
        matching: the overlap's formula and its smallest value.
        seed: of all that is random.
    """

    bags: ListDB
    names: pd.Series[str]
    structures: ListDB
    nesting: list[Nesting]
    matches: Path
    places: pd.DataFrame | None
    features: FeatureStore | None
    centroids: NDArray[np.float32] | None
    codes: NDArray[np.int64]
    labels: list[str]
    scores: Scores
    best: NDArray[np.int64]
    matching: OverlapMatching
    seed: int

    @classmethod
    def load(cls, artifacts: Mapping[str, Path], matching: OverlapMatching, seed: int) -> _Run:
        words = artifacts["words"]
        bags, names = load_bags(words, mapped=True), load_images(words)["image"]
        structures = load_structures(artifacts["mining"], bags.num_items)
        codes, labels = _labels(names, artifacts.get("images"))
        return cls(
            bags=bags,
            names=names,
            structures=structures,
            nesting=_nesting(artifacts["mining"] / STRUCTURE_TABLE),
            matches=artifacts["matching"] / MATCHES,
            places=load_places_table(artifacts["mining"]),
            features=FeatureStore.load(artifacts["features"]) if "features" in artifacts else None,
            centroids=load_centroids(artifacts["vocabulary"]) if "vocabulary" in artifacts else None,
            codes=codes,
            labels=labels,
            scores=score_structures(bags, structures),
            best=best_labelled_images(bags, structures, codes, formula=matching.formula, seed=seed),
            matching=matching,
            seed=seed,
        )

    def measure(self, num_shuffles: int) -> dict[str, float]:
        """Mean scores and label metrics, as far as there are structures and labels."""
        means = {"mean_coherence": self.scores.coherence, "mean_score": self.scores.score}
        metrics = {name: float(values.mean()) for name, values in means.items() if len(values)}
        metrics |= purity_metrics(self.best, self.codes, num_shuffles, self.seed)
        return metrics | accuracy_metrics(self.bags, self.structures, self.codes, self.matching.formula, self.seed)

    def choose_images(self, shown: NDArray[np.int64], most_images: int) -> GalleryImages:
        """The images to show of each shown structure."""
        chosen = choose_gallery_images(
            self.bags, self.structures.select(shown), formula=self.matching.formula,
            min_overlap=self.matching.min_overlap, most_images=most_images, seed=[self.seed, _TIES],
        )  # fmt: skip
        return chosen if self.places is None else with_places(chosen, shown, self.places)


def _nesting(table: Path) -> list[Nesting]:
    """The table of the nested linkage, a row a structure; empty without one."""
    columns = pd.read_csv(table) if table.is_file() else pd.DataFrame()
    if "parent" not in columns:
        return []
    parents = columns["parent"].tolist()
    parts: list[list[int]] = [[] for _ in parents]
    for structure, parent in enumerate(parents):
        if parent >= 0:
            parts[parent].append(structure)
    numbers = (columns[name].tolist() for name in ("num_images", "association", "significance"))
    return [Nesting(*row) for row in zip(parents, parts, *numbers, strict=True)]


def _labels(names: pd.Series[str], images: Path | None) -> tuple[NDArray[np.int64], list[str]]:
    """The labels of the images of these names in an images artifact: places in the list of labels, -1 for none."""
    if images is None:
        return np.full(len(names), -1, dtype=np.int64), []
    table = load_labels(images)
    codes, labels = encode_labels(table["label"])
    place = pc.index_in(pa.array(names, pa.large_string()), pa.array(table["image"], pa.large_string()))
    row = place.fill_null(-1).to_numpy(zero_copy_only=False)
    if labels and len(names) and row.max() < 0:
        logger.warning(
            "report: the labels are of other images: none of those in the bags of words, first %s, is among those"
            " listed with labels, first %s", names.iat[0], table["image"].iat[0],
        )  # fmt: skip
    found = np.where(row >= 0, codes[row], -1)
    return found, labels[: found.max(initial=-1) + 1]  # as far as an image has one: what counts them knows no others


def _count(artifacts: Mapping[str, Path]) -> dict[str, float]:
    """The counts of the earlier stages that belong to the metrics."""
    counts = {name: read_manifest(path)["counts"] for name, path in artifacts.items()}
    failed = counts.get("features", {}).get("num_failed_images", 0)
    skipped = counts.get("images", {}).get("num_skipped_images", 0)
    metrics = {
        "num_images": counts["words"]["num_images"],
        "num_failed_images": failed + skipped,
        "vocabulary_size": counts["words"]["num_words"],
        "num_words_kept": counts["words"]["num_words_kept"],
    }
    for stage, keys in (
        ("features", ("num_keypoints",)),
        ("mining", ("num_cooccurring_sets", "num_structures", "mean_structure_size")),
        ("matching", ("num_matches", "num_matched_images", "num_matched_structures")),
    ):
        metrics |= {key: counts[stage][key] for key in keys if key in counts.get(stage, {})}
    return metrics


class _Gallery:
    """Writes the tiles and panels of structures.

    Args:
        work: the artifact's folder.
        run: what is shown.
        side: of a tile in pixels.
    """

    def __init__(self, work: Path, run: _Run, side: int) -> None:
        self.work, self.run, self.side = work, run, side
        self.unreadable: dict[Path, str] = {}
        if run.features is not None:
            (work / "images").mkdir()
            (work / "panels").mkdir()

    def write(self, structures: NDArray[np.int64], chosen: GalleryImages) -> list[ShownStructure]:
        """Write the pictures of the structures and describe them for the page, with the images chosen for each."""
        label_counts = count_labels(self.run.best, self.run.codes)
        shown = []
        with progress("drawing structures", len(structures), "structure") as advance:
            for place, structure in enumerate(structures.tolist()):
                rows = chosen.images[place][chosen.images[place] >= 0]
                images, panel = self._images(structure, rows, chosen.overlaps[place][: len(rows)])
                num_matches = int(chosen.num_matches[place])
                shown.append(self._structure(place + 1, structure, num_matches, images, label_counts[structure], panel))
                advance(1)
        for path, why in itertools.islice(self.unreadable.items(), 1):
            logger.warning(
                "report: %d of the images shown can no longer be read, and have empty tiles; first %s: %s",
                len(self.unreadable), path, why,
            )  # fmt: skip
        return shown

    def _structure(
        self, rank: int, structure: int, num_matches: int, images: list[ShownImage],
        label_counts: NDArray[np.int64], panel: str | None,
    ) -> ShownStructure:  # fmt: skip
        run = self.run
        first, last = run.structures.offsets[structure : structure + 2]
        frequencies = run.structures.frequencies[first:last].tolist()
        labels = [(name, int(count)) for name, count in zip(run.labels, label_counts, strict=True) if count]
        return ShownStructure(
            number=structure,
            rank=rank,
            score=float(run.scores.score[structure]),
            coherence=float(run.scores.coherence[structure]),
            words=[*zip(run.structures[structure].tolist(), frequencies, strict=True)],
            num_matches=num_matches,
            images=images,
            labels=sorted(labels, key=lambda label: (-label[1], label[0])),
            panel=panel,
            nesting=run.nesting[structure] if run.nesting else None,
        )

    def _images(
        self, structure: int, rows: NDArray[np.int64], overlaps: NDArray[np.float32]
    ) -> tuple[list[ShownImage], str | None]:
        """The chosen images of a structure, with their tiles and panel where there are pictures."""
        run, shown, tiles = self.run, [], []
        names = run.names.iloc[rows].tolist()
        keypoints = matched_keypoints(run.matches, structure, names) if run.features is not None else {}
        for row, name, overlap in zip(rows.tolist(), names, overlaps.tolist(), strict=True):
            code = run.codes[row]
            image = ShownImage(name, run.labels[code] if code >= 0 else None, overlap)
            if run.features is not None:
                plain, drawn = f"images/image_{row:06d}.jpg", f"images/structure_{structure:04d}_image_{row:06d}.jpg"
                tile, tile_drawn = self._tiles(run.features, structure, row, keypoints[name].astype(np.int64))
                panels.save_jpeg(self.work / plain, tile)
                panels.save_jpeg(self.work / drawn, tile_drawn)
                tiles.append(tile_drawn)
                image = ShownImage(name, image.label, overlap, drawn, plain)
            shown.append(image)
        if not tiles:
            return shown, None
        panel = f"panels/structure_{structure:04d}.png"
        title = (
            f"structure {structure}: {len(run.structures[structure])} words, score {run.scores.score[structure]:.2f}"
        )
        captions = [(f"overlap {each.overlap:.2f}  {each.label or ''}".rstrip(), each.image) for each in shown]
        panels.save_png(self.work / panel, panels.draw_panel(title, tiles, captions, _PANEL_COLUMNS))
        return shown, panel

    def _tiles(
        self, features: FeatureStore, structure: int, row: int, keypoints: NDArray[np.int64]
    ) -> tuple[panels.Pixels, panels.Pixels]:
        """An image's tile without and with the structure's keypoints."""
        try:
            image = read_image(features.image_path(row), Reading.load(features.artifact))
        except UnreadableImageError as error:  # it was there when its features were extracted
            self.unreadable[features.image_path(row)] = str(error)
            tile = panels.missing_tile(str(self.run.names.iat[row]), self.side)
            return tile, tile
        tile = panels.fit_tile(image, self.side)
        chosen = keypoints[: panels.MOST_CIRCLES]  # scores fall inside an image
        colours = panels.word_colours(self._places(features, structure, row, chosen))
        size = (image.shape[1], image.shape[0])
        drawn = panels.draw_keypoints(
            tile, size, features.of_image(row, "keypoints")[chosen], features.of_image(row, "sizes")[chosen], colours
        )
        return tile, drawn

    def _places(
        self, features: FeatureStore, structure: int, row: int, keypoints: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The places of the keypoints' words in the structure's list.

        The word of each is in the structure, so it is the nearest among the structure's alone.
        """
        if self.run.centroids is None:
            return np.zeros(len(keypoints), dtype=np.int64)
        centroids = self.run.centroids[self.run.structures[structure]]
        descriptors = features.of_image(row, "descriptors")[keypoints].astype(np.float32)
        distances = (centroids**2).sum(axis=1) - 2 * descriptors @ centroids.T
        return np.asarray(distances.argmin(axis=1), dtype=np.int64)


def _searchable(run: _Run, structures: NDArray[np.int64], chosen: GalleryImages) -> list[Any]:
    """The images for the search box with the shown structures they hold; shown images first where cut."""
    others = range(min(len(run.names), _MOST_SEARCHABLE_IMAGES))
    rows = list(dict.fromkeys([*chosen.images[chosen.images >= 0].tolist(), *others]))[:_MOST_SEARCHABLE_IMAGES]
    searchable = np.array(sorted(rows), dtype=np.int64)
    held: list[list[tuple[int, float]]] = [[] for _ in rows]
    shown = run.structures.select(structures)
    for first, _, overlaps in overlap_blocks(run.bags, shown, run.matching.formula, searchable):
        pairs = overlaps.tocoo()
        for row, place, overlap in zip(pairs.row.tolist(), pairs.col.tolist(), pairs.data.tolist(), strict=True):
            if overlap >= np.float32(run.matching.min_overlap):
                held[first + row].append((int(structures[place]), overlap))
    names = run.names.iloc[searchable].tolist()
    return [
        search_entry(name, int(run.codes[row]), pairs)
        for name, row, pairs in zip(names, searchable.tolist(), held, strict=True)
    ]
