"""One training: the table of images, the fit, what it measures, the exported model."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minia.core.artifact import InputError, read_manifest
from minia.core.context import Context
from minia.core.device import choose_device
from minia.core.run_folder import RunFolder, claimed, remove_own
from minia.core.store import register_run
from minia.core.workers import num_cores
from minia.core.writing import write_text_whole
from minia.training.checks import (
    BEST,
    CACHE,
    CHECKPOINTS,
    LAST,
    LOGS,
    PROFILE,
    check_cache,
    check_machine,
    check_restored,
    find_checkpoint,
    read_checkpoint,
    refuse_another_training,
    refuse_overwriting,
)
from minia.training.processes import leave, others_started, take_part
from minia.training.ranks import number_of_process
from minia.training.settings import TrainSettings

if TYPE_CHECKING:  # torch and Lightning take seconds to import: only once the settings are right
    from pytorch_lightning import Trainer

    from minia.data.labelled.datamodule import GalaxyData
    from minia.training.module import Training

logger = logging.getLogger(__name__)

_PICTURES = ("history.csv", "history.png", "confusion.png", "attention.png")
_WHILE_TRAINING = (f"{CHECKPOINTS}/{LAST}", f"{CHECKPOINTS}/{BEST}", CACHE, LOGS, PROFILE)
_EXPORTED = {"pt": "model.pt", "pt2": "model.pt2", "aoti": "model.aoti.pt2", "onnx": "model.onnx"}
FILES = (  # what a run writes in its folder
    *("config.yaml", "metrics.json", *_PICTURES, *_WHILE_TRAINING),
    *_EXPORTED.values(),
)
_STEPS_TO_FIND_RATE = 100


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
    if number_of_process(settings.trainer):
        sys.exit(take_part(settings, store, output))
    with claimed(output, "train", FILES) as folder, _advising(folder.path):
        return _train(settings, store, folder, config)


@contextlib.contextmanager
def _advising(output: Path) -> Iterator[None]:
    """Say after an interruption how to go on."""
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if in_main else None
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as error:
        # Lightning makes an exit of an interruption.
        interruption = error.__context__ if isinstance(error, SystemExit) else error
        if not isinstance(interruption, KeyboardInterrupt):
            raise
        saved = (output / CHECKPOINTS / LAST).exists()
        way = f"resume={output} goes on from the last check" if saved else "before the first check: start it again"
        interruption.args = (way,)
        raise interruption from None
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)  # after an interruption Lightning would not hear of another one


def _train(settings: TrainSettings, store: Path, folder: RunFolder, config: str) -> dict[str, Any]:
    started, output = time.perf_counter(), folder.path
    context = Context(settings.seed, choose_device(settings.device), settings.num_workers or num_cores())
    check_machine(settings, context.device)
    refuse_overwriting(settings, folder)
    checkpoint = find_checkpoint(settings.resume)
    # These bring torch and Lightning, which take seconds: what the machine lacks is told first.
    from minia.data.labelled.sources import check_source, labelled_table
    from minia.data.labelled.table import GalaxyTable
    from minia.data.labelled.votes import Questions
    from minia.training.build import build_data, build_module, build_trainer, load_pretrained, use_threads

    pretrained = None if checkpoint else load_pretrained(settings)  # a checkpoint has weights of its own
    check_source(settings.data)
    folder.record(store, {})
    register_run(folder)
    artifact = labelled_table(store, settings.data, context)
    seconds_table = time.perf_counter() - started
    folder.record(store, {"table": artifact})
    register_run(folder)
    table = GalaxyTable.load(artifact)
    rows_of = table.table["split"].value_counts()
    check_cache(settings, rows_of["train"], rows_of["validation"], output)
    use_threads(settings, context.device)
    _check_shares(settings, rows_of["validation"])
    with folder.replacing("config.yaml", "metrics.json"):
        remove_own(folder, "metrics.json")  # without it a run is not whole
        write_text_whole(output / "config.yaml", config)
    manifest, questions = read_manifest(artifact), Questions.of(table.table).answers
    module = build_module(settings, table.classes, manifest["fingerprint"], pretrained, questions)
    data = build_data(settings, table, output)
    trainer = build_trainer(settings, context.device, output, checkpoint)
    with folder.replacing(*_WHILE_TRAINING), others_started(settings, store, output):
        fitted = _fit(settings, trainer, module, data, checkpoint)
        leave()
    if trainer.world_size > 1:
        trainer = build_trainer(settings, context.device, output, alone=True)
    metrics = {
        "num_images": len(table.table),
        "num_training_images": len(data.training),
        "num_failed_images": manifest["counts"]["num_skipped_images"],
        "num_classes": len(module.hparams["classes"]),
        "device": context.device,
        **fitted,
        **_finish(settings, module, data, trainer, folder),
        "seconds_table": round(seconds_table, 3),
    }
    metrics["seconds_total"] = round(time.perf_counter() - started, 3)
    with folder.replacing("metrics.json"):
        write_text_whole(output / "metrics.json", json.dumps(_json(metrics), indent=2, allow_nan=False) + "\n")
    return metrics


def _check_shares(settings: TrainSettings, num_validation: int) -> None:
    """Check that there is an image to validate on for each process."""
    count = settings.trainer.num_processes
    if num_validation < count:
        raise InputError(f"+trainer.devices={settings.trainer.devices}: {num_validation} images validate, and each of"
                         f" {count} processes needs one")  # fmt: skip


def _json(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics as JSON holds them, which has no word for what is not a number."""
    return {
        name: None if isinstance(each, float) and not math.isfinite(each) else each for name, each in metrics.items()
    }


def _fit(
    settings: TrainSettings, trainer: Trainer, module: Training, data: GalaxyData, checkpoint: Path | None
) -> dict[str, Any]:
    """Train; steps, seconds and images per second of this run."""
    from minia.training.module import NotFiniteError

    output = Path(trainer.default_root_dir)
    first = 0
    if checkpoint is not None:
        content = read_checkpoint(checkpoint)  # before training replaces it
        before, first = content["hyper_parameters"], content["global_step"]
        if settings.trainer.find_learning_rate:
            module.hparams["learning_rate"] = before.get("learning_rate")
        refuse_another_training(checkpoint, before, dict(module.hparams))
        check_restored(checkpoint, content, module)
    elif settings.trainer.find_learning_rate:
        module.hparams["learning_rate"] = _find_learning_rate(trainer, module, data)
    started = time.perf_counter()
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except NotFiniteError as error:
        last = output / CHECKPOINTS / LAST
        kept = f"; {last} holds the weights of the last good check" if last.exists() else ""
        raise InputError(f"{error}{kept}") from None
    seconds = time.perf_counter() - started
    done = trainer.global_step - first
    return {
        "num_steps": trainer.global_step,
        "learning_rate": module.hparams["learning_rate"],
        "seconds_training": round(seconds, 3),
        "images_per_second": round(done * settings.trainer.batch_size / seconds, 3),
    }


def _find_learning_rate(trainer: Trainer, module: Training, data: GalaxyData) -> float:
    """The learning rate of the steepest fall of the loss, or the one that is set where none stands out."""
    from pytorch_lightning.tuner.tuning import Tuner

    logger.info("looking for a learning rate: %d steps", _STEPS_TO_FIND_RATE)
    module.stops_if_not_finite = False  # the highest of them may well lead nowhere
    # Lightning draws a bar there, which is noise where it is not on a terminal.
    with contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO()):
        found = Tuner(trainer).lr_find(
            module, datamodule=data, num_training=_STEPS_TO_FIND_RATE, attr_name="learning_rate", update_attr=False
        )
    module.stops_if_not_finite = True
    suggestion = found.suggestion() if found else None
    if suggestion is None:
        logger.warning("no learning rate stands out: taking %.4g", module.hparams["learning_rate"])
        return float(module.hparams["learning_rate"])
    logger.info("learning rate found: %.4g", suggestion)
    return float(suggestion)


def _finish(
    settings: TrainSettings, module: Training, data: GalaxyData, trainer: Trainer, folder: RunFolder
) -> dict[str, Any]:
    """Take the best weights, measure them in one exact pass, draw and export them."""
    import pandas as pd

    from minia.models.delf.export import export_delf
    from minia.training.callbacks import plot_attention, plot_confusion, plot_history

    history, output = list(module.history), folder.path
    best = output / CHECKPOINTS / BEST
    if settings.trainer.keep == "best" and best.exists():
        module.load_state_dict(read_checkpoint(best)["state_dict"])
    trainer.validate(module, datamodule=data, verbose=False)
    metrics = module.history.pop()
    if len(data.testing):  # what nothing was chosen by, once
        trainer.test(module, datamodule=data, verbose=False)
        metrics |= {f"test_{name}": value for name, value in module.tested.items()}
        metrics["num_test_images"] = len(data.testing)
    with folder.replacing(*_PICTURES):
        write_text_whole(output / "history.csv", pd.DataFrame(history).to_csv(index=False))
        plot_history(output / "history.png", module, history)
        if module.hparams["classes"]:
            plot_confusion(output / "confusion.png", module)
        plot_attention(output / "attention.png", module, data)
    for name in [_EXPORTED[each] for each in settings.export]:
        with folder.replacing(name):
            export_delf(
                module.model, output / name, classes=list(module.hparams["classes"]),
                config=settings.model_dump(mode="json"), overwrite=True,  # refused before, where it is not
            )  # fmt: skip
    for name, prefix in (("validation", ""), ("test", "test_")):
        if f"{prefix}attention_accuracy" in metrics:
            logger.info(
                "%s accuracy: descriptor branch %.3f, attention branch %.3f",
                name, metrics[f"{prefix}descriptor_accuracy"], metrics[f"{prefix}attention_accuracy"],
            )  # fmt: skip
    return {name: value for name, value in metrics.items() if name != "step"}
