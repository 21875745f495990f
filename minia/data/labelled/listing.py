"""The images of a folder by their names without extension."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from minia.core.artifact import InputError
from minia.data.files import IMAGE_SUFFIXES


def listing(folder: Path) -> tuple[str, dict[str, str]]:
    """A fingerprint of a folder's images (names, sizes, times), and their file names by name without extension.

    Raises:
        InputError: the folder is missing or holds no images.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder of images")
    names, digest = {}, hashlib.sha256()
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122 - 240,000 Path objects cost a second
            if suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith("."):
                names[stem] = entry.name
                state = entry.stat()
                digest.update(f"{entry.name} {state.st_size} {state.st_mtime_ns}\n".encode())
    if not names:
        raise InputError(f"{folder}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return digest.hexdigest(), names


def files_of(names: list[str], root: Path) -> list[str]:
    """The file of each name: the name itself if it has an image's extension, else that with one that is there."""
    files: dict[str, dict[str, str]] = {}
    found = []
    for name in names:
        if name.lower().endswith(IMAGE_SUFFIXES):
            found.append(name)
            continue
        parent = os.path.dirname(name)  # noqa: PTH120 - one per image
        if parent not in files:
            folder = root / parent
            files[parent] = listing(folder)[1] if folder.is_dir() else {}
        file = files[parent].get(os.path.basename(name), name)  # noqa: PTH119
        found.append(f"{parent}/{file}" if parent else file)
    return found
