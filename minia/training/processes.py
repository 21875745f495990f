"""One training in several processes, each with a part of every batch: they are started, and take part.

The first process is the run: it makes the table, writes checkpoints and all results. The others only compute. They are
started here, or by torchrun or Slurm, which is known by the environment.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minia.core.artifact import InputError
from minia.core.context import Context
from minia.core.device import choose_device
from minia.core.setting_types import check
from minia.core.workers import num_cores
from minia.training.checks import check_machine, find_checkpoint
from minia.training.ranks import started_by
from minia.training.settings import TrainSettings

_SECONDS_TO_END = 30  # that the other processes have, after the first one's training


@contextlib.contextmanager
def others_started(settings: TrainSettings, store: Path, output: Path) -> Iterator[None]:
    """Start the other processes of a training, where it has several and nobody else starts them.

    They end with the training; where the first one fails they are ended.

    Args:
        settings: of the training.
        store: the folder of artifacts, which holds the table.
        output: the run's folder.
    """
    if settings.trainer.num_processes == 1 or started_by() != "minia":
        yield
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": "0"}
    task = json.dumps({"settings": settings.model_dump(mode="json"), "store": str(store), "output": str(output)})
    before = {name: os.environ.get(name) for name in meeting}
    others: list[subprocess.Popen[bytes]] = []
    try:
        os.environ.update(meeting)
        for number in range(1, settings.trainer.num_processes):
            environment = {**os.environ, "LOCAL_RANK": str(number)}
            command = [sys.executable, "-m", "minia.training.processes"]
            other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment)
            others.append(other)
            assert other.stdin is not None
            other.stdin.write(task.encode())
            other.stdin.close()
        yield
        for other in others:
            other.wait(_SECONDS_TO_END)
    finally:
        for other in others:
            other.kill()
            other.wait()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def take_part(settings: TrainSettings, store: Path, output: Path) -> int:
    """What a process does that is not the first: train, and leave nothing.

    Args:
        settings: of the training.
        store: the folder of artifacts.
        output: the run's folder, where nothing is written.

    Returns:
        The exit code. Why it is not 0 the first process tells, to which the same happens.
    """
    logging.getLogger().setLevel(logging.ERROR)
    from minia.data.labelled.sources import labelled_table
    from minia.data.labelled.table import GalaxyTable
    from minia.data.labelled.votes import Questions
    from minia.training.build import build_data, build_module, build_trainer, load_pretrained, use_threads

    try:
        context = Context(settings.seed, choose_device(settings.device), settings.num_workers or num_cores())
        check_machine(settings, context.device)
        checkpoint = find_checkpoint(settings.resume)
        artifact = labelled_table(store, settings.data, context)
        table = GalaxyTable.load(artifact)
        use_threads(settings, context.device)
        questions = Questions.of(table.table).answers
        pretrained = None if checkpoint else load_pretrained(settings)
        module = build_module(settings, table.classes, "", pretrained, questions)
        data = build_data(settings, table, output)
        trainer = build_trainer(settings, context.device, output, checkpoint)
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        leave()
    except InputError:
        return 2
    except (KeyboardInterrupt, SystemExit):
        return 130
    return 0


def leave() -> None:
    """Leave the group of processes, if there is one."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _main() -> int:
    task: dict[str, Any] = json.loads(sys.stdin.read())
    return take_part(check(TrainSettings, task["settings"]), Path(task["store"]), Path(task["output"]))


if __name__ == "__main__":
    sys.exit(_main())
