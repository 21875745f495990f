"""What tells a part from others: whether it is one found before, how local it is, and what else goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from minia.mining.arrangement.part import Part
from minia.mining.arrangement.places import Places
from minia.mining.arrangement.ragged import Numbers, about_mean, group_of
from minia.mining.arrangement.sightings import Sightings


@dataclass(frozen=True)
class Likeness:
    """When two parts are one.

    Attributes:
        share: of the images of the one that is in more: in so many both must be at one place.
        near: radii of the larger one that their middles may be apart.
        larger: how many times as large the one may be.
    """

    share: float
    near: float
    larger: float


_CELLS = 1 << 20  # places compared at a time
_BY_CHANCE = 0.01  # probability of a part that chance may make

CONSTELLATION = Likeness(share=0.5, near=0.5, larger=2.0)
CONCENTRIC = Likeness(share=0.8, near=0.5, larger=1.3)  # all parts of an object lie near its middle: ask for more

Vector = npt.NDArray[np.float64]


def distinct_parts(parts: Sequence[Part], places: Places, likeness: Likeness) -> list[int]:
    """The numbers of the parts that are none of the stronger ones, strongest first, those that chance may make last.

    One thing may be seen as several structures: by other words, or at another size. Two parts are one where, in
    so many of the images of the one that is in more, they lie at one place and are about equally large. What chance may
    make is not listed by default, and must not stand for the same thing seen by words that tell it surely.
    """
    strength = np.array([float(part.sightings.spots.sum()) for part in parts])
    by_chance = np.array([part.probability > _BY_CHANCE for part in parts])
    kept = _Kept(places.num_images, len(parts), likeness)
    for number in np.lexsort((-strength, by_chance)).tolist():
        if len(parts[number].sightings.images) and not kept.holds(parts[number].sightings):
            kept.add(number, parts[number].sightings)
    return kept.numbers


def is_one_of(part: Part, others: Sequence[Part], places: Places, likeness: Likeness) -> bool:
    """Whether a part is one with one of several others: about as large, at one place, in so many of the images."""
    kept = _Kept(places.num_images, len(others), likeness)
    for number, other in enumerate(others):
        kept.add(number, other.sightings)
    return kept.holds(part.sightings)


class _Kept:
    """Parts that are kept, by where they are in every image.

    Args:
        num_images: of the collection.
        most: parts at most.
        likeness: when two parts are one.
    """

    def __init__(self, num_images: int, most: int, likeness: Likeness) -> None:
        self.numbers: list[int] = []
        self._likeness = likeness
        # An image a row, so that what is compared with a part lies together; nan where a part is not.
        self._centre = np.full((num_images, most), np.nan + 0j, dtype=np.complex64)
        self._radius = np.full((num_images, most), np.nan, dtype=np.float32)
        self._num_images = np.zeros(most, dtype=np.int64)

    def add(self, number: int, seen: Sightings) -> None:
        """Keep a part."""
        column = len(self.numbers)
        self._centre[seen.images, column], self._radius[seen.images, column] = seen.centre, np.abs(seen.frame)
        self._num_images[column] = len(seen.images)
        self.numbers.append(number)

    def holds(self, seen: Sightings) -> bool:
        """Whether a part is one of those that are kept."""
        others = self._num_images[: len(self.numbers)]
        fewer, more = np.minimum(len(seen.images), others), np.maximum(len(seen.images), others)
        alike = np.flatnonzero(fewer > self._likeness.share * more)  # no others can be in enough of its images
        step = max(1, _CELLS // len(seen.images))
        return any(self._holds(seen, alike[first : first + step]) for first in range(0, len(alike), step))

    def _holds(self, seen: Sightings, columns: Numbers) -> bool:
        like, own, cells = self._likeness, np.abs(seen.frame)[:, None], np.ix_(seen.images, columns)
        centre, radius = self._centre[cells], self._radius[cells]
        larger, smaller = np.fmax(own, radius), np.fmin(own, radius)
        with np.errstate(invalid="ignore"):
            here = np.abs(seen.centre[:, None] - centre) < like.near * larger
        both = np.count_nonzero(here & (larger < like.larger * smaller), axis=0)
        return bool((both > like.share * np.maximum(len(seen.images), self._num_images[columns])).any())


def image_spreads(places: Places) -> Vector:
    """The root mean square distance of each image's keypoints from their mean, as if of a sample.

    Returns:
        (num_images,) float64 in pixels, 0 for fewer than two keypoints.
    """
    return _spread(places.position, group_of(places.offsets), places.num_images)[0]


def locality(keypoints: Numbers, images: Numbers, places: Places, around: Vector) -> float:
    """How closely keypoints lie together: their spread over that of all keypoints of their image, median over images.

    Spread is the root mean square distance from the mean, as if of a sample: keypoints drawn at random have a
    locality of 1, however few they are.

    Args:
        keypoints: (n,) keypoints, image by image.
        images: (n,) the image of each.
        places: the collection.
        around: (num_images,) the spread of all keypoints of each image.

    Returns:
        nan where no image has two of them.
    """
    used, row = np.unique(images, return_inverse=True)
    if len(used) == 0:
        return float("nan")
    own, number = _spread(places.position[keypoints], row, len(used))
    several = (number > 1) & (around[used] > 0)
    return float(np.median(own[several] / around[used][several])) if several.any() else float("nan")


def _spread(position: npt.NDArray[np.complex64], row: Numbers, number: int) -> tuple[Vector, Numbers]:
    count, _, square = about_mean(row, position, number)
    return np.sqrt(square / np.maximum(count - 1, 1)), count


def rank_correlation(left: Vector, right: Vector) -> float:
    """Spearman's, between numbers of all images; 0 where one of them is the same everywhere."""
    ranks = [rankdata(values) for values in (left, right)]
    spread = [float(rank.std()) for rank in ranks]
    if min(spread) == 0:
        return 0.0
    return float(np.mean((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())) / (spread[0] * spread[1]))
