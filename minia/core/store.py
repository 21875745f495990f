"""What a store holds: its artifacts, what killed runs left unfinished, and the runs that use them.

A run tells the stores of its artifacts where it is: ``STORE/.runs/<hash>.json`` holds the path of the run's folder,
from the store and absolute, so that both can be moved together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from minia.core.artifact import MANIFEST, STARTED_WITH, InputError, fingerprint, read_manifest
from minia.core.foreign import read_json
from minia.core.run_folder import MARK, RunFolder
from minia.core.writing import make_folders, remove_unfinished_of, write_text_whole

_RUNS = ".runs"
_HEXADECIMAL = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class StoredArtifact:
    """An artifact in a store, or what a killed run left of one.

    Attributes:
        path: its folder.
        size: bytes of its files.
        fingerprint: 64 hexadecimal digits; empty where it is unfinished.
        inputs: fingerprints of what it was made from.
    """

    path: Path
    size: int
    fingerprint: str = ""
    inputs: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Its stage and its own name."""
        return f"{self.path.parent.name}/{self.path.name}"


def register_run(folder: RunFolder) -> None:
    """Tell the stores that hold a run's artifacts where the run is."""
    run = folder.path.absolute()
    stores = {path.absolute().parents[1] for path in folder.artifacts.values() if _is_artifact(path)}
    for store in stores | ({folder.store.absolute()} if folder.store else set()):
        entry = store / _RUNS / f"{fingerprint(str(run))[:16]}.json"
        try:
            near = os.path.relpath(run, store)
        except ValueError:  # on another drive
            near = str(run)
        with suppress(OSError):  # a store may be only readable
            make_folders(entry.parent)
            remove_unfinished_of(entry)  # the run's folder is locked: no other process writes this entry
            write_text_whole(entry, json.dumps({"near": near, "absolute": str(run)}) + "\n")


def runs_of(store: Path) -> list[RunFolder]:
    """The runs that are still where they told the store they are, sorted by their paths."""
    found: dict[Path, RunFolder] = {}
    for entry in (store / _RUNS).glob("*.json"):
        try:
            told = read_json(entry)
            places = [Path(os.path.normpath(store.absolute() / told["near"])), Path(told["absolute"])]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        for place in places:
            if (place / MARK).is_file():
                found[place] = RunFolder.read(place)
                break
    return [found[place] for place in sorted(found)]


def artifacts_of(store: Path) -> list[StoredArtifact]:
    """The finished artifacts of a store, sorted by stage and name; folders that no stage made are not among them."""
    found = []
    for path in sorted(store.glob(f"*/*/{MANIFEST}")):
        if _is_artifact(path.parent):
            manifest = read_manifest(path.parent)
            inputs = frozenset(map(str, manifest.get("inputs", {}).values()))
            found.append(StoredArtifact(path.parent, _size(path.parent), manifest["fingerprint"], inputs))
    return found


def leftovers_of(store: Path) -> list[StoredArtifact]:
    """What killed runs left unfinished, where no process is at work on it."""
    paths = [path.parent for path in sorted(store.glob(f"*/.*.part/{STARTED_WITH}"))]
    return [StoredArtifact(path, _size(path)) for path in paths]


def needed_by(run: RunFolder, artifacts: Iterable[StoredArtifact]) -> list[StoredArtifact]:
    """The artifacts that a run uses, and those that they were made from."""
    by_fingerprint = {each.fingerprint: each for each in artifacts}
    own = {path.resolve() for path in run.artifacts.values()}
    ahead = [each for each in by_fingerprint.values() if each.path.resolve() in own]
    needed: dict[str, StoredArtifact] = {}
    while ahead:
        artifact = ahead.pop()
        if artifact.fingerprint not in needed:
            needed[artifact.fingerprint] = artifact
            ahead += [by_fingerprint[each] for each in artifact.inputs if each in by_fingerprint]
    return list(needed.values())


def _is_artifact(path: Path) -> bool:
    """Whether a folder's name and manifest are those that a stage gives."""
    digits = path.name.rpartition("-")[2]
    if len(digits) != 12 or not set(digits) <= _HEXADECIMAL:
        return False
    try:
        manifest = read_manifest(path)
    except (InputError, OSError):
        return False
    return path.parent.name == manifest["stage"] and str(manifest["fingerprint"]).startswith(digits)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
