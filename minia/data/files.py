"""Finding and opening image files, for collections of millions: a few bytes a file beside its name."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from minia.core.progress import progress
from minia.core.run_folder import MARK, RunFolder

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

FITS_SUFFIXES = (".fits", ".fit", ".fits.gz", ".fit.gz", ".fz")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", *FITS_SUFFIXES)
_NAMES_AT_A_TIME = 1 << 16
_REASONS = ("", "no such file", "not a file", "empty file")  # numbered in FileStates.problems
_FINE, _MISSING, _NO_FILE, _EMPTY = range(4)


def find_images(folder: Path, passed_over: Path) -> tuple[pa.ChunkedArray, list[str]]:
    """The image files in a folder and below; what starts with a dot is not looked at.

    Nor are the folders of runs of minIA. Where the folder itself is one, images may lie beside the run's files, and
    only those are passed over. Links to folders are followed; each folder is looked into once, under its own name
    where it lies below and else under the first of those that links give it.

    Args:
        folder: where to look.
        passed_over: a folder that is not looked into.

    Returns:
        names: strings, sorted: paths relative to the folder, with forward slashes.
        undecodable: escaped names of image files whose names are not valid UTF-8.
    """
    import pyarrow as pa  # what only reads images does without
    import pyarrow.compute as pc

    found = _names_below(folder, passed_over)
    chunks, undecodable = [], []
    while batch := list(itertools.islice(found, _NAMES_AT_A_TIME)):
        try:
            chunks.append(pa.array(batch, pa.string()))
        except UnicodeEncodeError:
            escaped = [os.fsencode(name).decode("utf-8", "backslashreplace") for name in batch]
            undecodable += [new for name, new in zip(batch, escaped, strict=True) if new != name]
            fine = [name for name, new in zip(batch, escaped, strict=True) if new == name]
            chunks.append(pa.array(fine, pa.string()))
    names = pa.chunked_array(chunks, pa.string())
    logger.info("images: found %d files below %s", len(names) + len(undecodable), folder)
    return names.take(pc.sort_indices(names)), sorted(undecodable)


def _names_below(folder: Path, passed_over: Path) -> Iterator[str]:
    ahead, links = [""], list[str]()
    of_the_run = RunFolder.read(folder).files
    folders_of_the_run = {name.partition("/")[0] for name in of_the_run if "/" in name}
    seen = {_identity(passed_over)} if passed_over.is_dir() else set()
    while ahead or links:
        if not ahead:  # links wait for the folders themselves, whatever order the file system names them in
            links.sort(reverse=True)
            ahead.append(links.pop())
        prefix = ahead.pop()
        parent = folder / prefix
        try:
            if (prefix and (parent / MARK).is_file()) or prefix[:-1] in folders_of_the_run:
                continue
            identity = _identity(parent)
            if identity in seen:
                continue  # else links could lead round in circles
            seen.add(identity)
            with os.scandir(parent) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    linked = entry.is_symlink()
                    if Path(entry).is_dir() if linked else entry.is_dir():  # an entry's own fails on a link to itself
                        (links if linked else ahead).append(f"{prefix}{entry.name}/")
                    elif entry.name.lower().endswith(IMAGE_SUFFIXES) and prefix + entry.name not in of_the_run:
                        yield prefix + entry.name
        except OSError as error:
            logger.warning("images: passing over %s: %s", parent, error.strerror)


def _identity(folder: Path) -> tuple[int, int]:
    """What a folder is told by, whatever name leads to it."""
    state = folder.stat()
    return state.st_dev, state.st_ino


class UnreadableImageError(Exception):
    """An image file is missing, empty, truncated, not an image, too large, or may not be read."""


def open_file(path: Path) -> BinaryIO:
    """Open a file to read its bytes; what is not a file is never waited for.

    Raises:
        UnreadableImageError: the path names a folder, a pipe, a device or a socket.
        OSError: it names nothing, or may not be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # opening a device can already set it to work
        raise UnreadableImageError(_REASONS[_NO_FILE])
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    stream = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # it was exchanged for something else between the two
        stream.close()
        raise UnreadableImageError(_REASONS[_NO_FILE])
    return stream


@dataclass(frozen=True)
class FileStates:
    """What the file system says of files, without reading them.

    Attributes:
        problems: (num_files,) uint8, 0 for a file that may be an image.
        sizes: (num_files,) int64 bytes, 0 where there is no file.
        times: (num_files,) int64, when the file was last changed, in nanoseconds since 1970; 0 where there is no file.
    """

    problems: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    times: NDArray[np.int64]

    @classmethod
    def read(cls, root: Path, paths: Iterable[str], num_files: int) -> FileStates:
        """Ask for the states of files: paths relative to a folder, or absolute."""
        states = cls(np.zeros(num_files, np.uint8), np.zeros(num_files, np.int64), np.zeros(num_files, np.int64))
        names, first, folder = iter(paths), 0, str(root)
        with progress("looking at files", num_files, "file") as advance:
            while batch := list(itertools.islice(names, _NAMES_AT_A_TIME)):
                found = np.array([_state(os.path.join(folder, path)) for path in batch])  # noqa: PTH118, a Path is slow
                rows = slice(first, first + len(batch))
                states.problems[rows], states.sizes[rows], states.times[rows] = found.T
                first += len(batch)
                advance(len(batch))
        return states

    def reason(self, row: int) -> str:
        """Why a file cannot be an image; empty where it may be."""
        return _REASONS[self.problems[row]]

    def fingerprint(self, names: pa.ChunkedArray) -> str:
        """Hash of the names and states, 64 hex digits.

        Sizes and times stand for the content: reading 10 million images to hash them would cost hours.
        """
        digest = hashlib.sha256(b"[[")  # of the JSON text [names, pairs], which would be gigabytes
        pairs = np.stack([self.sizes, self.times], axis=1)
        starts = range(0, len(pairs), _NAMES_AT_A_TIME)
        for part in _elements(names[row : row + _NAMES_AT_A_TIME].to_pylist() for row in starts):
            digest.update(part)
        digest.update(b"],[")
        for part in _elements(pairs[row : row + _NAMES_AT_A_TIME].tolist() for row in starts):
            digest.update(part)
        digest.update(b"]]")
        return digest.hexdigest()


def _elements(parts: Iterable[list[Any]]) -> Iterator[bytes]:
    """The text between the brackets of a JSON list that comes in parts, none of them empty."""
    comma = ""
    for part in parts:
        text = json.dumps(part, separators=(",", ":"), ensure_ascii=True)
        yield f"{comma}{text[1:-1]}".encode("ascii")
        comma = ","


def _state(path: str) -> tuple[int, int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):  # ValueError: no file's name
        return _MISSING, 0, 0
    if not stat.S_ISREG(found.st_mode):
        return _NO_FILE, 0, 0
    return (_FINE if found.st_size else _EMPTY), found.st_size, found.st_mtime_ns
