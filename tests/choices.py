"""Settings for tests: the small choices that most of them use, each to be changed by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minia.core.context import Context
from minia.data.settings import CatalogueImages, FolderImages, SimulatedImages
from minia.mining.features.settings import DELFFeatures, DenseFeatures, SIFTFeatures
from minia.mining.matching.settings import OverlapMatching
from minia.mining.report.settings import GalleryReport
from minia.mining.vocabulary.settings import KMeansVocabulary
from minia.mining.words.settings import CountedWords

READING: dict[str, Any] = {"stretch": "asinh", "bands": None, "max_pixels": 100_000_000, "min_side": 0, "max_side": 0}
CPU = Context(seed=0, device="cpu", num_workers=1)


def simulated(**changes: Any) -> SimulatedImages:
    values: dict[str, Any] = {"kind": "simulated", "num_images": 9, "image_size": 64, "min_side": 0, "max_side": 0}
    return SimulatedImages(**values | changes)


def folder(path: Path, **changes: Any) -> FolderImages:
    values: dict[str, Any] = {"kind": "folder", "dir": path, "labels": None, "label_column": "label"}
    return FolderImages(**values | READING | changes)


def catalogue(path: Path, **changes: Any) -> CatalogueImages:
    values: dict[str, Any] = {"kind": "catalogue", "path": path, "dir": None, "id_column": "id", "path_column": "path"}
    return CatalogueImages(**values | {"path_template": None, "label_column": None} | READING | changes)


def dense(**changes: Any) -> DenseFeatures:
    values: dict[str, Any] = {
        "num_features": 1500, "sizes": [0.11, 0.23, 0.45], "step": 0.055, "fovea": 0.0,
        "objects": "central", "mirrored": True,
    }  # fmt: skip
    return DenseFeatures(**values | changes)


def sift(**changes: Any) -> SIFTFeatures:
    values: dict[str, Any] = {
        "num_features": 0, "octave_layers": 3, "contrast_threshold": 0.01, "edge_threshold": 10.0, "sigma": 1.6,
        "root_sift": True, "objects": "none", "shard_images": 5,
    }  # fmt: skip
    return SIFTFeatures(**values | changes)


def delf(model: Path, **changes: Any) -> DELFFeatures:
    values: dict[str, Any] = {
        "model": model, "scales": [0.5, 1.4142], "num_features": 20, "score_threshold": 0.0, "score_percentile": 0.0,
        "nms_iou": 1.0, "batch_size": 4, "precision": "float32", "objects": "none", "shard_images": 20,
    }  # fmt: skip
    return DELFFeatures(**values | changes)


def kmeans(**changes: Any) -> KMeansVocabulary:
    values: dict[str, Any] = {
        "algorithm": "doubling", "size": 12, "iterations": 10, "restarts": 1, "initialisation": "random",
        "points_per_word": 256,
    }  # fmt: skip
    return KMeansVocabulary(**values | changes)


def counted(**changes: Any) -> CountedWords:
    return CountedWords(**{"weighting": "frequency", "outlier_sigma": None} | changes)


def overlap(**changes: Any) -> OverlapMatching:
    values: dict[str, Any] = {"formula": "distinct", "min_overlap": 0.5}
    return OverlapMatching(**values | changes)


def gallery(**changes: Any) -> GalleryReport:
    values: dict[str, Any] = {"max_structures": 5, "images_per_structure": 4, "tile_side": 96, "num_shuffles": 3}
    return GalleryReport(**values | changes)
