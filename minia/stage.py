"""The stage contract: what every stage of the pipeline leaves on disk, and how it is reused.

A stage makes one *artifact*: a folder ``STORE/<stage>/<label>-<fingerprint>``. The fingerprint is a
hash of the stage's parameters and of the fingerprints of its inputs, so two settings never
overwrite each other and the same settings find the same artifact again. The artifact is written
under a temporary name and renamed when whole; ``manifest.json`` inside it records what made it.
A lock file beside it lets only one process make it; the others wait and then reuse it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
CONTRACT_VERSION = 1  # part of every fingerprint: raise it when the layout of artifacts changes
_RECORDED_PACKAGES = ("minia", "numpy", "torch", "opencv-contrib-python-headless", "faiss-cpu", "faiss-gpu")


class InputError(Exception):
    """What the user gave cannot be used; the message is one line and says what is allowed."""


def fingerprint(value: Any) -> str:
    """Hash of a JSON-representable value: the same value gives the same 64 hex digits anywhere."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def fingerprint_file(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_manifest(artifact: Path) -> dict[str, Any]:
    """The manifest of a finished artifact.

    Raises:
        InputError: there is no artifact at that path.
    """
    try:
        manifest: dict[str, Any] = json.loads((artifact / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{artifact} is not a finished artifact: it holds no {MANIFEST}") from None
    return manifest


def write_text_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old content or the new, never a part of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


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
            ``make`` finds its finished parts there; otherwise it is removed first.
    """

    name: str
    label: str
    store: Path
    parameters: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    resumable: bool = False

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the artifact's content."""
        return fingerprint([CONTRACT_VERSION, self.name, self.label, dict(self.parameters), dict(self.inputs)])

    @property
    def path(self) -> Path:
        """Where the finished artifact is, or will be."""
        return self.store / self.name / f"{self.label}-{self.fingerprint[:12]}"

    @property
    def done(self) -> bool:
        """Whether the artifact is there, whole."""
        return (self.path / MANIFEST).exists()

    def run(self, make: Callable[[Path], Mapping[str, Any]]) -> Path:
        """Make the artifact unless it is there already, and return its path.

        Args:
            make: writes the artifact's files into the folder it is given and returns the counts
                for the manifest (JSON values).

        Returns:
            The path of the finished artifact.
        """
        if self._reuse():
            return self.path
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path.parent / f".{self.path.name}.lock")
        with lock:
            if self._reuse():  # another process made it while this one waited for the lock
                return self.path
            self._make(make)
        return self.path

    def _reuse(self) -> bool:
        if self.done:
            logger.info("%s: reusing %s", self.name, self.path)
        return self.done

    def _make(self, make: Callable[[Path], Mapping[str, Any]]) -> None:
        work = self.path.with_name(f".{self.path.name}.part")
        if work.exists() and not self.resumable:
            shutil.rmtree(work)
        work.mkdir(exist_ok=True)
        started = time.perf_counter()
        try:
            counts = make(work)
            self._write_manifest(work, counts, time.perf_counter() - started)
        except InputError:
            shutil.rmtree(work, ignore_errors=True)  # the same input will fail again
            raise
        except BaseException:
            if not self.resumable:
                shutil.rmtree(work, ignore_errors=True)
            raise
        work.replace(self.path)
        logger.info("%s: made %s in %.1f s", self.name, self.path, time.perf_counter() - started)

    def _write_manifest(self, work: Path, counts: Mapping[str, Any], seconds: float) -> None:
        manifest = {
            "stage": self.name,
            "label": self.label,
            "fingerprint": self.fingerprint,
            "parameters": dict(self.parameters),
            "inputs": dict(self.inputs),
            "counts": dict(counts),
            "versions": _versions(),
            "seconds": round(seconds, 3),
        }
        (work / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
