"""The sky around a simulated galaxy, and what SDSS makes of it: stars, galaxies, seeing, noise, colour.

Light is float64, (3, side, side), of the bands g, r, i, in nanomaggies a survey pixel.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
from scipy.special import gammaincinv

Array = npt.NDArray[np.float64]

SURVEY_PIXEL = 0.396  # arcsec, York et al. 2000, AJ 120, 1579
ZERO_POINT = 22.5  # magnitude of 1 nanomaggy
# In g, r, i: dark sky in nanomaggies a survey pixel and photo-electrons a nanomaggy in 53.9 s.
SKY_LIGHT = np.array([0.30, 0.69, 1.30])[:, None, None]
ELECTRONS = np.array([1000.0, 940.0, 750.0])[:, None, None]
# Weights of g, r, i as blue, green, red: those of Wherry, Blanton & Hogg (2004, PASP 116, 133), 1.37 : 1 : 0.86,
# with a little less green, which gives the cut-outs' own violet tint of young stars.
BAND_SCALES = np.array([1.48, 1.00, 0.90])[:, None, None]
PEDESTAL = np.array([0.002, 0.007, 0.006])[:, None, None]  # the cut-outs are not quite black
STRETCH, SOFTENING = 0.50, 8.0  # of Lupton et al. 2004, in r nanomaggies a survey pixel
STARS_PER_SQUARE_ARCMIN, GALAXIES_PER_SQUARE_ARCMIN = 1.7, 6.0
RESAMPLING_BLUR = 0.7  # survey pixels: the cut-outs were resampled, which smooths the noise of single pixels
MOFFAT_POWER = 3.0


def colour(g_minus_r: float) -> Array:
    """Light in g, r, i relative to r, (3, 1, 1); r - i follows g - r as in normal galaxies."""
    r_minus_i = 0.05 + 0.37 * g_minus_r
    return np.array([10 ** (-0.4 * g_minus_r), 1.0, 10 ** (0.4 * r_minus_i)])[:, None, None]


def share(profile: Array, total: float) -> Array:
    """The profile scaled to a sum of ``total``."""
    return profile * (total / max(float(profile.sum()), 1e-9))


def sersic(radius: Array, effective_radius: float, index: float) -> Array:
    """Sersic's profile, 1 at the effective radius, as ``astropy.modeling.models.Sersic1D`` has it.

    Importing ``astropy.modeling`` takes two seconds of every process that draws; this does not.
    """
    falling = float(gammaincinv(2.0 * index, 0.5))
    return np.asarray(np.exp(-falling * ((radius / effective_radius) ** (1.0 / index) - 1.0)))


def moffat(side: int, width: float, x: float, y: float) -> Array:
    """The image of a star (Moffat 1969, A&A 3, 455), sum 1, (side, side), off the middle by x, y.

    Args:
        side: odd, pixels.
        width: full width at half maximum, pixels.
        x: position of the star from the middle of the image, pixels.
        y: the same, down.
    """
    grid = np.arange(side) - side // 2
    core = width / (2.0 * math.sqrt(2.0 ** (1.0 / MOFFAT_POWER) - 1.0))
    star = (1.0 + ((grid[None, :] - x) ** 2 + (grid[:, None] - y) ** 2) / core**2) ** -MOFFAT_POWER
    return np.asarray(star / star.sum())


def observe(light: Array, seeing: float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Look at a galaxy through the sky: neighbours, seeing, photon noise and colour.

    Args:
        light: of the galaxy alone, before the seeing.
        seeing: full width at half maximum of a star, arcsec.
        rng: draws neighbours and noise.

    Returns:
        RGB, uint8, (side, side, 3).
    """
    light = light.copy()
    _add_neighbours(light, rng)
    light = _blur(light, seeing / SURVEY_PIXEL, rng)
    _add_stray_light(light, rng)
    light += _photon_noise(light, rng)
    return lupton((light * BAND_SCALES + PEDESTAL)[::-1])


def lupton(bands: Array) -> npt.NDArray[np.uint8]:
    """Colours of Lupton et al. 2004, the same pixels as ``astropy.visualization.make_lupton_rgb`` gives.

    Importing ``astropy.visualization`` takes a second of every process that draws; this does not.

    Args:
        bands: red, green, blue, (3, height, width).

    Returns:
        RGB, uint8, (height, width, 3).
    """
    red, green, blue = bands
    intensity = (red + green + blue) / 3.0
    stretched = np.arcsinh(intensity * (SOFTENING / STRETCH)) * (0.1 / np.arcsinh(0.1 * SOFTENING))
    factor = np.divide(stretched, intensity, out=np.zeros_like(intensity), where=intensity > 0)
    rgb = np.maximum(bands * factor, 0.0)
    rgb /= np.maximum(rgb.max(axis=0), 1.0)  # the brightest band of a pixel is cut, the others keep their ratios to it
    return np.ascontiguousarray((rgb * 255.0).astype(np.uint8).transpose(1, 2, 0))


def _add_neighbours(light: Array, rng: np.random.Generator) -> None:
    """Add stars and galaxies of the field to the light in g, r, i, in place."""
    side = light.shape[1]
    area = (side * SURVEY_PIXEL / 60.0) ** 2
    for _ in range(min(int(rng.poisson(area * STARS_PER_SQUARE_ARCMIN * rng.lognormal(0.0, 0.5))), 60)):
        red = rng.random() < 0.5  # late dwarfs; the others turn off the main sequence
        g_minus_r = rng.normal(1.35, 0.12) if red else rng.normal(0.45, 0.18)
        r_minus_i = rng.uniform(0.4, 1.2) if red else 0.05 + 0.3 * g_minus_r
        brightest = 17.0 if red else 14.5
        magnitude = brightest + (22.0 - brightest) * rng.random() ** 0.45
        flux = 10 ** (0.4 * (ZERO_POINT - magnitude))
        ratios = np.array([10 ** (-0.4 * g_minus_r), 1.0, 10 ** (0.4 * r_minus_i)])
        x, y = rng.uniform(0.0, side - 1.0, 2)
        column, row = int(x), int(y)
        across, down = np.array([1.0 - x + column, x - column]), np.array([1.0 - y + row, y - row])
        patch = light[:, row : row + 2, column : column + 2]
        patch += (flux * ratios[:, None, None] * np.outer(down, across))[:, : patch.shape[1], : patch.shape[2]]
    for _ in range(min(int(rng.poisson(area * GALAXIES_PER_SQUARE_ARCMIN * rng.lognormal(0.0, 0.5))), 60)):
        _add_field_galaxy(light, rng)


def _add_field_galaxy(light: Array, rng: np.random.Generator) -> None:
    """Add one background galaxy, counts rising as 10^(0.43 magnitude) from 16 to 22.2, in place."""
    side = light.shape[1]
    magnitude = max(22.2 - rng.exponential(1.0), 16.0)
    radius = math.exp(rng.normal(0.25 + 0.16 * (22.0 - magnitude), 0.3))  # survey pixels
    ratio, angle, g_minus_r = rng.uniform(0.3, 1.0), rng.uniform(0.0, math.pi), rng.uniform(0.3, 1.35)
    x, y = rng.uniform(0.0, side, 2)
    reach = int(6 * radius) + 4
    rows = slice(max(int(y) - reach, 0), int(y) + reach)
    columns = slice(max(int(x) - reach, 0), int(x) + reach)
    dx = np.arange(side)[columns][None, :] - x
    dy = np.arange(side)[rows][:, None] - y
    u, v = dx * math.cos(angle) + dy * math.sin(angle), dy * math.cos(angle) - dx * math.sin(angle)
    distance = np.sqrt(u**2 + (v / ratio) ** 2 + 0.16)
    profile = sersic(distance, radius, 1.0 if g_minus_r < 0.7 else 3.0)
    light[:, rows, columns] += share(profile, 10 ** (0.4 * (ZERO_POINT - magnitude))) * colour(g_minus_r)


def _blur(light: Array, width: float, rng: np.random.Generator) -> Array:
    """Convolve g, r, i with the seeing of each (full width in survey pixels), slightly out of register."""
    side = 2 * int(4 * width) + 9
    blurred = np.empty_like(light)
    for band, wider in enumerate((1.08, 1.0, 0.95)):  # seeing falls as wavelength to the power 0.2
        star = moffat(side, wider * width, *rng.normal(0.0, 0.12, 2).tolist())
        blurred[band] = cv2.filter2D(light[band], -1, star, borderType=cv2.BORDER_REFLECT)
    return blurred


def _photon_noise(light: Array, rng: np.random.Generator) -> Array:
    """Noise of sky and galaxy photons, smoothed as by the resampling of the cut-outs."""
    noise = rng.standard_normal(light.shape) * np.sqrt((np.maximum(light, 0.0) + SKY_LIGHT) / ELECTRONS)
    smoothed = cv2.GaussianBlur(noise.transpose(1, 2, 0), (0, 0), RESAMPLING_BLUR)
    return np.asarray(smoothed.transpose(2, 0, 1))


def _add_stray_light(light: Array, rng: np.random.Generator) -> None:
    """Errors of the sky level and, rarely, the halo of a bright star outside of the image, in place."""
    light += rng.normal(0.0, 0.0015, 3)[:, None, None]
    if rng.random() < 0.025:
        side = light.shape[1]
        angle, distance = rng.uniform(0.0, 2 * math.pi), side * rng.uniform(0.65, 0.9)
        grid = np.arange(side) - side / 2
        away = (grid[None, :] - distance * math.cos(angle)) ** 2 + (grid[:, None] - distance * math.sin(angle)) ** 2
        light += rng.uniform(0.01, 0.05) * (side * 0.3) ** 2 / away * colour(rng.uniform(0.6, 1.3))
