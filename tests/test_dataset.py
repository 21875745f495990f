"""What the network is fed: decoding, caches, order and augmentation."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import draw_blobs
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader

from minia.core.artifact import InputError
from minia.data.files import UnreadableImageError
from minia.data.labelled.augmentation import augment, draw_numbers, validation_view
from minia.data.labelled.dataset import GalaxyDataset, Masks, PassSampler, Visit
from minia.data.labelled.decoding import decode_image
from minia.data.labelled.settings import Augmentation
from minia.data.labelled.table import GalaxyTable
from minia.data.reading import read_image
from minia.models.extractors.background import foreground_mask

SYMMETRY = Augmentation(
    image_size=32, view=0.5, rotate=True, flip=True, scale=1.2, shift=0.05, brightness=0.1, colour=0.05
)
ORIGINAL = Augmentation(
    image_size=32, crop_area=0.1, crop_aspect=4 / 3, move_probability=0.5, filter_probability=0.5, supersample=2
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path]:
    folder = tmp_path_factory.mktemp("blobs")
    names = [f"{number}.{suffix}" for number, suffix in zip(range(10), itertools.cycle(["jpg", "png"]), strict=False)]
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / name), draw_blobs(number, 80, 64))
    return pd.DataFrame({"path": names, "label": ["a", "b"] * 5}), folder


def dataset(table: tuple[pd.DataFrame, Path], **options: Any) -> GalaxyDataset:
    return GalaxyDataset(GalaxyTable(*table, ["a", "b"]), **({"side": 48, "seed": 3} | options))


def numbers(count: int, epoch: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.stack([draw_numbers(0, epoch, index) for index in range(count)]))


def test_decoding_equals_read_image(table: tuple[pd.DataFrame, Path], shared_data: Path) -> None:
    paths = [table[1] / name for name in table[0]["path"]] + sorted((shared_data / "gz2_images").rglob("*.jpg"))[:10]
    for path in paths:
        np.testing.assert_array_equal(decode_image(path), read_image(path))


def test_damaged_files_are_recognised(table: tuple[pd.DataFrame, Path], tmp_path: Path) -> None:
    for name in table[0]["path"][:2]:
        whole = (table[1] / name).read_bytes()
        for part in (b"", whole[: len(whole) // 2], b"text"):
            (tmp_path / name).write_bytes(part)
            with pytest.raises(UnreadableImageError):
                decode_image(tmp_path / name)
    with pytest.raises(UnreadableImageError, match=r"(?i)no such file"):
        decode_image(tmp_path / "none.jpg")
    with pytest.raises(InputError, match="could be read when the table was made"):
        dataset((table[0], tmp_path)).image(0)


def test_caches_and_workers_do_not_change_what_comes(table: tuple[pd.DataFrame, Path], tmp_path: Path) -> None:
    visits = [Visit(row, epoch) for epoch in range(2) for row in range(10)]
    plain = [dataset(table)[visit] for visit in visits]
    caches: list[dict[str, Any]] = [{"cache": "memory"}, {"cache": tmp_path / "cache.bin"}]
    for options in caches:
        cached = dataset(table, **options)
        for visit, expected in zip(visits, plain, strict=True):
            assert all(torch.equal(cached[visit][key], expected[key]) for key in expected)  # type: ignore[literal-required]
        assert cached._cache is not None
        assert not cached._cache.filled.is_shared()  # there are no workers to share it with
        passed_on = dataset(table, **options)
        loader = DataLoader(
            passed_on, sampler=visits, batch_size=5, num_workers=1, multiprocessing_context="forkserver"
        )  # fmt: skip
        for number, batch in enumerate(loader):
            expected_images = torch.stack([each["image"] for each in plain[5 * number : 5 * number + 5]])
            assert torch.equal(batch["image"], expected_images)
        assert passed_on._cache is not None
        assert passed_on._cache.filled.all()  # by the worker, seen here
        assert torch.equal(passed_on._cache.images, torch.stack([each["image"] for each in plain[:10]]))
    assert plain[0]["image"].shape == (3, 48, 48)
    assert torch.equal(plain[0]["image"], plain[10]["image"])
    assert not torch.equal(plain[0]["numbers"], plain[10]["numbers"])


def test_mask_is_the_fourth_channel(table: tuple[pd.DataFrame, Path]) -> None:
    image = dataset(table, masks=Masks(foreground_mask)).image(0)
    assert image.shape == (4, 48, 48)
    np.testing.assert_array_equal(
        image[3].numpy() > 0, foreground_mask(image[:3].permute(1, 2, 0).contiguous().numpy())
    )


def test_order_depends_on_seed_and_step_alone() -> None:
    def visits(per_check: int, seed: int, count: int = 30) -> list[Visit]:
        found: list[Visit] = []
        sampler = PassSampler(10, per_check, seed, lambda: len(found))
        while len(found) < count:
            found += list(sampler)
        return found[:count]

    assert visits(30, 0) == visits(4, 0) == visits(7, 0) != visits(30, 1)
    for epoch in range(3):
        part = visits(7, 0)[10 * epoch : 10 * epoch + 10]
        assert sorted(part) == [Visit(row, epoch) for row in range(10)]
    assert visits(7, 0)[:10] != [Visit(visit.row, 0) for visit in visits(7, 0)[10:20]]


def test_validation_sees_the_image_as_torch_resizes_it() -> None:
    images = torch.randint(0, 256, (2, 3, 60, 60), dtype=torch.uint8)
    expected = F.interpolate(images.float(), size=(32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(validation_view(images, Augmentation(image_size=32)), expected, atol=2e-3, rtol=0)
    middle = F.interpolate(images[:, :, 12:48, 12:48].float(), size=(36, 36), mode="bilinear", align_corners=False)
    torch.testing.assert_close(
        validation_view(images, Augmentation(image_size=36, view=0.6)), middle, atol=2e-3, rtol=0
    )


@pytest.mark.parametrize("augmentation", [SYMMETRY, ORIGINAL])
def test_an_image_is_augmented_the_same_in_any_batch(augmentation: Augmentation) -> None:
    images = torch.randint(0, 256, (6, 4, 48, 48), dtype=torch.uint8)
    together = augment(images, numbers(6), augmentation)
    assert together.shape == (6, 3, 32, 32)
    assert 0 <= together.min() <= together.max() <= 255
    for row in range(6):
        alone = augment(images[row : row + 1], numbers(6)[row : row + 1], augmentation)
        torch.testing.assert_close(alone[0], together[row], atol=1e-3, rtol=0)
    assert not torch.allclose(augment(images, numbers(6, epoch=1), augmentation), together)


def test_turning_keeps_a_round_galaxy_and_its_size() -> None:
    rows, columns = np.mgrid[:96, :96] - 47.5
    disk = torch.from_numpy(((rows**2 + columns**2) < 20**2).astype(np.uint8) * 200).repeat(64, 3, 1, 1)
    turned = augment(disk, numbers(64), Augmentation(image_size=96, rotate=True, flip=True))
    area = (turned[:, 0] > 100).sum(dim=(1, 2)).float()
    assert (area / (np.pi * 20**2) - 1).abs().max() < 0.03
    scaled = augment(disk, numbers(64), Augmentation(image_size=96, scale=1.5))
    area = (scaled[:, 0] > 100).sum(dim=(1, 2)).float() / (np.pi * 20**2)
    assert 1.5**-2 * 0.97 < area.min() < 0.7 < 1.4 < area.max() < 1.5**2 * 1.03


def test_crops_have_the_areas_asked_for() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).repeat(400, 3, 256, 1)
    columns = augment(ramp, numbers(400), Augmentation(image_size=64, crop_area=0.1, crop_aspect=4 / 3))
    columns_seen = (columns[:, 0, 0, -1] - columns[:, 0, 0, 0]) / 63 * 64 / 256
    ramp = ramp.transpose(2, 3).contiguous()
    rows = augment(ramp, numbers(400), Augmentation(image_size=64, crop_area=0.1, crop_aspect=4 / 3))
    rows_seen = (rows[:, 0, -1, 0] - rows[:, 0, 0, 0]) / 63 * 64 / 256
    area = columns_seen * rows_seen
    assert 0.08 < area.min() < 0.13 < 0.9 < area.max() < 1.01
    assert 0.45 < area.mean() < 0.6
    assert (columns_seen / rows_seen).log().abs().max() < np.log(4 / 3) + 0.05


def test_move_is_the_originals() -> None:
    """Translate by s/8 of the side, visit by s 30 degrees about the middle, flip with code s; black outside."""
    side = 64
    image = draw_blobs(5, side, side)
    for sign, coin in ((1, 0.9), (-1, 0.1)):
        shift = np.array([[1, 0, sign * side / 8], [0, 1, sign * side / 8]], np.float32)
        moved = cv2.warpAffine(image, shift, (side, side))
        middle = (side / 2 - 0.5, side / 2 - 0.5)
        moved = cv2.warpAffine(moved, cv2.getRotationMatrix2D(middle, sign * 30, 1.0), (side, side))
        moved = cv2.flip(moved, sign)
        drawn = torch.full((1, 13), 0.5)
        drawn[0, 11], drawn[0, 12] = 0.0, coin  # move, direction
        ours = augment(
            torch.from_numpy(image).permute(2, 0, 1)[None], drawn, Augmentation(image_size=side, move_probability=1.0)
        )
        inside = moved[:, :, 0] > 0
        difference = np.abs(ours[0, 0].numpy() - moved[:, :, 0])[inside]
        assert np.mean(difference) < 1.5, sign  # one interpolation against two


def test_filter_blackens_the_sky_alone() -> None:
    image = torch.full((40, 4, 32, 32), 100, dtype=torch.uint8)
    image[:, 3, :, :16] = 0
    filtered = augment(image, numbers(40), Augmentation(image_size=32, filter_probability=0.5))
    assert (filtered[:, :, :, 17:] > 99).all()
    assert set(filtered[:, 0, 0, 0].round().tolist()) == {0.0, 100.0}
    black = (filtered[:, :, :, :15].amax(dim=(1, 2, 3)) < 1e-3).float().mean()
    assert 0.25 < black < 0.75


def test_the_originals_copies_are_moved_and_filtered_together() -> None:
    """Half of the images are copies, which are both, and half are neither."""
    image = torch.full((200, 4, 32, 32), 100, dtype=torch.uint8)
    image[:, 3, 12:20, 12:20] = 0  # a hole of sky in the middle, which a move does not lose
    seen = augment(image, numbers(200), Augmentation(image_size=32, move_probability=0.5, filter_probability=0.5))
    filtered = seen[:, 0].amin(dim=(1, 2)) < 1e-3
    moved = (seen[:, 0, 0, :] < 1e-3).any(dim=1) | (seen[:, 0, -1, :] < 1e-3).any(dim=1)  # black from beyond the edge
    assert 0.4 < filtered.float().mean() < 0.6
    assert torch.equal(filtered, moved)
    alone = augment(image, numbers(200), Augmentation(image_size=32, filter_probability=0.5))
    assert torch.equal(alone[:, 0, 16, 16] < 1e-3, filtered)
    assert (alone[:, 0, 0] > 99).all()


def test_the_foreground_is_worked_out_where_it_is_used_alone(table: tuple[pd.DataFrame, Path], tmp_path: Path) -> None:
    seen: list[int] = []

    def foreground(image: np.ndarray) -> np.ndarray:
        seen.append(1)
        return foreground_mask(image)

    augmentation = Augmentation(image_size=32, filter_probability=0.4)
    visits = [Visit(row, epoch) for epoch in range(4) for row in range(10)]
    always, sparing = (dataset(table, masks=Masks(foreground, share)) for share in (1.0, 0.4))
    results, counts = [], []
    for subject in (always, sparing):
        seen.clear()
        items = [subject[visit] for visit in visits]
        images, drawn = (torch.stack([item[key] for item in items]) for key in ("image", "numbers"))
        results.append(augment(images, drawn, augmentation))
        counts.append(len(seen))
    assert counts[0] == 40
    assert 8 <= counts[1] <= 24
    assert torch.equal(*results)
    kept = dataset(table, masks=Masks(foreground, 0.4), cache=tmp_path / "cache.bin")
    seen.clear()
    for visit in visits:
        kept[visit]
    assert len(seen) == 10  # once for each image
