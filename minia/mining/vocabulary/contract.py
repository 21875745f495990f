"""What makes a vocabulary, for one from elsewhere: ``_target_`` of the group ``vocabulary``."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class VocabularyMaker(Protocol):
    """Makes visual words of descriptors.

    Attributes:
        num_descriptors: how many descriptors to draw for it; all images give the same number, as far as they have it.
    """

    num_descriptors: int

    def make_centroids(self, descriptors: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
        """The visual words; a keypoint gets the word whose centroid is nearest to its descriptor.

        Args:
            descriptors: (num_descriptors, descriptor_size) float32, or fewer where there are no more; at least 1.
            seed: of everything random: the same seed must give the same centroids.

        Returns:
            (num_words, descriptor_size), finite numbers.
        """
        ...
