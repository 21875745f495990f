"""The whole pipeline through ``mine.py``, as a user runs it."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import hydra
import numpy as np
import pandas as pd
import pytest
from conftest import write_images
from test_features import artifact_bytes

from minia.command_line.commands import mine
from minia.command_line.messages import print_error
from minia.command_line.program import CONFIGURATION
from minia.core.artifact import read_manifest
from minia.mining.lists.listdb import ListDB, read_listdb, write_listdb

ROOT = Path(__file__).resolve().parents[1]
# So few images hold no structure beyond chance: the original's linkage finds some.
SMALL = (
    "vocabulary.size=40", "mining.linkage=single", "mining.num_tuples=100", "num_workers=1", "report.num_shuffles=2",
    "arrangement.list=all",
)  # fmt: skip
METRICS = {
    "num_images",
    "num_failed_images",
    "num_keypoints",
    "vocabulary_size",
    "num_words_kept",
    "num_structures",
    "mean_structure_size",
    "num_matched_images",
    *(
        f"seconds_{stage}"
        for stage in (
            "images",
            "features",
            "vocabulary",
            "words",
            "mining",
            "arrangement",
            "matching",
            "report",
            "total",
        )
    ),
}
LABEL_METRICS = {"mean_purity_at_30", "chance_purity_at_30", "structure_accuracy", "word_accuracy", "base_rate"}

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run mine.py's main in this process; its folder is ``run`` (or ``sweep``) in tmp_path."""

    def run(*overrides: str, output: str = "run") -> int:
        folders = [f"hydra.run.dir={tmp_path / output}", f"hydra.sweep.dir={tmp_path / output}"]
        monkeypatch.setattr(sys, "argv", ["mine.py", *overrides, *folders])
        return mine()

    return run


def folder_overrides(folder: Path) -> list[str]:
    return ["images=folder", f"images.dir={folder}", f"images.labels={folder / 'labels.csv'}", *SMALL]


def metrics_of(folder: Path) -> dict[str, float]:
    metrics: dict[str, float] = json.loads((folder / "metrics.json").read_text())
    return metrics


def test_smoke_run_on_the_simulator_leaves_everything(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("experiment=smoke", "num_workers=2") == 0
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} == {
        "metrics.json", "structures.txt", "structures.csv", "matches.parquet", "report", "config.yaml", "mine.log",
        ".minia.json", ".minia.lock",
    }  # fmt: skip
    metrics = metrics_of(folder)
    # dense features on single objects: no arrangement by default
    assert metrics.keys() >= (METRICS | LABEL_METRICS) - {"seconds_arrangement"}
    assert metrics["num_images"] == 90
    assert metrics["vocabulary_size"] == 200
    assert metrics["base_rate"] == pytest.approx(1 / 9)
    assert metrics["word_accuracy"] > 2 * metrics["base_rate"]
    assert metrics["num_structures"] >= 5
    assert metrics["mean_structure_size"] < metrics["vocabulary_size"] / 2
    assert metrics["mean_purity_at_30"] > metrics["chance_purity_at_30"]
    assert read_listdb(folder / "structures.txt").num_lists == metrics["num_structures"]
    matches = pd.read_parquet(folder / "matches.parquet")
    assert list(matches.columns) == [
        "structure", "image", "overlap", "keypoints", "x", "y", "size", "angle", "inliers",
    ]  # fmt: skip
    assert matches["image"].nunique() == metrics["num_matched_images"]
    assert "<html" in (folder / "report" / "index.html").read_text()
    printed = capsys.readouterr().out
    assert str(folder / "report" / "index.html") in printed
    assert "seconds, mining" in printed


def test_second_run_reuses_every_artifact_and_gives_the_same(run: Run, tmp_path: Path, image_folder: Path) -> None:
    assert run(*folder_overrides(image_folder), output="one") == 0
    assert run(*folder_overrides(image_folder), output="two") == 0
    log = (tmp_path / "two" / "mine.log").read_text()
    assert log.count("reusing") == 9
    assert "made" not in log
    one, two = metrics_of(tmp_path / "one"), metrics_of(tmp_path / "two")
    assert one | {"seconds_total": 0} == two | {"seconds_total": 0}
    for name in ("structures.txt", "matches.parquet", "report/index.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_same_seed_gives_the_same_bytes_in_another_store(run: Run, tmp_path: Path, image_folder: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        assert run(*folder_overrides(image_folder), f"seed={seed}", f"store={tmp_path / name}-store", output=name) == 0
    structures = [(tmp_path / name / "structures.txt").read_bytes() for name in ("one", "two", "three")]
    assert structures[0] == structures[1] != structures[2]
    contents = [
        [artifact_bytes(artifact) for artifact in sorted((tmp_path / f"{name}-store").glob("*/*"))]
        for name in ("one", "two")
    ]
    assert contents[0] == contents[1]


def test_order_of_a_catalogue_does_not_matter(run: Run, tmp_path: Path, image_folder: Path) -> None:
    paths = sorted(path for path in image_folder.rglob("*.png"))
    catalogue = pd.DataFrame({"id": [path.stem for path in paths], "path": [str(path) for path in paths]})
    results = []
    for number in range(2):
        path = tmp_path / f"catalogue{number}.csv"
        catalogue.sample(frac=1, random_state=number).to_csv(path, index=False)
        assert run("images=catalogue", f"images.path={path}", *SMALL, output=f"run{number}") == 0
        results.append((tmp_path / f"run{number}" / "structures.txt").read_bytes())
    assert results[0] == results[1]


def test_images_too_dark_for_keypoints_are_told(
    run: Run, tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        name = f"image{2 * number:03d}.png"
        grey = np.asarray(cv2.imread(str(image_folder / name), cv2.IMREAD_GRAYSCALE))
        (tmp_path / "dark").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "dark" / name), grey // 25)  # at most 10 of 255
    for objects in ("original", "none"):
        given = ("images=folder", f"images.dir={tmp_path / 'dark'}", "stages=[features]", "num_workers=1")
        assert run(*given, f"features.objects={objects}") == 0
        log = (tmp_path / "run" / "mine.log").read_text()
    [masked, plain] = [line for line in log.splitlines() if "have no keypoints" in line]
    assert "features: 4 of 4 images have no keypoints: their grey range" in masked
    assert "features.objects=original" in masked
    assert "features.objects" not in plain
    assert run("images=folder", f"images.dir={image_folder}", "stages=[features]", "num_workers=1", output="fine") == 0
    assert "have no keypoints" not in (tmp_path / "fine" / "mine.log").read_text()


def test_sweep_extracts_once_and_is_summarised(run: Run, tmp_path: Path, image_folder: Path) -> None:
    assert run("-m", *folder_overrides(image_folder), "vocabulary.size=20,40", output="sweep") == 0
    sweep = tmp_path / "sweep"
    assert len(list((tmp_path / "store" / "features").glob("sift-*"))) == 1
    assert "features: reusing" in (sweep / "1" / "mine.log").read_text()
    summary = pd.read_csv(sweep / "summary.csv")
    assert list(summary["job"]) == [0, 1]
    assert list(summary["vocabulary.size"]) == list(summary["vocabulary_size"]) == [20, 40]
    assert {"num_structures", "mean_purity_at_30", "seconds_total", "seconds_features", "seconds_all_stages"} <= set(
        summary.columns
    )
    assert (sweep / "summary.png").stat().st_size > 5000


def test_an_output_folder_never_mixes_two_runs(run: Run, tmp_path: Path, image_folder: Path) -> None:
    assert run(*folder_overrides(image_folder)) == 0
    assert run(*folder_overrides(image_folder), "stages=[mining]", "vocabulary.size=20") == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "metrics.json", "structures.txt", "config.yaml", "mine.log", ".minia.json", ".minia.lock",
    }  # fmt: skip


def test_results_inside_the_image_folder_are_not_images(run: Run, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", 6)
    for output in ("images/run1", "images/run2"):
        assert run("images=folder", f"images.dir={folder}", *SMALL, "vocabulary.size=10", output=output) == 0
        assert metrics_of(tmp_path / output)["num_images"] == 6


def test_experiments_may_set_any_key(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = tmp_path / "conf"
    shutil.copytree(CONFIGURATION, configuration)
    (configuration / "experiment" / "own.yaml").write_text("# @package _global_\nseed: 7\n")
    with hydra.initialize_config_dir(str(configuration), version_base="1.3"):
        assert hydra.compose("mine", ["experiment=own"]).seed == 7


def test_a_part_of_the_stages(run: Run, tmp_path: Path, image_folder: Path) -> None:
    assert run(*folder_overrides(image_folder), "stages=[features,vocabulary]") == 0
    made = {path.name for path in (tmp_path / "store").iterdir()}
    assert made == {"images", "features", "vocabulary", ".runs"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "metrics.json", "config.yaml", "mine.log", ".minia.json", ".minia.lock",
    }  # fmt: skip


def test_listdb_file_is_mined_alone(run: Run, tmp_path: Path) -> None:
    corpus = tmp_path / "a.corpus"
    corpus.write_text("4 0:1 1:1 2:1 3:1\n" * 20 + "4 4:1 5:1 6:1 7:1\n" * 20 + "0\n")
    assert run("words=listdb", f"words.path={corpus}", "stages=[mining]", "mining.num_tuples=50") == 0
    assert not (tmp_path / "store" / "images").exists()
    found = {frozenset(each.tolist()) for each in read_listdb(tmp_path / "run" / "structures.txt")}
    assert found == {frozenset(range(4)), frozenset(range(4, 8))}
    assert run("words=listdb", f"words.path={corpus}", "mining.num_tuples=50", output="whole") == 0
    metrics = metrics_of(tmp_path / "whole")
    assert metrics["num_images"] == 41
    assert metrics["num_matched_images"] == 40
    assert (tmp_path / "whole" / "report" / "index.html").exists()


BY_CHANCE = "no words are together in more images than chance explains. "


@pytest.mark.parametrize(
    ("share", "overrides", "sentence"),
    [
        (
            0.2,
            ["mining.linkage=nested"],
            f"{BY_CHANCE}An image holds 8 of the 40 words on average, and a word is in 13 images: try more images,"
            " other features, or mining.linkage=single, which tests nothing against chance.",
        ),
        (
            0.6,
            ["mining.linkage=nested"],
            f"{BY_CHANCE}An image holds 24 of the 40 words on average, too many for a pair of words to tell anything:"
            " try a larger vocabulary.size, such as 244, or mining.linkage=factors for few, coarse groups.",
        ),
        (
            0.1,
            ["mining.linkage=nested"],
            f"{BY_CHANCE}A word is in 6.5 of 60 images on average, too few to be found together with others: try more"
            " images, or a smaller vocabulary.size, such as 13.",
        ),
        (
            0.6,
            ["mining.linkage=factors"],
            "no groups of words vary together more than chance explains. An image holds 24 of the 40 words on average,"
            " too many for a pair of words to tell anything: try a larger vocabulary.size, such as 244.",
        ),
        (
            0.2,
            ["mining.linkage=single", "mining.min_cluster_size=1000"],
            "no group of co-occurring sets that overlap is as large as mining.min_cluster_size. An image holds 8 of the"
            " 40 words on average, and a word is in 13 images: try more images, other features, or"
            " mining.linkage=nested.",
        ),
    ],
)
def test_why_there_are_no_structures_is_told_in_one_sentence(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], share: float, overrides: list[str], sentence: str
) -> None:
    rows = np.random.default_rng(0).random((60, 40)) < share  # chance alone
    corpus = tmp_path / "a.corpus"
    write_listdb(corpus, ListDB.from_lists([np.flatnonzero(row).tolist() for row in rows], 40))
    for output in ("made", "found"):  # found in the store, it is told again
        assert run("words=listdb", f"words.path={corpus}", "mining.num_tuples=200", *overrides, output=output) == 0
        told = [line for line in capsys.readouterr().err.splitlines() if "No structures" in line]
        assert len(told) == 1
        assert told[0].endswith(f"  No structures were found: {sentence}")
        page = (tmp_path / output / "report" / "index.html").read_text()
        assert f"<p class='notice'>No structures were found: {sentence}</p>" in page


def test_images_too_few_for_any_pair_of_words_are_told_so(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "a.corpus"
    rows = np.random.default_rng(0).random((12, 40)) < 0.6
    write_listdb(corpus, ListDB.from_lists([np.flatnonzero(row).tolist() for row in rows], 40))
    assert run("words=listdb", f"words.path={corpus}", "stages=[mining]", "mining.linkage=nested") == 0
    # 780 pairs / 0.05 = 15,600 lies between 16 over 8, 12,870, and 17 over 8, 24,310
    told = "12 images are too few for any of the pairs of 40 words to be beyond chance: it takes 17 at least"
    assert told in capsys.readouterr().err


HEAVY = {"cv2", "torchvision", "matplotlib", "pandas", "sklearn", "faiss", "lightning", "pytorch_lightning", "astropy"}
HEAVY |= {"rich"}


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        (["--help"], HEAVY | {"torch", "numpy"}),
        (["vocabulary.size=0"], HEAVY | {"torch", "numpy"}),
        (["words=listdb", "words.path=a.corpus", "stages=[mining]", "device=cpu"], HEAVY),
    ],
)
def test_a_job_imports_only_what_it_needs(tmp_path: Path, arguments: list[str], unneeded: set[str]) -> None:
    (tmp_path / "a.corpus").write_text("4 0:1 1:1 2:1 3:1\n" * 20)
    places = [f"store={tmp_path / 'store'}", f"hydra.run.dir={tmp_path / 'run'}"]
    argv = ["mine.py", *arguments, *([] if "--help" in arguments else places)]
    code = (
        f"import sys; sys.argv = {argv!r}; sys.path.insert(0, {str(ROOT)!r})\n"
        "try:\n    from minia.command_line.commands import mine; mine()\n"
        f"finally:\n    print('imported:', *sorted({unneeded!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (tmp_path / "run" / "structures.txt").exists() == ("words=listdb" in arguments), done.stderr
    assert done.stdout.splitlines()[-1] == "imported:", done.stderr


def test_artifacts_made_elsewhere_are_taken_over(run: Run, tmp_path: Path, image_folder: Path) -> None:
    assert run(*folder_overrides(image_folder), output="first") == 0
    features = next((tmp_path / "store" / "features").glob("sift-*"))
    vocabulary = next((tmp_path / "store" / "vocabulary").glob("kmeans*"))
    chosen = ["features=artifact", f"features.path={features}", "vocabulary=artifact", f"vocabulary.path={vocabulary}"]
    chosen += ["mining=listdb", f"mining.path={tmp_path / 'first' / 'structures.txt'}", f"store={tmp_path / 'other'}"]
    chosen += ["arrangement.list=all"]
    assert run(*chosen, output="second") == 0
    assert not (tmp_path / "other" / "images").exists()
    first, second = (pd.read_parquet(tmp_path / name / "matches.parquet") for name in ("first", "second"))
    assert first["overlap"].equals(second["overlap"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["images=folder", "images.dir=/no/such/folder"], "images.dir=/no/such/folder: expected a path of a folder"),
        (["images=folder", "images.dir={empty}"], "holds no images"),
        (["images=folder", "images.dir={corrupt}"], "none of the 2 images can be read"),
        (["images=folder"], "images.dir: must be given"),
        (["vocabulary.size=0"], "vocabulary.size=0: expected a whole number of at least 1"),
        (["images=folder", "images.dir={good}", "vocabulary.size=100000"], "there are only"),
        (["-m", "vocabulary.size=10,0"], "vocabulary.size=0"),
        (["images=foldr"], "images=foldr: there is no such choice (did you mean folder?); allowed: catalogue,"),
        (["imags=folder"], "(did you mean images?)"),
        (["vocabulary.siz=3"], "(did you mean vocabulary.size?)"),
        (["+vocabulary.siz=3"], "(did you mean vocabulary.size?)"),
        (["features=surf", "images=folder", "images.dir={good}"], "built without SURF"),
        (["words=listdb", "words.path={malformed}", "stages=[mining]"], "line 2"),
        (["vocabulary.size=["], "error:"),
        (["device=cuda", "images=folder", "images.dir={good}"], "device=cuda"),
        (["mining.tuple_size=many"], "mining.tuple_size=many: expected a whole number"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    import torch

    if "device=cuda" in overrides and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    (tmp_path / "empty").mkdir()
    (tmp_path / "corrupt").mkdir()
    for name in ("a.jpg", "b.png"):
        (tmp_path / "corrupt" / name).write_bytes(b"no image")
    write_images(tmp_path / "good", 2)
    (tmp_path / "malformed").write_text("1 0:1\n2 0:1\n")
    places = {name: tmp_path / name for name in ("empty", "corrupt", "good", "malformed")}
    code = run(*(each.format(**places) for each in overrides), "num_workers=1")
    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert lines[-1].startswith("error:")
    assert message in lines[-1]
    logged = re.compile(r"\d\d:\d\d:\d\d  ")
    assert [line for line in lines[:-1] if not logged.match(line)] == []
    results = {path.name for path in (tmp_path / "run").glob("*")}
    assert results <= {"mine.log"}
    unfinished = [path for path in (tmp_path / "store").glob("*/.*.part") if path.is_dir()]
    assert unfinished == []


def test_output_folder_that_cannot_be_made_is_named(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for sweep in ([], ["-m"]):
        assert run(*sweep, "vocabulary.size=10", output="file/run") == 2
        told = capsys.readouterr().err.splitlines()
        assert len(told) == 1
        assert told[0].startswith(f"error: hydra.run.dir or hydra.sweep.dir: {tmp_path / 'file' / 'run'}")
        assert "cannot be made a folder" in told[0]


def test_folder_that_may_not_be_written_is_unusable_input(capsys: pytest.CaptureFixture[str]) -> None:
    for number, code in ((errno.EACCES, 2), (errno.EROFS, 2), (errno.EIO, 1)):
        assert print_error(OSError(number, os.strerror(number), "/data/store")) == code
        assert capsys.readouterr().err == f"error: {os.strerror(number)}: /data/store\n"


def test_debug_shows_the_traceback(run: Run) -> None:
    with pytest.raises(Exception, match=r"vocabulary\.size=0"):
        run("vocabulary.size=0", "debug=true")


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is not a thing on Windows")
def test_killed_extraction_is_finished_to_the_same_bytes(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", 48, width=320, height=320, num_blobs=150)

    def command(store: str) -> list[str]:
        choices = [
            "images=folder",
            f"images.dir={folder}",
            "features=sift",
            "features.shard_images=8",
            "stages=[features]",
        ]
        places = [f"store={tmp_path / store}", f"hydra.run.dir={tmp_path / store}-run", "num_workers=2"]
        return [sys.executable, str(ROOT / "mine.py"), *choices, *places]

    subprocess.run(command("whole"), check=True, capture_output=True, cwd=tmp_path)
    killed = subprocess.Popen(command("killed"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "killed").glob("features/.*.part/shard-00001")):
        assert killed.poll() is None, killed.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not list((tmp_path / "killed").glob("features/sift-*")), "it was not killed in the middle"
    again = subprocess.run(command("killed"), check=True, capture_output=True, text=True, cwd=tmp_path)
    assert "that were finished before" in again.stderr
    artifacts = [next((tmp_path / store).glob("features/sift-*")) for store in ("whole", "killed")]
    assert artifact_bytes(artifacts[0]) == artifact_bytes(artifacts[1])
    manifests = [read_manifest(artifact) | {"seconds": 0} for artifact in artifacts]
    assert manifests[0] == manifests[1]


def test_output_that_is_no_terminal_has_no_control_characters(tmp_path: Path, image_folder: Path) -> None:
    command = [sys.executable, str(ROOT / "mine.py"), *folder_overrides(image_folder), "stages=[words]"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    assert not [c for c in done.stdout + done.stderr if ord(c) < 32 and c != "\n"]


def test_other_labels_extract_nothing_anew(run: Run, tmp_path: Path, image_folder: Path) -> None:
    assert run("images=folder", f"images.dir={image_folder}", *SMALL, output="plain") == 0
    assert "word_accuracy" not in metrics_of(tmp_path / "plain")
    assert run(*folder_overrides(image_folder), output="labelled") == 0
    assert metrics_of(tmp_path / "labelled").keys() >= LABEL_METRICS
    assert len(list((tmp_path / "store" / "features").glob("sift-*"))) == 1


@pytest.mark.parametrize(
    "name", ["with space", "com,ma", "eq=ual", "~tilde", "quo'te", 'dou"ble', "nö☃", "a\\b", "(x) [y] {z}"]
)
def test_paths_may_hold_any_character(run: Run, tmp_path: Path, name: str) -> None:
    folder = write_images(tmp_path / name, 2)
    assert run("images=folder", f"images.dir={folder}", "stages=[images]", "num_workers=1") == 0
    assert metrics_of(tmp_path / "run")["num_images"] == 2
