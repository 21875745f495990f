"""Threads of our own around torch's operations.

Torch's own threads wait for each other after every operation, which costs much where other programs use the cores too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from minia.core.workers import map_in_order

Task = TypeVar("Task")
Result = TypeVar("Result")


def map_in_threads(function: Callable[[Task], Result], tasks: list[Task]) -> list[Result]:
    """The function's results for the tasks, in their order, worked out in as many threads as torch may use."""
    return list(map_in_order(function, tasks, max(1, min(torch.get_num_threads(), len(tasks))), in_threads=True))


@contextmanager
def single_threaded_torch(device: str = "cpu") -> Iterator[int]:
    """Let every operation of torch run in the one thread that calls it.

    Yields:
        The number of threads to call from: as many as torch itself could use before, or 1 where the device is
        ``cuda``.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield 1 if device == "cuda" else threads
    finally:
        torch.set_num_threads(threads)
