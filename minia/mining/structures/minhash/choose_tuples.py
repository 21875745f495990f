"""How many min-hashes make a tuple, and how many tuples to draw: given, or chosen from the corpus."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from minia.core.artifact import InputError

_HASHES = 1500  # the original minIA's 750 tuples of 2: what a corpus is worth in time
_LARGEST_TUPLE = 6
_CHANCE_PAIRS = 1 << 24  # so many pairs of words are tested in a minute and held in 1 GB
_CLASSES = 256


def num_tuples_for_threshold(threshold: float, tuple_size: int) -> int:
    """Number of tuples at which two words of a given similarity share at least one with probability 1/2.

    That is ``l = ln(0.5) / ln(1 - s^r)``, rounded down, as the reference program does it; at least 1.

    Args:
        threshold: s, the Jaccard similarity, between 0 and 1.
        tuple_size: r, min-hashes in a tuple.

    Raises:
        InputError: ``threshold`` is not between 0 and 1, or ``tuple_size`` is below 1.
    """
    if not 0 < threshold < 1:
        raise InputError(f"the co-occurrence threshold must be between 0 and 1, not {threshold}")
    if tuple_size < 1:
        raise InputError(f"the tuple size must be at least 1, not {tuple_size}")
    return max(1, int(math.log(0.5) / math.log1p(-(threshold**tuple_size))))


def choose_tuples(
    tuple_size: int | None,
    num_tuples: int | None,
    similarity_threshold: float | None,
    *,
    word_frequencies: npt.NDArray[np.int64],
    image_sizes: npt.NDArray[np.int64],
) -> tuple[int, int]:
    """Tuple size and number of tuples, those that are not given chosen from the corpus.

    The tuple size is the smallest of at least 2 at which chance alone brings together at most 17 million
    pairs of words. Small tuples find words of low similarity, down to 0.03 for 750 tuples of 2; where
    frequent words of a large vocabulary are that similar by chance, larger ones are needed, that do not
    find too much. The number of tuples is what the threshold asks for, or what makes 1,500 min-hashes.

    Args:
        tuple_size: min-hashes in a tuple; None chooses it.
        num_tuples: None derives it from the threshold or chooses it.
        similarity_threshold: at which two words share a tuple with probability one half, or None.
        word_frequencies: (num_words,) images that hold each word.
        image_sizes: (num_images,) distinct words that each image holds.

    Returns:
        The tuple size and the number of tuples.
    """

    def number_of(size: int) -> int:
        if num_tuples is not None:
            return num_tuples
        if similarity_threshold is not None:
            return num_tuples_for_threshold(similarity_threshold, size)
        return max(1, _HASHES // size)

    if tuple_size is not None:
        return tuple_size, number_of(tuple_size)
    size = 2
    while size < _LARGEST_TUPLE:
        if _chance_pairs(word_frequencies, image_sizes, size, number_of(size)) <= _CHANCE_PAIRS:
            break
        size += 1
    return size, number_of(size)


def _chance_pairs(
    word_frequencies: npt.NDArray[np.int64], image_sizes: npt.NDArray[np.int64], tuple_size: int, num_tuples: int
) -> float:
    """Pairs of words expected to meet in a table, if words keep to no company.

    Words of n_a and n_b images then share ``n_a n_b sum s (s - 1) / (sum s)^2`` of images of s words each.
    Words of similar frequency are treated as one class.
    """
    used = np.sort(word_frequencies[word_frequencies > 0]).astype(np.float64)
    sizes = image_sizes.astype(np.float64)
    if len(used) < 2:
        return 0.0
    classes = np.array_split(used, min(_CLASSES, len(used)))
    frequency = np.array([each.mean() for each in classes])
    count = np.array([len(each) for each in classes], dtype=np.float64)
    expected = np.outer(frequency, frequency) * (sizes @ (sizes - 1)) / sizes.sum() ** 2
    expected = np.minimum(expected, np.minimum.outer(frequency, frequency))
    similarity = expected / (np.add.outer(frequency, frequency) - expected)
    meeting = 1 - (1 - similarity**tuple_size) ** num_tuples
    return float(count @ meeting @ count / 2)
