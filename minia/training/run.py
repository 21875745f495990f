"""One training run: data -> fit -> metrics -> export."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minia.command_line.train_settings import (
    CSVData,
    FolderData,
    GZ2Data,
    ListData,
    SimulatedData,
    TrainSettings,
    plain,
)
from minia.core.artifact import InputError, read_manifest
from minia.core.context import Context
from minia.core.device import choose_device
from minia.core.run_folder import RunFolder, claimed, remove_own
from minia.core.store import register_run
from minia.core.workers import num_cores
from minia.core.writing import write_text_whole
from minia.data.labelled.galaxy_zoo import CATALOGUE_FILE, MAPPING_FILE
from minia.training.checks import (
    CHECKPOINTS,
    LAST,
    check_cache,
    check_machine,
    find_checkpoint,
    read_checkpoint,
    refuse_another_training,
    refuse_one_of_several,
    refuse_overwriting,
)

if TYPE_CHECKING:  # torch and Lightning take seconds to import: only once the settings are right
    from pytorch_lightning import Trainer

    from minia.data.labelled.datamodule import GalaxyData
    from minia.data.labelled.table import GalaxyTable
    from minia.models.delf.network import DELF
    from minia.training.module import DELFTraining

logger = logging.getLogger(__name__)

_PICTURES = ("history.csv", "history.png", "confusion.png", "attention.png")
_WHILE_TRAINING = (f"{CHECKPOINTS}/{LAST}", f"{CHECKPOINTS}/best.ckpt", "cache")
FILES = (  # what a run writes in its folder
    *("config.yaml", "metrics.json", *_PICTURES, *_WHILE_TRAINING),
    *(f"model.{each}" for each in ("pt", "pt2", "onnx")),
)
_STEPS_TO_FIND_RATE = 100
_OPTIMISATION = (
    *("optimiser", "schedule", "learning_rate", "momentum", "weight_decay", "attention_decay"),
    *("warmup_steps", "max_steps", "log_every", "channels_last", "compile"),
)
_NOISE = (
    *("LeafSpec", "num_workers", "logging interval", "is not empty", "GPU available", "pin_memory", "treespec"),
    "lr_scheduler.step",  # 16-mixed leaves out the first steps, until it has found its scale
)


def train(settings: TrainSettings, store: Path, output: Path, config: str) -> dict[str, Any]:
    """Train DELF and leave the results in the run's folder.

    These are ``config.yaml``, ``metrics.json``, ``history.csv`` (one row a validation),
    ``checkpoints/``, ``tensorboard/``, the pictures of ``minia.training.callbacks`` and the exported
    model, ``model.pt``.

    Args:
        settings: what to do.
        store: the folder of artifacts.
        output: the run's folder.
        config: the resolved configuration as text.

    Returns:
        The metrics.

    Raises:
        InputError: what was given cannot be used.
    """
    with claimed(output, "train", FILES) as folder:
        return _train(settings, store, folder, config)


def _train(settings: TrainSettings, store: Path, folder: RunFolder, config: str) -> dict[str, Any]:
    started, output = time.perf_counter(), folder.path
    refuse_one_of_several()
    device = choose_device(settings.device)
    check_machine(settings, device)
    refuse_overwriting(settings, folder)
    folder.record(store, {})
    register_run(folder)
    checkpoint = find_checkpoint(settings.resume)
    pretrained = None if checkpoint else load_pretrained(settings)  # a checkpoint has weights of its own
    artifact = build_table(settings, store)
    seconds_table = time.perf_counter() - started
    folder.record(store, {"table": artifact})
    register_run(folder)
    from minia.data.labelled.table import GalaxyTable

    table = GalaxyTable.load(artifact)
    rows_of = table.table["split"].value_counts()
    check_cache(settings, rows_of["train"], rows_of["validation"], output)
    if settings.threads:
        import torch

        torch.set_num_threads(settings.threads)
    with folder.replacing("config.yaml", "metrics.json"):
        remove_own(folder, "metrics.json")  # without it a run is not whole
        write_text_whole(output / "config.yaml", config)
    module = build_module(settings, table.classes, read_manifest(artifact)["fingerprint"], pretrained)
    data = build_data(settings, table, output)
    trainer = build_trainer(settings, device, output, checkpoint)
    with folder.replacing(*_WHILE_TRAINING):
        fitted = _fit(settings, trainer, module, data, checkpoint)
    metrics = {
        "num_images": len(table.table),
        "num_training_images": len(data.training),
        "num_failed_images": read_manifest(artifact)["counts"]["num_skipped_images"],
        "num_classes": len(table.classes),
        "device": device,
        **fitted,
        **_finish(settings, module, data, trainer, folder),
        "seconds_table": round(seconds_table, 3),
    }
    metrics["seconds_total"] = round(time.perf_counter() - started, 3)
    with folder.replacing("metrics.json"):
        write_text_whole(output / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return metrics


def load_pretrained(settings: TrainSettings) -> DELF | None:
    """A network with the backbone's weights that ``model.weights`` names; None for none.

    Raises:
        InputError: they cannot be had, or are of another network.
    """
    if settings.model.weights == "none":
        return None
    from minia.models.delf.network import DELF
    from minia.models.delf.weights import load_backbone_weights

    network = DELF(num_classes=1, **_network(settings))
    load_backbone_weights(network, settings.model.weights, normalisation=settings.model.normalisation)
    return network


def _network(settings: TrainSettings) -> dict[str, Any]:
    """The arguments of the network but the number of classes."""
    model = plain(settings.model)
    names = ("backbone", "stride_in_1x1", "block3_stride", "reduction", "attention_channels")
    return {name: model[name] for name in names} | {"normalisation": model["normalisation"] or "imagenet"}


def build_table(settings: TrainSettings, store: Path) -> Path:
    """The table of labelled images that the settings name; the artifact's path."""
    from minia.data.labelled import sources as table_sources
    from minia.data.labelled.table import Selection

    data = settings.data
    num_workers = settings.num_workers or num_cores()
    selection = Selection(data.class_size, data.validation_share, data.check_images, settings.seed, num_workers)
    if isinstance(data, (SimulatedData, GZ2Data)):
        votes: dict[str, Any] = {
            "gate": data.gate, "threshold": data.threshold, "min_votes": data.min_votes, "ambiguous": data.ambiguous
        }  # fmt: skip
        if isinstance(data, SimulatedData):
            from minia.data.images import simulate_images
            from minia.data.settings import SimulatedImages

            drawn = SimulatedImages(
                kind="simulated", num_images=data.num_images, image_size=data.image_size, min_side=0, max_side=0
            )
            survey = simulate_images(store, drawn, Context(settings.seed, settings.device, num_workers))
            return table_sources.simulated_table(store, selection, survey, **votes)
        return table_sources.gz2_table(store, selection, **votes, **_gz2_files(data))
    if isinstance(data, CSVData):
        columns = {name: getattr(data, name) for name in _columns_of(data)}
        return table_sources.csv_table(store, selection, path=data.path, folder=data.dir, **columns)
    if isinstance(data, FolderData):
        return table_sources.folder_table(store, selection, folder=data.dir)
    assert isinstance(data, ListData)
    return table_sources.list_table(store, selection, path=data.path, folder=data.dir, ambiguous=data.ambiguous)


def _columns_of(data: CSVData) -> list[str]:
    return [name for name in type(data).model_fields if name.endswith("_column")]


def _gz2_files(data: GZ2Data) -> dict[str, Any]:
    """Where the three parts of Galaxy Zoo 2 are; names all that are missing at once."""
    plain_csv = data.root / CATALOGUE_FILE
    packed = plain_csv.with_name(CATALOGUE_FILE + ".gz")
    files = {
        "catalogue": data.catalogue or (packed if packed.exists() and not plain_csv.exists() else plain_csv),
        "mapping": data.mapping or data.root / MAPPING_FILE,
        "images": data.images or data.root / "images",
    }
    missing = [f"{path} (data.{key})" for key, path in files.items() if not path.exists()]
    if missing:
        raise InputError(f"data.root={data.root}: missing {', '.join(missing)}")
    return files


def build_module(
    settings: TrainSettings, classes: list[str], table: str, pretrained: DELF | None = None
) -> DELFTraining:
    """The network with its optimiser, its weights drawn with the seed.

    Args:
        settings: what to do.
        classes: their names.
        table: fingerprint of the images it will be trained on.
        pretrained: gives the backbone its weights, and what images are normalised by.
    """
    import torch

    from minia.training.module import DELFTraining

    model, trainer = plain(settings.model), plain(settings.trainer)
    torch.manual_seed(settings.seed)
    module = DELFTraining(
        network=_network(settings) | {"num_classes": len(classes)},
        classes=list(classes),
        loss_weights={name: model[f"{name}_weight"] for name in ("descriptor", "attention", "reconstruction")},
        data={
            "table": table,
            "seed": settings.seed,
            "side": settings.data.side,
            "batch_size": trainer["batch_size"],
            "precision": trainer["precision"],
            "gradient_clip": trainer["gradient_clip"],
            "augmentation": plain(settings.augmentation),
        },
        **{name: trainer[name] for name in _OPTIMISATION},
    )
    if pretrained is not None:
        module.model.backbone.load_state_dict(pretrained.backbone.state_dict())
        module.model.mean.copy_(pretrained.mean)
        module.model.std.copy_(pretrained.std)
    return module


def build_data(settings: TrainSettings, table: GalaxyTable, output: Path) -> GalaxyData:
    """The loaders and what is done to their batches."""
    from minia.data.labelled.augmentation import Augmentation
    from minia.data.labelled.datamodule import GalaxyData
    from minia.models.extractors.background import foreground_mask

    data, trainer = settings.data, settings.trainer
    return GalaxyData(
        table,
        Augmentation(**plain(settings.augmentation)),
        side=data.side,
        batch_size=trainer.batch_size,
        steps_per_check=min(trainer.steps_per_check, trainer.max_steps),
        seed=settings.seed,
        num_workers=data.loader_workers,
        pin_memory=data.pin_memory,
        persistent_workers=data.persistent_workers,
        cache=data.cache,
        cache_folder=output / "cache",
        foreground=foreground_mask,
    )


def build_trainer(settings: TrainSettings, device: str, output: Path, resumed: Path | None = None) -> Trainer:
    """Lightning's trainer: one device, a check every ``steps_per_check`` steps."""
    import pytorch_lightning as lightning
    from pytorch_lightning.callbacks import Callback, EarlyStopping
    from pytorch_lightning.loggers import TensorBoardLogger
    from pytorch_lightning.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]

    from minia.training.callbacks import Checkpoints, ProgressLines, TensorBoardPictures

    for text in _NOISE:
        warnings.filterwarnings("ignore", message=f".*{text}.*")
    chosen = settings.trainer
    callbacks: list[Callback] = [
        ProgressLines(),
        TensorBoardPictures(),
        Checkpoints(output / CHECKPOINTS, resumed),
    ]
    if chosen.patience:
        callbacks.append(EarlyStopping("validation/loss_total", patience=chosen.patience))
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


def _fit(
    settings: TrainSettings, trainer: Trainer, module: DELFTraining, data: GalaxyData, checkpoint: Path | None
) -> dict[str, Any]:
    """Train; steps, seconds and images per second of this run."""
    if checkpoint is not None:
        before = read_checkpoint(checkpoint)["hyper_parameters"]
        if settings.trainer.find_learning_rate:
            module.hparams["learning_rate"] = before["learning_rate"]
        refuse_another_training(checkpoint, before, dict(module.hparams))
    elif settings.trainer.find_learning_rate:
        module.hparams["learning_rate"] = _find_learning_rate(trainer, module, data)
    # Read before: training replaces the checkpoint that it goes on from.
    first = 0 if checkpoint is None else int(read_checkpoint(checkpoint)["global_step"])
    started = time.perf_counter()
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:  # what Lightning makes of an interruption
        logger.info("resume=%s goes on from the last check", trainer.default_root_dir)
        raise KeyboardInterrupt from None
    seconds = time.perf_counter() - started
    done = trainer.global_step - first
    return {
        "num_steps": trainer.global_step,
        "learning_rate": module.hparams["learning_rate"],
        "seconds_training": round(seconds, 3),
        "images_per_second": round(done * settings.trainer.batch_size / seconds, 3),
    }


def _find_learning_rate(trainer: Trainer, module: DELFTraining, data: GalaxyData) -> float:
    """The learning rate of the steepest fall of the loss, or the one that is set where none stands out."""
    from pytorch_lightning.tuner.tuning import Tuner

    logger.info("looking for a learning rate: %d steps", _STEPS_TO_FIND_RATE)
    # Lightning draws a bar there, which is noise where it is not on a terminal.
    with contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO()):
        found = Tuner(trainer).lr_find(
            module, datamodule=data, num_training=_STEPS_TO_FIND_RATE, attr_name="learning_rate", update_attr=False
        )
    suggestion = found.suggestion() if found else None
    if suggestion is None:
        logger.warning("no learning rate stands out: taking %.4g", module.hparams["learning_rate"])
        return float(module.hparams["learning_rate"])
    logger.info("learning rate found: %.4g", suggestion)
    return float(suggestion)


def _finish(
    settings: TrainSettings, module: DELFTraining, data: GalaxyData, trainer: Trainer, folder: RunFolder
) -> dict[str, Any]:
    """Take the best weights, measure them in one exact pass, draw and export them."""
    import pandas as pd

    from minia.models.delf.export import FORMATS, export_delf
    from minia.training.callbacks import plot_attention, plot_confusion, plot_history

    history, output = list(module.history), folder.path
    best = output / CHECKPOINTS / "best.ckpt"
    if settings.trainer.keep == "best" and best.exists():
        module.load_state_dict(read_checkpoint(best)["state_dict"])
    trainer.validate(module, datamodule=data, verbose=False)
    metrics = module.history.pop()
    with folder.replacing(*_PICTURES):
        write_text_whole(output / "history.csv", pd.DataFrame(history).to_csv(index=False))
        plot_history(output / "history.png", history)
        plot_confusion(output / "confusion.png", module)
        plot_attention(output / "attention.png", module, data)
    formats = {ending[1:]: name for name, ending in FORMATS.items()}
    for ending in settings.export:
        with folder.replacing(f"model.{ending}"):
            export_delf(
                module.model, output / f"model.{ending}", classes=list(module.hparams["classes"]),
                config=plain(settings), file_format=formats[ending], overwrite=True,  # refused before, where it is not
            )  # fmt: skip
    logger.info(
        "validation accuracy: descriptor branch %.3f, attention branch %.3f",
        metrics["descriptor_accuracy"], metrics["attention_accuracy"],
    )  # fmt: skip
    return {name: value for name, value in metrics.items() if name != "step"}
