"""Features that keep no descriptors: the same words and structures as with all of them, in 12 bytes a keypoint."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from choices import CPU, kmeans, sift
from test_features import artifact_bytes, folder_images
from test_query import write_collection

import minia
from minia.core.artifact import InputError, read_manifest
from minia.data.reading import Reading, read_image
from minia.mining.features import reader
from minia.mining.features.compact import decode, encode
from minia.mining.features.estimate import keeps_descriptors
from minia.mining.features.stage import (
    WordsOfDescriptors,
    extract_features,
    extract_words,
    try_out,
)
from minia.mining.features.store import FeatureStore
from minia.mining.vocabulary.assignment import load_assignment, load_centroids, words_by
from minia.mining.vocabulary.stage import build_vocabulary

SAMPLE = 6


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen images of which seven hold the same thing, and one that cannot be read."""
    folder = write_collection(tmp_path_factory.mktemp("collection") / "images")
    (folder / "image03b.png").write_bytes(b"no image")
    return folder


def mine(collection: Path, output: Path, keep: bool | None, **of_features: Any) -> minia.Run:
    return minia.mine(
        "folder",
        dir=collection,
        output=output,
        store=output.parent / f"store-{output.name}",
        stages=["matching"],
        features={"kind": "sift", "objects": "none", "shard_images": 4, "keep_descriptors": keep, **of_features},
        vocabulary={"size": 60, "sample_images": SAMPLE},
        mining={"linkage": "single", "num_tuples": 200},
        arrangement={"kind": "constellation", "list": "all"},
        num_workers=1,
    )


@pytest.fixture(scope="module")
def runs(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> list[minia.Run]:
    """One that kept all descriptors, and one that forgot them."""
    folder = tmp_path_factory.mktemp("runs")
    return [mine(collection, folder / name, keep) for name, keep in (("kept", True), ("forgot", False))]


def test_vocabulary_words_and_structures_are_the_same(runs: list[minia.Run]) -> None:
    kept, forgot = (run.artifacts for run in runs)
    assert np.array_equal(load_centroids(kept["vocabulary"]), load_centroids(forgot["vocabulary"]))
    assert read_manifest(kept["vocabulary"])["counts"] == read_manifest(forgot["vocabulary"])["counts"]
    for name in ("words.npy", "offsets.npy", "frequencies.npy", "images.parquet"):
        assert (kept["words"] / name).read_bytes() == (forgot["words"] / name).read_bytes()
    assert (runs[0].path / "structures.txt").read_bytes() == (runs[1].path / "structures.txt").read_bytes()
    tables = [pd.read_parquet(run.path / "matches.parquet") for run in runs]
    assert len(tables[0]) > 7 and tables[0]["x"].notna().any()
    pd.testing.assert_frame_equal(tables[0], tables[1], rtol=0, atol=0.05)


def test_descriptors_remain_of_the_sample_alone(runs: list[minia.Run]) -> None:
    artifact = runs[1].artifacts["features"]
    assert runs[1].artifacts["assignment"] == artifact
    files = [path for path in artifact.rglob("*.npy") if path.name != "manifest.json"]
    num_keypoints = FeatureStore.load(artifact).num_keypoints
    assert sum(np.load(path).nbytes for path in files) == 12 * num_keypoints
    of_sample = [each for each in artifact.parent.iterdir() if each.is_dir() and each != artifact]
    counts = read_manifest(of_sample[0])["counts"]
    assert len(of_sample) == 1 and counts["num_images"] + counts["num_failed_images"] == SAMPLE
    assert runs[0].metrics["num_failed_images"] == runs[1].metrics["num_failed_images"] == 1


def test_keypoints_are_where_they_were(runs: list[minia.Run]) -> None:
    kept, forgot = (FeatureStore.load(run.artifacts["features"]) for run in runs)
    for row in range(len(kept.images)):
        for name, error in (("keypoints", 160 / 131070 + 1e-4), ("sizes", 0.02), ("angles", 0.003)):
            off = np.abs(kept.of_image(row, name).astype(np.float64) - forgot.of_image(row, name))
            assert (np.minimum(off, 360 - off) if name == "angles" else off).max() < error


def test_extremes_of_places_sizes_and_angles() -> None:
    arrays = {
        "keypoints": np.array([[-0.5, 0], [4095.5, 10], [5000, -3]], np.float32),
        "sizes": np.array([1e-3, 1e6, 7], np.float32),
        "angles": np.array([-1, 359.9999, 180], np.float32),
    }
    sides = np.full(3, 4096, np.float32)
    records = encode(arrays, sides)
    assert np.allclose(decode(records, sides, "keypoints"), [[-0.5, 0], [4095.5, 10], [4095.5, -0.5]], atol=0.04)
    assert np.allclose(decode(records, sides, "sizes"), [1e-3, 65504, 7], rtol=5e-4)
    assert np.allclose(decode(records, sides, "angles"), [-1, 0, 180], atol=3e-3)


def test_a_query_sees_images_as_the_run_did(runs: list[minia.Run]) -> None:
    answers = [run.query("image05.png", num_workers=1) for run in runs]
    assert len(answers[0].structures)
    pd.testing.assert_frame_equal(answers[0].structures, answers[1].structures, rtol=0, atol=0.05)
    assert runs[1].keypoints("image05.png")["score"].isna().all()


def test_what_needs_descriptors_says_so(runs: list[minia.Run], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no descriptors, which this needs; allowed: features made with"):
        runs[1].export("hloc", tmp_path / "out")
    with pytest.raises(InputError, match=r"features.path=.* holds no descriptors"):
        minia.mine(features={"kind": "artifact", "path": runs[1].artifacts["features"]}, output=tmp_path / "run")


def words_of(vocabulary: Path, features: Path | None) -> WordsOfDescriptors:
    return WordsOfDescriptors(vocabulary, *words_by(vocabulary, CPU, "auto"), features)


def test_a_killed_second_pass_goes_on(collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = folder_images(tmp_path, collection)
    sample = extract_features(images, tmp_path, sift(), CPU, sample=SAMPLE)
    vocabulary = build_vocabulary(sample, tmp_path, kmeans(), CPU)
    alone = extract_words(images, tmp_path / "alone", sift(), CPU, words_of(vocabulary, None))
    read: list[Path] = []

    def read_until_killed(path: Path, reading: Reading) -> np.ndarray:
        if len(read) >= 5:
            raise KeyboardInterrupt
        read.append(path)
        return read_image(path, reading)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(reader, "read_image", read_until_killed)
        extract_words(images, tmp_path, sift(), CPU, words_of(vocabulary, sample))
    assert list(tmp_path.glob("features/.*.part/shard-00000/words.npy"))
    finished = extract_words(images, tmp_path, sift(), CPU, words_of(vocabulary, sample))
    assert artifact_bytes(finished) == artifact_bytes(alone)  # nor does it matter whether a sample was at hand
    assert load_assignment(finished, 2).dtype == np.int32


def test_descriptors_beyond_the_budget_are_not_kept(
    collection: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = folder_images(tmp_path, collection)
    found = try_out(images, tmp_path, sift(), CPU)
    assert found is not None and found.num_images == 15
    assert found.num_bytes == pytest.approx(276 * 15 * found.keypoints)
    with caplog.at_level(logging.INFO):
        assert not keeps_descriptors(found, sift(disk_budget=1e-4), SAMPLE)
    assert "descriptors are not kept, since all would take about" in caplog.text
    assert keeps_descriptors(found, sift(disk_budget=1e-4), 15)  # all are sampled: nothing to gain
    assert keeps_descriptors(found, sift(disk_budget=1.0), SAMPLE)
    assert keeps_descriptors(found, sift(disk_budget=1e-4, keep_descriptors=True), SAMPLE)
    extract_features(images, tmp_path, sift(), CPU)
    assert try_out(images, tmp_path, sift(), CPU) is None
    assert keeps_descriptors(None, sift(disk_budget=1e-4), SAMPLE)  # they are there already
