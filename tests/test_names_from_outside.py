"""Names and files that are not ours: nothing they hold ends a run, forges a line, or goes without its name."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import write_images
from PIL import Image

import minia
from minia.data import reading
from minia.data.reading import read_image
from minia.training.callbacks import confusion_figure, pixels_of


def test_a_class_may_be_named_like_a_formula() -> None:
    counts = np.array([[3, 1], [0, 2]])
    assert pixels_of(confusion_figure(counts, [r"$\frac{$", "b"])).shape[2] == 3


def test_a_warning_of_the_decoder_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "odd.png")

    def warn(*_: object) -> np.ndarray:
        warnings.warn("Truncated File Read", UserWarning, stacklevel=1)
        return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr(reading, "_read_picture", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        read_image(tmp_path / "odd.png")
    assert caplog.messages == [f"{tmp_path / 'odd.png'}: Truncated File Read"]
    with pytest.warns(UserWarning, match="another"):
        warnings.warn("another", UserWarning, stacklevel=1)


def test_a_report_of_images_that_are_gone_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_images(tmp_path / "images", 12)

    output = tmp_path / "run"
    features = minia.mine(dir=folder, output=output, num_workers=1, stages=["features"]).artifacts["features"]
    shutil.rmtree(folder)
    folder.mkdir()
    with caplog.at_level(logging.WARNING):
        run = minia.mine(
            features={"kind": "artifact", "path": features}, output=output, vocabulary={"size": 40},
            num_workers=1, mining={"linkage": "single", "num_tuples": 100}, arrangement={"list": "all"},
        )  # fmt: skip
    assert run.metrics["num_structures"] > 0
    [told] = [message for message in caplog.messages if "can no longer be read" in message]
    assert str(folder) in told


def test_features_made_elsewhere_need_not_tell_of_their_extractor(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", 12)
    own = minia.mine(dir=folder, output=tmp_path / "run", num_workers=1, stages=["features"]).artifacts["features"]
    features = shutil.copytree(own, tmp_path / "theirs")
    manifest = json.loads((features / "manifest.json").read_text())
    told = {key: manifest[key] for key in ("stage", "fingerprint", "counts", "seconds")}
    (features / "manifest.json").write_text(json.dumps(told))
    run = minia.mine(
        features={"kind": "artifact", "path": features}, output=tmp_path / "again", vocabulary={"size": 40},
        num_workers=1, mining={"linkage": "single", "num_tuples": 100}, arrangement={"list": "all"},
    )  # fmt: skip
    assert run.metrics["num_structures"] > 0
