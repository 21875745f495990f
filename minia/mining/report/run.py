"""What a report is about: the artifacts of a run, read, and what was measured on them."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from minia.core.artifact import read_manifest
from minia.data.images import load_labels
from minia.mining.features.store import FeatureStore
from minia.mining.lists.listdb import ListDB
from minia.mining.matching.best_images import GalleryImages, choose_gallery_images
from minia.mining.matching.settings import OverlapMatching
from minia.mining.matching.stage import MATCHES, KeypointWords
from minia.mining.report.label_metrics import (
    accuracy_metrics,
    best_labelled_images,
    encode_labels,
    purity_metrics,
)
from minia.mining.report.placed import PlacedParts
from minia.mining.report.ranking import Scores, score_structures
from minia.mining.structures.stage import STRUCTURE_TABLE, load_structures
from minia.mining.words.stage import load_bags, load_images

logger = logging.getLogger(__name__)

_TIES = 3  # keeps these random numbers independent of the evaluation's


@dataclass(frozen=True)
class Artifacts:
    """The artifacts that a report is made of.

    Attributes:
        words: of the words stage.
        mining: of the mining stage, or of the arrangement stage.
        matching: of the matching stage.
        images: of the images stage, which knows the labels and how many files it left out; None without images.
        features: of the features stage; None where the bags came without images.
        vocabulary: of the vocabulary stage, None likewise.
        assignment: the visual words of the keypoints, None likewise.
    """

    words: Path
    mining: Path
    matching: Path
    images: Path | None = None
    features: Path | None = None
    vocabulary: Path | None = None
    assignment: Path | None = None

    def by_stage(self) -> dict[str, Path]:
        """Those that there are, by the name of their stage."""
        found = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {name: path for name, path in found.items() if path is not None}


@dataclass(frozen=True)
class Run:
    """What earlier stages made, read, and what was measured on it.

    Attributes:
        artifacts: by the name of their stage.
        bags: list = image, item = visual word.
        names: of the images, a bag each.
        structures: list = structure, item = visual word.
        table: structures.csv, a row a structure; without columns where the linkage writes none.
        places: of the arrangement stage; None where it did not run.
        features: None without images.
        codes: (num_images,) int64 places in ``labels``, -1 for none.
        labels: all labels, sorted.
        scores: of the structures.
        best: see ``best_labelled_images``.
        matching: the overlap's formula and its smallest value.
        seed: of all that is random.
    """

    artifacts: Mapping[str, Path]
    bags: ListDB
    names: pd.Series[str]
    structures: ListDB
    table: pd.DataFrame
    places: PlacedParts | None
    features: FeatureStore | None
    codes: NDArray[np.int64]
    labels: list[str]
    scores: Scores
    best: NDArray[np.int64]
    matching: OverlapMatching
    seed: int

    @classmethod
    def load(cls, artifacts: Mapping[str, Path], matching: OverlapMatching, seed: int) -> Run:
        """Read the artifacts and score the structures.

        Args:
            artifacts: by the name of their stage.
            matching: the overlap's formula and its smallest value.
            seed: of ties.
        """
        words = artifacts["words"]
        bags, names = load_bags(words, mapped=True), load_images(words)["image"]
        structures = load_structures(artifacts["mining"], bags.num_items)
        codes, labels = _labels(names, artifacts.get("images"))
        table = artifacts["mining"] / STRUCTURE_TABLE
        return cls(
            artifacts=artifacts,
            bags=bags,
            names=names,
            structures=structures,
            table=pd.read_csv(table) if table.is_file() else pd.DataFrame(),
            places=PlacedParts.load(artifacts["mining"]),
            features=FeatureStore.load(artifacts["features"]) if "features" in artifacts else None,
            codes=codes,
            labels=labels,
            scores=score_structures(bags, structures),
            best=best_labelled_images(bags, structures, codes, formula=matching.formula, seed=seed),
            matching=matching,
            seed=seed,
        )

    @property
    def matches(self) -> Path:
        """The file of matches."""
        return self.artifacts["matching"] / MATCHES

    @functools.cached_property
    def keypoint_words(self) -> KeypointWords | None:
        """The visual words of the keypoints; None without them."""
        if "features" not in self.artifacts or "assignment" not in self.artifacts:
            return None
        return KeypointWords.load(self.artifacts["features"], self.artifacts["assignment"])

    def words_of_keypoints(self, image: int) -> NDArray[np.int32] | None:
        """The visual word of each of an image's keypoints, (n,) int32; None where they are not known."""
        if self.keypoint_words is None or self.features is None:
            return None
        return self.keypoint_words.between(int(self.features.offsets[image]), int(self.features.offsets[image + 1]))

    @property
    def label_counts(self) -> NDArray[np.int64]:
        """How many images have each label, (num_labels,) int64."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.labels))

    def measure(self, num_shuffles: int, num_threads: int) -> dict[str, float]:
        """Mean scores and label metrics, as far as there are structures and labels.

        Args:
            num_shuffles: of the labels, for the purity that chance gives.
            num_threads: no result depends on it.
        """
        means = {"mean_coherence": self.scores.coherence, "mean_score": self.scores.score}
        metrics = {name: float(values.mean()) for name, values in means.items() if len(values)}
        metrics |= purity_metrics(self.best, self.codes, num_shuffles, self.seed)
        formula = self.matching.formula
        return metrics | accuracy_metrics(self.bags, self.structures, self.codes, formula, self.seed, num_threads)

    def choose_images(self, shown: NDArray[np.int64], most_images: int) -> GalleryImages:
        """The images to list of each shown structure, best first, at most so many."""
        chosen = choose_gallery_images(
            self.bags, self.structures.select(shown), formula=self.matching.formula,
            min_overlap=self.matching.min_overlap, most_images=most_images, seed=[self.seed, _TIES],
        )  # fmt: skip
        return chosen if self.places is None else self.places.put_in(chosen, shown)


def count_stages(artifacts: Mapping[str, Path]) -> dict[str, float]:
    """The counts of the earlier stages that belong to the metrics.

    Args:
        artifacts: by the name of their stage.
    """
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
