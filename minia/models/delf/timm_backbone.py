"""Encoders of the package timm under DELF, by their names, with weights from a file such as those of zoobot."""

from __future__ import annotations

import copy
import difflib
import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from minia.core.artifact import InputError
from minia.models.delf.backbone import Window

PREFIX = "timm:"  # of a backbone's name
_STRIDES = (16, 32)  # of the maps that stand for layer3 and layer4, in pixels
_CELLS_SEEN = 4  # side of what a feature is said to see, in cells: with attention or squeezing it is all of the image
_PROBE_SIDE = 384  # pixels
_FARTHEST = 0.85  # share of the pixels that a cell does not see itself, of those
_SHOWN = 5  # names in a message


class TimmBackbone(nn.Module):
    """An encoder of timm, of which the maps of 16 and 32 pixels stand for a ResNet's layer3 and layer4.

    Args:
        name: the encoder's, as timm names it.
        block3_stride: keep every second row and column of layer3's map only.

    Attributes:
        name: with ``PREFIX``.
        stride_in_1x1: False; a ResNet's matter.
        layer3_channels: channels of layer3's map.
        layer4_channels: channels of layer4's map.
        window: of a cell of layer3's map: its centre is measured, its size four cells.
        block_names: what ``forward`` returns.
        norm_options: epsilon and momentum of batch normalisation.

    Raises:
        InputError: timm is not installed, or has no such encoder, or it has no such maps for images of any size.
    """

    stride_in_1x1 = False
    block_names = ("layer3", "layer4")

    def __init__(self, name: str, *, block3_stride: bool) -> None:
        super().__init__()
        self.name = PREFIX + name
        self.body = _create(name)
        self.layer3_channels, self.layer4_channels = self.body.feature_info.channels()
        self.tap_stride = 2 if block3_stride else 1
        offset = _offset(name)
        stride = _STRIDES[0] * self.tap_stride
        size = _CELLS_SEEN * stride + (1 if float(offset).is_integer() else 0)
        self.window = Window(size, stride, int((size - 1) / 2 - offset))
        norms = [module for module in self.body.modules() if isinstance(module, nn.BatchNorm2d)]
        self.norm_options = (norms[0].eps, norms[0].momentum or 0.1) if norms else (1e-5, 0.1)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps of layer3 and layer4.

        Args:
            images: (batch, 3, height, width) float, normalised.

        Returns:
            Each (batch, channels, rows, columns).
        """
        layer3, layer4 = self.body(images)
        return [layer3[:, :, :: self.tap_stride, :: self.tap_stride], layer4]

    def features(self, images: Tensor) -> Tensor:
        """The map of layer3 alone."""
        modules = self._until_layer3()
        layer3: Tensor = nn.Sequential(*modules)(images) if modules else self.body(images)[0]
        return layer3[:, :, :: self.tap_stride, :: self.tap_stride]

    def deeper(self) -> list[nn.Module]:
        """What only layer4's map needs, as far as it can be told apart."""
        before = len(self._until_layer3())
        return list(self.body.children())[before:] if before else []

    def _until_layer3(self) -> list[nn.Module]:
        """The modules that give layer3's map one after the other; none where the encoder is not such a list."""
        from timm.models import FeatureListNet

        if type(self.body) is not FeatureListNet:
            return []
        names, last = list(self.body), next(iter(self.body.return_layers))
        return [self.body[name] for name in names[: names.index(last) + 1]]

    def trunk(self) -> nn.Module:
        """What gives layer3's map before every second row is left out."""
        modules = self._until_layer3()
        return nn.Sequential(*modules) if modules else _First(self.body)

    def load(self, state: Mapping[str, Tensor], source: str) -> list[str]:
        """Load weights.

        Args:
            state: by timm's names, under any prefix.
            source: for messages.

        Returns:
            The names that are not used, those of a classifier among them.

        Raises:
            InputError: they are of another encoder, or leave a layer without weights.
        """
        import timm

        name = self.name.removeprefix(PREFIX)
        needed = timm.create_model(name, pretrained=False, num_classes=0).state_dict()
        first = next(iter(needed))
        prefix = next((each[: -len(first)] for each in state if each == first or each.endswith(f".{first}")), None)
        own = {} if prefix is None else {each[len(prefix) :]: state[each] for each in state if each.startswith(prefix)}
        missing = [each for each, value in needed.items() if each not in own or own[each].shape != value.shape]
        if missing:
            told = ", ".join(missing[:_SHOWN]) + (" ..." if len(missing) > _SHOWN else "")
            raise InputError(f"model.weights={source} are of another network than {name}: no fitting {told}")
        chosen = {each: own[each] for each in needed}
        self.body.load_state_dict(_create(name, chosen).state_dict())
        return [each for each in own if each not in needed]

    def normalisation(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation, in grey levels, that timm's own weights of this encoder expect."""
        import timm

        wanted = timm.get_pretrained_cfg(self.name.removeprefix(PREFIX))
        mean, std = (wanted.mean, wanted.std) if wanted else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        return [255 * each for each in mean], [255 * each for each in std]


class _First(nn.Module):
    """The first of the maps that an encoder gives."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = copy.deepcopy(body)

    def forward(self, images: Tensor) -> Tensor:
        layer3: Tensor = self.body(images)[0]
        return layer3


def _create(name: str, state: Mapping[str, Tensor] | None = None) -> Any:
    """The encoder as a module that gives the two maps, with weights by timm's names or random ones."""
    try:
        import timm
    except ImportError:
        raise InputError("model=timm: needs timm; pip install timm") from None
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=_SHOWN)
        raise InputError(f"model.name={name}: timm has no such encoder; near: {', '.join(near) or 'none'}")
    given: dict[str, Any] = {"pretrained": False}
    if state is not None:  # timm renames its layers where it keeps maps: it loads them before
        given = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": dict(state), "num_classes": 0}}
    try:
        strides = timm.create_model(name, pretrained=False, features_only=True).feature_info.reduction()
        levels = tuple(strides.index(stride) for stride in _STRIDES)
        body = timm.create_model(name, features_only=True, out_indices=levels, **given)
        with torch.no_grad():
            shapes = [tuple(each.shape[2:]) for each in body.eval()(torch.zeros(1, 3, 64, 96))]
        if shapes != [(4, 6), (2, 3)]:
            raise ValueError(f"maps of {shapes}")
    except Exception as error:  # timm and its encoders raise any kind
        why = " ".join(str(error).split())[:80]
        raise InputError(
            f"model.name={name}: has no maps of {_STRIDES[0]} and {_STRIDES[1]} pixels for images of any size ({why});"
            " allowed: such as convnext_nano, efficientnet_b0, regnety_004"
        ) from None
    return body.train()


@functools.cache
def _offset(name: str) -> float:
    """How far below and to the right of pixel 16 j the centre of what cell j sees lies, rounded to half a pixel.

    The mean place of the gradient's weight where all kernels are even and nothing is normalised.
    """
    with torch.random.fork_rng(devices=[]):  # the weights drawn here take no numbers from what is drawn later
        body = _create(name).eval()
    _make_even(body)
    images = torch.ones(1, 3, _PROBE_SIDE, _PROBE_SIDE, requires_grad=True)
    layer3 = body(images)[0]
    first, last = layer3.shape[3] // 2 - 2, layer3.shape[3] // 2 + 2
    layer3[0, :, first:last, first:last].sum().backward()
    assert images.grad is not None
    weight = images.grad[0].abs().double().sum(0)
    # Squeezing spreads a little of it evenly over the whole image.
    weight = (weight - weight.flatten().kthvalue(int(_FARTHEST * weight.numel())).values).clamp_min(0).sum(0)
    centre = float((weight * torch.arange(_PROBE_SIDE)).sum() / weight.sum())
    return float(round(2 * (centre - _STRIDES[0] * (first + last - 1) / 2))) / 2


def _make_even(module: nn.Module) -> None:
    """Let every pixel that a cell sees count: even kernels, means for maxima, no normalisation."""
    for name, child in module.named_children():
        if isinstance(child, (nn.Conv2d, nn.Linear)):
            nn.init.constant_(child.weight, 1 / child.weight[0].numel())
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.MaxPool2d):
            setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
        elif isinstance(child, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)):
            setattr(module, name, nn.Identity())
        else:
            _make_even(child)
