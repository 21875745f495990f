"""The keypoints of a collection in pieces that fit memory: a sample of images to learn parts from, and spans of images.

The places of some 16 million keypoints take at most 4 GB while a stage works on them. Parts are learned and tested on
as many images as have these, drawn with the seed where the collection has more: thousands of images, which decide about
a part as well as all would. Then they are sought in all images, span by span, several spans at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minia.mining.arrangement.places import Places
from minia.mining.arrangement.ragged import Numbers, blocks, ranges
from minia.mining.features.store import FeatureStore, HowExtracted
from minia.mining.vocabulary.assignment import load_assignment

MOST_LEARNED = 1 << 24  # keypoints
MOST_SPANS = 8  # in memory at one time
_MOST_AT_ONCE = 1 << 21  # of a span: 0.5 GB while a stage works on it
_ARRAYS = ("keypoints", "sizes", "angles")


@dataclass(frozen=True)
class Collection:
    """Keypoints with their places and words, on disk.

    Attributes:
        features: of all images.
        assignment: artifact with the visual words of the keypoints.
        num_words: size of the vocabulary.
    """

    features: FeatureStore
    assignment: Path
    num_words: int

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.features.images)

    def to_learn_from(self, seed: int) -> Numbers | None:
        """The images to learn parts from, ascending, a random sample by the seed; None for all."""
        if self.features.num_keypoints <= MOST_LEARNED:
            return None
        order = np.random.default_rng([seed, 4]).permutation(self.num_images)
        total = np.cumsum(np.diff(self.features.offsets)[order])
        return np.sort(order[: max(2, int(np.searchsorted(total, MOST_LEARNED, side="right")))])

    def spans(self) -> Iterator[Numbers]:
        """All images in their order, some at a time, at least one."""
        for span in blocks(np.diff(self.features.offsets), _MOST_AT_ONCE):
            yield np.arange(span.start, span.stop)

    def places(self, images: Numbers | None = None) -> Places:
        """The places of the keypoints of some images, ascending, or of all."""
        found = self.features
        rows = np.arange(self.num_images) if images is None else images
        counts, first = (found.images[name].to_numpy(np.int64)[rows] for name in ("num_keypoints", "first_keypoint"))
        shard_of = found.images["shard"].to_numpy()[rows]
        parts: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in _ARRAYS}
        words = [np.zeros(0, np.int32)]
        for shard in np.unique(shard_of).tolist() or range(found.num_shards):
            own = shard_of == shard
            kept = ranges(first[own], counts[own])
            for name in _ARRAYS:
                parts[name].append(found.shard(shard, name)[kept])
            words.append(load_assignment(self.assignment, shard)[kept])
        keypoints, sizes, angles = (np.concatenate(parts[name]) for name in _ARRAYS)
        if images is not None and not self._turns:
            angles = np.full_like(angles, -1)
        sizes = HowExtracted.of(found.artifact).as_sift(sizes)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return Places.of(offsets, keypoints, sizes, angles, np.concatenate(words), self.num_words)

    @functools.cached_property
    def _turns(self) -> bool:
        """Whether all keypoints have angles: what is learned with them is sought with them."""
        return all((angles >= 0).all() for angles in self.features.shards("angles"))
