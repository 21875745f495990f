"""The exported files find the keypoints of the features stage, mask and percentile included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from choices import CPU, delf
from conftest import draw_blobs
from test_delf import small_network

from minia.models.delf.export import ExtractionDefaults, export_delf
from minia.models.extractors.base import Features
from minia.models.extractors.delf import DELFExtractor
from minia.models.extractors.objects import find_objects

SCALES = [0.5, 1.0, 1.4142]
SIZES = [(160, 160), (190, 140)]  # width and height
LIMITS = {"num_features": 12, "score_percentile": 85.0, "scales": SCALES}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, network = tmp_path_factory.mktemp("models"), small_network(block3_stride=False)
    defaults = ExtractionDefaults(SCALES, max_features=12, score_percentile=85.0)
    endings = ("pt", "pt2", "onnx") if _has_onnx() else ("pt", "pt2")
    return {
        ending: export_delf(network, folder / f"a.{ending}", classes=["a"], config={}, defaults=defaults)
        for ending in endings
    }


def _has_onnx() -> bool:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        return False
    return True


def staged(models: dict[str, Path], width: int, height: int) -> tuple[np.ndarray, np.ndarray, Features]:
    """An image, the mask that the stage takes by its default, and what the stage finds."""
    image = draw_blobs(3, width, height, num_blobs=8)
    settings = delf(models["pt"], **LIMITS, objects="original")
    mask = find_objects(image, settings.objects).mask
    assert 0 < mask.mean() < 1
    return image, mask, DELFExtractor(settings, CPU).extract(image)


def assert_same(found: dict[str, torch.Tensor], expected: Features) -> None:
    order = np.lexsort((found["keypoints"][:, 0], found["keypoints"][:, 1], -found["scores"]))
    assert 2 < len(order) == len(expected["scores"]) < 12  # the percentile decides, not the limit
    for name in ("keypoints", "scores", "descriptors"):
        ours = found[name].numpy()[order]
        np.testing.assert_allclose(ours, expected[name], atol=1e-4)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_torchscript_finds_what_the_stage_finds(models: dict[str, Path], width: int, height: int) -> None:
    image, mask, expected = staged(models, width, height)
    with pytest.warns(FutureWarning, match=r"torch.jit.load"):
        model = torch.jit.load(str(models["pt"]))
    given = torch.from_numpy(image), SCALES, 12, 0.0, 1.0
    assert_same(model(*given, 85.0, torch.from_numpy(mask)), expected)
    everywhere = model(*given, 85.0)
    assert not np.isin(everywhere["scores"].numpy(), expected["scores"]).all()  # the mask counts
    assert len(model(*given)["scores"]) == 12
    with pytest.raises(torch.jit.Error, match="expected masks of bool, as high and wide as the images"):
        model(*given, 0.0, torch.from_numpy(mask[1:]))


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_fixed_files_find_what_the_stage_finds(models: dict[str, Path], ending: str, width: int, height: int) -> None:
    if ending not in models:
        pytest.skip("no onnx")
    image, mask, expected = staged(models, width, height)
    images, masks = torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(mask)[None]
    if ending == "pt2":
        boxes, keypoints, descriptors, scales, scores = torch.export.load(models[ending]).module()(images, masks)
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(models[ending]))
        given = {"images": images.numpy(), "masks": masks.numpy()}
        boxes, keypoints, descriptors, scales, scores = map(torch.from_numpy, session.run(None, given))
    good = scores[0] >= 0
    found = {"keypoints": keypoints[0][good], "descriptors": descriptors[0][good], "scores": scores[0][good]}
    assert_same(found, expected)
    assert boxes.shape[1:] == (12, 4)
    assert set(scales.flatten().tolist()) <= {2.0, 1.0, float(np.float32(1 / 1.4142))} | set(
        scales[~(scores >= 0)].tolist()
    )
