"""A run's folder: what a run may replace in it, and where the artifacts are that the run made or found.

A run replaces only what a run of minIA wrote. ``.minia.json`` in the folder, its *mark*, tells what that is: the
names of the files with their sizes and, of those that are not inside a folder, their SHA-256. A file that is not
listed, or was changed since, belongs to someone else. While files are being written the mark lists their names
alone, so that a killed run's can be replaced. ``.minia.lock`` lets only one run write at a time.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from minia.core.artifact import InputError
from minia.core.checksums import fingerprint_file
from minia.core.foreign import read_json
from minia.core.locks import NoLocksError, acquire
from minia.core.writing import make_folders, remove_unfinished, remove_unfinished_of, write_text_whole

MARK = ".minia.json"
LOCK = ".minia.lock"
JOBS = "jobs.csv"
_OF_HYDRA = ("multirun.yaml", "optimization_results.yaml")
SUMMARY = ("summary.csv", "summary.png")
SWEEP_FILES = (*_OF_HYDRA, JOBS, *SUMMARY)
_HIDDEN = (MARK, LOCK)
State = list[Any] | None  # size in bytes and SHA-256 ("" inside folders); None: being written, ours whatever it holds


@dataclass
class RunFolder:
    """A run's folder.

    Attributes:
        path: the folder.
        command: what made it: ``mine``, ``train`` or ``sweep``; empty where none did.
        store: the folder of artifacts; None where the mark names none.
        artifacts: the artifacts of the run by their stages.
        files: what runs wrote there: the state of each file by its path in the folder, with forward slashes.
    """

    path: Path
    command: str = ""
    store: Path | None = None
    artifacts: dict[str, Path] = field(default_factory=dict)
    files: dict[str, State] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> RunFolder:
        """What a folder's mark says; a folder without one holds nothing of a run.

        Raises:
            InputError: the mark is damaged.
        """
        try:
            given = read_json(path / MARK)
            artifacts = {str(stage): _found(path, str(where)) for stage, where in given["artifacts"].items()}
            store = None if given["store"] is None else _found(path, given["store"])
            files = {str(name): None if state is None else list(state) for name, state in given["files"].items()}
            return cls(path, str(given["command"]), store, artifacts, files)
        except (FileNotFoundError, NotADirectoryError):
            return cls(path)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{path / MARK}: is damaged; allowed: another folder for the run") from None

    def refuse_of_others(self, names: Iterable[str]) -> None:
        """Check that files and folders may be replaced.

        Args:
            names: of files or folders in the folder.

        Raises:
            InputError: one is there that no run wrote, or that was changed since.
        """
        for name in names:
            if stranger := self._stranger(name):
                why = "was changed since minIA wrote it" if stranger in self.files else "was not written by minIA"
                raise InputError(
                    f"{self.path / stranger}: {why}, and would be replaced or removed; allowed: move it away, or"
                    " another folder for the run (hydra.run.dir)"
                )

    @contextmanager
    def replacing(self, *names: str) -> Iterator[None]:
        """Replace or remove files and folders; what there is of them at the end is the run's.

        Raises:
            InputError: see :meth:`refuse_of_others`.
        """
        self.refuse_of_others(names)
        self._forget(names)
        self.files |= dict.fromkeys(names)
        self.write_mark()
        yield
        self._forget(names)
        self.files |= self._states(names)
        self.write_mark()

    def record(self, store: Path, artifacts: Mapping[str, Path]) -> None:
        """Tell where the run's artifacts are."""
        self.store, self.artifacts = store, self.artifacts | dict(artifacts)
        self.write_mark()

    def write_mark(self) -> None:
        """Write the mark."""
        content = {
            "command": self.command,
            "store": None if self.store is None else _relative(self.path, self.store),
            "artifacts": {stage: _relative(self.path, where) for stage, where in self.artifacts.items()},
            "files": dict(sorted(self.files.items())),
        }
        write_text_whole(self.path / MARK, json.dumps(content, indent=1) + "\n")

    def remove_leftovers(self, names: Iterable[str]) -> None:
        """Remove what a killed run left unfinished of the mark and of files and folders that may be replaced."""
        remove_unfinished_of(self.path / MARK)
        if (self.path / MARK).is_file():
            for path in (self.path / name for name in names):
                remove_unfinished_of(path)
                if path.is_dir() and not path.is_symlink():
                    remove_unfinished(path)

    def remove_if_fruitless(self) -> None:
        """Remove the folder where it holds nothing but a run's log."""
        log = f"{self.command}.log"
        if {path.name for path in self.path.iterdir()} <= {*_HIDDEN, log} and log in self.files:
            for name in (log, *_HIDDEN):
                (self.path / name).unlink(missing_ok=True)
            with suppress(OSError):
                self.path.rmdir()

    def _stranger(self, name: str) -> str | None:
        """The first file of that name, or in the folder of that name, that is not a run's; None without one."""
        path = self.path / name
        if (name in self.files and self.files[name] is None) or not os.path.lexists(path):
            return None
        if path.is_symlink() or not path.is_dir():
            return None if self._is_own(name, path) else name
        inside = sorted(each for each in path.rglob("*") if each.is_symlink() or not each.is_dir())
        places = {each.relative_to(self.path).as_posix(): each for each in inside}
        if not places and not any(each.startswith(f"{name}/") for each in self.files):
            return name  # an empty folder that no run made
        return next((place for place, each in places.items() if not self._is_own(place, each)), None)

    def _is_own(self, name: str, path: Path) -> bool:
        if name not in self.files or path.is_symlink() or not path.is_file():
            return False
        state = self.files[name]
        return state is None or _state(path, name) == state

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            kept = {each: state for each, state in self.files.items() if each != name}
            self.files = {each: state for each, state in kept.items() if not each.startswith(f"{name}/")}

    def _states(self, names: Iterable[str]) -> dict[str, State]:
        states: dict[str, State] = {}
        for path in (self.path / name for name in names):
            for each in path.rglob("*") if path.is_dir() else [path]:
                if each.is_file():
                    name = each.relative_to(self.path).as_posix()
                    states[name] = _state(each, name)
        return states


@contextmanager
def claimed(path: Path, command: str, names: Iterable[str]) -> Iterator[RunFolder]:
    """Claim a folder for a run: no other run writes there meanwhile, and nothing of others will be replaced.

    The log, ``<command>.log``, is the run's from then on. A folder in which nothing comes of the run, because its
    input cannot be used, is removed.

    Args:
        path: the folder; it is made.
        command: ``mine`` or ``train``.
        names: of the files and folders that the run will replace or remove.

    Yields:
        The folder.

    Raises:
        InputError: another run is writing there, or something of others is in the way; nothing was changed.
    """
    log = f"{command}.log"
    before = RunFolder.read(path)
    before.refuse_of_others([log, *names])  # before the folder gets a lock
    make_folders(path)
    lock = FileLock(path / LOCK)
    try:
        acquire(lock, timeout=0)
    except NoLocksError:
        (path / LOCK).unlink(missing_ok=True)
        raise
    except Timeout:
        raise InputError(f"{path}: another run is writing there; allowed: another folder (hydra.run.dir)") from None
    try:
        folder = dataclasses.replace(RunFolder.read(path), command=command)
        folder.refuse_of_others([log, *names])
        folder.remove_leftovers(names)
        folder.files[log] = None  # it grows
        folder.write_mark()
        try:
            yield folder
        except InputError:
            folder.remove_if_fruitless()
            raise
    finally:
        lock.release()


@contextmanager
def sweep_folder(path: Path) -> Iterator[RunFolder]:
    """A sweep's folder, of which one of its jobs at a time may change the summary.

    Yields:
        The folder, in which Hydra writes files of its own.
    """
    with FileLock(path / LOCK):
        folder = dataclasses.replace(RunFolder.read(path), command="sweep")
        folder.remove_leftovers(SWEEP_FILES)
        folder.files |= dict.fromkeys((*_OF_HYDRA, JOBS))  # they change until the last job has ended
        yield folder


def is_running(path: Path) -> bool:
    """Whether a run is writing in a folder."""
    if not (path / LOCK).exists():
        return False
    lock = FileLock(path / LOCK)
    try:
        acquire(lock, timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def remove_own(folder: RunFolder, name: str) -> None:
    """Remove a file or folder that ``replacing`` has allowed to."""
    path = folder.path / name
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _state(path: Path, name: str) -> State:
    return [path.stat().st_size, "" if "/" in name else fingerprint_file(path)]


def _relative(folder: Path, path: Path) -> str:
    """A path as the mark holds it: from the folder, so that both can be moved together, unless on another drive."""
    try:
        return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    except ValueError:
        return path.absolute().as_posix()


def _found(folder: Path, path: str) -> Path:
    return Path(os.path.normpath(folder.absolute() / path))
