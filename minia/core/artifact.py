"""The stage contract: what every stage of the pipeline leaves on disk, and how it is reused.

A stage makes one *artifact*: a folder ``STORE/<stage>/<label>-<fingerprint>``. The fingerprint is a
hash of the stage's parameters and of the fingerprints of its inputs, so two settings never
overwrite each other and the same settings find the same artifact again. The artifact is written
under a temporary name and renamed when whole; ``manifest.json`` inside it records what made it,
and the checksums of its files: one that was damaged since is found, moved aside and made anew.
A lock file beside it lets only one process make it; the others wait and then reuse it, or take part in making it
where it is made in pieces.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from minia.core.checksums import checksums_of, find_damage
from minia.core.claims import Claims
from minia.core.foreign import read_json
from minia.core.locks import acquire
from minia.core.writing import make_folders, publish, remove_unfinished, remove_unfinished_of, write_text_whole

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
CONTRACT_VERSION = 1  # part of every fingerprint: raise it when the layout of artifacts changes
_RECORDED_PACKAGES = (
    "minia", "astropy", "faiss-cpu", "faiss-gpu", "numpy", "opencv-contrib-python-headless", "pandas", "pillow",
    "pyarrow", "scikit-learn", "scipy", "torch",
)  # fmt: skip
MOST_READ_AGAIN = 1 << 28  # bytes of an artifact that is reused: of larger ones only the files' sizes are compared
_KINDS = {"stage": str, "fingerprint": str, "counts": dict, "seconds": int | float}  # what any manifest holds
STARTED_WITH = ".versions.json"  # in an unfinished artifact: what its finished parts were made with


class InputError(Exception):
    """What the user gave cannot be used; the message is one line and says what is allowed."""

    def __init__(self, message: str = "") -> None:
        super().__init__(" ".join(message.splitlines()))  # a name or a value from outside may hold line breaks


def fingerprint(value: Any) -> str:
    """Hash of a JSON-representable value: the same value gives the same 64 hex digits anywhere."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def read_manifest(artifact: Path) -> dict[str, Any]:
    """The manifest of a finished artifact.

    Raises:
        InputError: there is no artifact at that path.
    """
    try:
        manifest = read_json(artifact / MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{artifact} is not a finished artifact: it holds no {MANIFEST}") from None
    except ValueError:
        raise InputError(f"{artifact / MANIFEST} is damaged: delete the folder and run again") from None
    if not isinstance(manifest, dict):
        raise InputError(f"{artifact / MANIFEST}: expected an object in JSON")
    if missing := [key for key in _KINDS if key not in manifest]:
        raise InputError(f"{artifact / MANIFEST}: lacks {', '.join(missing)}")
    if wrong := [key for key, kind in _KINDS.items() if not isinstance(manifest[key], kind)]:
        raise InputError(f"{artifact / MANIFEST}: {wrong[0]} is {manifest[wrong[0]]!r:.40}, which it cannot be")
    return manifest


@dataclass(frozen=True)
class Stage:
    """One artifact to be made, or found.

    Attributes:
        name: the stage, which is also its folder in the store: ``features``, ``vocabulary`` ...
        label: readable part of the artifact's name: ``sift``, ``kmeans1000`` ...
        store: the folder that holds all artifacts.
        parameters: everything that decides what the artifact holds; JSON values only.
        inputs: fingerprints of what it is made from, by name.
        resumable: an unfinished artifact of a killed run is handed on to the next one, whose
            ``make`` finds its finished parts there; otherwise it is removed first, as it is when it
            was made with other versions of the packages.
        version: of the stage's code; raise it whenever the same parameters give another result, so
            that artifacts of the old code are not reused.
    """

    name: str
    label: str
    store: Path
    parameters: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    resumable: bool = False
    version: int = 1

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the artifact's content."""
        versions = [CONTRACT_VERSION, self.version]
        return fingerprint([versions, self.name, self.label, dict(self.parameters), dict(self.inputs)])

    @property
    def path(self) -> Path:
        """Where the finished artifact is, or will be."""
        return self.store / self.name / f"{self.label}-{self.fingerprint[:12]}"

    @property
    def done(self) -> bool:
        """Whether the artifact is there, whole."""
        return (self.path / MANIFEST).exists()

    def run(
        self, make: Callable[[Path], Mapping[str, Any]], share: Callable[[Path, Claims], None] | None = None
    ) -> Path:
        """Make the artifact unless it is there already, and return its path.

        Args:
            make: writes the artifact's files into the folder it is given and returns the counts
                for the manifest (JSON values).
            share: makes pieces of it there first, beside other processes that do the same, until none is missing;
                ``make`` then joins them. None: one process makes all, the others wait.

        Returns:
            The path of the finished artifact.
        """
        started = time.perf_counter()
        if self._reuse():
            return self.path
        make_folders(self.path.parent)
        claims = Claims(self.path.with_name(f".{self.path.name}.claims"), lambda: self.done)
        while True:
            with nullcontext() if share is None else self._taking_part(claims):
                if share is not None and not self.done:
                    self._share(share, claims)
                with self._locked(), claims.removed_by_the_last():
                    if self._reuse():  # another process may have made it meanwhile
                        return self.path
                    if share is None:
                        self._prepare()
                        started = time.perf_counter()
                    elif not (self._work / STARTED_WITH).exists():
                        continue  # another one has found that the input cannot be used: this one will say so too
                    else:
                        remove_unfinished(self._work)  # of processes that were killed; none is writing any more
                    self._make(make, started)
                    return self.path

    @property
    def _work(self) -> Path:
        """Where the artifact is while it is made."""
        return self.path.with_name(f".{self.path.name}.part")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self.path.parent / f".{self.path.name}.lock")
        try:
            acquire(lock, timeout=0)
        except Timeout:
            logger.info("%s: waiting for another process that is making %s", self.name, self.path)
            acquire(lock)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _taking_part(self, claims: Claims) -> Iterator[None]:
        """Share the work with others that are at it, or begin it.

        Raises:
            InputError: others are at it with other versions of the packages.
        """
        with self._locked():
            if not self.done or damage_of(self.path, MOST_READ_AGAIN):
                if not ((self._work / STARTED_WITH).exists() and claims.others()):
                    self._move_aside()
                    self._prepare()
                elif why := self._why_discard(self._work):
                    raise InputError(f"{self._work}: another process is making it: {why}; allowed: the same versions")
            claims.join()
        try:
            yield
        finally:
            claims.leave()

    def _share(self, share: Callable[[Path, Claims], None], claims: Claims) -> None:
        try:
            share(self._work, claims)
        except InputError:
            with self._locked(), claims.removed_by_the_last():
                if not claims.others():
                    _discard(self._work, ignore_errors=True)  # the same input will fail again
            raise

    def _reuse(self) -> bool:
        if not self.done:
            return False
        if damage := damage_of(self.path, MOST_READ_AGAIN):
            logger.warning("%s: %s is damaged: %s; making it anew", self.name, self.path, damage)
            return False
        with suppress(OSError):  # a store may be only readable
            (self.path / STARTED_WITH).unlink(missing_ok=True)  # of one that was killed just before it did so
        logger.info("%s: reusing %s", self.name, self.path)
        return True

    def _prepare(self) -> None:
        """Make the folder for an unfinished artifact, or keep what a killed run has finished in it."""
        work = self._work
        remove_unfinished_of(work / STARTED_WITH)
        if work.exists() and next(work.iterdir(), None) and not (work / STARTED_WITH).is_file():
            raise InputError(f"{work}: was not written by minIA, and would be removed; allowed: move it away")
        if work.exists() and (why := self._why_discard(work)):
            logger.info("%s: discarding what an earlier run left unfinished in %s: %s", self.name, work, why)
            _discard(work)
        try:
            work.mkdir(exist_ok=True)
            remove_unfinished(work)
            if not (work / STARTED_WITH).exists():
                write_text_whole(work / STARTED_WITH, json.dumps(_versions()))
        except BaseException:
            self._give_up()
            raise

    def _make(self, make: Callable[[Path], Mapping[str, Any]], started: float) -> None:
        work = self._work
        try:
            counts = make(work)
            self._write_manifest(work, counts, time.perf_counter() - started)
            self._publish(work)
        except InputError:
            _discard(work, ignore_errors=True)  # the same input will fail again
            raise
        except BaseException:
            self._give_up()
            raise
        logger.info("%s: made %s in %.1f s", self.name, self.path, time.perf_counter() - started)

    def _give_up(self) -> None:
        if not self.resumable:
            _discard(self._work, ignore_errors=True)

    def _move_aside(self) -> None:
        if self.path.exists():  # damaged, or without a manifest no artifact: it may hold what is anyone's
            aside = self.path.with_name(f"{self.path.name}.aside-{time.time_ns()}")
            why = "is damaged" if self.done else f"holds no {MANIFEST}"
            logger.warning("%s: %s %s: moving it to %s", self.name, self.path, why, aside)
            self.path.replace(aside)

    def _publish(self, work: Path) -> None:
        """Give a finished artifact its name; what has it already is moved aside."""
        self._move_aside()
        try:
            publish(work, self.path)
        finally:  # not before: without it the next run would not know that it may remove what is finished there
            if not work.exists():
                (self.path / STARTED_WITH).unlink(missing_ok=True)

    def _why_discard(self, work: Path) -> str:
        """Why an unfinished artifact cannot be continued; empty where it can."""
        if not self.resumable:
            return "this stage cannot continue"
        before, now = _read(work / STARTED_WITH), _versions()
        if not isinstance(before, dict):
            return "it does not say what versions made it"
        other = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        return ", ".join(f"{name} was {before.get(name, 'absent')}, is {now.get(name, 'absent')}" for name in other)

    def _write_manifest(self, work: Path, counts: Mapping[str, Any], seconds: float) -> None:
        manifest = {
            "stage": self.name,
            "label": self.label,
            "version": self.version,
            "fingerprint": self.fingerprint,
            "parameters": dict(self.parameters),
            "inputs": dict(self.inputs),
            "counts": dict(counts),
            "files": checksums_of(work, (MANIFEST, STARTED_WITH)),
            "versions": _versions(),
            "seconds": round(seconds, 3),
        }
        (work / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def damage_of(artifact: Path, most_bytes: int | None = None) -> str | None:
    """What of a finished artifact is not as it was made, in words; None where nothing is, or it tells no checksums.

    Args:
        artifact: its folder.
        most_bytes: compare the content of its files only if they have no more bytes in all; None: in any case.
    """
    try:
        return find_damage(artifact, read_manifest(artifact).get("files", {}), most_bytes)
    except InputError as error:
        return str(error)
    except (AttributeError, KeyError, TypeError, ValueError):
        return f"{MANIFEST} holds no checksums that can be read"


def _discard(work: Path, *, ignore_errors: bool = False) -> None:
    """Remove an unfinished artifact; what says that it is one goes last, so that a killed removal can be taken up."""
    for path in list(work.iterdir()) if work.is_dir() else []:
        if path.name != STARTED_WITH and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=ignore_errors)
        elif path.name != STARTED_WITH:
            with suppress(OSError) if ignore_errors else nullcontext():
                path.unlink()
    shutil.rmtree(work, ignore_errors=ignore_errors)


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
