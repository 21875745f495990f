"""Keypoints of some images as the arrangement takes them: with positions, sizes, directions and words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minia.mining.arrangement.places import Places
from minia.mining.matching.stage import KeypointWords
from minia.query.recorded import Recorded


class Keypoints(NamedTuple):
    """The keypoints of an image.

    Attributes:
        keypoints: (n, 2) float32, x and y in pixels.
        sizes: (n,) float32, diameters in pixels.
        angles: (n,) float32, degrees from x towards y; -1 where there is none.
        words: (n,) int32, their visual words; -1 for those that do not count.
    """

    keypoints: NDArray[np.float32]
    sizes: NDArray[np.float32]
    angles: NDArray[np.float32]
    words: NDArray[np.int32]


def keypoints_of_run(run: Recorded, rows: Sequence[int]) -> Iterator[Keypoints]:
    """The keypoints of some images of a run, by their rows in its table of images."""
    store = run.store
    words = KeypointWords.load(run.artifacts["features"], run.artifacts["assignment"])
    for row in rows:
        places, sizes, angles = (np.asarray(store.of_image(row, name)) for name in ("keypoints", "sizes", "angles"))
        yield Keypoints(places, sizes, angles, words.between(int(store.offsets[row]), int(store.offsets[row + 1])))


def places_of(run: Recorded, images: Sequence[Keypoints], num_words: int) -> Places:
    """Keypoints of several images, extracted as a run's, laid end to end.

    Args:
        run: the run.
        images: at least one.
        num_words: size of the vocabulary.
    """
    offsets = np.concatenate([[0], np.cumsum([len(each.words) for each in images])]).astype(np.int64)
    keypoints, sizes, angles, words = (np.concatenate(each) for each in zip(*images, strict=True))
    return Places.of(offsets, keypoints, run.how.as_sift(sizes), angles, words, num_words)
