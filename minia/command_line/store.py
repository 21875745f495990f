"""``minia store``: what a store of artifacts holds, how large, which runs use it; what is damaged or no run needs."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from minia.command_line.messages import print_error
from minia.command_line.parser import Parser
from minia.core.artifact import InputError, damage_of
from minia.core.run_folder import is_running
from minia.core.store import artifacts_of, leftovers_of, needed_by, runs_of

_ABOUT = """What a store of artifacts holds, how large it is, and which runs use it.

  minia store                          the store of the runs below outputs/
  minia store PATH                     another one
  minia store check [PATH]             whether the files of all artifacts are what was written
  minia store clean [PATH] [--yes]     remove what no run needs, after saying what"""


def store(words: list[str]) -> int:
    """Run ``minia store`` with the words that follow it; returns the exit code."""
    parser = Parser("minia store", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="[check|clean] [PATH]")
    parser.add_argument("--yes", action="store_true", help="clean without asking")
    try:
        given = parser.parse_intermixed_args(words)
        command = given.words[0] if given.words[:1] in (["check"], ["clean"]) else ""
        paths = given.words[bool(command) :] or ["outputs/store"]
        if len(paths) > 1:
            parser.error(f"expected one path, given {len(paths)}")
        folder = Path(paths[0])
        if not folder.is_dir():
            raise InputError(f"minia store: {folder}: there is no such folder; allowed: the path of a store")
        if command == "check":
            return _check(folder)
        return _clean(folder, given.yes) if command == "clean" else _show(folder)
    except (InputError, OSError, KeyboardInterrupt) as error:
        return print_error(error)


def _show(folder: Path) -> int:
    artifacts, runs = artifacts_of(folder), runs_of(folder)
    used: dict[Path, list[str]] = defaultdict(list)
    for run in runs:
        for artifact in needed_by(run, artifacts):
            used[artifact.path].append(os.path.relpath(run.path, folder.absolute().parent))
    rows = [("artifact", "MB", "runs")]
    rows += [(each.name, _megabytes(each.size), ", ".join(sorted(used[each.path])) or "none") for each in artifacts]
    _print_table(rows)
    total, unused = sum(each.size for each in artifacts), [each for each in artifacts if not used[each.path]]
    print(f"\n{len(artifacts)} artifacts, {_megabytes(total)} MB, used by {len(runs)} runs: {folder}")
    left = leftovers_of(folder)
    if unused or left:
        size = sum(each.size for each in (*unused, *left))
        print(f"no run needs {len(unused)} of them, and {len(left)} are unfinished: minia store clean {folder}"
              f" would free {_megabytes(size)} MB")  # fmt: skip
    return 0


def _check(folder: Path) -> int:
    """Compare every file with its checksum; 1 where one is damaged."""
    artifacts = artifacts_of(folder)
    damaged = [(each.name, damage) for each in artifacts if (damage := damage_of(each.path))]
    for name, damage in damaged:
        print(f"{name}: {damage}")
    size = _megabytes(sum(each.size for each in artifacts))
    print(f"{len(artifacts)} artifacts, {size} MB: {len(damaged) or 'none'} damaged; a run makes anew what it needs")
    return int(bool(damaged))


def _clean(folder: Path, sure: bool) -> int:
    artifacts, runs = artifacts_of(folder), runs_of(folder)
    for run in runs:
        if is_running(run.path):
            raise InputError(f"{run.path}: a run is going on; allowed: minia store clean when it has ended")
    needed = {artifact.path for run in runs for artifact in needed_by(run, artifacts)}
    going = [artifact for artifact in (*artifacts, *leftovers_of(folder)) if artifact.path not in needed]
    if not going:
        print(f"{folder}: {len(runs)} runs need all that is there")
        return 0
    _print_table([("no run needs", "MB"), *((each.name, _megabytes(each.size)) for each in going)])
    print(f"\n{len(going)} of {len(artifacts)}, {_megabytes(sum(each.size for each in going))} MB; {len(runs)} runs"
          " need the others. A run that was moved away from its store is not known here.")  # fmt: skip
    if not sure:
        if not sys.stdin.isatty():
            raise InputError("minia store clean: nothing was removed; allowed where no one can be asked: --yes")
        if input("Remove them? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was removed")
            return 0
    for artifact in going:
        shutil.rmtree(artifact.path)
    print("removed")
    return 0


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.rjust(width) if place == 1 else cell.ljust(width)
                        for place, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip())  # fmt: skip


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}"
