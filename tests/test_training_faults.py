"""What training must do, each thing against the same written plainly: left out, it would hardly show in a figure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from choices import CPU
from test_train import TINY, Run, blobs_of_two_classes, compose, train_here  # noqa: F401 - fixtures
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from minia.core.setting_types import check
from minia.data.labelled.augmentation import augment, validation_view
from minia.data.labelled.sources import labelled_table
from minia.data.labelled.table import GalaxyTable
from minia.models.delf.export import load_exported
from minia.models.delf.network import DELF, NORMALISATIONS, DELFOutput
from minia.models.delf.weights import load_checkpoint
from minia.training.build import build_data, build_module, build_trainer
from minia.training.module import DELFTraining
from minia.training.settings import TrainSettings

Batches = list[tuple[Tensor, Tensor]]
PLAIN = (
    "trainer.optimiser=sgd", "trainer.schedule=linear", "trainer.learning_rate=0.01", "trainer.momentum=0.0",
    "trainer.weight_decay=0.0", "trainer.gradient_clip=null", "trainer.max_steps=4", "trainer.steps_per_check=4",
    "trainer.channels_last=false", "augmentation.image_size=64",
)  # fmt: skip


class Fitted:
    """A short training: its settings, the network before and after, and what it was fed.

    Args:
        tmp_path: for the store and the run's folder.
        blobs: the folder of images.
        overrides: of the command line.
    """

    def __init__(self, tmp_path: Path, blobs: Path, *overrides: str) -> None:
        self.settings = check(TrainSettings, compose(*TINY, *PLAIN, f"data.dir={blobs}", *overrides))
        self.table = GalaxyTable.load(labelled_table(tmp_path / "store", self.settings.data, CPU))
        self.module = build_module(self.settings, self.table.classes, "")
        assert isinstance(self.module, DELFTraining)
        self.before = build_module(self.settings, self.table.classes, "").model
        self.data = build_data(self.settings, self.table, tmp_path)
        self.trained: Batches = []
        self.validated: Batches = []
        self.rows: dict[str, list[int]] = {"training": [], "validation": []}
        self.dtypes: set[torch.dtype] = set()
        training_step, validation_step, forward = (
            self.module.training_step, self.module.validation_step, self.module.forward,
        )  # fmt: skip

        def train(batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
            self.trained.append((batch["image"].clone(), batch["label"].clone()))
            self.rows["training"] += batch["index"].tolist()
            return training_step(batch, batch_idx)

        def validate(batch: Mapping[str, Tensor], batch_idx: int) -> None:
            self.validated.append((batch["image"].clone(), batch["label"].clone()))
            self.rows["validation"] += batch["index"].tolist()
            validation_step(batch, batch_idx)

        def see(images: Tensor, with_zero_fractions: bool = False) -> DELFOutput:
            output = forward(images, with_zero_fractions)
            self.dtypes.add(output.layer3.dtype)
            return output

        self.module.training_step = train  # type: ignore[method-assign]
        self.module.validation_step = validate  # type: ignore[method-assign]
        self.module.forward = see  # type: ignore[method-assign]
        build_trainer(self.settings, "cpu", tmp_path / "run").fit(self.module, datamodule=self.data)


def plainly(network: DELF, batches: Batches, **changes: Any) -> dict[str, Tensor]:
    """The weights after a training as one would write it first."""
    asked: dict[str, Any] = {
        "rates": [0.01, 0.0075, 0.005, 0.0025], "momentum": 0.0, "decay": 0.0, "clip": None,
        "weights": (1.0, 1.0, 10.0), "normalisation": "original",
    } | changes  # fmt: skip
    mean, std = (torch.tensor(each)[:, None, None] for each in NORMALISATIONS[asked["normalisation"]])
    network.train()
    velocity = {name: torch.zeros_like(weight) for name, weight in network.named_parameters()}
    for rate, (images, labels) in zip(asked["rates"], batches, strict=True):
        output = network((images - mean) / std)
        parts = (
            F.cross_entropy(output.descriptor_logits, labels),
            F.cross_entropy(output.attention_logits, labels),
            (output.reconstruction - output.layer3).square().mean(),
        )
        network.zero_grad()
        torch.stack([weight * part for weight, part in zip(asked["weights"], parts, strict=True)]).sum().backward()
        gradients = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
        norm = torch.stack([gradient.square().sum() for gradient in gradients.values()]).sum().sqrt()
        factor = min(1.0, asked["clip"] / float(norm)) if asked["clip"] else 1.0
        with torch.no_grad():
            for name, weight in network.named_parameters():
                gradient = gradients[name] * factor + asked["decay"] * weight
                velocity[name] = asked["momentum"] * velocity[name] + gradient
                weight.sub_(rate * velocity[name])
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def difference(first: Mapping[str, Tensor], second: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> float:
    """How far two networks are apart, as a share of the way that the second came from the start; of the worst part."""
    shares = []
    for part in ("backbone", "attention", "reduction", "descriptor_classifier", "attention_classifier"):
        names = [name for name in second if name.startswith(f"{part}.")]
        apart, way = (
            torch.stack([(state[name] - second[name]).double().square().sum() for name in names]).sum().sqrt()
            for state in (first, start)
        )
        shares.append(float(apart / way))
    return max(shares)


@pytest.mark.parametrize(
    ("overrides", "changes"),
    [
        ([], {}),
        (["trainer.gradient_clip=0.5"], {"clip": 0.5}),
        (["trainer.momentum=0.9"], {"momentum": 0.9}),
        (["trainer.weight_decay=0.5"], {"decay": 0.5}),
        (["trainer.schedule=cosine"], {"rates": [0.01, 0.00853553, 0.005, 0.00146447]}),
        (["trainer.warmup_steps=2"], {"rates": [0.005, 0.01, 0.01, 0.005]}),
        (["trainer.learning_rate=0.02"], {"rates": [0.02, 0.015, 0.01, 0.005]}),
        (["model.normalisation=imagenet"], {"normalisation": "imagenet"}),
        (["model.descriptor_weight=0.3"], {"weights": (0.3, 1.0, 10.0)}),
        (["model.attention_weight=3.0"], {"weights": (1.0, 3.0, 10.0)}),
        (["model.reconstruction_weight=1.0"], {"weights": (1.0, 1.0, 1.0)}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_training_is_what_a_plain_loop_does(
    tmp_path: Path, blobs: Path, one_thread: None, overrides: list[str], changes: dict[str, Any]
) -> None:  # fmt: skip
    fitted = Fitted(tmp_path, blobs, *overrides)
    start = {name: value.clone() for name, value in fitted.before.state_dict().items()}
    expected = plainly(fitted.before, fitted.trained, **changes)
    assert difference(fitted.module.model.state_dict(), expected, start) < 0.03
    if changes:  # or the test could not tell
        fitted.before.load_state_dict(start)
        assert difference(plainly(fitted.before, fitted.trained), expected, start) > 0.1


def test_only_training_is_augmented(tmp_path: Path, blobs: Path, one_thread: None) -> None:
    fitted = Fitted(tmp_path, blobs, "augmentation.brightness=0.5")
    data, augmentation = fitted.data, fitted.settings.augmentation
    seen = torch.cat([images for images, _ in fitted.validated])
    pictures = torch.stack([data.validation.image(row) for row in fitted.rows["validation"]])
    assert fitted.rows["validation"] == list(range(len(data.validation)))  # one whole pass in the table's order
    torch.testing.assert_close(seen, validation_view(pictures, augmentation))
    seen = torch.cat([images for images, _ in fitted.trained])
    visits = [data.training[visit] for visit in data.sampler][: len(seen)]
    assert [int(visit["index"]) for visit in visits] != fitted.rows["training"]  # the sampler has gone on
    data.sampler.taken = lambda: 0
    visits = [data.training[visit] for visit in data.sampler]
    assert [int(visit["index"]) for visit in visits] == fitted.rows["training"]
    pictures, numbers = (torch.stack([visit[key] for visit in visits]) for key in ("image", "numbers"))
    torch.testing.assert_close(seen, augment(pictures, numbers, augmentation), atol=1e-3, rtol=0)
    assert (seen - validation_view(pictures, augmentation)).abs().mean() > 1


@pytest.mark.parametrize(("precision", "kind"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_the_precision_is_that_of_the_arithmetic(
    tmp_path: Path, blobs: Path, one_thread: None, precision: str, kind: torch.dtype
) -> None:  # fmt: skip
    fitted = Fitted(tmp_path, blobs, f"trainer.precision={precision}")
    assert fitted.dtypes == {kind}
    assert {weight.dtype for weight in fitted.module.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("stride_in_1x1", "epsilon", "momentum"), [(True, 1e-3, 0.01), (False, 1e-5, 0.1)], ids=["keras", "torchvision"]
)
def test_the_batch_normalisation_is_that_of_the_weights(stride_in_1x1: bool, epsilon: float, momentum: float) -> None:
    torch.manual_seed(0)
    network = DELF("resnet50", 2, stride_in_1x1=stride_in_1x1, block3_stride=True)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(norms) == 54  # those of the ResNet and the attention's
    assert {(norm.eps, norm.momentum) for norm in norms} == {(epsilon, momentum)}
    features = 3 + 0.01 * torch.randn(2, 1024, 4, 4)
    hidden = network.attention.conv1(features)
    network.attention.train()(features)
    mean = network.attention.bn1.running_mean
    assert mean is not None
    torch.testing.assert_close(mean, momentum * hidden.mean((0, 2, 3)))


@pytest.mark.parametrize(
    ("keep", "best_by", "expected"),
    [("best", "attention_accuracy", 2), ("best", "loss_total", 2), ("last", "attention_accuracy", 6)],
)
def test_the_checkpoint_asked_for_is_exported(
    run: Run, tmp_path: Path, blobs: Path, monkeypatch: pytest.MonkeyPatch, keep: str, best_by: str,
    expected: int,
) -> None:  # fmt: skip
    """The first check is made to seem the best, all others equally good and worse."""
    count = DELFTraining.on_validation_epoch_end
    states: dict[int, dict[str, Tensor]] = {}

    def worsen(self: DELFTraining) -> None:
        count(self)
        row = self.history[-1]
        worse = 0.5 if row["step"] > 2 else 0.0
        for name in row:
            if name.endswith("_accuracy") or name.startswith("loss_"):  # all other figures get better
                grows = (name == best_by) == name.startswith("loss_")
                row[name] = 0.2 + worse if grows else 0.9 - worse
        states.setdefault(self.global_step, {name: value.clone() for name, value in self.model.state_dict().items()})

    monkeypatch.setattr(DELFTraining, "on_validation_epoch_end", worsen)
    assert (
        run(
            *TINY,
            f"data.dir={blobs}",
            f"trainer.keep={keep}",
            f"trainer.best_by={best_by}",
            "model.normalisation=caffe",
        )
        == 0
    )
    exported, metadata = load_exported(tmp_path / "run" / "model.pt")
    encoder = exported.encoder.weight
    assert [step for step, state in states.items() if torch.equal(state["reduction.encoder.weight"], encoder)] == [
        expected
    ]
    steps = {name: torch.load(tmp_path / "run" / "checkpoints" / f"{name}.ckpt", weights_only=True)["global_step"]
             for name in ("best", "last")}  # fmt: skip
    assert steps == {"best": 2, "last": 6}
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["num_steps"] == 6
    # What the images are normalised by goes into the file, and its features are those of the network.
    mean, std = NORMALISATIONS["caffe"]
    assert exported.mean.tolist() == pytest.approx(mean)
    assert exported.std.tolist() == pytest.approx(std)
    assert metadata["preprocessing"]["mean"] == pytest.approx(mean)
    assert metadata["preprocessing"]["std"] == pytest.approx(std)
    network = load_checkpoint(tmp_path / "run" / "checkpoints" / f"{keep}.ckpt")[0]
    assert network.mean.tolist() == pytest.approx(mean)
    assert_features_are_those_of(network, exported)


def assert_features_are_those_of(network: DELF, exported: Any) -> None:
    """At its own size and without limits an image's features are the network's maps, cell by cell."""
    images = torch.randint(0, 256, (1, 3, 96, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (each[:, None, None] for each in (network.mean, network.std))
    with torch.inference_mode():
        attention, descriptors = network.local_features((images.float() - mean) / std)
        found = exported(images, None, [1.0], 0, 0.0, 0.0, 1.0)
    cells = (found.keypoints[0] / network.stride).round().long()
    assert sorted(map(tuple, cells.tolist())) == [
        (column, row) for column in range(attention.shape[3]) for row in range(attention.shape[2])
    ]
    torch.testing.assert_close(found.scores[0], attention[0, 0, cells[:, 1], cells[:, 0]], rtol=1e-4, atol=1e-5)
    expected = F.normalize(descriptors[0, :, cells[:, 1], cells[:, 0]].T, dim=1)
    torch.testing.assert_close(found.descriptors[0], expected, rtol=1e-4, atol=1e-5)
