"""What ``--help`` prints: examples, and the choices of the program's own groups."""

from __future__ import annotations

import re
from pathlib import Path

_DEFAULT = re.compile(r"^ +- (\w+): (\w+)", re.MULTILINE)
_FLAGS = """flags:
  -m                 a sweep: key=value,value,... runs a job for each
  --cfg job          print all keys and their values
  --config-dir PATH  a folder with further choices, GROUP/NAME.yaml
  -sc install=bash   print what completes keys in a shell (also zsh, fish)"""


def help_text(program: str, about: str, name: str, folders: list[Path]) -> str:
    """The text.

    Args:
        program: how it is called: ``minia mine`` or ``python mine.py``.
        about: what it does, with ``PROGRAM`` for its name.
        name: of the main configuration: ``mine`` or ``train``.
        folders: of configuration, the own first; further ones may add choices.
    """
    defaults = {}
    if (folders[0] / f"{name}.yaml").is_file():
        defaults = dict(_DEFAULT.findall((folders[0] / f"{name}.yaml").read_text(encoding="utf-8")))
    rows = []
    for group, default in defaults.items():
        found = {path.stem for folder in folders for path in (folder / group).glob("*.yaml")}
        rows.append(f"  {group:<13} {', '.join(f'{each}*' if each == default else each for each in sorted(found))}")
    lines = [about.replace("PROGRAM", program), "", "choices (group=choice; * where none is given):", *rows, "", _FLAGS]
    return "\n".join(lines)
