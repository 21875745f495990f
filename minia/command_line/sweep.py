"""The summary of a sweep, or of any jobs: one table and one plot across them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from minia.core.run_folder import SUMMARY, sweep_folder
from minia.core.writing import appearing_whole, write_text_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PLOTTED: dict[str, tuple[str, str, str]] = {  # column: title of its panel, and what stands beside it, if anything
    "num_structures": ("structures", "", ""),
    "mean_purity_at_30": ("purity of the 30 best images", "chance_purity_at_30", "chance"),
    "structure_accuracy": ("label accuracy from structures", "word_accuracy", "from words"),
    "attention_accuracy": ("accuracy of the attention branch", "descriptor_accuracy", "descriptor branch"),
    "seconds_all_stages": ("seconds of all stages", "", ""),
}
_LINES = ("#2e86ab", "#d1495b", "#edae49", "#66a182", "#7a5195", "#00798c")
_BESIDE = "#9aa5b1"


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
    texts = [_text(value) for value in values]
    place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return table.assign(**{column: texts}).sort_values(column, key=lambda each: each.map(place), kind="stable")


def summary_figure(table: pd.DataFrame, swept: list[str]) -> Figure:
    """Draw metrics against the vocabulary size, or the first setting that was swept.

    Jobs that differ in further settings are on a line of their own for each combination of these, as long as there are
    colours; beyond that they are points without lines.

    Args:
        table: a row a job, with settings and metrics.
        swept: the settings in which the jobs differ, as columns of the table.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = [column for column in _PLOTTED if column in table]
    across = "vocabulary.size" if "vocabulary.size" in swept or not swept else swept[0]
    table = _in_order(table.assign(**{across: table.get(across, table.get("vocabulary_size"))}), across)
    lines = _lines(table, [key for key in swept if key != across])
    texts = [] if pd.api.types.is_numeric_dtype(table[across]) else list(dict.fromkeys(table[across]))
    figure = Figure(figsize=(4 * len(columns), 3.4), layout="constrained")
    for plot, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        title, beside, name = _PLOTTED[column]
        for (told, line), colour in zip(lines, _LINES, strict=False):
            at = [texts.index(value) for value in line[across]] if texts else line[across]
            joined = line[across].is_unique
            if beside in table:
                plot.plot(at, line[beside], "o--" if joined else "o", color=_BESIDE, markersize=9, label=name)
                name = ""  # one in the legend stands for all
            plot.plot(at, line[column], "o-" if joined else "o", color=colour, label=told)
        if texts:
            plot.set_xticks(range(len(texts)), texts, parse_math=False)  # they may look like formulas
        highest = table[[each for each in (column, beside) if each in table]].max().max()
        plot.set_ylim(0, 1.05 if beside else 1.05 * highest if highest > 0 else 1)
        if column == "num_structures":
            plot.yaxis.set_major_locator(MaxNLocator(integer=True))
        if len(lines) > 1 or beside in table:
            plot.legend(fontsize="small")
        plot.set_title(title)
        plot.set_xlabel(across)
    return figure


def _lines(table: pd.DataFrame, others: list[str]) -> list[tuple[str, pd.DataFrame]]:
    """The jobs of each combination of these settings, with the words for it; all together where there are too many."""
    told = [
        ", ".join(f"{key}={_text(value)}" for key, value in zip(others, row, strict=True))
        for row in table[others].itertuples(index=False)
    ]
    lines = [(each, table[[one == each for one in told]]) for each in dict.fromkeys(told)]
    return lines if len(lines) <= len(_LINES) else [("", table)]


def _text(value: Any) -> str:
    return "null" if value is None else str(value)


def _plot(path: Path, table: pd.DataFrame, swept: list[str]) -> None:
    """Write the figure as PNG, whole or not at all."""
    figure = summary_figure(table, swept)
    with appearing_whole(path) as temporary:
        figure.savefig(temporary, dpi=120)
