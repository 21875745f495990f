"""Trains DELF: the losses of its three branches, one optimiser, and what is measured on the way; on labels or without.

A checkpoint holds tensors, numbers and strings alone, so that it loads with ``weights_only=True``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import pytorch_lightning
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from minia.core.artifact import InputError
from minia.models.delf.network import DELF, DELFOutput, LossWeights, losses
from minia.training.measures import BRANCHES, Look, Validation, attention_statistics
from minia.training.settings import Optimisation

_REMEDIES = "; allowed: a smaller trainer.learning_rate, a trainer.gradient_clip, more trainer.warmup_steps"


class NotFiniteError(InputError):
    """A training whose loss is no number any more: nothing good can come of it."""


class Training(pytorch_lightning.LightningModule):
    """DELF with its optimiser, whatever it is trained for.

    Args:
        network: arguments of :class:`~minia.models.delf.network.DELF`, and ``normalisation``, of its images.
        classes: the name of each class, in the order of the labels; none where it learns without labels.
        loss_weights: factors of the three losses.
        optimisation: how the weights are found.
        data: what it is trained on, plain values; kept in checkpoints.

    Attributes:
        history: one mapping a validation, of numbers.
        tested: the same of the test, empty before it.
        stops_if_not_finite: end the training where its loss is no number; false while a learning rate is looked for.
    """

    def __init__(
        self,
        network: Mapping[str, Any],
        classes: list[str],
        loss_weights: LossWeights,
        optimisation: Optimisation,
        data: Mapping[str, Any],
    ) -> None:
        super().__init__()
        # Plain values: a checkpoint says how to build the network, and what its run was.
        settings = {"network": dict(network), "classes": classes, "loss_weights": loss_weights._asdict()}
        self.save_hyperparameters(settings | optimisation.model_dump() | {"data": dict(data)})
        arguments = dict(network)
        normalisation = arguments.pop("normalisation", "imagenet")
        self.model = DELF(**arguments)
        self.model.set_normalisation(normalisation)
        self.history: list[dict[str, float]] = []
        self.tested: dict[str, float] = {}
        self.stops_if_not_finite = True
        self._validation = self._test = Validation(len(classes))
        self._finite = torch.tensor(True)  # whether all losses since the last look were

    @abstractmethod
    def look(self, batch: Mapping[str, Tensor], closely: bool) -> Look:
        """The losses of a batch, and what the network answers.

        Args:
            batch: as the data module gives it.
            closely: measure too what takes another pass over the maps.
        """

    def use(self, network: torch.nn.Module) -> None:
        """Prepare what images go through: laid out in memory, and compiled, as the settings say."""
        if self.hparams["channels_last"]:
            network.to(memory_format=torch.channels_last)
        # Compiling wraps: kept in a tuple so that the wrapped network is no second copy in checkpoints.
        self._network = (torch.compile(network) if self.hparams["compile"] else network,)

    def normalised(self, images: Tensor) -> Tensor:
        """Images (batch, 3, side, side) in grey levels 0..255 as the network takes them."""
        images = self.model.normalise(images)
        if self.hparams["channels_last"]:
            images = images.contiguous(memory_format=torch.channels_last)
        return images

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch; every ``log_every`` steps also what it consists of."""
        logs = (self.global_step + 1) % self.hparams["log_every"] == 0  # as Lightning counts them
        look = self.look(batch, closely=logs)
        # On the device: looking at it each step would let a GPU wait.
        total = look.losses["total"]
        self._finite = self._finite.to(total.device) & total.detach().isfinite()
        if logs:
            self._stop_if_not_finite()
            self._log_training(look)
        return total

    def _stop_if_not_finite(self) -> None:
        # In 16 bits a step may overflow: its scaler leaves that step out.
        if self.trainer.world_size > 1:  # or the others would wait for one that has ended
            everywhere = self._finite.float()
            torch.distributed.all_reduce(everywhere, torch.distributed.ReduceOp.MIN)
            self._finite = everywhere > 0
        if not bool(self._finite) and self.stops_if_not_finite and self.trainer.precision != "16-mixed":
            raise NotFiniteError(f"step {self.global_step + 1}: the loss is not finite{_REMEDIES}")

    def _log_training(self, look: Look) -> None:
        values = {f"loss/{name}": value.detach() for name, value in look.losses.items()}
        for branch, (answers, right) in look.answers.items():
            values[f"train_accuracy/{branch}"] = (answers == right).float().mean()
        values |= attention_statistics(look.attention.detach())
        names = self.model.backbone.block_names
        values |= {f"zeros/{name}": value for name, value in zip(names, look.zero_fractions, strict=False)}
        values["learning_rate"] = torch.tensor(self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
        self.log_dict(values, batch_size=look.num_images)

    def on_validation_epoch_start(self) -> None:
        """Start counting anew."""
        self._stop_if_not_finite()
        self._validation = Validation(len(self.hparams["classes"]))

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Count one batch."""
        self._validation.add(self.look(batch, closely=batch_idx == 0))

    def on_test_epoch_start(self) -> None:
        """Start counting."""
        self._test = Validation(len(self.hparams["classes"]))

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Count one batch."""
        self._test.add(self.look(batch, closely=batch_idx == 0))

    def on_test_epoch_end(self) -> None:
        """Keep what was counted in ``tested``."""
        self.tested = self._test.metrics(self.hparams["classes"], self.model.backbone.block_names)

    def on_validation_epoch_end(self) -> None:
        """Log what was counted, and add it to the history.

        Raises:
            NotFiniteError: a loss is no number.
        """
        if self.trainer.sanity_checking:
            return
        self._validation = self._validation.of_all_processes(self.trainer.world_size)
        metrics = self._validation.metrics(self.hparams["classes"], self.model.backbone.block_names)
        if self.stops_if_not_finite and not math.isfinite(metrics["loss_total"]):
            raise NotFiniteError(f"step {self.global_step}: the validation loss is not finite{_REMEDIES}")
        self.log_dict({f"validation/{name}": value for name, value in metrics.items()})
        self.history.append({"step": float(self.global_step), **metrics})

    def confusion(self, branch: str) -> Tensor:
        """(num_classes, num_classes) int64 of the last validation: rows are labels, columns answers."""
        return self._validation.confusion(branch)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One optimiser over all weights, its learning rate set every step."""
        settings = self.hparams
        decayed = [self.model.attention.conv1.weight, self.model.attention.conv2.weight]
        learn = [weight for weight in self.parameters() if weight.requires_grad]
        others = [weight for weight in learn if all(weight is not each for each in decayed)]
        groups = [
            {"params": others},
            {"params": decayed, "weight_decay": settings["weight_decay"] + settings["attention_decay"]},
        ]
        common = {"lr": settings["learning_rate"], "weight_decay": settings["weight_decay"]}
        optimiser: torch.optim.Optimizer
        if settings["optimiser"] == "adamw":
            optimiser = torch.optim.AdamW(groups, **common)
        else:
            optimiser = torch.optim.SGD(groups, momentum=settings["momentum"], **common)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, self._factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _factor(self, step: int) -> float:
        """The learning rate at a step, as a share of the largest one."""
        warmup, last = int(self.hparams["warmup_steps"]), int(self.hparams["max_steps"])
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, last - warmup))
        return 1.0 - done if self.hparams["schedule"] == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the history."""
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the history up again."""
        self.history = [dict(row) for row in checkpoint["history"]]


class DELFTraining(Training):
    """The training on labels.

    Batches are ``{"image": (batch, 3, side, side) float grey levels 0..255, "label": (batch,) int64}``.

    Args:
        network: arguments of :class:`~minia.models.delf.network.DELF`, and ``normalisation``, of its images.
        classes: the name of each class, in the order of the labels; with questions, of the first one's answers.
        loss_weights: factors of the three losses.
        optimisation: how the weights are found.
        data: what it is trained on, plain values; kept in checkpoints. Of them ``questions`` is used, where batches
            bring ``votes``: the names of each question's answers.
    """

    def __init__(
        self,
        network: Mapping[str, Any],
        classes: list[str],
        loss_weights: LossWeights,
        optimisation: Optimisation,
        data: Mapping[str, Any],
    ) -> None:
        super().__init__(network, classes, loss_weights, optimisation, data)
        self._questions: list[list[str]] = list(data.get("questions", []))
        # The outputs that stand for the classes.
        self._outputs = [self._questions[0].index(name) for name in classes] if self._questions else slice(None)
        self.use(self.model)

    def forward(self, images: Tensor, with_zero_fractions: bool = False) -> DELFOutput:
        """The network's output for images (batch, 3, side, side) in grey levels 0..255."""
        output: DELFOutput = self._network[0](self.normalised(images), with_zero_fractions)
        return output

    def look(self, batch: Mapping[str, Tensor], closely: bool) -> Look:
        """The losses of a batch, and the classes that the branches answer.

        Args:
            batch: images with their labels, or votes.
            closely: measure the shares of zeros too.
        """
        output, labels = self(batch["image"], with_zero_fractions=closely), batch["label"]
        weights, sizes = LossWeights(**self.hparams["loss_weights"]), [len(each) for each in self._questions]
        logits = (output.descriptor_logits, output.attention_logits)
        return Look(
            losses(output, labels, weights, batch.get("votes"), sizes),
            {branch: (each[:, self._outputs].argmax(1), labels) for branch, each in zip(BRANCHES, logits, strict=True)},
            output.attention,
            output.zero_fractions,
            len(labels),
        )
