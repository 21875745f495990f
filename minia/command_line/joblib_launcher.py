"""Jobs of a sweep at once on this machine, of which one that is killed does not end the others for good.

Hydra's launcher for joblib gives its jobs to a pool of processes. Where one of these is killed, as for want of memory,
joblib ends them all, and the jobs that they were at. Here these are then done one by one, so that a job that is killed
again is known and stands alone, and the jobs that had not begun are done as before.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from hydra_plugins.hydra_joblib_launcher import joblib_launcher

from minia.command_line.sweep_jobs import read_jobs

if TYPE_CHECKING:
    from omegaconf import DictConfig

logger = logging.getLogger(__name__)


class JoblibLauncher(joblib_launcher.JoblibLauncher):  # type: ignore[misc]
    """Launches jobs by joblib; takes the settings of ``joblib.Parallel``."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Do jobs at once.

        Args:
            job_overrides: of each job.
            initial_job_idx: the number of the first one.

        Returns:
            What became of each.
        """
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        jobs = {initial_job_idx + place: list(overrides) for place, overrides in enumerate(job_overrides)}
        logger.info("%d jobs, some at once: %s", len(jobs), self.config.hydra.sweep.dir)
        for number, overrides in jobs.items():
            logger.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))
        done: dict[int, JobReturn] = {}
        while left := [number for number in jobs if number not in done]:
            try:
                done.update(self._at_once({number: jobs[number] for number in left}))
            except TerminatedWorkerError:
                begun = self._begun(left) or left
                logger.warning("a job was killed, perhaps for want of memory: %d are done again one by one", len(begun))
                for number in begun:
                    try:
                        done.update(self._at_once({number: jobs[number]}))
                    except TerminatedWorkerError:
                        done[number] = _killed(jobs[number])
        return [done[number] for number in jobs]

    def _at_once(self, jobs: dict[int, list[str]]) -> Iterator[tuple[int, JobReturn]]:
        """Do jobs, and tell each when it is done, in no order."""
        from hydra_plugins.hydra_joblib_launcher import _core
        from joblib import Parallel, delayed

        _core.process_joblib_cfg(self.joblib)
        settings = {**self.joblib, "backend": "loky", "return_as": "generator_unordered"}
        given = self.hydra_context, self.config, self.task_function, Singleton.get_state()
        yield from Parallel(**settings)(delayed(_do)(number, job, *given) for number, job in jobs.items())

    def _begun(self, jobs: Sequence[int]) -> list[int]:
        """Those of some jobs that have begun and not ended."""
        running = {job.job for job in read_jobs(Path(self.config.hydra.sweep.dir)) if job.state == "running"}
        return [number for number in jobs if str(number) in running]


def _do(
    number: int, overrides: Sequence[str], context: Any, config: DictConfig, work: Any, state: dict[Any, Any]
) -> tuple[int, JobReturn]:
    from hydra_plugins.hydra_joblib_launcher import _core

    return number, _core.execute_job(number, overrides, context, config, work, state)


def _killed(overrides: Sequence[str]) -> JobReturn:
    error = RuntimeError("its process was killed, perhaps for want of memory")
    return JobReturn(overrides=overrides, status=JobStatus.FAILED, _return_value=error)
