"""What a training consists of, built from its settings: network, data, Lightning's trainer."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.plugins.environments import (  # type: ignore[attr-defined]
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.profilers import AdvancedProfiler, SimpleProfiler

from minia.core.workers import num_cores
from minia.data.labelled.datamodule import Batching, GalaxyData
from minia.data.labelled.table import GalaxyTable
from minia.models.delf.network import DELF, LossWeights
from minia.models.delf.timm_backbone import PREFIX
from minia.models.delf.weights import load_backbone_weights
from minia.models.extractors.background import foreground_mask
from minia.training.callbacks import Checkpoints, LastCheck, ProgressLines, TensorBoardPictures
from minia.training.checks import CACHE, CHECKPOINTS, LOGS, PROFILE
from minia.training.lightning_keys import build_part
from minia.training.module import DELFTraining, Training
from minia.training.ranks import started_by
from minia.training.settings import SelfSupervised, TimmModel, TrainSettings
from minia.training.views import ViewTraining

_NOISE = (  # of Lightning, in warnings that nothing follows from
    *("LeafSpec", "num_workers", "logging interval", "is not empty", "GPU available", "pin_memory", "treespec"),
    "sync_dist",  # what is logged in a validation was summed over all processes before
    "lr_scheduler.step",  # 16-mixed leaves out the first steps, until it has found its scale
)

_OF_SEVERAL = ("devices", "num_nodes", "strategy", "sync_batchnorm")


def load_pretrained(settings: TrainSettings) -> DELF | None:
    """A network with the backbone's weights that ``model.weights`` names; None for none.

    An encoder of timm is built even then, so that a wrong name is told before any work.

    Raises:
        InputError: they cannot be had, or are of another network.
    """
    if settings.model.weights == "none" and not isinstance(settings.model, TimmModel):
        return None
    network = DELF(num_classes=1, **_network(settings))
    load_backbone_weights(network, settings.model.weights, normalisation=settings.model.normalisation)
    return None if settings.model.weights == "none" else network


def _network(settings: TrainSettings) -> dict[str, Any]:
    """The arguments of the network but the number of classes."""
    names = {"backbone", "stride_in_1x1", "block3_stride", "reduction", "attention_channels"}
    arguments = settings.model.model_dump(include=names)
    if isinstance(settings.model, TimmModel):
        arguments |= {"backbone": PREFIX + settings.model.name, "stride_in_1x1": False}
    return arguments


def build_module(
    settings: TrainSettings,
    classes: list[str],
    table: str,
    pretrained: DELF | None = None,
    questions: list[list[str]] | None = None,
) -> Training:
    """The network with its optimiser, its weights drawn with the seed.

    Args:
        settings: what to do.
        classes: the names of the classes, in the order of the labels; of no use without labels.
        table: fingerprint of the images it will be trained on.
        questions: the answers of each, where votes are trained on; the classes are among the first one's.
        pretrained: gives the backbone its weights, and what images are normalised by.
    """
    model, trainer = settings.model, settings.trainer
    weights = LossWeights(model.descriptor_weight, model.attention_weight, model.reconstruction_weight)
    data = {
        "table": table,
        "seed": settings.seed,
        "side": settings.data.side,
        **trainer.model_dump(include={"batch_size", "precision", "gradient_clip"}),
        "augmentation": settings.augmentation.model_dump(),
    }
    network = _network(settings) | {"normalisation": model.normalisation or "original"}
    torch.manual_seed(settings.seed)
    module: Training
    if isinstance(settings.objective, SelfSupervised):
        data["objective"] = settings.objective.model_dump()
        module = ViewTraining(network | {"num_classes": 1}, weights, trainer.optimisation(), data)
    else:
        num_outputs = sum(len(each) for each in questions) if questions else len(classes)
        data |= {"questions": questions} if questions else {}
        module = DELFTraining(
            network | {"num_classes": num_outputs}, list(classes), weights, trainer.optimisation(), data
        )
    if pretrained is not None:
        module.model.backbone.load_state_dict(pretrained.backbone.state_dict())
        module.model.mean.copy_(pretrained.mean)
        module.model.std.copy_(pretrained.std)
    return module


def build_data(settings: TrainSettings, table: GalaxyTable, output: Path) -> GalaxyData:
    """The loaders and what is done to their batches.

    Args:
        settings: what to do.
        table: the labelled images.
        output: the run's folder, where decoded images are kept if asked for.
    """
    trainer = settings.trainer
    steps = min(trainer.steps_per_check, trainer.max_steps)
    num_views = 2 if isinstance(settings.objective, SelfSupervised) else 1
    batching = Batching(trainer.batch_size, steps, settings.seed, trainer.images_at_once, num_views)
    return GalaxyData(
        table, settings.augmentation, settings.data, batching,
        cache_folder=output / CACHE, foreground=foreground_mask,
    )  # fmt: skip


def use_threads(settings: TrainSettings, device: str) -> None:
    """Let torch use as many threads as asked for; where several processes share a CPU, each its part of the cores."""
    shared = device == "cpu" and settings.trainer.devices > 1
    threads = settings.threads or (max(1, num_cores() // settings.trainer.devices) if shared else None)
    if threads:
        torch.set_num_threads(threads)


def build_trainer(
    settings: TrainSettings, device: str, output: Path, resumed: Path | None = None, *, alone: bool = False
) -> lightning.Trainer:
    """Lightning's trainer: a check every ``steps_per_check`` steps and after the last one.

    Args:
        settings: what to do.
        device: ``cpu`` or ``cuda``.
        output: the run's folder.
        resumed: the checkpoint that the run goes on from.
        alone: in this process, whatever the settings say of others: to measure what was trained.
    """
    for text in _NOISE:
        warnings.filterwarnings("ignore", message=f".*{text}.*")
    logging.getLogger("lightning_fabric.utilities.distributed").setLevel(logging.WARNING)  # who has joined
    chosen = settings.trainer
    several = chosen.num_processes > 1 and not alone
    own: dict[str, Any] = {
        "accelerator": "gpu" if device == "cuda" else "cpu",
        "devices": 1,
        "precision": chosen.precision,
        "max_steps": chosen.max_steps,
        "max_epochs": -1,
        "gradient_clip_val": chosen.gradient_clip,
        "gradient_clip_algorithm": "norm",
        "log_every_n_steps": chosen.log_every,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "enable_checkpointing": False,
        "logger": _loggers(settings, output),
        # Not a batch system's, whose number of tasks it would insist on.
        "plugins": [_environment() if several else LightningEnvironment()],
        "callbacks": _callbacks(settings, output, resumed),
        "default_root_dir": str(output),
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    further = chosen.further
    if alone:
        further = {name: each for name, each in further.items() if name not in (*_OF_SEVERAL, "profiler")}
    if "profiler" in further:
        profiler = SimpleProfiler if further["profiler"] == "simple" else AdvancedProfiler
        further["profiler"] = profiler(dirpath=str(output / PROFILE), filename="profile")
    if several:
        further.setdefault("strategy", "ddp")
    return lightning.Trainer(**own | further)


def _environment() -> ClusterEnvironment:
    """Who has numbered the processes."""
    by = started_by()
    if by == "torchrun":
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False) if by == "slurm" else LightningEnvironment()


def _callbacks(settings: TrainSettings, output: Path, resumed: Path | None) -> list[Callback]:
    chosen = settings.trainer
    callbacks: list[Callback] = [
        LastCheck(),
        ProgressLines(),
        TensorBoardPictures(),
        Checkpoints(output / CHECKPOINTS, chosen.best_by, resumed),
    ]
    if chosen.patience:
        mode = "min" if chosen.best_by.startswith("loss") else "max"
        callbacks.append(EarlyStopping(f"validation/{chosen.best_by}", patience=chosen.patience, mode=mode))
    # Before ours, which write what these have done, such as a mean of the weights.
    given = [
        build_part(f"callbacks.{name}", keys, Callback, str(output / LOGS)) for name, keys in settings.callbacks.items()
    ]
    return [*given, *callbacks]


def _loggers(settings: TrainSettings, output: Path) -> list[Logger]:
    pictures = TensorBoardLogger(str(output), name="", version="tensorboard")
    given = [build_part(f"loggers.{name}", keys, Logger, str(output / LOGS)) for name, keys in settings.loggers.items()]
    return [pictures, *given]
