"""What a run will need before it starts: disk, memory and time by stage, from a calibration of seconds.

A few images are extracted and a product of matrices is timed; the rest follows from these by a stated rule:

===========  ===================================================================================================
stage        seconds
===========  ===================================================================================================
features     images x seconds of one of the images that were tried, over the workers
vocabulary   2 s, and sampled descriptors x (centroids that each is compared with, twice and 768 near ones) at 0.12
             of the product's rate
words        keypoints x centroids that each is compared with at 0.55 of the product's rate, and 0.15 us a keypoint
mining       4 s, and 0.75 us for each word of an image, of which there are 0.6 a keypoint at most
arrangement  1.5 us a keypoint, over at most 8 workers, and 2.5 us of those that it learns from
matching     60 us an image, and 4 us a structure that an image holds, of which there are 0.12 a keypoint
report       10 s, 110 us an image, and 25 ms an image that is copied, of which there are 8,500 at most
===========  ===================================================================================================

On disk are the features, 16 bytes a word of an image, 90 bytes a structure that an image holds, and 65 kB an image that
is copied; in memory 160 bytes a keypoint that is learned from, or 24 bytes a word of an image where that is more.

The constants are those of runs of 3,000 and 50,000 images of 1,495 keypoints, in the larger one 872 structures of which
an image holds 179, and processor seconds of the benchmarks (``keypoints_scale.py``, ``mining_scale.py``, ``scale.py``);
what else runs on the machine makes all of it longer, and collections differ: it is right to a factor of two or three.
Where words alone give no structure to list, comparing images takes up to a minute more, which no estimate can know
before (``arrangement.compared_images``).
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minia.core.context import Context
from minia.core.device import choose_device
from minia.mining.arrangement.collection import MOST_LEARNED, MOST_SPANS
from minia.mining.features.estimate import SizeEstimate
from minia.mining.vocabulary.assignment import APPROXIMATE_FROM
from minia.mining.vocabulary.settings import KMeansVocabulary, VocabularySettings
from minia.mining.vocabulary.size import LARGEST, SMALLEST
from minia.mining.vocabulary.stage import MOST_SAMPLED

logger = logging.getLogger(__name__)

_WORDS_A_KEYPOINT = 2.0  # of an automatic vocabulary: 5 for each independent draw, of which a grid makes few
_HELD_A_KEYPOINT = 0.12  # structures that an image holds
_MOST_COPIED = 8500  # images of the report
_BYTES_ARRANGED = 160  # each of these, at the peak
_LIBRARIES = 0.6e9  # bytes of Python and torch


@dataclass(frozen=True)
class Needs:
    """What a run needs.

    Attributes:
        disk: bytes.
        memory: bytes at the peak.
        seconds: of each stage, in their order.
    """

    disk: float
    memory: float
    seconds: dict[str, float]

    @classmethod
    def of(
        cls, found: SizeEstimate, vocabulary: VocabularySettings, context: Context, rate: float, *, keeps: bool
    ) -> Needs:
        """Work them out.

        Args:
            found: what some images were like.
            vocabulary: settings.
            context: workers of the run.
            rate: operations a second of a product of matrices in one thread, or on the GPU.
            keeps: whether descriptors are kept.
        """
        keypoints, dimensions = found.num_images * found.keypoints, found.descriptor_size
        size = float(vocabulary.size) if isinstance(vocabulary, KMeansVocabulary) and vocabulary.size != "auto" else 0.0
        size = size or min(LARGEST, max(float(SMALLEST), _WORDS_A_KEYPOINT * found.keypoints))
        sampled = min(256 * size, MOST_SAMPLED, keypoints)
        words = min(0.6 * found.keypoints, size) * found.num_images
        compared = 3000 * math.sqrt(size / 20_000) if size >= APPROXIMATE_FROM else size
        held, copied = _HELD_A_KEYPOINT * keypoints, min(found.num_images, _MOST_COPIED)
        at_once = rate * (1 if choose_device(context.device) == "cuda" else context.num_workers)
        seconds = {
            "features": found.num_images * found.seconds / context.num_workers,
            "vocabulary": 2 + sampled * 2 * dimensions * (2 * min(size, max(1000, size / 16)) + 768) / (0.12 * at_once),
            "words": keypoints * 2 * dimensions * compared / (0.55 * at_once) + 0.15e-6 * keypoints,
            "mining": 4 + 0.75e-6 * words,
            "arrangement": 1.5e-6 * keypoints / min(context.num_workers, MOST_SPANS)
            + 2.5e-6 * min(keypoints, MOST_LEARNED),
            "matching": 60e-6 * found.num_images + 4e-6 * held,
            "report": 10 + 110e-6 * found.num_images + 25e-3 * copied,
        }
        features = found.num_bytes + 4 * keypoints if keeps else 12 * keypoints
        if not keeps and isinstance(vocabulary, KMeansVocabulary):
            features += found.num_bytes * min(1.0, vocabulary.sample_images / found.num_images)
        arranged = _BYTES_ARRANGED * min(keypoints, MOST_LEARNED)
        memory = max(arranged, 8 * dimensions * sampled, 3 * 8 * words + 1e9)
        disk = features + 16 * words + 90 * held + 65e3 * copied
        return cls(disk, _LIBRARIES + memory, seconds)

    def told(self, num_images: int, keypoints: float, free: int) -> str:
        """One line for the log."""
        stages = ", ".join(f"{name} {duration(seconds)}" for name, seconds in self.seconds.items())
        return (
            f"needs, about: for {num_images:,} images of {keypoints:,.0f} keypoints {self.disk / 1e9:.1f} GB on disk"
            f" ({free / 1e9:.1f} are free), {self.memory / 1e9:.1f} GB of memory and"
            f" {duration(sum(self.seconds.values()))}: {stages}"
        )


def say_needs(
    found: SizeEstimate, vocabulary: VocabularySettings, store: Path, context: Context, *, keeps: bool
) -> Needs:
    """Say in the log what a run will need; a warning where the disk has less.

    Args:
        found: what some images were like.
        vocabulary: settings.
        store: the folder of artifacts.
        context: of the run.
        keeps: whether descriptors are kept.
    """
    rate = product_rate(found.descriptor_size, context)
    needs = Needs.of(found, vocabulary, context, rate, keeps=keeps)
    free = shutil.disk_usage(store).free
    logger.info(needs.told(found.num_images, found.keypoints, free))
    if needs.disk > free:
        logger.warning(
            "the disk of %s has %.1f GB free, and the run may need %.1f: features.keep_descriptors=false and"
            " features.pca_dim=40 make features smaller", store, free / 1e9, needs.disk / 1e9,
        )  # fmt: skip
    return needs


def product_rate(dimensions: int, context: Context) -> float:
    """Operations a second of comparing descriptors with centroids, in one thread or on the GPU, as measured now."""
    import torch

    from minia.core.threads import single_threaded_torch
    from minia.mining.vocabulary.nearest import half_norms, scores_of

    device = choose_device(context.device)
    points = torch.from_numpy(np.random.default_rng(0).random((2048, dimensions), dtype=np.float32)).to(device)
    offsets, fastest = half_norms(points), 0.0
    with single_threaded_torch(device):
        for _ in range(5):
            begin = time.perf_counter()
            float(scores_of(points, points, offsets)[0, 0])
            fastest = max(fastest, 2.0 * 2048 * 2048 * dimensions / (time.perf_counter() - begin))
    return fastest


def duration(seconds: float) -> str:
    """Seconds in words of two numbers at most: ``40 s``, ``3 min``, ``2 h 10 min``, ``3 d 4 h``."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"
