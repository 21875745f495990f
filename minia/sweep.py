"""The summary of a sweep: one table and one plot across its jobs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from minia.stage import write_text_atomically

_PLOTTED = {  # column: title of its panel
    "num_structures": "structures",
    "mean_purity_at_30": "purity of the 30 best images",
    "seconds_total": "seconds",
}


def summarise_sweep(folder: Path) -> None:
    """Write ``summary.csv`` and ``summary.png`` into a sweep's folder, from its finished jobs so far.

    Every job calls it when it ends, so that the summary is whole whatever launched the jobs and
    whichever ended last.

    Args:
        folder: holds one folder a job, named by its number, with ``metrics.json`` and ``config.yaml``.
    """
    with FileLock(folder / ".summary.lock"):
        jobs = sorted((path.parent for path in folder.glob("*/metrics.json")), key=_job_order)
        table = pd.DataFrame([_row(job) for job in jobs])
        write_text_atomically(folder / "summary.csv", table.to_csv(index=False))
        _plot(folder / "summary.png", table)


def _job_order(job: Path) -> tuple[int, str]:
    return (int(job.name) if job.name.isdigit() else 1 << 62, job.name)


def _row(job: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((job / "metrics.json").read_text(encoding="utf-8"))
    return {"job": job.name} | metrics


def _plot(path: Path, table: pd.DataFrame) -> None:
    """Structures, purity and seconds against the vocabulary size."""
    from matplotlib.figure import Figure

    if "vocabulary_size" not in table:
        return
    columns = [column for column in _PLOTTED if column in table]
    table = table.sort_values("vocabulary_size")
    figure = Figure(figsize=(4 * len(columns), 3.4), layout="constrained")
    for plot, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        plot.plot(table["vocabulary_size"], table[column], "o-", color="#2e86ab")
        if column == "mean_purity_at_30":
            plot.plot(table["vocabulary_size"], table["chance_purity_at_30"], "o--", color="#9aa5b1", label="chance")
            plot.legend()
        plot.set_title(_PLOTTED[column])
        plot.set_xlabel("vocabulary size")
    temporary = path.with_name(f".{path.name}.part")
    figure.savefig(temporary, dpi=120, format="png")
    temporary.replace(path)
