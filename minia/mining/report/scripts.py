"""Data for the page as scripts: a page opened from disk may load scripts, while fetching files is barred to it.

A script calls one function of the page with a key and a value: ``minia.got("overview",{...})``. The page loads a script
when it needs the value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DATA = "data"


class Scripts:
    """Writes values as scripts.

    Args:
        report: the report's folder; the scripts go to its folder ``data``.
    """

    def __init__(self, report: Path) -> None:
        self.folder = report / DATA
        self.folder.mkdir(exist_ok=True)

    def write(self, key: str, value: Any) -> None:
        """Write ``data/KEY.js``, in ASCII: a name may hold what no encoding of text allows.

        Args:
            key: letters, digits and hyphens, ours.
            value: what JSON holds, without numbers that are not finite.
        """
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
        (self.folder / f"{key}.js").write_text(f'minia.got("{key}",{text});\n', encoding="ascii")


def rounded(values: Iterable[float], decimals: int) -> list[float | None]:
    """Numbers of so many decimals, None for those that are not finite."""
    return [round(float(value), decimals) if math.isfinite(value) else None for value in values]


def significant(value: float) -> float | None:
    """A number of three significant digits, None where it is not finite."""
    return float(f"{value:.3g}") if math.isfinite(value) else None
