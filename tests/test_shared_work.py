"""Several processes share the shards of one artifact, whatever becomes of some of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_features import artifact_bytes, extract, folder_images

from minia.core.artifact import InputError, Stage, _versions
from minia.core.claims import Claims

ROOT = Path(__file__).resolve().parents[1]
# A worker that takes a while for a piece, so that others are there in time, and tells which pieces it made.
WORKER = """
import sys, time
from pathlib import Path
from minia.core.artifact import Stage
from minia.core.writing import appearing_whole

store, told = Path(sys.argv[1]), Path(sys.argv[2])

def share(work, claims):
    told.with_suffix(".joined").touch()
    while not told.with_suffix(".go").exists():
        time.sleep(0.01)
    for pieces in claims.rounds(range(8), lambda piece: not (work / str(piece)).exists()):
        for piece in pieces:
            with appearing_whole(work / str(piece)) as file:
                file.write_text(f"piece {piece}")
                time.sleep(0.15)
            claims.release(piece)
            with told.open("a") as stream:
                stream.write(f"{piece}\\n")

def join(work):
    with told.open("a") as stream:
        stream.write("joined\\n")
    return {"pieces": len(list(work.glob("[0-9]")))}

Stage("count", "pieces", store, {}, resumable=True).run(join, share)
"""

# The extraction of images, each shard with a pause before it is written, and told before that.
EXTRACTING = """
import sys, time
from pathlib import Path
from test_features import extract, folder_images
from minia.mining.features.write import ShardWriter

write = ShardWriter._write_shard
store, folder, pause = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])

def pausing(self, shard, *arguments):
    print("writing", shard, flush=True)
    time.sleep(pause)
    write(self, shard, *arguments)

ShardWriter._write_shard = pausing
extract(folder_images(store, folder), store, shard_images=2)
"""


def start(folder: Path, name: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WORKER, str(folder), str(folder / name)]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not come")


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is another thing on Windows")
def test_three_workers_of_which_one_is_killed_make_each_piece_once(tmp_path: Path) -> None:
    doomed, *others = [start(tmp_path, name) for name in ("doomed", "b", "c")]
    for name in ("doomed", "b", "c"):
        wait_for(tmp_path / f"{name}.joined")
    for name in ("doomed", "b", "c"):
        (tmp_path / f"{name}.go").touch()
    wait_for(tmp_path / "doomed")
    doomed.send_signal(signal.SIGKILL)  # in the middle of a piece
    doomed.communicate()
    for each in others:
        _, told = each.communicate(timeout=60)
        assert each.returncode == 0, told
    stage = Stage("count", "pieces", tmp_path, {}, resumable=True)
    made = [line for name in ("doomed", "b", "c") for line in (tmp_path / name).read_text().split()]
    assert sorted(made) == [*map(str, range(8)), "joined"]  # each piece once, and joined once
    assert min(len((tmp_path / name).read_text().split()) for name in ("b", "c")) >= 2  # both had a part in it
    assert {path.name for path in stage.path.iterdir()} == {*map(str, range(8)), "manifest.json"}
    assert {path.suffix for path in (tmp_path / "count").iterdir() if path != stage.path} <= {".lock"}


def test_work_of_others_with_other_versions_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage("count", "pieces", tmp_path, {}, resumable=True)

    def share(work: Path, claims: Claims) -> None:
        (work / "piece").touch()
        now = _versions() | {"numpy": "another"}
        with monkeypatch.context() as patched, pytest.raises(InputError, match="is making it: numpy was"):
            patched.setattr("minia.core.artifact._versions", lambda: now)
            stage.run(lambda work: {}, lambda work, claims: None)
        assert (work / "piece").exists()

    stage.run(lambda work: {}, share)
    assert stage.done


def test_a_damaged_artifact_is_shared_anew(tmp_path: Path) -> None:
    stage = Stage("count", "pieces", tmp_path, {}, resumable=True)
    for _ in range(2):
        stage.run(lambda work: {}, lambda work, claims: np.save(work / "piece.npy", np.arange(3)))
        assert np.load(stage.path / "piece.npy").tolist() == [0, 1, 2]
        (stage.path / "piece.npy").write_bytes(b"")


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is another thing on Windows")
def test_extraction_by_two_of_which_one_is_killed_gives_the_bytes_of_one(tmp_path: Path, image_folder: Path) -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}

    def start(store: str, pause: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", EXTRACTING, str(tmp_path / store), str(image_folder), str(pause)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    doomed = start("shared", 60)
    assert doomed.stdout is not None
    assert doomed.stdout.readline() == "writing 0\n"
    other = start("shared", 0)
    assert other.stdout is not None
    assert other.stdout.readline() == "writing 1\n"
    doomed.send_signal(signal.SIGKILL)
    doomed.communicate()
    written, told = other.communicate(timeout=300)
    assert other.returncode == 0, told
    assert written.split() == ["writing", "2", "writing", "3", "writing", "4", "writing", "5", "writing", "0"]
    one = extract(folder_images(tmp_path / "one", image_folder), tmp_path / "one", shard_images=2)
    [many] = tmp_path.glob("shared/features/sift-*")
    assert artifact_bytes(one) == artifact_bytes(many)
