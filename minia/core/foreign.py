"""Files that others may have written, read so that none is waited for and none takes more memory than it has bytes."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_OF_A_JSON = 1 << 28  # bytes; the manifest of an artifact of a million files has less


def read_json(path: Path) -> Any:
    """What a JSON file in UTF-8 holds.

    Raises:
        OSError: it is missing, or cannot be read.
        ValueError: it is a pipe or a device, is larger than 268 MB, is not JSON, or is nested without end.
    """
    _check_is_file(path)
    if path.stat().st_size > _MOST_OF_A_JSON:
        raise ValueError(f"{path.name} has more than {_MOST_OF_A_JSON:,} bytes")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None


def map_array(path: Path) -> NDArray[Any]:
    """The array of a ``.npy`` file, left on disk and mapped into memory; objects are never unpickled.

    Raises:
        OSError: the file is missing, or cannot be read.
        ValueError: it is a pipe or a device, holds no array of numbers, or has fewer bytes than its header claims.
    """
    import numpy as np  # what a command says of itself does without

    _check_is_file(path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # NumPy's parser of headers lets many kinds through
        raise ValueError(f"{path.name} holds no array: {error}") from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path.name} is an archive of arrays")
    return array


def _check_is_file(path: Path) -> None:
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path.name} is not a file")
