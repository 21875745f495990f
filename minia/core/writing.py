"""Files and folders that appear under their names only when they are whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UNFINISHED = ".part-"  # how the temporary names begin


@contextmanager
def appearing_whole(path: Path) -> Iterator[Path]:
    """Let a file or a folder appear under its name only when it is whole.

    Args:
        path: the file, which is replaced where it exists, or the folder, which may exist only if it is empty.

    Yields:
        A temporary name in the same folder, with the same ending, that nothing has yet: write the file there, or
        make the folder. Where the writing fails, what was written is removed.
    """
    temporary = path.with_name(f"{_UNFINISHED}{os.getpid()}-{path.name}")
    _remove(temporary)  # an earlier process of the same number may have been killed here
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        _remove(temporary)
        raise


def write_text_whole(path: Path, text: str) -> None:
    """Write a text file, in UTF-8, so that a reader sees the old content or the new one, never a part of it."""
    with appearing_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left unfinished in a folder and below; no other process may be writing there."""
    for parent, folders, files in os.walk(folder):
        for name in [name for name in (*folders, *files) if name.startswith(_UNFINISHED)]:
            _remove(Path(parent) / name)
        folders[:] = [name for name in folders if not name.startswith(_UNFINISHED)]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
