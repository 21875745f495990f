"""Where else a marked place is: the keypoints inside a box, in their arrangement, sought in the images of a run.

The box's keypoints are a constellation (see :mod:`minia.mining.arrangement.constellation`) that is sought in the images
whose bags have most in common with its words. An image shows it where so many spots are in their place that exchanged
places of keypoints would give at most one such image in a hundred.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from minia.core.artifact import InputError
from minia.mining.arrangement.arrange import FALSE_MATCHES, fewest_spots
from minia.mining.arrangement.constellation import Constellation, locate
from minia.mining.arrangement.places import Places
from minia.mining.arrangement.sightings import Sightings
from minia.models.extractors.base import Features
from minia.query.places import Keypoints, keypoints_of_run, places_of
from minia.query.recorded import Recorded

MOST_CANDIDATES = 1000
_FEWEST_KEYPOINTS = 4
_EXCHANGES = 3


@dataclass(frozen=True)
class Box:
    """A box on an image, in pixels: 0, 0 is the centre of the pixel at the top left.

    Attributes:
        x, y: of its top left corner.
        width, height: above 0.

    Raises:
        InputError: a side is not above 0.
    """

    x: float
    y: float
    width: float
    height: float

    def __post_init__(self) -> None:
        sides = (self.x, self.y, self.width, self.height)
        if not np.isfinite(sides).all() or min(self.width, self.height) <= 0:
            given = ",".join(f"{each:g}" for each in sides)
            raise InputError(f"box {given}: expected x,y,width,height in pixels, width and height above 0")

    def keypoints(self, features: Features) -> NDArray[np.int64]:
        """The keypoints of an image whose centre lies inside, ascending.

        Raises:
            InputError: they are too few to tell anything.
        """
        x, y = features["keypoints"].T
        inside = (x >= self.x) & (x <= self.x + self.width) & (y >= self.y) & (y <= self.y + self.height)
        found = np.flatnonzero(inside)
        if len(found) < _FEWEST_KEYPOINTS:
            width, height = features["image_size"].tolist()
            raise InputError(
                f"the box holds {len(found)} keypoints: at least {_FEWEST_KEYPOINTS} are needed; allowed: a larger box,"
                f" or one that lies on what has keypoints (the image has {width} x {height} pixels)"
            )
        return found


def find_example(
    run: Recorded, candidates: NDArray[np.int64], features: Features, words: NDArray[np.int32], box: Box
) -> pd.DataFrame:
    """Find a marked place in images of a run.

    Args:
        run: the run.
        candidates: rows of images to look at, any order.
        features: of the image that is marked.
        words: the visual words of its keypoints; -1 for those that do not count.
        box: the mark.

    Returns:
        A row an image that shows it, most spots first: image, ``spots`` in their place, their ``share`` of all of the
        box, ``x`` and ``y``, where the middle of the box lies in pixels, ``width`` and ``height`` of the box there, and
        ``angle``, by which it is turned there, in degrees from x towards y, 0 .. 360.

    Raises:
        InputError: the box holds too few keypoints.
    """
    inside = box.keypoints(features)
    rows, marked = np.sort(candidates), Keypoints(features["keypoints"], features["sizes"], features["angles"], words)
    images = [*keypoints_of_run(run, rows.tolist()), marked]
    places = places_of(run, images, 1 + max(int(each.words.max(initial=0)) for each in images))
    own = places.offsets[-2] + inside
    own = own[places.words[own] >= 0]
    middle = np.complex64(box.x + box.width / 2 + 1j * (box.y + box.height / 2))
    part = Constellation.of(places.words[own], places.position[own] - middle, places.pose[own], places.turns)
    seen = _located(part, places, places.offsets[-2])
    zoom = np.abs(seen.frame)
    found = {
        "image": run.store.images["image"].to_numpy()[rows[seen.images]],
        "spots": seen.spots,
        "share": (seen.spots / max(1, part.num_spots)).astype(np.float32),
        "x": seen.centre.real,
        "y": seen.centre.imag,
        "width": (zoom * box.width).astype(np.float32),
        "height": (zoom * box.height).astype(np.float32),
        "angle": (np.degrees(np.angle(seen.frame)) % 360).astype(np.float32),
    }
    return pd.DataFrame(found).sort_values("spots", ascending=False, kind="stable", ignore_index=True)


def _located(part: Constellation, places: Places, end: int) -> Sightings:
    """The images that show a part, of keypoints before ``end``."""
    own = places.of_words(np.unique(part.words))
    own = own[own < end]
    seen = locate(part, places, own)
    by_chance = []
    for seed in range(_EXCHANGES):
        taken = places.exchanged(seed)[own].astype(np.int64)
        by_chance.append(locate(part, places, own, taken).spots)
    fewest, false = fewest_spots(seen.spots, np.concatenate(by_chance), _EXCHANGES)
    return seen.select((seen.spots >= fewest) & (false <= FALSE_MATCHES))
