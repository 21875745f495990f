"""What a DELF network learns from two views of each image, without any label.

Both views are of one image under different affine maps, which are known, so it is known as well which cells of their
maps show the same place. Two losses compare vectors of what is the same: of cells, the same place, as in VADeR
(Pinheiro et al. 2020, arXiv:2011.05499) and DenseCL (Wang et al. 2021, arXiv:2011.09157), which trains the backbone;
and of images, of the mean of the features weighted by attention, which trains the attention: it has to choose what
tells an image from others. Either they ask for vectors that tell the same from all others of the batch (InfoNCE), or
for vectors that are the same while none of their numbers is constant or told by another (VICReg, Bardes et al. 2022,
arXiv:2105.04906), which pushes nothing away from what looks like it. The autoencoder learns as it does with labels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from minia.models.delf.backbone import Window
from minia.models.delf.network import DELF, LossWeights, pool_by_attention

_EXCLUDED = -1e4  # in place of a similarity
_COVARIANCE = 1 / 25  # VICReg's factors, 25, 25 and 1, so that its loss is of the size of the contrast


class Comparison(NamedTuple):
    """How two views are compared.

    Attributes:
        loss: ``contrastive`` (InfoNCE) or ``vicreg``.
        temperature: similarities are divided by it: the smaller, the more the nearest ones count; of InfoNCE.
        min_distance: other places of the same image nearer than this, in cells of the first view's map, are left out.
        min_brightness: cells of the first view darker than this, in grey levels, are left out; 0 for none.
        max_cells: at most so many cells of a batch are compared.
    """

    loss: str
    temperature: float
    min_distance: float
    min_brightness: float
    max_cells: int


class ViewOutput(NamedTuple):
    """What the network says of views.

    Attributes:
        cells: (views, length, rows, columns) vectors that are compared.
        whole: (views, length), one of each view as a whole.
        attention: (views, 1, rows, columns), at least 0.
        descriptors: (views, reduction, rows, columns), not normalised.
        layer3: (views, channels, rows, columns), without gradient.
        reconstruction: (views, channels, rows, columns).
    """

    cells: Tensor
    whole: Tensor
    attention: Tensor
    descriptors: Tensor
    layer3: Tensor
    reconstruction: Tensor


class Matches(NamedTuple):
    """The cells that are compared, of first views, and what is at the same places of second views.

    Attributes:
        image: (num_cells,) int64, which image of the batch each is of.
        cell: (num_cells,) int64, row by row in the first view's map.
        grid: (num_cells, 2) float32, x and y in the second view's map, from -1 in its first cell to 1 in its last.
        excluded: (num_cells, num_cells) bool, pairs of different places that are too near each other.
    """

    image: Tensor
    cell: Tensor
    grid: Tensor
    excluded: Tensor

    def vectors(self, maps: Tensor, unit: bool = True) -> tuple[Tensor, Tensor]:
        """Vectors of the cells and of their matches, (num_cells, channels) float32 each.

        Args:
            maps: (2 * batch, channels, rows, columns), the first views and then the second ones.
            unit: make their length 1.
        """
        first, second = maps.float().chunk(2)
        here = first.flatten(2)[self.image, :, self.cell]
        # Of all images at once: the number of cells differs between them.
        x, y = ((self.grid + 1) / 2 * (self.grid.new_tensor([maps.shape[3], maps.shape[2]]) - 1)).unbind(1)
        there = _interpolated(second, self.image, x, y)
        return (F.normalize(here, dim=1), F.normalize(there, dim=1)) if unit else (here, there)


def _interpolated(maps: Tensor, image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(n, channels) of maps (batch, channels, rows, columns) between the cells at x and y (n,) of an image each."""
    left, top = x.floor().clamp(0, maps.shape[3] - 1).long(), y.floor().clamp(0, maps.shape[2] - 1).long()
    right, bottom = (left + 1).clamp(max=maps.shape[3] - 1), (top + 1).clamp(max=maps.shape[2] - 1)
    across, down = (x - left)[:, None], (y - top)[:, None]
    upper = maps[image, :, top, left] * (1 - across) + maps[image, :, top, right] * across
    lower = maps[image, :, bottom, left] * (1 - across) + maps[image, :, bottom, right] * across
    return upper * (1 - down) + lower * down


class ViewHeads(nn.Module):
    """Two small networks that make of features what is compared; training alone needs them.

    Args:
        channels: of layer3's map.
        length: of the vectors that are compared.
    """

    def __init__(self, channels: int, length: int) -> None:
        super().__init__()
        self.cells = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, length, 1)
        )
        self.whole = nn.Sequential(
            nn.Linear(channels, channels), nn.BatchNorm1d(channels), nn.ReLU(), nn.Linear(channels, length)
        )


class ViewNetwork(nn.Module):
    """A DELF network with the heads for two views; layer4 and the classifiers are not used.

    Args:
        network: is trained.
        length: of the vectors that are compared.
    """

    def __init__(self, network: DELF, length: int) -> None:
        super().__init__()
        self.network = network
        self.heads = ViewHeads(network.backbone.layer3_channels, length)
        unused = (*network.backbone.deeper(), network.descriptor_classifier, network.attention_classifier)
        for part in unused:  # else several processes would wait for their gradients
            part.requires_grad_(False)

    def forward(self, images: Tensor) -> ViewOutput:
        """What is said of views (views, 3, side, side) float, normalised."""
        layer3 = self.network.backbone.features(images)
        features = layer3.detach()  # as with labels, attention and autoencoder leave the backbone alone
        attention = self.network.attention(features)
        descriptors, reconstruction = self.network.reduction(features)
        whole = self.heads.whole(pool_by_attention(attention, reconstruction))
        return ViewOutput(self.heads.cells(layer3), whole, attention, descriptors, features, reconstruction)


def match_cells(views: Tensor, matrices: Tensor, shape: tuple[int, int], window: Window, how: Comparison) -> Matches:
    """Which cells show the same place in both views of an image.

    Args:
        views: (2 * batch, 3, side, side) float grey levels, the first views and then the second ones.
        matrices: (2 * batch, 3, 3) from each view to its image; coordinates run from -1 to 1 between edges.
        shape: rows and columns of the maps.
        window: what a cell sees, in pixels of a view.
        how: which of them are compared.
    """
    rows, columns = shape
    side, first = views.shape[-1], views[: len(views) // 2]
    centre = (window.size - 1) / 2 - window.padding
    axes = [(2 * (window.stride * torch.arange(count) + centre) + 1) / side - 1 for count in shape]
    y, x = torch.meshgrid(*axes, indexing="ij")
    here = torch.stack([x.flatten(), y.flatten(), torch.ones(rows * columns)]).to(matrices)
    to_image, other = matrices.chunk(2)
    place = to_image @ here  # (batch, 3, cells)
    there = torch.linalg.inv(other) @ place
    cells = (((there[:, :2] + 1) * side - 1) / 2 - centre) / window.stride
    last = cells.new_tensor([columns - 1, rows - 1])[:, None]
    inside = ((cells >= 0) & (cells <= last)).all(1)
    if how.min_brightness:
        light = F.avg_pool2d(first.amax(1, keepdim=True), window.stride, window.stride, window.stride // 2,
                             count_include_pad=False)  # fmt: skip
        inside &= light[:, 0, :rows, :columns].flatten(1) >= how.min_brightness
    image, cell = inside.nonzero(as_tuple=True)
    if len(image) > how.max_cells:  # evenly, and not at random: a resumed training takes the same
        kept = torch.linspace(0, len(image) - 1, how.max_cells, device=image.device).long()
        image, cell = image[kept], cell[kept]
    at = place[:, :2].transpose(1, 2)[image, cell]
    # A cell of the first view in the image: its area is that of the map's determinant.
    pitch = 2 * window.stride / side * torch.linalg.det(to_image[:, :2, :2]).abs().sqrt()
    near = torch.cdist(at, at) < how.min_distance * pitch[image][:, None]
    near &= image[:, None] == image[None, :]
    near.fill_diagonal_(False)
    grid = (2 * cells / last.clamp_min(1) - 1).transpose(1, 2)[image, cell]
    return Matches(image, cell, grid, near)


def contrast(first: Tensor, second: Tensor, temperature: float, excluded: Tensor | None = None) -> Tensor:
    """InfoNCE both ways: how far each of the first is from telling its match among all of the second, and back.

    Args:
        first: (n, length) of length 1.
        second: (n, length), likewise; row i is the match of row i.
        temperature: similarities are divided by it.
        excluded: (n, n) bool, pairs that do not count.

    Returns:
        A scalar; 0 where there is nothing to compare.
    """
    similar = first @ second.T / temperature
    if excluded is not None:
        similar = similar.masked_fill(excluded, _EXCLUDED)
    right = torch.arange(len(first), device=first.device)
    total = F.cross_entropy(similar, right, reduction="sum") + F.cross_entropy(similar.T, right, reduction="sum")
    return total / max(1, 2 * len(first))


def vicreg(first: Tensor, second: Tensor) -> Tensor:
    """VICReg: how far matches differ, and each number is constant or told by the others.

    Its sum of invariance, variance and covariance is divided by the first one's factor, 25.

    Args:
        first: (n, length).
        second: (n, length); row i is the match of row i.

    Returns:
        A scalar; 0 where there are fewer than two rows.
    """
    if len(first) < 2:  # nothing varies
        return 0 * (first.sum() + second.sum())
    loss = F.mse_loss(first, second)
    for vectors in (first, second):
        centred = vectors - vectors.mean(0)
        covariance = centred.T @ centred / (len(vectors) - 1)
        variance = covariance.diagonal()
        loss = loss + F.relu(1 - (variance + 1e-4).sqrt()).mean() / 2
        loss = loss + _COVARIANCE * (covariance.square().sum() - variance.square().sum()) / len(variance)
    return loss


def view_losses(output: ViewOutput, matches: Matches, weights: LossWeights, how: Comparison) -> dict[str, Tensor]:
    """The losses of a batch of two views an image, the first views and then the second ones.

    Args:
        output: of ``ViewNetwork.forward``.
        matches: of the views' cells.
        weights: factors in the sum.
        how: both comparisons are made.

    Returns:
        Scalars: ``descriptor`` (cells), ``attention`` (images), ``reconstruction`` (mean squared error over all
        elements), each without its factor, and their weighted sum ``total``.
    """
    if how.loss == "vicreg":
        descriptor = vicreg(*matches.vectors(output.cells, unit=False))
        attention = vicreg(*output.whole.float().chunk(2))
    else:
        descriptor = contrast(*matches.vectors(output.cells), how.temperature, matches.excluded)
        first, second = F.normalize(output.whole.float(), dim=1).chunk(2)
        attention = contrast(first, second, how.temperature)
    reconstruction = F.mse_loss(output.reconstruction.float(), output.layer3.float())
    total = weights.descriptor * descriptor + weights.attention * attention + weights.reconstruction * reconstruction
    return {"descriptor": descriptor, "attention": attention, "reconstruction": reconstruction, "total": total}


def nearest(first: Tensor, second: Tensor, excluded: Tensor | None = None) -> Tensor:
    """Of each row of first (n, length) the row of second (n, length) of highest product: (n,) int64."""
    similar = first @ second.T
    if excluded is not None:
        similar = similar.masked_fill(excluded, _EXCLUDED)
    return similar.argmax(1)
