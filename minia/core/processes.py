"""The processes of one run that torchrun has started: they make its vocabulary and its co-occurring sets together.

The first of them is the run; the others go through the same stages and leave nothing but what they send to it. They
talk by torch.distributed over gloo. What they make does not depend on how many they are.
"""

from __future__ import annotations

import atexit
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from minia.core.artifact import Stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Task = TypeVar("Task")
_PATIENCE = timedelta(days=30)  # that one waits for another, which may be at a stage that it makes alone


@dataclass(frozen=True)
class Processes:
    """The processes of a run.

    Attributes:
        number: of this one, from 0.
        count: how many they are.
    """

    number: int = 0
    count: int = 1

    def own(self, tasks: Sequence[Task]) -> Sequence[Task]:
        """The tasks that this process does."""
        return tasks[self.number :: self.count]

    def add(self, tensor: Tensor) -> None:
        """Make a tensor, in place, the sum of those of all processes; exact for whole numbers."""
        self._reduce(tensor, "SUM")

    def largest(self, tensor: Tensor) -> None:
        """Make each number of a tensor, in place, the largest of those of all processes."""
        self._reduce(tensor, "MAX")

    def of_first(self, tensor: Tensor) -> Tensor:
        """The first process's tensor; all have one of its shape and type."""
        if self.count == 1:
            return tensor
        import torch.distributed

        here = tensor.cpu().contiguous()
        torch.distributed.broadcast(here, 0)
        return here.to(tensor.device)

    def gather(self, results: Sequence[NDArray[np.int32]], num_tasks: int) -> list[NDArray[np.int32]]:
        """The results of all tasks in their order, in the first process; in others nothing.

        Args:
            results: (n,) int32 each, of :meth:`own` tasks.
            num_tasks: of all processes.
        """
        import numpy as np  # the command line, which asks for a process's number, does without

        if self.count == 1:
            return list(results)
        import torch
        from torch.distributed import recv, send

        lengths = torch.tensor([len(each) for each in results], dtype=torch.int64)
        if self.number:
            send(lengths, 0)
            send(torch.from_numpy(np.concatenate([np.zeros(1, np.int32), *results])), 0)
            return []
        found = [np.zeros(0, np.int32)] * num_tasks
        found[:: self.count] = results
        for other in range(1, self.count):
            lengths = torch.zeros(len(range(other, num_tasks, self.count)), dtype=torch.int64)
            recv(lengths, other)
            flat = torch.empty(1 + int(lengths.sum()), dtype=torch.int32)  # one more: none is sent empty
            recv(flat, other)
            found[other :: self.count] = np.split(flat.numpy()[1:], np.cumsum(lengths.numpy())[:-1])
        return found

    def make(self, stage: Stage, make: Callable[[Path | None], Mapping[str, Any]]) -> Path:
        """Make an artifact together, unless it is there.

        Args:
            stage: of the artifact.
            make: called in all processes at once, with the artifact's folder in the first, which writes its files and
                returns its counts, and with None in the others.

        Returns:
            The artifact.
        """
        if self.count == 1:
            return stage.run(make)
        import torch

        begun = torch.zeros(1, dtype=torch.int64)
        if self.number:
            if self.of_first(begun)[0]:
                make(None)
            self.add(begun)  # the first has finished
            return stage.path

        def first(work: Path) -> Mapping[str, Any]:
            begun[0] = 1
            self.of_first(begun)
            return make(work)

        path = stage.run(first)
        if not begun[0]:
            self.of_first(begun)
        self.add(begun)
        return path

    def _reduce(self, tensor: Tensor, operation: str) -> None:
        if self.count > 1:
            import torch.distributed

            here = tensor.cpu().contiguous()
            torch.distributed.all_reduce(here, getattr(torch.distributed.ReduceOp, operation))
            tensor.copy_(here)


@functools.cache
def processes() -> Processes:
    """The processes of this run: those of torchrun, or this one alone."""
    count = process_count()
    if count == 1:
        return Processes()
    import torch.distributed

    torch.distributed.init_process_group("gloo", timeout=_PATIENCE)
    # Its threads end before the interpreter does: one that lets go of a tensor after that aborts the process.
    atexit.register(torch.distributed.destroy_process_group)
    return Processes(torch.distributed.get_rank(), count)


def process_number() -> int:
    """The number of this process among those that torchrun has started, 0 without it."""
    return int(os.environ["RANK"]) if process_count() > 1 else 0


def process_count() -> int:
    """How many processes torchrun has started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1
