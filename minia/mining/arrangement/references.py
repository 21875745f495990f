"""Parts of images that are compared with each other, where no mined words say what to look for.

An image is taken as it is, all its keypoints at their places, and sought in the others: where another one
holds the same thing, tens of its keypoints agree on one place, size and angle, and where it does not, two or three.
A similarity transform carries one thing at a time, so what agrees with the one image that it agrees with most is one
part, though the image may hold several (see ``fitting.fit_image``). A part is then taken out of the images that hold
it, and what is left is compared anew: one part after another, the surest first.

All of this looks at one half of the images; whether the words keep the arrangement is asked in the other half, by
places exchanged (see ``chance``). Both halves propose parts, so that most are proposed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from minia.mining.arrangement.arrange import Exchange, exchanged_probability, seen_part
from minia.mining.arrangement.constellation import Constellation
from minia.mining.arrangement.fitting import evidence_of, fit_again, fit_image, seen_in, whole_image
from minia.mining.arrangement.part import Part
from minia.mining.arrangement.places import Places
from minia.mining.arrangement.ragged import Numbers, ranges

_MOST_WORK = 2e7  # references times keypoints that they are compared with: some minute of one core
_FEWEST = 8  # images of each half: where no more are affordable there are enough for the test of pairs of words
_LAYERS = 3  # parts that are sought in one image, at most
_BEYOND = 1.2  # radii of a part that are taken out of the images that hold it
_POSSIBLE = 0.05  # probability from which on a part is not worth seeking in all images
_EXCHANGES = 19  # times that places are exchanged, at least: three images must be able to tell


def num_references(places: Places, most: int) -> int:
    """How many images, as many of each half of them, are sought in the others.

    Args:
        places: the collection's keypoints: the more there are, the fewer images, and none from 2.5 million on.
        most: images at most.
    """
    affordable = int(_MOST_WORK / max(1, len(places.words)))
    return 2 * min(most // 2, places.num_images // 2, affordable) if affordable >= _FEWEST else 0


def propose_parts(
    places: Places, references: int, num_exchanges: int, seed: int, advance: Callable[[int], object] = lambda _: None
) -> list[Part | None]:
    """Propose parts by comparing images, and test each in images that did not propose it.

    Args:
        places: the collection's keypoints.
        references: images that are sought in the others, each in those of its half.
        num_exchanges: times that places are exchanged.
        seed: of the halves, of the exchanges and of the choice of images.
        advance: called with 1 after each reference.

    Returns:
        A part a proposal, None for those that exchanged places give as well.
    """
    exchange = Exchange.of(places, max(_EXCHANGES, num_exchanges), seed)
    every = np.ones(places.num_images, dtype=bool)
    found: list[Part | None] = []
    for half in (exchange.half, ~exchange.half):
        chosen = np.random.default_rng([seed, 3]).permutation(np.flatnonzero(half))[: references // 2]
        for proposed in _proposed(places, chosen, half, advance):
            probability = exchanged_probability(places, exchange, [(proposed, ~half)])
            part = fit_again(places, proposed, every) if probability < _POSSIBLE else None
            seen = None if part is None else seen_part(places, exchange, part, len(found), probability)
            found.append(seen)
    return found


def _proposed(
    places: Places, references: Numbers, images: npt.NDArray[np.bool_], advance: Callable[[int], object]
) -> Iterator[Constellation]:
    """The parts that references share with others of some images, the surest first."""
    agreement = np.array([evidence_of(whole_image(places, int(each), images)[1]) for each in references])
    for reference in references[np.argsort(-agreement, kind="stable")].tolist():
        for _ in range(_LAYERS):
            part = fit_image(places, reference, images)
            if part is None:
                break
            yield part
            places = places.without(_surroundings(places, part, images))
        advance(1)


def _surroundings(places: Places, part: Constellation, images: npt.NDArray[np.bool_]) -> Numbers:
    """The keypoints on a part, and a little beyond, in those of some images that hold it."""
    seen = seen_in(places, part, images)
    counts = np.diff(places.offsets)[seen.images]
    keypoints, row = ranges(places.offsets[seen.images], counts), np.repeat(np.arange(len(seen.images)), counts)
    off = np.abs((places.position[keypoints] - seen.centre[row]) / seen.frame[row])
    return np.asarray(keypoints[off < _BEYOND * np.abs(part.position).max()])
