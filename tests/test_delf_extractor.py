"""The DELF extractor behind the extractor contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from choices import CPU, delf
from conftest import draw_blobs
from test_delf import small_network
from torch import Tensor

from minia.core.artifact import InputError
from minia.core.context import Context
from minia.core.setting_types import check
from minia.mining.features.settings import DELFFeatures
from minia.models.delf.export import export_delf
from minia.models.extractors.background import foreground_mask
from minia.models.extractors.base import Features
from minia.models.extractors.delf import DELFExtractor

SCALES = [0.5, 1.4142]
NETWORK = {"backbone": "resnet18", "stride_in_1x1": False, "block3_stride": True, "attention_channels": 32}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same network as a TorchScript file and as a checkpoint."""
    folder, network = tmp_path_factory.mktemp("models"), small_network()
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    hyper_parameters = {"network": NETWORK, "classes": ["a", "b", "c"]}
    torch.save({"state_dict": state, "hyper_parameters": hyper_parameters}, folder / "a.ckpt")
    script = export_delf(network, folder / "a.pt", classes=["a", "b", "c"], config={})
    return {"checkpoint": folder / "a.ckpt", "torchscript": script}


def extractor(models: dict[str, Path], kind: str = "checkpoint", device: str = "cpu", **changes: Any) -> DELFExtractor:
    return DELFExtractor(delf(models[kind], **changes), Context(device=device))


def assert_close(first: Features, second: Features) -> None:
    np.testing.assert_array_equal(first["keypoints"], second["keypoints"])
    np.testing.assert_array_equal(first["sizes"], second["sizes"])
    np.testing.assert_allclose(first["scores"], second["scores"], atol=1e-4)
    np.testing.assert_allclose(first["descriptors"], second["descriptors"], atol=1e-4)


@pytest.mark.parametrize("kind", ["checkpoint", "torchscript"])
def test_contract(models: dict[str, Path], kind: str) -> None:
    subject = extractor(models, kind)
    features = subject.extract(draw_blobs(1, width=110, height=80))
    count = len(features["scores"])
    assert 0 < count <= 20
    assert features["keypoints"].shape == (count, 2)
    assert features["descriptors"].shape == (count, subject.descriptor_size) == (count, 128)
    assert features["image_size"].tolist() == [110, 80]
    assert all(features[name].dtype == np.float32 for name in ("keypoints", "sizes", "scores", "descriptors"))
    assert (np.diff(features["scores"]) <= 0).all()
    np.testing.assert_allclose(np.linalg.norm(features["descriptors"], axis=1), 1, atol=1e-5)
    covered = [211 / scale for scale in SCALES]
    assert all(any(size == pytest.approx(side) for side in covered) for size in features["sizes"])


@pytest.mark.parametrize("kind", ["checkpoint", "torchscript"])
def test_dense_selection_takes_every_place_on_the_objects(models: dict[str, Path], kind: str) -> None:
    image = draw_blobs(3, num_blobs=2)
    all_of: dict[str, Any] = {"num_features": 0, "scales": [1.0, 2.0, 4.0]}
    every = extractor(models, kind, **all_of).extract(image)
    dense = extractor(models, kind, selection="dense", **all_of).extract(image)
    assert_close(every, dense)
    on_objects = extractor(models, kind, selection="dense", objects="original", **all_of).extract(image)
    column, row = np.rint(every["keypoints"]).astype(int).clip(0, 95).T
    np.testing.assert_array_equal(on_objects["keypoints"], every["keypoints"][foreground_mask(image)[row, column]])


@pytest.mark.parametrize("limit", [1, 9, 40, 120, 10_000])
def test_dense_selection_widens_the_finest_grids(models: dict[str, Path], limit: int) -> None:
    image, scales = draw_blobs(3, width=128, height=96), [1.0, 2.0, 4.0]
    every = extractor(models, num_features=0, scales=scales).extract(image)
    features = extractor(models, num_features=limit, scales=scales, selection="dense").extract(image)
    assert 0.3 * min(limit, len(every["scores"])) <= len(features["scores"]) <= limit
    known = {(*place, size) for place, size in zip(every["keypoints"].tolist(), every["sizes"].tolist(), strict=True)}
    kept = {(*at, size) for at, size in zip(features["keypoints"].tolist(), features["sizes"].tolist(), strict=True)}
    assert kept <= known and len(kept) == len(features["scores"])
    pitches = []
    for size in np.unique(features["sizes"]):
        x = np.unique(features["keypoints"][features["sizes"] == size, 0])
        if len(x) > 2:
            assert np.ptp(np.diff(x)) < 0.1  # an even grid
            pitches.append(float(np.diff(x)[0]))
    assert not pitches or max(pitches) <= 4 * min(pitches) + 0.1


def test_checkpoint_and_torchscript_agree(models: dict[str, Path]) -> None:
    image = draw_blobs(2)
    assert_close(extractor(models).extract(image), extractor(models, "torchscript").extract(image))


@pytest.mark.parametrize(("nms_iou", "objects"), [(1.0, "none"), (0.6, "original")])
@pytest.mark.parametrize("kind", ["checkpoint", "torchscript"])
def test_batch_equals_one_at_a_time(models: dict[str, Path], kind: str, nms_iou: float, objects: str) -> None:
    subject = extractor(models, kind, nms_iou=nms_iou, objects=objects, score_percentile=30.0)
    images = [draw_blobs(seed, width=100, height=90) for seed in range(3)]
    for image, together in zip(images, subject.extract_batch(images), strict=True):
        assert_close(subject.extract(image), together)


def test_background_mask_comes_before_the_limit(models: dict[str, Path]) -> None:
    image, limit = draw_blobs(3, num_blobs=2), 6
    every = extractor(models, num_features=0, scales=[1.0, 3.0]).extract(image)
    masked = extractor(models, num_features=limit, scales=[1.0, 3.0], objects="original").extract(image)
    column, row = np.rint(every["keypoints"]).astype(int).clip(0, 95).T
    on_object = foreground_mask(image)[row, column]
    assert limit < on_object.sum() < len(on_object)
    np.testing.assert_array_equal(masked["keypoints"], every["keypoints"][on_object][:limit])


def test_nothing_above_the_threshold_is_an_empty_result(models: dict[str, Path]) -> None:
    features = extractor(models, score_threshold=1e9).extract(draw_blobs(1))
    assert features["keypoints"].shape == (0, 2)
    assert features["descriptors"].shape == (0, 128)
    black = extractor(models, objects="original").extract(np.zeros((40, 50, 3), np.uint8))
    assert len(black["scores"]) == 0


def test_half_precision_is_near(models: dict[str, Path]) -> None:
    image = draw_blobs(4)
    exact = extractor(models, num_features=0).extract(image)
    for kind in models:
        half = extractor(models, kind, num_features=0, precision="half").extract(image)
        assert half["scores"].dtype == np.float32
        by_place = {
            (*place, size): row
            for row, (place, size) in enumerate(zip(half["keypoints"].tolist(), half["sizes"], strict=True))
        }
        cosines = [
            float(exact["descriptors"][row] @ half["descriptors"][by_place[(*place, size)]])
            for row, (place, size) in enumerate(zip(exact["keypoints"].tolist(), exact["sizes"], strict=True))
        ]
        assert min(cosines) > 0.99


class Overflowing(torch.nn.Module):
    """An attention that gives no numbers in the first rows of the second image's map."""

    def __init__(self, attention: torch.nn.Module, rows: int) -> None:
        super().__init__()
        self.attention, self.rows = attention, rows

    def forward(self, layer3: Tensor) -> Tensor:
        scores: Tensor = self.attention(layer3)
        scores[1:2, :, : self.rows] = float("nan")
        return scores


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_features": 0},
        {"num_features": 1},
        {"nms_iou": 0.5},
        {"score_threshold": 0.01},
        {"score_percentile": 50.0},
        {"objects": "original"},
    ],
    ids=str,
)
def test_an_overflow_of_the_network_shows_in_its_image_alone(models: dict[str, Path], changes: dict[str, Any]) -> None:
    subject = extractor(models, scales=[1.0, 1.4142], **changes)
    images = [np.full((96, 96, 3), 50, np.uint8) | draw_blobs(seed) for seed in range(3)]
    plain = subject.extract_batch(images)
    network: Any = subject._network
    network.attention = Overflowing(network.attention, rows=1)
    found = subject.extract_batch(images)
    assert [bool(np.isfinite(features["scores"]).all()) for features in found] == [True, False, True]
    for number in (0, 2):
        assert_close(found[number], plain[number])


class Hungry(torch.nn.Module):
    """An attention that has memory for two images."""

    def __init__(self, attention: torch.nn.Module, most: int) -> None:
        super().__init__()
        self.attention, self.most = attention, most

    def forward(self, layer3: Tensor) -> Tensor:
        if len(layer3) > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes.")
        scores: Tensor = self.attention(layer3)
        return scores


def test_too_little_memory_halves_the_batch(models: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    images = [draw_blobs(seed, width=100, height=90) for seed in range(5)]
    expected = extractor(models).extract_batch(images)
    hungry = extractor(models)
    hungry._network.add_module("attention", Hungry(hungry._network.attention, 2))
    for found, wanted in zip(hungry.extract_batch(images), expected, strict=True):
        assert_close(found, wanted)
    assert "too much memory: taking half as many" in caplog.text
    hungry._network.add_module("attention", Hungry(hungry._network.attention, 0))
    with pytest.raises(InputError, match=r"an image of 100 x 90 pixels takes more memory than there is; allowed"):
        hungry.extract_batch(images)


def test_models_that_cannot_be_used(models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"no")
    with pytest.raises(InputError, match=r"features.model=.*none.pt: expected a path of a file that exists"):
        check(DELFFeatures, delf(tmp_path / "a.pt").model_dump() | {"model": str(tmp_path / "none.pt")}, "features.")
    with pytest.raises(InputError, match="cannot be read as plain tensors"):
        DELFExtractor(delf(tmp_path / "a.pt"), CPU)
    with pytest.raises(InputError, match=r"features.scales=\[\]: expected at least 1"):
        check(DELFFeatures, delf(tmp_path / "a.pt").model_dump() | {"scales": []}, "features.")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", ["checkpoint", "torchscript"])
def test_cuda_finds_the_same(models: dict[str, Path], kind: str) -> None:
    image = draw_blobs(5)
    assert_close(extractor(models, kind).extract(image), extractor(models, kind, device="cuda").extract(image))
