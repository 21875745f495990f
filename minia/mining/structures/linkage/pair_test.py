"""The test of a pair of words: how likely chance lets them share as many images.

The chance model says how many images two words share in the mean, E. How many hold each of them, n_a and n_b, is known
and does not vary as draws from the model would, which counts where words are in many of few images: two words in 16
of 90 images each share 12 of them with a probability of 1e-8, of 2e-5 if their numbers varied. Of M images in which
a word is as likely in each, the shared ones have the hypergeometric distribution, of the mean n_a n_b / M (Fisher 1935:
"The logic of inductive inference", his exact test). Images that hold many words let two words meet more often, as if
there were fewer images: M is so many, rounded down, that the mean is E.

On bags of real and simulated galaxies with words exchanged between images, which keeps n_a, n_b and the words of every
image, the share of pairs below a probability p is 0.3 to 0.75 p, from 90 images to 900 and from p = 0.01 to 1e-5: whole
numbers cannot be closer. Where an image's number of words does not raise all words' odds alike it does not hold for
words in more than half of the images: so what is weak is left out by the search.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

_MOST_IN_TABLE = 1 << 20  # logarithms of factorials: 8 MB
_ROUNDING = 1e-6  # of logarithms of probabilities
_NEGLIGIBLE = 1e-9  # of the sum: a tail's terms fall at least as fast as those before

Vector = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Draws:
    """Pairs of words as draws of images: of ``images`` images ``left`` hold the one word and ``right`` the other.

    Attributes:
        shared: (num_pairs,) int64 images that hold both.
        left: (num_pairs,) int64.
        right: (num_pairs,) int64.
        images: (num_pairs,) int64, at least ``left + right - shared``.
    """

    shared: Int64s
    left: Int64s
    right: Int64s
    images: Int64s

    @classmethod
    def of(cls, shared: Int64s, left: Int64s, right: Int64s, mean: Vector, num_images: int) -> Draws:
        """So many images that chance lets the words of each pair share ``mean`` of them, ``num_images`` at most."""
        images = (left * (right / mean)).astype(np.int64)
        return cls(shared, left, right, np.clip(images, left + right - shared, num_images))

    def select(self, kept: npt.NDArray[np.bool_] | Int64s) -> Draws:
        """Some of the pairs, by number or by a mask."""
        return Draws(self.shared[kept], self.left[kept], self.right[kept], self.images[kept])


class HypergeometricTest:
    """The test for collections of at most so many images.

    Args:
        num_images: of the collection.
    """

    def __init__(self, num_images: int) -> None:
        self._table = gammaln(np.arange(1.0, min(num_images, _MOST_IN_TABLE) + 2))

    def log_probability_of(self, draws: Draws) -> Vector:
        """Logarithm of the probability that each pair shares just so many images: less than that of so many or more."""
        shared, left, right, images = draws.shared, draws.left, draws.right, draws.images
        value: Vector = self._log(left) - self._log(shared) - self._log(left - shared)
        value += self._log(images - left) - self._log(right - shared) - self._log(images - left - right + shared)
        return value + self._log(right) + self._log(images - right) - self._log(images)

    def probability_of_at_least(self, draws: Draws) -> Vector:
        """Probability that each pair shares so many images or more, (num_pairs,) float64 in [0, 1]."""
        return self._or_more(draws, self.log_probability_of(draws))

    def improbable(self, draws: Draws, limit: float) -> tuple[Int64s, Vector]:
        """The pairs that may have a probability of at most a limit, and that probability.

        Those that share just so many images more often are left out without working out the rest of it.

        Args:
            draws: the pairs.
            limit: above 0.

        Returns:
            Their numbers, ascending, and the probability that each shares so many images or more.
        """
        exactly = self.log_probability_of(draws)
        number = np.flatnonzero(exactly <= np.log(limit) + _ROUNDING)
        return number, self._or_more(draws.select(number), exactly[number])

    def _or_more(self, draws: Draws, exactly: Vector) -> Vector:
        """The probability of so many shared images or more, from the logarithm of that of just so many."""
        term, total = np.ones(len(exactly)), np.ones(len(exactly))
        number = np.arange(len(exactly))
        further = 0
        while len(number):
            left, right, images = draws.left[number], draws.right[number], draws.images[number]
            shared = draws.shared[number] + further
            ratio = (left - shared) * ((right - shared) / ((shared + 1.0) * (images - left - right + shared + 1)))
            term[number] *= ratio
            total[number] += term[number]
            number = number[term[number] > _NEGLIGIBLE * total[number]]
            further += 1
        return np.minimum(1.0, np.exp(exactly + np.log(total)))

    def _log(self, number: Int64s) -> Vector:
        """Logarithms of factorials."""
        if number.max(initial=0) < len(self._table):
            return np.asarray(self._table[number])
        return np.asarray(gammaln(number + 1.0))
