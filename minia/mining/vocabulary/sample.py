"""Which descriptors a vocabulary is made of: the same number from every image, or from a sample of many images.

Which images are in the sample their names and the seed decide, so that it is the same whether the features of all
images were stored or those of the sample alone. Nor does it matter how features lie in shards.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minia.core.random_bits import name_keys
from minia.mining.features.store import FeatureStore

_DESCRIPTORS_PER_BLOCK = 16384  # 8 MB of float32 at 128 dimensions


def sample_images(features: FeatureStore, most_images: int, seed: int) -> FeatureStore:
    """The features of the images that a vocabulary is made of.

    Args:
        features: of all images, or of the sample alone.
        most_images: images of the sample, those that could not be read included; fewer where there are fewer.
        seed: of the sample.
    """
    failed = features.failed_images
    if len(features.images) + len(failed) <= most_images:
        return features
    keys = name_keys([*features.images["image"], *failed], seed)
    largest = np.partition(keys, most_images - 1)[most_images - 1]
    return features.of_rows(np.flatnonzero(keys[: len(features.images)] <= largest))


def sample_descriptors(features: FeatureStore, target: int, seed: int) -> NDArray[np.float32]:
    """Draw ``target`` descriptors, the same number (or one more) from every image as far as it has them.

    Returns:
        (min(target, num_keypoints), descriptor_size) float32, in the order of the images.
    """
    wanted = _share(np.diff(features.offsets), target, np.random.default_rng([seed, 0]))
    generator = np.random.default_rng([seed, 1, 0])  # one for all shards: how many images these have must not matter
    first_keypoint = features.images["first_keypoint"].to_numpy(np.int64)
    sample = np.empty((int(wanted.sum()), features.descriptor_size), np.float32)
    taken = 0
    for shard, descriptors in enumerate(features.shards("descriptors")):
        images = features.images_of_shard(shard)
        counts = np.diff(features.offsets[images.start : images.stop + 1])
        chosen = _choose(counts, wanted[images.start : images.stop], generator)
        begins = first_keypoint[images.start : images.stop] - (np.cumsum(counts) - counts)
        rows = chosen + np.repeat(begins, counts)[chosen]
        in_order = len(rows) > 0 and bool((np.diff(rows) == 1).all())
        piece = slice(rows[0], rows[-1] + 1) if in_order else rows  # several times as fast as single rows
        sample[taken : taken + len(rows)] = descriptors[piece]
        taken += len(rows)
    return sample


def _share(counts: NDArray[np.int64], target: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """How many descriptors to take of each image: in all min(target, those there are).

    All images give the same number, as far as they have it, and images drawn at random one more.

    Args:
        counts: (num_images,) int64, keypoints of each image.
        target: descriptors to take in all.
        generator: draws the images that give one more.

    Returns:
        (num_images,) int64.
    """
    low, high = 0, int(counts.max(initial=0))
    while low < high:  # the largest number per image that does not exceed the target
        middle = (low + high + 1) // 2
        if int(np.minimum(counts, middle).sum()) <= target:
            low = middle
        else:
            high = middle - 1
    wanted = np.minimum(counts, low)
    more = np.flatnonzero(counts > low)
    wanted[generator.permutation(more)[: target - int(wanted.sum())]] += 1
    return wanted


def _choose(counts: NDArray[np.int64], wanted: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Rows of the wanted numbers of keypoints of each image, of images laid end to end, ascending."""
    drawn = generator.random(int(counts.sum()))
    if np.array_equal(wanted, counts):
        return np.arange(len(drawn))
    image = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((drawn, image))
    rank = np.arange(len(image)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[rank < np.repeat(wanted, counts)])


def count_distinct(descriptors: NDArray[np.float32], enough: int) -> int:
    """How many different descriptors there are; counting stops soon after ``enough``."""
    seen: set[bytes] = set()
    for first in range(0, len(descriptors), _DESCRIPTORS_PER_BLOCK):
        block = np.ascontiguousarray(descriptors[first : first + _DESCRIPTORS_PER_BLOCK])
        seen.update(row.tobytes() for row in block)
        if len(seen) >= enough:
            break
    return len(seen)
