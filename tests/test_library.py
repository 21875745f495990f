"""The library: ``minia.mine``, ``minia.load`` and what a run tells, without the log or a private module."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import minia
from minia.core.progress import progress

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def run(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> minia.Run:
    """A run on twelve images; the original's linkage, since so few hold nothing beyond chance."""
    return minia.mine(
        {"kind": "folder", "labels": image_folder / "labels.csv"},
        dir=image_folder,
        output=tmp_path_factory.mktemp("library") / "runs" / "first",
        vocabulary={"size": 40},
        mining={"linkage": "single", "num_tuples": 100},
        arrangement={"list": "all"},  # so few images prove nothing
        report={"num_shuffles": 2},
        num_workers=1,
    )


def test_a_run_tells_its_structures(run: minia.Run) -> None:
    table = run.structures
    assert len(table) == run.metrics["num_structures"] > 0
    assert repr(run) == f"Run({str(run.path)!r}: 12 images, {len(table)} structures)"
    for words, frequencies, count in zip(table["words"], table["frequencies"], table["num_words"], strict=True):
        assert len(words) == len(frequencies) == count
        assert frequencies == sorted(frequencies, reverse=True)
    assert table["num_matches"].sum() == run.metrics["num_matches"]
    assert run.settings["vocabulary"]["size"] == 40


def test_both_ways_of_searching_agree(run: minia.Run) -> None:
    pairs = {(0, image) for image in run.images_of(0)["image"]}
    assert len(pairs) == run.structures["num_matches"].tolist()[0] > 0
    found = {
        (structure, image)
        for image in run.images
        for structure in run.structures_of(image)["structure"]
        if structure == 0
    }
    assert found == pairs
    assert run.images_of(0)["overlap"].is_monotonic_decreasing


def test_keypoints_of_a_structure_are_those_of_its_words(run: minia.Run) -> None:
    found = run.images_of(0)
    image, numbers = str(found["image"].tolist()[0]), found["keypoints"].tolist()[0]
    every, chosen = run.keypoints(image), run.keypoints(image, structure=0)
    assert list(every.columns) == ["x", "y", "size", "score", "word"]
    assert every["score"].is_monotonic_decreasing
    assert every[["x", "y"]].to_numpy().min() > -1
    assert every[["x", "y"]].to_numpy().max() < 96
    assert chosen.index.tolist() == np.asarray(numbers).tolist()
    assert set(chosen["word"]) <= set(run.structures["words"].tolist()[0])
    assert len(every) == run.features.images["num_keypoints"].tolist()[run.images.index(image)]


def test_figures_show_images_with_their_keypoints(run: minia.Run) -> None:
    image = str(run.images_of(0)["image"].tolist()[0])
    for figure in (run.show(0), run.show(0, num_images=1), run.show_image(image), run.show_image(image, [0])):
        png = figure._repr_png_()  # type: ignore[attr-defined]
        assert png.startswith(b"\x89PNG")
        assert len(png) > 5000


def test_a_run_is_loaded_wherever_the_whole_is_moved(run: minia.Run, tmp_path: Path) -> None:
    shutil.copytree(run.path.parent, tmp_path / "moved")
    loaded = minia.load(tmp_path / "moved" / "first")
    assert loaded.artifacts["features"].is_relative_to(tmp_path / "moved" / "store")
    pd.testing.assert_frame_equal(loaded.structures, run.structures)
    shutil.rmtree(tmp_path / "moved" / "store")
    loaded = minia.load(tmp_path / "moved" / "first")
    assert len(loaded.structures) == len(run.structures)  # the run's folder holds them itself
    with pytest.raises(minia.InputError, match="not in the store any more"):
        _ = loaded.features


def test_what_a_run_does_not_have_is_told(run: minia.Run, tmp_path: Path) -> None:
    with pytest.raises(minia.InputError, match=r"structure 99: the run has \d+, numbered from 0"):
        run.images_of(99)
    with pytest.raises(minia.InputError, match=r"image00.png: no image of this run \(did you mean image0\d+.png\?\)"):
        run.keypoints("image00.png")
    with pytest.raises(minia.InputError, match="no run of minIA"):
        minia.load(tmp_path)
    (tmp_path / ".minia.json").write_text(json.dumps({"command": "mine", "store": None, "artifacts": {}, "files": {}}))
    with pytest.raises(minia.InputError, match="has not come to its end"):
        minia.load(tmp_path)
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(minia.InputError, match="the run has no mining"):
        _ = minia.load(tmp_path).structures


def test_the_library_takes_the_settings_of_the_command_line(tmp_path: Path) -> None:
    for told, given in {
        "vocabulary.siz: there is no such key (did you mean vocabulary.size?)": {"vocabulary": {"siz": 3}},
        "vocabulary.size=0: expected a whole number of at least 1": {"vocabulary": {"size": 0}},
        "images=foldr: there is no such choice (did you mean folder?)": {"images": "foldr"},
        f"images.dir={tmp_path / 'a'}: expected a path of a folder that exists": {"dir": tmp_path / "a"},
        "imags: there is no such key (did you mean images?)": {"imags": 3},
        "features.path: must be given": {"features": "artifact"},
    }.items():
        with pytest.raises(minia.InputError) as error:
            minia.mine(output=tmp_path / "run", **given)  # type: ignore[arg-type]
        assert str(error.value).startswith(told)
    with pytest.raises(minia.InputError, match=r"trainer.max_steps=0: expected a whole number"):
        minia.train(trainer={"max_steps": 0})
    assert not (tmp_path / "run").exists()


def test_importing_the_library_is_light() -> None:
    code = "import minia, sys; dir(minia); print({'numpy', 'torch', 'hydra', 'pandas', 'matplotlib'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "set()\n"
    with pytest.raises(AttributeError, match="has no attribute nothing"):
        _ = minia.nothing


def test_notebooks_show_bars(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("minia.core.progress._in_notebook", lambda: True)
    with progress("digging", 3, "hole") as advance:
        advance(3)
    printed = capsys.readouterr()
    assert "digging" in printed.err + printed.out
