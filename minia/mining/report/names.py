"""Names that a reader gave to structures on the page, which saves them as JSON.

The file is an object with ``report``, which says of which structures the names are, and ``names``, an object of
structure numbers and names: ``{"report": "0123456789ab", "names": {"3": "edge-on with bulge"}}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from minia.core.artifact import InputError, read_manifest
from minia.core.foreign import read_json

_MOST_LETTERS = 200


def report_id(artifacts: Mapping[str, Path]) -> str:
    """What tells these structures from those of other runs, as the page saves it with their names.

    Args:
        artifacts: by the name of their stage.
    """
    return str(read_manifest(artifacts["mining"])["fingerprint"])[:12]


def read_names(path: Path, report: str) -> dict[str, str]:
    """The names in a file that the page saved, by the structure's number as text.

    Args:
        path: the file.
        report: what :func:`report_id` says of the structures to be named.

    Raises:
        InputError: it is no such file, or its names are of other structures.
    """
    given = f"report.names={path}"
    try:
        content = read_json(path)
        names = {str(int(number)): str(name)[:_MOST_LETTERS] for number, name in content["names"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise InputError(f"{given}: expected the JSON that the page of a report saves as its names") from None
    if content.get("report") != report:
        raise InputError(f"{given}: these names are of the structures of another run")
    return names
