from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import pytest
from choices import CPU, sift
from conftest import draw_blobs

from minia.core.artifact import InputError
from minia.models.extractors.background import foreground_mask
from minia.models.extractors.base import Features, check_features
from minia.models.extractors.build import build_extractor
from minia.models.extractors.settings import SURFSettings
from minia.models.extractors.sift import SIFTExtractor


def test_feature_dict_has_the_promised_shapes_and_types() -> None:
    features = SIFTExtractor(sift()).extract(draw_blobs(0, width=120, height=80))
    number = len(features["scores"])
    assert number > 5
    assert features["keypoints"].shape == (number, 2)
    assert features["sizes"].shape == features["angles"].shape == (number,)
    assert features["descriptors"].shape == (number, 128)
    assert features["image_size"].tolist() == [120, 80]
    for name in ("keypoints", "sizes", "angles", "scores", "descriptors"):
        assert features[name].dtype == np.float32
    assert np.all(np.diff(features["scores"]) <= 0)


def test_keypoints_lie_on_the_centres_of_blobs() -> None:
    rows, columns = np.mgrid[:200, :200]
    image = np.zeros((200, 200))
    centres = [(50.0, 60.0), (120.25, 140.5), (150.5, 40.75)]
    for (x, y), sigma in zip(centres, (3, 5, 8), strict=True):
        image += 200 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    grey = np.clip(image, 0, 255).astype(np.uint8)
    found = SIFTExtractor(sift()).extract(np.repeat(grey[:, :, None], 3, axis=2))["keypoints"]
    for centre in centres:
        assert np.abs(found - centre).max(axis=1).min() < 0.15


def test_angles_turn_with_the_image_from_x_towards_y() -> None:
    image = draw_blobs(3, width=128, height=128)
    plain = SIFTExtractor(sift()).extract(image)
    turned = SIFTExtractor(sift()).extract(np.ascontiguousarray(np.rot90(image, -1)))
    there = np.stack([127 - plain["keypoints"][:, 1], plain["keypoints"][:, 0]], axis=1)
    off = np.linalg.norm(there[:, None] - turned["keypoints"], axis=2)
    change = np.abs((turned["angles"] - plain["angles"][:, None] - 90 + 180) % 360 - 180)
    alike = np.abs(np.log(turned["sizes"] / plain["sizes"][:, None])) < 0.05
    # The rounder a blob, the less it has a direction.
    assert ((off < 0.3) & (change < 3) & alike).any(axis=0).mean() > 0.7


def test_image_without_keypoints_is_legal() -> None:
    features = build_extractor(sift(objects="original"), CPU).extract(np.zeros((64, 64, 3), np.uint8))
    assert features["keypoints"].shape == (0, 2)
    assert features["descriptors"].shape == (0, 128)


def test_root_sift_is_of_unit_length_and_plain_sift_whole_numbers() -> None:
    image = draw_blobs(1)
    root = SIFTExtractor(sift()).extract(image)["descriptors"]
    plain_extractor = SIFTExtractor(sift(root_sift=False))
    plain = plain_extractor.extract(image)["descriptors"]
    assert np.allclose(np.linalg.norm(root, axis=1), 1, atol=1e-5)
    assert plain_extractor.descriptor_dtype == "uint8"
    assert np.array_equal(plain, plain.astype(np.uint8))
    assert np.allclose(root**2, plain / plain.sum(axis=1, keepdims=True), atol=1e-6)


def test_num_features_keeps_the_strongest() -> None:
    image = draw_blobs(2)
    everything = SIFTExtractor(sift()).extract(image)
    best = SIFTExtractor(sift(num_features=5)).extract(image)
    assert np.array_equal(best["scores"], everything["scores"][:5])


def test_background_mask_keeps_objects_only() -> None:
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:200, :200]
    image = generator.normal(4, 2, (200, 200)) + 150 * np.exp(-((columns - 60) ** 2 + (rows - 90) ** 2) / (2 * 12**2))
    image += 20 * (generator.random((200, 200)) > 0.99)  # single bright pixels: noise, not objects
    rgb = np.repeat(np.clip(image, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    mask = foreground_mask(rgb)
    assert mask[90, 60]
    assert not mask[10:40, 120:].any()
    masked = SIFTExtractor(sift(contrast_threshold=0.002, objects="original")).extract(rgb)["keypoints"]
    everything = SIFTExtractor(sift(contrast_threshold=0.002)).extract(rgb)["keypoints"]
    assert 0 < len(masked) < len(everything)
    assert np.hypot(masked[:, 0] - 60, masked[:, 1] - 90).max() < 60


def test_surf_says_in_one_line_that_it_is_missing() -> None:
    settings = SURFSettings(
        num_features=0, hessian_threshold=100.0, octaves=4, octave_layers=3, extended=False, upright=False,
        objects="none",
    )  # fmt: skip
    try:
        cv2.xfeatures2d.SURF.create(100)
    except (AttributeError, cv2.error):
        with pytest.raises(InputError, match="built without SURF"):
            build_extractor(settings, CPU)
    else:
        assert build_extractor(settings, CPU).extract(draw_blobs(0))["descriptors"].shape[1] == 64


@pytest.mark.parametrize(
    ("name", "array", "told"),
    [
        ("angles", None, "gave no angles"),
        ("sizes", np.zeros((2, 1), np.float32), r"gave sizes of shape \(2, 1\), float32; expected numbers of shape"),
        (
            "descriptors",
            np.zeros((2, 64), np.float32),
            r"gave descriptors of shape \(2, 64\), float32; expected numbers of shape \(2, 128\)",
        ),
        ("scores", np.array(["a", "b"]), r"gave scores of shape \(2,\), <U1"),
    ],
)
def test_what_does_not_keep_to_the_contract_is_told(name: str, array: np.ndarray | None, told: str) -> None:
    numbers = np.zeros(2, np.float32)
    found: dict[str, np.ndarray] = {"keypoints": np.zeros((2, 2)), "sizes": numbers, "angles": numbers}
    found |= {"scores": numbers, "descriptors": np.zeros((2, 128)), "image_size": np.array([9, 9])}
    extractor = SIFTExtractor(sift())
    check_features(cast(Features, found), extractor)
    changed = {key: value for key, value in found.items() if key != name}
    if array is not None:
        changed[name] = array
    with pytest.raises(InputError, match=f"the extractor SIFTExtractor {told}"):
        check_features(cast(Features, changed), extractor)
