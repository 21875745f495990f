"""What the benchmarks read of a run: its matches, and where the keypoints lie, by way of the store's manifests."""

from __future__ import annotations

import filecmp
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class RunResults:
    """A run, read.

    Attributes:
        images: names of all images, in the order of the features.
        keypoints: (num_keypoints, 2) float32 of each image, x and y in pixels, by its name.
        matches: a row a structure and image; the columns of ``matches.parquet``.
        structures: ``structures.csv``, empty where the run has none.
        metrics: ``metrics.json``.
        root: the folder that the images' paths start from.
    """

    images: list[str]
    keypoints: dict[str, NDArray[np.float32]]
    matches: pd.DataFrame
    structures: pd.DataFrame
    metrics: dict[str, Any]
    root: Path

    @classmethod
    def load(cls, run: Path, store: Path) -> RunResults:
        """Read a run's folder and the features in its store.

        Raises:
            FileNotFoundError: the run or its features are not there.
        """
        features = _features_of(run, store)
        table = pd.read_parquet(features / "images.parquet")
        shards = {int(n): np.load(features / f"shard-{n:05d}" / "keypoints.npy") for n in table["shard"].unique()}
        columns = zip(table["image"], table["shard"], table["first_keypoint"], table["num_keypoints"], strict=True)
        keypoints = {image: shards[shard][first : first + number] for image, shard, first, number in columns}
        listed = run / "structures.csv"
        return cls(
            images=table["image"].tolist(),
            keypoints=keypoints,
            matches=pd.read_parquet(run / "matches.parquet"),
            structures=pd.read_csv(listed) if listed.exists() else pd.DataFrame(),
            metrics=json.loads((run / "metrics.json").read_text(encoding="utf-8")),
            root=features / json.loads((features / "source.json").read_text(encoding="utf-8"))["root"],
        )

    def matched(self) -> dict[int, pd.DataFrame]:
        """The matches of each structure."""
        return {int(number): group for number, group in self.matches.groupby("structure")}


def _features_of(run: Path, store: Path) -> Path:
    """The features artifact that a run's matches were made from."""
    manifests = {path.parent: json.loads(path.read_text(encoding="utf-8")) for path in store.glob("*/*/manifest.json")}
    for artifact, manifest in manifests.items():
        here = artifact / "matches.parquet"
        if here.exists() and filecmp.cmp(here, run / "matches.parquet", shallow=False):
            wanted = manifest["inputs"]["assignment"]
            break
    else:
        raise FileNotFoundError(f"{store} does not hold the matches of {run}")
    by_fingerprint = {manifest["fingerprint"]: artifact for artifact, manifest in manifests.items()}
    return by_fingerprint[manifests[by_fingerprint[wanted]]["inputs"]["features"]]


def placed(matches: pd.DataFrame, results: RunResults) -> pd.DataFrame:
    """Matches with x and y: those of the run where it says where, else the median of the matched keypoints."""
    if "x" in matches:
        return matches
    middle = [
        np.median(results.keypoints[image][np.asarray(numbers, dtype=np.int64)], axis=0)
        if len(numbers)
        else [np.nan] * 2
        for image, numbers in zip(matches["image"], matches["keypoints"], strict=True)
    ]
    x, y = np.asarray(middle, dtype=float).reshape(-1, 2).T
    return matches.assign(x=x, y=y)


def best_f1(truth: set[str], matched: dict[int, pd.DataFrame]) -> tuple[int | None, float]:
    """The structure whose images are most nearly the given ones, and its F1."""
    scores = {number: f1(truth, set(group["image"])) for number, group in matched.items()}
    if not scores:
        return None, 0.0
    best = max(scores, key=lambda number: scores[number])
    return best, scores[best]


def f1(truth: set[str], found: set[str]) -> float:
    """Harmonic mean of precision and recall; 0 where either set is empty."""
    return 2 * len(truth & found) / max(1, len(truth) + len(found)) if truth and found else 0.0


def mine(keys: Sequence[str], run: Path, store: Path) -> None:
    """Run ``mine.py`` with keys of its command line.

    Raises:
        subprocess.CalledProcessError: it failed; what it said is on the error stream.
    """
    program = Path(__file__).resolve().parent.parent / "mine.py"
    command = [sys.executable, str(program), *keys, f"hydra.run.dir={run}", f"store={store}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    print_rows(rows)


def print_rows(rows: Sequence[Sequence[object]]) -> None:
    """Print rows of a Markdown table; floats with three digits."""
    for row in rows:
        shown = ["-" if cell is None else f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row]
        print("| " + " | ".join(shown) + " |", flush=True)
