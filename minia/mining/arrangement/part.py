"""A part: words of a structure that keep an arrangement, what that is, and where they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minia.mining.arrangement.constellation import Constellation
from minia.mining.arrangement.ragged import Numbers
from minia.mining.arrangement.sightings import Sightings


@dataclass(frozen=True)
class Bands:
    """The bands of radii that a part's words lie in, by the numbers of a first ring and of the one after the last.

    Attributes:
        first: (num_words,) int64.
        last: (num_words,) int64.
    """

    first: Numbers
    last: Numbers


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
        model: what it is sought by in other images.
    """

    structure: int
    words: npt.NDArray[np.int32]
    num_spots: int
    sightings: Sightings
    probability: float
    fewest_spots: int
    false_matches: float
    model: Bands | Constellation
