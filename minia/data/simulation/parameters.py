"""What a simulated galaxy looks like, in numbers, and how these are drawn for each of the nine classes.

Lengths and positions are in *cut-out pixels* (424 a side) from the centre of the image unless said;
angles are in degrees, from the image's x axis towards its y axis (which points down).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

_LENGTHS = (
    "r90", "bulge_radius", "disk_scale", "bar_length", "ring_radius", "ring_width", "arm_inner", "arm_outer",
    "arm_scale",
)  # fmt: skip


@dataclass(frozen=True)
class GalaxyParameters:
    """What is drawn. Lengths are in cut-out pixels, 0.0 (arms: 0) where the galaxy has no such part.

    Attributes:
        class_name: one of the nine classes.
        r90_arcsec: petroR90 on the sky, which sets the scale of the cut-out.
        seeing: full width at half maximum of a star, arcsec.
        surface_brightness: mean magnitude of a square arcsec in r inside R90.
        x, y: centre of the galaxy.
        r90: semi-major axis of the ellipse that holds most of the light.
        axis_ratio: apparent minor over major axis.
        inclination: 0 face-on, 90 edge-on; of a smooth galaxy that of a thin disk of this axis ratio.
        position_angle: direction of the major axis, 0 to 180.
        bulge_radius, bulge_fraction, bulge_index, bulge_axis_ratio: effective radius, share of the
            light, Sersic index and apparent axis ratio of the bulge or of the whole smooth galaxy.
        disk_scale, disk_thickness: exponential scale length; scale height over scale length.
        bar_length, bar_angle, bar_fraction: half length and angle in the disk's plane, share of light.
        ring_radius, ring_width, ring_fraction: radius and Gaussian width in the disk's plane, share.
        arms, pitch, arm_inner, arm_outer: number, pitch angle, radii between which they run.
        arm_phase, arm_turn: angle at ``arm_inner``; +1.0 or -1.0, the sense in which they wind.
        arm_width: Gaussian width over half the distance between neighbours; arm_scale: exponential
            scale length of their light; arm_fraction: its share.
        dust: optical depth in r of lanes; clumpiness: scatter of the disk's light (natural logarithm).
        bulge_colour, disk_colour, arm_colour: g - r in magnitudes.
        companion: the galaxy it merges with, in the same cut-out; None without one. Its ``r90_arcsec`` is its own, its
            lengths are in pixels of the same cut-out.
    """

    class_name: str
    r90_arcsec: float
    seeing: float
    surface_brightness: float
    x: float
    y: float
    r90: float
    axis_ratio: float
    inclination: float
    position_angle: float
    bulge_radius: float = 0.0
    bulge_fraction: float = 0.0
    bulge_index: float = 1.0
    bulge_axis_ratio: float = 1.0
    disk_scale: float = 0.0
    disk_thickness: float = 0.0
    bar_length: float = 0.0
    bar_angle: float = 0.0
    bar_fraction: float = 0.0
    ring_radius: float = 0.0
    ring_width: float = 0.0
    ring_fraction: float = 0.0
    arms: int = 0
    pitch: float = 0.0
    arm_inner: float = 0.0
    arm_outer: float = 0.0
    arm_phase: float = 0.0
    arm_turn: float = 1.0
    arm_width: float = 0.0
    arm_scale: float = 0.0
    arm_fraction: float = 0.0
    dust: float = 0.0
    clumpiness: float = 0.0
    bulge_colour: float = 0.85
    disk_colour: float = 0.55
    arm_colour: float = 0.3
    companion: GalaxyParameters | None = None


@dataclass(frozen=True)
class Additions:
    """What a survey has more of than usual, as shares of the galaxies that could have it and have it not.

    Attributes:
        bars: of spirals and rings.
        rings: inner rings of spirals, where the arms begin.
        companions: galaxies that merge with them, of all.
    """

    bars: float = 0.0
    rings: float = 0.0
    companions: float = 0.0


AS_USUAL = Additions()


def draw_parameters(class_name: str, rng: np.random.Generator) -> GalaxyParameters:
    """Draw one galaxy of a class.

    Raises:
        ValueError: the class is not one of the nine.
    """
    if class_name not in _DRAW:
        raise ValueError(f"class {class_name!r} is not one of {', '.join(_DRAW)}")
    values: dict[str, Any] = {
        "r90_arcsec": math.exp(rng.uniform(math.log(4.0), math.log(14.0))),
        "seeing": float(np.clip(rng.normal(1.32, 0.13), 1.05, 1.8)),
        "surface_brightness": float(np.clip(rng.normal(21.3, 0.4), 20.4, 22.4)),
        "x": rng.normal(0.0, 0.8),
        "y": rng.normal(0.0, 0.8),
        "position_angle": rng.uniform(0.0, 180.0),
    }
    values |= _DRAW[class_name](rng)
    if "inclination" in values:
        values.setdefault("axis_ratio", math.cos(math.radians(values["inclination"])))
    else:
        values["inclination"] = math.degrees(math.acos(values["axis_ratio"]))
    return GalaxyParameters(class_name=class_name, **values)


def add_parts(parameters: GalaxyParameters, additions: Additions, rng: np.random.Generator) -> GalaxyParameters:
    """Give a galaxy the parts that the shares grant it; the same draws whatever the shares.

    Args:
        parameters: the galaxy as its class has it.
        additions: the shares.
        rng: of its own, so that nothing else of the galaxy changes.
    """
    lots, bar, ring, merger = rng.spawn(4)
    wins = lots.random(3) < [additions.bars, additions.rings, additions.companions]
    values: dict[str, Any] = {}
    if wins[0] and parameters.bar_length == 0.0 and (parameters.arms or parameters.ring_radius):
        at_arms = parameters.arms > 0
        length = parameters.arm_inner if at_arms else parameters.ring_radius * 0.8
        values |= _bar(bar, length, parameters.arm_phase if at_arms else bar.uniform(0.0, 180.0))
    if wins[1] and parameters.arms and parameters.ring_radius == 0.0:
        radius = parameters.arm_inner * ring.uniform(1.0, 1.25)
        width, fraction = radius * ring.uniform(0.10, 0.17), ring.uniform(0.14, 0.26)
        values |= {"ring_radius": radius, "ring_width": width, "ring_fraction": fraction}
    if wins[2]:
        values["companion"] = _companion(parameters, merger)
    return replace(parameters, **values)


def _companion(parameters: GalaxyParameters, rng: np.random.Generator) -> GalaxyParameters:
    """A galaxy of 0.4 to 0.9 times the size, whose light overlaps that of the given one."""
    other = draw_parameters(str(rng.choice(["completely_round", "in_between", "loose", "ring"])), rng)
    ratio, angle = rng.uniform(0.4, 0.9), rng.uniform(0.0, 2 * math.pi)
    away = parameters.r90 * rng.uniform(0.7, 1.0) * math.sqrt(parameters.axis_ratio) + 0.5 * ratio * parameters.r90
    scale = ratio * parameters.r90 / other.r90
    return replace(
        other,
        **{name: getattr(other, name) * scale for name in _LENGTHS},
        r90_arcsec=parameters.r90_arcsec * ratio,
        seeing=parameters.seeing,
        surface_brightness=parameters.surface_brightness + rng.uniform(-0.3, 0.5),
        x=parameters.x + away * math.cos(angle),
        y=parameters.y + away * math.sin(angle),
    )


def _smooth(smallest: float, largest: float) -> Callable[[np.random.Generator], dict[str, Any]]:
    """Ellipticals and smooth lenticulars with an axis ratio between the two."""

    def draw(rng: np.random.Generator) -> dict[str, Any]:
        axis_ratio = rng.uniform(smallest, largest)
        r90 = rng.uniform(40.0, 54.0) / axis_ratio**0.28
        red = rng.random() < 0.8  # the rest are small blue galaxies without features
        return {
            "axis_ratio": axis_ratio,
            "r90": r90,
            "bulge_radius": r90 / 2.3,
            "bulge_fraction": 1.0,
            "bulge_index": rng.uniform(2.2, 5.0) if red else rng.uniform(0.9, 1.8),
            "bulge_axis_ratio": axis_ratio,
            "bulge_colour": rng.normal(0.84, 0.08) if red else rng.normal(0.42, 0.10),
        }

    return draw


def _disk(rng: np.random.Generator, r90: float, largest_inclination: float) -> dict[str, Any]:
    """A disk with a bulge, seen between face-on and the largest inclination."""
    inclination = math.degrees(math.acos(rng.uniform(math.cos(math.radians(largest_inclination)), 1.0)))
    flattening = math.cos(math.radians(inclination))
    disk_colour = rng.normal(0.52, 0.11)
    return {
        "r90": r90,
        "inclination": inclination,
        "bulge_radius": r90 * rng.uniform(0.09, 0.16),
        "bulge_fraction": rng.uniform(0.08, 0.26),
        "bulge_index": rng.uniform(1.5, 3.0),
        "bulge_axis_ratio": math.sqrt(0.5 + 0.5 * flattening**2),
        "disk_scale": r90 / rng.uniform(2.6, 3.2),
        "clumpiness": rng.uniform(0.15, 0.38),
        "bulge_colour": rng.normal(0.80, 0.07),
        "disk_colour": disk_colour,
        "arm_colour": disk_colour - rng.uniform(0.18, 0.38),
    }


def _spiral(smallest: float, largest: float) -> Callable[[np.random.Generator], dict[str, Any]]:
    """Spirals with a pitch angle between the two (degrees)."""

    def draw(rng: np.random.Generator) -> dict[str, Any]:
        r90 = rng.uniform(52.0, 68.0)
        values = _disk(rng, r90, 48.0)
        pitch = rng.uniform(smallest, largest)
        arms = 2 if pitch < 14.0 or rng.random() < (0.75 if pitch < 26.0 else 0.88) else int(rng.integers(3, 5))
        inner, phase = r90 * rng.uniform(0.20, 0.30), rng.uniform(0.0, 360.0)
        values |= {
            # arms of a small galaxy are lost in the seeing, and people then do not see a spiral
            "r90_arcsec": math.exp(rng.uniform(math.log(7.5 if pitch > 14.0 else 9.5), math.log(16.0))),
            "surface_brightness": float(np.clip(rng.normal(21.55, 0.35), 20.7, 22.4)),
            "arms": arms,
            "pitch": pitch,
            "arm_inner": inner,
            "arm_outer": r90 * rng.uniform(1.1, 1.4),
            "arm_phase": phase,
            "arm_turn": float(rng.choice([-1.0, 1.0])),
            "arm_width": rng.uniform(0.20, 0.30) if pitch < 26.0 else rng.uniform(0.17, 0.25),
            "arm_scale": values["disk_scale"] * (rng.uniform(1.3, 1.7) if pitch < 26.0 else rng.uniform(1.7, 2.3)),
            "arm_fraction": rng.uniform(0.32, 0.52),
            "dust": rng.uniform(0.0, 0.5),
        }
        if arms == 2 and rng.random() < 0.4:
            values |= _bar(rng, inner, phase)
        return values

    return draw


def _bar(rng: np.random.Generator, length: float, angle: float) -> dict[str, Any]:
    return {"bar_length": length * 1.1, "bar_angle": angle, "bar_fraction": rng.uniform(0.08, 0.16)}


def _ring(rng: np.random.Generator) -> dict[str, Any]:
    """A ring about a bulge, with or without a bar, in a faint disk."""
    r90 = rng.uniform(48.0, 60.0)
    values = _disk(rng, r90, 55.0)
    radius = r90 * rng.uniform(0.62, 0.95)
    red = rng.random() < 0.4
    values |= {
        "r90_arcsec": math.exp(rng.uniform(math.log(6.0), math.log(15.0))),
        "ring_radius": radius,
        "ring_width": radius * rng.uniform(0.09, 0.16),
        "ring_fraction": rng.uniform(0.30, 0.58),
        "bulge_fraction": rng.uniform(0.14, 0.34) if rng.random() < 0.9 else 0.02,
        "dust": rng.uniform(0.0, 0.2),
    }
    if red:
        values |= {"disk_colour": rng.normal(0.72, 0.05), "arm_colour": rng.normal(0.62, 0.05)}
    if rng.random() < 0.35:
        values |= _bar(rng, radius * 0.8, rng.uniform(0.0, 180.0))
    return values


def _edge_on(with_bulge: bool) -> Callable[[np.random.Generator], dict[str, Any]]:
    """Disks seen from the side, with a round bulge or none."""

    def draw(rng: np.random.Generator) -> dict[str, Any]:
        r90 = rng.uniform(60.0, 85.0)
        thickness = rng.uniform(0.12, 0.19) if with_bulge else rng.uniform(0.10, 0.18)
        values = {
            "r90": r90,
            "r90_arcsec": math.exp(rng.uniform(math.log(5.5), math.log(15.0))),
            "inclination": rng.uniform(84.0, 90.0),
            "axis_ratio": 0.26 if with_bulge else 0.20,
            "disk_scale": r90 / rng.uniform(2.8, 3.6),
            "disk_thickness": thickness,
            "dust": rng.uniform(0.8, 2.4) if rng.random() < 0.5 else rng.uniform(0.0, 0.2),
            "clumpiness": rng.uniform(0.08, 0.22) if with_bulge else rng.uniform(0.15, 0.40),
            "disk_colour": rng.normal(0.68, 0.08) if with_bulge else rng.normal(0.48, 0.10),
            "arm_colour": rng.uniform(0.10, 0.35),
        }
        if with_bulge:
            values |= {
                "bulge_radius": r90 * rng.uniform(0.11, 0.17),
                "bulge_fraction": rng.uniform(0.30, 0.48),
                "bulge_index": rng.uniform(1.6, 3.0),
                "bulge_axis_ratio": rng.uniform(0.65, 0.95),
                "bulge_colour": rng.normal(0.88, 0.06),
            }
        return values

    return draw


_DRAW: dict[str, Callable[[np.random.Generator], dict[str, Any]]] = {
    "ring": _ring,
    "rounded": _edge_on(with_bulge=True),
    "no_bulge": _edge_on(with_bulge=False),
    "tight": _spiral(7.0, 12.0),
    "medium": _spiral(15.5, 23.5),
    "loose": _spiral(29.0, 40.0),
    "completely_round": _smooth(0.90, 1.0),
    "in_between": _smooth(0.50, 0.74),
    "cigar_shaped": _smooth(0.19, 0.31),
}
