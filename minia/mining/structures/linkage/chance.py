"""What chance alone makes of pairs of words: the null model behind the significance of a structure.

If words kept to no company, an image with many words would still hold many pairs, and so would
two frequent words. The model keeps both: word a is in image i with probability

    p_ai = x_a y_i / (1 + x_a y_i),

x and y such that every word is expected in as many images as it was found in, and every image to hold as
many words as it holds: the bipartite configuration model (Saracco, Di Clemente, Gabrielli,
Squartini 2015), which is the Rasch model of test theory. Two words then share about
``E = sum_i f_i p_ai p_bi`` images with variance ``V = sum_i f_i p_ai p_bi (1 - p_ai p_bi)``. In the model an image
holds s words on average only, and so more pairs than the s (s - 1) / 2 of an image that holds s; f_i, below 1, makes
these numbers equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_IMAGE_CLASSES = 64  # images of about equally many words are treated as one class
_MOST_ROUNDS = 200
_TOLERANCE = 1e-4  # of the expected frequencies, relative
_SETTLED = 1e-6  # where that error changes by less it stays: the halves below leave the sums unequal
_LONGEST_STEP = 2.0  # of ln x, against overshooting
_LEAST_VARIANCE = 1e-9  # of the mean: rounding must not make it 0 where words are in nearly all images
_PAIRS_AT_A_TIME = 1 << 18
_CELLS_A_PAIR = 4

Vector = npt.NDArray[np.float64]
Integers = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Chance:
    """The chance model of a collection.

    Attributes:
        probability: (num_word_classes, num_image_classes) float64; words of one frequency are a class.
        word_class: (num_words,) int64.
        image_class: (num_images,) int64, -1 for images without words.
        num_images: (num_image_classes,) float64, images of each class.
        pair_images: (num_image_classes,) float64, the same times f of the module's formula.
    """

    probability: Vector
    word_class: npt.NDArray[np.int64]
    image_class: npt.NDArray[np.int64]
    num_images: Vector
    pair_images: Vector

    def shared_images(self, left: Integers, right: Integers) -> tuple[Vector, Vector]:
        """Mean and variance of the images that the words of each pair share, (num_pairs,) float64 each."""
        mean, variance = np.empty(len(left)), np.empty(len(left))
        for block, (block_mean, block_variance) in self.shared_in_blocks(left, right):
            mean[block], variance[block] = block_mean, block_variance
        return mean, variance

    def shared_in_blocks(self, left: Integers, right: Integers) -> Iterator[tuple[slice, tuple[Vector, Vector]]]:
        """Mean and variance of the shared images for some pairs at a time, with the slice of pairs that they are of."""
        num_classes = len(self.probability)
        small = num_classes**2 <= _CELLS_A_PAIR * len(left)  # a cell by a matrix product takes a tenth of the time
        of_classes = _expected(self.probability, self.probability, self.pair_images) if small else None
        for begin in range(0, len(left), _PAIRS_AT_A_TIME):
            block = slice(begin, begin + _PAIRS_AT_A_TIME)
            classes = self.word_class[left[block]], self.word_class[right[block]]
            if of_classes is not None:
                cell = classes[0] * num_classes + classes[1]
                yield block, (of_classes[0].ravel()[cell], of_classes[1].ravel()[cell])
            else:
                both = self.probability[classes[0]] * self.probability[classes[1]]
                mean = both @ self.pair_images
                variance = mean - (both * both) @ self.pair_images
                yield block, (mean, np.maximum(variance, _LEAST_VARIANCE * mean))


def _expected(left: Vector, right: Vector, images: Vector) -> tuple[Vector, Vector]:
    """Mean and variance for all pairs of two word classes."""
    mean = (left * images) @ right.T
    variance = mean - (left**2 * images) @ (right**2).T
    return mean, np.maximum(variance, _LEAST_VARIANCE * mean)


def fit_chance(word_frequencies: npt.NDArray[np.int64], image_sizes: npt.NDArray[np.int64]) -> Chance:
    """Fit the model to how often words are found and how many of them images hold.

    Each round takes one step of Newton's method in ln x for all words, then in ln y for all images:
    the log likelihood is concave in both.

    Args:
        word_frequencies: (num_words,) images that hold each word, at least 1.
        image_sizes: (num_images,) words that each image holds; images without any take no part.
    """
    held, counts = np.unique(image_sizes[image_sizes > 0], return_counts=True)
    label, sizes, num_images, num_pairs = _classes(held.astype(np.float64), counts.astype(np.float64))
    # No x makes an occurrence certain: a word of all images, or an image of all words, falls short by a half.
    sizes = np.minimum(sizes, len(word_frequencies) - 0.5)
    found, word_class, repeats = np.unique(word_frequencies, return_inverse=True, return_counts=True)
    num_words = repeats.astype(np.float64)
    frequencies = np.minimum(found.astype(np.float64), num_images.sum() - 0.5)
    scale = 0.5 * np.log(frequencies @ num_words)
    word, image = np.log(frequencies) - scale, np.log(sizes) - scale
    before = np.inf
    for _ in range(_MOST_ROUNDS):
        wanting = _newton(word, image, frequencies, num_images)
        _newton(image, word, sizes, num_words)
        if wanting <= _TOLERANCE or abs(wanting - before) <= _SETTLED:
            break
        before = wanting
    probability = _logistic(word[:, None] + image)
    modelled = ((num_words @ probability) ** 2 - num_words @ probability**2) / 2  # pairs of words an image
    image_class = np.where(image_sizes > 0, label[np.searchsorted(held, image_sizes) % len(held)], -1)
    return Chance(probability, word_class, image_class, num_images, num_pairs / np.maximum(modelled, 1e-300))


def _newton(own: Vector, other: Vector, wanted: Vector, counts: Vector) -> float:
    """One step for the parameters ``own``, in place; returns the largest relative error before it."""
    probability = _logistic(own[:, None] + other)
    expected = probability @ counts
    slope = (probability * (1 - probability)) @ counts
    step = (wanted - expected) / np.maximum(slope, 1e-300)
    own += np.minimum(np.maximum(step, -_LONGEST_STEP), _LONGEST_STEP)
    return float(np.abs(expected / wanted - 1).max(initial=0.0))


def _logistic(value: Vector) -> Vector:
    return np.asarray(1 / (1 + np.exp(-value)))


def _classes(sizes: Vector, counts: Vector) -> tuple[npt.NDArray[np.int64], Vector, Vector, Vector]:
    """Join neighbouring sizes into at most 64 classes that hold about equally many words in all.

    Returns:
        The class of each size; and the mean size, the number of images and the number of pairs of
        words in them, of each class.
    """
    words = sizes * counts
    label = np.arange(len(sizes))
    if len(sizes) > _IMAGE_CLASSES:
        position = (np.cumsum(words) - 0.5 * words) / words.sum()  # 0 .. 1, in words
        label = np.unique((position * _IMAGE_CLASSES).astype(np.int64), return_inverse=True)[1]
    num_images, num_words, num_pairs = (
        np.bincount(label, weights=weights).astype(np.float64) for weights in (counts, words, words * (sizes - 1) / 2)
    )
    return label, num_words / num_images, num_images, num_pairs
