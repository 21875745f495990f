"""Constellations: words at places relative to a part, and where a part is in an image.

An implicit shape model (Leibe, Leonardis, Schiele 2004) for keypoints of known size and direction: each keypoint
is a similarity transform by itself, so that one keypoint of a word of the part says where the part
would be, and the others of the image say whether it is there (Lowe 2004, section 7).

A feature is a word with a position and a pose in the part's frame. An image's best frame is the one
most of whose features lie where they should, counted by *spots*: features whose windows overlap
heavily share their pixels and are one spot, not independent evidence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from minia.mining.arrangement.alike import TURN, ZOOM, alike_pairs
from minia.mining.arrangement.places import Complex, Places
from minia.mining.arrangement.ragged import Numbers, blocks, distinct, ranges, sums
from minia.mining.arrangement.sightings import Sightings

_NEAR = 1.0  # keypoint sizes that a keypoint may lie off its place
_LEVER = 0.2  # and times the distance to the keypoint that the frame is taken from: its angle and size err
_NEAR_REFINED = 1.5
_STEPS = ((_NEAR, _LEVER), (_NEAR_REFINED, 0.0), (_NEAR_REFINED, 0.0))  # of refinement
_MOST_FRAMES = 48  # of two keypoints that are tried in an image
_FARTHEST = 4.0  # sizes that a keypoint may lie off in any case
_WINDOW = 3.0  # half the side of a descriptor's window, in sizes of its keypoint (SIFT)
_SAME_OCTAVE = 2.0  # windows of sizes that differ by more do not show the same detail
_POSE_WEIGHT = 4.0  # of a keypoint's size and direction, beside its position, in where a part is
_PAIRS_AT_A_TIME = 1 << 16  # half a megabyte of complex numbers: what the cache of a core holds
_MOST_CANDIDATES = 160  # in an image


@dataclass(frozen=True)
class Constellation:
    """A part as words in an arrangement.

    Attributes:
        words: (num_features,) int32, ascending.
        position: (num_features,) complex64 in the part's frame.
        pose: (num_features,) complex64 there, size times ``exp(i angle)``.
        spots: (num_features,) int32, see the module.
        rank: (num_features,) int64, 0 for the strongest.
        turns: whether angles are known.
    """

    words: npt.NDArray[np.int32]
    position: Complex
    pose: Complex
    spots: npt.NDArray[np.int32]
    rank: Numbers
    turns: bool

    @classmethod
    def of(cls, words: npt.NDArray[np.int32], position: Complex, pose: Complex, turns: bool) -> Constellation:
        """Order features, the strongest first, by word, and join those of one spot."""
        spots = _spots(position, pose)
        order = np.argsort(words, kind="stable")
        return cls(words[order], position[order], pose[order], spots[order], order, turns)

    def part_of(self, features: Numbers) -> Constellation:
        """Some of the features alone, by their ascending numbers."""
        spots = np.unique(self.spots[features], return_inverse=True)[1].astype(np.int32)
        return Constellation(
            self.words[features], self.position[features], self.pose[features], spots, self.rank[features], self.turns
        )

    def thinned(self, per_spot: int, most: int) -> Constellation:
        """The strongest features of each spot, as far as these are among the strongest of all."""
        order = np.lexsort((self.rank, self.spots))
        place = np.arange(len(order)) - np.searchsorted(self.spots[order], self.spots[order])
        few = order[place < per_spot]
        return self.part_of(np.sort(few[np.argsort(self.rank[few])][:most]))

    @property
    def num_spots(self) -> int:
        """Number of spots."""
        return int(self.spots.max(initial=-1)) + 1

    def framed(self) -> Constellation:
        """The same in a frame whose origin is the mean spot and whose unit is the root mean square distance from it."""
        first = np.unique(self.spots, return_index=True)[1]
        centre = self.position[first].mean()
        radius = np.sqrt(np.mean(np.abs(self.position[first] - centre) ** 2))
        radius = np.float32(max(radius, 1e-6))
        return replace(self, position=(self.position - centre) / radius, pose=self.pose / radius)


def _spots(position: Complex, pose: Complex) -> npt.NDArray[np.int32]:
    """The spot of each feature: that of the first one whose window overlaps its own heavily."""
    spots = np.full(len(position), -1, dtype=np.int32)
    size, number = np.abs(pose), 0
    for feature in range(len(position)):
        if spots[feature] >= 0:
            continue
        near = np.abs(position - position[feature]) < _WINDOW * np.minimum(size, size[feature])
        alike = np.maximum(size, size[feature]) < _SAME_OCTAVE * np.minimum(size, size[feature])
        spots[near & alike & (spots < 0)] = number
        number += 1
    return spots


@dataclass(frozen=True)
class _Candidates:
    """Keypoints that may be features of a part, by group (an image, or one with exchanged places).

    Attributes:
        group: (n,) int64, ascending.
        keypoint: (n,) int64.
        feature: (n,) int64.
        z, pose: (n,) complex64, of the keypoint.
        centre, frame: (n,) complex64, where the part would be if the keypoint were the feature.
    """

    group: Numbers
    keypoint: Numbers
    feature: Numbers
    z: Complex
    pose: Complex
    centre: Complex
    frame: Complex

    def select(self, rows: Numbers) -> _Candidates:
        """Some of them."""
        return _Candidates(
            self.group[rows], self.keypoint[rows], self.feature[rows], self.z[rows], self.pose[rows],
            self.centre[rows], self.frame[rows],
        )  # fmt: skip


def _rarest(group: Numbers, word: npt.NDArray[np.int32], spot: npt.NDArray[np.int32]) -> Numbers:
    """Of the candidates of each group, in groups of two spots or more, those of words with the fewest: they tell most.

    This looks at words alone, which stay where they are when places are exchanged.
    """
    if len(group) == 0:
        return np.zeros(0, np.int64)
    last = int(group.max()) + 1
    seen = distinct(group * (int(spot.max()) + 1) + spot)
    several = np.bincount(seen // (int(spot.max()) + 1), minlength=last) > 1
    key = group * (int(word.max()) + 1) + word
    order = np.argsort(key, kind="stable")
    begins = np.flatnonzero(np.diff(key[order], prepend=-1))
    frequency = np.empty(len(key), dtype=np.int64)
    counts = np.diff(begins, append=len(key))
    frequency[order] = np.repeat(counts, counts)
    order = np.lexsort((frequency, group))
    rank = np.arange(len(order)) - np.searchsorted(group, group)
    kept = order[(rank < _MOST_CANDIDATES) & several[group]]
    return np.sort(kept)


@dataclass(frozen=True)
class _Frames:
    """The best frame of each group that has one.

    Attributes:
        group: (n,) int64, ascending.
        centre, frame: (n,) complex64.
        origin: (n,) complex64, the place in the image from which on the frame errs more and more.
    """

    group: Numbers
    centre: Complex
    frame: Complex
    origin: Complex


def locate(
    part: Constellation, places: Places, keypoints: Numbers, taken: Numbers | None = None, groups: Numbers | None = None
) -> Sightings:
    """Find a part in images.

    Args:
        part: the constellation.
        places: the collection.
        keypoints: (n,) keypoints to look at, ascending in every group.
        taken: (n,) the keypoints whose places they have; default: their own.
        groups: (n,) the image of each, ascending; default: the collection's.
    """
    taken = keypoints if taken is None else taken
    groups = places.image_of(keypoints) if groups is None else groups
    found = _candidates(part, places, keypoints, taken, groups)
    best = _best_frames(part, found) if part.turns else _best_frames_of_two(part, found)
    found = found.select(np.flatnonzero(np.isin(found.group, best.group)))
    label = np.searchsorted(best.group, found.group)
    for step in _STEPS:
        best = _refined(part, found, _in_place(part, found, best, label, step), label, best)
    return _sightings(part, found, _in_place(part, found, best, label, _STEPS[-1]), label, best)


def _candidates(
    part: Constellation, places: Places, keypoints: Numbers, taken: Numbers, groups: Numbers
) -> _Candidates:
    words = places.words[keypoints]
    first = np.searchsorted(part.words, words)
    counts = np.searchsorted(part.words, words, side="right") - first
    row = np.repeat(np.arange(len(keypoints)), counts)
    feature = ranges(first, counts)
    kept = _rarest(groups[row], part.words[feature], part.spots[feature])
    row, feature = row[kept], feature[kept]
    z, pose = places.position[taken[row]], places.pose[taken[row]]
    frame = pose / part.pose[feature]
    centre = z - frame * part.position[feature]
    return _Candidates(groups[row], keypoints[row], feature, z, pose, centre, frame)


def _best_frames(part: Constellation, found: _Candidates) -> _Frames:
    """The candidate of each group whose frame has most spots in their place, the nearer ones where they are as many."""
    if len(found.group) == 0:
        return _Frames(found.group, found.centre, found.frame, found.z)
    width = part.num_spots + 1
    spot, size = part.spots[found.feature].astype(np.int64), np.abs(found.pose)
    number, closeness = np.zeros(len(spot)), np.zeros(len(spot))
    for left, right in alike_pairs(found.group, found.frame, part.turns):
        u = part.position[found.feature[right]]
        off = np.abs(found.z[right] - found.centre[left] - found.frame[left] * u)
        lever = np.abs(found.z[right] - found.z[left])
        allowed = np.minimum(_NEAR * size[right] + _LEVER * lever, _FARTHEST * size[right])
        held = np.flatnonzero(off < allowed)
        left = left[held]
        seen = distinct(left * width + spot[right[held]])
        number += np.bincount(seen // width, minlength=len(spot))
        closeness += np.bincount(left, (1 - off / allowed)[held], minlength=len(spot))
    best = _best_of(found.group, number, closeness)
    return _Frames(found.group[best], found.centre[best], found.frame[best], found.z[best])


def _best_of(group: Numbers, number: npt.NDArray[np.float64], closeness: npt.NDArray[np.float64]) -> Numbers:
    """The row of each group with the largest number, at least 2, and of those the closest."""
    score = number + closeness / (closeness.max(initial=0) + 1)
    several = np.flatnonzero(number > 1)
    order = several[np.lexsort((-score[several], group[several]))]
    return order[np.flatnonzero(np.diff(group[order], prepend=-1))]


def _best_frames_of_two(part: Constellation, found: _Candidates) -> _Frames:
    """The same where no directions are known: a frame then takes two keypoints."""
    if len(found.group) == 0:
        return _Frames(found.group, found.centre, found.frame, found.z)
    left, right = (np.concatenate(each) for each in zip(*alike_pairs(found.group, found.frame, False), strict=True))
    first, second = part.position[found.feature[left]], part.position[found.feature[right]]
    lever, apart = second - first, np.abs(found.z[right] - found.z[left])
    size = np.abs(found.pose)
    far = (left < right) & (apart > 2 * np.maximum(size[left], size[right])) & (np.abs(lever) > 0)
    frame = (found.z[right] - found.z[left]) / np.where(far, lever, 1)
    zoom = np.abs(np.log(np.maximum(np.abs(frame), 1e-9) / np.abs(found.frame[left])))
    some = np.flatnonzero(far & (zoom < ZOOM))
    some = some[np.lexsort((zoom[some], found.group[left[some]]))]
    group = found.group[left[some]]
    rank = np.arange(len(some)) - np.searchsorted(group, group)
    some = some[rank < _MOST_FRAMES]
    group, frame = found.group[left[some]], frame[some].astype(np.complex64)
    centre = (found.z[left[some]] - frame * first[some]).astype(np.complex64)
    origin = ((found.z[left[some]] + found.z[right[some]]) / 2).astype(np.complex64)
    number, closeness = np.zeros(len(some)), np.zeros(len(some))
    width = part.num_spots + 1
    begin = np.searchsorted(found.group, group)
    counts = np.searchsorted(found.group, group, side="right") - begin
    for block in blocks(counts, _PAIRS_AT_A_TIME):
        row, member = np.repeat(np.arange(block.start, block.stop), counts[block]), ranges(begin[block], counts[block])
        u, q = part.position[found.feature[member]], part.pose[found.feature[member]]
        allowed = _NEAR_REFINED * np.abs(frame[row] * q)
        off = np.abs(found.z[member] - centre[row] - frame[row] * u)
        held = np.flatnonzero((off < allowed) & (np.abs(np.log(size[member] / np.abs(frame[row] * q))) < ZOOM))
        seen = distinct(np.asarray(row[held] * width + part.spots[found.feature[member[held]]], dtype=np.int64))
        number += np.bincount(seen // width, minlength=len(some))
        closeness += np.bincount(row[held], (1 - off / allowed)[held], minlength=len(some))
    best = _best_of(group, number - 1, closeness)  # any two keypoints fit each other: the third one tells first
    return _Frames(group[best], centre[best], frame[best], origin[best])


def _in_place(
    part: Constellation, found: _Candidates, best: _Frames, label: Numbers, step: tuple[float, float]
) -> npt.NDArray[np.bool_]:
    """Which candidates lie where the frame of their group has them, to so many sizes and so much of their lever."""
    frame = best.frame[label]
    expected = frame * part.pose[found.feature]
    size = np.abs(expected)
    allowed = np.minimum(step[0] * size + step[1] * np.abs(found.z - best.origin[label]), _FARTHEST * size)
    ratio = np.log(found.pose / expected)
    off = np.abs(found.z - best.centre[label] - frame * part.position[found.feature])
    held = (off < allowed) & (np.abs(ratio.real) < ZOOM)
    return np.asarray(held & (np.abs(ratio.imag) < TURN) if part.turns else held)


def _refined(
    part: Constellation, found: _Candidates, inside: npt.NDArray[np.bool_], label: Numbers, best: _Frames
) -> _Frames:
    """The frame of each group by least squares over the keypoints in their place, by position and pose."""
    rows = np.flatnonzero(inside)
    where, u, q = label[rows], part.position[found.feature[rows]], part.pose[found.feature[rows]]
    z, pose = found.z[rows], found.pose[rows]
    weight = (1 / np.maximum(np.abs(pose), 1e-6) ** 2).astype(np.float64)
    number = len(best.group)
    mass = np.maximum(np.bincount(where, weight, number), 1e-30)
    mean_u, mean_z = sums(where, weight * u, number) / mass, sums(where, weight * z, number) / mass
    du, dz = u - mean_u[where], z - mean_z[where]
    pose_weight = _POSE_WEIGHT if part.turns else 0.0
    up = sums(where, weight * (dz * du.conj() + pose_weight * pose * q.conj()), number)
    down = np.bincount(where, weight * (np.abs(du) ** 2 + pose_weight * np.abs(q) ** 2), number)
    some = (down > 0) & (np.abs(up) > 1e-3 * np.abs(best.frame) * down)
    frame = np.where(some, up / np.maximum(down, 1e-30), best.frame).astype(np.complex64)
    centre = np.where(some, mean_z - frame * mean_u, best.centre).astype(np.complex64)
    return replace(best, centre=centre, frame=frame)


def _sightings(
    part: Constellation, found: _Candidates, inside: npt.NDArray[np.bool_], label: Numbers, best: _Frames
) -> Sightings:
    rows = np.flatnonzero(inside)
    width = part.num_spots + 1
    seen = distinct(label[rows] * width + part.spots[found.feature[rows]])
    spots = np.bincount(seen // width, minlength=len(best.group)).astype(np.int32)
    # a keypoint near two features of its word counts once
    key = label[rows] * (int(found.keypoint.max(initial=0)) + 1) + found.keypoint[rows]
    rows = rows[np.unique(key, return_index=True)[1]]
    counts = np.bincount(label[rows], minlength=len(best.group))
    keypoints, features = found.keypoint[rows], found.feature[rows]
    every = Sightings(best.group, best.centre, best.frame, spots, counts, keypoints, features)
    return every.select(spots >= 2)
