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
_FEWEST = 3  # images that a feature must be seen in
_SURE = 3  # spots in their place that make an image one to learn from
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
    part, seen = _first_model(places, keypoints)
    before = 0
    for _ in range(_ROUNDS):
        if part is None or seen is None:
            return None
        part = _relearned(part, places, seen)
        if part is None:
            return None
        own = places.of_words(np.unique(part.words))
        own = own[images[places.image_of(own)]]
        seen = locate(part, places, own)
        seen = seen.select(seen.spots >= _SURE)
        if seen.spots.sum() < _GAIN * before:
            break
        before = int(seen.spots.sum())
    return part


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
        score = float((np.maximum(seen.spots - 2.0, 0) ** 2).sum())  # few images with much before many with little
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
