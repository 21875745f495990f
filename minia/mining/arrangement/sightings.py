"""Where a part is in images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minia.mining.arrangement.places import Complex
from minia.mining.arrangement.ragged import Numbers, ranges


@dataclass(frozen=True)
class Sightings:
    """Where a part is in images, one frame an image: what is at z in the part is at ``centre + frame * z``.

    Attributes:
        images: (num_images,) int64, ascending: those that hold the part.
        centre: (num_images,) complex64, x + iy in pixels.
        frame: (num_images,) complex64, the part's root mean square radius in pixels times ``exp(i angle)``.
        spots: (num_images,) int32, spots in their place.
        counts: (num_images,) int64, keypoints in their place.
        keypoints: (sum of counts,) int64, image by image.
        features: (sum of counts,) int64, the feature that each one is.
    """

    images: Numbers
    centre: Complex
    frame: Complex
    spots: npt.NDArray[np.int32]
    counts: Numbers
    keypoints: Numbers
    features: Numbers

    def select(self, chosen: npt.NDArray[np.bool_]) -> Sightings:
        """Some of the images."""
        rows = np.flatnonzero(chosen)
        entries = ranges((np.cumsum(self.counts) - self.counts)[rows], self.counts[rows])
        return Sightings(
            self.images[rows], self.centre[rows], self.frame[rows], self.spots[rows], self.counts[rows],
            self.keypoints[entries], self.features[entries],
        )  # fmt: skip
