"""Parts of single objects: words at their distance from the object's middle, whichever way the object is turned.

Where every image shows one object, its parts are told by where they lie in it: a bulge is in the middle, a ring
round it. The object of an image is the ellipse that has the mean and the covariance of its keypoints; a keypoint's
radius is its distance from the middle in units of that ellipse, 1 at its edge. A part is a structure's words inside
a band of radii: the one in which its keypoints are more than all keypoints of the same images, by the likelihood
ratio of the two shares (the scan statistic of Kulldorff 1997, in one dimension).

How many of the words make a match is where two binomial distributions, of the images that hold the part and of those
that do not, fitted by expectation maximisation, are equally likely.

Whether the words keep their place is tested on images that the band was not learned from: chance gives a keypoint any
place of its image and window size, so that the share expected in the band is known exactly. Keypoints that are
neighbours are not independent, but images are: so the sum over images of found less expected is compared with its
spread over images, which holds for any dependence inside them. What spreads over much of the object is seldom at
its edge even by chance, so that a band from the middle outwards says less than a narrow one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from minia.mining.arrangement.part import Bands, Part
from minia.mining.arrangement.places import Complex, Places
from minia.mining.arrangement.ragged import Numbers, about_mean, group_of, sums
from minia.mining.arrangement.sightings import Sightings
from minia.mining.lists.listdb import ListDB

_EDGES = np.array([0, 0.08, 0.16, 0.24, 0.32, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.3, np.inf])  # of rings of radii
_RINGS = len(_EDGES) - 1
_LEAST_HELD = 0.3  # of a structure's keypoints that its band must hold
_FLATTEST = 0.02  # a shorter axis's variance beside the longer one's, at least
_FEWEST_WORDS = 2  # of a match
_ROUNDS = 100  # of expectation maximisation
_SETTLED = 1e-6  # the rounds end when the share of images that hold the part moves by less
_OCTAVES = 2.0  # classes of window sizes in an octave

Vector = npt.NDArray[np.float64]
_Wide = npt.NDArray[np.complex128]


class _Band(NamedTuple):
    """A band of radii, by the number of its first ring and of the one after its last."""

    first: int
    last: int


@dataclass(frozen=True)
class Objects:
    """Keypoints by where they lie in the object of their image.

    Attributes:
        image: (num_keypoints,) int64, the image of each.
        ring: (num_keypoints,) int64, the ring of radii that it lies in.
        kind: (num_keypoints,) int64, its image and class of window sizes, as one number.
        around: (num_kinds, rings + 1) float64, the share of a kind's keypoints in the rings below each edge.
        axis: (num_images,) complex64, the direction of the object's long axis.
    """

    image: Numbers
    ring: Numbers
    kind: Numbers
    around: Vector
    axis: Complex

    @classmethod
    def of(cls, places: Places) -> Objects:
        """Lay an ellipse through the keypoints of every image."""
        image = group_of(places.offsets)
        number = np.maximum(np.diff(places.offsets), 1)
        off = places.position - (sums(image, places.position, places.num_images) / number)[image]
        spread, turn = _moments(image, off, number)
        along, across = np.sqrt(spread + np.abs(turn)), np.sqrt(spread - np.abs(turn))
        across = np.maximum(np.maximum(across, np.sqrt(_FLATTEST) * along), 1e-6)
        axis = np.sqrt(turn / np.maximum(np.abs(turn), 1e-12) + (turn == 0))
        turned = off * np.conj(axis)[image]
        radius = np.hypot(turned.real / np.maximum(along, 1e-6)[image], turned.imag / across[image]) / 2
        ring = np.searchsorted(_EDGES, radius, side="right") - 1
        octave = np.round(_OCTAVES * np.log2(np.abs(places.pose))).astype(np.int64)
        kinds, kind = np.unique(image * 128 + np.clip(octave + 64, 0, 127), return_inverse=True)
        held = np.bincount(kind * _RINGS + ring, minlength=len(kinds) * _RINGS).reshape(len(kinds), _RINGS)
        share = np.cumsum(held, axis=1) / held.sum(axis=1, keepdims=True)
        return cls(image, ring, kind, np.pad(share, ((0, 0), (1, 0))), axis.astype(np.complex64))


def _moments(
    image: Numbers, off: npt.NDArray[np.complex128], number: Numbers
) -> tuple[Vector, npt.NDArray[np.complex128]]:
    """Half the trace of each image's covariance; half its eigenvalues' difference, turned by twice the axis."""
    square = np.bincount(image, np.abs(off) ** 2, len(number)) / number / 2
    return square, sums(image, off * off, len(number)) / number / 2


def arrange_concentric(
    places: Places, structures: ListDB, seed: int = 0, advance: Callable[[int], object] = lambda _: None
) -> Iterator[Part]:
    """Find the parts of structures in collections of single objects.

    Args:
        places: the collection's keypoints and their words.
        structures: a list a structure, items words.
        seed: of the halves that a band is learned from and tested on.
        advance: called with 1 after each structure.

    Yields:
        A part a structure; none for one that too few images hold.
    """
    objects = Objects.of(places)
    half = np.random.default_rng([seed, 3]).permutation(places.num_images) % 2 == 0
    for structure in range(structures.num_lists):
        words = np.unique(structures[structure]).astype(np.int32)
        part = _part_of(places, objects, half, words, structure)
        if part is not None:
            yield part
        advance(1)


def _part_of(
    places: Places, objects: Objects, half: npt.NDArray[np.bool_], words: npt.NDArray[np.int32], structure: int
) -> Part | None:
    every = places.of_words(words)
    shared = places.words_in(every, objects.image[every])
    holds = shared >= fewest_words(shared, len(words))
    if not holds.any():
        return None
    own = every[holds[objects.image[every]]]
    one = half[objects.image[own]]
    total, error = 0.0, 0.0
    for learned, tested in ((own[one], own[~one]), (own[~one], own[one])):
        over = _over(objects, tested, _band(objects, learned))
        total, error = total + float(over.sum()), error + float((over**2).sum())
    band = _band(objects, own)
    bands = Bands(*(np.full(len(words), ring, dtype=np.int64) for ring in band))
    return seen_part(places, objects, words, bands, structure, float(norm.sf(total / np.sqrt(error))) if error else 1.0)


def seen_part(
    places: Places, objects: Objects, words: npt.NDArray[np.int32], bands: Bands, structure: int, probability: float
) -> Part:
    """The part that words in their bands are, where it is in all images.

    Args:
        places: the collection's keypoints.
        objects: the same by where they lie in the object of their image.
        words: (num_words,) ascending, each once.
        bands: of these words.
        structure: number of the structure that it is.
        probability: that chance places give as much.
    """
    inside, spots = in_bands(places, objects, words, bands)
    fewest = fewest_words(spots, len(words))
    return Part(
        structure=structure,
        words=words,
        num_spots=len(words),
        sightings=_sightings(places, objects, words, (inside, spots), fewest),
        probability=probability,
        fewest_spots=fewest,
        false_matches=float("nan"),
        model=bands,
    )


def find_concentric(places: Places, parts: Sequence[Part]) -> Iterator[Sightings]:
    """Where each of several parts is in images, which need not be those that it was learned from.

    Args:
        places: the images' keypoints and their words.
        parts: of :func:`arrange_concentric`.
    """
    objects = Objects.of(places)
    for part in parts:
        assert isinstance(part.model, Bands)
        yield sightings_in_bands(places, objects, part.words, part.model, part.fewest_spots)


def sightings_in_bands(
    places: Places, objects: Objects, words: npt.NDArray[np.int32], bands: Bands, fewest_words: int
) -> Sightings:
    """Where words are in their bands, in the images that have enough of them there.

    Args:
        places: the images' keypoints.
        objects: the same by where they lie in the object of their image.
        words: (num_words,) ascending, each once.
        bands: of these words.
        fewest_words: so many of them.
    """
    return _sightings(places, objects, words, in_bands(places, objects, words, bands), fewest_words)


def in_bands(places: Places, objects: Objects, words: npt.NDArray[np.int32], bands: Bands) -> tuple[Numbers, Numbers]:
    """The keypoints of some words in their bands, and how many of the words each image has there.

    Args:
        places: the collection's keypoints.
        objects: the same by where they lie in the object of their image.
        words: (num_words,) ascending, each once.
        bands: of these words.

    Returns:
        Keypoints, ascending; and (num_images,) int64.
    """
    every = places.of_words(words)
    row, ring = np.searchsorted(words, places.words[every]), objects.ring[every]
    inside = every[(ring >= bands.first[row]) & (ring < bands.last[row])]
    return inside, places.words_in(inside, objects.image[inside])


def fewest_words(shared: Numbers, num_words: int) -> int:
    """The number of shared words from which on an image more likely holds a structure than not.

    Args:
        shared: (num_images,) words of the structure in each image.
        num_words: words of the structure.

    Returns:
        At least 2; ``num_words + 1`` where no number is enough.
    """
    images = np.bincount(np.minimum(shared, num_words), minlength=num_words + 1).astype(np.float64)
    number = np.arange(num_words + 1.0)
    mean = float(images @ number) / images.sum() / num_words
    rates = np.clip(np.array([mean / 2, float(number[images > 0].max()) / num_words]), 1e-3, 0.999)
    share = 0.2
    odds = np.zeros(num_words + 1)
    for _ in range(_ROUNDS):
        each = number[:, None] * np.log(rates) + (num_words - number)[:, None] * np.log1p(-rates)
        odds = each[:, 1] - each[:, 0] + np.log(share / (1 - share))
        held = images / (1 + np.exp(-np.clip(odds, -50, 50)))
        before, share = share, float(np.clip(held.sum() / images.sum(), 1e-3, 0.999))
        rest = images - held
        rates = np.array([rest @ number / max(rest.sum(), 1e-9), held @ number / max(held.sum(), 1e-9)]) / num_words
        rates = np.clip(rates, 1e-4, 0.999)
        if abs(share - before) < _SETTLED:
            break
    if rates[1] <= rates[0]:
        return num_words + 1
    return max(_FEWEST_WORDS, int(np.count_nonzero(odds <= 0)))


def _band(objects: Objects, keypoints: Numbers) -> _Band:
    """The band in which keypoints are most beyond what chance expects."""
    found = np.bincount(objects.ring[keypoints], minlength=_RINGS).astype(np.float64)
    of_kind = np.bincount(objects.kind[keypoints], minlength=len(objects.around))
    expected = np.diff(of_kind @ objects.around)
    best, score, total = _Band(0, _RINGS), 0.0, float(found.sum())
    for first in range(_RINGS):
        for last in range(first + 1, _RINGS + 1):
            inside, chance = float(found[first:last].sum()), float(expected[first:last].sum())
            if inside < _LEAST_HELD * total or inside <= chance or chance <= 0:
                continue
            ratio = inside * np.log(inside / chance)
            if inside < total:
                ratio += (total - inside) * np.log((total - inside) / (total - chance))
            if ratio > score:
                best, score = _Band(first, last), float(ratio)
    return best


def _over(objects: Objects, keypoints: Numbers, band: _Band) -> Vector:
    """By how much the share of each image's keypoints in a band is above what chance expects; 0 without keypoints."""
    image, number = objects.image[keypoints], len(objects.axis)
    ring = objects.ring[keypoints]
    found = (ring >= band.first) & (ring < band.last)
    chance = (objects.around[:, band.last] - objects.around[:, band.first])[objects.kind[keypoints]]
    return np.bincount(image, found - chance, number) / np.maximum(np.bincount(image, minlength=number), 1)


def _sightings(
    places: Places, objects: Objects, words: npt.NDArray[np.int32], found: tuple[Numbers, Numbers], fewest: int
) -> Sightings:
    """Where a part is in the images that have enough of its words: their middle, their spread, the object's long axis.

    Args:
        places: the images' keypoints.
        objects: the same by where they lie in the object of their image.
        words: of the part, ascending.
        found: its keypoints, and how many of its words each image has, as :func:`in_bands` finds them.
        fewest: words of a match.
    """
    inside, spots = found
    keypoints = inside[(spots >= fewest)[objects.image[inside]]]
    images, row = np.unique(objects.image[keypoints], return_inverse=True)
    counts, centre, square = about_mean(row, places.position[keypoints], len(images))
    window = np.bincount(row, np.abs(places.pose[keypoints]), len(images)) / counts
    radius = np.maximum(np.sqrt(square / counts), window)  # keypoints at one place show what is about them
    return Sightings(
        images=images,
        centre=centre.astype(np.complex64),
        frame=(radius * objects.axis[images]).astype(np.complex64),
        spots=spots[images].astype(np.int32),
        counts=counts,
        keypoints=keypoints,
        features=np.searchsorted(words, places.words[keypoints]),
    )
