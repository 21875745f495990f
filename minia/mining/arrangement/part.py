"""A part: words of a structure that keep an arrangement, and where they are."""

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


@dataclass(frozen=True)
class Part:
    """A part found among the words of a structure.

    Attributes:
        structure: the structure that it was learned from.
        words: (n,) the words that it is made of, ascending, each once.
        num_spots: places of the part with evidence of their own: of a constellation its spots, of a concentric
            part its words.
        sightings: where it is, in the images that hold it.
        probability: that chance places give as much, or a bound of it.
        fewest_spots: spots that an image must have in their place to hold it.
        false_matches: share of its matches that chance alone makes; nan where it is not known.
    """

    structure: int
    words: npt.NDArray[np.int32]
    num_spots: int
    sightings: Sightings
    probability: float
    fewest_spots: int
    false_matches: float
