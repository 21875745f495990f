"""How many visual words a collection is worth: ``vocabulary.size=auto``.

A pair of words stands out where each image holds a small share of all words. How many different words an image holds is
not its number of keypoints: those of a dense grid on a smooth galaxy fall into few words, those of a detector on
clutter into nearly as many as there are. So it is tried out: keypoints drawn from the whole collection stand for words,
and it is counted how many of these the keypoints of an image are nearest to.
"""

from __future__ import annotations

import math

import numpy as np

from minia.mining.features.store import FeatureStore
from minia.mining.vocabulary.sample import sample_descriptors

WORDS_A_DRAW = 5  # an image then holds a sixth of the words
IMAGES_A_WORD = 20
SMALLEST, LARGEST = 100, 30_000
_MOST_TRIAL_WORDS = 8192
_IMAGES = (10, 100)  # looked at, the fewest and the most
_COMPARISONS = 1e8  # of descriptors with trial words, about


def choose_size(draws: float, num_images: int) -> int:
    """The number of visual words.

    Five for each different thing that an image draws: it then holds a sixth of all words, and two that are together in
    more images than chance brings stand out. With few images fewer words: each is to be in some 20 images, or
    nothing can be together often. The figures behind it are in ``benchmarks/RESULTS.md``.

    Args:
        draws: words that an image would draw, if it drew them independently (see ``count_draws``).
        num_images: images that have any keypoints.

    Returns:
        Words, at least 100 and at most 30,000, of two significant digits.
    """
    wanted = min(WORDS_A_DRAW * draws, draws * num_images / IMAGES_A_WORD)
    digits = len(str(int(wanted))) - 2
    return int(np.clip(round(wanted, -max(0, digits)), SMALLEST, LARGEST))


def count_draws(features: FeatureStore, seed: int) -> tuple[float, int]:
    """How many words an image would draw from a vocabulary, were its keypoints independent of each other.

    Of w trial words, twice as many as an image has keypoints, an image holds a share s; n independent draws hold
    1 - (1 - 1 / w)^n of them, so it is worth n = log(1 - s) / log(1 - 1 / w).

    Args:
        features: the features; 10 to 100 images of them are looked at.
        seed: of the trial words.

    Returns:
        The mean over the images looked at, and how many images have any keypoints.
    """
    import torch

    from minia.mining.vocabulary.nearest import nearest_centroids

    used = np.flatnonzero(np.diff(features.offsets))
    if len(used) == 0:
        return 0.0, 0
    keypoints = features.num_keypoints / len(used)
    trial = torch.from_numpy(sample_descriptors(features, min(_MOST_TRIAL_WORDS, math.ceil(2 * keypoints)), seed))
    wanted = int(np.clip(_COMPARISONS / (keypoints * len(trial)), *_IMAGES))
    held = []
    for row in used[np.unique(np.linspace(0, len(used) - 1, wanted).astype(int))].tolist():
        points = torch.from_numpy(np.asarray(features.of_image(row, "descriptors"), dtype=np.float32))
        held.append(len(np.unique(nearest_centroids(points, trial)[0].numpy())) / len(trial))
    share = min(float(np.mean(held)), 1 - 0.5 / len(trial))
    return math.log1p(-share) / math.log1p(-1 / max(2, len(trial))), len(used)
