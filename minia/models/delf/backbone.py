"""The ResNet under DELF, tapped after its third stage, and the geometry of what a feature sees.

The layers and their names are torchvision's, so its weights load as they are. The stages are called
layer1 to layer4, as there; layer3 is the original's "block3" (conv4_x), layer4 its "block4".
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from minia.core.artifact import InputError

BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101")
BLOCK_NAMES = ("stem", "pool", "layer1", "layer2", "layer3", "layer4")  # what ``Backbone.forward`` returns
_KERAS_EPSILON, _KERAS_MOMENTUM = 1e-3, 0.01  # Keras writes the momentum as 0.99


class Window(NamedTuple):
    """What one cell of a feature map sees of the image, along one axis.

    Cell i sees the pixels from ``stride * i - padding`` on, ``size`` of them; with symmetric padding
    the centre of the middle one is at ``stride * i``.

    Attributes:
        size: side of the receptive field in pixels.
        stride: pixels between neighbouring cells.
        padding: pixels that the first cell sees beyond the image's edge.
    """

    size: int = 1
    stride: int = 1
    padding: int = 0

    def through(self, kernel: int, stride: int, padding: int) -> Window:
        """The window of a cell one layer further on."""
        return Window(
            self.size + (kernel - 1) * self.stride, self.stride * stride, self.padding + padding * self.stride
        )


class Backbone(nn.Module):
    """A ResNet without its classifier.

    Args:
        name: one of ``BACKBONES``.
        stride_in_1x1: the network of the original (Keras ResNet-50 v1): a bottleneck's stride lies in
            its first 1x1 convolution, not in its 3x3, and batch normalisation has Keras's epsilon and
            momentum. torchvision's weights are for False. Only for networks of bottlenecks.
        block3_stride: keep every second row and column of layer3's map, so that it has stride 32;
            layer4 then has stride 1.

    Attributes:
        name, stride_in_1x1: as given.
        layer3_channels: channels of layer3's map.
        layer4_channels: channels of layer4's map.
        window: the receptive field of a cell of layer3's map.
        block_names: of the maps that ``forward`` gives.
        norm_options: epsilon and momentum of batch normalisation.

    Raises:
        InputError: there is no such backbone, or it has no 1x1 convolution for the stride.
    """

    def __init__(self, name: str, *, stride_in_1x1: bool, block3_stride: bool) -> None:
        super().__init__()
        if name not in BACKBONES:
            raise InputError(f"backbone={name}: there is no such backbone; allowed: {', '.join(BACKBONES)}")
        self.name, self.stride_in_1x1, self.block_names = name, stride_in_1x1, BLOCK_NAMES
        resnet = torchvision.models.get_model(name, weights=None)
        if stride_in_1x1 and not isinstance(resnet.layer1[0], Bottleneck):
            raise InputError(f"stride_in_1x1=true: {name} has no bottlenecks; allowed: resnet50, resnet101")
        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4
        if stride_in_1x1:
            _be_keras(self)
        self.norm_options = self.bn1.eps, self.bn1.momentum or 0.1
        self.tap_stride = 2 if block3_stride else 1
        if block3_stride:
            _remove_strides(self.layer4)
        self.layer3_channels, self.layer4_channels = _out_channels(self.layer3), _out_channels(self.layer4)
        self.window = _window((self.conv1, self.maxpool, self.layer1, self.layer2, self.layer3), self.tap_stride)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps of all blocks.

        Args:
            images: (batch, 3, height, width) float, normalised.

        Returns:
            The maps of ``BLOCK_NAMES``, each (batch, channels, rows, columns), none negative.
        """
        stem = self.relu(self.bn1(self.conv1(images)))
        pool = self.maxpool(stem)
        layer1 = self.layer1(pool)
        layer2 = self.layer2(layer1)
        layer3 = self._tap(self.layer3(layer2))
        return [stem, pool, layer1, layer2, layer3, self.layer4(layer3)]

    def features(self, images: Tensor) -> Tensor:
        """The map of layer3 alone: ``forward(images)[4]``, without the work for layer4."""
        pool = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self._tap(self.layer3(self.layer2(self.layer1(pool))))

    def deeper(self) -> list[nn.Module]:
        """What only layer4's map needs."""
        return [self.layer4]

    def trunk(self) -> nn.Module:
        """What gives layer3's map before every second row is left out, once batch normalisation is folded away."""
        return nn.Sequential(self.conv1, self.relu, self.maxpool, self.layer1, self.layer2, self.layer3)

    def _tap(self, layer3: Tensor) -> Tensor:
        return layer3[:, :, :: self.tap_stride, :: self.tap_stride]


def _be_keras(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, Bottleneck):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, (1, 1)
        elif isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = _KERAS_EPSILON, _KERAS_MOMENTUM


def _remove_strides(stage: nn.Module) -> None:
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)


def _out_channels(stage: nn.Module) -> int:
    """Channels that a stage gives: those of its last block's last convolution."""
    return [module for module in stage.modules() if isinstance(module, nn.Conv2d)][-1].out_channels


def _window(layers: tuple[nn.Module, ...], tap_stride: int) -> Window:
    """The receptive field after some layers, summed over their convolutions and pools.

    Inside a residual block the long way sees at least what the short cut sees, with the same stride.
    """
    window = Window()
    for layer in layers:
        for name, module in layer.named_modules():
            if isinstance(module, nn.Conv2d) and "downsample" not in name:
                assert isinstance(module.padding[0], int)  # a word such as "same" never occurs in a ResNet
                window = window.through(module.kernel_size[0], module.stride[0], module.padding[0])
            elif isinstance(module, nn.MaxPool2d):
                window = window.through(_int(module.kernel_size), _int(module.stride), _int(module.padding))
    return window.through(1, tap_stride, 0)


def _int(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else value[0]


def zero_fractions(blocks: list[Tensor]) -> Tensor:
    """The share of exact zeros in each map: (len(blocks),) float32 in 0..1; near 1 a block is dead."""
    return torch.stack([1 - torch.count_nonzero(block) / block.numel() for block in blocks])
