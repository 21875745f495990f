"""Training through ``train.py``, as a user runs it, and what a run must hold to."""

from __future__ import annotations

import importlib.util
import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import hydra
import pandas as pd
import pytest
import torch
import torchvision
from conftest import draw_blobs
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from minia.command_line.commands import train
from minia.core.artifact import InputError
from minia.core.setting_types import check
from minia.models.delf.network import LossWeights
from minia.models.delf.weights import load_checkpoint
from minia.training.build import build_module, load_pretrained
from minia.training.checks import check_machine
from minia.training.module import DELFTraining
from minia.training.settings import DELFModel, Optimisation, TrainSettings

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = ROOT / "conf" / "train"
GROUPS = ("data", "augmentation", "model", "trainer", "experiment")
TINY = (
    "data=folder", "data.side=64", "augmentation.image_size=32", "trainer.batch_size=4", "trainer.max_steps=6",
    "trainer.steps_per_check=2", "trainer.log_every=1", "trainer.warmup_steps=0", "trainer.precision=32-true",
    "threads=1", "num_workers=1", "device=cpu",
)  # fmt: skip

Run = Callable[..., int]


@pytest.fixture(name="run")
def train_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run train.py's main in this process; its folder is ``run`` in tmp_path."""

    def run(*overrides: str, output: str = "run") -> int:
        folders = [f"hydra.run.dir={tmp_path / output}", f"hydra.sweep.dir={tmp_path / output}"]
        monkeypatch.setattr(sys, "argv", ["train.py", *overrides, *folders])
        return train()

    return run


@pytest.fixture(name="blobs", scope="session")
def blobs_of_two_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 15 small images: few and many blobs."""
    folder = tmp_path_factory.mktemp("classes")
    for label, count in (("few", 2), ("many", 20)):
        (folder / label).mkdir()
        for number in range(15):
            cv2.imwrite(str(folder / label / f"{number}.png"), draw_blobs(number, 64, 64, count))
    return folder


def the_error(capsys: pytest.CaptureFixture[str]) -> str:
    """The line of an error that was told since the last look; there must be one."""
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(told) == 1
    return told[0]


def compose(*overrides: str) -> dict[str, Any]:
    with hydra.initialize_config_dir(str(CONFIGURATION), version_base="1.3"):
        values = OmegaConf.to_container(hydra.compose("train", list(overrides)), resolve=True)
    assert isinstance(values, dict)
    return values  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("group", "choice"),
    [(group, path.stem) for group in GROUPS for path in sorted((CONFIGURATION / group).glob("*.yaml"))],
)
def test_every_choice_of_every_group_is_valid(group: str, choice: str, tmp_path: Path) -> None:
    (tmp_path / "file.csv").write_text("")
    values = compose(f"{group}={choice}", *(["objective=self_supervised"] if choice == "images" else []))
    for key, value in values["data"].items():
        if value == "???":
            values["data"][key] = str(tmp_path if key in ("dir", "root") else tmp_path / "file.csv")
    check(TrainSettings, values)


def test_every_key_of_the_configuration_is_explained() -> None:
    for path in CONFIGURATION.glob("*/*.yaml"):
        for line in path.read_text().splitlines() if path.parent.name != "experiment" else []:
            if ":" in line and not line.startswith("#") and not line.startswith("kind:"):
                assert "#" in line, f"{path}: {line}"


def test_the_gz2_experiment_is_the_originals_documented_run(tmp_path: Path) -> None:
    settings = check(TrainSettings, compose("experiment=gz2", f"data.root={tmp_path}"))
    chosen = settings.trainer
    assert (chosen.learning_rate, chosen.batch_size, chosen.max_steps) == (0.045, 50, 15_000)
    assert (chosen.optimiser, chosen.momentum, chosen.schedule, chosen.gradient_clip) == ("sgd", 0.9, "linear", 10.0)
    assert isinstance(settings.model, DELFModel)
    assert (settings.model.backbone, settings.model.stride_in_1x1, settings.model.block3_stride) == (
        "resnet50",
        True,
        True,
    )
    weights = (settings.model.descriptor_weight, settings.model.attention_weight, settings.model.reconstruction_weight)
    assert weights == (1.0, 1.0, 10.0)
    assert (settings.augmentation.image_size, settings.model.reduction, settings.data.class_size) == (321, 128, 5000)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.batch_siz=3"], "trainer.batch_siz: there is no such key (did you mean trainer.batch_size?)"),
        (["trainer.batch_size=1"], "trainer.batch_size=1: expected a whole number of at least 2"),
        (["data=gz2"], "data.root: must be given"),
        (["data=gz2", "data.root=TMP"], "missing TMP/gz2_hart16.csv (data.catalogue), TMP/gz2_filename_mapping.csv"),
        (["data=nothing"], "data=nothing: there is no such choice"),
        (["resume=TMP"], "that folder holds no checkpoints/last.ckpt"),
        (["resume=TMP/text.pth"], "TMP/text.pth: not a checkpoint of train.py"),
        (
            ["device=cpu", "trainer.precision=16-mixed"],
            "trainer.precision=16-mixed: needs a CUDA device; allowed on a CPU",
        ),
        (["model.weights=TMP/none.pth"], "model.weights=TMP/none.pth: expected none, imagenet or a file that exists"),
        (["model.weights=TMP/text.pth"], "model.weights=TMP/text.pth cannot be read as plain tensors by torch"),
        (["model.weights=TMP/other.pth"], "model.weights=TMP/other.pth hold no ResNet"),
        (["model.stride_in_1x1=true"], "resnet18 has no 1x1 convolution"),
        (["augmentation.crop_area=0.5"], "augmentation.crop_area=0.5: a random crop goes with view=1"),
    ],
)
def test_errors_are_one_line_with_exit_code_2(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    (tmp_path / "text.pth").write_text("hello\n")
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "other.pth")
    assert run(*(each.replace("TMP", str(tmp_path)) for each in overrides)) == 2
    assert message.replace("TMP", str(tmp_path)) in the_error(capsys)
    assert not list(tmp_path.glob("*/"))  # neither a run's folder nor a store: no work has begun


def test_what_the_machine_lacks_is_told_first(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    assert run("trainer.compile=true") == 2
    assert "error: trainer.compile=true: needs a C++ compiler" in capsys.readouterr().err
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else find_spec(name))
    assert run("export=[pt,onnx]") == 2
    assert "error: export=onnx: needs onnx; pip install onnx" in capsys.readouterr().err
    assert not list(tmp_path.glob("*/"))


def test_what_a_gpu_lacks_is_told_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = check(TrainSettings, compose("trainer.compile=true", f"store={tmp_path}"))
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "triton" else find_spec(name))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    told: list[str] = []
    monkeypatch.setattr("minia.training.checks.logger.warning", told.append)
    with pytest.raises(InputError, match=r"trainer\.compile=true: needs triton"):
        check_machine(settings, "cuda")
    assert "bf16-mixed: this GPU only emulates it" in told[0]


def test_a_batch_system_with_several_tasks(
    run: Run, tmp_path: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (*TINY, f"data.dir={blobs}", "export=[]", "trainer.max_steps=2")
    slurm = {"JOB_ID": "1", "JOB_NAME": "train", "NTASKS": "2", "PROCID": "1", "LOCALID": "1"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert run(*given) == 2
    assert "error: SLURM_PROCID=1: one of 2 tasks, but training uses one process" in capsys.readouterr().err
    assert not list(tmp_path.glob("*/"))
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_LOCALID", "0")
    assert run(*given) == 0


def test_smoke_run_on_the_simulator_leaves_everything(run: Run, tmp_path: Path) -> None:
    small = ("data.num_images=54", "trainer.max_steps=6", "trainer.steps_per_check=3", "trainer.batch_size=8")
    logged = ("trainer.log_every=2", "trainer.warmup_steps=0")
    assert run("experiment=smoke", "threads=1", "num_workers=1", "device=cpu", *small, *logged) == 0
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} == {
        "metrics.json", "history.csv", "checkpoints", "model.pt", "config.yaml", "tensorboard", "train.log",
        "history.png", "confusion.png", "attention.png", ".minia.json", ".minia.lock",
    }  # fmt: skip
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["num_images"], metrics["num_classes"], metrics["num_steps"]) == (54, 9, 6)
    assert list(pd.read_csv(folder / "history.csv")["step"]) == [3, 6]
    for name in ("descriptor_accuracy", "attention_macro_f1", "descriptor_recall_ring", "loss_reconstruction"):
        assert math.isfinite(metrics[name])
    assert 0 <= metrics["zeros_layer3"] <= 1
    assert 0 <= metrics["attention_min"] <= metrics["attention_percent_50"] <= metrics["attention_max"]
    log = (folder / "train.log").read_text()
    assert "step 6 of 6: loss" in log
    rates = {step: 0.04 * (1 - step / 6) for step in (1, 3, 5)}  # every second step's own, counted from 0
    assert scalars(folder / "tensorboard", "learning_rate") == pytest.approx(rates)
    network, parameters = load_checkpoint(folder / "checkpoints" / "best.ckpt")
    assert len(parameters["classes"]) == network.descriptor_classifier.out_features == 9


def scalars(folder: Path, name: str) -> dict[int, float]:
    """A figure that TensorBoard shows, by step."""
    found: dict[int, float] = {}
    for file in sorted(folder.glob("events*")):
        events = EventAccumulator(str(file))
        events.Reload()
        if name in events.Tags()["scalars"]:
            found |= {event.step: event.value for event in events.Scalars(name)}
    return found


def last_checkpoint(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return content


def assert_same_training(whole: dict[str, Any], resumed: dict[str, Any], steps: int) -> None:
    """Both have done all steps, and agree bit for bit."""
    assert whole["global_step"] == resumed["global_step"] == steps
    assert whole["history"] == resumed["history"]
    assert all(torch.equal(whole["state_dict"][name], resumed["state_dict"][name]) for name in whole["state_dict"])
    momenta = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (whole, resumed)]
    assert all(
        torch.equal(momenta[0][key]["momentum_buffer"], momenta[1][key]["momentum_buffer"]) for key in momenta[0]
    )


def test_a_killed_and_resumed_run_reaches_the_same_weights(
    run: Run, tmp_path: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = (*TINY, f"data.dir={blobs}", "export=[]")
    assert run(*tiny, output="whole") == 0
    step = DELFTraining.training_step

    def die(self: DELFTraining, batch: Any, batch_idx: int) -> Any:
        if self.global_step == 3:  # between two checkpoints
            raise RuntimeError("killed")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(DELFTraining, "training_step", die)
        assert run(*tiny, output="killed") == 1
    assert run(*tiny, f"resume={tmp_path / 'killed'}", output="resumed") == 0
    assert_same_training(last_checkpoint(tmp_path / "whole"), last_checkpoint(tmp_path / "resumed"), steps=6)
    assert run(*tiny, f"resume={tmp_path / 'killed'}", "trainer.learning_rate=0.01", output="other") == 2
    assert run(*tiny, f"resume={tmp_path / 'killed'}", "augmentation.scale=1.3", output="other") == 2
    assert run(*tiny, output="killed") == 2  # would replace its checkpoints
    assert run(*tiny, f"resume={tmp_path / 'killed'}", output="killed") == 0
    metrics = json.loads((tmp_path / "killed" / "metrics.json").read_text())
    assert metrics["images_per_second"] * metrics["seconds_training"] == pytest.approx(4 * 4, rel=0.01)  # 4 of 6 steps


def test_the_last_steps_are_checked_where_they_are_fewer_than_between_two_checks(
    run: Run, tmp_path: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = (*TINY, f"data.dir={blobs}", "export=[]", "trainer.max_steps=5")
    assert run(*tiny, output="whole") == 0
    assert list(pd.read_csv(tmp_path / "whole" / "history.csv")["step"]) == [2, 4, 5]
    step = DELFTraining.training_step

    def die(self: DELFTraining, batch: Any, batch_idx: int) -> Any:
        if self.global_step == 4:
            raise RuntimeError("killed")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(DELFTraining, "training_step", die)
        assert run(*tiny, output="killed") == 1
    assert run(*tiny, f"resume={tmp_path / 'killed'}", output="resumed") == 0
    assert_same_training(last_checkpoint(tmp_path / "whole"), last_checkpoint(tmp_path / "resumed"), steps=5)


@pytest.mark.parametrize(("at", "advice"), [(1, "before the first check: start it again"), (3, "resume=RUN goes on")])
def test_an_interrupted_training_says_how_it_goes_on(
    run: Run, tmp_path: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    at: int, advice: str,
) -> None:  # fmt: skip
    step, handler = DELFTraining.training_step, signal.getsignal(signal.SIGINT)

    def interrupt(self: DELFTraining, batch: Any, batch_idx: int) -> Any:
        if self.global_step == at:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    monkeypatch.setattr(DELFTraining, "training_step", interrupt)
    try:
        assert run(*TINY, f"data.dir={blobs}", "export=[]") == 130
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning ignores further ones
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert told and told[0].startswith(f"error: interrupted; {advice.replace('RUN', str(tmp_path / 'run'))}")


def test_an_interruption_after_the_last_check_is_told_too(
    run: Run, tmp_path: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("minia.training.callbacks.plot_history", interrupt)
    assert run(*TINY, f"data.dir={blobs}", "export=[]") == 130
    assert f"resume={tmp_path / 'run'} goes on from the last check" in capsys.readouterr().err


def test_a_process_that_was_killed_goes_on_bit_for_bit(run: Run, tmp_path: Path, blobs: Path) -> None:
    steps = 14
    tiny = (*TINY, f"data.dir={blobs}", "export=[]", f"trainer.max_steps={steps}", f"store={tmp_path / 'store'}")
    killed = tmp_path / "killed"
    command = [sys.executable, str(ROOT / "train.py"), *tiny, f"hydra.run.dir={killed}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None and not (killed / "checkpoints" / "last.ckpt").exists():
                time.sleep(0.01)
        finally:
            process.kill()  # SIGKILL: nothing can be put in order
    assert process.returncode == -signal.SIGKILL
    done = last_checkpoint(killed)["global_step"]
    assert 2 <= done < steps
    assert run(*tiny, f"resume={killed}", output="resumed") == 0
    assert run(*tiny, output="whole") == 0
    assert_same_training(last_checkpoint(tmp_path / "whole"), last_checkpoint(tmp_path / "resumed"), steps)


def test_a_learning_rate_is_found_without_a_bar_in_the_log(
    run: Run, tmp_path: Path, blobs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minia.training.run._STEPS_TO_FIND_RATE", 30)
    find = ("trainer.find_learning_rate=true", "trainer.steps_per_check=6", "trainer.learning_rate=0.5")
    assert run(*TINY, f"data.dir={blobs}", "export=[]", *find) == 0
    assert "Finding best" not in capsys.readouterr().err
    log = (tmp_path / "run" / "train.log").read_text()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert f"learning rate found: {metrics['learning_rate']:.4g}" in log
    assert "weights_only" not in log
    assert metrics["learning_rate"] not in (0.0, 0.5)
    assert list(pd.read_csv(tmp_path / "run" / "history.csv")["step"]) == [6]  # of the training alone
    assert {path.name for path in (tmp_path / "run").glob(".*")} == {".minia.json", ".minia.lock"}


def test_pretrained_weights_are_what_training_begins_with(tmp_path: Path) -> None:
    torch.manual_seed(5)
    resnet = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(resnet, tmp_path / "a.pth")
    settings = check(TrainSettings, compose(f"model.weights={tmp_path / 'a.pth'}", "model.normalisation=caffe"))
    plain, given = (build_module(settings, ["a", "b"], "", each) for each in (None, load_pretrained(settings)))
    assert torch.equal(given.model.backbone.get_parameter("layer3.0.conv1.weight"), resnet["layer3.0.conv1.weight"])
    assert not torch.equal(plain.model.backbone.get_parameter("layer3.0.conv1.weight"), resnet["layer3.0.conv1.weight"])
    assert torch.equal(given.model.attention.conv1.weight, plain.model.attention.conv1.weight)  # drawn with the seed
    assert given.model.std.tolist() == [1.0, 1.0, 1.0]


def network(**settings: Any) -> DELFTraining:
    arguments = {"backbone": "resnet18", "num_classes": 3, "stride_in_1x1": False, "block3_stride": False}
    optimisation = Optimisation(**({"learning_rate": 0.1, "max_steps": 10, "log_every": 1} | settings))
    return DELFTraining(arguments, ["a", "b", "c"], LossWeights(), optimisation, data={})


@pytest.mark.parametrize(("schedule", "halfway"), [("linear", 0.05), ("cosine", 0.05)])
def test_the_learning_rate_falls_to_zero(schedule: str, halfway: float) -> None:
    made: Any = network(schedule=schedule, attention_decay=1e-4).configure_optimizers()
    optimiser, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(11):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    assert rates[0] == pytest.approx(0.1)
    assert rates[5] == pytest.approx(halfway)
    assert rates[10] == pytest.approx(0)
    assert rates == sorted(rates, reverse=True)
    assert [len(group["params"]) for group in optimiser.param_groups][1] == 2
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.0, 1e-4]


def test_a_wrong_split_of_crop_and_view_is_refused() -> None:
    values = compose("augmentation=original")
    values["augmentation"]["rotate"] = True
    with pytest.raises(InputError, match="crop_area"):
        check(TrainSettings, values)


def test_a_model_of_a_run_that_did_not_end_is_replaced_on_resuming(run: Run, tmp_path: Path, blobs: Path) -> None:
    settings = (*TINY, f"data.dir={blobs}", "trainer.max_steps=2")
    assert run(*settings) == 0
    assert run(*settings, f"resume={tmp_path / 'run'}") == 2  # it ended
    mark = json.loads((tmp_path / "run" / ".minia.json").read_text())
    del mark["files"]["metrics.json"]  # as where it was killed between the model and the metrics
    (tmp_path / "run" / ".minia.json").write_text(json.dumps(mark))
    (tmp_path / "run" / "metrics.json").unlink()
    assert run(*settings, f"resume={tmp_path / 'run'}") == 0
    assert (tmp_path / "run" / "metrics.json").exists()
