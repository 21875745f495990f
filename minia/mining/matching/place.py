"""Where a structure is in an image, as far as its keypoints tell: where no arrangement found its place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def place_of(positions: NDArray[np.float32], sizes: NDArray[np.float32]) -> tuple[float, float, float]:
    """The keypoints' median and twice their median distance from there, so that half of them lie inside.

    Args:
        positions: (n, 2) float32, x and y in pixels, n at least 1.
        sizes: (n,) float32 diameters in pixels.

    Returns:
        x, y and diameter in pixels; the keypoints' median diameter is part of it.
    """
    x, y = np.median(positions, axis=0).tolist()
    reach = float(np.median(np.hypot(positions[:, 0] - x, positions[:, 1] - y)))
    return x, y, 2 * reach + float(np.median(sizes))
