"""Votes as targets: the loss against scipy's, tables with questions, and a training on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import dirichlet_multinomial
from test_train import TINY, Run, blobs_of_two_classes, last_checkpoint, train_here  # noqa: F401 - fixtures

from minia.data.labelled.galaxy_zoo import FIRST_QUESTION, QUESTIONS
from minia.data.labelled.table import GalaxyTable
from minia.data.labelled.votes import Questions, count_columns, votes_of, with_galaxy_zoo_votes
from minia.models.delf.votes import concentrations, votes_loss


def test_the_loss_is_scipys() -> None:
    generator = np.random.default_rng(0)
    logits = torch.from_numpy(generator.normal(size=(4, 5)).astype(np.float32))
    votes = generator.integers(0, 12, (4, 5)).astype(float)
    votes[1, 2:] = 0  # nobody was asked the second question
    alpha = concentrations(logits).double().numpy()
    assert (alpha > 1).all() and (alpha < 101).all()
    assert concentrations(torch.tensor([-50.0, 0.0, 50.0])).tolist() == [1.0, 51.0, 101.0]
    expected = 0.0
    for row in range(4):
        for part in (slice(0, 2), slice(2, 5)):
            expected -= dirichlet_multinomial.logpmf(votes[row, part], alpha[row, part], int(votes[row, part].sum()))
    found = votes_loss(logits, torch.from_numpy(votes), [2, 3])
    assert float(found) == pytest.approx(expected / 4, rel=1e-4)
    assert float(votes_loss(logits[1:2], torch.zeros(1, 5), [2, 3])) == pytest.approx(0.0, abs=1e-5)


def test_the_most_likely_network_tells_the_share_of_votes() -> None:
    votes = torch.tensor([[30.0, 10.0, 6.0, 2.0, 0.0]])
    logits = torch.zeros(1, 5, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for _ in range(400):
        optimiser.zero_grad()
        votes_loss(logits, votes, [2, 3]).backward()
        optimiser.step()
    alpha = concentrations(logits.detach())[0]
    assert float(alpha[0] / alpha[:2].sum()) == pytest.approx(0.75, abs=0.02)
    assert float(alpha[2] / alpha[2:].sum()) == pytest.approx(0.75, abs=0.1)


def test_a_catalogues_votes_with_the_first_question_first() -> None:
    counts = count_columns()
    assert len(counts) == sum(len(question.answers) for question in QUESTIONS) == 37
    table = pd.DataFrame({column: [1.0, 0.0, np.nan] for column in counts} | {"id": ["a", "b", "c"]})
    table[f"{FIRST_QUESTION}_a02_features_or_disk_count"] = [5.0, 0.0, 0.0]
    found = with_galaxy_zoo_votes(table)
    assert list(found["id"]) == ["a"]  # nobody looked at the others
    assert list(found["label"]) == ["a02_features_or_disk"]
    questions = Questions.of(found)
    assert questions.names[0] == FIRST_QUESTION
    assert questions.answers[0] == ["a01_smooth", "a02_features_or_disk", "a03_star_or_artifact"]
    assert len(votes_of(found)) == 37
    assert found[f"votes:{FIRST_QUESTION}:a02_features_or_disk"].iat[0] == 5


def table_of(tmp_path: Path) -> GalaxyTable:
    [artifact] = (path for path in (tmp_path / "store" / "table").iterdir() if path.is_dir())
    return GalaxyTable.load(artifact)


def finish(tmp_path: Path, num_outputs: int, classes: list[str]) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["num_classes"] == len(classes)
    assert 0 <= metrics["attention_accuracy"] <= 1
    checkpoint = last_checkpoint(tmp_path / "run")
    assert len(checkpoint["state_dict"]["model.descriptor_classifier.bias"]) == num_outputs
    assert checkpoint["hyper_parameters"]["classes"] == classes
    return metrics


def test_a_training_on_votes(run: Run, tmp_path: Path) -> None:
    small = [each for each in TINY if not each.startswith("data=")]
    votes = ("data=simulated", "data.num_images=60", "data.targets=votes", "data.image_size=128")
    assert run(*small, *votes, "export=[pt]") == 0
    table = table_of(tmp_path)
    finish(tmp_path, 37, table.classes)
    assert 2 <= len(table.classes) <= 3
    assert table.table[votes_of(table.table)].to_numpy().sum() > 1000
    assert run(*small, *votes, "export=[]", f"resume={tmp_path / 'run'}", output="again") == 0


def test_a_training_on_several_label_columns(
    run: Run, tmp_path: Path, blobs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{label}/{number}.png" for label in ("few", "many") for number in range(15)]
    given = pd.DataFrame({"image": names, "label": ["few"] * 15 + ["many"] * 15})
    given["size"] = [["small", "middle", "large", None][number % 4] for number in range(30)]
    given["same"] = "x"
    given.to_csv(tmp_path / "t.csv", index=False)
    columns = ("data=csv", f"data.path={tmp_path / 't.csv'}", f"data.dir={blobs}")
    small = [each for each in TINY if not each.startswith("data=")]
    assert run(*small, *columns, "data.more_labels=[size]", "export=[]") == 0
    finish(tmp_path, 5, ["few", "many"])
    table = table_of(tmp_path).table
    assert votes_of(table) == [
        "votes:label:few",
        "votes:label:many",
        *(f"votes:size:{each}" for each in ("large", "middle", "small")),
    ]
    assert table[votes_of(table)[2:]].sum(axis=1).value_counts().to_dict() == {1.0: 23, 0.0: 7}
    assert run(*small, *columns, "data.more_labels=[same]", "export=[]", output="other") == 2
    assert "column same has 1 different labels; expected 2 to 10,000" in capsys.readouterr().err
