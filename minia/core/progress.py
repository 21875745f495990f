"""Progress of long work: a bar on a terminal and in a notebook, plain lines with rate and remaining time elsewhere."""

from __future__ import annotations

import importlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress(description: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show the progress of ``total`` units of work.

    Yields:
        A function to call with the number of units just done.
    """
    notebook = _in_notebook()
    if notebook or sys.stderr.isatty():
        # A notebook's own bar, where it can show one, takes time to import.
        bars = importlib.import_module("tqdm.auto" if notebook else "tqdm")
        with bars.tqdm(total=total, desc=description, unit=unit, dynamic_ncols=True) as bar:

            def advance(count: int) -> None:
                bar.update(count)

            yield advance
        return
    lines = _PlainLines(description, total, unit)
    yield lines.advance
    lines.finish()


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook; IPython is asked only where it is there already."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


class _PlainLines:
    """Logs one line every few seconds, for log files and batch jobs."""

    def __init__(self, description: str, total: int, unit: str) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done = 0
        self.started = self.last_line = time.monotonic()

    def advance(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.last_line >= _SECONDS_BETWEEN_LINES and self.done < self.total:
            self.last_line = now
            rate = self.done / (now - self.started)
            left = (self.total - self.done) / rate if rate > 0 else float("inf")
            logger.info(
                "%s: %d of %d %ss, %.1f a second, %.0f s left",
                self.description, self.done, self.total, self.unit, rate, left,
            )  # fmt: skip

    def finish(self) -> None:
        seconds = max(time.monotonic() - self.started, 1e-9)
        logger.info(
            "%s: %d %ss in %.1f s, %.1f a second",
            self.description, self.done, self.unit, seconds, self.done / seconds,
        )  # fmt: skip
