from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from choices import CPU, dense, folder, sift
from conftest import draw_blobs
from test_dense import draw_galaxy

from minia.data.images import list_folder
from minia.data.reading import read_image
from minia.mining.features.auto import settle
from minia.mining.features.settings import AutoFeatures
from minia.models.extractors.background import foreground_mask
from minia.models.extractors.choose import choose_features
from minia.models.extractors.objects import find_objects


def draw_sky(side: int = 200, level: float = 6.0, noise: float = 2.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(level, noise, (side, side))


def add(sky: np.ndarray, x: float, y: float, sigma: float, light: float, stretch: float = 1.0) -> None:
    rows, columns = np.mgrid[: sky.shape[0], : sky.shape[1]]
    sky += light * np.exp(-(((columns - x) / stretch) ** 2 + (rows - y) ** 2) / (2 * sigma**2))


def as_image(grey: np.ndarray) -> np.ndarray:
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def test_central_object_without_its_neighbours() -> None:
    sky = draw_sky()
    add(sky, 104, 98, 12, 120, stretch=1.8)
    add(sky, 158, 104, 8, 150)  # overlaps it
    add(sky, 30, 30, 5, 200)
    found = find_objects(as_image(sky), "central")
    assert found.found
    assert np.hypot(found.centre[0] - 104, found.centre[1] - 98) < 4
    assert found.angle < 12 or found.angle > 168
    assert 0.2 < found.elongation < 0.6
    assert 15 < found.radius < 45
    assert found.mask[98, 104] and found.mask[98, 124]
    assert not found.mask[104, 160] and not found.mask[30, 30] and not found.mask[170, 40]
    everything = find_objects(as_image(sky), "all")
    assert everything.mask[104, 160] and everything.mask[30, 30] and everything.mask[98, 104]
    assert not everything.mask[170, 40]
    assert everything.centre == (99.5, 99.5)


@pytest.mark.parametrize("level", [0.0, 6.0, 35.0])
def test_sky_and_noise_come_from_the_image(level: float) -> None:
    sky = draw_sky(level=level, noise=3.0)
    add(sky, 100, 100, 14, 100)
    found = find_objects(as_image(sky), "central")
    assert abs(found.sky - level) < 2
    assert 0.8 <= found.noise < 4
    assert 0.02 < found.mask.mean() < 0.2


@pytest.mark.parametrize("side", [40, 88, 424])
def test_an_object_may_fill_the_image(side: int) -> None:
    sky = draw_sky(side, level=15, noise=4)
    add(sky, side / 2, side / 2, side / 5, 180)
    found = find_objects(as_image(sky), "central")
    assert found.found
    assert 0.3 < found.mask.mean() < 0.95
    assert found.mask[side // 2, side // 2]


def test_where_nothing_is_found_all_is_left_in() -> None:
    generator = np.random.default_rng(0)
    for image in (np.zeros((64, 64, 3), np.uint8), np.full((50, 80, 3), 255, np.uint8), np.zeros((1, 1, 3), np.uint8)):
        for choice in ("central", "all", "none"):
            found = find_objects(image, choice)
            assert not found.found and found.mask.all() and found.mask.shape == image.shape[:2]
    for side in (16, 17, 90, 300):  # whatever an image shows, there is an answer
        noise = generator.integers(0, 256, (side, side + 5, 3)).astype(np.uint8)
        sparse = ((generator.random((side, side + 5, 3)) < 0.01) * 255).astype(np.uint8)
        for image in (noise, sparse):
            assert find_objects(image, "central").mask.shape == (side, side + 5)
            assert find_objects(image, "all").mask.any()


def test_original_is_the_fixed_grey_level() -> None:
    image = draw_blobs(3)
    assert np.array_equal(find_objects(image, "original").mask, foreground_mask(image))
    assert not find_objects(np.zeros((64, 64, 3), np.uint8), "original").mask.any()


def test_a_turned_image_turns_the_object() -> None:
    image = draw_galaxy()
    upright, turned = find_objects(image, "central"), find_objects(np.ascontiguousarray(np.rot90(image)), "central")
    assert (np.rot90(upright.mask) == turned.mask).mean() > 0.99
    assert abs((turned.angle - upright.angle) % 180 - 90) < 2
    assert turned.radius == pytest.approx(upright.radius, rel=0.02)


def test_features_are_chosen_by_what_the_images_show() -> None:
    galaxies = [draw_galaxy(turn) for turn in range(0, 100, 10)]
    choice = choose_features(galaxies)
    assert (choice.kind, choice.objects) == ("dense", "central")
    assert "10 show a single object" in choice.reason
    fields = []
    for seed in range(10):
        generator, sky = np.random.default_rng(seed), draw_sky(seed=seed)
        for _ in range(30):
            x, y = generator.uniform(0, 200, 2)
            add(sky, x, y, generator.uniform(1.5, 4), generator.uniform(30, 200))
        fields.append(as_image(sky))
    choice = choose_features(fields)
    assert (choice.kind, choice.objects) == ("sift", "all")
    generator = np.random.default_rng(0)
    textures = [
        (cv2.resize(generator.random((20, 20, 3)).astype(np.float32), (200, 200)) * 255).astype(np.uint8)
        for _ in range(10)
    ]
    choice = choose_features(textures)
    assert (choice.kind, choice.objects) == ("sift", "none")
    assert choose_features([*galaxies[:5], *textures]).kind == "sift"
    assert choose_features([]).kind == "sift"
    assert choose_features([np.zeros((3, 5, 3), np.uint8)]).kind == "sift"


def test_auto_takes_the_settings_of_what_it_chooses(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for turn in range(6):
        cv2.imwrite(str(tmp_path / "images" / f"{turn}.png"), draw_galaxy(10 * turn))
    images = list_folder(tmp_path / "store", folder(tmp_path / "images"), 1)
    settings = AutoFeatures(sample_images=4, objects=None, dense=dense(step=0.1, objects="none"), sift=sift())
    assert settle(settings, images, CPU) == dense(step=0.1, objects="central")
    overridden = settings.model_copy(update={"objects": "all"})
    assert settle(overridden, images, CPU) == dense(step=0.1, objects="all")


@pytest.mark.shared_data
@pytest.mark.parametrize("files", ["galaxies/*/*.jpg", "efigi/images/*.jpg", "gz_examples/images/*.jpg"])
def test_galaxies_get_dense_features_on_their_middle(shared_data: Path, files: str) -> None:
    paths = sorted(shared_data.glob(files))
    images = [read_image(path) for path in paths[:: len(paths) // 40]]
    assert choose_features(images)[:2] == ("dense", "central")
    shares = [find_objects(image, "central").mask.mean() for image in images]
    assert np.percentile(shares, 5) > 0.005 and np.percentile(shares, 95) < 0.75
