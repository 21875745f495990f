"""What the features of a collection will take, by a look at some of its images."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import numpy as np

from minia.data.images import ImageTable
from minia.mining.features.reader import Reader
from minia.mining.features.settings import ExtractedFeatures

logger = logging.getLogger(__name__)

_IMAGES_FOR_ESTIMATE, _SECONDS_FOR_ESTIMATE = 8, 10.0  # at most


@dataclass(frozen=True)
class SizeEstimate:
    """What the features of a collection will take, by a look at some of its images.

    Attributes:
        num_images: of the collection.
        keypoints: of an image.
        descriptor_size: numbers of a descriptor.
        num_bytes: of all features with their descriptors.
        seconds: of an image, extracted in one process.
    """

    num_images: int
    keypoints: float
    descriptor_size: int
    num_bytes: float
    seconds: float


def estimate_size(table: ImageTable, reader: Reader) -> SizeEstimate:
    """Extract some images, for some seconds at most, and say what all will take."""
    num_images, extractor = len(table.table), reader.extractor()
    rows = np.unique(np.linspace(0, num_images - 1, min(_IMAGES_FOR_ESTIMATE, num_images)).astype(int))
    counts, ends = [], [time.perf_counter()]
    for row in rows.tolist():
        [features] = reader.extract_all([table.path(row)])
        ends.append(time.perf_counter())
        counts += [] if isinstance(features, str) else [len(features["scores"])]
        if ends[-1] - ends[0] > _SECONDS_FOR_ESTIMATE:
            break
    mean = float(np.mean(counts)) if counts else 0.0
    size = reader.settings.pca_dim or extractor.descriptor_size
    num_bytes = num_images * mean * (size * np.dtype(extractor.descriptor_dtype).itemsize + 20)
    # The first image also waits for libraries, unless there is no other.
    return SizeEstimate(
        num_images, mean, size, num_bytes, float(np.median(np.diff(ends[1:] if len(ends) > 2 else ends)))
    )


def keeps_descriptors(found: SizeEstimate | None, settings: ExtractedFeatures, sample: int) -> bool:
    """Whether descriptors are to be kept: as the settings have it, else where all are estimated to be in the budget.

    Args:
        found: what some images were like; None where the features of all, with descriptors, are there.
        settings: of the extractor and of the stage.
        sample: images whose descriptors are kept in any case, for the vocabulary.
    """
    if settings.keep_descriptors is not None:
        return settings.keep_descriptors
    if found is None or found.num_images <= sample or found.num_bytes <= settings.disk_budget * 1e9:
        return True
    logger.info(
        "features: descriptors are not kept, since all would take about %.0f GB, more than features.disk_budget=%g:"
        " words and keypoints remain (features.keep_descriptors=true keeps them)",
        found.num_bytes / 1e9, settings.disk_budget,
    )  # fmt: skip
    return False
