"""Trains DELF: the losses of its three branches, one optimiser, and what is measured on the way.

A checkpoint holds tensors, numbers and strings alone, so that it loads with ``weights_only=True``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from minia.core.artifact import InputError
from minia.models.delf.network import DELF, DELFOutput, LossWeights, losses
from minia.training.settings import Optimisation

BRANCHES = ("descriptor", "attention")
_MOST_KEPT_VALUES = 1_000_000
_REMEDIES = "; allowed: a smaller trainer.learning_rate, a trainer.gradient_clip, more trainer.warmup_steps"


class NotFiniteError(InputError):
    """A training whose loss is no number any more: nothing good can come of it."""


class DELFTraining(pytorch_lightning.LightningModule):
    """DELF with its optimiser.

    Batches are ``{"image": (batch, 3, side, side) float grey levels 0..255, "label": (batch,) int64}``.

    Args:
        network: arguments of :class:`~minia.models.delf.network.DELF`, and ``normalisation``, of its images.
        classes: the name of each class, in the order of the labels; with questions, of the first one's answers.
        loss_weights: factors of the three losses.
        optimisation: how the weights are found.
        data: what it is trained on, plain values; kept in checkpoints. Of them ``questions`` is used, where batches
            bring ``votes``: the names of each question's answers.

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
        if optimisation.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.history: list[dict[str, float]] = []
        # Compiling wraps: kept in a tuple so that the wrapped network is no second copy in checkpoints.
        self._forward = (torch.compile(self.model) if optimisation.compile else self.model,)
        self._questions: list[list[str]] = list(data.get("questions", []))
        # The outputs that stand for the classes.
        self._outputs = [self._questions[0].index(name) for name in classes] if self._questions else slice(None)
        self.tested: dict[str, float] = {}
        self.stops_if_not_finite = True
        self._validation = self._test = _Validation(len(classes))
        self._finite = torch.tensor(True)  # whether all losses since the last look were

    def forward(self, images: Tensor, with_zero_fractions: bool = False) -> DELFOutput:
        """The network's output for images (batch, 3, side, side) in grey levels 0..255."""
        images = self.model.normalise(images)
        if self.hparams["channels_last"]:
            images = images.contiguous(memory_format=torch.channels_last)
        output: DELFOutput = self._forward[0](images, with_zero_fractions)
        return output

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch; every ``log_every`` steps also what it consists of."""
        logs = (self.global_step + 1) % self.hparams["log_every"] == 0  # as Lightning counts them
        output = self(batch["image"], with_zero_fractions=logs)
        parts = self._losses(output, batch)
        # On the device: looking at it each step would let a GPU wait.
        self._finite = self._finite.to(parts["total"].device) & parts["total"].detach().isfinite()
        if logs:
            self._stop_if_not_finite()
            self._log_training(self._of_classes(output), batch, parts)
        return parts["total"]

    def _stop_if_not_finite(self) -> None:
        # In 16 bits a step may overflow: its scaler leaves that step out.
        if self.trainer.world_size > 1:  # or the others would wait for one that has ended
            everywhere = self._finite.float()
            torch.distributed.all_reduce(everywhere, torch.distributed.ReduceOp.MIN)
            self._finite = everywhere > 0
        if not bool(self._finite) and self.stops_if_not_finite and self.trainer.precision != "16-mixed":
            raise NotFiniteError(f"step {self.global_step + 1}: the loss is not finite{_REMEDIES}")

    def _log_training(self, output: DELFOutput, batch: Mapping[str, Tensor], parts: Mapping[str, Tensor]) -> None:
        values = {f"loss/{name}": value.detach() for name, value in parts.items()}
        for branch, logits in zip(BRANCHES, (output.descriptor_logits, output.attention_logits), strict=True):
            values[f"train_accuracy/{branch}"] = (logits.argmax(1) == batch["label"]).float().mean()
        values |= attention_statistics(output.attention.detach())
        values |= {
            f"zeros/{name}": value
            for name, value in zip(self.model.backbone.block_names, output.zero_fractions, strict=True)
        }
        values["learning_rate"] = torch.tensor(self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
        self.log_dict(values, batch_size=len(batch["label"]))

    def on_validation_epoch_start(self) -> None:
        """Start counting anew."""
        self._stop_if_not_finite()
        self._validation = _Validation(len(self.hparams["classes"]))

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Count one batch."""
        self._count(self._validation, batch, batch_idx)

    def _count(self, into: _Validation, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        output = self(batch["image"], with_zero_fractions=batch_idx == 0)
        parts = self._losses(output, batch)
        into.add(self._of_classes(output), batch["label"], parts)

    def _losses(self, output: DELFOutput, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights, sizes = LossWeights(**self.hparams["loss_weights"]), [len(each) for each in self._questions]
        return losses(output, batch["label"], weights, batch.get("votes"), sizes)

    def _of_classes(self, output: DELFOutput) -> DELFOutput:
        """The output with the classes' logits alone."""
        descriptor, attention = output.descriptor_logits, output.attention_logits
        return output._replace(
            descriptor_logits=descriptor[:, self._outputs], attention_logits=attention[:, self._outputs]
        )

    def on_test_epoch_start(self) -> None:
        """Start counting."""
        self._test = _Validation(len(self.hparams["classes"]))

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Count one batch."""
        self._count(self._test, batch, batch_idx)

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
        others = [weight for weight in self.parameters() if all(weight is not each for each in decayed)]
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


def attention_statistics(attention: Tensor) -> dict[str, Tensor]:
    """Least, greatest, mean and quartiles of attention of any shape, by the names of their plots."""
    values = RunningStatistics()
    values.add(attention)
    return values.statistics()


class RunningStatistics:
    """Statistics of values that come in parts, in bounded memory.

    Where there are very many values the quartiles are those of every second one, every fourth, and so on.
    """

    def __init__(self) -> None:
        self.count, self.step = 0, 1
        self.kept = torch.empty(0)  # every step-th value so far
        self.low, self.high = torch.tensor(math.inf), torch.tensor(-math.inf)
        self.total = torch.tensor(0.0, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Count values of any shape; what is kept of them stays on their device."""
        values = values.detach().float().flatten()
        self.low = torch.minimum(self.low.to(values.device), values.min())
        self.high = torch.maximum(self.high.to(values.device), values.max())
        self.total = self.total.to(values.device) + values.sum().double()
        self.kept = torch.cat([self.kept.to(values.device), values[-self.count % self.step :: self.step]])
        self.count += len(values)
        while len(self.kept) > _MOST_KEPT_VALUES:
            self.kept, self.step = self.kept[::2].clone(), 2 * self.step

    def state(self) -> dict[str, Any]:
        """All that was counted, on the CPU."""
        tensors = {name: getattr(self, name).cpu() for name in ("kept", "low", "high", "total")}
        return {"count": self.count, "step": self.step, **tensors}

    @classmethod
    def joined(cls, states: Sequence[Mapping[str, Any]]) -> RunningStatistics:
        """What several have counted, given their states, together."""
        whole = cls()
        whole.count, whole.step = sum(state["count"] for state in states), max(state["step"] for state in states)
        whole.kept = torch.cat([state["kept"][:: whole.step // state["step"]] for state in states])
        whole.low = torch.stack([state["low"] for state in states]).amin()
        whole.high = torch.stack([state["high"] for state in states]).amax()
        whole.total = torch.stack([state["total"] for state in states]).sum()
        return whole

    def statistics(self) -> dict[str, Tensor]:
        """Least, greatest, mean and quartiles, by the names of their plots."""
        quartiles = torch.quantile(self.kept, self.kept.new_tensor([0.25, 0.5, 0.75]))
        return {
            "attention/min": self.low,
            "attention/max": self.high,
            "attention/mean": (self.total / self.count).float(),
            **{f"attention/percent_{name}": value for name, value in zip((25, 50, 75), quartiles, strict=True)},
        }


class _Validation:
    """Sums over one pass through the validation images, kept on the device."""

    def __init__(self, num_classes: int) -> None:
        self.num_images = 0
        self._confusion = {branch: MulticlassConfusionMatrix(num_classes, validate_args=False) for branch in BRANCHES}
        self.losses: dict[str, Tensor] = {}
        self.attention = RunningStatistics()
        self.zeros = torch.empty(0)

    def add(self, output: DELFOutput, labels: Tensor, parts: Mapping[str, Tensor]) -> None:
        """Count one batch."""
        self.num_images += len(labels)
        for branch, logits in zip(BRANCHES, (output.descriptor_logits, output.attention_logits), strict=True):
            self._confusion[branch].to(labels.device).update(logits.argmax(1), labels)
        for name, value in parts.items():
            self.losses[name] = self.losses.get(name, torch.zeros_like(value)) + value.detach() * len(labels)
        self.attention.add(output.attention)
        if len(output.zero_fractions):
            self.zeros = output.zero_fractions

    def of_all_processes(self, count: int) -> _Validation:
        """The sums over the images of all processes, the same in each; itself where there is one."""
        if count == 1:
            return self
        state: dict[str, Any] = {
            "num_images": self.num_images,
            "confusion": {branch: self.confusion(branch) for branch in BRANCHES},
            "losses": {name: value.cpu() for name, value in self.losses.items()},
            "attention": self.attention.state(),
            "zeros": self.zeros.cpu(),
        }
        states: list[Any] = [None] * count
        torch.distributed.all_gather_object(states, state)
        whole = _Validation(len(state["confusion"][BRANCHES[0]]))
        whole.num_images = sum(each["num_images"] for each in states)
        for branch in BRANCHES:
            whole._confusion[branch].confmat = torch.stack([each["confusion"][branch] for each in states]).sum(0)
        whole.losses = {name: torch.stack([each["losses"][name] for each in states]).sum(0) for name in self.losses}
        whole.attention = RunningStatistics.joined([each["attention"] for each in states])
        whole.zeros = states[0]["zeros"]
        return whole

    def confusion(self, branch: str) -> Tensor:
        """(num_classes, num_classes) int64 on the CPU: rows are labels, columns answers."""
        counts: Tensor = self._confusion[branch].confmat
        return counts.cpu()

    def metrics(self, classes: list[str], blocks: Sequence[str]) -> dict[str, float]:
        """All figures by name, as plain numbers."""
        values = {f"loss_{name}": float(value) / self.num_images for name, value in self.losses.items()}
        for branch in BRANCHES:
            scores = classification_metrics(self.confusion(branch))
            values[f"{branch}_accuracy"] = scores["accuracy"]
            values[f"{branch}_balanced_accuracy"] = scores["balanced_accuracy"]
            values[f"{branch}_macro_f1"] = scores["macro_f1"]
            values |= {
                f"{branch}_recall_{name}": float(recall)
                for name, recall in zip(classes, scores["recall"], strict=True)
                if not math.isnan(recall)
            }
        values |= {name.replace("/", "_"): float(value) for name, value in self.attention.statistics().items()}
        zeros = zip(blocks, self.zeros.tolist(), strict=False)  # none where there was no batch
        return values | {f"zeros_{name}": value for name, value in zeros}


def classification_metrics(confusion: Tensor) -> dict[str, Any]:
    """Scores of a confusion matrix, in float64.

    (torchmetrics has them in float32, and counts a class without images as one that is never right.)

    Args:
        confusion: (num_classes, num_classes) counts; rows are labels, columns answers.

    Returns:
        ``accuracy``; ``recall``, a list with NaN for a class without images; ``balanced_accuracy``
        and ``macro_f1``, means over the classes that have images.
    """
    counts = confusion.double()
    hits, labelled, answered = counts.diagonal(), counts.sum(1), counts.sum(0)
    present = labelled > 0
    recall = torch.where(present, hits / labelled.clamp_min(1), torch.nan)
    f1 = 2 * hits / (labelled + answered).clamp_min(1)
    return {
        "accuracy": float(hits.sum() / counts.sum().clamp_min(1)),
        "recall": recall.tolist(),
        "balanced_accuracy": float(recall[present].mean()),
        "macro_f1": float(f1[present].mean()),
    }
