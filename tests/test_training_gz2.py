"""The original's recipe on a folder laid out as Galaxy Zoo 2, from Keras's weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from choices import CPU, simulated
from test_delf import fill_as_keras, write_keras
from test_train import Run, last_checkpoint, train_here  # noqa: F401 - fixtures

from minia.data.images import simulate_images
from minia.models.delf.backbone import Backbone

SMALL = (
    "augmentation.image_size=64", "data.side=64", "data.loader_workers=0", "data.pin_memory=false", "device=cpu",
    "trainer.batch_size=4", "trainer.max_steps=2", "trainer.steps_per_check=2", "trainer.log_every=1", "threads=1",
    "num_workers=1", "export=[]",
)  # fmt: skip


def test_the_originals_recipe_from_keras_weights(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    survey = simulate_images(tmp_path / "images", simulated(num_images=45, image_size=64), CPU)
    given = ("experiment=gz2", f"data.root={survey}", *SMALL)
    assert run(*given) == 2  # its weights are no part of minIA
    assert "_notop.h5 is missing; put" in capsys.readouterr().err
    torch.manual_seed(0)
    resnet = Backbone("resnet50", stride_in_1x1=True, block3_stride=True)
    fill_as_keras(resnet)
    write_keras(tmp_path / "keras.h5", resnet, newer=True)
    assert run(*given, f"model.weights={tmp_path / 'keras.h5'}", "trainer.learning_rate=0.000001") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["num_steps"], metrics["num_classes"]) == (2, 9)
    state = last_checkpoint(tmp_path / "run")["state_dict"]
    theirs = resnet.get_parameter("layer3.5.conv2.weight").detach()
    torch.testing.assert_close(state["model.backbone.layer3.5.conv2.weight"], theirs, atol=1e-4, rtol=0)
    assert state["model.mean"].tolist() == pytest.approx([123.68, 116.779, 103.939])
