"""Writes a simulated survey in Galaxy Zoo 2's own layout, with the truth of what was drawn.

::

    images/<asset_id>.jpg      the cut-outs
    gz2_hart16.csv             votes, 231 columns, rows by object id
    gz2_filename_mapping.csv   objid,sample,asset_id
    truth.csv                  class and geometry in pixels of the image, angles in degrees

Galaxy ``i`` depends on the seed and on ``i`` alone, so neither the number of galaxies nor that of
processes changes it, and classes take turns, so any prefix is balanced.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from minia.core.artifact import InputError
from minia.core.progress import progress
from minia.core.workers import map_in_order
from minia.core.writing import remove_unfinished, write_files_whole, write_text_whole
from minia.data.labelled.galaxy_zoo import CATALOGUE_COLUMNS, CATALOGUE_FILE, CLASSES, MAPPING_COLUMNS, MAPPING_FILE
from minia.data.simulation.parameters import AS_USUAL, Additions, GalaxyParameters, add_parts
from minia.data.simulation.render import CUTOUT_SIZE, draw_parameters, render_galaxy
from minia.data.simulation.simulated_votes import Value, Votes, draw_votes

IMAGE_FOLDER = "images"
TRUTH_FILE = "truth.csv"
TRUTH_COLUMNS = (
    "image",
    "label",
    "objid",
    "asset_id",
    "x",
    "y",
    "r90",
    "axis_ratio",
    "inclination",
    "position_angle",
    "pitch_angle",
    "arms",
    "arms_turn",
    "arms_angle",
    "arms_inner_radius",
    "arms_outer_radius",
    "bulge_x",
    "bulge_y",
    "bulge_radius",
    "bar_x",
    "bar_y",
    "bar_length",
    "bar_angle",
    "ring_x",
    "ring_y",
    "ring_radius",
)
COMPANION_COLUMNS = ("companion_x", "companion_y", "companion_radius")  # of surveys with companions; its r90
JPEG_QUALITY = 75  # that of the real cut-outs
_SAMPLE = "original"
_GALAXIES_PER_TASK = 9
_FIRST_OBJID = 587722981000000000  # the ids of SDSS DR7 objects have 18 digits
_SCATTER = 2654435761  # odd, so that multiplying modulo 2^32 is one to one (Knuth, TAOCP 3, 6.4)


@dataclass(frozen=True)
class _Rows:
    """What the tables say about one galaxy: lines of text without the end of line."""

    label: str
    objid: int
    catalogue: str
    mapping: str
    truth: str


def write_survey(
    folder: Path, *, num_images: int, side: int, seed: int, num_workers: int, additions: Additions = AS_USUAL
) -> dict[str, int]:
    """Draw galaxies and write their images and tables; images that are there already are kept.

    Args:
        folder: an existing folder; one that a killed run with the same arguments left is completed.
        num_images: galaxies to draw, at least 1.
        side: side of the images, pixels, at least 16.
        seed: not negative; the same seed gives the same bytes.
        num_workers: processes, at least 1; with 1 the work is done in this process.
        additions: bars, rings and companions beyond the usual ones.

    Returns:
        ``num_images`` and the number of galaxies of each class.

    Raises:
        InputError: an argument is out of its range.
    """
    _check(num_images=(num_images, 1), side=(side, 16), seed=(seed, 0), num_workers=(num_workers, 1))
    images = folder / IMAGE_FOLDER
    images.mkdir(exist_ok=True)
    remove_unfinished(images)
    tasks = [
        range(first, min(first + _GALAXIES_PER_TASK, num_images)) for first in range(0, num_images, _GALAXIES_PER_TASK)
    ]
    work = partial(_draw_galaxies, folder=folder, side=side, seed=seed, additions=additions)
    rows: list[_Rows] = []
    with progress("simulating", num_images, "image") as advance:
        for finished in map_in_order(work, tasks, num_workers):
            rows.extend(finished)
            advance(len(finished))
    _write_table(folder / CATALOGUE_FILE, CATALOGUE_COLUMNS, [row.catalogue for row in sorted(rows, key=_objid)])
    _write_table(folder / MAPPING_FILE, MAPPING_COLUMNS, [row.mapping for row in rows])
    _write_table(folder / TRUTH_FILE, _truth_columns(additions), [row.truth for row in rows])
    per_class = Counter(row.label for row in rows)
    return {"num_images": num_images} | {label: per_class[label] for label in CLASSES}


def _objid(row: _Rows) -> int:
    return row.objid


def _check(**limits: tuple[int, int]) -> None:
    for name, (value, smallest) in limits.items():
        if value < smallest:
            raise InputError(f"{name} is {value}; it must be at least {smallest}")


def _truth_columns(additions: Additions) -> tuple[str, ...]:
    return TRUTH_COLUMNS + (COMPANION_COLUMNS if additions.companions else ())


def _draw_galaxies(indices: range, *, folder: Path, side: int, seed: int, additions: Additions) -> list[_Rows]:
    pictures: dict[Path, bytes] = {}
    rows = [_draw_galaxy(index, folder, side, seed, additions, pictures) for index in indices]
    write_files_whole(pictures)
    return rows


def _draw_galaxy(
    index: int, folder: Path, side: int, seed: int, additions: Additions, pictures: dict[Path, bytes]
) -> _Rows:
    """The rows of a galaxy; its picture is added to ``pictures`` unless it is in the folder."""
    streams = np.random.SeedSequence([seed, index]).spawn(4)
    shape, sky, crowd, more = (np.random.default_rng(stream) for stream in streams)
    parameters = add_parts(draw_parameters(CLASSES[index % len(CLASSES)], shape), additions, more)
    asset_id = index + 1
    image = f"{IMAGE_FOLDER}/{asset_id}.jpg"
    if not (folder / image).exists():
        pictures[folder / image] = _encode(render_galaxy(parameters, sky, side))
    objid = _FIRST_OBJID + (asset_id * _SCATTER) % 2**32
    votes = draw_votes(parameters, crowd)
    truth: dict[str, Value] = {"image": image, "label": parameters.class_name, "objid": objid, "asset_id": asset_id}
    return _Rows(
        label=parameters.class_name,
        objid=objid,
        catalogue=_line(CATALOGUE_COLUMNS, _catalogue_row(objid, votes, crowd)),
        mapping=f"{objid},{_SAMPLE},{asset_id}",
        truth=_line(_truth_columns(additions), truth | _geometry(parameters, side)),
    )


def _encode(rgb: np.ndarray) -> bytes:
    encoded, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not encoded:
        raise OSError("an image of the survey could not be encoded")
    return bytes(data)


def _line(columns: tuple[str, ...], values: dict[str, Value]) -> str:
    """The values in the order of the columns, empty where there is none; floats keep every digit."""
    return ",".join(str(values.get(column, "")) for column in columns)


def _write_table(path: Path, columns: tuple[str, ...], lines: list[str]) -> None:
    write_text_whole(path, "\n".join([",".join(columns), *lines]) + "\n")


def _catalogue_row(objid: int, votes: Votes, rng: np.random.Generator) -> dict[str, Value]:
    """One row of the catalogue, at a random place in the survey's northern field."""
    ra, dec = rng.uniform(120.0, 240.0), math.degrees(math.asin(rng.uniform(0.0, math.sin(math.radians(60.0)))))
    leading: dict[str, Value] = {
        "dr7objid": objid,
        "ra": f"{ra:.6f}",
        "dec": f"{dec:.6f}",
        "rastring": _sexagesimal(ra / 15.0, 2),
        "decstring": "+" + _sexagesimal(dec, 1),
        "sample": _SAMPLE,
        "gz2_class": votes.short_class(),
        "total_classifications": votes.volunteers,
        "total_votes": votes.total,
    }
    return leading | votes.columns()


def _sexagesimal(value: float, decimals: int) -> str:
    """``hh:mm:ss.ss``; the value is not negative."""
    ticks = round(value * 3600 * 10**decimals)
    minutes, rest = divmod(ticks, 60 * 10**decimals)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest / 10**decimals:0{3 + decimals}.{decimals}f}"


def _geometry(parameters: GalaxyParameters, side: int) -> dict[str, Value]:
    """What was drawn, in pixels of the image (the centre of the first one is at 0, 0) and degrees."""
    scale = side / CUTOUT_SIZE
    x = side / 2 + parameters.x * scale - 0.5
    y = side / 2 + parameters.y * scale - 0.5
    values: dict[str, Value] = {
        "x": x,
        "y": y,
        "r90": parameters.r90 * scale,
        "axis_ratio": parameters.axis_ratio,
        "inclination": parameters.inclination,
        "position_angle": parameters.position_angle,
    }
    if parameters.arms:
        values |= {"arms": parameters.arms, "arms_turn": int(parameters.arm_turn), "pitch_angle": parameters.pitch}
        values["arms_angle"] = parameters.arm_phase  # of the first arm at its inner radius, in the disk's plane
        values |= {
            "arms_inner_radius": parameters.arm_inner * scale,
            "arms_outer_radius": parameters.arm_outer * scale,
        }
    if 0.0 < parameters.bulge_fraction < 1.0:
        values |= {"bulge_x": x, "bulge_y": y, "bulge_radius": parameters.bulge_radius * scale}
    if parameters.bar_length:
        length, angle = _projected_bar(parameters)
        values |= {"bar_x": x, "bar_y": y, "bar_length": length * scale, "bar_angle": angle}
    if parameters.ring_radius:
        values |= {"ring_x": x, "ring_y": y, "ring_radius": parameters.ring_radius * scale}
    if parameters.companion is not None:
        other = parameters.companion
        values |= {
            "companion_x": x + (other.x - parameters.x) * scale,
            "companion_y": y + (other.y - parameters.y) * scale,
        }
        values |= {"companion_radius": other.r90 * scale}
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()}


def _projected_bar(parameters: GalaxyParameters) -> tuple[float, float]:
    """Length from end to end in cut-out pixels and angle in degrees, 0 to 180, as seen in the image."""
    angle = math.radians(parameters.bar_angle)
    along = math.cos(angle)
    across = math.sin(angle) * math.cos(math.radians(parameters.inclination))
    seen = parameters.position_angle + math.degrees(math.atan2(across, along))
    return 2.0 * parameters.bar_length * math.hypot(along, across), seen % 180.0
