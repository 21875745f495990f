"""The keypoints of a collection by place and word, and places exchanged inside images.

A place is a position, a size and a direction. Positions are complex numbers, x + iy in pixels; size and
direction together are one too, ``size * exp(i * angle)``: a turn, a change of scale and a shift of the
image are then ``z -> c + g z`` and ``pose -> g * pose``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from minia.mining.arrangement.ragged import distinct, group_of

Complex = npt.NDArray[np.complex64]
Numbers = npt.NDArray[np.integer[Any]]


_CELL = 1.5  # sizes: keypoints of one word in one cell, a quarter of a SIFT window, show the same
_CELLS = 1 << 20  # along a side of an image, at most


@dataclass(frozen=True)
class Places:
    """Keypoints laid end to end, image by image.

    Attributes:
        offsets: (num_images + 1,) int64; image i's keypoints are offsets[i] .. offsets[i + 1] - 1.
        position: (num_keypoints,) complex64, x + iy in pixels.
        pose: (num_keypoints,) complex64, size in pixels times ``exp(i angle)``.
        words: (num_keypoints,) int32; -1 where a keypoint repeats a stronger one of its image, word and place.
        by_word: (num_keypoints,) int64 keypoints by rising word; those of one word ascending.
        word_offsets: (num_words + 1,) int64, where each word starts in ``by_word``.
        turns: whether angles are known; else all poses have the angle 0.
    """

    offsets: npt.NDArray[np.int64]
    position: Complex
    pose: Complex
    words: npt.NDArray[np.int32]
    by_word: npt.NDArray[np.int64]
    word_offsets: npt.NDArray[np.int64]
    turns: bool

    @classmethod
    def of(
        cls,
        offsets: npt.NDArray[np.int64],
        keypoints: npt.NDArray[np.float32],
        sizes: npt.NDArray[np.float32],
        angles: npt.NDArray[np.float32],
        words: npt.NDArray[np.int32],
        num_words: int,
    ) -> Places:
        """Put together.

        Args:
            offsets: (num_images + 1,) int64, see the class.
            keypoints: (num_keypoints, 2) float32, x and y in pixels.
            sizes: (num_keypoints,) float32 in pixels, above 0: a sixth of the windows' width, as SIFT has them.
            angles: (num_keypoints,) float32 degrees from x towards y, -1 where they are not known.
            words: (num_keypoints,) int32 in 0 .. num_words - 1; -1 for keypoints that count nowhere.
            num_words: size of the vocabulary.
        """
        position = (keypoints[:, 0] + 1j * keypoints[:, 1]).astype(np.complex64)
        size = np.maximum(sizes, np.float32(1e-3))
        turns = bool((angles >= 0).all())
        pose = (size * np.exp(1j * np.deg2rad(angles * turns))).astype(np.complex64)
        words = np.where(_repeated(offsets, position, pose, words), np.int32(-1), words)
        return cls(offsets, position, pose, words, *_by_word(words, num_words), turns)

    def without(self, keypoints: Numbers) -> Places:
        """The same with some keypoints that count nowhere."""
        words = self.words.copy()
        words[keypoints] = -1
        by_word, word_offsets = _by_word(words, len(self.word_offsets) - 1)
        return replace(self, words=words, by_word=by_word, word_offsets=word_offsets)

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.offsets) - 1

    def of_words(self, words: Numbers) -> npt.NDArray[np.int64]:
        """The keypoints of some words, ascending."""
        parts = [self.by_word[self.word_offsets[word] : self.word_offsets[word + 1]] for word in words.tolist()]
        return np.sort(np.concatenate(parts)) if parts else np.zeros(0, np.int64)

    def image_of(self, keypoints: Numbers) -> npt.NDArray[np.int64]:
        """The image of each of some keypoints."""
        return np.searchsorted(self.offsets, keypoints, side="right") - 1

    def words_in(self, keypoints: Numbers, images: Numbers) -> npt.NDArray[np.int64]:
        """How many distinct words some keypoints have in every image, (num_images,).

        Args:
            keypoints: (n,) with a word each.
            images: (n,) the image of each.
        """
        width = len(self.word_offsets)
        pairs = distinct(images * width + self.words[keypoints])
        return np.bincount(pairs // width, minlength=self.num_images)

    def exchanged(self, seed: int) -> npt.NDArray[np.int32]:
        """For each keypoint the one of its image whose place it takes when places are exchanged at random.

        Returns:
            (num_keypoints,) int32, a permutation inside each image.
        """
        generator = np.random.default_rng([seed, 1])
        image = group_of(self.offsets)
        return np.argsort(image + generator.random(len(image))).astype(np.int32)


def _by_word(words: npt.NDArray[np.int32], num_words: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The keypoints in the order of their words, and where each word's begin in it."""
    by_word = np.argsort(words, kind="stable")
    return by_word, np.searchsorted(words[by_word], np.arange(num_words + 1))


def _repeated(
    offsets: npt.NDArray[np.int64], position: Complex, pose: Complex, words: npt.NDArray[np.int32]
) -> npt.NDArray[np.bool_]:
    """Which keypoints have the word, place, size and direction of an earlier one of their image, to a cell."""
    log = np.log(pose)
    octave = np.floor(2 * log.real / np.log(2)).astype(np.int64)
    cell = _CELL * np.exp2(octave / 2)
    columns = [group_of(offsets), np.floor(log.imag * 4 / np.pi), octave, words]
    columns += [np.clip(np.floor(axis / cell), 0, _CELLS) for axis in (position.real, position.imag)]
    key = np.zeros(len(words), np.uint64)
    for column in columns:  # each mixed before the next: two places meet by chance once in 2^64 pairs
        key = (key ^ column.astype(np.int64).astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    order = np.argsort(key, kind="stable")
    repeated = np.zeros(len(key), dtype=bool)
    repeated[order[1:]] = key[order[1:]] == key[order[:-1]]
    return repeated
