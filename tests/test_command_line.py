"""What the programs print of errors, and the summary of a sweep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from matplotlib.figure import Figure

from minia.command_line.messages import print_error
from minia.command_line.sweep import summarise_sweep


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (MemoryError(), "memory"),
        (MemoryError("Unable to allocate 648. B for an array with shape (9, 9) and data type float64"), "memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "memory"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to allocate 9 GiB"), "the GPU's memory"),
    ],
)
def test_too_little_memory_is_one_line_with_the_keys_that_help(
    capsys: pytest.CaptureFixture[str], error: Exception, where: str
) -> None:
    assert print_error(error) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: out of {where}: ")
    for key in ("features.scales", "features.batch_size", "images.max_side", "trainer.batch_size"):
        assert key in line


@pytest.mark.parametrize(
    ("module", "keys"),
    [("minia.mining.vocabulary.kmeans", "vocabulary.size"), ("minia.mining.report.panels", "report.max_structures")],
)
def test_too_little_memory_names_the_keys_of_the_stage_it_was_for(
    capsys: pytest.CaptureFixture[str], module: str, keys: str
) -> None:
    def fail() -> None:
        raise MemoryError

    within: dict[str, Any] = {"__name__": module, "fail": fail}
    exec("def stage(): fail()", within)  # a frame of that module
    with pytest.raises(MemoryError) as error:
        within["stage"]()
    print_error(error.value)
    told = capsys.readouterr().err
    assert keys in told
    assert "features.scales" not in told
    assert "trainer" not in told


def test_another_runtime_error_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_error(RuntimeError("memory")) == 1
    assert "RuntimeError: memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "values", "shown", "seconds"),
    [
        ("mining.tuple_size", ["auto", 10, 2], ["auto", "10", "2"], [0, 1, 2]),
        ("features.scales", [[1.0], [0.5, 1.0]], ["[1.0]", "[0.5, 1.0]"], [0, 1]),
        ("mining.num_tuples", [None, 100], ["null", "100"], [0, 1]),
        ("features.root_sift", [True, False], ["True", "False"], [0, 1]),
        ("vocabulary.size", [40, 9, 20], [9, 20, 40], [1, 2, 0]),
        ("words.outlier_sigma", [3, 2.5], [2.5, 3.0], [1, 0]),
    ],
)
def test_a_sweep_over_values_of_any_kind_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, values: list[Any], shown: list[Any], seconds: list[int]
) -> None:
    drawn: list[Figure] = []
    write = Figure.savefig

    def note(self: Figure, *arguments: Any, **options: Any) -> None:
        drawn.append(self)
        write(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", note)
    group, name = key.split(".")
    for number, value in enumerate(values):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "config.yaml").write_text(yaml.safe_dump({group: {name: value}}))
        metrics = {"num_structures": 3, "seconds_mining": number, "seconds_total": 9}
        (tmp_path / str(number) / "metrics.json").write_text(json.dumps(metrics))
    summarise_sweep(tmp_path)
    plot = drawn[-1].axes[-1]
    at, told = np.asarray(plot.lines[-1].get_xydata()).T.tolist()
    assert told == seconds
    if isinstance(shown[0], str):
        assert at == list(range(len(shown)))
        assert [label.get_text() for label in plot.get_xticklabels()] == shown
    else:
        assert at == shown
    assert len(pd.read_csv(tmp_path / "summary.csv")) == len(values)
    assert (tmp_path / "summary.png").stat().st_size > 5000
