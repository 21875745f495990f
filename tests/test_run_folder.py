"""A run replaces only what a run wrote, and one run at a time writes in a folder."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from minia.command_line.commands import mine, train
from minia.core.artifact import InputError, Stage
from minia.core.run_folder import LOCK, MARK, RunFolder, claimed
from minia.data.files import find_images

Run = Callable[..., int]
CORPUS = "4 0:1 1:1 2:1 3:1\n4 4:1 5:1 6:1 7:1\n" * 20  # two structures


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Mine a small corpus in this process, in the folder ``run`` (or ``sweep``) of tmp_path."""
    (tmp_path / "a.corpus").write_text(CORPUS)

    def run(*overrides: str, output: str = "run") -> int:
        chosen = [
            "words=listdb",
            f"words.path={tmp_path / 'a.corpus'}",
            "device=cpu",
            "mining.num_tuples=50",
            "report.num_shuffles=2",
        ]
        places = [f"store={tmp_path / 'store'}", f"hydra.run.dir={tmp_path / output}"]
        places.append(f"hydra.sweep.dir={tmp_path / output}")
        monkeypatch.setattr(sys, "argv", ["mine.py", *overrides, *chosen, *places])
        return mine()

    return run


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    "name", ["report/theirs.html", "config.yaml", "metrics.json", "structures.txt", "matches.parquet", "mine.log"]
)
@pytest.mark.parametrize("stages", ["stages=[mining]", "stages=[]"])
def test_files_of_others_stop_a_run_before_any_work(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, stages: str
) -> None:
    theirs = tmp_path / "run" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("years of work")
    before = content(tmp_path / "run")
    assert run(stages) == 2
    assert f"{theirs}: was not written by minIA" in error_of(capsys)
    assert content(tmp_path / "run") == before
    assert not (tmp_path / "store").exists()


def test_a_run_replaces_what_a_run_wrote(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run() == 0
    (folder / "notes.txt").write_text("theirs")
    assert (folder / "report" / "index.html").exists()
    assert run("stages=[mining]", "seed=1") == 0
    assert not (folder / "report").exists()
    assert not (folder / "matches.parquet").exists()
    assert (folder / "notes.txt").read_text() == "theirs"


@pytest.mark.parametrize("name", ["report/notes.txt", "structures.txt", "config.yaml"])
def test_what_was_added_or_changed_since_is_not_replaced(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert run() == 0
    capsys.readouterr()
    path = tmp_path / "run" / name
    path.write_bytes(path.read_bytes()[::-1] if path.exists() else b"theirs")  # of the same size
    before = content(tmp_path / "run")
    assert run("stages=[mining]", "seed=1") == 2
    assert str(path) in error_of(capsys)
    assert content(tmp_path / "run") == before


def test_links_are_not_followed(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "photo.jpg").write_text("photo")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report").symlink_to(tmp_path / "theirs")
    assert run() == 2
    assert "run/report: was not written by minIA" in error_of(capsys)
    assert (tmp_path / "theirs" / "photo.jpg").exists()


def test_what_a_killed_run_was_writing_is_replaced(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), claimed(tmp_path, "mine", ["report"]) as folder, folder.replacing("report"):
        (tmp_path / "report").mkdir()
        (tmp_path / "report" / "half.html").touch()
        raise KeyboardInterrupt
    with claimed(tmp_path, "mine", ["report"]) as folder:
        folder.refuse_of_others(["report"])


def test_what_a_killed_run_left_under_temporary_names_is_removed(run: Run, tmp_path: Path) -> None:
    assert run("stages=[mining]") == 0
    folder = tmp_path / "run"
    before = sorted(content(tmp_path))
    (folder / ".part-1-report" / "data").mkdir(parents=True)
    for name in (".part-1-report/data/half.js", ".part-2-structures.txt", f".part-3-{MARK}"):
        (folder / name).touch()
    [entry] = (tmp_path / "store" / ".runs").iterdir()
    entry.with_name(f".part-4-{entry.name}").touch()
    for name in (".part-x-report", ".part-5-theirs.txt"):
        (folder / name).touch()
    assert run("stages=[mining]") == 0
    assert sorted(content(tmp_path)) == sorted([*before, "run/.part-x-report", "run/.part-5-theirs.txt"])


def test_one_run_at_a_time(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / LOCK):
        assert run() == 2
        assert "run: another run is writing there" in error_of(capsys)
        assert not (tmp_path / "run" / "mine.log").exists()
    assert run() == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows locks by other means")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_drive_without_locks_is_told_or_a_file_stands_for_the_lock(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    code = run("stages=[mining]")
    if number == errno.ENOSYS:
        assert code == 0
        assert "warn" not in capsys.readouterr().err.lower()
        return
    assert code == 2
    assert error_of(capsys).startswith("error: the file system gives no locks (allowed: ")
    assert not (tmp_path / "run").exists()


def test_a_run_without_fruit_leaves_no_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.corpus").write_text("1 0:1\n2 0:1\n")
    assert run() == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["multirun.yaml", "summary.csv", "summary.png", "1/structures.txt"])
def test_files_of_others_stop_a_sweep_before_any_work(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    theirs = tmp_path / "sweep" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("years of work")
    before = content(tmp_path / "sweep")
    assert run("-m", "seed=1,2", output="sweep") == 2
    assert f"{theirs}: was not written by minIA" in error_of(capsys)
    assert content(tmp_path / "sweep") == before


def test_a_sweep_replaces_what_a_sweep_wrote(run: Run, tmp_path: Path) -> None:
    for _ in range(2):
        assert run("-m", "seed=1,2", "stages=[mining]", output="sweep") == 0
    assert (tmp_path / "sweep" / "summary.png").exists()


@pytest.mark.parametrize("name", ["model.pt", "checkpoints/last.ckpt", "history.csv", "config.yaml", "train.log"])
def test_files_of_others_stop_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    theirs = tmp_path / "run" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("years of work")
    (tmp_path / "images" / "a").mkdir(parents=True)
    given = ["data=folder", f"data.dir={tmp_path / 'images'}", "overwrite=true", f"hydra.run.dir={tmp_path / 'run'}"]
    monkeypatch.setattr(sys, "argv", ["train.py", *given])
    assert train() == 2
    assert f"{theirs}: was not written by minIA" in error_of(capsys)
    assert content(tmp_path / "run") == {name: b"years of work"}


def test_a_damaged_mark_is_named(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"files": 3}', "null"):
        (tmp_path / MARK).write_text(text)
        with pytest.raises(InputError, match="is damaged"):
            RunFolder.read(tmp_path)


def test_the_mark_tells_where_the_artifacts_are_wherever_the_whole_is_moved(run: Run, tmp_path: Path) -> None:
    assert run(output="all/run") == 0
    assert json.loads((tmp_path / "all" / "run" / MARK).read_text())["store"] == "../../store"
    (tmp_path / "all").rename(tmp_path / "moved")
    folder = RunFolder.read(tmp_path / "moved" / "run")
    assert folder.store == tmp_path / "store"
    assert folder.artifacts["mining"].parent == tmp_path / "store" / "mining"
    assert set(folder.artifacts) == {"words", "mining", "matching", "report"}


def test_the_store_removes_nothing_of_others(tmp_path: Path) -> None:
    stage = Stage("count", "seven", tmp_path, {})
    part = stage.path.with_name(f".{stage.path.name}.part")
    part.mkdir(parents=True)
    (part / "theirs").write_text("years of work")
    with pytest.raises(InputError, match="was not written by minIA"):
        stage.run(lambda _: {})
    part.rename(stage.path)
    stage.run(lambda _: {})
    [aside] = tmp_path.glob("count/*.aside-*")
    assert (aside / "theirs").read_text() == "years of work"


def test_images_beside_the_files_of_a_run_are_found(tmp_path: Path) -> None:
    for name in ("a.jpg", "config.yaml", "metrics.json", "run/report/b.jpg", "report/c.jpg", "sub/config.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("metrics.json", "d.jpg"):
        (tmp_path / "sub" / name).touch()
    assert find_images(tmp_path, tmp_path / "store")[0].to_pylist() == [
        "a.jpg", "report/c.jpg", "run/report/b.jpg", "sub/d.jpg",
    ]  # fmt: skip
    RunFolder(tmp_path / "run").write_mark()
    RunFolder(tmp_path, files={"report/c.jpg": [0, ""]}).write_mark()
    assert find_images(tmp_path, tmp_path / "store")[0].to_pylist() == ["a.jpg", "sub/d.jpg"]
