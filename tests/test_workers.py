"""Work spread over processes and threads: its order, its memory, and how it ends."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from minia.core.workers import Beside, map_in_order

ROOT = Path(__file__).resolve().parents[1]


def square(number: int) -> int:
    time.sleep(0.001 * (number % 3))
    return number * number


def vanish(number: int) -> int:
    os._exit(3)


@pytest.mark.parametrize(("num_workers", "in_threads"), [(1, False), (3, True), (2, False)])
def test_results_come_in_the_order_of_the_tasks(num_workers: int, in_threads: bool) -> None:
    read: list[int] = []

    def tasks() -> Iterator[int]:
        for number in range(60):
            read.append(number)
            yield number

    results = map_in_order(square, tasks(), num_workers, in_threads=in_threads)
    assert next(results) == 0
    assert len(read) <= 4 * num_workers  # tasks are read as they are needed
    assert list(results) == [number * number for number in range(1, 60)]
    assert list(map_in_order(square, [], num_workers, in_threads=in_threads)) == []


@pytest.mark.parametrize("num_workers", [1, 2])
def test_what_is_done_aside_is_done_in_order_and_raises_where_it_is_asked_for(num_workers: int) -> None:
    done: list[tuple[int, int]] = []
    before = threading.active_count()

    def note(number: int) -> int:
        time.sleep(0.01 * (3 - number))
        done.append((number, threading.get_ident()))
        return square(number)

    with Beside(num_workers) as beside:
        results = [beside.start(functools.partial(note, number)) for number in range(3)]
        failing = beside.start(lambda: 1 // 0)
        assert [result() for result in results] == [0, 1, 4]
        with pytest.raises(ZeroDivisionError):
            failing()
        assert beside.start(lambda: "goes on")() == "goes on"
    assert [number for number, _ in done] == [0, 1, 2]
    assert len({thread for _, thread in done}) == 1
    assert (done[0][1] == threading.get_ident()) == (num_workers == 1)
    for _ in range(100):
        if threading.active_count() == before:
            break
        time.sleep(0.02)
    assert threading.active_count() == before  # who makes many reports leaves no threads behind


def test_a_worker_that_is_killed_is_told() -> None:
    with pytest.raises(BrokenProcessPool):
        list(map_in_order(vanish, range(3), 2))


def test_no_worker_is_left_once_every_result_was_taken() -> None:
    results = map_in_order(square, range(5), 2)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    import multiprocessing

    assert multiprocessing.active_children() == []  # though the generator is still there


def test_workers_start_from_within_a_process_of_joblib(tmp_path: Path) -> None:
    code = """
import multiprocessing
from joblib.externals.loky import get_reusable_executor
from minia.core.workers import map_in_order

def job(_):
    multiprocessing.set_start_method("loky", force=True)  # as some versions of joblib do
    return list(map_in_order(abs, [-1, -2, -3], 2))

if __name__ == "__main__":
    print(get_reusable_executor(1).submit(job, 0).result())
"""
    (tmp_path / "run.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, tmp_path / "run.py"], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.stdout == "[1, 2, 3]\n", done.stderr


@pytest.mark.skipif(os.name == "nt", reason="a terminal's Ctrl-C is another thing on Windows")
@pytest.mark.parametrize("delay", [0.0, 0.1, 0.5])
def test_an_interruption_while_workers_start_is_told_by_the_parent_alone(tmp_path: Path, delay: float) -> None:
    code = """
import sys, time
import signal

from minia.core.workers import map_in_order

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background inherit that it is ignored
    print("ready", flush=True)
    try:
        for _ in map_in_order(time.sleep, [0.05] * 1000, 2):
            pass
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""
    (tmp_path / "run.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, tmp_path / "run.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all processes at once
    out, err = process.communicate(timeout=120)
    assert (out, err) == ("interrupted\n", "")


def test_a_script_is_not_run_again_by_its_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"  # as written in a notebook, or in the README
    script.write_text("from minia.core.workers import map_in_order\nprint(*map_in_order(abs, [1, -2, 3], 2))\n")
    ended = subprocess.run(
        [sys.executable, script], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout) == (0, "1 2 3\n"), ended.stderr


def test_what_workers_import_is_little() -> None:
    """Each worker imports anew: pandas alone takes it longer than 50 images."""
    code = "import sys, minia.data.simulation.survey, minia.mining.features.reader as _; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pandas", "pyarrow", "astropy", "matplotlib", "torch", "sklearn"} & set(run.stdout.split())
