"""Work spread over processes or threads, its results in the order of the tasks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from multiprocessing import resource_tracker
from queue import SimpleQueue
from types import ModuleType
from typing import TypeVar

from threadpoolctl import threadpool_limits

Task = TypeVar("Task")
Result = TypeVar("Result")

_TASKS_IN_FLIGHT_PER_WORKER = 4  # enough to keep a worker busy while the results ahead of its own are awaited


def map_in_order(
    function: Callable[[Task], Result], tasks: Iterable[Task], num_workers: int, *, in_threads: bool = False
) -> Iterator[Result]:
    """Apply a function to each task; only a few results are ever held in memory.

    Args:
        function: its result must not depend on earlier tasks; can be pickled, unless for threads.
        tasks: are read as they are needed.
        num_workers: processes, at least 1; with 1 the work is done in this process.
        in_threads: use threads of this process instead.

    Yields:
        The result of each task in turn, whatever finished first.
    """
    if num_workers == 1:
        yield from map(function, tasks)
        return
    pool, pending, last = _pool(num_workers, in_threads), deque[Future[Result]](), list[Result]()
    try:
        for task in tasks:
            with _interruptions_held(), nullcontext() if in_threads else _script_left_alone():
                pending.append(pool.submit(function, task))
            if len(pending) >= num_workers * _TASKS_IN_FLIGHT_PER_WORKER:
                yield pending.popleft().result()
        while len(pending) > 1:
            yield pending.popleft().result()
        last = [each.result() for each in pending]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    # Only now: who takes a result for each task and never comes back leaves no workers to be ended when this generator
    # is thrown away, where Python would swallow an interruption.
    yield from last


class Beside:
    """A thread that does tasks one after another beside all else, until its ``with`` block ends.

    Where a pool is busy with short tasks that take turns at Python, what computes outside Python for long finds a core
    that is idle half of the time. One thread, so that two tasks do not change the threads of libraries under each
    other. An interruption does not wait for it, as it would for a pool's.

    Args:
        num_workers: with 1 each task is done at once, in the thread that hands it over.
    """

    def __init__(self, num_workers: int) -> None:
        self._tasks: SimpleQueue[Callable[[], None] | None] | None = SimpleQueue() if num_workers > 1 else None

    def __enter__(self) -> Beside:
        if self._tasks is not None:
            threading.Thread(target=_work_off, args=(self._tasks,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._tasks is not None:
            self._tasks.put(None)

    def start(self, function: Callable[[], Result]) -> Callable[[], Result]:
        """Hand a task over.

        Args:
            function: the task; its result must not depend on what is done meanwhile.

        Returns:
            A function that waits for the result and gives it, or raises what the task raised.
        """
        future: Future[Result] = Future()

        def task() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # raised where the result is asked for
                future.set_exception(error)

        if self._tasks is None:
            task()
        else:
            self._tasks.put(task)
        return future.result


def _work_off(tasks: SimpleQueue[Callable[[], None] | None]) -> None:
    while (task := tasks.get()) is not None:
        task()


def num_cores() -> int:
    """Cores that this process may use: a batch job may own fewer than the machine has; not every system can tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pool(num_workers: int, in_threads: bool) -> Executor:
    if in_threads:
        return ThreadPoolExecutor(num_workers)
    name_a_start_method()
    resource_tracker.ensure_running()  # starting it lets interruptions through
    context = multiprocessing.get_context("spawn")  # forking a process that runs threads can deadlock
    return ProcessPoolExecutor(num_workers, context, initializer=_start_worker)


def name_a_start_method() -> None:
    """Let processes start from within a process of joblib's.

    Those have a start method of joblib's as their default, "loky", which is told to the processes that they start;
    these have not imported joblib and end with "cannot find context for 'loky'".
    """
    if multiprocessing.get_start_method(allow_none=True) not in (None, *multiprocessing.get_all_start_methods()):
        multiprocessing.set_start_method("spawn", force=True)


@contextmanager
def _interruptions_held() -> Iterator[None]:
    """Let a process that is started here not be interrupted before it can say that it ignores Ctrl-C.

    A terminal interrupts all processes at once: the parent tells it, in one line, and ends its workers. Held back here,
    an interruption of the parent comes through at the end.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _script_left_alone() -> Iterator[None]:
    """Let a process that is started here not run the user's script again.

    It would import it for what is defined there, which no task needs; a script that calls minIA without asking whether
    its ``__name__`` is ``__main__``, as in a notebook, would then start itself again in each process.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    import cv2  # jobs without images need not have it

    os.environ["OMP_NUM_THREADS"] = "1"  # the processes share the cores already; torch, if it comes, reads this
    cv2.setNumThreads(1)
    threadpool_limits(limits=1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Do not outlive a parent that was killed and could not say goodbye."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
