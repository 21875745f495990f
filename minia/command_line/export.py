"""``minia export``: a finished run in the format of another program."""

from __future__ import annotations

import argparse
from pathlib import Path

from minia.command_line.messages import print_error
from minia.command_line.parser import Parser
from minia.core.artifact import InputError
from minia.export.formats import FORMATS

_ABOUT = """A finished run in the format of another program, as files in a new folder.

  minia export RUN FORMAT [--output FOLDER] [--structures N ...]

formats
{formats}"""


def export(words: list[str]) -> int:
    """Run ``minia export`` with the words that follow it; returns the exit code."""
    width = max(map(len, FORMATS))
    formats = "\n".join(f"  {name.ljust(width)}  {about}" for name, about in FORMATS.items())
    parser = Parser(
        "minia export",
        usage="minia export RUN FORMAT [--output FOLDER] [--structures N ...]",
        description=_ABOUT.format(formats=formats),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument("format", metavar="FORMAT", help="one of the formats above")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="a new folder; RUN/export/FORMAT unless given")
    parser.add_argument("--structures", type=int, nargs="+", metavar="N", help="only these; all unless given")
    try:
        given = parser.parse_args(words)
        from minia.run import load  # brings pandas: errors in the words come first

        for path in load(given.run).export(given.format, given.output, given.structures):
            print(path)
        return 0
    except (InputError, OSError, KeyboardInterrupt) as error:
        return print_error(error)
