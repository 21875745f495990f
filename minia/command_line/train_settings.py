"""The settings of ``train.py``, checked before any work starts; ``conf/train/`` explains each key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from minia.core.artifact import InputError
from minia.core.setting_types import (
    AnyPath,
    Device,
    ExistingFile,
    ExistingFolder,
    ExistingPath,
    NotNegative,
    Positive,
    PositiveShare,
    Seed,
    Settings,
    Share,
    Text,
)

Factor = Annotated[float, Field(ge=1, le=1000)]
Channels = Annotated[int, Field(ge=1, le=65536)]
Workers = Annotated[int, Field(ge=1, le=1024)]
Steps = Annotated[int, Field(ge=1, le=100_000_000)]
NumImages = Annotated[int, Field(ge=1, le=10_000_000)]


class Images(Settings):
    """What every choice of ``data`` has."""

    class_size: NumImages | None
    validation_share: Annotated[float, Field(ge=0.01, le=0.9)]
    check_images: bool
    side: Annotated[int, Field(ge=16, le=8192)]
    cache: Literal["none", "memory", "disk"]
    loader_workers: Annotated[int, Field(ge=0, le=1024)]
    pin_memory: bool
    persistent_workers: bool


class Votes(Settings):
    """How votes become classes."""

    gate: Share
    threshold: Share
    min_votes: Annotated[int, Field(ge=0, le=1_000_000)]
    ambiguous: Literal["drop", "first", "last", "strongest"]


class SimulatedData(Images, Votes):
    """``data=simulated``."""

    kind: Literal["simulated"]
    num_images: NumImages
    image_size: Annotated[int, Field(ge=64, le=4096)]


class GZ2Data(Images, Votes):
    """``data=gz2``."""

    kind: Literal["gz2"]
    root: ExistingFolder
    catalogue: ExistingFile | None
    mapping: ExistingFile | None
    images: ExistingFolder | None


class CSVData(Images):
    """``data=csv``."""

    kind: Literal["csv"]
    path: ExistingFile
    dir: ExistingFolder | None
    id_column: Text
    path_column: Text | None
    label_column: Text
    split_column: Text | None
    galaxy_column: Text | None


class FolderData(Images):
    """``data=folder``."""

    kind: Literal["folder"]
    dir: ExistingFolder


class ListData(Images):
    """``data=list``."""

    kind: Literal["list"]
    path: ExistingFile
    dir: ExistingFolder
    ambiguous: Literal["drop", "first", "last"]


class AugmentationSettings(Settings):
    """``augmentation``; see :class:`minia.data.labelled.augmentation.Augmentation`."""

    image_size: Annotated[int, Field(ge=32, le=2048)]
    view: PositiveShare
    crop_area: PositiveShare
    crop_aspect: Factor
    shift: Annotated[float, Field(ge=0, le=0.5)]
    rotate: bool
    flip: bool
    scale: Factor
    brightness: Annotated[float, Field(ge=0, le=2)]
    colour: Annotated[float, Field(ge=0, le=2)]
    move_probability: Share
    filter_probability: Share
    supersample: Annotated[int, Field(ge=1, le=4)]

    @model_validator(mode="after")
    def _check_together(self) -> AugmentationSettings:
        if self.crop_area < 1 and (self.view < 1 or self.rotate or self.flip or self.scale > 1 or self.shift > 0):
            raise InputError(
                f"augmentation.crop_area={self.crop_area:g}: a random crop goes with view=1, shift=0, scale=1, no"
                " rotate and no flip; allowed otherwise: crop_area=1"
            )
        return self


class DELFModel(Settings):
    """``model=delf``; see :class:`minia.models.delf.network.DELF`."""

    kind: Literal["delf"]
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"]
    weights: Text
    normalisation: Literal["imagenet", "original", "caffe"] | None
    stride_in_1x1: bool
    block3_stride: bool
    reduction: Channels
    attention_channels: Channels
    descriptor_weight: NotNegative
    attention_weight: NotNegative
    reconstruction_weight: NotNegative

    @model_validator(mode="after")
    def _check_together(self) -> DELFModel:
        if self.stride_in_1x1 and self.backbone in ("resnet18", "resnet34"):
            raise InputError(
                f"model.stride_in_1x1=true: {self.backbone} has no 1x1 convolution to stride; allowed: false"
            )
        return self


class TrainerSettings(Settings):
    """``trainer``."""

    optimiser: Literal["sgd", "adamw"]
    schedule: Literal["linear", "cosine"]
    learning_rate: Positive
    find_learning_rate: bool
    momentum: Annotated[float, Field(ge=0, le=0.9999)]
    weight_decay: NotNegative
    attention_decay: NotNegative
    warmup_steps: Annotated[int, Field(ge=0, le=100_000_000)]
    gradient_clip: Positive | None
    batch_size: Annotated[int, Field(ge=2, le=65536)]
    max_steps: Steps
    steps_per_check: Steps
    log_every: Steps
    patience: Steps | None
    keep: Literal["best", "last"]
    precision: Literal["32-true", "16-mixed", "bf16-mixed"]
    channels_last: bool
    compile: bool


class TrainSettings(Settings):
    """All settings of one run of ``train.py``."""

    store: AnyPath | None
    seed: Seed
    device: Device
    num_workers: Workers | None
    threads: Workers | None
    debug: bool
    resume: ExistingPath | None
    export: list[Literal["pt", "pt2", "onnx"]]
    overwrite: bool
    data: Annotated[SimulatedData | GZ2Data | CSVData | FolderData | ListData, Field(discriminator="kind")]
    augmentation: AugmentationSettings
    model: DELFModel
    trainer: TrainerSettings


def plain(settings: Settings) -> dict[str, Any]:
    """Settings as a mapping of numbers, strings and lists; paths as text."""
    return settings.model_dump(mode="json")
