"""Files and folders appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from minia.core.artifact import Stage
from minia.core.writing import (
    appearing_whole,
    remove_unfinished,
    remove_unfinished_of,
    write_files_whole,
    write_text_whole,
)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_file_appears_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text_whole(path, "old")
    with appearing_whole(path) as temporary:
        assert (temporary.parent, temporary.suffix) == (path.parent, ".txt")
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_nothing_is_left_of_what_fails(tmp_path: Path, kind: str) -> None:
    with pytest.raises(KeyboardInterrupt), appearing_whole(tmp_path / "a") as temporary:
        if kind == "folder":
            temporary.mkdir()
            temporary /= "inside"
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_a_folder_appears_whole_and_replaces_none_that_holds_something(tmp_path: Path) -> None:
    with appearing_whole(tmp_path / "a") as temporary:
        temporary.mkdir()
        (temporary / "inside").write_text("whole")
    with pytest.raises(OSError), appearing_whole(tmp_path / "a") as temporary:
        temporary.mkdir()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "inside"]


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was synced and, after an arrow, what was given its name, as it happens."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("only there a descriptor tells its file")
    done: list[str] = []
    replace = Path.replace

    def synced(descriptor: int) -> None:
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    def renamed(path: Path, target: Path) -> Path:
        done.append(f"-> {target.name}")
        return replace(path, target)

    monkeypatch.setattr("os.fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    return done


def test_what_appears_was_synced_before_and_its_folder_after(tmp_path: Path, done: list[str]) -> None:
    with appearing_whole(tmp_path / "a") as temporary:
        (temporary / "b").mkdir(parents=True)
        for number in range(40):
            (temporary / "b" / str(number)).touch()
        (temporary / "link").symlink_to(tmp_path / "nothing")
    assert set(done[:40]) == set(map(str, range(40)))
    assert done[40:] == ["b", temporary.name, "-> a", tmp_path.name]


def test_files_that_appear_together_were_all_synced_before(tmp_path: Path, done: list[str]) -> None:
    (tmp_path / "1").write_text("old")
    write_files_whole({tmp_path / str(number): f"{number}".encode() for number in range(5)})
    assert {name.rpartition("-")[2] for name in done[:5]} == set(map(str, range(5)))
    assert all(name.startswith(".part-") for name in done[:5])
    assert done[5:] == [*(f"-> {number}" for number in range(5)), tmp_path.name]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {str(each): str(each) for each in range(5)}


def test_a_disk_that_takes_no_more_gives_nothing_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text_whole(tmp_path / "a", "new")
    with pytest.raises(OSError, match="No space left"):
        write_files_whole({tmp_path / "a": b"new", tmp_path / "b": b"new"})
    assert names(tmp_path) == []


def test_what_a_killed_process_left_of_one_file_is_known_by_its_name(tmp_path: Path) -> None:
    for name in (".part-12-a.txt", ".part-x-a.txt", ".part-12-b.txt", ".part-12-a.txt.old"):
        (tmp_path / name).touch()
    remove_unfinished_of(tmp_path / "a.txt")
    assert sorted(names(tmp_path)) == [".part-12-a.txt.old", ".part-12-b.txt", ".part-x-a.txt"]


def test_what_a_killed_process_left_is_removed_before_a_stage_goes_on(tmp_path: Path) -> None:
    stage = Stage("words", "some", tmp_path, {}, resumable=True)

    def killed(work: Path) -> dict[str, int]:
        (work / "done").write_text("whole")
        (work / ".part-1-more").write_text("half")
        (work / ".part-1-shard").mkdir()
        (work / ".part-1-shard" / ".part-1-inside").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage.run(killed)
    artifact = stage.run(lambda work: {"files": len(list(work.iterdir()))})
    assert sorted(path.name for path in artifact.iterdir()) == ["done", "manifest.json"]


def test_links_are_not_followed_in_cleaning(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "kept").touch()
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / ".part-1-link").symlink_to(tmp_path / "theirs", target_is_directory=True)
    remove_unfinished(tmp_path / "ours")
    assert names(tmp_path / "ours") == []
    assert (tmp_path / "theirs" / "kept").exists()
