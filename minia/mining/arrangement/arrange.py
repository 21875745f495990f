"""From structures, sets of words, to parts: where each is in every image, and how sure that is.

For every structure a constellation is learned (see ``fitting``) and sought in all images. Whether the words
keep an arrangement at all is asked where it was not learned: the images are dealt into two halves, each half's
constellation is sought in the other half, and what is found there is compared with what exchanged places give
(see ``chance``). How many spots make a match is chosen so that exchanged places would give at most one match
in a hundred.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minia.mining.arrangement.chance import exchange_probability
from minia.mining.arrangement.constellation import Constellation, locate
from minia.mining.arrangement.fitting import fit
from minia.mining.arrangement.part import Part
from minia.mining.arrangement.places import Places
from minia.mining.arrangement.ragged import Numbers
from minia.mining.arrangement.sightings import Sightings
from minia.mining.lists.listdb import ListDB

_FEWEST_SPOTS = 3  # two keypoints fit each other by chance too often
FALSE_MATCHES = 0.01  # of a part's matches
_KNOWN = 0.5  # of a structure's words: with so many in a part that is known it is that part
_SURE = 1e-6
_LAYERS = 3  # parts that are sought in one structure, at most
_FEWEST_WORDS = 3
_REST = 0.2  # of a structure's words: so many must be left to look for another part


@dataclass(frozen=True)
class Exchange:
    """The collection with places exchanged, several times.

    Attributes:
        taken: (num_exchanges + 1, num_keypoints) int32: the keypoints whose places keypoints have; first their own.
        half: (num_images,) bool, one of two halves of the images.
    """

    taken: npt.NDArray[np.int32]
    half: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, places: Places, num_exchanges: int, seed: int) -> Exchange:
        """Exchange places and deal the images into halves, by a seed."""
        own = np.arange(len(places.words), dtype=np.int32)
        taken = [own, *(places.exchanged(seed + number) for number in range(num_exchanges))]
        half = np.random.default_rng([seed, 2]).permutation(places.num_images) % 2 == 0
        return cls(np.stack(taken), half)


def arrange(
    places: Places,
    structures: ListDB,
    num_exchanges: int = 3,
    seed: int = 0,
    advance: Callable[[int], object] = lambda _: None,
) -> Iterator[Part]:
    """Find the parts of structures.

    Args:
        places: the collection's keypoints and their words.
        structures: a list a structure, items words.
        num_exchanges: times that places are exchanged.
        seed: of the exchanges and of the halves.
        advance: called with 1 after each structure.

    Yields:
        The parts of each structure, one after another; none for a structure whose words keep no arrangement.
    """
    exchange = Exchange.of(places, num_exchanges, seed)
    known: list[npt.NDArray[np.int32]] = []
    for structure in range(structures.num_lists):
        words = structures[structure].astype(np.int64)
        for _ in range(_LAYERS):
            if any(np.isin(words, other).mean() > _KNOWN for other in known):
                break
            found = _part_of(places, exchange, words, structure)
            if found is None:
                break
            part, constellation = found
            if part.probability < _SURE:
                known.append(part.words)
            yield part
            left = words[~_explained(places, words, constellation, part.sightings)]
            if len(left) < max(_FEWEST_WORDS, _REST * len(words)) or len(left) == len(words):
                break
            words = left
        advance(1)


def find_constellations(places: Places, parts: Sequence[Part]) -> Iterator[Sightings]:
    """Where each of several parts is in images, which need not be those that it was learned from.

    Args:
        places: the images' keypoints and their words.
        parts: of :func:`arrange`.
    """
    for part in parts:
        assert isinstance(part.model, Constellation)
        seen = locate(part.model, places, places.of_words(part.words))
        yield seen.select(seen.spots >= part.fewest_spots)


def _explained(places: Places, words: Numbers, part: Constellation, seen: Sightings) -> npt.NDArray[np.bool_]:
    """Which words lie, in the images that hold a part, on the part more often than elsewhere."""
    row = np.full(places.num_images, -1)
    row[seen.images] = np.arange(len(seen.images))
    own = places.of_words(words)
    where = row[places.image_of(own)]
    own, where = own[where >= 0], where[where >= 0]
    inside = np.abs((places.position[own] - seen.centre[where]) / seen.frame[where]) < 1.2 * np.abs(part.position).max()
    number = np.zeros((2, len(places.word_offsets) - 1))
    for side in (0, 1):
        number[side] = np.bincount(places.words[own[inside == side]], minlength=number.shape[1])
    return np.asarray(np.isin(words, part.words) | (number[1, words] > number[0, words]))


def _part_of(places: Places, exchange: Exchange, words: Numbers, structure: int) -> tuple[Part, Constellation] | None:
    every = np.ones(places.num_images, dtype=bool)
    constellation = fit(places, words, every)
    if constellation is None:
        return None
    learned = [(fit(places, words, half), ~half) for half in (exchange.half, ~exchange.half)]
    probability = exchanged_probability(places, exchange, learned)
    return seen_part(places, exchange, constellation, structure, probability), constellation


def exchanged_probability(
    places: Places, exchange: Exchange, learned: Sequence[tuple[Constellation | None, npt.NDArray[np.bool_]]]
) -> float:
    """The probability that exchanged places give as many spots in their place.

    Args:
        places: the collection.
        exchange: the exchanges.
        learned: constellations, each with the images to look at, (num_images,) bool: none that it was learned from.
    """
    spots = np.zeros((len(exchange.taken), places.num_images))
    for constellation, images in learned:
        if constellation is not None:
            spots += _spots(places, exchange, constellation, images)
    evidence = np.maximum(spots - (_FEWEST_SPOTS - 1.0), 0)
    return exchange_probability(evidence[0], evidence[1:])


def seen_part(
    places: Places, exchange: Exchange, constellation: Constellation, structure: int, probability: float
) -> Part:
    """The part that a constellation is, where it is seen in all images."""
    seen, exchanged = _locate(places, exchange, constellation)
    fewest, false = fewest_spots(seen.spots, exchanged, len(exchanged))
    return Part(
        structure=structure,
        words=np.unique(constellation.words),
        num_spots=constellation.num_spots,
        sightings=seen.select(seen.spots >= fewest),
        probability=probability,
        fewest_spots=fewest,
        false_matches=false,
        model=constellation,
    )


def _spots(
    places: Places, exchange: Exchange, part: Constellation, images: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Spots in their place in each of some images, as it is and with exchanged places: (exchanges + 1, num_images)."""
    own = places.of_words(np.unique(part.words))
    own = own[images[places.image_of(own)]]
    return _batched(places, exchange.taken, part, own)


def _locate(places: Places, exchange: Exchange, part: Constellation) -> tuple[Sightings, npt.NDArray[np.float64]]:
    """Where a part is, and the spots in their place where places were exchanged, (exchanges, num_images)."""
    own = places.of_words(np.unique(part.words))
    return locate(part, places, own), _batched(places, exchange.taken[1:], part, own)


def _batched(
    places: Places, taken: npt.NDArray[np.int32], part: Constellation, own: Numbers
) -> npt.NDArray[np.float64]:
    number, count = places.num_images, len(taken)
    image = places.image_of(own)
    groups = (image + number * np.arange(count)[:, None]).ravel()
    found = locate(part, places, np.tile(own, count), taken[:, own].ravel().astype(np.int64), groups)
    spots = np.zeros(count * number)
    spots[found.images] = found.spots
    return spots.reshape(count, number)


def fewest_spots(spots: npt.NDArray[np.int32], exchanged: npt.NDArray[Any], num_exchanges: int) -> tuple[int, float]:
    """The fewest spots of a match, so many that exchanged places would give at most one match in a hundred.

    Args:
        spots: (n,) spots in their place, of every image that has some.
        exchanged: numbers, those with exchanged places, of all exchanges together.
        num_exchanges: how many these were.

    Returns:
        The number, and the share of matches that exchanged places give; where that is more than one in a hundred
        for any number, the largest one.
    """
    share = 1.0
    most = int(spots.max(initial=_FEWEST_SPOTS))
    for fewest in range(_FEWEST_SPOTS, most + 1):
        by_chance = int(np.count_nonzero(exchanged >= fewest)) / max(1, num_exchanges)
        share = min(1.0, by_chance / max(1, int(np.count_nonzero(spots >= fewest))))
        if share <= FALSE_MATCHES:
            return fewest, share
    return most, share
