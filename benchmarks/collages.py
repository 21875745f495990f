"""Collages: parts that recur on clutter, with the truth of where they are, and how well a run finds them.

    python benchmarks/collages.py run WORK [--keypoints 300 2000 8000] [--hidden 0 0.5] [--KEY VALUE] [-- key=value ...]
    python benchmarks/collages.py draw FOLDER [--images 300] [--parts 8] [--rate 0.15] [--KEY VALUE]
    python benchmarks/collages.py score FOLDER RUN STORE

``run`` draws a collection for each number of keypoints and each hidden share, with the null of each (``--null``), mines
them with what follows ``--`` given to ``mine.py``, and prints a row each; what is drawn and made already is kept.

``draw`` writes ``images/00000.png`` and so on, ``truth.csv`` (image, part, kind, x, y, size, angle, hidden, polygon),
``parts/`` with each part alone and ``collages.json`` with the keys. ``--parts 0`` is the null: the very same clutter
without the parts. Each of the parts is in round(rate x images) images drawn at random; half of them are drawn, half
photographic (see :mod:`collage_images`). ``--keypoints`` chooses the fineness of the clutter by bisection so that SIFT
as minIA sets it finds that many in an image on average. x and y are the part's centre in pixels (the first pixel's
centre is at 0, 0), size the diameter of the circle that holds it, angle its turn from x to y (down) in degrees;
polygon is what is to be seen of it, ``x y x y ...``.

``score`` compares a run with the truth, a row a part (see :mod:`collage_score`).
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from collage_images import PATCH, Part, draw_part, draw_scene
from numpy.typing import NDArray
from run_results import RunResults, mine, print_rows, print_table

TRUTH, KEYS = "truth.csv", "collages.json"
COLUMNS = ("image", "part", "kind", "x", "y", "size", "angle", "hidden", "polygon")
_TRIES = 300
_CALIBRATION_IMAGES, _CALIBRATION_STEPS = 4, 9


@dataclass(frozen=True)
class Keys:
    """What a collection of collages is like.

    Attributes:
        images: number of images.
        parts: number of different parts; 0 for the null.
        kinds: ``both`` (in turns), ``drawn`` or ``photographic``.
        rate: share of the images that hold a part.
        side: of an image, pixels.
        size: diameter of a part at scale 1, pixels.
        smallest, largest: scales, drawn log-uniformly between the two.
        turn: largest rotation either way, degrees.
        hidden: share of each part that is hidden.
        blur: largest standard deviation of the Gaussian blur of an image, pixels.
        noise: standard deviation of the noise of each pixel and colour, grey levels.
        brightness: standard deviation of the logarithm of an image's brightness.
        keypoints: of SIFT in an image, mean over images of clutter.
        seed: of everything.
    """

    images: int = 300
    parts: int = 8
    kinds: str = "both"
    rate: float = 0.15
    side: int = 480
    size: float = 128.0
    smallest: float = 0.7
    largest: float = 1.4
    turn: float = 180.0
    hidden: float = 0.0
    blur: float = 0.7
    noise: float = 1.0
    brightness: float = 0.15
    keypoints: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Place:
    """Where a part is in an image (see the module)."""

    x: float
    y: float
    size: float
    angle: float


def draw_collages(folder: Path, keys: Keys) -> None:
    """Write a collection (see the module); the same keys give the same bytes."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "parts").mkdir(exist_ok=True)
    finest = fineness_for(keys)
    kinds = ("drawn", "photographic") if keys.kinds == "both" else (keys.kinds,)
    parts = [draw_part(kinds[n % len(kinds)], np.random.default_rng([keys.seed, 1, n])) for n in range(keys.parts)]
    for number, part in enumerate(parts):
        _write(folder / "parts" / f"{number}-{part.kind}.png", part.rgb)
    holders = [
        set(
            np.random.default_rng([keys.seed, 2, n]).permutation(keys.images)[: round(keys.rate * keys.images)].tolist()
        )
        for n in range(keys.parts)
    ]
    with (folder / TRUTH).open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for image in range(keys.images):
            chosen = {number: parts[number] for number in range(keys.parts) if image in holders[number]}
            rgb, truth = draw_collage(image, chosen, finest, keys)
            name = f"{image:05d}.png"
            _write(folder / "images" / name, rgb)
            rows.writerows([name, *row] for row in truth)
    described = dataclasses.asdict(keys) | {"finest": finest}
    (folder / KEYS).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def draw_collage(
    number: int, parts: dict[int, Part], finest: float, keys: Keys
) -> tuple[NDArray[np.uint8], list[list[object]]]:
    """One image with its parts, by their numbers, and its rows of the truth after the name."""
    clutter, places, camera = (np.random.default_rng([keys.seed, 3, number, stream]) for stream in range(3))
    image = draw_scene(keys.side, finest, clutter).astype(np.float64)
    rows: list[list[object]] = []
    taken: list[Place] = []
    for part_number, part in parts.items():
        place = _free_place(taken, keys, places)
        taken.append(place)
        outline, edge = _visible(part.outline, keys.hidden, places.uniform(0, 2 * math.pi))
        image = _set_in(image, part, place, edge)
        polygon = _placed(outline, place)
        numbers = [round(value, 2) for value in (place.x, place.y, place.size, place.angle)]
        text = " ".join(f"{value:.1f}" for value in polygon.ravel())
        rows.append([part_number, part.kind, *numbers, keys.hidden, text])
    return _seen(image, keys, camera), rows


def _free_place(taken: list[Place], keys: Keys, rng: np.random.Generator) -> Place:
    """A place inside the image that is off the others, or, where none is found, the one that is most so."""
    size = keys.size * keys.smallest * (keys.largest / keys.smallest) ** rng.random()
    angle = rng.uniform(-keys.turn, keys.turn)
    best, room = (0.0, 0.0), -math.inf
    for _ in range(_TRIES):
        x, y = rng.uniform(size / 2, keys.side - 1 - size / 2, 2).tolist()
        free = min((math.hypot(x - one.x, y - one.y) - (size + one.size) / 2 for one in taken), default=math.inf)
        if free > room:
            best, room = (x, y), free
        if room >= 0:
            break
    return Place(*best, size, angle)


def _visible(
    outline: NDArray[np.float64], hidden: float, direction: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a straight cover leaves of a convex outline, and the cover's edge: (nx, ny, d), seen where n.p <= d."""
    normal = np.array([math.cos(direction), math.sin(direction)])
    low, high = -0.51, 0.51
    area = cv2.contourArea(outline.astype(np.float32))
    for _ in range(30):
        middle = (low + high) / 2
        left = _clipped(outline, normal, middle)
        seen = cv2.contourArea(left.astype(np.float32)) if len(left) > 2 else 0.0
        low, high = (middle, high) if seen < (1 - hidden) * area else (low, middle)
    return (_clipped(outline, normal, high) if hidden > 0 else outline), np.array(
        [*normal, high if hidden > 0 else 1.0]
    )


def _clipped(outline: NDArray[np.float64], normal: NDArray[np.float64], distance: float) -> NDArray[np.float64]:
    """The part of a convex polygon with normal . point <= distance (Sutherland, Hodgman 1974)."""
    beyond = outline @ normal - distance
    points = []
    for here, there, one, other in zip(outline, np.roll(outline, -1, 0), beyond, np.roll(beyond, -1), strict=True):
        if one <= 0:
            points.append(here)
        if one * other < 0:
            points.append(here + (there - here) * one / (one - other))
    return np.array(points).reshape(-1, 2)


def _placed(points: NDArray[np.float64], place: Place) -> NDArray[np.float64]:
    """Points of a part, in units of its size, as they are in the image."""
    cosine, sine = math.cos(math.radians(place.angle)), math.sin(math.radians(place.angle))
    turned = points @ np.array([[cosine, sine], [-sine, cosine]])
    return np.asarray(turned * place.size + [place.x, place.y])


def _set_in(image: NDArray[np.float64], part: Part, place: Place, edge: NDArray[np.float64]) -> NDArray[np.float64]:
    """The image with a part over it, but where the part is covered."""
    scale = place.size / PATCH
    smooth = cv2.GaussianBlur(part.rgb.astype(np.float64), (0, 0), max(0.3, 0.45 / scale))  # against aliasing
    grid = (np.arange(PATCH) + 0.5) / PATCH - 0.5
    alpha = np.zeros((PATCH, PATCH))
    corners = np.rint(((part.outline + 0.5) * PATCH - 0.5) * 256).astype(np.int32)
    cv2.fillPoly(alpha, [corners], 1.0, cv2.LINE_8, 8)
    alpha *= np.outer(np.ones(PATCH), grid) * edge[0] + np.outer(grid, np.ones(PATCH)) * edge[1] <= edge[2]
    middle = np.array([PATCH / 2 - 0.5, PATCH / 2 - 0.5])
    warp = cv2.getRotationMatrix2D(tuple(middle.tolist()), -place.angle, scale)
    warp[:, 2] += np.array([place.x, place.y]) - middle
    shape = image.shape[1], image.shape[0]
    over = cv2.warpAffine(smooth, warp, shape, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    cover = cv2.warpAffine(cv2.GaussianBlur(alpha, (0, 0), 0.45 / scale), warp, shape, flags=cv2.INTER_LINEAR)[
        ..., None
    ]
    return np.asarray(image * (1 - cover) + over * cover)


def _seen(image: NDArray[np.float64], keys: Keys, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The image as a camera has it: its blur, brightness and noise."""
    sigma = rng.uniform(0, keys.blur)
    if sigma > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    image = image * math.exp(rng.normal(0, keys.brightness)) + rng.normal(0, keys.noise, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def fineness_for(keys: Keys) -> float:
    """The radius of the smallest leaves, pixels, at which SIFT finds ``keys.keypoints`` in an image of clutter."""
    sift = cv2.SIFT_create(0, 3, 0.01, 10.0, 1.6)
    low, high = math.log(0.5), math.log(45.0)
    for _ in range(_CALIBRATION_STEPS):
        middle = (low + high) / 2
        counts = []
        for image in range(_CALIBRATION_IMAGES):
            rgb, _ = draw_collage(image, {}, math.exp(middle), keys)
            counts.append(len(sift.detect(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))))
        low, high = (middle, high) if np.mean(counts) > keys.keypoints else (low, middle)
    return math.exp((low + high) / 2)


def _write(path: Path, rgb: NDArray[np.uint8]) -> None:
    if not cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1]):
        raise OSError(f"{path}: the image could not be written")


def run_all(work: Path, keys: list[Keys], overrides: list[str]) -> None:
    """Draw, mine and score collections, and print a row each."""
    from collage_score import score_run

    header: list[str] = []
    for one in keys:
        name = f"k{one.keypoints}-h{one.hidden:g}-p{one.parts}-n{one.images}-s{one.seed}"
        folder = work / name
        if not (folder / KEYS).exists():
            draw_collages(folder, one)
        mine(["images=folder", f"images.dir={folder / 'images'}", *overrides], folder / "run", work / "store")
        results = RunResults.load(folder / "run", work / "store")
        summary = score_run(folder, results).summary()
        row = {"keypoints": one.keypoints, "hidden": one.hidden, "words": results.metrics["vocabulary_size"], **summary}
        if header != list(row):
            header = list(row)
            print_table(header, [])
        print_rows([list(row.values())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    draw, run = commands.add_parser("draw"), commands.add_parser("run")
    draw.add_argument("folder", type=Path)
    run.add_argument("work", type=Path)
    run.add_argument("--null", action="store_true", help="the same clutter without parts too")
    for field in dataclasses.fields(Keys):
        many = "+" if field.name in ("keypoints", "hidden") else None
        draw.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
        default = [field.default] if many else field.default
        run.add_argument(f"--{field.name}", type=type(field.default), default=default, nargs=many)
    score = commands.add_parser("score")
    for name in ("folder", "run", "store"):
        score.add_argument(name, type=Path)
    own = list(itertools.takewhile(lambda argument: argument != "--", sys.argv[1:]))
    given = vars(parser.parse_args(own))
    values = {field.name: given.get(field.name) for field in dataclasses.fields(Keys)}
    if given["command"] == "draw":
        draw_collages(given["folder"], Keys(**values))
    elif given["command"] == "run":
        keys = [
            Keys(**values | {"keypoints": count, "hidden": hidden} | ({"parts": 0} if null else {}))
            for count in values["keypoints"]
            for hidden, null in [(one, False) for one in values["hidden"]] + [(0.0, True)] * given["null"]
        ]
        run_all(given["work"].absolute(), keys, sys.argv[len(own) + 2 :])
    else:
        from collage_score import print_score

        print_score(given["folder"], given["run"], given["store"])


if __name__ == "__main__":
    main()
