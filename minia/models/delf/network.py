"""The DELF network: local descriptors and the attention that says which of them matter.

Noh et al. 2017 (arXiv:1612.06321) with the autoencoder of Cao et al. 2020 (arXiv:2001.05027), as the
original minIA trains it. Three branches share a ResNet:

- descriptor: layer4's map, mean over positions, classifier. The only one that trains the ResNet.
- reduction: an autoencoder on layer3's map; its middle is the local descriptor.
- attention: a score for each cell of layer3's map; the mean of the reconstructed features, weighted
  by it, goes to a second classifier.

The last two see layer3's map without its gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from minia.core.artifact import InputError
from minia.models.delf.backbone import Backbone, zero_fractions
from minia.models.delf.timm_backbone import PREFIX, TimmBackbone
from minia.models.delf.votes import votes_loss

# Mean and standard deviation of red, green and blue that an image is normalised by, in grey levels 0..255.
NORMALISATIONS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),  # torchvision's weights
    "original": ((128.0, 128.0, 128.0), (128.0, 128.0, 128.0)),  # the original minIA: about -1..1
    "unit": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),  # 0..1, as some encoders of timm and of zoobot
    "caffe": ((123.68, 116.779, 103.939), (1.0, 1.0, 1.0)),  # Keras's ResNet-50 weights
}
_SMALLEST_SQUARED_NORM = 1e-12


class DELFOutput(NamedTuple):
    """What the network says of a batch.

    descriptor_logits: (batch, num_classes) of the descriptor branch.
    attention_logits: (batch, num_classes) of the attention branch.
    attention: (batch, 1, rows, columns), at least 0, not bounded above.
    descriptors: (batch, reduction, rows, columns), not normalised.
    layer3: (batch, channels, rows, columns), at least 0, without gradient.
    reconstruction: (batch, channels, rows, columns), layer3's map out of the descriptors.
    zero_fractions: share of zeros in each of the backbone's ``block_names``; empty unless asked for.
    """

    descriptor_logits: Tensor
    attention_logits: Tensor
    attention: Tensor
    descriptors: Tensor
    layer3: Tensor
    reconstruction: Tensor
    zero_fractions: Tensor


class LossWeights(NamedTuple):
    """The factors of the three losses in their sum; the defaults are the original's."""

    descriptor: float = 1.0
    attention: float = 1.0
    reconstruction: float = 10.0


class Attention(nn.Module):
    """A score for each cell of a map: two 1x1 convolutions and a softplus.

    Args:
        channels: channels of the map.
        hidden: channels between the two convolutions.
        epsilon: of the batch normalisation, as the backbone's.
        momentum: of the batch normalisation, as the backbone's.
    """

    def __init__(self, channels: int, hidden: int, epsilon: float, momentum: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, hidden, 1)
        self.bn1 = nn.BatchNorm2d(hidden, eps=epsilon, momentum=momentum)
        self.conv2 = nn.Conv2d(hidden, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Scores (batch, 1, rows, columns), at least 0, of a map (batch, channels, rows, columns)."""
        return F.softplus(self.conv2(torch.relu(self.bn1(self.conv1(features)))))


class Reduction(nn.Module):
    """The autoencoder: a linear map to fewer channels, and back through a ReLU.

    Args:
        channels: channels of the map.
        reduced: channels of a local descriptor.
    """

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(channels, reduced, 1)
        self.decoder = nn.Conv2d(reduced, channels, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Descriptors (batch, reduced, rows, columns) and the reconstruction, of the map's shape."""
        descriptors = self.encoder(features)
        return descriptors, torch.relu(self.decoder(descriptors))


class DELF(nn.Module):
    """The network; training, validation and export all go through it.

    Args:
        backbone: one of ``backbone.BACKBONES``, or ``timm:`` and the name of an encoder of timm.
        num_classes: classes that the two classifiers tell apart.
        stride_in_1x1: let a bottleneck's first convolution stride, and not its second, as the original does.
        block3_stride: keep every second row and column of layer3's map only, as the original does, so that local
            features are 32 pixels apart and not 16.
        reduction: length of a local descriptor.
        attention_channels: hidden channels of the attention.

    Attributes:
        receptive_field, stride, padding: geometry of a cell in pixels, derived from the layers; cell
            (row i, column j) sees a square of side ``receptive_field`` about pixel (stride j, stride i).
        mean, std: (3,) float32 buffers, what ``normalise`` uses, in grey levels.

    Raises:
        InputError: an argument is not allowed.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str,
        num_classes: int,
        *,
        stride_in_1x1: bool,
        block3_stride: bool,
        reduction: int = 128,
        attention_channels: int = 512,
    ) -> None:
        super().__init__()
        self.backbone: Backbone | TimmBackbone
        if backbone.startswith(PREFIX):
            self.backbone = TimmBackbone(backbone.removeprefix(PREFIX), block3_stride=block3_stride)
        else:
            self.backbone = Backbone(backbone, stride_in_1x1=stride_in_1x1, block3_stride=block3_stride)
        channels = self.backbone.layer3_channels
        self.attention = Attention(channels, attention_channels, *self.backbone.norm_options)
        self.reduction = Reduction(channels, reduction)
        self.descriptor_classifier = nn.Linear(self.backbone.layer4_channels, num_classes)
        self.attention_classifier = nn.Linear(channels, num_classes)
        self.receptive_field, self.stride, self.padding = self.backbone.window
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("std", torch.ones(3))
        self.set_normalisation("imagenet")  # until other weights or settings say otherwise

    def set_normalisation(self, name: str) -> None:
        """Choose what ``normalise`` does, one of ``NORMALISATIONS``.

        Raises:
            InputError: there is no such normalisation.
        """
        if name not in NORMALISATIONS:
            raise InputError(f"normalisation={name}: expected {' or '.join(NORMALISATIONS)}")
        mean, std = NORMALISATIONS[name]
        self.mean.copy_(torch.tensor(mean))
        self.std.copy_(torch.tensor(std))

    def normalise(self, images: Tensor) -> Tensor:
        """Images in grey levels as the network wants them.

        Args:
            images: (batch, 3, height, width) uint8, or float, 0..255, red first.

        Returns:
            The same shape, float of the buffers' precision.
        """
        return (images.to(self.mean.dtype) - self.mean[:, None, None]) / self.std[:, None, None]

    def forward(self, images: Tensor, with_zero_fractions: bool = False) -> DELFOutput:
        """All that the losses, the metrics and the export need.

        Args:
            images: (batch, 3, height, width) float, normalised (``normalise``).
            with_zero_fractions: fill ``zero_fractions``, which reads all maps once more.
        """
        blocks = self.backbone(images)
        layer3, layer4 = blocks[-2].detach(), blocks[-1]
        attention = self.attention(layer3)
        descriptors, reconstruction = self.reduction(layer3)
        return DELFOutput(
            descriptor_logits=self.descriptor_classifier(layer4.mean((2, 3))),
            attention_logits=self.attention_classifier(pool_by_attention(attention, reconstruction)),
            attention=attention,
            descriptors=descriptors,
            layer3=layer3,
            reconstruction=reconstruction,
            zero_fractions=zero_fractions(blocks) if with_zero_fractions else images.new_empty(0),
        )

    def local_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """``attention`` and ``descriptors`` of ``forward``, without the work for layer4 and the classifiers."""
        layer3 = self.backbone.features(images)
        return self.attention(layer3), self.reduction.encoder(layer3)


def pool_by_attention(attention: Tensor, features: Tensor) -> Tensor:
    """The mean over positions of attention times the L2-normalised feature.

    Args:
        attention: (batch, 1, rows, columns).
        features: (batch, channels, rows, columns).

    Returns:
        (batch, channels) float32; not divided by the sum of the attention.
    """
    # Not in float16: there the factor of a cell without features, 1e6, is infinite, and 0 times it not a number.
    features = features.float()
    squared_norm = features.square().sum(dim=1, keepdim=True)
    normalised = features * torch.rsqrt(squared_norm.clamp_min(_SMALLEST_SQUARED_NORM))
    return (attention * normalised).mean((2, 3))


def losses(
    output: DELFOutput,
    labels: Tensor,
    weights: LossWeights | None = None,
    votes: Tensor | None = None,
    questions: Sequence[int] = (),
) -> dict[str, Tensor]:
    """The losses of a batch.

    Args:
        output: of ``DELF.forward``.
        labels: (batch,) int64, 0..num_classes - 1.
        weights: factors in the sum; None for the original's.
        votes: (batch, num_answers), for each answer, in place of labels.
        questions: the number of answers of each question, where there are votes.

    Returns:
        Scalars: ``descriptor`` and ``attention`` (cross-entropy, or of votes), ``reconstruction`` (mean squared
        error over all elements), each without its factor, and their weighted sum ``total``.
    """
    weights = weights or LossWeights()
    if votes is None:
        descriptor = F.cross_entropy(output.descriptor_logits.float(), labels)
        attention = F.cross_entropy(output.attention_logits.float(), labels)
    else:
        descriptor = votes_loss(output.descriptor_logits, votes, questions)
        attention = votes_loss(output.attention_logits, votes, questions)
    reconstruction = F.mse_loss(output.reconstruction.float(), output.layer3.float())
    total = weights.descriptor * descriptor + weights.attention * attention + weights.reconstruction * reconstruction
    return {"descriptor": descriptor, "attention": attention, "reconstruction": reconstruction, "total": total}
