"""The extractor of networks from elsewhere, with random weights in files."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from choices import CPU
from conftest import draw_blobs, write_images
from kornia.feature import ALIKED, DISK, HardNet, KeyNet
from kornia.feature.xfeat import XFeat
from test_features import folder_images
from torch import Tensor

import minia
from minia.core.artifact import InputError, read_manifest
from minia.core.checksums import fingerprint_file
from minia.core.context import Context
from minia.mining.features.settings import PretrainedFeatures
from minia.mining.features.stage import extract_features
from minia.mining.features.store import FeatureStore
from minia.models.extractors.base import Features, check_features
from minia.models.extractors.pretrained import PretrainedExtractor, gradient_angles
from minia.models.extractors.pretrained_networks import Found, Network

NETWORKS = ("disk", "aliked-n16", "aliked-n16rot", "aliked-n32", "aliked-t16", "xfeat", "keynet-hardnet")


@pytest.fixture(autouse=True)
def _nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **named: Any) -> None:
        raise AssertionError("something is being fetched")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files as the networks' authors give them: some wrap their weights."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    torch.save({"extractor": DISK().state_dict()}, folder / "disk.pth")
    for name in ("n16", "n16rot", "n32", "t16"):
        torch.save(ALIKED(f"aliked-{name}").state_dict(), folder / f"aliked-{name}.pth")
    torch.save(XFeat().net.state_dict(), folder / "xfeat.pth")
    torch.save({"state_dict": KeyNet(pretrained=False).state_dict()}, folder / "keynet-hardnet.pth")
    torch.save({"state_dict": HardNet(pretrained=False).state_dict()}, folder / "hardnet.pth")
    return folder


def settings(folder: Path, name: str, **changes: Any) -> PretrainedFeatures:
    values: dict[str, Any] = {
        "network": name, "weights": folder / f"{name}.pth", "descriptor_weights": None, "scales": [1.0, 0.5],
        "score_threshold": 1e-4 if name == "xfeat" else None, "batch_size": 2, "num_features": 40, "objects": "none",
    }  # fmt: skip
    if name == "keynet-hardnet":
        values["descriptor_weights"] = folder / "hardnet.pth"
    return PretrainedFeatures(**values | changes)


def extractor(folder: Path, name: str, **changes: Any) -> PretrainedExtractor:
    return PretrainedExtractor(settings(folder, name, **changes), CPU)


def image_of(seed: int, width: int = 150, height: int = 110) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 20, (height, width, 1))
    return np.clip(draw_blobs(seed, width, height, 14) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_keeps_to_the_contract(weights: Path, name: str, one_thread: None) -> None:
    found, images = extractor(weights, name), [image_of(1), image_of(2)]
    single = [found.extract(image) for image in images]
    batch = found.extract_batch(images)
    for features, again in zip(single, batch, strict=True):
        check_features(features, found)
        assert len(features["scores"]) == 40
        assert features["image_size"].tolist() == [150, 110]
        assert (np.diff(features["scores"]) <= 0).all()
        assert ((features["angles"] >= 0) & (features["angles"] < 360)).all()
        assert (features["sizes"] > 1).all()
        assert ((features["keypoints"] > -1) & (features["keypoints"] < [150, 110])).all()
        assert np.isfinite(features["descriptors"]).all()
        assert np.allclose(np.linalg.norm(features["descriptors"], axis=1), 1, atol=1e-3)
        assert np.allclose(np.sort(again["scores"]), np.sort(features["scores"]), rtol=1e-4)


def test_images_without_anything_have_no_keypoints(weights: Path, one_thread: None) -> None:
    features = extractor(weights, "xfeat", score_threshold=1.0).extract(image_of(3))
    assert features["keypoints"].shape == (0, 2)
    assert features["descriptors"].shape == (0, 64)
    assert features["angles"].shape == (0,)
    flat = extractor(weights, "keynet-hardnet", score_threshold=1e6).extract(image_of(3))
    assert flat["descriptors"].shape == (0, 128)


class Brightest(Network):
    """Finds the brightest pixel."""

    descriptor_size = 4

    def detect(self, images: Tensor, masks: Tensor | None) -> list[Found]:
        """The brightest pixel of each image."""
        found = []
        for image in images.sum(dim=1):
            place = int(image.argmax())
            at = torch.tensor([[float(place % image.shape[1]), float(place // image.shape[1])]])
            found.append(Found(at, torch.ones(1), torch.ones(1, 4) / 2, torch.full([1], 10.0)))
        return found


def test_places_and_sizes_are_those_of_the_image_at_every_scale(weights: Path, one_thread: None) -> None:
    image = np.zeros((192, 320, 3), np.uint8)
    image[40:48, 100:108] = 255  # its middle is at 103.5, 43.5
    found = extractor(weights, "disk", scales=[1.0, 0.25, 0.125])
    found._network, found.descriptor_size = Brightest(), 4
    features = found.extract(image)
    by_size = {float(size): place for size, place in zip(features["sizes"], features["keypoints"], strict=True)}
    assert sorted(by_size) == pytest.approx([10, 40, 10 * np.sqrt(192 / 32 * 320 / 40)])  # 32 pixels are the least
    assert by_size[10].tolist() == [100, 40]
    assert np.abs(by_size[40] - [103.5, 43.5]).max() <= 2
    assert float(features["angles"].max()) > 45 or float(features["angles"].max()) == 0


def test_the_objects_hold_all_keypoints(weights: Path, one_thread: None) -> None:
    image = np.full((128, 128, 3), 3, np.uint8)
    image[40:90, 40:90] = image_of(4, 50, 50) // 2 + 100
    for name in ("disk", "keynet-hardnet"):
        features = extractor(weights, name, objects="central", scales=[1.0]).extract(image)
        assert len(features["scores"])
        assert ((features["keypoints"] > 30) & (features["keypoints"] < 100)).all()


@pytest.mark.parametrize("name", ["disk", "keynet-hardnet"])
def test_angles_turn_with_the_image(weights: Path, name: str, one_thread: None) -> None:
    """A line of rising grey: the angle is that of the rise."""
    rows, columns = np.mgrid[:120, :120]
    for angle in (0, 45, 90, 200):
        rise = np.cos(np.deg2rad(angle)) * columns + np.sin(np.deg2rad(angle)) * rows
        noise = np.random.default_rng(0).normal(0, 3, rise.shape)
        image = np.repeat(np.clip(128 + 0.8 * (rise - rise.mean()) + noise, 0, 255).astype(np.uint8)[:, :, None], 3, 2)
        features: Features = extractor(weights, name, scales=[1.0]).extract(image)
        if name == "disk":  # windows of 12 pixels in noise: most of them
            features["sizes"][:] = 40
            features["angles"] = gradient_angles(image, features["keypoints"], features["sizes"])
        off = np.abs((features["angles"] - angle + 180) % 360 - 180)
        assert np.median(off) < 10


def test_the_weights_decide_the_artifact(weights: Path, tmp_path: Path, one_thread: None) -> None:
    folder = write_images(tmp_path / "images", 4)
    images = folder_images(tmp_path / "store", folder)
    chosen = settings(weights, "xfeat")
    artifact = extract_features(images, tmp_path / "store", chosen, CPU)
    manifest = read_manifest(artifact)
    assert manifest["inputs"]["weights"] == fingerprint_file(weights / "xfeat.pth")
    assert manifest["parameters"]["device"] == "cpu"
    assert "weights" not in manifest["parameters"]
    store = FeatureStore.load(artifact)
    store.check()
    assert store.num_keypoints == 4 * 40
    moved = tmp_path / "moved.pth"
    moved.write_bytes((weights / "xfeat.pth").read_bytes())
    assert extract_features(images, tmp_path / "store", settings(weights, "xfeat", weights=moved), CPU) == artifact


@pytest.mark.parametrize("name", ["xfeat", "keynet-hardnet"])
def test_threads_do_not_matter(weights: Path, tmp_path: Path, name: str) -> None:
    folder = write_images(tmp_path / "images", 20)
    artifacts = []
    for workers in (1, 2):
        store = tmp_path / f"store{workers}"
        context = Context(0, "cpu", workers)
        artifacts.append(extract_features(folder_images(store, folder), store, settings(weights, name), context))
    first, second = (FeatureStore.load(artifact) for artifact in artifacts)
    for array in ("keypoints", "angles", "descriptors"):
        assert np.array_equal(first.shard(0, array), second.shard(0, array))


def test_a_run_is_mined_and_asked(weights: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", 8)
    features = {
        "kind": "pretrained", "network": "keynet-hardnet", "weights": str(weights / "keynet-hardnet.pth"),
        "descriptor_weights": str(weights / "hardnet.pth"), "objects": "none", "num_features": 30,
    }  # fmt: skip
    few = {"vocabulary": {"size": 12}, "mining": {"linkage": "single", "num_tuples": 50}, "report": {"num_shuffles": 2}}
    run = minia.mine(
        "folder", dir=folder, output=tmp_path / "run", features=features, num_workers=1, arrangement="none",
        device="cpu", **few,
    )  # fmt: skip
    answer = run.query("image000.png", num_workers=1)
    assert answer.similar["similar"].iat[0] == "image000.png"


class Harmful:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["HARM"],)


def test_files_that_are_no_weights_end_in_one_line(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    torch.save({"state_dict": Harmful()}, tmp_path / "harmful.pth")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "dot.pth").write_bytes(b".")
    torch.save({"extractor": [1, 2]}, tmp_path / "list.pth")
    for file in ("harmful", "text", "empty", "dot", "list"):
        with pytest.raises(InputError, match=r"features\.weights=.*expected a file of tensors alone") as told:
            extractor(weights, "disk", weights=tmp_path / f"{file}.pth")
        assert "\n" not in str(told.value)
    assert not (tmp_path / "harm").exists()
    with pytest.raises(InputError, match="no weights of disk: lacks unet"):
        extractor(weights, "disk", weights=weights / "xfeat.pth")
    with pytest.raises(InputError, match="no weights of aliked-n32: lacks"):
        extractor(weights, "aliked-n32", weights=weights / "aliked-n16.pth")
    with pytest.raises(InputError, match=r"features\.descriptor_weights=.*no weights of keynet-hardnet"):
        extractor(weights, "keynet-hardnet", descriptor_weights=weights / "xfeat.pth")
    with pytest.raises(InputError, match="expected the file of HardNet's weights"):
        extractor(weights, "keynet-hardnet", descriptor_weights=None)
    with pytest.raises(InputError, match=r"features\.network=disk has none"):
        extractor(weights, "disk", descriptor_weights=weights / "hardnet.pth")
