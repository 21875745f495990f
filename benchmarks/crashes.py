"""A crash, and a full disk, at every operation on a file: what is left, and what the next run makes of it.

    python benchmarks/crashes.py [--job mining|images|command|workers] [--points 400] [--seed 0]

A run is watched by ``crashes.c``, which is compiled here, loaded before the C library (LD_PRELOAD, so only on Linux)
and counts what the process and its workers do to files below the run's folder: open for writing, write, sync, rename,
lock, unlink, make a folder, remove one. Then the run is done again for each point (or a seeded sample of so many), each
time in a fork of this process, which has all modules loaded, and there

- ``kill``: it is ended by SIGKILL, a write by half done;
- ``full once``: that operation alone finds no space, as where another program takes space and gives it back;
- ``full from``: that operation and all after it find none.

What must be: a full disk is told in one line with an exit code other than 0, or did no harm, and whatever has its
final name is whole. After that the same run, undisturbed, ends with the bytes of a run that met nothing (but for its
seconds), in the same files, none more. ``again`` kills at two points, of the first run and of the one that goes on.

Also checked: what a rename publishes had reached the disk (sync) before, and the folder after.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import importlib
import json
import logging
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

SOURCE = Path(__file__).with_suffix(".c")
MODES = {"count": 0, "kill": 1, "full once": 2, "full from": 3}
CORPUS = "4 0:1 1:1 2:1 3:1\n4 4:1 5:1 6:1 7:1\n" * 20  # two structures
JOBS: dict[str, tuple[str, ...]] = {
    "mining": ("words=listdb", "words.path=INPUT/a.corpus", "mining.num_tuples=50", "report.num_shuffles=2"),
    "images": (
        "images.num_images=12", "images.image_size=64", "features=sift", "features.shard_images=5",
        "vocabulary.size=12", "vocabulary.algorithm=doubling", "mining.linkage=single", "mining.num_tuples=50",
        "arrangement=constellation", "arrangement.list=all",
        "report.num_shuffles=2", "report.max_structures=3", "report.images_per_structure=4",
    ),
}  # fmt: skip
JOBS["command"] = JOBS["mining"]
JOBS["workers"] = JOBS["images"]


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
        return status, said.read_text(errors="replace").splitlines()

    def _in_fork(self, said: Path) -> None:
        code = 1
        try:
            os.setpgid(0, 0)
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
        assert not differences(self.reference, content(self.root)), "two undisturbed runs differ"
        return count

    def point(self, mode: str, at: int, then: int | None = None) -> tuple[str, str]:
        """Disturb the job at one operation, then run it again: what happened, in a word, and what was wrong."""
        self.clear()
        code, lines = self.attempt(mode, at)
        if not self.shim.fired:
            return "not reached", ""
        if mode == "kill":
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

    def _wrong_when_full(self, code: int, lines: list[str]) -> str:
        """What is wrong with how a full disk was told, and with what it left."""
        errors = [line for line in lines if "the log cannot be written" not in line]
        if code == 0 and errors:
            return f"exit code 0, and {errors}"
        if code and (len(errors) != 1 or not re.search("the disk is full|No space left", errors[0])):
            return f"exit code {code}: {errors[:3]}"
        for name, found in content(self.root).items():
            unfinished = re.search(r"^store/(images|features|assignment)/\.[^/]*\.part(/|$)", name)
            if ".part-" in name and not unfinished:
                return f"left over: {name}"
            if not unfinished and not re.search(r"\.(log|lock)$|\.minia", name) and found != self.reference.get(name):
                return f"half-written: {name}"
        return ""


def content(root: Path) -> dict[str, bytes]:
    """What is below a folder by its name: files without what differs from run to run, and folders."""
    found: dict[str, bytes] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        found[name] = b"" if path.is_dir() else _without_times(path)
    return found


def _without_times(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".log":
        return b""
    if path.name == ".minia.json":
        mark = json.loads(data)
        mark["files"] = sorted(name for name, state in mark["files"].items())
        return json.dumps(mark).encode()
    if path.suffix == ".json":
        with contextlib.suppress(ValueError):
            return json.dumps(_timeless(json.loads(data))).encode()
    return data


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        kept = {key: _timeless(each) for key, each in value.items() if not key.startswith("seconds")}
        for name, file in kept.get("files", {}).items() if isinstance(kept.get("files"), dict) else []:
            if name.endswith("metrics.json") and isinstance(file, dict):
                file.clear()
        return kept
    return value


def differences(before: dict[str, bytes], after: dict[str, bytes]) -> list[str]:
    """Names that are missing, more, or of another content."""
    return [
        f"{name} {'is more' if name not in before else 'is missing' if name not in after else 'is another'}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def without_paths(line: str) -> str:
    """A message without the names of files, to count it by."""
    return re.sub(r"/\S*/", "", line)


def unsynced(trace: Path) -> list[str]:
    """What was renamed to its final name before the disk had it, or without a sync of the folder after, by a trace."""
    dirty, wrong, waiting = set[str](), list[str](), dict[str, str]()
    for line in trace.read_text(errors="surrogateescape").splitlines():
        name, path, other = line.split("\t")
        if name in ("open", "write", "truncate"):
            dirty.add(path)
        elif name in ("fsync", "fdatasync"):
            dirty.discard(path)
            waiting.pop(path, None)
        elif name == "unlink":
            dirty.discard(path)
        elif name == "rename":
            wrong += [
                f"{other}: {each} was not synced" for each in dirty if each == path or each.startswith(f"{path}/")
            ]
            waiting[str(Path(other).parent)] = other
    return wrong + [f"{other}: its folder was not synced" for other in waiting.values()]


def job_of(name: str, root: Path, inputs: Path) -> Callable[[], int]:
    """A job that runs in a fork; its configuration is composed here, once."""
    (inputs / "a.corpus").write_text(CORPUS)
    workers = 2 if name == "workers" else 1
    words = [each.replace("INPUT", str(inputs)) for each in JOBS[name]] + ["device=cpu", f"num_workers={workers}"]
    from minia.command_line import commands
    from minia.command_line.messages import print_error
    from minia.command_line.signals import signals_interrupt

    if name == "command":

        def command() -> int:
            sys.argv = ["mine.py", *words, f"store={root / 'store'}", f"hydra.run.dir={root / 'run'}"]
            logging.getLogger().handlers.clear()
            return commands.mine()

        return command

    import hydra
    from omegaconf import OmegaConf

    from minia.command_line.mine_settings import MineSettings
    from minia.command_line.program import CONFIGURATION, composing, settings_of
    from minia.pipeline import mine

    with composing(CONFIGURATION):
        config = hydra.compose("mine", words)
    settings, text = settings_of(config, MineSettings), OmegaConf.to_yaml(config, resolve=True)

    def job() -> int:
        logging.disable(logging.CRITICAL)
        try:
            with signals_interrupt():
                mine(settings, root / "store", root / "run", text)
        except (Exception, KeyboardInterrupt) as error:
            return print_error(error)
        return 0

    return job


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
    parser.add_argument("--modes", default="kill,full once,full from,again")
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
