"""What happens at each check of a training, and its pictures: checkpoints, lines in the log, TensorBoard."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from minia.core.writing import appearing_whole
from minia.training.checks import BEST, LAST
from minia.training.measures import BRANCHES
from minia.training.module import Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from minia.data.labelled.datamodule import GalaxyData

logger = logging.getLogger(__name__)

_PICTURES = 9  # as many as minIA has classes of galaxies
_COLOURS = dict(zip(BRANCHES, ("#2e86ab", "#d1495b"), strict=True))
_GREY = "#9aa5b1"


class ProgressLines(pytorch_lightning.Callback):
    """One line in the log for each validation, with speed and remaining time."""

    def __init__(self) -> None:
        self._started, self._first = 0.0, 0

    def on_train_start(self, trainer: pytorch_lightning.Trainer, module: pytorch_lightning.LightningModule) -> None:
        """Start the clock."""
        self._started, self._first = time.perf_counter(), trainer.global_step

    def on_validation_end(self, trainer: pytorch_lightning.Trainer, module: pytorch_lightning.LightningModule) -> None:
        """Log the newest figures."""
        if trainer.state.fn != "fit" or not isinstance(module, Training):
            return
        row, step = module.history[-1], trainer.global_step
        speed = (step - self._first) / max(time.perf_counter() - self._started, 1e-9)
        logger.info(
            "step %d of %d: loss %.3f, accuracy %.3f (attention %.3f), %.2f steps a second, %.0f s left",
            step, trainer.max_steps, row["loss_total"], row["descriptor_accuracy"], row["attention_accuracy"],
            speed, (trainer.max_steps - step) / max(speed, 1e-9),
        )  # fmt: skip


class LastCheck(pytorch_lightning.Callback):
    """Lets a training end with a check where its number of steps is no multiple of the steps between two checks."""

    def on_train_batch_end(
        self,
        trainer: pytorch_lightning.Trainer,
        module: pytorch_lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Ask for the end after the last step: Lightning validates then, which it does not at ``max_steps`` alone."""
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True


class Checkpoints(pytorch_lightning.Callback):
    """``last.ckpt`` and ``best.ckpt``, written at the end of each check.

    Lightning's own callback forgets its best one when a run goes on in another folder, and a kill
    while it writes can leave a part of a file.

    Args:
        folder: of both files.
        best_by: the figure of the validation that decides on the best one; a loss is better where it is less.
        resumed: the checkpoint that the run goes on from; the best one so far lies beside it.
    """

    def __init__(self, folder: Path, best_by: str, resumed: Path | None) -> None:
        self.folder, self.best_by, self.resumed = folder, best_by, resumed

    def on_fit_start(self, trainer: pytorch_lightning.Trainer, module: pytorch_lightning.LightningModule) -> None:
        """Take over the best one so far."""
        if not trainer.is_global_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        before = self.resumed.with_name(BEST) if self.resumed else None
        if before and before.exists() and before.resolve() != (self.folder / BEST).resolve():
            with appearing_whole(self.folder / BEST) as best:
                shutil.copyfile(before, best)

    # At the end of a check, not of its validation: only here nothing of the check is left to do on resuming.
    def on_train_epoch_end(self, trainer: pytorch_lightning.Trainer, module: pytorch_lightning.LightningModule) -> None:
        """Write the last one, and the best one where it is the best."""
        assert isinstance(module, Training)
        if not module.history or module.history[-1]["step"] != trainer.global_step:
            return
        if not trainer.is_global_zero:
            trainer.save_checkpoint(self.folder / LAST, weights_only=False)  # takes part; the first process writes
            return
        with appearing_whole(self.folder / LAST) as last:
            trainer.save_checkpoint(last, weights_only=False)
            sign = -1.0 if self.best_by.startswith("loss") else 1.0
            *before, now = [sign * row[self.best_by] for row in module.history]
            if now > max(before, default=-math.inf):
                with appearing_whole(self.folder / BEST) as best:
                    shutil.copyfile(last, best)


class TensorBoardPictures(pytorch_lightning.Callback):
    """Images, their attention and, with classes, the confusion matrix, once a validation."""

    def __init__(self) -> None:
        self._images: Tensor | None = None

    def on_validation_batch_end(
        self,
        trainer: pytorch_lightning.Trainer,
        module: pytorch_lightning.LightningModule,
        outputs: Any,
        batch: Mapping[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first images."""
        if batch_idx == 0:
            self._images = batch["image"][:_PICTURES]

    def on_validation_end(self, trainer: pytorch_lightning.Trainer, module: pytorch_lightning.LightningModule) -> None:
        """Write the pictures."""
        writer = getattr(trainer.logger, "experiment", None)
        if writer is None or self._images is None or trainer.state.fn != "fit" or not isinstance(module, Training):
            return
        attention = attention_maps(module, self._images)
        writer.add_images("images", self._images / 255, trainer.global_step)
        shown = attention / (attention.amax(dim=(1, 2, 3), keepdim=True) + 1e-3)
        writer.add_images("attention", shown, trainer.global_step)
        for branch in BRANCHES if module.hparams["classes"] else ():
            figure = confusion_figure(module.confusion(branch).numpy(), module.hparams["classes"])
            writer.add_image(f"confusion/{branch}", pixels_of(figure), trainer.global_step, dataformats="HWC")


def attention_maps(module: Training, images: Tensor) -> Tensor:
    """The attention of a network, which is left as it was.

    Args:
        module: with the network.
        images: (batch, 3, side, side), grey levels 0..255, on the network's device.

    Returns:
        (batch, 1, rows, columns) float32, at least 0.
    """
    was_training = module.training
    module.eval()
    with torch.inference_mode():
        attention = module.model.local_features(module.model.normalise(images))[0].float()
    module.train(was_training)
    return attention


def confusion_figure(counts: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """A picture of a confusion matrix, each row coloured by its shares.

    Args:
        counts: (num_classes, num_classes); rows are labels, columns answers.
        classes: the names of the classes.
    """
    from matplotlib.figure import Figure

    side = 1.8 + 0.45 * len(classes)
    figure = Figure(figsize=(side, side), layout="constrained")
    plot = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    plot.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            plot.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    # A class may be named as matplotlib writes formulas.
    plot.set_xticks(range(len(classes)), classes, rotation=60, ha="right", parse_math=False)
    plot.set_yticks(range(len(classes)), classes, parse_math=False)
    plot.set_xlabel("answer")
    plot.set_ylabel("label")
    return figure


def pixels_of(figure: Figure) -> NDArray[np.uint8]:
    """A figure drawn, as (height, width, 3) uint8, RGB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)[:, :, :3]  # type: ignore[no-untyped-call]


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with appearing_whole(path) as temporary:
        figure.savefig(temporary, dpi=120)


def plot_confusion(path: Path, module: Training) -> None:
    """The confusion matrix of the descriptor branch in the last validation."""
    save(confusion_figure(module.confusion("descriptor").numpy(), module.hparams["classes"]), path)


def history_figure(history: Sequence[Mapping[str, float]], commonest: float | None) -> Figure:
    """A picture of losses and accuracies on the validation images against the step.

    Args:
        history: one mapping a validation, of numbers by name.
        commonest: the share of the commonest class, the accuracy of who always answers this; None without classes.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    steps = [row["step"] for row in history]
    # Points too: of one validation there is no line. Dashes show a line that lies below another.
    for branch, style in zip(BRANCHES, (".-", ".--"), strict=True):
        for plot, key in ((losses, f"loss_{branch}"), (accuracies, f"{branch}_accuracy")):
            plot.plot(steps, [row[key] for row in history], style, color=_COLOURS[branch], label=branch)
    losses.plot(steps, [row["loss_reconstruction"] for row in history], ".-", color=_GREY, label="reconstruction")
    if commonest is not None:
        accuracies.axhline(commonest, color=_GREY, linestyle=":", label="always the commonest class")
    losses.set_yscale("log")
    losses.set_title("validation loss")
    accuracies.set_title("validation accuracy")
    accuracies.set_ylim(0, 1)
    for plot in (losses, accuracies):
        plot.set_xlabel("step")
        plot.xaxis.set_major_locator(MaxNLocator(integer=True))
        plot.legend()
    return figure


def plot_history(path: Path, module: Training, history: Sequence[Mapping[str, float]]) -> None:
    """Draw losses and accuracies on the validation images against the step.

    Args:
        path: the PNG file to write.
        module: after its last validation.
        history: one mapping a validation, of numbers by name.
    """
    commonest = None
    if module.hparams["classes"]:
        counts = module.confusion("descriptor").sum(dim=1).numpy()
        commonest = float(counts.max() / max(1, counts.sum()))
    save(history_figure(history, commonest), path)


def plot_attention(path: Path, module: Training, data: GalaxyData) -> None:
    """Draw some validation images, of different classes where there are any, each with its attention below.

    The colours go from none to the highest attention of each image, which is written above it with the lowest.

    Args:
        path: the PNG file to write.
        module: with the network.
        data: where the images are from.
    """
    from matplotlib.figure import Figure

    from minia.data.labelled.augmentation import validation_view

    labels, classes = np.asarray(data.validation.labels), module.hparams["classes"]
    rows = [int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)] if classes else range(len(labels))
    chosen = list(rows)[:_PICTURES]
    device = next(module.parameters()).device
    images = validation_view(torch.stack([data.validation.image(row) for row in chosen]).to(device), data.augmentation)
    attention = attention_maps(module, images)
    enlarged = F.interpolate(attention, size=images.shape[-2:], mode="nearest").cpu()
    figure = Figure(figsize=(1.5 * len(chosen), 3.3), layout="constrained")
    plots = figure.subplots(2, len(chosen), squeeze=False)
    for column, row in enumerate(chosen):
        picture = images[column].permute(1, 2, 0).cpu().numpy().clip(0, 255).astype(np.uint8)
        plots[0, column].imshow(picture)
        if classes:
            plots[0, column].set_title(classes[labels[row]], fontsize=8, parse_math=False)
        told = enlarged[column, 0].numpy()
        plots[1, column].imshow(told, cmap="magma", vmin=0)
        plots[1, column].set_title(f"attention {told.min():.2g} to {told.max():.2g}", fontsize=8)
    for plot in plots.flat:
        plot.set_axis_off()
    save(figure, path)
