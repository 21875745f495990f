"""Keypoints without descriptors, in 8 bytes each; with its visual word, 4 more, that is all that remains of a keypoint.

``compact.npy`` holds a record a keypoint, little-endian:

=====  =======  ======================================================================
field  type     meaning
=====  =======  ======================================================================
x, y   uint16   (pixel + 0.5) * 65535 / longer side of the image
size   float16  diameter in pixels of the original image
angle  uint16   degrees * 65535 / 360, below 65535; 65535: none
=====  =======  ======================================================================

A keypoint's place is so known to 1/131,070 of the image's longer side (0.008 pixels in 1,024), its size to one part in
2,048 and its angle to 0.003 degrees: far less than the sizes of keypoints, by which arrangements are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

COMPACT = "compact.npy"
NO_ANGLE = -1.0  # degrees, as OpenCV has it: a keypoint without a direction
_RECORD = np.dtype([("x", "<u2"), ("y", "<u2"), ("size", "<f2"), ("angle", "<u2")])
_MOST = 65535
_LARGEST_SIZE = float(np.finfo(np.float16).max)


def encode(arrays: Mapping[str, NDArray[Any]], sides: NDArray[np.float32]) -> NDArray[np.void]:
    """The records of keypoints.

    Args:
        arrays: ``keypoints`` (n, 2), ``sizes`` and ``angles`` (n,) float32.
        sides: (n,) float32, the longer side of each one's image in pixels.

    Returns:
        (n,) records.
    """
    records = np.zeros(len(sides), _RECORD)
    places = np.rint((arrays["keypoints"].astype(np.float64) + 0.5) * (_MOST / np.maximum(sides, 1))[:, None])
    records["x"], records["y"] = np.clip(places, 0, _MOST).T
    records["size"] = np.minimum(arrays["sizes"], _LARGEST_SIZE)
    angles = arrays["angles"].astype(np.float64)
    records["angle"] = np.where(angles < 0, _MOST, np.rint(angles * (_MOST / 360)) % _MOST)
    return records


def decode(records: NDArray[np.void], sides: NDArray[np.float32], array: str) -> NDArray[np.float32]:
    """One array of keypoints: ``keypoints`` (n, 2), ``sizes`` or ``angles`` (n,), float32.

    Args:
        records: (n,) records.
        sides: (n,) float32, the longer side of each one's image in pixels.
        array: its name.
    """
    if array == "keypoints":
        places = np.stack([records["x"], records["y"]], axis=1).astype(np.float32)
        return places * (sides / np.float32(_MOST))[:, None] - np.float32(0.5)
    if array == "sizes":
        return np.asarray(records["size"], dtype=np.float32)
    angles = np.asarray(records["angle"], dtype=np.float32)
    return np.where(angles == _MOST, np.float32(NO_ANGLE), angles * np.float32(360 / _MOST))
