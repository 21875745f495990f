"""What a training run needs, checked before any work: a refusal after hours would be a waste."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psutil

from minia.core.artifact import InputError
from minia.core.run_folder import RunFolder
from minia.training.settings import TrainSettings

if TYPE_CHECKING:
    from minia.training.module import Training

logger = logging.getLogger(__name__)

CHECKPOINTS, CACHE, LOGS, PROFILE = "checkpoints", "cache", "logs", "profile"  # folders in a run's folder
BEST, LAST = "best.ckpt", "last.ckpt"
_PARTS = {  # of a checkpoint, with their types
    **{"hyper_parameters": dict, "global_step": int, "state_dict": dict, "history": list},
    **{"optimizer_states": list, "lr_schedulers": list, "loops": dict},
}
_SHARED_MEMORY = Path("/dev/shm")
_BATCHES_AHEAD = 3  # of a worker: two that wait, and one that it reads
_ONNX = ("onnx", "onnxscript")
_COMPILERS = {"darwin": "clang++", "win32": "cl"}  # what torch.compile calls where CXX names none; elsewhere g++


def check_machine(settings: TrainSettings, device: str) -> None:
    """Check that this machine can train and export as asked.

    Raises:
        InputError: it cannot.
    """
    if device == "cpu" and settings.trainer.precision == "16-mixed":
        raise InputError("trainer.precision=16-mixed: needs a CUDA device; allowed on a CPU: bf16-mixed, 32-true")
    if device == "cuda" and settings.trainer.precision == "bf16-mixed":
        import torch  # takes seconds: only where there is a GPU to ask

        if not torch.cuda.is_bf16_supported(including_emulation=False):
            logger.warning("trainer.precision=bf16-mixed: this GPU only emulates it; faster here: 16-mixed, 32-true")
    if device == "cuda" and settings.trainer.compile and importlib.util.find_spec("triton") is None:
        raise InputError("trainer.compile=true: needs triton on a GPU, and it is not installed; allowed here: false")
    compiler = os.environ.get("CXX") or _COMPILERS.get(sys.platform, "g++")
    if settings.trainer.compile and shutil.which(compiler) is None:
        raise InputError(f"trainer.compile=true: needs a C++ compiler, and there is no {compiler}; allowed here: false")
    missing = [package for package in _ONNX if importlib.util.find_spec(package) is None]
    if "onnx" in settings.export and missing:
        raise InputError(f"export=onnx: needs {' and '.join(missing)}; pip install {' '.join(missing)}")


def check_cache(settings: TrainSettings, num_training: int, num_validation: int, output: Path) -> None:
    """Check that there is room for the decoded images that ``data.cache`` keeps, and for the batches being read.

    Where it gives out only later, the system ends the run without a word.

    Raises:
        InputError: there is not.
    """
    kind, workers = settings.data.cache, settings.data.loader_workers
    channels = 4 if settings.augmentation.needs_mask else 3  # of what trains
    shared = shutil.disk_usage(_SHARED_MEMORY).free if workers and _SHARED_MEMORY.is_dir() else None
    if shared is not None:
        batch = settings.data.side**2 * channels * settings.trainer.images_at_once
        waiting = workers * _BATCHES_AHEAD * batch
        if waiting > shared:
            raise InputError(
                f"data.loader_workers={workers}: the batches that they read ahead take {waiting / 1e9:.1f} GB, and"
                f" {shared / 1e9:.1f} GB in {_SHARED_MEMORY} are free; allowed here: data.loader_workers=0"
            )
    if kind == "none":
        return
    needed = settings.data.side**2 * (channels * num_training + 3 * num_validation)
    free_at = {}  # bytes, by where they are, in words
    if kind == "disk":
        there = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
        free_at[f"on the disk of {output}"] = shutil.disk_usage(there).free
    else:
        free_at["of memory"] = psutil.virtual_memory().available
    if kind == "memory" and shared is not None:
        free_at[f"in {_SHARED_MEMORY}, which data.loader_workers share,"] = shared
    for where, free in free_at.items():
        if needed > free:
            others = "none" if kind == "disk" else "disk, none"
            raise InputError(
                f"data.cache={kind}: {num_training + num_validation} images of data.side={settings.data.side} take"
                f" {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB {where} are free; allowed here: data.cache={others}"
            )


def refuse_overwriting(settings: TrainSettings, folder: RunFolder) -> None:
    """Check that a run's folder holds nothing whole of another run that this one would replace.

    Raises:
        InputError: it does, and ``overwrite`` is not set.
    """
    if settings.overwrite:
        return
    output = folder.path
    for path in (output / f"model.{ending}" for ending in settings.export):
        if path.exists() and "metrics.json" in folder.files:  # else the run that wrote it did not come to its end
            raise InputError(f"{path} exists; allowed: another hydra.run.dir, or overwrite=true")
    if settings.resume is None and (output / CHECKPOINTS / LAST).exists():
        raise InputError(
            f"{output} holds checkpoints of another run; allowed: resume={output} to go on with it, overwrite=true,"
            " or another hydra.run.dir"
        )


def find_checkpoint(resume: Path | None) -> Path | None:
    """The checkpoint to go on from, of a run's folder or a file.

    Raises:
        InputError: the folder holds none, or the file is none.
    """
    if resume is None:
        return None
    path = resume if resume.is_file() else resume / CHECKPOINTS / LAST
    if not path.is_file():
        raise InputError(f"resume={resume}: that folder holds no {CHECKPOINTS}/{LAST}")
    read_checkpoint(path)
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    Raises:
        InputError: the file is not one of train.py.
    """
    import torch  # takes seconds: only where there is a checkpoint

    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is no checkpoint
        raise InputError(f"{path}: not a checkpoint of train.py: {' '.join(str(error).split())[:120]}") from None
    for name, kind in _PARTS.items():
        if not isinstance(content, dict) or not isinstance(content.get(name), kind):
            raise InputError(f"{path}: not a checkpoint of train.py: it has no {name}, or another thing of that name")
    if not all(isinstance(row, dict) for row in content["history"]):
        raise InputError(f"{path}: not a checkpoint of train.py: its history holds something else than rows")
    return cast(dict[str, Any], content)


def check_restored(path: Path, content: dict[str, Any], module: Training) -> None:
    """Check that a checkpoint fits a network and its optimiser, before Lightning fails on it in words of its own.

    Args:
        path: of the checkpoint, for the message.
        content: of the checkpoint.
        module: is given the weights.

    Raises:
        InputError: it does not.
    """
    try:
        module.load_state_dict(content["state_dict"])
        [state] = content["optimizer_states"]
        # On a copy of the groups alone: the optimiser that trains is made by Lightning.
        module.configure_optimizers()["optimizer"].load_state_dict(state)
        content["loops"]["fit_loop"]["epoch_progress"]
    except Exception as error:  # a wrong type in it may raise any kind
        why = " ".join(str(error).split())[:160]
        raise InputError(f"resume={path}: does not fit the network that is trained: {why}") from None


def refuse_another_training(checkpoint: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Check that a run goes on with the settings that it began with: what came of others would be of neither.

    Args:
        checkpoint: to go on from.
        before: its hyper parameters.
        now: those of the settings.

    Raises:
        InputError: names what has changed.
    """
    data = before.get("data", {})
    before = {**before, **(data if isinstance(data, dict) else {})}
    now = {**now, **now.get("data", {})}
    changed = [f"{name} was {before.get(name)}" for name in now if name != "data" and before.get(name) != now[name]]
    if changed:
        raise InputError(f"resume={checkpoint}: that run had other settings: {'; '.join(changed)}")
