"""Sweeps whose jobs run at once, fail, are killed, or are chosen one after another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.axes import Axes

from minia.command_line.commands import mine, train
from minia.command_line.compare import compare
from minia.command_line.sweep import summary_figure
from minia.command_line.sweep_jobs import read_jobs, tell_failed_jobs

ROOT = Path(__file__).resolve().parents[1]
CORPUS = "4 0:1 1:1 2:1 3:1\n4 4:1 5:1 6:1 7:1\n" * 20  # two structures
MINING = ["words=listdb", "stages=[mining]", "mining.num_tuples=50", "device=cpu", "store=store"]


def sweep(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "mine.py"), "-m", *MINING, "hydra.sweep.dir=sweep", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)


def again(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The same in this process, which is quicker."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["mine.py", "-m", *MINING, *words])
    if not any(word.startswith("hydra.sweep.dir=") for word in words):
        sys.argv.append("hydra.sweep.dir=sweep")
    return mine()


def test_of_six_jobs_two_at_a_time_the_failed_one_is_named_and_done_when_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    names = [f"{letter}.corpus" for letter in "abcdef"]
    for name in names:
        (tmp_path / name).write_text(CORPUS if name != "c.corpus" else "4 0:1")
    done = sweep(tmp_path, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", f"words.path={','.join(names)}")
    assert done.returncode == 2
    [named, told] = done.stderr.splitlines()[-2:]
    assert named.startswith("error: job 2 (") and "c.corpus" in named
    assert told.startswith("error: 1 of 6 jobs failed; results of the others are in ")
    assert [done.stderr.count(f"{stage}: made") for stage in ("words", "mining")] == [1, 1]  # of content that all share
    folder = tmp_path / "sweep"
    assert [each.state for each in read_jobs(folder)] == ["finished"] * 2 + ["failed"] + ["finished"] * 3
    assert list(pd.read_csv(folder / "summary.csv")["job"]) == [0, 1, 3, 4, 5]
    assert not (folder / "2" / "metrics.json").exists()

    (tmp_path / "c.corpus").write_text(CORPUS.replace("4 0", "4 8"))
    assert again(tmp_path, monkeypatch, f"words.path={','.join(names)}") == 0
    out, err = capsys.readouterr()
    assert [err.count(f"{stage}: made") for stage in ("words", "mining")] == [1, 1]  # what was missing
    assert out.splitlines()[-1] == "sweep: sweep/summary.csv, sweep/summary.png"
    assert {each.state for each in read_jobs(folder)} == {"finished"}
    assert len(pd.read_csv(folder / "summary.csv")) == 6


def test_a_job_that_was_killed_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["job,overrides,state,exit_code,error", "1,seed=1,running,0,", "2,seed=2,waiting,0,", "0,seed=0,finished,0,"]
    (tmp_path / "jobs.csv").write_text("\n".join(rows))
    assert tell_failed_jobs(tmp_path) == 1
    [named, told] = capsys.readouterr().err.splitlines()
    assert named == "error: job 1 (seed=1): it has not ended: killed, perhaps for want of memory"
    assert told.startswith("error: 1 of 3 jobs failed, 1 did not begin; ")


def test_jobs_one_after_another_go_on_past_one_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.corpus").write_text(CORPUS)
    (tmp_path / "b.corpus").write_text("4 0:1")
    assert again(tmp_path, monkeypatch, "words.path=b.corpus,a.corpus") == 2
    assert "error: job 0 (" in capsys.readouterr().err
    assert [each.state for each in read_jobs(tmp_path / "sweep")] == ["failed", "finished"]


def test_optuna_makes_a_metric_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    (tmp_path / "a.corpus").write_text(CORPUS)
    words = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "words.path=a.corpus"]
    words.append("mining.num_tuples=int(interval(20,60))")
    assert again(tmp_path, monkeypatch, *words) == 2
    assert capsys.readouterr().err.startswith("error: metric: must be given")
    assert again(tmp_path, monkeypatch, *words, "metric=num_cooccurring_sets") == 0
    summary = pd.read_csv(tmp_path / "sweep" / "summary.csv")
    best = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
    assert best["best_value"] == summary["num_cooccurring_sets"].max()
    assert len(summary) == 3


def test_a_search_goes_on_past_a_job_without_structures_and_on_another_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    (tmp_path / "a.corpus").write_text("".join(f"1 {item}:1\n" for item in range(8)) * 5)  # no two words together
    words = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.storage=sqlite:///study.db"]
    words += ["words.path=a.corpus", "seed=int(interval(0,9))", "metric=mean_purity_at_30"]
    for direction, worst in (("maximize", -float("inf")), ("minimize", float("inf"))):
        for _ in range(2):
            study = [f"hydra.sweeper.study_name={direction}", f"hydra.sweeper.direction={direction}"]
            assert again(tmp_path, monkeypatch, *words, *study) == 0
            assert "this job found no structures and has none; it counts as the worst" in capsys.readouterr().err
        best = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
        assert best["best_value"] == worst


def test_runs_and_sweeps_of_different_days_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.corpus").write_text(CORPUS)
    assert again(tmp_path, monkeypatch, "words.path=a.corpus", "seed=1,2", "hydra.sweep.dir=runs/day-1") == 0
    assert again(tmp_path, monkeypatch, "words.path=a.corpus", "seed=3", "hydra.sweep.dir=runs/day-2") == 0
    capsys.readouterr()
    for _ in range(2):  # it replaces what it wrote
        assert compare(["runs"]) == 0
    assert "3 runs: comparison/summary.csv" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "comparison" / "summary.csv")
    assert table["job"].tolist() == ["runs/day-1/0", "runs/day-1/1", "runs/day-2/0"]
    assert table["seed"].tolist() == [1, 2, 3]
    assert (tmp_path / "comparison" / "summary.png").stat().st_size > 5000
    for wrong, told in (
        (["nowhere"], "nowhere: there is no such folder"),
        (["store"], "store: there is no finished run"),
        (["runs", "--output", "runs/day-1/0"], "--output runs/day-1/0: the folder of a run"),
        (["runs", "--output", "theirs"], "summary.csv: was not written by minIA"),
    ):
        (tmp_path / "theirs").mkdir(exist_ok=True)
        (tmp_path / "theirs" / "summary.csv").touch()
        assert compare(wrong) == 2
        assert told in capsys.readouterr().err


def points_of(plot: Axes) -> dict[str, list[tuple[float, float]]]:
    """The points of each line in a plot, by its label."""
    return {str(line.get_label()): list(map(tuple, np.asarray(line.get_xydata()).tolist())) for line in plot.lines}


def test_the_plot_of_a_sweep_has_a_line_for_each_combination_of_further_settings() -> None:
    jobs = [(size, seed) for size in (300, 50, 100) for seed in (1, None)]
    table = pd.DataFrame(jobs, columns=["vocabulary.size", "seed"], dtype=object)
    table["num_structures"], table["seconds_all_stages"] = range(6), 0.25
    table["structure_accuracy"], table["word_accuracy"] = 0.5, 0.75
    structures, accuracy, seconds = summary_figure(table, ["vocabulary.size", "seed"]).axes
    assert points_of(structures) == {
        "seed=1": [(50, 2), (100, 4), (300, 0)],
        "seed=null": [(50, 3), (100, 5), (300, 1)],
    }
    assert structures.get_ylim()[0] == seconds.get_ylim()[0] == accuracy.get_ylim()[0] == 0  # no difference is enlarged
    assert all(float(tick).is_integer() for tick in structures.get_yticks())
    assert points_of(accuracy)["from words"] == [(50, 0.75), (100, 0.75), (300, 0.75)]
    assert points_of(accuracy)["seed=1"] == [(50, 0.5), (100, 0.5), (300, 0.5)]
    several = pd.concat([table.assign(seed=seed) for seed in range(7)])  # too many for a line each: points
    together = summary_figure(several, ["vocabulary.size", "seed"]).axes[0]
    assert [len(points) for points in points_of(together).values()] == [42]
    assert together.lines[0].get_linestyle() == "None"
    named = table.head(2).assign(features=pd.Series(["sift", None], dtype=object))
    labels = summary_figure(named, ["features", "seed"]).axes[0].get_xticklabels()
    assert [label.get_text() for label in labels] == ["sift", "null"]


def test_the_plot_of_trainings_tells_their_accuracy() -> None:
    told = {"attention_accuracy": [0.1, 0.7], "seconds_all_stages": [1, 2]}
    figure = summary_figure(pd.DataFrame({"trainer.max_steps": [20, 40], **told}), ["trainer.max_steps"])
    assert [plot.get_title() for plot in figure.axes] == ["accuracy of the attention branch", "seconds of all stages"]
    assert list(points_of(figure.axes[0]).values()) == [[(20, 0.1), (40, 0.7)]]


def test_a_search_without_a_number_or_a_package_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for program, words, told in (
        (train, ["hydra/sweeper=optuna"], "hydra/sweeper"),
        (mine, ["hydra/launcher=joblib", "hydra.launcher._target_=hydra_plugins.hydra_absent_launcher.there.Launcher"],
         "hydra/launcher: hydra-absent-launcher is not installed; allowed: pip install 'minia[sweeps]'"),
    ):  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["program", "-m", "seed=0,1", *words])
        assert program() == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {told}")
    assert not any(tmp_path.iterdir())


def test_a_metric_that_a_job_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.corpus").write_text(CORPUS)
    assert again(tmp_path, monkeypatch, "words.path=a.corpus", "metric=mean_purity_at_30") == 2
    assert "metric=mean_purity_at_30: this job has none; allowed: " in capsys.readouterr().err


KILLER = """
import os, signal
from pathlib import Path

class Killer:
    def link(self, sets, bags, seed):
        if bags.num_lists == 40 and Path("kill").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return sets
"""


def test_a_job_that_is_killed_leaves_the_others_to_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    (tmp_path / "killer.py").write_text(KILLER)
    (tmp_path / "kill").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    for number, name in enumerate("bac"):  # the second one is killed
        (tmp_path / f"{name}.corpus").write_text(CORPUS + "4 0:1 1:1 2:1 8:1\n" * number)
    words = ["mining.linkage={_target_:killer.Killer}", "num_workers=1"]
    words.append("words.path=" + ",".join(f"{name}.corpus" for name in "abc"))
    done = sweep(tmp_path, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *words)
    assert done.returncode == 1
    [named, told] = done.stderr.splitlines()[-2:]
    assert named.startswith("error: job 1 (") and "killed, perhaps for want of memory" in named
    assert told.startswith("error: 1 of 3 jobs failed; ")
    assert [each.state for each in read_jobs(tmp_path / "sweep")] == ["finished", "running", "finished"]

    (tmp_path / "kill").unlink()
    monkeypatch.syspath_prepend(tmp_path)
    assert again(tmp_path, monkeypatch, *words) == 0
    assert capsys.readouterr().err.count("mining: made") == 1
    assert {each.state for each in read_jobs(tmp_path / "sweep")} == {"finished"}
