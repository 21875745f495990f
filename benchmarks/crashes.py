"""A crash, a full disk and a signal at every operation on a file: what is left, and what the next run makes of it.

    python benchmarks/crashes.py [--job mining|images|command|workers|training] [--points 400] [--seed 0]

A run is watched by ``crashes.c``, which is compiled here, loaded before the C library (LD_PRELOAD, so only on Linux)
and counts what the process and its workers do to files below the run's folder: open for writing, write, sync, rename,
lock, unlink, make a folder, remove one. Then the run is done again for each point (or a seeded sample of so many), each
time in a fork of this process, which has all modules loaded, and there

- ``kill``: it is ended by SIGKILL, a write by half done;
- ``full once``: that operation alone finds no space, as where another program takes space and gives it back;
- ``full from``: that operation and all after it find none;
- ``SIGINT``, ``SIGTERM``: that signal comes, as from Ctrl-C and from a batch system.

What must be: a full disk is told in one line with an exit code other than 0, or did no harm, and whatever has its
final name is whole; a signal is told in one line, with exit code 130 or 143. After that the same run, undisturbed, ends
with the bytes of a run that met nothing (but for its seconds), in the same files, none more. ``again`` kills
at two points, of the first run and of the one that goes on.

Also checked: what a rename publishes had reached the disk (sync) before, and the folder after.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import importlib
import mmap
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from crash_jobs import JOBS, content, differences, job_of, unsynced, without_paths

SOURCE = Path(__file__).with_suffix(".c")
MODES = {
    "count": 0,
    "kill": 1,
    "full once": 2,
    "full from": 3,
    "SIGINT": 4 + signal.SIGINT,
    "SIGTERM": 4 + signal.SIGTERM,
}


@dataclass
class Shim:
    """The counter, in memory that the forks and their workers share."""

    library: Path
    file: Path

    def __post_init__(self) -> None:
        with self.file.open("rb+") as stream:
            self._memory = mmap.mmap(stream.fileno(), 40)

    @classmethod
    def build(cls, folder: Path) -> tuple[Path, Path]:
        """Compile the shim; its file and that of its counter."""
        library, file = folder / "crashes.so", folder / "state"
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
        file.write_bytes(bytes(40))
        return library, file

    def set(self, mode: str, at: int = 0, *, traced: bool = False) -> None:
        """Start to count from 0."""
        self._memory[:40] = struct.pack("5q", 0, at, MODES[mode], 0, int(traced))

    @property
    def count(self) -> int:
        """Operations so far."""
        return int(struct.unpack("5q", self._memory[:40])[0])

    @property
    def fired(self) -> bool:
        """Whether the point was reached."""
        return bool(struct.unpack("5q", self._memory[:40])[3])

    def arm(self) -> None:
        """Count in this process from now on, and in those that it starts."""
        os.environ["CRASH_ARMED"] = "1"
        ctypes.CDLL(str(self.library)).crash_arm(1)


@dataclass
class Bench:
    """One job, in a folder that is made anew for each point.

    Attributes:
        shim: the counter.
        root: the folder below which operations count.
        job: does the run in a fork; returns its exit code.
        seconds: after which an attempt is given up.
        reference: what an undisturbed run leaves.
        tells_modules: whether a fork writes down what it imported.
    """

    shim: Shim
    root: Path
    job: Callable[[], int]
    seconds: float = 120
    reference: dict[str, bytes] = field(default_factory=dict)
    tells_modules: bool = True

    def attempt(self, mode: str = "count", at: int = 0, *, traced: bool = False) -> tuple[int, list[str]]:
        """Do the job in a fork; its exit code (negative: the signal), and the lines that it wrote on stderr."""
        self.shim.set(mode, at, traced=traced)
        said = self.root.with_name("stderr")
        child = os.fork()
        if child == 0:
            self._in_fork(said)
        started, status = time.monotonic(), None
        while status is None:
            done, code = os.waitpid(child, os.WNOHANG)
            status = os.waitstatus_to_exitcode(code) if done else None
            if status is None and time.monotonic() - started > self.seconds:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return 999, [f"still running after {self.seconds} s"]
            time.sleep(0.002)
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() - started < self.seconds:  # workers end by themselves, and soon
                os.killpg(child, 0)
                time.sleep(0.01)
            os.killpg(child, signal.SIGKILL)
            return 998, ["a worker is left"]
        lines = said.read_text(errors="replace").splitlines()
        return status, [line for line in lines if not re.match(r"\d\d:\d\d:\d\d  ", line)]  # without the log

    def _in_fork(self, said: Path) -> None:
        code = 1
        try:
            os.setpgid(0, 0)
            signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts in the background ignores it
            with said.open("wb") as stream:
                os.dup2(stream.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            self.shim.arm()
            code = self.job()
            if self.tells_modules:
                self.root.with_name("modules").write_text("\n".join(sys.modules))
        finally:
            with contextlib.suppress(Exception):
                sys.stderr.flush()
            os._exit(code)

    def clear(self) -> None:
        """Make the folder anew."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)

    def measure(self) -> int:
        """Do the job undisturbed, keep what it leaves to compare with, and return the number of its operations."""
        self.clear()
        code, lines = self.attempt()
        assert code == 0, (code, lines)
        # What the job imported is imported here, so that no fork has to; but nothing is run here, which starts threads.
        for module in self.root.with_name("modules").read_text().split():
            with contextlib.suppress(ImportError, AttributeError):
                importlib.import_module(module)
        self.tells_modules = False
        self.reference = content(self.root)
        count = self.shim.count
        self.clear()
        assert self.attempt()[0] == 0
        different = differences(self.reference, content(self.root))
        assert not different, f"two undisturbed runs differ: {different}"
        return count

    def point(self, mode: str, at: int, then: int | None = None) -> tuple[str, str]:
        """Disturb the job at one operation, then run it again: what happened, in a word, and what was wrong."""
        self.clear()
        code, lines = self.attempt(mode, at)
        if not self.shim.fired:
            return "not reached", ""
        if mode.startswith("SIG"):
            wrong = self._wrong_after_signal(signal.Signals[mode], code, lines)
        elif mode == "kill":
            wrong = "" if code == -signal.SIGKILL or "killed" in " ".join(lines) else f"exit code {code}: {lines}"
        else:
            wrong = self._wrong_when_full(code, lines)
        if then is not None:
            self.attempt("kill", then)
        again, lines = self.attempt()
        if again == 0:
            different = differences(self.reference, content(self.root))
            wrong = wrong or (f"differs: {different[:5]}" if different else "")
            return ("goes on, equal" if code else "harmless, equal"), wrong
        if len(lines) == 1 and lines[0].startswith("error: ") and again == 2:
            return f"named: {without_paths(lines[0])}", wrong
        return "fails", wrong or f"exit code {again}: {lines[-3:]}"

    def _wrong_after_signal(self, number: signal.Signals, code: int, lines: list[str]) -> str:
        """What is wrong with how a signal was told, and with what it left."""
        how = "error: interrupted" if number == signal.SIGINT else f"error: ended by {number.name}"
        if code == 0 and not lines:
            return "" if not differences(self.reference, content(self.root)) else "not heard, and not equal"
        if code != 128 + number or len(lines) != 1 or not lines[0].startswith(how):
            return f"exit code {code}: {lines[:3]}"
        return self._half_written()

    def _wrong_when_full(self, code: int, lines: list[str]) -> str:
        """What is wrong with how a full disk was told, and with what it left."""
        errors = [line for line in lines if "the log cannot be written" not in line]
        if code == 0 and errors:
            return f"exit code 0, and {errors}"
        if code and (len(errors) != 1 or not re.search("the disk is full|No space left", errors[0])):
            return f"exit code {code}: {errors[:3]}"
        return self._half_written()

    def _half_written(self) -> str:
        """What of a run that could say goodbye has its final name and is not whole, or is left under another."""
        for name, found in content(self.root).items():
            unfinished = re.search(r"^store/(images|features|assignment)/\.[^/]*\.(part|claims)(/|$)", name)
            if ".part-" in name and not unfinished:
                return f"left over: {name}"
            if not unfinished and not re.search(r"\.(log|lock)$|\.minia", name) and found != self.reference.get(name):
                return f"half-written: {name}"
        return ""


def points_of(count: int, wanted: int, modes: list[str], seed: int) -> Iterator[tuple[str, int, int | None]]:
    """A seeded sample of points, spread over the modes; all of them where no more are there."""
    random = Random(seed)
    everything = [(mode, at) for mode in modes for at in range(1, count + 1)]
    chosen = everything if len(everything) <= wanted else random.sample(everything, wanted)
    for mode, at in sorted(chosen, key=lambda each: (modes.index(each[0]), each[1])):
        again = mode == "again"
        yield ("kill" if again else mode), at, (random.randrange(1, count + 1) if again else None)


@contextlib.contextmanager
def bench_of(name: str) -> Iterator[Bench]:
    """A bench, in a process that has the shim loaded."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as scratch:
        root = Path(os.environ["CRASH_ROOT"])
        shim = Shim(Path(os.environ["LD_PRELOAD"]), Path(os.environ["CRASH_STATE"]))
        yield Bench(shim, root, job_of(name, root, Path(scratch)))


def inside(name: str, wanted: int, modes: list[str], seed: int) -> int:
    """Try the points of a job and print the table; 1 where something was wrong."""
    started, found, wrong = time.monotonic(), collections.Counter[tuple[str, str]](), list[str]()
    with bench_of(name) as bench:
        count = bench.measure()
        trace = Path(f"{bench.shim.file}.trace")
        bench.clear()
        bench.attempt(traced=True)
        kinds = collections.Counter(line.split("\t")[0] for line in trace.read_text().splitlines())
        wrong += unsynced(trace)
        print(f"{name}: {count} operations: " + ", ".join(f"{number} {kind}" for kind, number in kinds.most_common()))
        for mode, at, then in points_of(count, wanted, modes, seed):
            what, why = bench.point(mode, at, then)
            found[mode if then is None else "again", what] += 1
            if why:
                wrong.append(f"{mode} at {at}{f', then {then}' if then else ''}: {why}")
                print("WRONG", wrong[-1], flush=True)
    for (mode, what), number in sorted(found.items()):
        print(f"{mode:<10} {number:>5}  {what}")
    print(f"{sum(found.values())} points in {time.monotonic() - started:.0f} s, {len(wrong)} wrong")
    for line in wrong[:20]:
        print("wrong:", line)
    return bool(wrong)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", choices=[*JOBS], default="mining")
    parser.add_argument("--points", type=int, default=10**9, help="at most so many; default: all")
    parser.add_argument("--modes", default="kill,full once,full from,SIGINT,SIGTERM,again")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if "CRASH_STATE" in os.environ:
        return inside(arguments.job, arguments.points, arguments.modes.split(","), arguments.seed)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as scratch:
        library, file = Shim.build(Path(scratch))
        environment = {"LD_PRELOAD": str(library), "CRASH_STATE": str(file), "CRASH_ROOT": f"{scratch}/root/work"}
        environment |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run([sys.executable, *sys.argv], env=os.environ | environment).returncode


if __name__ == "__main__":
    sys.exit(main())
