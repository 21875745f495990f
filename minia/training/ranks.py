"""Which of the processes of one training this is, and who started them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from minia.core.artifact import InputError
from minia.training.settings import TrainerSettings


def started_by(environment: Mapping[str, str] = os.environ) -> str:
    """Who started the processes of this training: ``torchrun``, ``slurm``, or ``minia`` where nobody did."""
    if "TORCHELASTIC_RUN_ID" in environment:
        return "torchrun"
    tasks = environment.get("SLURM_NTASKS", "")
    interactive = environment.get("SLURM_JOB_NAME") in ("bash", "interactive")
    return "slurm" if tasks.isdigit() and int(tasks) > 1 and not interactive else "minia"


def number_of_process(trainer: TrainerSettings, environment: Mapping[str, str] = os.environ) -> int:
    """The number of this process among those of the training, 0 for the first.

    Raises:
        InputError: it is one of several that were started, while the settings ask for one or for another number, or
            the settings ask for several machines, which are not there.
    """
    by = started_by(environment)
    names = {"torchrun": ("RANK", "WORLD_SIZE"), "slurm": ("SLURM_PROCID", "SLURM_NTASKS"), "minia": ("", "")}[by]
    number, count = int(environment.get(names[0], "0")), int(environment.get(names[1], "1"))
    asked = trainer.num_processes
    if asked == 1:
        if number > 0:
            raise InputError(
                f"{names[0]}={number}: one of {count} tasks, but training uses one process; allowed: one task"
                f" ({names[1]}=1), or +trainer.devices={count} to train in all of them"
            )
        return 0
    if by == "minia":
        if trainer.num_nodes > 1:
            raise InputError(
                f"+trainer.num_nodes={trainer.num_nodes}: needs torchrun or Slurm's srun to start the processes"
            )
        return int(environment.get("LOCAL_RANK", "0"))
    if count != asked:
        raise InputError(
            f"{names[1]}={count}: but +trainer.devices={trainer.devices} and +trainer.num_nodes={trainer.num_nodes}"
            f" make {asked} processes; allowed: {names[1]}={asked}"
        )
    return number
