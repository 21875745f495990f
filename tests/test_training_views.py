"""Training without labels: which cells match, what the losses say, and a training that learns."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from choices import CPU, delf
from conftest import draw_blobs
from test_train import (  # noqa: F401 - a fixture
    TINY,
    Run,
    assert_same_training,
    compose,
    last_checkpoint,
    the_error,
    train_here,
)

from minia.core.artifact import InputError
from minia.core.setting_types import check
from minia.data.labelled import augmentation
from minia.data.labelled.augmentation import augment, draw_numbers, view_matrices
from minia.data.labelled.settings import Augmentation
from minia.data.labelled.sources import labelled_table
from minia.data.labelled.table import GalaxyTable
from minia.models.delf.backbone import Window
from minia.models.delf.network import DELF
from minia.models.delf.views import Comparison, Matches, contrast, match_cells, nearest, vicreg
from minia.models.delf.weights import load_checkpoint
from minia.models.extractors.delf import DELFExtractor
from minia.training.settings import TrainSettings
from minia.training.views import ViewTraining

pytest.importorskip("timm")  # its encoder for tests is the smallest
VIEWS = Augmentation(image_size=96, view=0.5, shift=0.1, rotate=True, flip=True, scale=1.3)
ALL = Comparison(loss="contrastive", temperature=0.1, min_distance=1.5, min_brightness=0, max_cells=10_000)
WINDOW = Window(41, 8, 20)


def drawn(count: int, seed: int = 0) -> torch.Tensor:
    """Random numbers of two views of so many images, the first views before the second ones."""
    numbers = torch.from_numpy(np.stack([draw_numbers(seed, 0, index, 2) for index in range(count)]))
    return torch.cat(numbers.chunk(2, dim=1))


def test_matched_cells_show_the_same_place() -> None:
    axis = torch.arange(200.0)
    ramp = torch.stack([axis[None].expand(200, 200), axis[:, None].expand(200, 200), torch.full((200, 200), 50.0)])
    numbers = drawn(6)
    views = augment(ramp.to(torch.uint8).repeat(12, 1, 1, 1), numbers, VIEWS)  # the colour says where
    matrices = view_matrices(numbers, VIEWS)
    matches = match_cells(views, matrices, (12, 12), WINDOW, ALL)
    maps = views[:, :, ::8, ::8]  # as a network whose cell j sees pixel 8 j
    here, there = matches.vectors(maps)
    places = [50 * each[:, :2] / each[:, 2:] for each in (here, there)]
    assert len(here) > 300
    assert (places[0] - places[1]).abs().max() < 1.5  # pixels of the image, as far as colours are whole numbers
    assert len(set(matches.image.tolist())) == 6
    distance = torch.cdist(places[0], places[0])
    same = matches.image[:, None] == matches.image[None]
    pitch = 8 * 200 * VIEWS.view / 96  # pixels of the image between cells, times or by the scale
    assert not matches.excluded.diagonal().any()
    assert not matches.excluded[~same].any()
    assert matches.excluded[same & (distance > 1) & (distance < 1.4 * pitch / VIEWS.scale)].float().mean() > 0.99
    assert not matches.excluded[distance > 1.6 * pitch * VIEWS.scale].any()
    wrong, _ = matches.vectors(maps.flip(0))
    assert (50 * wrong[:, :2] / wrong[:, 2:] - places[1]).abs().median() > 10


def test_half_a_turn_matches_the_cells_from_the_other_end() -> None:
    matrices = torch.stack([torch.eye(3), torch.diag(torch.tensor([-1.0, -1.0, 1.0]))])
    # Of 89 pixels the middle one is in the middle of cells 0, 8 ... 88.
    matches = match_cells(torch.zeros(2, 3, 89, 89), matrices, (12, 12), WINDOW, ALL)
    assert len(matches.cell) >= 100  # those of the rim are there or not, by rounding
    columns, rows = ((matches.grid + 1) / 2 * 11).unbind(1)
    torch.testing.assert_close(columns, 11.0 - matches.cell % 12, atol=1e-3, rtol=0)
    torch.testing.assert_close(rows, 11.0 - matches.cell // 12, atol=1e-3, rtol=0)


def test_matches_lie_between_cells_up_to_the_very_last() -> None:
    maps = torch.randn(2, 4, 3, 5)
    grid = torch.cat([2 * torch.rand(20, 2) - 1, torch.tensor([[-1.0, -1.0], [1.0, 1.0]])])
    image, excluded = torch.zeros(22, dtype=torch.int64), torch.zeros(22, 22, dtype=torch.bool)
    _, there = Matches(image, image, grid, excluded).vectors(maps)
    expected = torch.nn.functional.grid_sample(maps[1:], grid[None, None], align_corners=True)[0, :, 0].T
    torch.testing.assert_close(there, torch.nn.functional.normalize(expected, dim=1))


def test_dark_cells_and_too_many_are_left_out() -> None:
    images = torch.zeros(12, 3, 200, 200, dtype=torch.uint8)
    images[:, :, :, 100:] = 90
    numbers = drawn(6)
    views, matrices = augment(images, numbers, VIEWS), view_matrices(numbers, VIEWS)
    every = match_cells(views, matrices, (12, 12), WINDOW, ALL)
    bright = match_cells(views, matrices, (12, 12), WINDOW, ALL._replace(min_brightness=60))
    light = views[:6, 0, ::8, ::8].flatten(1)
    seen = light[bright.image, bright.cell]
    assert seen.min() > 20  # an edge may run through a cell
    assert len(seen) == pytest.approx(int((light[every.image, every.cell] > 60).sum()), rel=0.1)
    few = match_cells(views, matrices, (12, 12), WINDOW, ALL._replace(max_cells=10))
    assert len(few.image) == 10 and len(set(few.image.tolist())) > 3
    for end in (0, -1):  # evenly, from the first to the last
        assert (few.image[end], few.cell[end]) == (every.image[end], every.cell[end])
    black = match_cells(torch.zeros_like(views), matrices, (12, 12), WINDOW, ALL._replace(min_brightness=1))
    assert not len(black.image)
    assert contrast(*black.vectors(views[:, :, ::8, ::8]), 0.1, black.excluded) == 0


def test_the_contrast_is_infonce_both_ways() -> None:
    first = torch.nn.functional.normalize(torch.randn(4, 3), dim=1)
    second = torch.nn.functional.normalize(torch.randn(4, 3), dim=1)
    excluded = torch.zeros(4, 4, dtype=torch.bool)
    excluded[0, 2] = True
    expected = 0.0
    for row in range(4):
        for one, other, mask in ((first, second, excluded), (second, first, excluded.T)):
            weights = [0.0 if mask[row, each] else math.exp(one[row] @ other[each] / 0.2) for each in range(4)]
            expected -= math.log(weights[row] / sum(weights)) / 8
    assert float(contrast(first, second, 0.2, excluded)) == pytest.approx(expected, rel=1e-4)
    assert float(contrast(first, first, 0.01)) < float(contrast(first, second, 0.01))
    assert nearest(first, first[[2, 0, 1, 3]]).tolist() == [1, 2, 0, 3]
    excluded[0, 1] = True
    assert nearest(first, first[[2, 0, 1, 3]], excluded)[0] != 1


def test_vicreg_is_invariance_variance_and_covariance() -> None:
    first, second = 0.5 * torch.randn(9, 4), 2 * torch.randn(9, 4)
    expected = 25 * ((first - second) ** 2).mean()
    for vectors in (first.numpy(), second.numpy()):
        expected += 25 * np.maximum(0, 1 - np.sqrt(vectors.var(0, ddof=1) + 1e-4)).mean() / 2
        covariance = np.cov(vectors.T)
        expected += (covariance[~np.eye(4, dtype=bool)] ** 2).sum() / 4
    assert float(vicreg(first, second)) == pytest.approx(float(expected) / 25, rel=1e-5)
    for count in (0, 1):  # a batch whose cells are all dark
        few = torch.randn(count, 4, requires_grad=True)
        vicreg(few, few).backward()
        assert few.grad is not None and not few.grad.any()


@pytest.mark.parametrize("side", [200, 201])
def test_small_views_go_through_the_middle_alone(monkeypatch: pytest.MonkeyPatch, side: int) -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (12, 3, side, side), dtype=np.uint8))
    small = VIEWS.model_copy(update={"view": 0.25})
    numbers, seen = drawn(6), []
    sample = augmentation._sample

    def note(pictures: torch.Tensor, *given: Any) -> torch.Tensor:
        seen.append(pictures.shape[-1])
        return sample(pictures, *given)

    monkeypatch.setattr(augmentation, "_sample", note)
    found = augment(images, numbers, small)
    monkeypatch.setattr(augmentation, "_middle", lambda pictures, matrices, _: (pictures, matrices))
    torch.testing.assert_close(found, augment(images, numbers, small), atol=0.1, rtol=0)
    assert seen[0] < 0.6 * side and seen[1] == side


def coloured(number: int) -> np.ndarray:
    """An image whose places differ in colour, (96, 96, 3) uint8."""
    return np.dstack([draw_blobs(3 * number + channel, 96, 96, 8)[:, :, 0] for channel in range(3)])


@pytest.fixture(name="unlabelled", scope="module")
def images_without_labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images, half of them in a subfolder."""
    folder = tmp_path_factory.mktemp("unlabelled")
    (folder / "sub").mkdir()
    for number in range(40):
        cv2.imwrite(str(folder / ("sub" if number % 2 else "") / f"{number}.png"), coloured(number))
    return folder


SELF = (
    *(each for each in TINY if not each.startswith(("data", "augmentation.", "trainer.batch"))),
    "data=images", "data.side=96", "objective=self_supervised", "augmentation=views", "augmentation.image_size=96",
    "augmentation.view=0.7", "trainer.batch_size=8", "model=timm", "model.name=test_resnet",
    "model.attention_channels=16",
)  # fmt: skip


def matched_before_others(network: DELF) -> float:
    """How often, on images that no training saw, a place is more like its match than like another place."""
    images = torch.from_numpy(np.stack([coloured(1000 + number).transpose(2, 0, 1) for number in range(8)]))
    numbers = drawn(8)
    views, matrices = augment(images.repeat(2, 1, 1, 1), numbers, VIEWS), view_matrices(numbers, VIEWS)
    with torch.inference_mode():
        descriptors = network.local_features(network.normalise(views))[1]
    window = Window(network.receptive_field, network.stride, network.padding)
    matches = match_cells(views, matrices, (6, 6), window, ALL)
    here, there = matches.vectors(descriptors)
    similar = here @ there.T
    other = ~matches.excluded & ~torch.eye(len(here), dtype=torch.bool)
    return float((similar.diagonal()[:, None] > similar)[other].float().mean())


def test_vicreg_trains_without_others(run: Run, tmp_path: Path, unlabelled: Path) -> None:
    steps = ("trainer.max_steps=30", "trainer.steps_per_check=10", "trainer.learning_rate=0.02")
    assert run(*SELF, *steps, f"data.dir={unlabelled}", "export=[]", "objective.loss=vicreg") == 0
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    first, *_, last = history["loss_descriptor"].tolist()  # 1 where all vectors are the same; the contrast begins at 4
    assert last < first - 0.03 and first < 1.2
    assert history["loss_attention"].between(0, 1.2).all()
    with pytest.raises(InputError, match=r"objective\.loss"):
        check(TrainSettings, compose(*SELF, f"data.dir={unlabelled}", "objective.loss=byol"))


def test_a_training_learns_without_labels(run: Run, tmp_path: Path, unlabelled: Path) -> None:
    steps = ("trainer.max_steps=60", "trainer.steps_per_check=20", "trainer.learning_rate=0.02", "trainer.keep=last")
    assert run(*SELF, *steps, f"data.dir={unlabelled}", "data.test_share=0.1", "export=[pt]") == 0
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    trained, parameters = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    torch.manual_seed(0)
    untrained = DELF("timm:test_resnet", 1, stride_in_1x1=False, block3_stride=False, attention_channels=16).eval()
    first, *_, last = history["loss_descriptor"].tolist()
    assert last < first - 0.4
    assert metrics["descriptor_accuracy"] > 0.15  # by chance one in the number of cells that are compared, some 70
    assert (metrics["num_classes"], metrics["num_test_images"], parameters["classes"]) == (0, 4, [])
    assert {"loss_attention", "test_attention_accuracy"} < set(metrics)
    assert not (tmp_path / "run" / "confusion.png").exists()
    assert (tmp_path / "run" / "attention.png").exists() and (tmp_path / "run" / "history.png").exists()
    assert matched_before_others(trained) > max(0.88, matched_before_others(untrained) + 0.04)
    model = tmp_path / "run" / "model.pt"
    features = DELFExtractor(delf(model, objects="none"), CPU).extract(coloured(0))
    assert features["descriptors"].shape == (len(features["scores"]), 128) and len(features["scores"])


def test_a_killed_training_without_labels_goes_on(
    run: Run, tmp_path: Path, unlabelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = (*SELF, f"data.dir={unlabelled}", "data.side=64", "augmentation.image_size=64", "export=[]")
    assert run(*tiny, output="whole") == 0
    step = ViewTraining.training_step

    def die(self: ViewTraining, batch: Any, batch_idx: int) -> Any:
        if self.global_step == 3:
            raise RuntimeError("killed")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(ViewTraining, "training_step", die)
        assert run(*tiny, output="killed") == 1
    resume = f"resume={tmp_path / 'killed'}"
    assert run(*tiny, resume, output="resumed") == 0
    assert_same_training(last_checkpoint(tmp_path / "whole"), last_checkpoint(tmp_path / "resumed"), steps=6)
    assert run(*tiny, resume, "objective.temperature=0.3", output="other") == 2


def test_what_has_no_labels_is_told(
    run: Run, unlabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    pd.DataFrame({"image": ["0.png", "sub/1.png"]}).to_csv(table, index=False)
    for given in (
        ["data=images", f"data.dir={unlabelled}"],
        ["data=csv", f"data.path={table}", "data.label_column=null"],
    ):
        assert run(*given) == 2
        assert "has no labels here; allowed: objective=self_supervised" in the_error(capsys)
    assert run("data=csv", f"data.path={table}", "data.label_column=null", "data.more_labels=[size]") == 2
    assert "data.more_labels: needs data.label_column" in the_error(capsys)
    (tmp_path / "empty").mkdir()
    assert run("data=images", "objective=self_supervised", f"data.dir={tmp_path / 'empty'}") == 2
    assert "holds no image" in the_error(capsys)


def test_a_table_without_labels_keeps_its_split(tmp_path: Path, unlabelled: Path) -> None:
    names = [f"{'sub/' if number % 2 else ''}{number}.png" for number in range(40)]
    split = ["train", "valid", "train", "test"] * 10
    pd.DataFrame({"image": names, "part": split}).to_csv(tmp_path / "table.csv", index=False)
    given = [f"data.path={tmp_path / 'table.csv'}", f"data.dir={unlabelled}", "data.split_column=part"]
    values = compose("data=csv", "data.label_column=null", "objective=self_supervised", *given)
    settings = check(TrainSettings, values)
    table = GalaxyTable.load(labelled_table(tmp_path / "store", settings.data, CPU))
    assert table.classes == ["unlabelled"]
    assert table.table["split"].value_counts().to_dict() == {"train": 20, "validation": 10, "test": 10}
