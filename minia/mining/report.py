"""The report stage: the metrics of a run and a page to browse its structures.

The artifact holds ``metrics.json`` (flat), ``index.html``, which works opened from disk, and for
images (not for plain lists of words) ``images/`` (JPEG tiles, plain and with keypoints),
``panels/structure_0000.png`` and so on (a grid of the structure's best images) and ``figures/``.

The images of a structure are shown by falling overlap. Small structures tie at overlap 1 in
hundreds of images, so ties go by the number of distinct words shared with the structure, more
first (an image of two words overlaps fully by holding two), then by the number of the image's
words, fewer first (there the structure is a larger part of what the image holds), then at random.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from minia.data.images import ImageTable, UnreadableImageError, read_image
from minia.mining import panels
from minia.mining.evaluation import best_labelled_images, count_labels, encode_labels, label_metrics
from minia.mining.feature_store import FeatureStore
from minia.mining.listdb import ListDB
from minia.mining.matching import MATCHES, images_of_structure
from minia.mining.page import Page, ShownImage, ShownStructure, search_entry
from minia.mining.ranking import Scores, score_structures
from minia.mining.structures import load_structures
from minia.mining.vocabulary import load_centroids
from minia.mining.words import load_bags, load_images
from minia.progress import progress
from minia.stage import Stage, read_manifest

METRICS = "metrics.json"
PAGE = "index.html"
_MOST_SEARCHABLE_IMAGES = 5000  # with 50 structures each they take some 2 MB of the page
_PANEL_COLUMNS = 4
_TIES = 3  # keeps these random numbers independent of the evaluation's
_FIGURES = (
    ("vocabulary", "pca.png", "Descriptors and visual words in two principal components"),
    ("words", "collection_frequency.png", "How often each visual word occurs in the collection"),
)


def write_report(
    words: Path,
    mining: Path,
    matching: Path,
    store: Path,
    *,
    formula: str,
    max_structures: int,
    images_per_structure: int,
    tile_side: int,
    num_shuffles: int,
    seed: int,
    images: Path | None = None,
    features: Path | None = None,
    vocabulary: Path | None = None,
    num_skipped_images: int = 0,
) -> Path:
    """Measure a run and write a page to browse its structures.

    Args:
        words: artifact of the words stage.
        mining: artifact of the mining stage.
        matching: artifact of the matching stage.
        store: folder of artifacts.
        formula: of the overlap, that of the matching (see ``overlap_matrix``).
        max_structures: structures to show, those of the highest score.
        images_per_structure: images to show of each.
        tile_side: side of a shown image in pixels.
        num_shuffles: shuffles of the labels for the chance purity, at least 1.
        seed: of ties, shuffles, samples and folds.
        images: artifact of the images stage, which knows the labels; None where there are none.
        features: artifact of the features stage; None where the bags came without images.
        vocabulary: artifact of the vocabulary stage, None likewise.
        num_skipped_images: files that the images stage left out, counted as failed.

    Returns:
        The report artifact.
    """
    sources = {"words": words, "mining": mining, "matching": matching, "images": images}
    sources |= {"features": features, "vocabulary": vocabulary}
    artifacts = {name: path for name, path in sources.items() if path is not None}
    parameters = {
        "formula": formula,
        "max_structures": max_structures,
        "images_per_structure": images_per_structure,
        "tile_side": tile_side,
        "num_shuffles": num_shuffles,
        "seed": seed,
        "num_skipped_images": num_skipped_images,
    }
    inputs = {name: read_manifest(path)["fingerprint"] for name, path in artifacts.items()}
    stage = Stage("report", "gallery", store, parameters, inputs)

    def make(work: Path) -> dict[str, Any]:
        run = _Run.load(artifacts, formula=formula, seed=seed)
        metrics = _count(artifacts, num_skipped_images) | run.measure(num_shuffles)
        shown = run.scores.order[:max_structures]
        structures = _Gallery(work, run, tile_side, images_per_structure).write(shown)
        page = Page(
            metrics=metrics,
            structures=structures,
            labels=run.labels,
            images=_searchable(run, structures),
            tile_side=tile_side,
            min_overlap=float(read_manifest(matching)["parameters"]["min_overlap"]),
            figures=_copy_figures(work, artifacts),
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
        matches: the file of matches.
        features: None without images.
        centroids: of the vocabulary; None without images.
        codes: (num_images,) int64 places in ``labels``, -1 for none.
        labels: all labels, sorted.
        scores: of the structures.
        best: see ``best_labelled_images``.
        formula: of the overlap.
        seed: of all that is random.
    """

    bags: ListDB
    names: pd.Index[str]
    structures: ListDB
    matches: Path
    features: FeatureStore | None
    centroids: NDArray[np.float32] | None
    codes: NDArray[np.int64]
    labels: list[str]
    scores: Scores
    best: NDArray[np.int64]
    formula: str
    seed: int

    @classmethod
    def load(cls, artifacts: Mapping[str, Path], *, formula: str, seed: int) -> _Run:
        bags, images = load_bags(artifacts["words"]), load_images(artifacts["words"])
        structures = load_structures(artifacts["mining"], bags.num_items)
        codes, labels = encode_labels(_labels(images["image"], artifacts.get("images")))
        return cls(
            bags=bags,
            names=pd.Index(images["image"]),
            structures=structures,
            matches=artifacts["matching"] / MATCHES,
            features=FeatureStore.load(artifacts["features"]) if "features" in artifacts else None,
            centroids=load_centroids(artifacts["vocabulary"]) if "vocabulary" in artifacts else None,
            codes=codes,
            labels=labels,
            scores=score_structures(bags, structures),
            best=best_labelled_images(bags, structures, codes, formula=formula, seed=seed),
            formula=formula,
            seed=seed,
        )

    def measure(self, num_shuffles: int) -> dict[str, float]:
        """Mean scores and label metrics, as far as there are structures and labels."""
        means = {"mean_coherence": self.scores.coherence, "mean_score": self.scores.score}
        labels = np.array([*self.labels, None], dtype=object)[self.codes]
        return {name: float(values.mean()) for name, values in means.items() if len(values)} | label_metrics(
            self.bags, self.structures, labels,
            formula=self.formula, num_shuffles=num_shuffles, seed=self.seed, best=self.best,
        )  # fmt: skip

    def matches_of(self, structure: int) -> pd.DataFrame:
        """The images that hold a structure in the order of the gallery, with their row among the bags."""
        found = images_of_structure(self.matches, structure)
        found["row"] = self.names.get_indexer(pd.Index(found["image"]))
        rows = found["row"].to_numpy()
        bags = self.bags.select(rows)
        held = np.isin(bags.items, self.structures[structure]).astype(np.int64)
        shared = np.diff(np.concatenate([[0], np.cumsum(held)])[bags.offsets])
        tie = np.random.default_rng([self.seed, _TIES, structure]).random(len(rows))
        order = np.lexsort((tie, bags.sizes, -shared, -found["overlap"].to_numpy()))
        return found.iloc[order].reset_index(drop=True)


def _labels(names: pd.Series[str], images: Path | None) -> NDArray[Any]:
    """The images' labels, (num_images,) strings or missing values, by their names in an images artifact."""
    if images is None:
        return np.full(len(names), None, dtype=object)
    table = ImageTable.load(images).table
    return np.asarray(table.set_index("image")["label"].reindex(names).to_numpy(dtype=object))


def _count(artifacts: Mapping[str, Path], num_skipped_images: int) -> dict[str, float]:
    """The counts of the earlier stages that belong to the metrics."""
    counts = {name: read_manifest(path)["counts"] for name, path in artifacts.items()}
    features = counts.get("features", {})
    metrics = {
        "num_images": counts["words"]["num_images"],
        "num_failed_images": features.get("num_failed_images", 0) + num_skipped_images,
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
        most_images: images a structure.
    """

    def __init__(self, work: Path, run: _Run, side: int, most_images: int) -> None:
        self.work, self.run, self.side, self.most_images = work, run, side, most_images
        if run.features is not None:
            (work / "images").mkdir()
            (work / "panels").mkdir()

    def write(self, structures: NDArray[np.int64]) -> list[ShownStructure]:
        """Write the pictures of the structures and describe them for the page."""
        label_counts = count_labels(self.run.best, self.run.codes)
        shown = []
        with progress("drawing structures", len(structures), "structure") as advance:
            for rank, structure in enumerate(structures.tolist(), 1):
                shown.append(self._structure(rank, structure, label_counts[structure]))
                advance(1)
        return shown

    def _structure(self, rank: int, structure: int, label_counts: NDArray[np.int64]) -> ShownStructure:
        run = self.run
        found = run.matches_of(structure)
        first, last = run.structures.offsets[structure : structure + 2]
        labels = [(name, int(count)) for name, count in zip(run.labels, label_counts, strict=True) if count]
        images, panel = self._images(structure, found.iloc[: self.most_images])
        return ShownStructure(
            number=structure,
            rank=rank,
            score=float(run.scores.score[structure]),
            coherence=float(run.scores.coherence[structure]),
            words=list(
                zip(run.structures[structure].tolist(), run.structures.frequencies[first:last].tolist(), strict=True)
            ),
            num_matches=len(found),
            images=images,
            labels=sorted(labels, key=lambda label: (-label[1], label[0])),
            panel=panel,
        )

    def _images(self, structure: int, found: pd.DataFrame) -> tuple[list[ShownImage], str | None]:
        """The chosen images of a structure, with their tiles and panel where there are pictures."""
        run, shown, tiles = self.run, [], []
        for row, overlap, keypoints in zip(found["row"], found["overlap"], found["keypoints"], strict=True):
            code = run.codes[row]
            image = ShownImage(run.names[row], run.labels[code] if code >= 0 else None, float(overlap))
            if run.features is not None:
                plain, drawn = f"images/image_{row:06d}.jpg", f"images/structure_{structure:04d}_image_{row:06d}.jpg"
                tile, tile_drawn = self._tiles(run.features, structure, int(row), np.asarray(keypoints, np.int64))
                panels.save_jpeg(self.work / plain, tile)
                panels.save_jpeg(self.work / drawn, tile_drawn)
                tiles.append(tile_drawn)
                image = ShownImage(image.image, image.label, image.overlap, drawn, plain)
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
            image = read_image(features.image_path(row))
        except UnreadableImageError:  # it was there when its features were extracted
            tile = panels.missing_tile(self.run.names[row], self.side)
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


def _searchable(run: _Run, structures: Sequence[ShownStructure]) -> list[Any]:
    """The images for the search box with the shown structures they hold; shown images first where cut."""
    numbers = [structure.number for structure in structures]
    found = pd.read_parquet(
        run.matches, columns=["structure", "image", "overlap"], filters=[("structure", "in", numbers)]
    )
    held: dict[int, list[tuple[int, float]]] = defaultdict(list)
    rows = run.names.get_indexer(pd.Index(found["image"]))
    for row, number, overlap in zip(rows.tolist(), found["structure"], found["overlap"], strict=True):
        held[row].append((number, overlap))
    names = [image.image for structure in structures for image in structure.images]
    chosen = dict.fromkeys([*run.names.get_indexer(pd.Index(names, dtype=object)).tolist(), *range(len(run.names))])
    shown = sorted(list(chosen)[:_MOST_SEARCHABLE_IMAGES])
    return [search_entry(run.names[row], int(run.codes[row]), held[row]) for row in shown]


def _copy_figures(work: Path, artifacts: Mapping[str, Path]) -> list[tuple[str, str]]:
    """Copy the figures of earlier stages, as far as they exist; their paths in the report and captions."""
    copied = []
    for stage, name, caption in _FIGURES:
        if stage in artifacts and (artifacts[stage] / name).is_file():
            (work / "figures").mkdir(exist_ok=True)
            shutil.copyfile(artifacts[stage] / name, work / "figures" / name)
            copied.append((f"figures/{name}", caption))
    return copied
