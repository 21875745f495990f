"""What a training measures: scores, statistics, and sums over batches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from minia.training.measures import (
    BRANCHES,
    Look,
    RunningStatistics,
    Validation,
    attention_statistics,
    classification_metrics,
)


def test_scores_of_a_confusion_matrix() -> None:
    scores = classification_metrics(torch.tensor([[8, 2, 0], [0, 5, 5], [0, 0, 0]]))
    assert scores["accuracy"] == pytest.approx(13 / 20)
    assert scores["recall"][:2] == pytest.approx([0.8, 0.5])
    assert math.isnan(scores["recall"][2])
    assert scores["balanced_accuracy"] == pytest.approx(0.65)
    assert scores["macro_f1"] == pytest.approx((16 / 18 + 10 / 17) / 2)


def test_attention_statistics_are_numpys() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=(4, 1, 5, 5)).astype(np.float32)
    statistics = attention_statistics(torch.from_numpy(values))
    expected = {"min": values.min(), "max": values.max(), "mean": values.mean()}
    expected |= {f"percent_{share}": np.percentile(values, share) for share in (25, 50, 75)}
    assert {name.split("/")[1]: float(value) for name, value in statistics.items()} == pytest.approx(expected, rel=1e-5)


def test_statistics_of_a_long_validation_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minia.training.measures._MOST_KEPT_VALUES", 1000)
    values = torch.from_numpy(np.random.default_rng(0).gamma(2.0, size=30_001).astype(np.float32))
    found = RunningStatistics()
    for part in values.split(777):
        found.add(part)
        assert len(found.kept) <= 1000
    assert torch.equal(found.kept, values[:: found.step])  # spread over the whole, however it is cut
    statistics = {name.split("/")[1]: float(value) for name, value in found.statistics().items()}
    exact = {"min": values.min().item(), "max": values.max().item(), "mean": values.double().mean().item()}
    assert {name: statistics[name] for name in exact} == pytest.approx(exact, rel=1e-6)
    for share in (25, 50, 75):
        assert statistics[f"percent_{share}"] == pytest.approx(float(values.quantile(share / 100)), rel=0.1)


def test_statistics_of_several_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minia.training.measures._MOST_KEPT_VALUES", 1000)
    values = torch.from_numpy(np.random.default_rng(0).gamma(2.0, size=9000).astype(np.float32))
    parts = []
    for number in range(2):
        part = RunningStatistics()
        part.add(values[:8000] if number == 0 else values[8000:])
        parts.append(part.state())
    found = {name: float(value) for name, value in RunningStatistics.joined(parts).statistics().items()}
    assert found["attention/min"] == values.min()
    assert found["attention/max"] == values.max()
    assert found["attention/mean"] == pytest.approx(float(values.double().mean()))
    assert found["attention/percent_50"] == pytest.approx(float(values.median()), rel=0.1)


def look(loss: float, answers: list[int], right: list[int], *, zeros: tuple[float, ...] = ()) -> Look:
    """Of a batch of as many images as there are answers; the attention branch is always right."""
    said, truth = torch.tensor(answers), torch.tensor(right)
    return Look(
        {"total": torch.tensor(loss)},
        {"descriptor": (said, truth), "attention": (truth, truth)},
        torch.full((len(answers), 1, 2, 2), loss),
        torch.tensor(zeros),
        len(answers),
    )


def test_batches_count_by_their_images() -> None:
    summed = Validation(3)
    summed.add(look(1.0, [0, 1, 1], [0, 1, 2], zeros=(0.5, 0.25)))
    summed.add(look(5.0, [1], [0]))
    assert summed.confusion("descriptor").tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    assert summed.confusion("attention").tolist() == [[2, 0, 0], [0, 1, 0], [0, 0, 1]]
    metrics = summed.metrics(["a", "b", "c"], ["stem", "last"])
    assert metrics["loss_total"] == pytest.approx((3 * 1.0 + 5.0) / 4)
    assert (metrics["descriptor_accuracy"], metrics["attention_accuracy"]) == (0.5, 1.0)
    assert metrics["descriptor_recall_a"] == 0.5 and metrics["descriptor_recall_c"] == 0
    assert (metrics["zeros_stem"], metrics["zeros_last"]) == (0.5, 0.25)
    assert metrics["attention_mean"] == pytest.approx(2.0)
    assert summed.of_all_processes(1) is summed


def test_without_classes_answers_are_right_or_wrong() -> None:
    summed = Validation(0)
    summed.add(look(1.0, [4, 7, 2], [4, 7, 3]))
    summed.add(look(2.0, [0, 0], [0, 1]))
    metrics = summed.metrics([], ["stem"])
    assert metrics["descriptor_accuracy"] == pytest.approx(3 / 5)
    assert metrics["attention_accuracy"] == 1.0
    assert not [name for name in metrics if "recall" in name or "zeros" in name]


def test_all_processes_have_the_sums_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [Validation(2), Validation(2)]
    parts[0].add(look(1.0, [0, 1], [0, 1], zeros=(0.5,)))
    parts[1].add(look(4.0, [0], [1], zeros=(0.75,)))
    states: list[Any] = []

    def gather(into: list[Any], state: Any) -> None:
        states.append(state)
        into[:] = [*states, state][:2]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    parts[0].of_all_processes(2)
    whole = parts[1].of_all_processes(2)
    assert whole.num_images == 3
    assert {branch: whole.confusion(branch).tolist() for branch in BRANCHES} == {
        "descriptor": [[1, 0], [1, 1]],
        "attention": [[1, 0], [0, 2]],
    }
    metrics = whole.metrics(["a", "b"], ["last"])
    assert metrics["loss_total"] == pytest.approx(2.0)
    assert metrics["attention_max"] == 4.0
    assert metrics["zeros_last"] == 0.5  # of the first process


def test_what_is_kept_of_few_values_is_thinned_as_that_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minia.training.measures._MOST_KEPT_VALUES", 8)
    parts = [RunningStatistics(), RunningStatistics()]
    parts[0].add(torch.arange(6.0))
    parts[1].add(torch.arange(100.0, 130.0))
    assert [part.step for part in parts] == [1, 4]
    joined = RunningStatistics.joined([part.state() for part in parts])
    assert joined.kept.tolist() == [0, 4, *range(100, 130, 4)]
    assert (joined.count, joined.step) == (36, 4)
