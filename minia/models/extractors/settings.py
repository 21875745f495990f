"""The settings of the extractors, a model each; ``conf/features/`` explains each key."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from minia.core.context import Context
from minia.core.device import choose_device, choose_precision
from minia.core.setting_types import ExistingFile, NotNegative, Settings, Share

ObjectsChoice = Literal["central", "all", "none", "original"]
PretrainedNetworkName = Literal[
    "disk", "aliked-n16", "aliked-n16rot", "aliked-n32", "aliked-t16", "xfeat", "keynet-hardnet"
]
WindowWidth = Annotated[float, Field(gt=0, le=1)]
Octaves = Annotated[int, Field(ge=1, le=32)]
Scale = Annotated[float, Field(gt=0, le=64)]


class ExtractorSettings(Settings):
    """What every extractor has.

    Attributes:
        num_features: keep at most this many keypoints an image, those of the highest score; 0 keeps all.
        objects: keep only keypoints whose centre lies on these objects (see ``find_objects``).
    """

    kind: str
    num_features: Annotated[int, Field(ge=0, le=10_000_000)]
    objects: ObjectsChoice

    def of_machine(self, context: Context) -> dict[str, str]:
        """What of the machine decides the features too: those made on another must not pass for this one's."""
        return {}


class DenseSettings(ExtractorSettings):
    """Dense features.

    Attributes:
        sizes: widths of the windows, each as a share of the image's shorter side.
        step: the least distance of neighbours, as a share of the window's width.
        fovea: by how much closer neighbours are in the middle of the central object than at its radius: 0: everywhere
            alike; 0.85: 0.15 times as far apart. Without effect where the central object is not asked for.
        mirrored: describe a thing and its mirror image alike.
    """

    kind: Literal["dense"] = "dense"
    sizes: Annotated[tuple[WindowWidth, ...], Field(strict=False, min_length=1, max_length=32)]
    step: Annotated[float, Field(ge=0.01, le=10)]
    fovea: Annotated[float, Field(ge=0, le=0.95)]
    mirrored: bool


class SIFTSettings(ExtractorSettings):
    """SIFT.

    Attributes:
        octave_layers: layers in each octave.
        contrast_threshold: keypoints of lower contrast are dropped (OpenCV divides it by octave_layers).
        edge_threshold: keypoints on straighter edges are dropped; larger keeps more.
        sigma: blur of the first octave's base in pixels.
        root_sift: RootSIFT (Arandjelovic and Zisserman 2012): the square root of the L1-normalised descriptor, of
            unit L2 norm, so that Euclidean distance becomes the Hellinger kernel.
    """

    kind: Literal["sift"] = "sift"
    octave_layers: Octaves
    contrast_threshold: Annotated[float, Field(ge=0, le=1000)]
    edge_threshold: Annotated[float, Field(gt=0, le=1e6)]
    sigma: Annotated[float, Field(gt=0, le=64)]
    root_sift: bool


class SURFSettings(ExtractorSettings):
    """SURF.

    Attributes:
        hessian_threshold: keypoints of a smaller determinant of the Hessian are dropped.
        octaves: number of octaves.
        octave_layers: layers in each octave.
        extended: describe by 128 numbers rather than 64.
        upright: do not estimate the orientation.
    """

    kind: Literal["surf"] = "surf"
    hessian_threshold: NotNegative
    octaves: Octaves
    octave_layers: Octaves
    extended: bool
    upright: bool


class DELFSettings(ExtractorSettings):
    """DELF.

    Attributes:
        model: a TorchScript file that ``export_delf`` wrote, or a checkpoint of the training.
        selection: ``attention``: the keypoints of the highest scores; ``dense``: every place of the network's map, on
            the objects; where these are more than ``num_features``, the finest grids are widened.
        scales: sizes at which an image is looked at, 1 = its own.
        score_threshold: drop lower scores; 0 keeps all. What a score means depends on the training run.
        score_percentile: drop scores below this percentile, 0..100, of the image's own; 0 keeps all.
        nms_iou: of two keypoints whose boxes overlap more (intersection over union), keep the better; 1 keeps both.
        batch_size: images of one size that may go through the network together; fewer do where the largest scale
            fills the device with fewer.
        precision: ``float32``; ``half`` for the convolutions in float16 on CUDA and bfloat16 on the CPU; ``auto``:
            see :func:`minia.core.device.choose_precision`.
    """

    kind: Literal["delf"] = "delf"
    model: ExistingFile
    selection: Literal["attention", "dense"] = "attention"
    scales: Annotated[tuple[Scale, ...], Field(strict=False, min_length=1, max_length=64)]
    score_threshold: NotNegative
    score_percentile: Annotated[float, Field(ge=0, le=100)]
    nms_iou: Share
    batch_size: Annotated[int, Field(ge=1, le=1024)]
    precision: Literal["auto", "float32", "half"]

    def of_machine(self, context: Context) -> dict[str, str]:
        """The device, and the precision as it comes out there."""
        device = choose_device(context.device)
        return {"device": device, "precision": choose_precision(self.precision, device)}


class PretrainedSettings(ExtractorSettings):
    """A network that others trained.

    Attributes:
        network: which.
        weights: the file of its weights; nothing in it is run.
        descriptor_weights: of ``keynet-hardnet``, the file of HardNet's weights; None for the others.
        scales: sizes at which an image is looked at, 1 = its own.
        score_threshold: drop lower scores; None for the network's usual threshold.
        batch_size: images of one size that go through the network together.
    """

    kind: Literal["pretrained"] = "pretrained"
    network: PretrainedNetworkName
    weights: ExistingFile
    descriptor_weights: ExistingFile | None
    scales: Annotated[tuple[Scale, ...], Field(strict=False, min_length=1, max_length=64)]
    score_threshold: NotNegative | None
    batch_size: Annotated[int, Field(ge=1, le=1024)]

    def of_machine(self, context: Context) -> dict[str, str]:
        """The device."""
        return {"device": choose_device(context.device)}
