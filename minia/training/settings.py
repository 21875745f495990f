"""The settings of a training; ``conf/train/`` explains each key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from minia.core.artifact import InputError
from minia.core.setting_types import (
    AnyPath,
    Device,
    ExistingPath,
    NotNegative,
    Positive,
    Seed,
    Settings,
    Text,
)
from minia.data.labelled.settings import Augmentation, LabelledData
from minia.training.lightning_keys import check_part, check_trainer_arguments

Channels = Annotated[int, Field(ge=1, le=65536)]
Workers = Annotated[int, Field(ge=1, le=1024)]
Normalisation = Literal["imagenet", "original", "unit", "caffe"]
Steps = Annotated[int, Field(ge=1, le=100_000_000)]


class _Model(Settings):
    """What every network has.

    Attributes:
        weights: that the backbone begins with: ``none`` or a file.
        normalisation: of images; None for that of the weights, ``original`` where there are none.
        block3_stride: local features every 32 pixels, as the original's, and not every 16.
        reduction: length of a local descriptor.
        attention_channels: hidden channels of the attention.
        descriptor_weight: factor of the descriptor branch's loss.
        attention_weight: factor of the attention branch's loss.
        reconstruction_weight: factor of the autoencoder's loss.
    """

    weights: Text
    normalisation: Normalisation | None
    block3_stride: bool
    reduction: Channels
    attention_channels: Channels
    descriptor_weight: NotNegative
    attention_weight: NotNegative
    reconstruction_weight: NotNegative


class DELFModel(_Model):
    """``model``: the network, and what its three losses weigh.

    ``weights`` may be ``imagenet`` too: torchvision's, or Keras's where a bottleneck strides in its first convolution.

    Attributes:
        backbone: the ResNet that it shares.
        stride_in_1x1: as the original's ResNet v1, which strides in the first convolution of a bottleneck.
    """

    kind: Literal["delf"]
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"]
    stride_in_1x1: bool

    @model_validator(mode="after")
    def _check_together(self) -> DELFModel:
        if self.stride_in_1x1 and self.backbone in ("resnet18", "resnet34"):
            raise InputError(
                f"model.stride_in_1x1=true: {self.backbone} has no 1x1 convolution to stride; allowed: false"
            )
        return self


class TimmModel(_Model):
    """``model=timm``: DELF on an encoder of the package timm; with DELF's three branches.

    Its file of ``weights`` may be ``.safetensors`` too; None as ``normalisation`` is that of timm's own weights.

    Attributes:
        name: the encoder's, as timm names it; its maps of 16 and 32 pixels are used.
    """

    kind: Literal["timm"]
    name: Text


class Supervised(Settings):
    """``objective=supervised``: what the labels of the images say."""

    kind: Literal["supervised"]


class SelfSupervised(Settings):
    """``objective=self_supervised``: two views of an image are alike, place for place and as a whole; without labels.

    Attributes:
        loss: ``contrastive``: the same is told from all others of the batch (InfoNCE); ``vicreg``: the same is alike,
            and no number of the vectors is constant or told by the others (VICReg).
        temperature: similarities are divided by it: the smaller, the more the nearest ones count; contrastive alone.
        length: of the vectors that are compared.
        min_distance: other places of the same image nearer than this, in cells of the map, are neither alike nor
            different; contrastive alone.
        min_brightness: places darker than this, in grey levels, are not compared; 0 for none.
        max_cells: at most so many places of a batch are compared.
    """

    kind: Literal["self_supervised"]
    loss: Literal["contrastive", "vicreg"]
    temperature: Positive
    length: Channels
    min_distance: NotNegative
    min_brightness: Annotated[float, Field(ge=0, le=255)]
    max_cells: Annotated[int, Field(ge=2, le=65536)]


class Optimisation(Settings):
    """How the weights are found, and how their figures are told.

    Attributes:
        optimiser: ``sgd`` (momentum, not Nesterov) or ``adamw``.
        schedule: of the learning rate: ``linear`` falls to zero over max_steps, ``cosine`` too, along half a wave.
        learning_rate: at the start, or after the warm-up.
        momentum: of SGD.
        weight_decay: 0 for none.
        attention_decay: weight decay of the attention's two convolutions alone, on top (the original
            declares 1e-4 and never applies it).
        warmup_steps: steps over which the learning rate rises from zero; 0 for none.
        max_steps: steps of the whole training.
        log_every: steps between two rows of training figures.
        channels_last: memory layout that convolutions are often faster in.
        compile: run the network through ``torch.compile``.
    """

    optimiser: Literal["sgd", "adamw"] = "sgd"
    schedule: Literal["linear", "cosine"] = "linear"
    learning_rate: Positive
    momentum: Annotated[float, Field(ge=0, le=0.9999)] = 0.9
    weight_decay: NotNegative = 0.0
    attention_decay: NotNegative = 0.0
    warmup_steps: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    max_steps: Steps
    log_every: Steps
    channels_last: bool = False
    compile: bool = False


class TrainerSettings(Optimisation):
    """``trainer``.

    Attributes:
        find_learning_rate: try rising ones first and take the one of the steepest fall.
        gradient_clip: largest norm of all gradients together; None for no limit.
        batch_size: images a step of the optimiser, on all devices and in all accumulated batches together.
        steps_per_check: steps between two validations, each with a checkpoint; the last step is checked too.
        patience: stop after so many validations that were not better; None for never.
        keep: what is exported, the ``best`` weights or the ``last``.
        best_by: the figure of the validation that is best: the accuracy of the attention branch, which is exported, or
            of the descriptor branch, which is not, or all losses together.
        precision: of the arithmetic, in Lightning's words.

    Any further key is an argument of Lightning's Trainer: ``accumulate_grad_batches``, ``devices``, ``profiler`` ...
    """

    model_config = ConfigDict(extra="allow")

    find_learning_rate: bool
    gradient_clip: Positive | None
    batch_size: Annotated[int, Field(ge=2, le=65536)]
    steps_per_check: Steps
    patience: Steps | None
    keep: Literal["best", "last"]
    best_by: Literal["attention_accuracy", "descriptor_accuracy", "loss_total"]
    precision: Literal["32-true", "16-mixed", "bf16-mixed"]

    @model_validator(mode="after")
    def _check_further(self) -> TrainerSettings:
        check_trainer_arguments(self.further, self.batch_size)
        return self

    @property
    def further(self) -> dict[str, Any]:
        """The arguments of Lightning's Trainer beside those that minIA sets."""
        return dict(self.model_extra or {})

    @property
    def devices(self) -> int:
        """Processes on a machine, each with a device of its own."""
        return int(self.further.get("devices", 1))

    @property
    def num_nodes(self) -> int:
        """Machines."""
        return int(self.further.get("num_nodes", 1))

    @property
    def num_processes(self) -> int:
        """Processes on all machines together."""
        return self.devices * self.num_nodes

    @property
    def images_at_once(self) -> int:
        """Images that go through the network together: a step's, shared out to devices and accumulated batches."""
        return self.batch_size // (self.num_processes * int(self.further.get("accumulate_grad_batches", 1)))

    def optimisation(self) -> Optimisation:
        """That part of the settings alone."""
        return Optimisation(**self.model_dump(include=set(Optimisation.model_fields)))


class TrainSettings(Settings):
    """All settings of one training.

    Attributes:
        store: folder of artifacts, shared by all runs; None for ``store`` beside the run's folder.
        seed: of everything random.
        device: where the network trains.
        num_workers: processes that draw and check images; None for all cores.
        threads: of torch on the CPU; None for as many as torch finds best.
        debug: let errors end with a traceback.
        resume: a run's folder or a checkpoint to go on from; None to start anew.
        export: formats of the exported model.
        overwrite: replace model files that a former run left in the same folder.
        data: the labelled images.
        augmentation: what is done to them.
        objective: what it is trained for.
        model: the network.
        trainer: how it is trained.
        callbacks: further callbacks of Lightning by any names, each a class in ``_target_`` with its arguments.
        loggers: further loggers of Lightning, likewise.
    """

    store: AnyPath | None
    seed: Seed
    device: Device
    num_workers: Workers | None
    threads: Workers | None
    debug: bool
    resume: ExistingPath | None
    export: list[Literal["pt", "pt2", "aoti", "onnx"]]
    overwrite: bool
    data: LabelledData
    augmentation: Augmentation
    objective: Annotated[Supervised | SelfSupervised, Field(discriminator="kind")]
    model: Annotated[DELFModel | TimmModel, Field(discriminator="kind")]
    trainer: TrainerSettings
    callbacks: dict[str, dict[str, Any]] = Field(default={}, strict=False)
    loggers: dict[str, dict[str, Any]] = Field(default={}, strict=False)

    @model_validator(mode="after")
    def _check_parts(self) -> TrainSettings:
        for group, parts in (("callbacks", self.callbacks), ("loggers", self.loggers)):
            for name, keys in parts.items():
                check_part(f"{group}.{name}", keys)
        if isinstance(self.objective, Supervised) and not self.data.labelled:
            raise InputError(
                f"objective=supervised: data={self.data.kind} has no labels here; allowed: objective=self_supervised,"
                " or data=folder, or data=csv with data.label_column"
            )
        if self.trainer.num_processes > 1 and self.data.cache == "disk":
            raise InputError("data.cache=disk: of several processes each would write it; allowed: memory, none")
        if self.trainer.num_processes > 1 and self.trainer.find_learning_rate:
            raise InputError("trainer.find_learning_rate=true: in one process alone; allowed with more: false")
        return self
