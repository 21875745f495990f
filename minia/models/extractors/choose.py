"""Which features suit a collection: what ``features=auto`` goes by.

An image shows a single object on dark sky if all of this holds:

* the sky is dark: at most 64 of 255 grey levels in the ring along the border (its 35th percentile);
* the border is quiet: at least 70 % of the ring is within 4 standard deviations of the sky;
* there is an object in the middle, of 0.2 to 85 % of the image;
* it stands out: its brightest place is at least 8 standard deviations and 10 grey levels above the sky;
* it is the main thing: at least half of the light of all objects is its own.

Where at least 70 % of a sample of images do so, dense features on the central object are the choice.
Where as many have a dark sky and a quiet border, but not one object, it is SIFT on all objects; else SIFT on the
whole image, whose detector is the better where things are textured and come in several sizes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minia.models.extractors.objects import border_of, detect, light_above_sky
from minia.models.extractors.settings import ObjectsChoice

_DARK = 64  # grey levels
_QUIET_SIGMAS, _QUIET = 4.0, 0.7  # standard deviations above the sky; share of the ring along the border
_LEAST_AREA, _LARGEST_AREA = 0.002, 0.85  # of the image
_LEAST_SIGMAS, _LEAST_LEVELS = 8.0, 10.0  # of the object's brightest place above the sky
_MAIN = 0.5  # of the light of all objects
_MOST = 0.7  # of the images
_LEAST_SIDE = 16  # pixels


class Choice(NamedTuple):
    """The features that suit a collection.

    Attributes:
        kind: ``dense`` or ``sift``.
        objects: where keypoints may lie (see ``find_objects``).
        reason: one sentence with what was measured.
    """

    kind: Literal["dense", "sift"]
    objects: ObjectsChoice
    reason: str


class _Sight(NamedTuple):
    """What an image shows."""

    sky: float  # grey level
    dark: bool  # with a quiet border
    single: bool


def choose_features(images: Iterable[NDArray[np.uint8]]) -> Choice:
    """Choose the features for a collection.

    Args:
        images: a sample of it, each (height, width, 3) uint8, RGB; 64 are enough.
    """
    sights = [_look(image) for image in images]
    if not sights:
        return Choice("sift", "none", "no image of the sample could be read")
    sky = float(np.median([sight.sky for sight in sights]))
    dark, single = sum(sight.dark for sight in sights), sum(sight.single for sight in sights)
    measured = (
        f"of {len(sights)} images {single} show a single object in the middle of a dark, quiet sky"
        f" and {dark - single} other things on such a sky (median level {sky:.0f} of 255)"
    )
    if single >= _MOST * len(sights):
        return Choice("dense", "central", measured)
    if dark >= _MOST * len(sights):
        return Choice("sift", "all", measured)
    return Choice("sift", "none", measured)


def _look(image: NDArray[np.uint8]) -> _Sight:
    if min(image.shape[:2]) < _LEAST_SIDE:
        return _Sight(float(image.mean()), dark=False, single=False)
    light, sky, noise = light_above_sky(image)
    dark = sky <= _DARK and float((border_of(light) < _QUIET_SIGMAS * noise).mean()) >= _QUIET
    found, labels, middle = detect(light, noise)
    if not dark or middle is None:
        return _Sight(sky, dark, single=False)
    own = labels == middle + 1
    single = (
        _LEAST_AREA <= own.mean() <= _LARGEST_AREA
        and float(light[own].max()) >= max(_LEAST_SIGMAS * noise, _LEAST_LEVELS)
        and float(found["flux"][middle]) >= _MAIN * float(found["flux"].sum())
    )
    return _Sight(sky, dark, single)
