"""``minia compare``: one table and one plot across runs, also of several sweeps and of different days."""

from __future__ import annotations

import argparse
from pathlib import Path

from minia.command_line.messages import print_error
from minia.command_line.parser import Parser
from minia.command_line.signals import signals_interrupt
from minia.core.artifact import InputError
from minia.core.run_folder import SUMMARY, RunFolder, claimed

_ABOUT = """One table, summary.csv, and one plot, summary.png, across finished runs: their metrics, and the settings in
which they differ.

  minia compare outputs/2026-11-2*            runs and sweeps of these days
  minia compare outputs --output everything   all runs in a folder and below"""


def compare(words: list[str]) -> int:
    """Run ``minia compare`` with the words that follow it; returns the exit code."""
    parser = Parser(
        "minia compare",
        usage="minia compare FOLDER [FOLDER ...] [--output FOLDER]",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="of a run, of a sweep, or of several")
    parser.add_argument("--output", type=Path, default=Path("comparison"), metavar="FOLDER", help="where to write")
    try:
        given = parser.parse_args(words)
        with signals_interrupt():
            runs = _runs_in(given.folders)
            if not runs:
                raise InputError(f"{', '.join(map(str, given.folders))}: there is no finished run")
            if RunFolder.read(given.output).command not in ("", "compare"):
                raise InputError(f"--output {given.output}: the folder of a run; allowed: another folder")
            from minia.command_line.sweep import write_summary  # brings pandas: errors in the words come first

            with claimed(given.output, "compare", SUMMARY) as folder, folder.replacing(*SUMMARY):
                write_summary(folder.path, runs)
    except KeyboardInterrupt as error:
        error.args = error.args or ("nothing was written",)
        return print_error(error)
    except (InputError, OSError) as error:
        return print_error(error)
    print(f"{len(runs)} runs: {', '.join(str(given.output / name) for name in SUMMARY)}")
    return 0


def _runs_in(folders: list[Path]) -> dict[str, Path]:
    """The finished runs in folders and below, by their paths: the folders in the order given, jobs by their numbers."""
    runs: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: there is no such folder")
        found = [path.parent for path in folder.rglob("metrics.json") if (path.parent / "config.yaml").is_file()]
        found = [path for path in found if RunFolder.read(path).command in ("mine", "train")]
        runs |= {path.as_posix(): path for path in sorted(found, key=_order)}
    return runs


def _order(path: Path) -> list[tuple[int, str]]:
    """Numbers in a path by what they are, 9 before 10."""
    return [(len(part), part) if part.isdigit() else (0, part) for part in path.parts]
