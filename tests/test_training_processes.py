"""Training with arguments, callbacks and loggers of Lightning, and in two processes by gloo."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from test_train import ROOT, TINY, Run, blobs_of_two_classes, compose, last_checkpoint, the_error, train_here  # noqa: F401 - fixtures
from torch import Tensor

from minia.core.artifact import InputError
from minia.core.setting_types import check
from minia.data.labelled.dataset import PassSampler, Visit
from minia.models.delf.export import load_exported
from minia.training.callbacks import Checkpoints
from minia.training.module import DELFTraining
from minia.training.ranks import number_of_process, started_by
from minia.training.settings import TrainSettings

TWO = ("+trainer.devices=2", "trainer.keep=last", "trainer.steps_per_check=3")


def metrics_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def assert_whole(folder: Path, steps: list[int]) -> None:
    """A finished run of two processes: the pass over all images at its end, in one, gives what both counted."""
    history = pd.read_csv(folder / "history.csv")
    assert list(history["step"]) == steps
    metrics = metrics_of(folder)
    assert metrics["num_steps"] == steps[-1]
    for name, value in history.iloc[-1].items():
        if not str(name).startswith(("step", "zeros", "attention_percent")):  # of the first batch; of uneven parts
            assert metrics[str(name)] == pytest.approx(value, rel=1e-4), name
    assert last_checkpoint(folder)["global_step"] == steps[-1]


def test_two_processes_share_every_batch_and_every_validation(
    run: Run, tmp_path: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    sizes: list[int] = []
    step = DELFTraining.training_step

    def note(self: DELFTraining, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        sizes.append(len(batch["label"]))
        return step(self, batch, batch_idx)

    write = Checkpoints.on_train_epoch_end

    def copy(self: Checkpoints, trainer: Any, module: Any) -> None:
        write(self, trainer, module)
        if trainer.global_step == 3 and not (tmp_path / "middle.ckpt").exists():
            shutil.copy(self.folder / "last.ckpt", tmp_path / "middle.ckpt")

    monkeypatch.setattr(DELFTraining, "training_step", note)
    monkeypatch.setattr(Checkpoints, "on_train_epoch_end", copy)
    assert run(*TINY, *TWO, f"data.dir={blobs}") == 0
    assert sizes == [2] * 6  # half of each batch, in each of six steps
    assert_whole(tmp_path / "run", [3, 6])
    assert load_exported(tmp_path / "run" / "model.pt")[1]["classes"] == ["few", "many"]
    assert not torch.distributed.is_initialized()
    assert "LOCAL_RANK" not in os.environ
    # One process with the whole batch gets about as far: the normalisation of a half batch alone differs.
    assert run(*TINY, "trainer.keep=last", "trainer.steps_per_check=3", f"data.dir={blobs}", output="one") == 0
    two, one = (metrics_of(tmp_path / name)["loss_reconstruction"] for name in ("run", "one"))
    assert two == pytest.approx(one, rel=0.5)
    # What went on from the first check, in two processes again, comes to the same weights.
    assert run(*TINY, *TWO, f"data.dir={blobs}", f"resume={tmp_path / 'middle.ckpt'}", "export=[]", output="again") == 0
    assert_same_weights(last_checkpoint(tmp_path / "run"), last_checkpoint(tmp_path / "again"))


def assert_same_weights(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert all(torch.equal(first["state_dict"][name], second["state_dict"][name]) for name in first["state_dict"])


def test_a_loss_that_is_no_number_in_one_process_ends_both(
    run: Run, tmp_path: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = DELFTraining.training_step

    def overflow(self: DELFTraining, batch: Any, batch_idx: int) -> Any:
        return step(self, batch, batch_idx) * (float("nan") if self.global_step >= 3 else 1.0)

    monkeypatch.setattr(DELFTraining, "training_step", overflow)  # in the first process alone
    assert run(*TINY, *TWO, f"data.dir={blobs}", "export=[]") == 2
    assert "the loss is not finite" in the_error(capsys)


@pytest.mark.parametrize("by", ["torchrun", "slurm"])
def test_processes_that_others_start(tmp_path: Path, blobs: Path, by: str) -> None:
    overrides = [*TINY, *TWO, f"data.dir={blobs}", "export=[]", f"store={tmp_path / 'store'}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if by == "torchrun":
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += [str(ROOT / "train.py"), *overrides, f"hydra.run.dir={tmp_path / 'run'}"]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=300)
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        tasks = []
        for number in ("0", "1"):
            slurm = {"JOB_ID": "1", "JOB_NAME": "train", "NTASKS": "2", "PROCID": number, "LOCALID": number}
            slurm |= {"NODEID": "0", "NODELIST": "localhost", "NTASKS_PER_NODE": "2"}
            own = {**environment, **{f"SLURM_{name}": value for name, value in slurm.items()}}
            own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            # Each task names its own folder by the time: only the first one's is used.
            folder = tmp_path / ("run" if number == "0" else "other")
            command = [sys.executable, str(ROOT / "train.py"), *overrides, f"hydra.run.dir={folder}"]
            tasks.append(subprocess.Popen(command, cwd=tmp_path, env=own, stderr=subprocess.DEVNULL))
        assert [task.wait(300) for task in tasks] == [0, 0]
        assert not (tmp_path / "other").exists()
    assert_whole(tmp_path / "run", [3, 6])


@pytest.mark.parametrize(
    ("environment", "devices", "expected"),
    [
        ({}, 1, 0),
        ({"LOCAL_RANK": "1"}, 2, 1),
        ({"TORCHELASTIC_RUN_ID": "a", "RANK": "1", "WORLD_SIZE": "2"}, 2, 1),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "a"}, 2, 1),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "bash"}, 2, 0),  # a shell inside an allocation
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, 1, 0),
        ({"TORCHELASTIC_RUN_ID": "a", "RANK": "1", "WORLD_SIZE": "2"}, 1, r"allowed: one task .*\+trainer.devices=2"),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "1"}, 2, "SLURM_NTASKS=4: but .* make 2 processes"),
    ],
)
def test_the_number_of_a_process(environment: dict[str, str], devices: int, expected: int | str) -> None:
    trainer = check(TrainSettings, compose(f"+trainer.devices={devices}")).trainer
    if isinstance(expected, int):
        assert number_of_process(trainer, environment) == expected
    else:
        with pytest.raises(InputError, match=expected):
            number_of_process(trainer, environment)
    assert started_by(environment) in ("torchrun", "slurm", "minia")


def test_together_processes_take_what_one_would() -> None:
    whole = list(PassSampler(10, 24, 3, lambda: 24))
    parts = []
    for number in range(3):
        part = number, 3
        parts.append(list(PassSampler(10, 24, 3, lambda: 24, lambda: part)))  # noqa: B023 - listed at once
    assert [len(part) for part in parts] == [8, 8, 8]
    together: list[Visit] = [visit for visits in zip(*parts, strict=True) for visit in visits]
    assert together == whole


def test_accumulated_batches_make_one_step(
    run: Run, tmp_path: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    step = DELFTraining.training_step

    def note(self: DELFTraining, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        seen.append((self.global_step, len(batch["label"])))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(DELFTraining, "training_step", note)
    further = ("+trainer.accumulate_grad_batches=2", "+trainer.profiler=simple")
    assert run(*TINY, f"data.dir={blobs}", "export=[]", *further) == 0
    assert seen == [(number // 2, 2) for number in range(12)]  # 6 steps of 4 images, in halves
    assert list(pd.read_csv(tmp_path / "run" / "history.csv")["step"]) == [2, 4, 6]
    assert [group["lr"] for group in last_checkpoint(tmp_path / "run")["optimizer_states"][0]["param_groups"]] == [
        pytest.approx(0.0, abs=1e-9)
    ] * 2
    assert "run_training_batch" in next((tmp_path / "run" / "profile").glob("*")).read_text()


def test_callbacks_and_loggers_by_their_class(run: Run, tmp_path: Path, blobs: Path) -> None:
    mean = ("+callbacks.mean._target_=pytorch_lightning.callbacks.EMAWeightAveraging", "+callbacks.mean.decay=0.5")
    table = ("+loggers.table._target_=pytorch_lightning.loggers.CSVLogger", "+loggers.table.name=figures")
    assert run(*TINY, f"data.dir={blobs}", "trainer.keep=last", *mean, *table) == 0
    [figures] = (tmp_path / "run" / "logs" / "figures").rglob("metrics.csv")
    assert "validation/attention_accuracy" in pd.read_csv(figures).columns
    checkpoint = last_checkpoint(tmp_path / "run")
    exported = load_exported(tmp_path / "run" / "model.pt")[0].encoder.weight
    assert torch.equal(checkpoint["state_dict"]["model.reduction.encoder.weight"], exported)  # the mean is exported
    assert not torch.equal(checkpoint["current_model_state"]["model.reduction.encoder.weight"], exported)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+trainer.accumulate_grad_batch=2"], "trainer.accumulate_grad_batch: there is no such key (did you mean"),
        (["+trainer.max_epochs=2"], "trainer.max_epochs: minIA sets it; allowed: trainer.max_steps"),
        (["+trainer.devices=auto"], "trainer.devices=auto: expected a whole number of at least 1"),
        (["+trainer.devices=3"], "trainer.batch_size=4: 3 devices and accumulated batches share it"),
        (["+trainer.num_nodes=2"], "+trainer.num_nodes=2: needs torchrun or Slurm"),
        (["+trainer.profiler=best"], "trainer.profiler=best: expected simple or advanced"),
        (["+trainer.devices=2", "data.cache=disk"], "data.cache=disk: of several processes each would write it"),
        (["+callbacks.a.decay=1"], "callbacks.a._target_: must be given"),
        (["+callbacks.a._target_=pytorch_lightning.None"], "callbacks.a._target_=pytorch_lightning.None: the module"),
        (
            ["+callbacks.a._target_=pytorch_lightning.callbacks.StochasticWeightAveraging"],
            "callbacks.a: pytorch_lightning.callbacks.StochasticWeightAveraging: TypeError",
        ),
        (["+callbacks.a._target_=pytorch_lightning.loggers.CSVLogger"], "expected a subclass of"),
        (
            ["+loggers.a._target_=pytorch_lightning.loggers.CSVLogger", "+loggers.a.nam=b"],
            "(did you mean loggers.a.name",
        ),
    ],
)  # fmt: skip
def test_wrong_parts_are_told_in_one_line(
    run: Run, tmp_path: Path, blobs: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    assert run(*TINY, f"data.dir={blobs}", "export=[]", *overrides) == 2
    assert message in the_error(capsys)
