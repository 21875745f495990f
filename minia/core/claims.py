"""Claims: how several processes, on one machine or many, share the pieces of one artifact's work.

Each process that takes part holds a lock, and one for each piece that it works on. The system gives up the locks of a
process that ends, however it ends, so that another one takes its pieces. The lock files lie in a folder beside the
artifact, on the disk that all processes share.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from minia.core.locks import acquire

logger = logging.getLogger(__name__)

_PAUSE = 0.5  # seconds between two looks at pieces that others hold


class Claims:
    """The claims of this process.

    Args:
        folder: of the lock files of all processes.
        done: whether the artifact is there, so that no piece of it is missing.
    """

    def __init__(self, folder: Path, done: Callable[[], bool]) -> None:
        self._folder, self._done = folder, done
        self._own: FileLock | None = None
        self._held: dict[int, FileLock] = {}

    def join(self) -> None:
        """Take part, until :meth:`leave`."""
        self._folder.mkdir(exist_ok=True)
        for number in itertools.count():
            if (own := _try(self._folder / f"worker-{number}.lock")) is not None:
                self._own = own
                return

    def leave(self) -> None:
        """Give back all claims."""
        for piece in list(self._held):
            self.release(piece)
        if self._own is not None:
            self._own.release()
            self._own = None

    def others(self) -> bool:
        """Whether another process takes part."""
        for path in self._folder.glob("worker-*.lock"):
            if self._own is not None and Path(self._own.lock_file) == path:
                continue
            if (lock := _try(path)) is None:
                return True
            lock.release()
        return False

    @contextmanager
    def removed_by_the_last(self) -> Iterator[None]:
        """Remove the lock files after this, unless another process takes part; none may join meanwhile."""
        try:
            yield
        finally:
            if self._own is not None and not self.others():
                shutil.rmtree(self._folder, ignore_errors=True)

    def rounds(self, pieces: Sequence[int], is_missing: Callable[[int], bool]) -> Iterator[Iterator[int]]:
        """Claim pieces until none is missing; those that others hold are waited for, and taken where they give up.

        Args:
            pieces: the numbers of all.
            is_missing: whether nobody has finished a piece yet.

        Yields:
            Pieces to make, each claimed when it is asked for; :meth:`release` each when it is made.
        """
        told = False
        while left := [piece for piece in pieces if self._is_missing(piece, is_missing)]:
            taken = self._taken(left, is_missing)
            first = next(taken, None)
            if first is not None:
                yield itertools.chain([first], taken)
                continue
            if not told:
                logger.info("waiting for other processes, which make the last %d pieces", len(left))
                told = True
            time.sleep(_PAUSE)

    def release(self, piece: int) -> None:
        """Give back the claim of a piece."""
        self._held.pop(piece).release()

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Do what one process at a time may do, the others waiting."""
        lock = FileLock(self._folder / f"{name}.lock")
        acquire(lock)
        try:
            yield
        finally:
            lock.release()

    def _taken(self, pieces: Sequence[int], is_missing: Callable[[int], bool]) -> Iterator[int]:
        for piece in pieces:
            if (lock := _try(self._folder / f"piece-{piece}.lock")) is None:
                continue
            if self._is_missing(piece, is_missing):  # its last holder may have finished it
                self._held[piece] = lock
                yield piece
            else:
                lock.release()

    def _is_missing(self, piece: int, is_missing: Callable[[int], bool]) -> bool:
        # In this order: a piece goes from where it is made when the artifact is there.
        return is_missing(piece) and not self._done()


def _try(path: Path) -> FileLock | None:
    lock = FileLock(path, thread_local=False)
    try:
        acquire(lock, timeout=0)
    except Timeout:
        return None
    return lock
