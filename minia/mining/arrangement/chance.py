"""How likely chance alone makes what was found: places exchanged inside images, and false discovery rates.

If words kept no arrangement, an image's keypoints could exchange their places and nothing would
change: what is found in the image as it is would be one of R + 1 equally likely numbers, with those found in R
exchanges. Images are exchanged one by one, so that few exchanges test much: n images have (R + 1)^n
combinations. The probability of a sum as large as the one found is bounded by that of Chernoff (1952):
``P(S >= s) <= min over t of exp(-t s) prod_i mean_r exp(t x_ir)``. For this the arrangement must not have been learned
from the image: it is learned from one half of the images and sought in the other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]

_EXPONENTS = np.geomspace(0.01, 30, 48)


def exchange_probability(found: Vector, exchanged: Vector) -> float:
    """A bound of the probability that exchanged places give a sum as large.

    Args:
        found: (num_images,) at least 0, what was found in each image.
        exchanged: (num_exchanges, num_images), what was found with exchanged places.

    Returns:
        In (0, 1].
    """
    every = np.concatenate([found[None], exchanged])
    every = every[:, every.any(axis=0)]
    if every.shape[1] == 0:
        return 1.0
    top = every.max(axis=0)
    exponent = _EXPONENTS[:, None, None] / max(1.0, float(top.max()))
    mean = (
        np.log(np.mean(np.exp(exponent * (every - top)), axis=1)) + exponent[:, 0] * top
    )  # the largest apart: no overflow
    bound = mean.sum(axis=1) - exponent[:, 0, 0] * every[0].sum()
    return float(np.exp(min(0.0, max(float(bound.min()), -700.0))))


def false_discovery_rates(probabilities: Vector, num_tests: int | None = None) -> Vector:
    """The q-value of each of several probabilities (Benjamini, Hochberg 1995).

    Args:
        probabilities: (n,) that chance alone gives as much.
        num_tests: how many tests there were, these included; default: n.
    """
    number = len(probabilities)
    order = np.argsort(probabilities, kind="stable")
    q = probabilities[order] * (num_tests or number) / np.arange(1, number + 1)
    rates = np.empty(number)
    rates[order] = np.minimum(1.0, np.minimum.accumulate(q[::-1])[::-1])
    return rates


def decoy_rates(scores: Vector, decoys: Vector, num_collections: int, expected: float) -> Vector:
    """The q-value of each structure by what collections of chance alone give, mined in the same way.

    ``q(t) = (expected + decoys of t or more / collections) / structures of t or more``, made to rise with falling t.
    Few collections without any decoy do not say that there is none in a hundred: so ``expected``, the number of
    structures that the linkage allows chance, is added.

    Args:
        scores: (num_structures,) of the structures.
        decoys: (num_decoys,) of those mined from all collections of chance.
        num_collections: how many these were.
        expected: structures that chance makes in one collection by the linkage's own promise.

    Returns:
        (num_structures,) in (0, 1].
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    above = len(decoys) - np.searchsorted(np.sort(decoys), ranked, side="left")
    number = np.searchsorted(-ranked, -ranked, side="right")  # ties count all
    q = (expected + above / num_collections) / np.maximum(number, 1)
    rates = np.empty(len(scores))
    rates[order] = np.minimum(1.0, np.minimum.accumulate(q[::-1])[::-1])
    return rates
