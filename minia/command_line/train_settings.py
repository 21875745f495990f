"""The settings of ``train.py``, checked before any work starts; see ``minia.command_line.mine_settings``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from minia.command_line.mine_settings import (
    Count,
    CountOrZero,
    ExistingFile,
    ExistingFolder,
    ExistingPath,
    Positive,
    Range,
)
from minia.core.artifact import InputError

Share = Annotated[float, Range(0, 1)]
PositiveShare = Annotated[float, Range(0, 1, exclusive=True)]
NotNegative = Annotated[float, Range(0)]
Factor = Annotated[float, Range(1)]


@dataclass(frozen=True)
class Images:
    """What every choice of ``data`` has."""

    class_size: Count | None
    validation_share: Annotated[float, Range(0.01, 0.9)]
    check_images: bool
    side: Annotated[int, Range(16, 8192)]
    cache: Literal["none", "memory", "disk"]
    loader_workers: CountOrZero
    pin_memory: bool
    persistent_workers: bool


@dataclass(frozen=True)
class Votes:
    """How votes become classes."""

    gate: Share
    threshold: Share
    min_votes: CountOrZero
    ambiguous: Literal["drop", "first", "last", "strongest"]


@dataclass(frozen=True)
class SimulatedData(Images, Votes):
    """``data=simulated``."""

    kind: Literal["simulated"]
    num_images: Count
    image_size: Annotated[int, Range(64, 4096)]


@dataclass(frozen=True)
class GZ2Data(Images, Votes):
    """``data=gz2``."""

    kind: Literal["gz2"]
    root: ExistingFolder
    catalogue: ExistingFile | None
    mapping: ExistingFile | None
    images: ExistingFolder | None


@dataclass(frozen=True)
class CSVData(Images):
    """``data=csv``."""

    kind: Literal["csv"]
    path: ExistingFile
    dir: ExistingFolder | None
    id_column: str
    path_column: str | None
    label_column: str
    split_column: str | None
    galaxy_column: str | None


@dataclass(frozen=True)
class FolderData(Images):
    """``data=folder``."""

    kind: Literal["folder"]
    dir: ExistingFolder


@dataclass(frozen=True)
class ListData(Images):
    """``data=list``."""

    kind: Literal["list"]
    path: ExistingFile
    dir: ExistingFolder
    ambiguous: Literal["drop", "first", "last"]


@dataclass(frozen=True)
class AugmentationSettings:
    """``augmentation``; see :class:`minia.data.labelled.augmentation.Augmentation`."""

    image_size: Annotated[int, Range(32, 2048)]
    view: PositiveShare
    crop_area: PositiveShare
    crop_aspect: Factor
    shift: Annotated[float, Range(0, 0.5)]
    rotate: bool
    flip: bool
    scale: Factor
    brightness: Annotated[float, Range(0, 2)]
    colour: Annotated[float, Range(0, 2)]
    move_probability: Share
    filter_probability: Share
    supersample: Annotated[int, Range(1, 4)]

    def __post_init__(self) -> None:
        if self.crop_area < 1 and (self.view < 1 or self.rotate or self.flip or self.scale > 1 or self.shift > 0):
            raise InputError(
                f"augmentation.crop_area={self.crop_area:g}: a random crop goes with view=1, shift=0, scale=1, no"
                " rotate and no flip; allowed otherwise: crop_area=1"
            )


@dataclass(frozen=True)
class DELFModel:
    """``model=delf``; see :class:`minia.models.delf.network.DELF`."""

    kind: Literal["delf"]
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"]
    weights: str
    normalisation: Literal["imagenet", "original", "caffe"] | None
    stride_in_1x1: bool
    block3_stride: bool
    reduction: Count
    attention_channels: Count
    descriptor_weight: NotNegative
    attention_weight: NotNegative
    reconstruction_weight: NotNegative

    def __post_init__(self) -> None:
        if self.stride_in_1x1 and self.backbone in ("resnet18", "resnet34"):
            raise InputError(
                f"model.stride_in_1x1=true: {self.backbone} has no 1x1 convolution to stride; allowed: false"
            )


@dataclass(frozen=True)
class TrainerSettings:
    """``trainer``."""

    optimiser: Literal["sgd", "adamw"]
    schedule: Literal["linear", "cosine"]
    learning_rate: Positive
    find_learning_rate: bool
    momentum: Annotated[float, Range(0, 0.9999)]
    weight_decay: NotNegative
    attention_decay: NotNegative
    warmup_steps: CountOrZero
    gradient_clip: Positive | None
    batch_size: Annotated[int, Range(2)]
    max_steps: Count
    steps_per_check: Count
    log_every: Count
    patience: Count | None
    keep: Literal["best", "last"]
    precision: Literal["32-true", "16-mixed", "bf16-mixed"]
    channels_last: bool
    compile: bool


@dataclass(frozen=True)
class TrainSettings:
    """All settings of one run of ``train.py``."""

    store: Path | None
    seed: Annotated[int, Range(0, 2**31 - 1)]
    device: Literal["auto", "cpu", "cuda"]
    num_workers: Count | None
    threads: Count | None
    debug: bool
    resume: ExistingPath | None
    export: list[Literal["pt", "pt2", "onnx"]]
    overwrite: bool
    data: SimulatedData | GZ2Data | CSVData | FolderData | ListData
    augmentation: AugmentationSettings
    model: DELFModel
    trainer: TrainerSettings


def plain(settings: Any) -> dict[str, Any]:
    """Settings as a mapping of numbers, strings and lists; paths as text."""

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: convert(each) for key, each in value.items()}
        return (
            [convert(each) for each in value]
            if isinstance(value, list)
            else str(value)
            if isinstance(value, Path)
            else value
        )

    converted: dict[str, Any] = convert(dataclasses.asdict(settings))
    return converted
