"""A run of mining as jobs of a cluster, by submitit: an array that extracts, one job that mines, one that reports.

    python docs/cluster_jobs.py --run outputs/survey --jobs 50 store=/data/store images=folder images.dir=/data/images
    python docs/cluster_jobs.py --cluster local --run outputs/try --jobs 2 ...    the same as processes of this machine

Needs pip install "minia[sweeps]". What the jobs print lies in RUN/jobs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import submitit


def main() -> int:
    """Submit the jobs and wait for them; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cluster", choices=("slurm", "local"), default="slurm")
    parser.add_argument("--run", type=Path, required=True, help="the folder of the run")
    parser.add_argument("--jobs", type=int, default=10, help="that extract; 10 unless given")
    parser.add_argument("--cpus", type=int, default=8, help="cores of a job; 8 unless given")
    parser.add_argument("--memory", type=int, default=16, help="GB of a job; 16 unless given")
    parser.add_argument("--minutes", type=int, default=1440, help="that a job may take; a day unless given")
    parser.add_argument("overrides", nargs="*", help="settings of minia mine")
    given = parser.parse_intermixed_args()
    executor = submitit.AutoExecutor(folder=given.run / "jobs", cluster=given.cluster)
    before: list[submitit.Job[str]] = []
    for stages, count in (("features", given.jobs), ("matching", 1), ("report", 1)):
        executor.update_parameters(
            name=f"minia-{stages}", cpus_per_task=given.cpus, mem_gb=given.memory, timeout_min=given.minutes
        )
        if before and given.cluster == "slurm":  # Slurm waits for them, and this program need not
            number = before[0].job_id.partition("_")[0]
            executor.update_parameters(slurm_additional_parameters={"dependency": f"afterok:{number}"})
        for job in before if given.cluster == "local" else []:
            job.result()
        places = [given.run if stages == "report" else given.run / f"{stages}-{number}" for number in range(count)]
        with executor.batch():
            before = [executor.submit(command(stages, place, given.overrides)) for place in places]
        print(f"{stages}: {count} jobs, the first is {before[0].job_id}")
    print(before[0].result().splitlines()[-1])
    return 0


def command(stages: str, place: Path, overrides: Sequence[str]) -> submitit.helpers.CommandFunction:
    """One job: the stages up to these, its own folder being another than those of jobs beside it."""
    words = ["-m", "minia", "mine", f"stages=[{stages}]", f"hydra.run.dir={place}", *overrides]
    return submitit.helpers.CommandFunction([sys.executable, *words], verbose=False)


if __name__ == "__main__":
    sys.exit(main())
