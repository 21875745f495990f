"""What is odd or made to harm: nothing ends a run unnamed, takes memory without bound or gets outside."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fuzz_targets import feature_files
from odd_images import write_odd_images

from minia.data.files import IMAGE_SUFFIXES

ROOT = Path(__file__).resolve().parents[1]
NUM_IMAGES = int(os.environ.get("MINIA_ODD_IMAGES", "100"))  # 2000 take some minutes
MEMORY = 4 << 30  # bytes of data, some of which the libraries take before they do anything
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, ({0}, {0}))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from minia.command_line.commands import mine
if __name__ == "__main__":
    sys.exit(mine())
"""
CASES = """
import contextlib, io, json, resource, signal, sys
resource.setrlimit(resource.RLIMIT_DATA, ({0}, {0}))
from minia.command_line.commands import mine

def waited(*_):
    raise RuntimeError("it waits")

signal.signal(signal.SIGALRM, waited)
results = dict()
for name, words in json.load(open("cases.json")).items():
    sys.argv = ["mine.py", *words, "device=cpu", "num_workers=1"]
    told = io.StringIO()
    signal.alarm(30)
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        code = mine()
    signal.alarm(0)
    results[name] = code, [line for line in told.getvalue().splitlines() if not line[:2].isdigit()]
print(json.dumps(results))
"""
Spoil = Callable[[Path], list[str]]  # writes into a folder, and tells the settings of a run that reads it

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the data of a process in this way")


def mine_bounded(tmp_path: Path, *overrides: str, memory: int = MEMORY) -> subprocess.CompletedProcess[str]:
    """Run mine.py in a process that can have no more than so much memory."""
    script = tmp_path / "bounded.py"
    script.write_text(LIMITED.format(memory))
    places = [f"store={tmp_path / 'store'}", f"hydra.run.dir={tmp_path / 'run'}", "device=cpu", "num_workers=1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, script, *overrides, *places],
        capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=1500, errors="backslashreplace",
    )  # fmt: skip


def image_files(folder: Path) -> list[str]:
    """Names of what is named like an image, as the images stage tells them."""
    found = []
    for parent, _, files in os.walk(os.fsencode(folder)):
        for name in files:
            path = os.fsdecode(os.path.join(parent, name))  # noqa: PTH118
            if not name.startswith(b".") and path.lower().endswith(IMAGE_SUFFIXES):
                found.append(os.path.relpath(path, folder))
    return found


@linux
def test_odd_images_are_used_or_named_and_end_no_run(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    write_odd_images(folder, NUM_IMAGES, seed=0)
    written = image_files(folder)
    outside = sorted(tmp_path.iterdir())
    choices = ["images=folder", f"images.dir={folder}", "features=sift", "features.objects=none", "stages=[features]"]
    done = mine_bounded(tmp_path, *choices)
    assert done.returncode == 0, done.stderr[-3000:]
    [artifact] = (tmp_path / "store" / "features").glob("sift-*")
    [listed] = (tmp_path / "store" / "images").glob("folder-*")
    used = set(pd.read_parquet(artifact / "images.parquet")["image"])
    failed = pd.read_csv(artifact / "failed.csv", dtype=str, keep_default_na=False)
    skipped = pd.read_csv(listed / "skipped.csv", dtype=str, keep_default_na=False)
    assert used and len(failed) and len(skipped)
    told = [*used, *failed["image"], *skipped["image"]]
    assert len(told) == len(set(told))
    escaped = {os.fsencode(name).decode("utf-8", "backslashreplace") for name in written}
    assert set(told) == escaped
    assert all(failed["reason"]) and all(skipped["reason"])
    lines = done.stderr.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d  ", line) for line in lines), "a name forged a line"
    assert sorted(tmp_path.iterdir()) == sorted(
        {*outside, *(tmp_path / name for name in ("bounded.py", "run", "store"))}
    )


def listdb(text: bytes) -> Spoil:
    """Bags of words with that content."""

    def write(folder: Path) -> list[str]:
        (folder / "a.corpus").write_bytes(text)
        return ["words=listdb", f"words.path={folder / 'a.corpus'}", "stages=[mining]", "mining.num_tuples=50"]

    return write


def features(name: str, content: bytes | None) -> Spoil:
    """Features made elsewhere with that file; None: it is a pipe."""

    def write(folder: Path) -> list[str]:
        for each, whole in feature_files().items():
            (folder / "f" / each).parent.mkdir(parents=True, exist_ok=True)
            (folder / "f" / each).write_bytes(whole)
        (folder / "f" / name).unlink(missing_ok=True)
        if content is None:
            os.mkfifo(folder / "f" / name)
        else:
            (folder / "f" / name).write_bytes(content)
        return ["features=artifact", f"features.path={folder / 'f'}", "vocabulary.size=2", "stages=[words]"]

    return write


def vocabulary(content: bytes | None) -> Spoil:
    """Features and centroids made elsewhere."""

    def write(folder: Path) -> list[str]:
        if content is None:
            os.mkfifo(folder / "v.npy")
        else:
            (folder / "v.npy").write_bytes(content)
        given = features("source.json", feature_files()["source.json"])(folder)[:2]
        return [*given, "vocabulary=artifact", f"vocabulary.path={folder / 'v.npy'}", "stages=[words]"]

    return write


def huge_manifest(folder: Path) -> list[str]:
    """A manifest of 8 GB, most of which is nowhere on the disk."""
    given = features("source.json", feature_files()["source.json"])(folder)
    with (folder / "f" / "manifest.json").open("r+b") as stream:
        stream.truncate(8 << 30)
    return given


def claimed(shape: str, kind: str = "<f4") -> bytes:
    """A ``.npy`` file that claims a shape and has next to nothing."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(64)


def evil_pickle(path: Path) -> bytes:
    """A ``.npy`` file of an object that makes a file where it is unpickled."""

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(path),)

    array = np.empty(1, object)
    array[0] = Evil()
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def table_of(**columns: list[int]) -> bytes:
    """The table of images of features made elsewhere, with other columns."""
    table = pd.read_parquet(io.BytesIO(feature_files()["images.parquet"]))
    return table.assign(**columns).to_parquet(index=False)


def manifest_with(old: bytes, new: bytes) -> bytes:
    """The manifest of features made elsewhere, changed."""
    return feature_files()["manifest.json"].replace(old, new)


MALICIOUS: dict[str, Spoil] = {
    "an item of 4,000,000,000": listdb(b"1 4000000000:1\n"),
    "an item of 2,000,000,000": listdb(b"1 2000000000:1\n2 1:1 2:1\n"),
    "a line that claims 4,000,000,000 items": listdb(b"4000000000 1:1\n"),
    "a line without end": listdb(b"1" * 50_000_000),
    "a frequency beyond any": listdb(b"1 1:99999999999999999999\n"),
    "an array that claims petabytes": features("shard-00000/descriptors.npy", claimed("(1000000000000, 8)", "|u1")),
    "an array with a negative side": features("shard-00000/sizes.npy", claimed("(-3,)")),
    "an array of 30 dimensions": features("shard-00000/sizes.npy", claimed(str((2,) * 30))),
    "an array that is a pipe": features("shard-00000/scores.npy", None),
    "a table that is a pipe": features("images.parquet", None),
    "a manifest that is a pipe": features("manifest.json", None),
    "a source that is a pipe": features("source.json", None),
    "a manifest that is a number": features("manifest.json", b"3"),
    "a manifest that is null": features("manifest.json", b"null"),
    "a manifest nested without end": features("manifest.json", b"[" * 200_000),
    "a manifest of 8 GB": huge_manifest,
    "counts that are text": features("manifest.json", manifest_with(b'{"num_shards": 1}', b'"x"')),
    "shards without number": features("manifest.json", manifest_with(b'_shards": 1', b'_shards": 1e18')),
    "more keypoints than there can be": features("images.parquet", table_of(num_keypoints=[1, 2**30])),
    "centroids that claim petabytes": vocabulary(claimed("(1000000000000, 8)")),
    "centroids that are a pipe": vocabulary(None),
    "centroids in an archive": vocabulary(b"PK\x03\x04" + bytes(100)),
}  # fmt: skip


@linux
def test_malicious_artifacts_are_refused_in_one_line_within_bounds(tmp_path: Path) -> None:
    """All in one process, which takes seconds to start; one that waits for a pipe is ended by the clock."""
    evil = tmp_path / "evil"
    cases = MALICIOUS | {
        "an array of objects": features("shard-00000/scores.npy", evil_pickle(evil)),
        "centroids that are objects": vocabulary(evil_pickle(evil)),
    }
    told: dict[str, list[str]] = {}
    for number, (name, spoil) in enumerate(cases.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        told[name] = [*spoil(folder), f"store={folder / 'store'}", f"hydra.run.dir={folder / 'run'}"]
    (tmp_path / "cases.json").write_text(json.dumps(told))
    (tmp_path / "bounded.py").write_text(CASES.format(MEMORY))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "bounded.py"], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout.splitlines()[-1])
    for name, (code, lines) in results.items():
        if not (code == 2 and len(lines) == 1):
            continue
        assert code == 2 and len(lines) == 1 and lines[0].startswith("error: "), (name, code, lines[-5:])
        assert len(lines[0]) < 600, name
    assert results.keys() == cases.keys()
    assert not evil.exists()
