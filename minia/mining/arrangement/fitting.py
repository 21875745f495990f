"""Fit a constellation to the images that hold some words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minia.mining.arrangement.alike import alike_pairs
from minia.mining.arrangement.constellation import Constellation, locate
from minia.mining.arrangement.places import Complex, Places
from minia.mining.arrangement.ragged import Numbers, distinct, ranges, sums
from minia.mining.arrangement.sightings import Sightings

_REFERENCES = 4  # images that are tried as the first model
_ROUNDS, _GAIN = 4, 1.05  # rounds end when spots in their place grow by less
_MOST_IMAGES = 32  # to learn from
_MOST_FEATURES, _PER_SPOT = 96, 2  # of a part, and of a spot: the strongest
_SHARE = 0.15  # of the images with the part that a feature must be seen in
_FEWEST = 3  # images that a feature must be seen in, and images and spots of one of two things
_SURE = 3  # spots in their place that make an image one to learn from
_ACROSS = 0.1  # of the spots in their place, those that do not keep to a cut of images and spots into two things
_ALIKE = 1.0  # sizes
_PER_WORD = 4  # features of one word, at most
_BEYOND = 1.2  # radii of the model where new features are looked for


def fit(places: Places, words: Numbers, images: npt.NDArray[np.bool_]) -> Constellation | None:
    """Learn how some words, and others that are always beside them, are arranged.

    Args:
        places: the collection.
        words: of a structure.
        images: (num_images,) which images to learn from.

    Returns:
        The part, None where the words keep no arrangement.
    """
    keypoints = places.of_words(words)
    keypoints = keypoints[images[places.image_of(keypoints)]]
    return _grown(places, images, *_first_model(places, keypoints))


def fit_again(places: Places, part: Constellation, images: npt.NDArray[np.bool_]) -> Constellation | None:
    """Learn a part anew from where it is seen in images, which need not be those that it was learned from.

    Args:
        places: the collection.
        part: the part as it is known.
        images: (num_images,) which images to learn from.

    Returns:
        The part, None where it is not in enough of them.
    """
    return _grown(places, images, part, seen_in(places, part, images))


def fit_image(places: Places, reference: int, images: npt.NDArray[np.bool_]) -> Constellation | None:
    """Learn the part that an image shares with most detail with another one, from all that have it.

    An image may hold several parts. To another image a similarity transform carries one of them: so of the
    image's keypoints those are the first model that lie in their place in the one image where most do.

    Args:
        places: the collection.
        reference: the image.
        images: (num_images,) which images to learn from.

    Returns:
        The part, None where the image shares none with enough others.
    """
    whole, seen = whole_image(places, reference, images)
    if len(seen.images) < _FEWEST - 1:
        return None
    most = np.zeros(len(seen.images), dtype=bool)
    most[np.argmax(seen.spots)] = True
    part = whole.part_of(np.unique(seen.select(most).features))
    return _grown(places, images, part, seen_in(places, part, images))


def whole_image(places: Places, reference: int, images: npt.NDArray[np.bool_]) -> tuple[Constellation, Sightings]:
    """All keypoints of an image as if they were a part, and where that is in other images.

    Args:
        places: the collection.
        reference: the image.
        images: (num_images,) which images to look at, the reference left out.
    """
    begin, end = places.offsets[reference : reference + 2].tolist()
    own = begin + np.flatnonzero(places.words[begin:end] >= 0)
    part = Constellation.of(places.words[own], places.position[own], places.pose[own], places.turns)
    others = images.copy()
    others[reference] = False
    return part, seen_in(places, part, others)


def seen_in(places: Places, part: Constellation, images: npt.NDArray[np.bool_]) -> Sightings:
    """Where a part is seen in some images, with spots enough in their place to learn from.

    Args:
        places: the collection.
        part: the part.
        images: (num_images,) bool, which images to look at.
    """
    own = places.of_words(np.unique(part.words))
    own = own[images[places.image_of(own)]]
    seen = locate(part, places, own)
    return seen.select(seen.spots >= _SURE)


def _grown(
    places: Places, images: npt.NDArray[np.bool_], part: Constellation | None, seen: Sightings | None
) -> Constellation | None:
    """A part learned and sought in turns, until it is seen by no more spots."""
    before = 0
    for _ in range(_ROUNDS):
        if part is None or seen is None:
            return None
        part = _relearned(part, places, _of_one_thing(part, seen))
        if part is None:
            return None
        seen = seen_in(places, part, images)
        if seen.spots.sum() < _GAIN * before:
            break
        before = int(seen.spots.sum())
    return part


def _of_one_thing(part: Constellation, seen: Sightings) -> Sightings:
    """The images of one thing, where a model is of two: of the one that shows in more images and spots.

    Two things that some image holds side by side may be learned as one; then most images have spots of the one or of
    the other in their place. They are told apart by the best cut of images and spots into two (Dhillon 2001,
    "Co-clustering documents and words using bipartite spectral graph partitioning").
    """
    row = np.repeat(np.arange(len(seen.images)), seen.counts)
    spots, column = np.unique(part.spots[seen.features], return_inverse=True)
    if len(seen.images) < 2 * _FEWEST or len(spots) < 2 * _FEWEST:
        return seen
    held = np.zeros((len(seen.images), len(spots)))
    held[row, column] = 1
    left, right = 1 / np.sqrt(held.sum(axis=1)), 1 / np.sqrt(held.sum(axis=0))
    first, _, second = np.linalg.svd(left[:, None] * held * right, full_matrices=False)
    side, spot_side = first[:, 1] * left > 0, second[1] * right > 0
    across = held[side][:, ~spot_side].sum() + held[~side][:, spot_side].sum()
    smallest = min(np.count_nonzero(some) for some in (side, ~side, spot_side, ~spot_side))
    if across > _ACROSS * held.sum() or smallest < _FEWEST:
        return seen
    return seen.select(side if evidence_of(seen.select(side)) >= evidence_of(seen.select(~side)) else ~side)


def evidence_of(seen: Sightings) -> float:
    """How much images have of a part: few with much before many with little.

    Args:
        seen: the part in them.
    """
    return float((np.maximum(seen.spots - (_SURE - 1.0), 0) ** 2).sum())


def _first_model(places: Places, keypoints: Numbers) -> tuple[Constellation | None, Sightings | None]:
    """The keypoints of the image that most others agree with, as far as they agree."""
    image = places.image_of(keypoints)
    rich = np.argsort(-places.words_in(keypoints, image), kind="stable")[:_MOST_IMAGES]
    best, best_seen, best_score = None, None, 0.0
    for reference in rich[:_REFERENCES]:
        own = keypoints[image == reference]
        if len(own) < _SURE:
            break
        part = Constellation.of(places.words[own], places.position[own], places.pose[own], places.turns)
        others = keypoints[np.isin(image, rich) & (image != reference)]
        seen = locate(part, places, others)
        seen = seen.select(seen.spots >= _SURE)
        score = evidence_of(seen)
        if score > best_score:
            best, best_seen, best_score = part, seen, score
    return best, best_seen


def _relearned(part: Constellation, places: Places, seen: Sightings) -> Constellation | None:
    """The features that recur at one place of the part, in the images where it was seen."""
    if len(seen.images) < _FEWEST:
        return None
    if len(seen.images) > _MOST_IMAGES:
        chosen = np.zeros(len(seen.images), dtype=bool)
        chosen[np.argsort(-seen.spots, kind="stable")[:_MOST_IMAGES]] = True
        seen = seen.select(chosen)
    used = part.position[np.unique(seen.features)]
    middle = used.mean()
    reach = _BEYOND * np.abs(used - middle).max() + np.abs(part.pose).max()
    counts = places.offsets[seen.images + 1] - places.offsets[seen.images]
    keypoints = ranges(places.offsets[seen.images], counts)
    row = np.repeat(np.arange(len(seen.images)), counts)
    position = (places.position[keypoints] - seen.centre[row]) / seen.frame[row]
    inside = np.abs(position - middle) < reach
    inside &= places.words[keypoints] >= 0
    keypoints, row, position = keypoints[inside], row[inside], position[inside]
    pose = places.pose[keypoints] / seen.frame[row]
    if not places.turns:
        pose = np.abs(pose).astype(np.complex64)
    fewest = max(_FEWEST, int(np.ceil(_SHARE * len(seen.images))))
    aligned = _Aligned.of(places.words[keypoints], row, position, pose, fewest)
    words, *where = _modes(aligned, fewest, places.turns)
    if len(words) == 0:
        return None
    part = Constellation.of(words, where[0], where[1], places.turns).thinned(_PER_SPOT, _MOST_FEATURES)
    return part.framed() if part.num_spots >= _SURE else None


@dataclass(frozen=True)
class _Aligned:
    """Keypoints of several images in the frame of a part, those of one word together.

    Attributes:
        words: (n,) int32, ascending.
        row: (n,) int64, the image of each.
        position, pose: (n,) complex64.
    """

    words: npt.NDArray[np.int32]
    row: Numbers
    position: Complex
    pose: Complex

    @classmethod
    def of(cls, words: npt.NDArray[np.int32], row: Numbers, position: Complex, pose: Complex, fewest: int) -> _Aligned:
        """Put together those of words that are there often enough."""
        order = np.argsort(words, kind="stable")
        if len(words):
            order = order[(np.bincount(words) >= fewest)[words[order]]]
        return cls(words[order], row[order], position[order], pose[order])

    def alike(self, turns: bool) -> tuple[Numbers, Numbers]:
        """Ordered pairs of one word and place."""
        kept = [np.zeros((2, 0), np.int64)]
        for left, right in alike_pairs(self.words.astype(np.int64), self.pose, turns):
            near = np.abs(self.position[left] - self.position[right]) < _ALIKE * np.abs(self.pose[left])
            kept.append(np.stack([left[near], right[near]]))
        left, right = np.concatenate(kept, axis=1)
        return left, right


def _modes(found: _Aligned, fewest: int, turns: bool) -> tuple[npt.NDArray[np.int32], Complex, Complex]:
    """Words that so many images have at one place: word, mean position and pose, those of most images first."""
    left, right = found.alike(turns)
    free = np.ones(len(found.words), dtype=bool)
    num_rows = int(found.row.max(initial=0)) + 1
    seeds_of, position, pose, support = [np.zeros(0, np.int64)], [np.zeros(0, np.complex64)], [], []
    for _ in range(_PER_WORD):
        kept = free[left] & free[right]
        left, right = left[kept], right[kept]
        seen = distinct(left * num_rows + found.row[right]) // num_rows
        images = np.bincount(seen, minlength=len(free))
        order = np.lexsort((-images, found.words))
        seeds = order[np.flatnonzero(np.diff(found.words[order], prepend=-1))]
        seeds = seeds[images[seeds] >= fewest]
        if len(seeds) == 0:
            break
        of_seed = np.full(len(free), -1)
        of_seed[seeds] = np.arange(len(seeds))
        mine = np.flatnonzero(of_seed[left] >= 0)
        to, member = of_seed[left[mine]], right[mine]
        number = np.bincount(to, minlength=len(seeds))
        zoom = np.log(np.abs(found.pose[member]) / np.abs(found.pose[seeds])[to])
        seeds_of.append(seeds)
        position.append((sums(to, found.position[member], len(seeds)) / number).astype(np.complex64))
        pose.append(np.exp(np.bincount(to, zoom, len(seeds)) / number) * found.pose[seeds])
        support.append(images[seeds])
        free[member] = False
    chosen = np.concatenate(seeds_of)
    order = np.argsort(-np.concatenate([np.zeros(0, np.int64), *support]), kind="stable")
    poses = np.concatenate([np.zeros(0, np.complex64), *pose]).astype(np.complex64)
    return found.words[chosen[order]], np.concatenate(position).astype(np.complex64)[order], poses[order]
