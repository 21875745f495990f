"""The bags of words and the structures as text for the Sampled-MinHashing programs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from minia.core.artifact import InputError
from minia.export.parts import structures_of
from minia.mining.words.stage import load_images

_FILES = (("words", "bags.corpus"), ("mining", "cooccurring_sets.txt"))
IMAGE_NAMES = "images.txt"


def write_smh(artifacts: Mapping[str, Path], folder: Path) -> list[str]:
    """Copy ``bags.corpus``, ``cooccurring_sets.txt`` and ``structures.txt``, as far as the run has them.

    ``images.txt`` gives the name of the image of each line of the bags.

    Returns:
        The names of the files.

    Raises:
        InputError: the run has none of them.
    """
    found = [(artifacts[stage] / name) for stage, name in _FILES if stage in artifacts]
    found = [path for path in (*found, structures_of(artifacts)) if path is not None and path.is_file()]
    if not found:
        raise InputError("the run holds no bags of words and no structures")
    for path in found:
        shutil.copyfile(path, folder / path.name)
    names = [path.name for path in found]
    if "words" in artifacts:
        lines = (name.replace("\n", " ") for name in load_images(artifacts["words"])["image"])
        (folder / IMAGE_NAMES).write_text("".join(f"{name}\n" for name in lines), encoding="utf-8")
        names.append(IMAGE_NAMES)
    return names
