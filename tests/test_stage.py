from __future__ import annotations

import json
import logging
import multiprocessing
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from minia.core.artifact import STARTED_WITH, InputError, Stage, _versions, damage_of, fingerprint, read_manifest


def make_number(work: Path) -> dict[str, int]:
    (work / "number.txt").write_text("7")
    return {"numbers": 1}


def test_artifact_is_made_once_and_its_manifest_says_how(tmp_path: Path) -> None:
    calls = []

    def make(work: Path) -> dict[str, int]:
        calls.append(work)
        time.sleep(0.05)
        return make_number(work)

    stage = Stage("count", "seven", tmp_path, {"size": 7}, {"images": "abc"})
    started = time.perf_counter()
    first = stage.run(make)
    elapsed = time.perf_counter() - started
    second = stage.run(make)
    assert first == second == stage.path
    assert len(calls) == 1
    manifest = read_manifest(first)
    assert manifest["parameters"] == {"size": 7}
    assert manifest["inputs"] == {"images": "abc"}
    assert manifest["counts"] == {"numbers": 1}
    assert 0.05 <= manifest["seconds"] <= round(elapsed, 3)
    assert "python" in manifest["versions"]


@pytest.mark.parametrize(
    ("parameters", "inputs"), [({"size": 8}, {"images": "abc"}), ({"size": 7}, {"images": "abd"}), ({}, {})]
)
def test_other_settings_or_inputs_make_another_artifact(
    tmp_path: Path, parameters: dict[str, int], inputs: dict[str, str]
) -> None:
    stage = Stage("count", "seven", tmp_path, {"size": 7}, {"images": "abc"})
    assert Stage("count", "seven", tmp_path, parameters, inputs).path != stage.path


def test_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


def test_failed_stage_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    stage = Stage("count", "seven", tmp_path, {})

    def fail(work: Path) -> dict[str, int]:
        make_number(work)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        stage.run(fail)
    assert not stage.done
    assert [path.name for path in (tmp_path / "count").iterdir() if not path.name.endswith(".lock")] == []


def test_resumable_stage_finds_the_finished_parts_of_a_killed_run(tmp_path: Path) -> None:
    stage = Stage("count", "seven", tmp_path, {}, resumable=True)

    def fail(work: Path) -> dict[str, int]:
        (work / "part").write_text("done")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage.run(fail)
    assert not stage.done

    def finish(work: Path) -> dict[str, int]:
        return {"found": len((work / "part").read_text())}

    assert read_manifest(stage.run(finish))["counts"] == {"found": 4}


def test_finished_parts_survive_a_failure_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage("count", "seven", tmp_path, {}, resumable=True)
    made = []

    def make(work: Path) -> dict[str, int]:
        if not (work / "part").exists():
            made.append(work)
            (work / "part").write_text("done")
        return {}

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for owner, name in ((Stage, "_write_manifest"), (Path, "replace")):
        with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
            patched.setattr(owner, name, fail)
            stage.run(make)
    artifact = stage.run(make)
    assert len(made) == 1
    assert sorted(path.name for path in artifact.iterdir()) == ["manifest.json", "part"]


@pytest.mark.parametrize("resumable", [False, True])
def test_a_killed_end_or_removal_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumable: bool) -> None:
    stage = Stage("count", "seven", tmp_path, {}, resumable=resumable)
    artifact = stage.run(lambda _: {})
    (artifact / STARTED_WITH).write_text("{}")  # killed between the artifact's name and the end
    assert [path.name for path in stage.run(lambda _: {}).iterdir()] == ["manifest.json"]

    shutil.rmtree(artifact)
    work = artifact.with_name(f".{artifact.name}.part")
    work.mkdir()
    (work / f".part-1-{STARTED_WITH}").write_text('{"pyth')  # killed as it began
    assert [path.name for path in stage.run(lambda _: {}).iterdir()] == ["manifest.json"]

    shutil.rmtree(artifact)
    work.mkdir()
    (work / STARTED_WITH).write_text("{}")  # of other versions: to be removed
    (work / "part").touch()
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "rmtree", _interrupt)
        stage.run(lambda _: {})
    assert [path.name for path in work.iterdir()] == [STARTED_WITH]  # what says that it is ours went last
    assert [path.name for path in stage.run(lambda _: {}).iterdir()] == ["manifest.json"]


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_parts_made_with_other_versions_are_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage("count", "seven", tmp_path, {}, resumable=True)

    def fail(work: Path) -> dict[str, int]:
        (work / "part").write_text("done")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage.run(fail)
    now = _versions() | {"numpy": "another"}
    monkeypatch.setattr("minia.core.artifact._versions", lambda: now)
    with caplog.at_level(logging.INFO):
        artifact = stage.run(lambda work: {"found": (work / "part").exists()})
    assert read_manifest(artifact)["counts"] == {"found": False}
    assert [path.name for path in artifact.iterdir()] == ["manifest.json"]
    discarded = [message for message in caplog.messages if "discarding" in message]
    assert len(discarded) == 1
    assert discarded[0].endswith(f": numpy was {np.__version__}, is another")


def test_a_new_version_of_a_stage_makes_another_artifact(tmp_path: Path) -> None:
    assert Stage("count", "seven", tmp_path, {}).path != Stage("count", "seven", tmp_path, {}, version=2).path


def test_a_folder_that_lost_its_manifest_is_made_again(tmp_path: Path) -> None:
    stage = Stage("count", "seven", tmp_path, {})
    (stage.run(make_number) / "manifest.json").unlink()
    assert read_manifest(stage.run(make_number))["counts"] == {"numbers": 1}


@pytest.mark.parametrize(
    ("content", "told"), [("8", "is not what was written"), ("", "has 0 bytes, not 1"), (None, "is missing")]
)
def test_a_damaged_artifact_is_named_and_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | None, told: str
) -> None:
    stage = Stage("count", "seven", tmp_path, {})
    file = stage.run(make_number) / "number.txt"
    (stage.path / "notes.txt").write_text("someone's")  # a further file is no damage
    assert stage.run(make_number) == stage.path
    assert (stage.path / "notes.txt").exists()
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert stage.run(make_number) == stage.path
    assert f"is damaged: number.txt {told}" in caplog.text
    assert file.read_text() == "7"
    [aside] = tmp_path.glob("count/*.aside-*")
    assert (aside / "notes.txt").read_text() == "someone's"


@pytest.mark.parametrize(
    "files", [["number.txt"], {"number.txt": 1}, {"number.txt": {"byt3s": 1}}, {"a": {"bytes": "x"}}]
)
def test_a_manifest_whose_checksums_are_damaged_is_damage(tmp_path: Path, files: object) -> None:
    stage = Stage("count", "seven", tmp_path, {})
    manifest = read_manifest(stage.run(make_number)) | {"files": files}
    (stage.path / "manifest.json").write_text(json.dumps(manifest))
    assert damage_of(stage.path)
    assert stage.run(make_number) == stage.path
    assert damage_of(stage.path) is None


def test_large_artifacts_are_compared_by_size_alone_until_they_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minia.core.artifact.MOST_READ_AGAIN", 0)
    stage = Stage("count", "seven", tmp_path, {})
    (stage.run(make_number) / "number.txt").write_text("8")
    assert (stage.run(make_number) / "number.txt").read_text() == "8"
    assert damage_of(stage.path) == "number.txt is not what was written"
    (stage.path / "number.txt").write_text("80")
    assert (stage.run(make_number) / "number.txt").read_text() == "7"


def test_unusable_input_clears_even_a_resumable_stage(tmp_path: Path) -> None:
    stage = Stage("count", "seven", tmp_path, {}, resumable=True)

    def fail(work: Path) -> dict[str, int]:
        make_number(work)
        raise InputError("no")

    with pytest.raises(InputError):
        stage.run(fail)
    assert not any(path.is_dir() for path in (tmp_path / "count").iterdir())


def _make_slowly(store: str) -> None:
    def make(work: Path) -> dict[str, int]:
        with (Path(store) / "calls").open("a") as calls:
            calls.write("x")
        time.sleep(1.0)
        return make_number(work)

    Stage("count", "seven", Path(store), {}).run(make)


def test_two_processes_make_the_same_artifact_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_make_slowly, args=(str(tmp_path),)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert (tmp_path / "calls").read_text() == "x"
    assert json.loads((Stage("count", "seven", tmp_path, {}).path / "manifest.json").read_text())


def test_manifest_of_nothing_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a finished artifact"):
        read_manifest(tmp_path / "missing")
