"""``features=auto``: the features that suit the collection, by a look at a sample of its images."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minia.core.context import Context
from minia.data.files import UnreadableImageError
from minia.data.images import ImageTable
from minia.data.reading import fit_sides, read_image
from minia.mining.features.settings import AutoFeatures, DenseFeatures, SIFTFeatures
from minia.models.extractors.choose import choose_features

logger = logging.getLogger(__name__)


def settle(settings: AutoFeatures, images: Path, context: Context) -> DenseFeatures | SIFTFeatures:
    """Choose the features for a collection and say why, in one line.

    Args:
        settings: with the settings of what may be chosen.
        images: artifact of the images stage.
        context: ``seed`` chooses the sample.
    """
    choice = choose_features(_sample(ImageTable.load(images), settings.sample_images, context.seed))
    objects = settings.objects or choice.objects
    logger.info("features: %s with objects=%s, since %s", choice.kind, objects, choice.reason)
    chosen = settings.dense if choice.kind == "dense" else settings.sift
    keep = chosen.keep_descriptors if settings.keep_descriptors is None else settings.keep_descriptors
    return chosen.model_copy(update={"objects": objects, "keep_descriptors": keep})


def _sample(table: ImageTable, number: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Images drawn at random, as the extractor would see them; what cannot be read is passed over."""
    total = len(table.table)
    for row in np.sort(np.random.default_rng(seed).choice(total, min(number, total), replace=False)):
        try:
            yield fit_sides(read_image(table.path(int(row)), table.reading), table.min_side, table.max_side)
        except UnreadableImageError:
            continue
