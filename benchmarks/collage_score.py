"""How well the structures of a run are the parts of collages.

For each part its best structure is the one of the highest F1 over images (images that hold the part against images
that match). Of this structure: the share of its matched keypoints, in all images that it matches, that lie on the part;
and, over the images that truly hold the part, the median error of place (in units of the part's size: of the
matches' x and y where ``matches.parquet`` has them, else of the median of the matched keypoints), of size and of angle
(where it has them). A structure's size and angle have a scale and a zero of their own: the median ratio and
the circular mean are taken out first. A structure is *false* where it is no part's: F1 below 0.5 with
every part, and no part holds half of its keypoints.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from run_results import RunResults, best_f1, f1, placed, print_table

FOUND = 0.5  # the F1 from which a part is called found


@dataclass(frozen=True)
class PartScore:
    """One part's best structure; None where there is none or the matches do not say."""

    part: int
    kind: str
    images: int
    structure: int | None
    f1: float
    on_part: float
    place_error: float | None
    size_error: float | None
    angle_error: float | None


@dataclass(frozen=True)
class Score:
    """A run's parts and how many structures are none."""

    parts: list[PartScore]
    num_structures: int
    num_false: int

    def summary(self) -> dict[str, object]:
        """Parts found, mean F1 and share on the part over all parts, medians of the errors, false structures."""
        if not self.parts:
            return {"found": "-", "structures": self.num_structures, "false": self.num_false}
        found = [part for part in self.parts if part.f1 >= FOUND]
        errors = {
            name: [value for part in found if (value := getattr(part, name)) is not None]
            for name in ("place_error", "size_error", "angle_error")
        }
        return {
            "found": f"{len(found)} of {len(self.parts)}",
            "F1": float(np.mean([part.f1 for part in self.parts])),
            "least F1": min(part.f1 for part in self.parts),
            "on part": float(np.mean([part.on_part for part in found])) if found else None,
            **{name.replace("_", " "): float(np.median(values)) if values else None for name, values in errors.items()},
            "structures": self.num_structures,
            "false": self.num_false,
        }


def score_run(folder: Path, results: RunResults) -> Score:
    """Compare a run with the truth of the collages in a folder."""
    truth = pd.read_csv(folder / "truth.csv")
    matched = results.matched()
    on_part = {number: _share_on_parts(group, truth, results) for number, group in matched.items()}
    parts = [_score_part(int(part), rows, results, on_part) for part, rows in truth.groupby("part")]
    holders = [set(rows["image"]) for _, rows in truth.groupby("part")]
    num_false = sum(
        max([f1(truth_images, set(group["image"])) for truth_images in holders], default=0.0) < FOUND
        and max(on_part[number].values(), default=0.0) < 0.5
        for number, group in matched.items()
    )
    return Score(parts, len(matched), num_false)


def _share_on_parts(group: pd.DataFrame, truth: pd.DataFrame, results: RunResults) -> dict[int, float]:
    """The share of a structure's matched keypoints on each part."""
    on: dict[int, int] = {}
    total = 0
    outlines = dict(iter(truth.groupby("image")))
    for image, numbers in zip(group["image"], group["keypoints"], strict=True):
        points = results.keypoints[image][np.asarray(numbers, dtype=np.int64)]
        total += len(points)
        if image in outlines:
            for part, polygon in zip(outlines[image]["part"], outlines[image]["polygon"], strict=True):
                on[int(part)] = on.get(int(part), 0) + int(np.count_nonzero(inside(points, polygon)))
    return {part: count / max(1, total) for part, count in on.items()}


def inside(points: NDArray[np.float32], polygon: str) -> NDArray[np.bool_]:
    """Which points, (n, 2), lie in a polygon given as ``x y x y ...``, its edge included."""
    corners = np.array(polygon.split(), dtype=np.float32).reshape(-1, 1, 2)
    return np.array([cv2.pointPolygonTest(corners, point, False) >= 0 for point in points.tolist()], dtype=bool)


def _score_part(part: int, rows: pd.DataFrame, results: RunResults, on_part: dict[int, dict[int, float]]) -> PartScore:
    matched = results.matched()
    best, value = best_f1(set(rows["image"]), matched)
    kind = str(rows["kind"].iat[0])
    if best is None:
        return PartScore(part, kind, len(rows), None, 0.0, 0.0, None, None, None)
    errors = _errors(rows.merge(placed(matched[best], results), on="image", suffixes=("", "_found")))
    return PartScore(part, kind, len(rows), best, value, on_part[best].get(part, 0.0), *errors)


def _errors(both: pd.DataFrame) -> tuple[float | None, float | None, float | None]:
    """Median errors of place, size and angle over images that hold the part and match (see the module)."""
    place = size = angle = None
    if len(both):
        off = np.hypot(both["x_found"] - both["x"], both["y_found"] - both["y"]) / both["size"]
        place = float(np.nanmedian(off))
    if len(both) and "size_found" in both:
        ratio = np.log2(both["size_found"] / both["size"])
        size = float(np.nanmedian(np.abs(ratio - np.nanmedian(ratio))))
    if len(both) and "angle_found" in both:
        turn = np.exp(1j * np.radians((both["angle_found"] - both["angle"]).dropna().to_numpy(dtype=float)))
        angle = float(np.median(np.abs(np.degrees(np.angle(turn * np.conj(turn.mean()))))))
    return place, size, angle


def print_score(folder: Path, run: Path, store: Path) -> None:
    """Print a row a part, and the summary."""
    score = score_run(folder, RunResults.load(run, store))
    names = [field.name for field in dataclasses.fields(PartScore)]
    print_table([name.replace("_", " ") for name in names], [dataclasses.astuple(part) for part in score.parts])
    print()
    summary = score.summary()
    print_table(list(summary), [list(summary.values())])
