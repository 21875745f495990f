"""What a training consists of, built from its settings: network, data, Lightning's trainer."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]

from minia.data.labelled.datamodule import Batching, GalaxyData
from minia.data.labelled.table import GalaxyTable
from minia.models.delf.network import DELF, LossWeights
from minia.models.delf.weights import load_backbone_weights
from minia.models.extractors.background import foreground_mask
from minia.training.callbacks import Checkpoints, LastCheck, ProgressLines, TensorBoardPictures
from minia.training.checks import CACHE, CHECKPOINTS
from minia.training.module import DELFTraining
from minia.training.settings import TrainSettings

_NOISE = (  # of Lightning, in warnings that nothing follows from
    *("LeafSpec", "num_workers", "logging interval", "is not empty", "GPU available", "pin_memory", "treespec"),
    "lr_scheduler.step",  # 16-mixed leaves out the first steps, until it has found its scale
)


def load_pretrained(settings: TrainSettings) -> DELF | None:
    """A network with the backbone's weights that ``model.weights`` names; None for none.

    Raises:
        InputError: they cannot be had, or are of another network.
    """
    if settings.model.weights == "none":
        return None
    network = DELF(num_classes=1, **_network(settings))
    load_backbone_weights(network, settings.model.weights, normalisation=settings.model.normalisation)
    return network


def _network(settings: TrainSettings) -> dict[str, Any]:
    """The arguments of the network but the number of classes."""
    names = {"backbone", "stride_in_1x1", "block3_stride", "reduction", "attention_channels"}
    return settings.model.model_dump(include=names)


def build_module(
    settings: TrainSettings, classes: list[str], table: str, pretrained: DELF | None = None
) -> DELFTraining:
    """The network with its optimiser, its weights drawn with the seed.

    Args:
        settings: what to do.
        classes: the names of the classes, in the order of the labels.
        table: fingerprint of the images it will be trained on.
        pretrained: gives the backbone its weights, and what images are normalised by.
    """
    model, trainer = settings.model, settings.trainer
    torch.manual_seed(settings.seed)
    module = DELFTraining(
        _network(settings) | {"normalisation": model.normalisation or "original", "num_classes": len(classes)},
        list(classes),
        LossWeights(model.descriptor_weight, model.attention_weight, model.reconstruction_weight),
        trainer.optimisation(),
        data={
            "table": table,
            "seed": settings.seed,
            "side": settings.data.side,
            **trainer.model_dump(include={"batch_size", "precision", "gradient_clip"}),
            "augmentation": settings.augmentation.model_dump(),
        },
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
    batching = Batching(trainer.batch_size, min(trainer.steps_per_check, trainer.max_steps), settings.seed)
    return GalaxyData(
        table, settings.augmentation, settings.data, batching,
        cache_folder=output / CACHE, foreground=foreground_mask,
    )  # fmt: skip


def build_trainer(settings: TrainSettings, device: str, output: Path, resumed: Path | None = None) -> lightning.Trainer:
    """Lightning's trainer: one device, a check every ``steps_per_check`` steps and after the last one.

    Args:
        settings: what to do.
        device: ``cpu`` or ``cuda``.
        output: the run's folder.
        resumed: the checkpoint that the run goes on from.
    """
    for text in _NOISE:
        warnings.filterwarnings("ignore", message=f".*{text}.*")
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
    return lightning.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        precision=chosen.precision,
        max_steps=chosen.max_steps,
        max_epochs=-1,
        gradient_clip_val=chosen.gradient_clip,
        gradient_clip_algorithm="norm",
        log_every_n_steps=chosen.log_every,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        logger=TensorBoardLogger(str(output), name="", version="tensorboard"),
        plugins=[LightningEnvironment()],  # not a batch system's, whose number of tasks it would insist on
        callbacks=callbacks,
        default_root_dir=str(output),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
