"""How pixels of more than 8 bits become grey levels: black, white and the curve between them.

=========  =====================================================================================================
stretch    black, white, curve
=========  =====================================================================================================
asinh      the sky; the level that 99.95 % of the pixels are below, at least 10 noises above the sky; a line up to
           some 5 noises above the sky, then a logarithm (Lupton et al. 1999, AJ 118, 1406)
zscale     IRAF's and DS9's limits, a line between them
linear     the darkest and the brightest pixel, a line between them
=========  =====================================================================================================

Sky and noise are the median and the standard deviation of the pixels that are left when those further than 3
standard deviations from the median are clipped. Three bands get one black and white after the sky of each is
taken away, so that colours stay. Pixels without a value (NaN, infinite) become sky.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Stretch: TypeAlias = Literal["asinh", "zscale", "linear"]

_WHITE_PERCENTILE = 99.95
_LEAST_WHITE = 10.0  # noises above the sky: sky alone stays dark
_LINEAR_UP_TO = 5.0  # noises above the sky
_MOST_DYNAMIC = 0.01  # the line's share of the range is not below this, whatever the noise
_SAMPLED = 1 << 18  # pixels of a band that its sky is measured on


def to_grey_levels(bands: NDArray[Any], stretch: Stretch) -> NDArray[np.uint8]:
    """Stretch one or three bands to grey levels.

    Args:
        bands: (num_bands, height, width) numbers.
        stretch: see the module.

    Returns:
        (height, width, num_bands) uint8.
    """
    values = np.array(bands, dtype=np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros((*values.shape[1:], len(values)), np.uint8)
    if stretch == "linear":
        low, high = values.min(where=finite, initial=np.inf), values.max(where=finite, initial=-np.inf)
        values = np.where(finite, values, low)
        return _bytes((values - low) / max(high - low, np.finfo(np.float32).tiny))
    for band, there in zip(values, finite, strict=True):
        band -= _sky(band[there])[0]
        band[~there] = 0.0
    mean = values.mean(axis=0)
    if stretch == "zscale":
        low, high = _zscale(mean)
        return _bytes((values - low) / max(high - low, float(np.finfo(np.float32).tiny)))
    _, noise = _sky(mean[finite.all(axis=0)])
    white = max(float(np.percentile(mean, _WHITE_PERCENTILE)), _LEAST_WHITE * noise)
    if white <= 0.0:
        return _bytes(np.zeros_like(values))
    line = min(max(_LINEAR_UP_TO * noise / white, _MOST_DYNAMIC), 1.0)
    return _bytes(np.arcsinh(np.clip(values / white, 0.0, 1.0) / line) / np.arcsinh(1.0 / line))


def _bytes(shares: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Grey levels of (num_bands, height, width) shares of white, as (height, width, num_bands)."""
    return np.ascontiguousarray(np.rint(np.clip(shares, 0.0, 1.0) * 255).astype(np.uint8).transpose(1, 2, 0))


def _sky(pixels: NDArray[np.float32]) -> tuple[float, float]:
    """The level and the noise of the sky in a band's finite pixels, (num_pixels,); 0 and 0 if there are none."""
    from astropy.stats import sigma_clipped_stats  # brings astropy, which images of 8 bits do without

    if not len(pixels):
        return 0.0, 0.0
    sampled = pixels[:: -(-len(pixels) // _SAMPLED)].astype(np.float64)
    _, median, deviation = sigma_clipped_stats(sampled, sigma=3.0, maxiters=5)
    return float(median), float(deviation)


def _zscale(pixels: NDArray[np.float32]) -> tuple[float, float]:
    from astropy.visualization import ZScaleInterval

    low, high = ZScaleInterval().get_limits(pixels)
    return float(low), float(high)
