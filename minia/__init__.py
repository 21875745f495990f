"""minIA: discover the visual structures that recur across an image collection, without labels.

The library in one look::

    run = minia.mine("folder", dir="photos", vocabulary={"size": 2000})
    run = minia.load("outputs/RUN")
    run.structures, run.images_of(3), run.show(3)

Nothing heavy is imported before it is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from minia.core.version import __version__

if TYPE_CHECKING:
    from minia.command_line.library import mine, train
    from minia.core.artifact import InputError
    from minia.run import Run, load

__all__ = ["InputError", "Run", "__version__", "load", "mine", "train"]

_PLACES = {
    "InputError": "minia.core.artifact",
    "Run": "minia.run",
    "load": "minia.run",
    "mine": "minia.command_line.library",
    "train": "minia.command_line.library",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
