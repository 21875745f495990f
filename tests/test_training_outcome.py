"""What a training leaves where it diverges, where its checkpoint is malformed, and of a test of its own."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train import TINY, Run, blobs_of_two_classes, last_checkpoint, the_error, train_here  # noqa: F401 - fixtures

from minia.training.callbacks import history_figure
from minia.training.measures import Validation
from minia.training.module import DELFTraining


@pytest.mark.parametrize(("good", "log_every"), [(0, 1), (0, 100), (3, 1)])
def test_a_loss_that_is_no_number_ends_the_run(
    run: Run, tmp_path: Path, blobs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    good: int, log_every: int,
) -> None:  # fmt: skip
    step = DELFTraining.training_step

    def overflow(self: DELFTraining, batch: Any, batch_idx: int) -> Any:
        if self.global_step >= good:
            self.model.descriptor_classifier.weight.data.fill_(float("nan"))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(DELFTraining, "training_step", overflow)
    assert run(*TINY, f"data.dir={blobs}", f"trainer.log_every={log_every}") == 2
    told = the_error(capsys)
    assert "the loss is not finite; allowed: a smaller trainer.learning_rate" in told
    assert not list((tmp_path / "run").glob("model.*"))
    assert not (tmp_path / "run" / "metrics.json").exists()
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert last.exists() == (good > 0)
    if good:
        assert f"{last} holds the weights of the last good check" in told
        assert last_checkpoint(tmp_path / "run")["global_step"] == 2
        assert all(value.isfinite().all() for value in last_checkpoint(tmp_path / "run")["state_dict"].values())


def test_a_validation_loss_that_is_no_number_ends_the_run(
    run: Run, tmp_path: Path, blobs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Validation.metrics
    monkeypatch.setattr(Validation, "metrics", lambda *given: metrics(*given) | {"loss_total": math.inf})
    assert run(*TINY, f"data.dir={blobs}") == 2
    assert "step 2: the validation loss is not finite" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("model.*"))


def test_metrics_are_json_whatever_they_are(
    run: Run, tmp_path: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Validation.metrics
    strange = {"attention_max": math.inf, "attention_mean": math.nan}
    monkeypatch.setattr(Validation, "metrics", lambda *given: metrics(*given) | strange)
    assert run(*TINY, f"data.dir={blobs}", "export=[]") == 0

    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = json.loads((tmp_path / "run" / "metrics.json").read_text(), parse_constant=refuse)
    assert found["attention_max"] is None and found["attention_mean"] is None


def test_the_test_is_measured_once_and_decides_nothing(
    run: Run, tmp_path: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    step = DELFTraining.test_step

    def note(self: DELFTraining, batch: Any, batch_idx: int) -> None:
        seen.extend(batch["index"].tolist())
        step(self, batch, batch_idx)

    monkeypatch.setattr(DELFTraining, "test_step", note)
    assert run(*TINY, f"data.dir={blobs}", "export=[]", "data.test_share=0.2") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert seen == list(range(6))
    assert (metrics["num_test_images"], metrics["num_training_images"]) == (6, 18)
    assert {name.removeprefix("test_") for name in metrics if name.startswith("test_")} <= set(metrics)
    assert 0 <= metrics["test_attention_accuracy"] <= 1
    assert "test accuracy: descriptor branch" in (tmp_path / "run" / "train.log").read_text()


@pytest.mark.parametrize(
    "change",
    [
        {"hyper_parameters": 3}, {"hyper_parameters": {"data": 4}}, {"global_step": "many"}, {"state_dict": 5},
        {"state_dict": {}}, {"history": [1, 2]}, {"optimizer_states": [{"state": 1}]}, {"optimizer_states": []},
        {"loops": {}}, {"hyper_parameters": {"classes": 3}},
    ],
    ids=str,
)  # fmt: skip
def test_malformed_checkpoints_do_not_go_on(
    run: Run, tmp_path: Path, blobs: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    tiny = (*TINY, f"data.dir={blobs}", "export=[]", "trainer.max_steps=2")
    before = tmp_path.parent / "before"
    if not before.exists():  # one training for all of them
        assert run(*tiny, output=str(before)) == 0
    content = last_checkpoint(before)
    if isinstance(given := change.get("hyper_parameters"), dict):
        change = {"hyper_parameters": content["hyper_parameters"] | given}
    torch.save(content | change, tmp_path / "a.ckpt")
    assert run(*tiny, f"resume={tmp_path / 'a.ckpt'}") == 2
    assert f"{tmp_path / 'a.ckpt'}:" in the_error(capsys)


def test_what_is_named_like_an_image_and_is_none_is_left_out(run: Run, tmp_path: Path, blobs: Path) -> None:
    """A pipe that nobody writes to, a device without end, a folder, a link to nothing."""
    folder = tmp_path / "classes"
    for label in ("few", "many"):
        (folder / label).mkdir(parents=True)
        for path in (blobs / label).glob("*.png"):
            (folder / label / path.name).symlink_to(path)
    os.mkfifo(folder / "few" / "pipe.png")
    os.mkfifo(folder / "few" / "pipe.jpg")
    (folder / "many" / "endless.png").symlink_to("/dev/zero")
    (folder / "many" / "endless.jpg").symlink_to("/dev/zero")
    (folder / "many" / "nothing.png").symlink_to(tmp_path / "none.png")
    (folder / "many" / "folder.png").mkdir()
    assert run(*TINY, f"data.dir={folder}", "export=[]", "trainer.max_steps=2") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["num_images"] == 30
    assert metrics["num_failed_images"] >= 5


def test_one_validation_is_seen_in_the_history_beside_the_commonest_class() -> None:
    row = {"step": 20, "loss_descriptor": 2.0, "loss_attention": 1.0, "loss_reconstruction": 0.5}
    row |= {"descriptor_accuracy": 0.25, "attention_accuracy": 0.25}
    losses, accuracies = history_figure([row], 0.75).axes
    assert all(line.get_marker() == "." for line in (*losses.lines, *accuracies.lines[:2]))
    assert np.asarray(accuracies.lines[2].get_ydata()).tolist() == [0.75, 0.75]
    assert len(history_figure([row], None).axes[1].lines) == 2
    assert len({line.get_linestyle() for line in accuracies.lines}) == 3  # each is seen where they lie on one another
