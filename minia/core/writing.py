"""Files and folders that appear under their names only when they are whole, also where the power fails."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

_UNFINISHED = ".part-"  # how the temporary names begin
_SYNCING_THREADS = 8  # files synced at a time, which lets the disk write them together: 9 take 8 ms, not 40


@contextmanager
def appearing_whole(path: Path) -> Iterator[Path]:
    """Let a file or a folder appear under its name only when it is whole, and stay so where the power fails after.

    Args:
        path: the file, which is replaced where it exists, or the folder, which may exist only if it is empty.

    Yields:
        A temporary name in the same folder, with the same ending, that nothing has yet: write the file there, or
        make the folder. Where the writing fails, what was written is removed.
    """
    temporary = _temporary_of(path)
    _remove(temporary)  # an earlier process of the same number may have been killed here
    try:
        yield temporary
        publish(temporary, path)
    except BaseException:
        _remove(temporary)
        raise


def publish(temporary: Path, path: Path) -> None:
    """Give a finished file or folder its name once the disk has it, and let the disk have the name too.

    A power failure then leaves it whole or absent: without this a name may reach the disk before what it stands for.

    Args:
        temporary: the finished file or folder.
        path: its name, in the same folder: see :func:`appearing_whole`.

    Raises:
        OSError: the disk did not take it; nothing has the name then.
    """
    sync(temporary)
    temporary.replace(path)
    _sync_folder(path.parent)


def sync(path: Path) -> None:
    """Wait until the disk has a file, or a folder with all that is in it; links are left alone.

    Raises:
        OSError: the disk did not take it.
    """
    if not path.is_dir():
        _sync_file(path)
        return
    files, folders = list[Path](), list[Path]()
    for parent, _, names in os.walk(path):
        folders.append(Path(parent))
        files += [file for name in names if not (file := Path(parent, name)).is_symlink()]
    _sync_files(files)
    for folder in reversed(folders):
        _sync_folder(folder)


def make_folders(path: Path) -> None:
    """Make a folder, and those that lead to it, so that none is lost where the power fails; they may exist.

    Raises:
        OSError: one cannot be made.
    """
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in missing:
        _sync_folder(each.parent)


def write_text_whole(path: Path, text: str) -> None:
    """Write a text file, in UTF-8, so that a reader sees the old content or the new one, never a part of it."""
    with appearing_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_files_whole(contents: Mapping[Path, bytes]) -> None:
    """Write files, each of which appears under its name only when it is whole, in hardly more time than one takes.

    Args:
        contents: by the file's path; one that exists is replaced.

    Raises:
        OSError: the disk did not take one of them; no further one has its name then.
    """
    temporary = {path: _temporary_of(path) for path in contents}
    try:
        for path, content in contents.items():
            temporary[path].write_bytes(content)
        _sync_files(list(temporary.values()))
        for path in contents:
            temporary[path].replace(path)
        for folder in {path.parent for path in contents}:
            _sync_folder(folder)
    except BaseException:
        for path in temporary.values():
            _remove(path)
        raise


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left unfinished in a folder and below; no other process may be writing there."""
    for parent, folders, files in os.walk(folder):
        for name in [name for name in (*folders, *files) if name.startswith(_UNFINISHED)]:
            _remove(Path(parent) / name)
        folders[:] = [name for name in folders if not name.startswith(_UNFINISHED)]


def remove_unfinished_of(path: Path) -> None:
    """Remove what killed processes left of one file or folder beside it; no other process may be writing it."""
    named = re.compile(re.escape(_UNFINISHED) + r"\d+-" + re.escape(path.name))
    for each in list(path.parent.iterdir()) if path.parent.is_dir() else []:
        if named.fullmatch(each.name):
            _remove(each)


def _temporary_of(path: Path) -> Path:
    return path.with_name(f"{_UNFINISHED}{os.getpid()}-{path.name}")


def _sync_files(paths: Sequence[Path]) -> None:
    with ThreadPoolExecutor(_SYNCING_THREADS) as threads:
        list(threads.map(_sync_file, paths))


def _sync_file(path: Path) -> None:
    # Some systems sync only what was opened for writing.
    with path.open("rb" if os.name == "posix" else "rb+") as stream:
        os.fsync(stream.fileno())


def _sync_folder(path: Path) -> None:
    # Not every system can open a folder, nor every network drive sync one: there names are as safe as they make them.
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
