"""The features stage with DELF: batches, threads, principal components, resuming."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from choices import CPU, delf
from conftest import draw_blobs
from sklearn.decomposition import PCA as ReferencePCA  # noqa: N811
from test_delf import small_network
from test_features import artifact_bytes, folder_images

from minia.command_line.commands import mine
from minia.core.artifact import InputError, read_manifest
from minia.core.context import Context
from minia.core.device import choose_precision
from minia.data.reading import read_image
from minia.mining.features import reader
from minia.mining.features.pca import PCA
from minia.mining.features.stage import extract_features
from minia.mining.features.store import FeatureStore
from minia.mining.features.write import ShardWriter
from minia.models.delf.export import export_delf
from minia.models.extractors.delf import DELFExtractor


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.pt"
    return export_delf(small_network(), path, classes=["a", "b", "c"], config={})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven images, every third of another size, and a broken one among them."""
    folder = tmp_path_factory.mktemp("mixed")
    for number in range(11):
        width = 70 if number % 3 == 1 else 96
        cv2.imwrite(str(folder / f"{number:02d}.png"), draw_blobs(number, width=width, height=80))
    (folder / "04a.jpg").write_bytes(b"not a JPEG")
    return folder


def extract(folder: Path, model: Path, store: Path, workers: int = 1, shard: int = 20, **changes: Any) -> Path:
    context = Context(changes.pop("seed", 0), "cpu", workers)
    settings = delf(model, shard_images=shard, **changes)
    return extract_features(folder_images(store, folder), store, settings, context)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that the extractor gets, in turn."""
    sizes: list[int] = []
    extract_batch = DELFExtractor.extract_batch

    def note(self: DELFExtractor, images: Any) -> Any:
        sizes.append(len(images))
        return extract_batch(self, images)

    monkeypatch.setattr(DELFExtractor, "extract_batch", note)
    return sizes


def test_batches_of_one_size_give_what_single_images_give(
    tmp_path: Path, folder: Path, model: Path, batches: list[int]
) -> None:
    single = FeatureStore.load(extract(folder, model, tmp_path, batch_size=1))
    assert set(batches) == {1}
    batches.clear()
    batched = FeatureStore.load(extract(folder, model, tmp_path, batch_size=12))
    assert batches == [1] * 8 + [7, 4]  # the size estimate, then 7 wide and 4 narrow images
    assert read_manifest(batched.artifact)["counts"]["failed_images"][0].startswith("04a.jpg")
    assert list(batched.images["width"]) == [70 if number % 3 == 1 else 96 for number in range(11)]
    assert batched.images.equals(single.images)
    for name in ("keypoints", "sizes"):
        np.testing.assert_array_equal(batched.shard(0, name), single.shard(0, name))
    np.testing.assert_allclose(batched.shard(0, "scores"), single.shard(0, "scores"), atol=1e-4)
    ours, theirs = (store.shard(0, "descriptors").astype(np.float32) for store in (batched, single))
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-3)  # rtol: a digit of float16


def test_large_images_are_not_stacked_beyond_memory(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = DELFExtractor(delf(model), CPU)
    passes: list[int] = []
    run = subject._run

    def counted(images: np.ndarray, masks: np.ndarray | None) -> Any:
        passes.append(len(images))
        return run(images, masks)

    monkeypatch.setattr(subject, "_run", counted)
    monkeypatch.setitem(sys.modules["minia.models.extractors.delf"]._PIXELS_AT_ONCE, "cpu", int(2.5 * 64 * 64 * 2))
    found = subject.extract_batch([draw_blobs(seed, 64, 64) for seed in range(5)])
    assert passes == [2, 2, 1]  # at the scale 1.4142 an image has twice its pixels
    assert len(found) == 5


@pytest.mark.parametrize("precision", ["float32", "half"])
def test_result_does_not_depend_on_the_number_of_threads(
    tmp_path: Path, folder: Path, model: Path, precision: str
) -> None:
    found = [
        extract(folder, model, tmp_path / str(workers), workers, shard=5, precision=precision, batch_size=2)
        for workers in (1, 3)
    ]
    assert artifact_bytes(found[0]) == artifact_bytes(found[1])


def test_each_thread_computes_on_one_core(
    tmp_path: Path, folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    torch.set_num_threads(3)
    run, seen = DELFExtractor._run, set()

    def note(self: DELFExtractor, images: np.ndarray, masks: np.ndarray | None) -> Any:
        seen.add((threading.current_thread() is threading.main_thread(), torch.get_num_threads()))
        return run(self, images, masks)

    monkeypatch.setattr(DELFExtractor, "_run", note)
    for workers in (1, 2):
        extract(folder, model, tmp_path / str(workers), workers)
    assert seen == {(True, 1), (False, 1)}
    assert torch.get_num_threads() == 3


def test_images_are_read_while_the_network_works(
    tmp_path: Path, folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = DELFExtractor._run
    read: list[str] = []
    ahead = threading.Event()

    def note(path: Path, reading: Any) -> Any:
        read.append(path.name)
        if "08.png" in read[8:]:  # of the second task, after the eight of the size estimate
            ahead.set()
        return read_image(path, reading)

    first, waited = threading.Lock(), []

    def wait(self: DELFExtractor, images: np.ndarray, masks: np.ndarray | None) -> Any:
        if len(images) > 1 and first.acquire(blocking=False):  # in turn with reading, nothing would come of it
            waited.append(ahead.wait(30))
        return run(self, images, masks)

    monkeypatch.setattr(reader, "read_image", note)
    monkeypatch.setattr(DELFExtractor, "_run", wait)
    extract(folder, model, tmp_path, workers=2)
    assert waited == [True]


@pytest.mark.parametrize("pca_dim", [None, 6])
def test_killed_run_is_finished_without_redoing_its_parts(
    tmp_path: Path, folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch, batches: list[int], pca_dim: int | None
) -> None:
    whole = extract(folder, model, tmp_path / "whole", shard=4, pca_dim=pca_dim)
    write, fit, fitted = ShardWriter._write_shard, PCA.fit, []

    def die(self: ShardWriter, shard: int, *arguments: Any) -> None:
        if shard == 1:
            raise KeyboardInterrupt
        write(self, shard, *arguments)

    def note(descriptors: np.ndarray, dim: int) -> PCA:
        fitted.append(len(descriptors))
        return fit(descriptors, dim)

    monkeypatch.setattr(PCA, "fit", note)
    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "_write_shard", die)
        with pytest.raises(KeyboardInterrupt):
            extract(folder, model, tmp_path / "killed", workers=2, shard=4, pca_dim=pca_dim)
    batches.clear()
    finished = extract(folder, model, tmp_path / "killed", workers=2, shard=4, pca_dim=pca_dim)
    assert sum(batches) == 8 + 7  # the size estimate, and what was not written
    assert len(fitted) == (0 if pca_dim is None else 1)
    assert artifact_bytes(finished) == artifact_bytes(whole)


def test_principal_components_are_those_of_the_descriptors(tmp_path: Path, folder: Path, model: Path) -> None:
    plain = FeatureStore.load(extract(folder, model, tmp_path))
    shortened = FeatureStore.load(extract(folder, model, tmp_path, pca_dim=6))
    assert shortened.descriptor_size == 6
    shortened.check()
    for name in ("keypoints", "sizes", "scores"):
        np.testing.assert_array_equal(plain.shard(0, name), shortened.shard(0, name))
    descriptors = plain.shard(0, "descriptors").astype(np.float64)
    reference = ReferencePCA(6, svd_solver="full").fit(descriptors)
    pca = PCA.load(shortened.artifact)
    np.testing.assert_allclose(np.abs((pca.axes * reference.components_).sum(axis=1)), 1, atol=1e-3)
    np.testing.assert_allclose(pca.axes @ pca.axes.T, np.eye(6), atol=1e-5)
    assert (np.take_along_axis(pca.axes, np.abs(pca.axes).argmax(axis=1)[:, None], axis=1) > 0).all()
    expected = (descriptors - pca.mean) @ pca.axes.T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(shortened.shard(0, "descriptors"), expected, atol=5e-3)


def test_principal_components_are_fitted_on_images_drawn_with_the_seed(
    tmp_path: Path, folder: Path, model: Path, batches: list[int]
) -> None:
    made = [extract(folder, model, tmp_path, pca_dim=6, pca_images=5, seed=seed) for seed in (0, 1)]
    again = extract(folder, model, tmp_path / "again", workers=2, pca_dim=6, pca_images=5, seed=0)
    assert artifact_bytes(made[0]) == artifact_bytes(again)
    assert not np.array_equal(PCA.load(made[0]).axes, PCA.load(made[1]).axes)
    assert sum(batches) <= 3 * (8 + 5 + 11)
    assert extract(folder, model, tmp_path, seed=0) == extract(
        folder, model, tmp_path, seed=1
    )  # drawn for nothing else


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pca_dim": 129}, "features.pca_dim=129: expected 1 to 128"),
        ({"pca_dim": 40, "num_features": 3}, "features.pca_dim=40: the sampled images have 33 descriptors"),
        ({"pca_dim": 30, "pca_images": 1}, "features.pca_dim=30: the sampled images have 20 descriptors"),
    ],
)
def test_components_that_cannot_be_are_refused(
    tmp_path: Path, folder: Path, model: Path, changes: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        extract(folder, model, tmp_path, **changes)
    assert not [path for path in (tmp_path / "features").glob("*") if path.is_dir()]


def test_auto_is_half_precision_where_the_device_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_precision("auto", "cuda") == "half"
    for has, expected in (({}, "float32"), ({"avx512_bf16": True}, "half"), ({"amx_bf16": True}, "half")):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda has=has: has)
        assert choose_precision("auto", "cpu") == expected
        assert choose_precision("float32", "cpu") == "float32"


def mined(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *overrides: str) -> int:
    small = ("vocabulary.size=20", "stages=[words]", "num_workers=1", "device=cpu")
    monkeypatch.setattr(sys, "argv", ["mine.py", *overrides, *small, f"hydra.run.dir={tmp_path / 'run'}"])
    return mine()


def test_mine_with_delf(
    tmp_path: Path, folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    delf = ("images=folder", f"images.dir={folder}", "features=delf", "features.scales=[1.0,1.4142]")
    assert mined(monkeypatch, tmp_path, *delf, f"features.model={model}", "features.pca_dim=200") == 2
    assert "error: features.pca_dim=200: expected 1 to 128" in capsys.readouterr().err
    (tmp_path / "broken.pt").write_bytes(b"no model")
    assert mined(monkeypatch, tmp_path, *delf, f"features.model={tmp_path / 'broken.pt'}") == 2
    assert f"error: features.model: {tmp_path / 'broken.pt'} cannot be read as plain tensors" in capsys.readouterr().err
    assert not list(tmp_path.glob("store/*/*"))  # both were told before any work
    loaded: list[Path] = []
    module = sys.modules["minia.models.extractors.delf"]
    load = module._load

    def note(path: Path) -> Any:
        loaded.append(path)
        return load(path)

    monkeypatch.setattr(module, "_load", note)
    assert mined(monkeypatch, tmp_path, *delf, f"features.model={model}", "features.pca_dim=12") == 0
    [artifact] = (tmp_path / "store" / "features").glob("delf-*")
    assert FeatureStore.load(artifact).descriptor_size == 12
    assert read_manifest(artifact)["parameters"]["precision"] in ("float32", "half")
    assert loaded == [model]  # once, for the check and the work
