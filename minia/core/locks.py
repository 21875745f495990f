"""Locks between processes, on file systems that may have none."""

from __future__ import annotations

import errno
import warnings

from filelock import FileLock, Timeout

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)


class NoLocksError(OSError):
    """The file system has no locks, so that two processes could harm each other's work."""


def acquire(lock: FileLock, timeout: float = -1) -> None:
    """Acquire a lock. Where the file system does not know how, a file that is there stands for the lock.

    Args:
        lock: it.
        timeout: seconds after which to give up, 0: at once; negative: never.

    Raises:
        Timeout: another process holds it.
        NoLocksError: the file system refuses.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "flock not supported")
            lock.acquire(timeout=timeout)
    except Timeout:
        raise
    except OSError as error:
        if error.errno in _NO_LOCKS:
            told = "the file system gives no locks (allowed: a store and a folder for the run on another drive)"
            raise NoLocksError(error.errno, told, lock.lock_file) from None
        raise
