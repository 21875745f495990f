"""Draws galaxies as Galaxy Zoo 2 shows them: SDSS g, r, i on the sky, composed by Lupton's asinh colours.

A Galaxy Zoo 2 cut-out is 424 pixels wide at 0.02 petroR90 a pixel, so each galaxy fills about the
same part of it and the survey's own pixel of 0.396 arcsec becomes 1.2 to 5 pixels. Here, too, the
sky is made on the survey's pixels (light, seeing, photon noise, colour) and then enlarged: this is
what gives the cut-outs their grain.

Lengths and positions are in *cut-out pixels* (424 a side) from the centre of the image unless said;
angles are in degrees, from the image's x axis towards its y axis (which points down).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
from scipy.special import k1

from minia.data.simulation.parameters import GalaxyParameters, draw_parameters
from minia.data.simulation.sky import SURVEY_PIXEL, ZERO_POINT, colour, observe, sersic, share

__all__ = ["CUTOUT_SCALE", "CUTOUT_SIZE", "GalaxyParameters", "draw_parameters", "galaxy_mask", "render_galaxy"]

Array = npt.NDArray[np.float64]

CUTOUT_SIZE = 424
CUTOUT_SCALE = 0.02  # of petroR90 a cut-out pixel, Willett et al. 2013


def galaxy_mask(parameters: GalaxyParameters, side: int = CUTOUT_SIZE) -> npt.NDArray[np.bool_]:
    """The pixels that belong to the drawn galaxy: its R90 ellipse, widened by the seeing.

    Args:
        parameters: the galaxy.
        side: side of the image, pixels.

    Returns:
        Booleans, (side, side).
    """
    u, v = _along_axes(parameters, side)
    blur = parameters.seeing / (CUTOUT_SCALE * parameters.r90_arcsec) / 2.0
    major = math.hypot(parameters.r90, blur)
    minor = math.hypot(parameters.r90 * parameters.axis_ratio, blur)
    return np.asarray((u / major) ** 2 + (v / minor) ** 2 <= 1.0)


def render_galaxy(
    parameters: GalaxyParameters, rng: np.random.Generator, side: int = CUTOUT_SIZE
) -> npt.NDArray[np.uint8]:
    """Draw a galaxy with its sky: neighbours, seeing, noise and colour.

    Args:
        parameters: the galaxy.
        rng: draws all that the parameters leave open: knots, clumps, neighbours, noise.
        side: side of the image, pixels, at least 1.

    Returns:
        RGB, uint8, (side, side, 3).
    """
    survey_side = round(CUTOUT_SIZE * CUTOUT_SCALE * parameters.r90_arcsec / SURVEY_PIXEL)
    light = _galaxy_light(parameters, survey_side, rng)
    if parameters.companion is not None:
        light += _galaxy_light(parameters.companion, survey_side, rng)
    rgb = observe(light, parameters.seeing, rng)
    shrinks = side < survey_side
    resized = cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return np.asarray(resized, dtype=np.uint8)


def _along_axes(parameters: GalaxyParameters, side: int) -> tuple[Array, Array]:
    """Distance of each pixel from the galaxy's centre along its major and minor axis, (side, side)."""
    grid = (np.arange(side) + 0.5) * (CUTOUT_SIZE / side) - CUTOUT_SIZE / 2
    x, y = grid[None, :] - parameters.x, grid[:, None] - parameters.y
    angle = math.radians(parameters.position_angle)
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


def _galaxy_light(parameters: GalaxyParameters, side: int, rng: np.random.Generator) -> Array:
    """The galaxy in g, r, i, nanomaggies a survey pixel, before the seeing: (3, side, side)."""
    u, v = _along_axes(parameters, side)
    soft = 0.4 * CUTOUT_SIZE / side  # the mean over a pixel of a cusp is finite
    light = np.zeros((3, side, side))
    if parameters.disk_scale > 0.0:
        disk_share = 1.0 - parameters.bulge_fraction
        disk = _edge_on_disk if parameters.disk_thickness > 0.0 else _inclined_disk
        light += disk_share * disk(parameters, u, v, rng)
    if parameters.bulge_fraction > 0.0:
        ratio = parameters.bulge_axis_ratio
        radius = np.sqrt(ratio * u**2 + v**2 / ratio + soft**2)
        bulge = sersic(radius, parameters.bulge_radius * math.sqrt(ratio), parameters.bulge_index)
        light += share(bulge, parameters.bulge_fraction) * colour(parameters.bulge_colour)
    # the light inside a circle is what is measured: thin galaxies are brighter a unit of their area
    area = math.pi * parameters.r90_arcsec**2 * math.sqrt(parameters.axis_ratio)
    return np.asarray(light * (10 ** (0.4 * (ZERO_POINT - parameters.surface_brightness)) * area))


def _clumps(side: int, scatter: float, rng: np.random.Generator) -> Array:
    """Random factors about 1 that vary over some 4 cut-out pixels, (side, side)."""
    noise = rng.standard_normal((side, side))
    smooth = cv2.GaussianBlur(noise, (0, 0), 4.0 * side / CUTOUT_SIZE)
    return np.asarray(np.exp(smooth * (scatter / float(smooth.std()))))


def _knots(where: Array, fraction: float, rng: np.random.Generator) -> Array:
    """Star-forming knots: points drawn from the light ``where``, with ``fraction`` of its sum."""
    count = int(rng.integers(25, 60))
    cumulative = np.cumsum(where)
    index = np.searchsorted(cumulative, rng.random(count) * cumulative[-1])
    knots = np.zeros(where.size)
    np.add.at(knots, np.minimum(index, where.size - 1), rng.pareto(2.0, count) + 0.3)
    return share(knots.reshape(where.shape), fraction * float(where.sum()))


def _edge_on_disk(parameters: GalaxyParameters, u: Array, v: Array, rng: np.random.Generator) -> Array:
    """A disk from the side (van der Kruit & Searle 1981, A&A 95, 105), sum 1 in r: (3, side, side)."""
    scale = parameters.disk_scale
    height = scale * parameters.disk_thickness
    along = np.abs(u) / scale + 1e-3
    lopsided = 1.0 + rng.normal(0.0, 0.12) * np.tanh(u / scale)
    bent = v - rng.normal(0.0, 0.25) * height * np.sign(u) * np.maximum(along - 1.5, 0.0) ** 2
    disk = along * k1(along) * np.cosh(np.clip(bent / height, -20, 20)) ** -2.0 * lopsided
    disk *= _clumps(len(u), parameters.clumpiness, rng) / (1.0 + np.exp((along - 4.0) * 2.5))
    light = share(disk, 1.0) * colour(parameters.disk_colour)
    light += share(_knots(disk, 1.0, rng), 1.2 * parameters.clumpiness**2) * colour(parameters.arm_colour)
    tilt = rng.normal(0.0, 0.35) * height  # a disk not quite from the side shows its lane off the middle
    lane = parameters.dust * np.exp(-0.5 * ((bent - tilt) / (0.45 * height)) ** 2) / (1.0 + (along / 3.0) ** 4)
    return np.asarray(light * _extinction(lane))


def _extinction(depth_in_r: Array) -> Array:
    """What dust lets through in g, r, i (Schlafly & Finkbeiner 2011: 3.30, 2.29, 1.70 times E(B-V))."""
    return np.asarray(np.exp(-depth_in_r * np.array([1.44, 1.0, 0.74])[:, None, None]))


def _inclined_disk(parameters: GalaxyParameters, u: Array, v: Array, rng: np.random.Generator) -> Array:
    """A thin disk with its bar, ring and arms, sum about 1 in r before the dust: (3, side, side)."""
    v = v / math.cos(math.radians(parameters.inclination))
    radius, angle = np.hypot(u, v) + 1e-3, np.arctan2(v, u)
    clumps = _clumps(len(u), parameters.clumpiness, rng)
    falling = np.exp(-radius / parameters.disk_scale) / (1.0 + np.exp((radius / parameters.disk_scale - 4.5) * 4.0))
    rest = 1.0 - parameters.bar_fraction - parameters.ring_fraction - parameters.arm_fraction
    light = share(falling * clumps, rest) * colour(parameters.disk_colour)
    young = np.zeros_like(radius)
    transparency: Array | float = 1.0
    if parameters.arms > 0:
        arms, lane = _spiral_arms(parameters, radius, angle, rng)
        young += share(arms * clumps**1.5, parameters.arm_fraction)
        transparency = _extinction(parameters.dust * lane)
    if parameters.ring_radius > 0.0:
        ring = np.exp(-0.5 * ((radius - parameters.ring_radius) / parameters.ring_width) ** 2)
        ring *= 1.0 + rng.uniform(0.0, 0.3) * np.cos(angle - rng.uniform(0.0, 2 * math.pi))
        young += share(ring * clumps**1.5, parameters.ring_fraction)
    if young.any():
        bright = rng.uniform(0.06, 0.18)
        light += (1.0 - bright) * young * colour(parameters.arm_colour)
        light += _knots(young, bright, rng) * colour(parameters.arm_colour - 0.2)
    if parameters.bar_length > 0.0:
        light += share(_bar_light(parameters, u, v), parameters.bar_fraction) * colour(parameters.bulge_colour - 0.05)
    return np.asarray(light * transparency)


def _bar_light(parameters: GalaxyParameters, u: Array, v: Array) -> Array:
    """A boxy bar of constant light with soft ends in the disk's plane (after Ferrers 1877)."""
    turn = math.radians(parameters.bar_angle)
    along = np.abs(u * math.cos(turn) + v * math.sin(turn)) / parameters.bar_length
    across = np.abs(v * math.cos(turn) - u * math.sin(turn)) / (0.28 * parameters.bar_length)
    return np.asarray(np.exp(-1.5 * (along**3.0 + across**2.0)))


def _spiral_arms(
    parameters: GalaxyParameters, radius: Array, angle: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Light of logarithmic arms and the dust on their inner edges, both (side, side)."""
    winding = parameters.arm_turn / math.tan(math.radians(parameters.pitch))
    turned = angle - math.radians(parameters.arm_phase) - winding * np.log(radius / parameters.arm_inner)
    turned += rng.uniform(0.0, 0.12) * np.sin(angle * 2 + rng.uniform(0.0, 6.28))  # real arms are not perfect
    which = turned * parameters.arms / (2 * math.pi)  # whole numbers are the crests of the arms
    nearest = np.rint(which)
    offset = 2.0 * (which - nearest)  # -1 to 1: half the way to the neighbours
    strength = rng.uniform(0.75, 1.0, parameters.arms)[np.mod(nearest, parameters.arms).astype(int)]
    ends = 1.0 / (1.0 + np.exp(-(radius / parameters.arm_inner - 0.85) * 8.0))
    ends /= 1.0 + np.exp((radius / parameters.arm_outer - 1.0) * 10.0)
    envelope = np.exp(-radius / parameters.arm_scale) * ends
    arms = strength * np.exp(-0.5 * (offset / parameters.arm_width) ** 2) * envelope
    inside = offset + parameters.arm_turn * 1.3 * parameters.arm_width
    return arms, ends * np.exp(-0.5 * (inside / (0.6 * parameters.arm_width)) ** 2)
