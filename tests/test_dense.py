from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from choices import CPU, dense

from minia.data.reading import read_image
from minia.models.extractors.build import build_extractor
from minia.models.extractors.dense_grid import Fovea


def draw_galaxy(turn: float = 0.0, side: int = 256, mirror: bool = False) -> np.ndarray:
    """A barred, two-armed, inclined galaxy with a companion, turned by degrees from x to y, (side, side, 3) uint8."""
    rows, columns = (np.mgrid[:side, :side] - (side - 1) / 2) / (side / 256)
    angle = np.radians(turn)
    x, y = np.cos(angle) * columns + np.sin(angle) * rows, -np.sin(angle) * columns + np.cos(angle) * rows
    if mirror:
        y = -y
    radius = np.hypot(x, y / 0.6) + 1e-6
    arms = np.cos(2 * (np.arctan2(y / 0.6, x) - 0.04 * radius)) ** 4
    light = 160 * np.exp(-((radius / 8) ** 2)) + 110 * np.exp(-radius / 22) * (0.3 + arms * (radius > 20))
    light += 90 * np.exp(-((x - 26) ** 2 + (y - 12) ** 2) / 18) + 50 * np.exp(-((x / 18) ** 2) - (y / 4) ** 2)
    return np.repeat(np.clip(light + 4, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def extract(image: np.ndarray, **changed: Any) -> Any:
    return build_extractor(dense(**changed), CPU).extract(image)


def test_feature_dict_has_the_promised_shapes_and_types() -> None:
    image = draw_galaxy()[:, :240]
    features = extract(image)
    number = len(features["scores"])
    assert 1000 < number <= 1500
    assert features["keypoints"].shape == (number, 2)
    assert features["descriptors"].shape == (number, 64)
    assert extract(image, mirrored=False)["descriptors"].shape == (number, 128)
    assert features["image_size"].tolist() == [240, 256]
    for name in ("keypoints", "sizes", "angles", "scores", "descriptors"):
        assert features[name].dtype == np.float32
    assert np.all(np.diff(features["scores"]) <= 0)
    assert ((features["angles"] >= 0) & (features["angles"] < 360)).all()
    assert np.array_equal(features["descriptors"], features["descriptors"].astype(np.uint8))
    assert np.allclose(np.linalg.norm(features["descriptors"], axis=1), 512, rtol=0.02)
    again = extract(image)
    assert all(np.array_equal(features[name], again[name]) for name in features)


def test_number_is_kept_by_wider_grids() -> None:
    everything, few = extract(draw_galaxy(), num_features=0), extract(draw_galaxy(), num_features=200)
    assert len(everything["scores"]) > 1500
    assert 150 < len(few["scores"]) <= 200
    assert len(np.unique(few["sizes"])) == 3


def test_fovea_draws_the_grid_together_about_the_middle_and_keeps_the_number() -> None:
    image = draw_galaxy()
    even, drawn = (extract(image, num_features=900, fovea=fovea) for fovea in (0.0, 0.85))
    assert abs(len(drawn["scores"]) - len(even["scores"])) < 0.1 * len(even["scores"])
    for size in np.unique(even["sizes"]):
        near = [
            np.count_nonzero(np.hypot(*(each["keypoints"][each["sizes"] == size] - 127.5).T) < 6)
            for each in (even, drawn)
        ]
        assert near[1] > 5 * near[0] > 0
    # the nearest neighbour of a place is 0.15 times as far in the middle, and as far as on an even grid at the radius
    fovea = Fovea(0.85, 40.0)
    assert fovea.drawn(np.zeros(1)) == pytest.approx(0.15)
    assert fovea.drawn(np.array([40.0])) == pytest.approx(1)
    before = np.array([3.0, 25.0, 80.0])
    assert fovea.spread(before * fovea.drawn(before)) == pytest.approx(before)


def test_fovea_has_places_as_its_closeness_says() -> None:
    fovea, line = Fovea(0.7, 30.0), np.arange(-60, 60.5, 0.5)
    x, y = (each.ravel() for each in np.meshgrid(line, line))
    distance = np.hypot(x, y)
    after = distance * fovea.drawn(distance)
    for inner, outer in ((0.0, 3.0), (10.0, 12.0), (28.0, 32.0)):
        places = np.count_nonzero((after >= inner) & (after < outer)) * 0.25
        rings = np.linspace(inner, outer, 200)
        expected = np.trapezoid(2 * np.pi * rings * fovea.closeness(rings), rings)
        assert places == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("objects", ["none", "all"])
def test_fovea_needs_the_central_object(objects: str) -> None:
    even, drawn = (extract(draw_galaxy(), objects=objects, fovea=fovea) for fovea in (0.0, 0.85))
    assert np.array_equal(even["keypoints"], drawn["keypoints"])


@pytest.mark.parametrize("objects", ["none", "central", "all", "original"])
def test_no_window_looks_past_the_image(objects: str) -> None:
    image = draw_galaxy()[60:200, 40:200]  # cuts the galaxy
    features = extract(image, objects=objects, num_features=0)
    reach = features["sizes"] * 0.65
    x, y = features["keypoints"].T
    height, width = image.shape[:2]
    assert len(x) > 100
    assert (x - reach > -0.5).all() and (x + reach < width - 0.5).all()
    assert (y - reach > -0.5).all() and (y + reach < height - 0.5).all()


def turned(points: np.ndarray, turn: float, side: int) -> np.ndarray:
    angle, middle = np.radians(turn), (side - 1) / 2
    x, y = (points - middle).T
    return np.stack([np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y], axis=1) + middle


@pytest.mark.parametrize("turn", [0, 15, 45, 77, 90, 133, 180, 201, 270, 310, 345, 360])
def test_turned_image_turns_keypoints_and_leaves_descriptors(turn: float) -> None:
    check_turn(lambda degrees: draw_galaxy(degrees), turn, 256)


def test_fovea_turns_with_the_image() -> None:
    check_turn(draw_galaxy, 37.0, 256, fovea=0.85)


def spread(descriptors: np.ndarray, number: int) -> np.ndarray:
    """A vocabulary: each word the descriptor that is farthest from those before."""
    words = descriptors[:1]
    for _ in range(number - 1):
        far = np.linalg.norm(descriptors[:, None] - words, axis=2).min(axis=1)
        words = np.concatenate([words, descriptors[far.argmax()][None]])
    return words


def check_turn(
    draw: Callable[[float], np.ndarray], turn: float, side: int, share: float = 0.8, fovea: float = 0.0
) -> None:
    upright, image = (extract(draw(each), num_features=400, fovea=fovea) for each in (0.0, turn))
    expected = turned(upright["keypoints"], turn, side)
    far = np.linalg.norm(expected[:, None] - image["keypoints"], axis=2)
    far[upright["sizes"][:, None] != image["sizes"]] = np.inf
    same = far.argmin(axis=1)
    near = far.min(axis=1) < 3
    assert near.mean() > share
    change = np.linalg.norm(upright["descriptors"][near] - image["descriptors"][same[near]], axis=1) / 512
    other = np.linalg.norm(upright["descriptors"][near] - image["descriptors"][np.roll(same, 7)[near]], axis=1) / 512
    assert np.median(change) < 0.3 * np.median(other)
    angles = (image["angles"][same[near]] - upright["angles"][near] - turn + 180) % 360 - 180
    assert np.median(np.abs(angles)) < 5
    words = spread(upright["descriptors"], 20)
    word = [
        np.linalg.norm(each[:, None] - words, axis=2).argmin(axis=1)
        for each in (upright["descriptors"][near], image["descriptors"][same[near]])
    ]
    assert (word[0] == word[1]).mean() > 0.85


def test_mirror_images_are_described_alike_where_asked() -> None:
    image = draw_galaxy()
    flipped = np.ascontiguousarray(image[:, ::-1])
    changes = []
    for mirrored in (True, False):
        one, other = (
            extract(each, objects="none", mirrored=mirrored, num_features=0, step=0.2) for each in (image, flipped)
        )
        far = np.linalg.norm(one["keypoints"][:, None] * [-1, 1] + [255, 0] - other["keypoints"], axis=2)
        far[one["sizes"][:, None] != other["sizes"]] = np.inf
        assert far.min(axis=1).max() < 0.01
        changes.append(np.linalg.norm(one["descriptors"] - other["descriptors"][far.argmin(axis=1)], axis=1) / 512)
    assert np.median(changes[0]) < 0.05
    assert np.median(changes[1]) > 0.3


@pytest.mark.parametrize("side", [16, 40, 88])
def test_small_stamps_need_no_key(side: int) -> None:
    assert len(extract(draw_galaxy(side=side))["scores"]) > (20 if side > 16 else 0)


def test_images_without_anything_are_legal() -> None:
    for shape in ((1, 1), (3, 200), (64, 64)):
        features = extract(np.full((*shape, 3), 9, np.uint8))
        assert features["keypoints"].shape == (0, 2)
        assert features["descriptors"].shape == (0, 64)


@pytest.mark.shared_data
def test_real_galaxies_lie_where_their_keypoints_are(shared_data: Path) -> None:
    for path in sorted((shared_data / "galaxies").glob("*/*.jpg"))[::400]:
        features = extract(read_image(path))
        assert 300 < len(features["scores"]) <= 1500
        assert np.abs(np.median(features["keypoints"], axis=0) - 211.5).max() < 40
