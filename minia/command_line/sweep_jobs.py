"""The jobs of a sweep: which are done, which failed and why, whatever launched them and on whatever machine.

``jobs.csv`` in the sweep's folder has a row a job: its number, its overrides, its state, the exit code it would have
had alone, and the error that ended it. Each job writes its own row, so that the program that started the sweep can
name those that failed, also where a launcher ran them elsewhere or one was killed.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import logging
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from minia.command_line.messages import EXIT_FAILURE, print_error
from minia.core.artifact import InputError
from minia.core.run_folder import JOBS, sweep_folder
from minia.core.workers import num_cores
from minia.core.writing import write_text_whole

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepJob:
    """A row of ``jobs.csv``.

    Attributes:
        job: its number, which is also the name of its folder unless ``hydra.sweep.subdir`` says otherwise.
        overrides: the settings of the command line that make it, a space between two.
        state: ``waiting``, ``running``, ``finished`` or ``failed``; one that was killed stays ``running``.
        exit_code: that of a program that does this job alone: 0 but where it failed.
        error: what was wrong, in one line; empty but where it failed.
    """

    job: str
    overrides: str
    state: Literal["waiting", "running", "finished", "failed"]
    exit_code: int = 0
    error: str = ""


def begin_sweep(folder: Path, jobs: Iterable[Sequence[str]]) -> None:
    """Forget the jobs of an earlier sweep in the folder and list those of this one.

    Args:
        folder: of the sweep; it is made.
        jobs: the overrides of each, as far as they are known before the first one ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with sweep_folder(folder) as marked:
        marked.write_mark()
        _write(folder, [SweepJob(str(number), _told(job), "waiting") for number, job in enumerate(jobs)])


def job_of_sweep(work: Callable[[DictConfig], Mapping[str, Any]], config: DictConfig) -> float | None:
    """Do the job that Hydra has composed, and note what became of it.

    Args:
        work: does a job, given its configuration, and returns its metrics.
        config: of this job.

    Returns:
        The metric that the sweep is to make large, which is infinitely bad where the job found no structures and
        therefore lacks it; None where it names none.
    """
    this = HydraConfig.get()
    folder = Path(this.sweep.dir).absolute()
    job = SweepJob(str(this.job.num), _told(this.overrides.task), "running")
    _note(folder, job)
    try:
        metric = _metric_of(work(config), config.get("metric"))
    except Exception as error:
        code = print_error(error)
        why = " ".join(str(error).split()) or type(error).__name__
        _note(folder, dataclasses.replace(job, state="failed", exit_code=code, error=why))
        raise  # Hydra goes on with the others
    _note(folder, dataclasses.replace(job, state="finished"))
    return metric


def share_of_cores() -> int | None:
    """The cores for each of the jobs that joblib runs at once; None where a job has all of them to itself."""
    launcher = HydraConfig.get().launcher
    at_once = launcher.get("n_jobs") if "JoblibLauncher" in str(launcher.get("_target_")) else None
    if HydraConfig.get().mode != RunMode.MULTIRUN or at_once is None:
        return None
    return 1 if at_once < 0 else max(1, num_cores() // at_once)


def read_jobs(folder: Path) -> list[SweepJob]:
    """The jobs of a sweep in the order of their numbers; none where its folder lists none."""
    try:
        rows = list(csv.DictReader(io.StringIO((folder / JOBS).read_text(encoding="utf-8"))))
        jobs = [SweepJob(**{**row, "exit_code": int(row["exit_code"])}) for row in rows]  # type: ignore[arg-type]
    except (OSError, KeyError, TypeError, ValueError):
        return []
    return sorted(jobs, key=lambda each: (not each.job.isdigit(), int(each.job) if each.job.isdigit() else 0, each.job))


def tell_failed_jobs(folder: Path) -> int:
    """Name on stderr the jobs that have not come to their end, a line each.

    Returns:
        The exit code of the sweep: 0 where every job that began has finished, else that of the jobs that failed, 1
        where they differ or one was killed.
    """
    jobs = read_jobs(folder)
    ended = [each for each in jobs if each.state in ("failed", "running")]
    if not ended:
        return 0
    for each in ended:
        why = each.error or "it has not ended: killed, perhaps for want of memory"
        print(f"error: job {each.job} ({each.overrides}): {why}", file=sys.stderr)
    idle = sum(each.state == "waiting" for each in jobs)
    begun = f", {idle} did not begin" if idle else ""
    print(
        f"error: {len(ended)} of {len(jobs)} jobs failed{begun}; results of the others are in {folder}; the same"
        " command does what is missing",
        file=sys.stderr,
    )
    codes = {each.exit_code or EXIT_FAILURE for each in ended}
    return codes.pop() if len(codes) == 1 else EXIT_FAILURE


def _metric_of(metrics: Mapping[str, Any], name: str | None) -> float | None:
    if name is None:
        return None
    numbers = {key: value for key, value in metrics.items() if isinstance(value, int | float)}
    if name not in numbers and metrics.get("num_structures") == 0:
        logger.warning("metric=%s: this job found no structures and has none; it counts as the worst", name)
        return math.inf if "minimize" in str(HydraConfig.get().sweeper.get("direction")).lower() else -math.inf
    if name not in numbers:
        raise InputError(f"metric={name}: this job has none; allowed: {', '.join(sorted(numbers))}")
    return float(numbers[name])


def _told(overrides: Iterable[str]) -> str:
    return " ".join(each for each in overrides if not each.startswith("hydra"))


def _note(folder: Path, job: SweepJob) -> None:
    """Replace the row of a job, or add it."""
    with sweep_folder(folder) as marked:
        marked.write_mark()
        _write(folder, ({each.job: each for each in read_jobs(folder)} | {job.job: job}).values())


def _write(folder: Path, jobs: Iterable[SweepJob]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(SweepJob)])
    writer.writerows([astuple(each) for each in jobs])
    write_text_whole(folder / JOBS, text.getvalue())
