"""How the programs' log is written: one line an event, whatever names it holds, and no noise where the disk is full."""

from __future__ import annotations

import logging
import sys


class Line(logging.Formatter):
    """Writes each event as one line: a line break or an escape, as in a file's name, cannot forge another."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802, its name in the standard library
        """The event's line."""
        text = super().formatMessage(record).replace("\t", "    ")
        return text if text.isprintable() else "".join(map(_visible, text))


class RunLog(logging.FileHandler):
    """The log file of a run. Where it cannot be written, that is told once, and the run goes on without it."""

    _failed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write an event."""
        if not self._failed:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, likewise
        """Say why the log ends here."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        if not self._failed:
            self._failed = True
            print(f"{self.baseFilename}: the log cannot be written: {error.strerror}", file=sys.stderr)


def log_to_stderr() -> None:
    """Let the log be seen by who called a command that keeps none of its own."""
    handler = logging.StreamHandler()
    handler.setFormatter(Line("%(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


def _visible(letter: str) -> str:
    # A lone surrogate stands for a byte of a name that is not valid UTF-8, and cannot be written as it is.
    return letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
