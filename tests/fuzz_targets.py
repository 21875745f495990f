"""Readers of files from elsewhere, each with whole files to begin from and the one way in which it may refuse."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.table import Table
from odd_images import FORMATS, encoded, picture

from minia.core.artifact import InputError, damage_of, read_manifest
from minia.core.run_folder import MARK, RunFolder
from minia.data.catalogue import Columns, read_catalogue
from minia.data.files import UnreadableImageError
from minia.data.reading import read_image
from minia.mining.features.store import ARRAYS, FeatureStore, HowExtracted
from minia.mining.lists.listdb import read_listdb
from minia.mining.vocabulary.stage import import_vocabulary

MANIFEST = {"stage": "features", "label": "sift", "fingerprint": "0" * 64, "seconds": 1.5, "parameters": {},
            "counts": {"num_shards": 1}, "files": {"a": {"bytes": 1, "sha256": "0"}}}  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        files: whole files that it reads, by the name that each has.
        read: reads the damaged file of a folder, in which the others are whole.
        refuses: what it may raise, in one line.
    """

    files: Mapping[str, bytes]
    read: Callable[[Path], object]
    refuses: type[Exception] = InputError

    def try_(self, folder: Path, name: str, data: bytes) -> str | None:
        """Read a folder in which one file was exchanged; what it was refused for, or None where it was not."""
        for each, whole in self.files.items():
            (folder / each).parent.mkdir(parents=True, exist_ok=True)
            (folder / each).write_bytes(data if each == name else whole)
        try:
            self.read(folder / name)
        except self.refuses as error:
            assert str(error) and "\n" not in str(error), repr(error)
            return str(error)
        return None


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def feature_files() -> dict[str, bytes]:
    """The files of a small features artifact: two images, three keypoints."""
    table = pd.DataFrame(
        {"image": ["a", "b"], "path": ["a.png", "b.png"], "width": [64, 64], "height": [64, 64], "shard": [0, 0],
         "first_keypoint": [0, 1], "num_keypoints": [1, 2]}
    )  # fmt: skip
    shapes = {"keypoints": (3, 2), "descriptors": (3, 8)}
    arrays: dict[str, np.ndarray] = {name: np.ones(shapes.get(name, (3,)), np.float32) for name in ARRAYS}
    arrays["descriptors"] = np.arange(24, dtype=np.uint8).reshape(3, 8)
    files = {f"shard-00000/{name}.npy": _npy(array) for name, array in arrays.items()}
    source = {"root": ".", "reading": {"stretch": "asinh", "bands": None, "max_pixels": 10**8}}
    return files | {
        "images.parquet": table.to_parquet(index=False),
        "manifest.json": json.dumps(MANIFEST).encode(),
        "source.json": json.dumps(source).encode(),
    }


def _read_features(path: Path) -> None:
    artifact = next(parent for parent in path.parents if (parent / "manifest.json").exists())
    store = FeatureStore.load(artifact)
    store.check()
    HowExtracted.of(artifact)


def _catalogues() -> dict[str, bytes]:
    table = pd.DataFrame({"id": ["a", "b", "c"], "path": ["a.png", "b.png", "c.png"], "z": [0.5, 1.5, 2.5]})
    files = {"t.csv": table.to_csv(index=False).encode(), "t.parquet": table.to_parquet(index=False)}
    for ending, kind in (("fits", "fits"), ("vot", "votable")):
        stream = io.BytesIO()
        Table.from_pandas(table).write(stream, format=kind)
        files[f"t.{ending}"] = stream.getvalue()
    text = io.StringIO()
    Table.from_pandas(table).write(text, format="ascii.ecsv")
    return files | {"t.ecsv": text.getvalue().encode()}


def _images() -> dict[str, bytes]:
    from random import Random

    return {f"a{suffix}": encoded(picture(Random(1), side=24), suffix) for suffix in FORMATS}


def _keras() -> dict[str, bytes]:
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.attrs["layer_names"] = [b"conv1", b"bn_conv1"]
        layers: dict[str, list[tuple[int, ...]]] = {"conv1": [(7, 7, 3, 4), (4,)], "bn_conv1": [(4,)] * 4}
        for layer, shapes in layers.items():
            names = [f"{layer}_{number}:0" for number in range(len(shapes))]
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, shape in zip(names, shapes, strict=True):
                group[name] = np.ones(shape, np.float32)
    return {"weights.h5": stream.getvalue()}


def _read_keras(path: Path) -> None:
    from minia.models.delf.keras_weights import _read, _renamed

    layers = _read(path)
    try:
        _renamed(layers)
    except ValueError as error:  # told as another network's
        raise InputError("of another network") from error


def _read_manifest(path: Path) -> None:
    damage_of(path.parent)
    read_manifest(path.parent)


def targets() -> dict[str, Target]:
    """All of them by name."""
    found = {
        "listdb": Target({"a.corpus": b"2 0:1 3:2\n0\n1 7:1\n"}, read_listdb),
        "manifest": Target({"manifest.json": json.dumps(MANIFEST).encode()}, _read_manifest),
        "mark": Target(
            {MARK: b'{"command": "mine", "store": "../s", "artifacts": {"words": "../s/w"}, "files": {"a": [1, ""]}}'},
            lambda path: RunFolder.read(path.parent),
        ),
        "catalogue": Target(_catalogues(), lambda path: read_catalogue(path, Columns("id", "path"))),
        "features": Target(feature_files(), _read_features),
        "vocabulary": Target(
            {"v.npy": _npy(np.ones((4, 8), np.float32))}, lambda path: import_vocabulary(path, path.parent / "store")
        ),
        "image": Target(_images(), read_image, UnreadableImageError),
    }
    try:
        return found | {"keras": Target(_keras(), _read_keras)}
    except ImportError:  # h5py is an extra
        return found
