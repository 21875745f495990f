"""Checksums: what the files of an artifact were when it was made, so that damage is found before they are used."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

_BLOCK = 1 << 20


def fingerprint_file(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def checksums_of(folder: Path, without: Collection[str]) -> dict[str, dict[str, Any]]:
    """Size in bytes and SHA-256 of every file below a folder, by its path from there, sorted.

    Args:
        folder: the folder; links are not followed.
        without: names of files at its top that are left out.
    """
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    kept = [path for path in paths if path not in without]
    return {path: {"bytes": (folder / path).stat().st_size, "sha256": fingerprint_file(folder / path)} for path in kept}


def find_damage(folder: Path, files: Mapping[str, Mapping[str, Any]], most_bytes: int | None = None) -> str | None:
    """The first file that is not what it was when its checksum was taken, in words; None where all are.

    Args:
        folder: that the files are below.
        files: of :func:`checksums_of`; a further file in the folder is no damage.
        most_bytes: read the files' content only if they have no more bytes in all; None: in any case. Where it is not
            read, only missing, cut and grown files are found.
    """
    for path, known in files.items():
        if Path(path).is_absolute() or ".." in Path(path).parts:
            return f"{path} is not in it"
        try:
            size = (folder / path).stat().st_size
        except OSError:
            return f"{path} is missing"
        if size != known["bytes"]:
            return f"{path} has {size:,} bytes, not {known['bytes']:,}"
    if most_bytes is not None and sum(int(known["bytes"]) for known in files.values()) > most_bytes:
        return None
    for path, known in files.items():
        if fingerprint_file(folder / path) != known["sha256"]:
            return f"{path} is not what was written"
    return None
