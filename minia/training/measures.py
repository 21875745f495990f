"""What a training measures: of single batches, and summed over the images of a validation or a test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

BRANCHES = ("descriptor", "attention")
_MOST_KEPT_VALUES = 1_000_000


class Look(NamedTuple):
    """What was seen of one batch.

    Attributes:
        losses: scalars by name, each without its factor, and their weighted sum ``total``.
        answers: of each branch (n,) int64, what it says, and what is right.
        attention: (batch, 1, rows, columns), at least 0.
        zero_fractions: share of zeros in each of the backbone's maps; empty where it was not asked for.
        num_images: that the batch has.
    """

    losses: dict[str, Tensor]
    answers: dict[str, tuple[Tensor, Tensor]]
    attention: Tensor
    zero_fractions: Tensor
    num_images: int


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


class Validation:
    """Sums over one pass through images, kept on the device.

    Args:
        num_classes: classes that the branches tell apart; 0 where an answer is right or wrong and no more.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes, self.num_images = num_classes, 0
        # Rows are what is right, columns answers; without classes one row: how many were right, and wrong.
        shape = (num_classes, num_classes) if num_classes else (1, 2)
        self.counts = {branch: torch.zeros(shape, dtype=torch.int64) for branch in BRANCHES}
        self.losses: dict[str, Tensor] = {}
        self.attention = RunningStatistics()
        self.zeros = torch.empty(0)

    def add(self, look: Look) -> None:
        """Count one batch."""
        self.num_images += look.num_images
        for branch, (answers, right) in look.answers.items():
            if self.num_classes:
                counted = multiclass_confusion_matrix(answers, right, self.num_classes, validate_args=False)
            else:
                hits = (answers == right).sum()
                counted = torch.stack([hits, len(right) - hits])[None]
            self.counts[branch] = self.counts[branch].to(counted.device) + counted
        for name, value in look.losses.items():
            self.losses[name] = self.losses.get(name, torch.zeros_like(value)) + value.detach() * look.num_images
        self.attention.add(look.attention)
        if len(look.zero_fractions):
            self.zeros = look.zero_fractions

    def of_all_processes(self, count: int) -> Validation:
        """The sums over the images of all processes, the same in each; itself where there is one."""
        if count == 1:
            return self
        state: dict[str, Any] = {
            "num_images": self.num_images,
            "counts": {branch: self.counts[branch].cpu() for branch in BRANCHES},
            "losses": {name: value.cpu() for name, value in self.losses.items()},
            "attention": self.attention.state(),
            "zeros": self.zeros.cpu(),
        }
        states: list[Any] = [None] * count
        torch.distributed.all_gather_object(states, state)
        whole = Validation(self.num_classes)
        whole.num_images = sum(each["num_images"] for each in states)
        whole.counts = {branch: torch.stack([each["counts"][branch] for each in states]).sum(0) for branch in BRANCHES}
        whole.losses = {name: torch.stack([each["losses"][name] for each in states]).sum(0) for name in self.losses}
        whole.attention = RunningStatistics.joined([each["attention"] for each in states])
        whole.zeros = states[0]["zeros"]
        return whole

    def confusion(self, branch: str) -> Tensor:
        """(num_classes, num_classes) int64 on the CPU: rows are labels, columns answers."""
        return self.counts[branch].cpu()

    def metrics(self, classes: Sequence[str], blocks: Sequence[str]) -> dict[str, float]:
        """All figures by name, as plain numbers."""
        values = {f"loss_{name}": float(value) / self.num_images for name, value in self.losses.items()}
        for branch in BRANCHES:
            values |= self._scores(branch, classes)
        values |= {name.replace("/", "_"): float(value) for name, value in self.attention.statistics().items()}
        zeros = zip(blocks, self.zeros.tolist(), strict=False)  # none where there was no batch
        return values | {f"zeros_{name}": value for name, value in zeros}

    def _scores(self, branch: str, classes: Sequence[str]) -> dict[str, float]:
        if not self.num_classes:
            [[hits, misses]] = self.counts[branch].tolist()
            return {f"{branch}_accuracy": hits / max(1, hits + misses)}
        scores = classification_metrics(self.confusion(branch))
        recalls = {
            f"{branch}_recall_{name}": float(recall)
            for name, recall in zip(classes, scores["recall"], strict=True)
            if not math.isnan(recall)
        }
        names = ("accuracy", "balanced_accuracy", "macro_f1")
        return {f"{branch}_{name}": scores[name] for name in names} | recalls


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
