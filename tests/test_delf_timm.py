"""DELF on encoders of timm: the same maps, local weights, geometry, export, training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import TINY, Run, blobs_of_two_classes, train_here  # noqa: F401 - fixtures

from minia.core.artifact import InputError
from minia.models.delf.export import export_delf, load_exported
from minia.models.delf.local_features import LocalFeatures
from minia.models.delf.network import DELF
from minia.models.delf.timm_backbone import TimmBackbone, _offset
from minia.models.delf.weights import load_backbone_weights, load_checkpoint

timm = pytest.importorskip("timm")
NAMES = ("test_convnext", "test_efficientnet", "resnet18")


def network(name: str, **options: Any) -> DELF:
    torch.manual_seed(0)
    given: dict[str, Any] = {"stride_in_1x1": False, "block3_stride": False, "attention_channels": 16, **options}
    return DELF(f"timm:{name}", 2, **given).eval()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_weights_of_a_file_give_the_encoders_maps(tmp_path: Path, name: str, ending: str) -> None:
    torch.manual_seed(5)
    plain = timm.create_model(name, num_classes=7).eval()
    state = {f"encoder.{key}": value for key, value in plain.state_dict().items()}
    path = tmp_path / f"a.{ending}"
    if ending == "pth":
        torch.save({"state_dict": state}, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    subject = network(name)
    unused = load_backbone_weights(subject, str(path))
    assert unused and all(each.startswith(("fc", "head", "classifier")) for each in unused)
    images = torch.randn(1, 3, 96, 128)
    with torch.inference_mode():
        expected = plain.forward_intermediates(images, intermediates_only=True)[-2:]
        found = subject.backbone(images)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
    wanted = timm.get_pretrained_cfg(name)
    assert subject.mean.tolist() == pytest.approx([255 * each for each in wanted.mean])
    load_backbone_weights(subject, str(path), normalisation="unit")
    assert (subject.mean.tolist(), subject.std.tolist()) == ([0.0] * 3, [255.0] * 3)
    other = network("test_convnext2")
    with pytest.raises(InputError, match=f"{path} are of another network than test_convnext2: no fitting"):
        load_backbone_weights(other, str(path))


def test_measuring_the_window_draws_nothing_from_the_seed() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    _offset.cache_clear()
    torch.manual_seed(0)
    _offset("test_convnext")
    assert torch.equal(torch.rand(1), expected)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    subject = network("test_convnext")
    for ending, message in (
        ("safetensors", "cannot be read as safetensors"),
        ("pth", "cannot be read as plain tensors"),
    ):
        (tmp_path / f"a.{ending}").write_bytes(b"<html>")
        with pytest.raises(InputError, match=message):
            load_backbone_weights(subject, str(tmp_path / f"a.{ending}"))
    with pytest.raises(InputError, match="expected none or a file that exists"):
        load_backbone_weights(subject, "imagenet")


@pytest.mark.parametrize(("name", "offset"), [("test_convnext", 7.5), ("resnet18", 0.0), ("test_efficientnet", 0.0)])
@pytest.mark.parametrize("block3_stride", [False, True])
def test_the_centre_of_a_cell_is_what_its_kernels_say(name: str, offset: float, block3_stride: bool) -> None:
    """A stem of patches of 4 and steps of 2 without padding: cell 0 sees pixels 0 to 15; else padding is symmetric."""
    size, stride, padding = TimmBackbone(name, block3_stride=block3_stride).window
    assert stride == (32 if block3_stride else 16)
    assert (size - 1) / 2 - padding == offset
    assert size in (4 * stride, 4 * stride + 1)


@pytest.mark.parametrize("name", NAMES)
def test_the_exported_file_is_the_same(tmp_path: Path, name: str) -> None:
    subject = network(name)
    local = LocalFeatures(subject)
    images = torch.randint(0, 256, (1, 3, 90, 130), dtype=torch.uint8)
    with torch.inference_mode():
        attention, descriptors = subject.local_features(subject.normalise(images))
        for found in (local(images, None, [1.0], 0, 0.0, 0.0, 1.0),
                      load_exported(export_delf(subject, tmp_path / "a.pt", classes=["a"], config={}))[0](
                          images, None, [1.0], 0, 0.0, 0.0, 1.0)):  # fmt: skip
            assert found.scores.shape[1] == attention.numel()
            torch.testing.assert_close(
                found.scores[0], attention.flatten().sort(descending=True)[0], rtol=1e-4, atol=1e-5
            )
            assert found.descriptors.shape[1:] == (attention.numel(), descriptors.shape[1])


@pytest.mark.parametrize("name", ["test_vit", "maxvit_tiny_rw_224"])
def test_encoders_without_such_maps_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"model.name={name}: has no maps of 16 and 32 pixels for images of any size"):
        network(name)


def test_a_training_on_an_encoder_of_timm(
    run: Run, tmp_path: Path, blobs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (*TINY, f"data.dir={blobs}", "model=timm", "model.attention_channels=16", "trainer.max_steps=2")
    assert run(*given, "model.name=test_convnex") == 2
    assert "error: model.name=test_convnex: timm has no such encoder; near: test_convnext" in capsys.readouterr().err
    torch.save(timm.create_model("test_convnext").state_dict(), tmp_path / "a.pth")
    assert run(*given, "model.name=test_convnext", f"model.weights={tmp_path / 'a.pth'}", "export=[pt,pt2]") == 0
    assert load_exported(tmp_path / "run" / "model.pt")[1]["network"]["backbone"] == "timm:test_convnext"
    trained, parameters = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert isinstance(trained.backbone, TimmBackbone)
    assert parameters["classes"] == ["few", "many"]
