"""The summary of a sweep, or of any jobs: one table and one plot across them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from minia.core.run_folder import SUMMARY, sweep_folder
from minia.core.writing import appearing_whole, write_text_whole

_PLOTTED = {  # column: title of its panel
    "num_structures": "structures",
    "mean_purity_at_30": "purity of the 30 best images",
    "seconds_all_stages": "seconds of all stages",
}


def summarise_sweep(folder: Path) -> None:
    """Write ``summary.csv`` and ``summary.png`` into a sweep's folder, from its finished jobs so far.

    Every job calls it when it ends, so that the summary is whole whatever launched the jobs and
    whichever ended last.

    Args:
        folder: holds one folder a job, named by its number, with ``metrics.json`` and ``config.yaml``.
    """
    with sweep_folder(folder) as marked, marked.replacing(*SUMMARY):
        jobs = sorted((path.parent for path in folder.glob("*/metrics.json")), key=_job_order)
        write_summary(folder, {job.name: job for job in jobs})


def write_summary(folder: Path, jobs: Mapping[str, Path]) -> None:
    """Write ``summary.csv`` and ``summary.png`` across finished jobs.

    Args:
        folder: where they are written.
        jobs: the jobs' folders, with ``metrics.json`` and ``config.yaml``, by the names that the table gives them.
    """
    table, swept = _table(jobs)
    write_text_whole(folder / SUMMARY[0], table.to_csv(index=False))
    _plot(folder / SUMMARY[1], table, swept)


def _job_order(job: Path) -> tuple[int, str]:
    return (int(job.name) if job.name.isdigit() else 1 << 62, job.name)


def _table(jobs: Mapping[str, Path]) -> tuple[pd.DataFrame, list[str]]:
    """A row a job: its name, the settings in which the jobs differ, its metrics; and these settings' keys."""
    given = [_flat(yaml.safe_load((job / "config.yaml").read_text(encoding="utf-8"))) for job in jobs.values()]
    settings = pd.DataFrame(given, dtype=object)  # whole numbers stay whole beside null
    swept = [str(key) for key in settings if settings[key].map(str).nunique() > 1]
    names = pd.DataFrame({"job": list(jobs)})
    told = [json.loads((job / "metrics.json").read_text(encoding="utf-8")) for job in jobs.values()]
    metrics = pd.DataFrame(told)
    # What making a job's artifacts took, reused or not: the first job's own time holds what all share.
    stages = [name for name in metrics if str(name).startswith("seconds_") and name != "seconds_total"]
    metrics["seconds_all_stages"] = metrics[stages].sum(axis=1)
    return pd.concat([names, settings[swept], metrics], axis=1), swept


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _in_order(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """By a column's numbers; where not all are numbers (auto, null, lists), as text in the order of the jobs."""
    values = table[column].tolist()
    if all(type(value) in (int, float) for value in values):
        return table.assign(**{column: pd.to_numeric(table[column])}).sort_values(column)
    texts = ["null" if value is None else str(value) for value in values]
    place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return table.assign(**{column: texts}).sort_values(column, key=lambda each: each.map(place), kind="stable")


def _plot(path: Path, table: pd.DataFrame, swept: list[str]) -> None:
    """Structures, purity and seconds against the vocabulary size, or the first setting that was swept."""
    from matplotlib.figure import Figure

    columns = [column for column in _PLOTTED if column in table]
    across = "vocabulary.size" if "vocabulary.size" in swept or not swept else swept[0]
    table = _in_order(table.assign(**{across: table.get(across, table.get("vocabulary_size"))}), across)
    figure = Figure(figsize=(4 * len(columns), 3.4), layout="constrained")
    for plot, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        plot.plot(table[across], table[column], "o-", color="#2e86ab")
        if column == "mean_purity_at_30":
            plot.plot(table[across], table["chance_purity_at_30"], "o--", color="#9aa5b1", label="chance")
            plot.legend()
        plot.set_title(_PLOTTED[column])
        plot.set_xlabel(across)
    with appearing_whole(path) as temporary:
        figure.savefig(temporary, dpi=120)
