"""Reads a network out of a ``pt2`` file that ``export_delf`` wrote: its weights alone, no program and no pickle.

The file is an archive of torch.export, a zip without compression (torch's "PT2 Archive Spec"): a folder holds
``data/weights/model_weights_config.json``, which says of each weight its type, shape, strides and file, these files,
raw numbers in the byte order that the file ``byteorder`` names, and ``extra/metadata.json``, written by minIA. The
program that it holds too has its scales and limits fixed; the network that is built again here from its weights has
not, so that every setting of ``features=delf`` applies to it as to a TorchScript file.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minia.core.artifact import InputError
from minia.models.delf.local_features import LocalFeatures
from minia.models.delf.network import DELF

METADATA_FILE = "metadata.json"
_FORMAT = "/archive_format"  # what the name of a file ends in that archives of torch.export alone hold
_WEIGHTS = "data/weights/"
_CONFIG = "model_weights_config.json"
_FLOAT32, _STRIDED = 7, 7  # torch's numbers of the type and of the layout
_PREFIX = "local."  # the module that holds the network in the program
_ARGUMENTS = ("backbone", "stride_in_1x1", "block3_stride", "attention_channels")
_MOST_BYTES = 1 << 32  # of a weight


def archive_names(path: Path) -> list[str]:
    """The names of what a zip archive holds; none of another file."""
    if not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def is_pt2(path: Path) -> bool:
    """Whether a file is an archive of torch.export."""
    return any(name.endswith(_FORMAT) for name in archive_names(path))


def load_pt2(path: Path) -> tuple[LocalFeatures, dict[str, Any]]:
    """The extraction part of a pt2 file, on the CPU, and the metadata.

    Raises:
        InputError: the file is missing or damaged, or ``export_delf`` did not write it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any("/data/aotinductor/" in name for name in names):
                raise InputError(
                    f"{path} is compiled, with settings that are fixed; allowed: a pt or pt2 file that train.py"
                    " exported, or its checkpoint"
                )
            root = next(name for name in names if name.endswith(_FORMAT)).removesuffix(_FORMAT) + "/"
            metadata = json.loads(archive.read(f"{root}extra/{METADATA_FILE}"))
            weights = _weights(archive, root)
        given = metadata["network"]
        if missing := [name for name in _ARGUMENTS if name not in given]:
            raise InputError(f"{path} was exported by an earlier minIA and does not tell {', '.join(missing)}")
        with torch.random.fork_rng(devices=[]):  # the weights that are drawn at first are overwritten
            network = DELF(
                num_classes=1,
                reduction=int(given["descriptor_size"]),
                backbone=str(given["backbone"]),
                stride_in_1x1=bool(given["stride_in_1x1"]),
                block3_stride=bool(given["block3_stride"]),
                attention_channels=int(given["attention_channels"]),
            )
        local = LocalFeatures(network)
        local.load_state_dict(weights)
    except (StopIteration, KeyError, ValueError, TypeError, RuntimeError, OSError, zipfile.BadZipFile) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is not a pt2 file that train.py exported: {why}") from None
    return local, metadata


def _weights(archive: zipfile.ZipFile, root: str) -> dict[str, Tensor]:
    order = archive.read(f"{root}byteorder").decode("ascii").strip()
    if order not in ("little", "big"):
        raise ValueError(f"its byte order is {order!r}")
    config = json.loads(archive.read(root + _WEIGHTS + _CONFIG))["config"]
    number = np.dtype(np.float32).newbyteorder("<" if order == "little" else ">")
    return {
        name.removeprefix(_PREFIX): _weight(archive, root + _WEIGHTS, entry, number)
        for name, entry in config.items()
        if name.startswith(_PREFIX)
    }


def _weight(archive: zipfile.ZipFile, folder: str, entry: dict[str, Any], number: np.dtype[Any]) -> Tensor:
    """A weight, from its raw numbers; none outside them is read."""
    meta = entry["tensor_meta"]
    if entry["use_pickle"] or meta["dtype"] != _FLOAT32 or meta["layout"] != _STRIDED:
        raise ValueError("a weight is not stored as plain float32")
    sizes, strides = ([int(each["as_int"]) for each in meta[key]] for key in ("sizes", "strides"))
    first = int(meta["storage_offset"]["as_int"])
    info = archive.getinfo(folder + str(entry["path_name"]))
    if info.file_size > _MOST_BYTES or info.compress_size != info.file_size:
        raise ValueError(f"a weight of {info.file_size} bytes")
    numbers = np.frombuffer(archive.read(info), number).astype(np.float32)
    reach = first + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True)) + 1
    if min([first, *sizes, *strides], default=0) < 0 or 0 in sizes or reach > len(numbers):
        raise ValueError("a weight reaches beyond its file")
    return torch.from_numpy(numbers).as_strided(sizes, strides, first).clone()
