"""Local features of images at several scales: the inference half of DELF.

One module does it all on tensors, so that extraction, the exported files and C++ give the same
numbers: normalising, resizing, the network up to layer3, geometry, selection. It is written in the
subset of Python that every exporter understands.
"""

import copy
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils.fusion import fuse_conv_bn_eval

from minia.models.delf.backbone import Backbone
from minia.models.delf.network import DELF

TILE_PIXELS = 1 << 24  # some 1.5 GB of maps (resnet50, float32)


class Selection(NamedTuple):
    """The chosen local features of a batch, by falling score.

    num_rows is ``max_features``, or the number of all cells where that is 0. An image with fewer
    features has rows of score -1 at its end, to be dropped.

    boxes: (batch, num_rows, 4) float32, x_min, y_min, x_max, y_max of the receptive field in pixels
        of the original image (centre of its top-left pixel = (0, 0)); may reach beyond its edges.
    keypoints: (batch, num_rows, 2) float32, x and y of the receptive field's centre, in pixels of the original image.
    descriptors: (batch, num_rows, descriptor_size) float32, of unit L2 norm.
    scales: (batch, num_rows) float32, original pixels to a pixel of the image the feature was found
        in: 1 / scale. Times ``receptive_field`` it is the side of the box.
    scores: (batch, num_rows) float32, attention, at least 0. Where the network overflowed, in half
        precision, it is NaN or infinite: such rows come first, whatever the thresholds.
    """

    boxes: Tensor
    keypoints: Tensor
    descriptors: Tensor
    scales: Tensor
    scores: Tensor


class LocalFeatures(nn.Module):
    """A DELF network for inference: without layer4 and classifiers, batch normalisation folded away.

    Large images go through the network in tiles, each with as much about it as its cells see: the same numbers up
    to rounding, in memory that the image's size does not decide (8,192 pixels at scale 4 took 99 GB as a whole).

    Args:
        network: is copied, not changed.
        tile_pixels: images of more pixels, at a scale, are cut into tiles of about so many; 0: none is, for
            exporters that trace, which cannot follow a choice that an image's size makes.

    Attributes:
        receptive_field, stride, padding: in pixels: a cell in row i and column j of the map sees a square of side
            ``receptive_field``, the middle of which is ``stride * i`` down and ``stride * j`` across.
        descriptor_size: length of a descriptor.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: DELF, tile_pixels: int = TILE_PIXELS) -> None:
        super().__init__()
        network = copy.deepcopy(network).eval()
        # Of encoders of timm the heads alone: their batch normalisation may hold the activation too.
        _fold_batch_norms(network if isinstance(network.backbone, Backbone) else network.attention)
        self.trunk = network.backbone.trunk()
        self.attention, self.encoder = network.attention, network.reduction.encoder
        self.register_buffer("mean", network.mean)
        self.register_buffer("std", network.std)
        self.tap_stride = network.backbone.tap_stride
        self.receptive_field, self.stride, self.padding = network.receptive_field, network.stride, network.padding
        self.descriptor_size = self.encoder.out_channels
        self.tile_pixels = tile_pixels
        self.requires_grad_(False)

    def forward(
        self,
        images: Tensor,
        masks: Tensor | None,
        scales: list[float],
        max_features: int,
        score_threshold: float,
        score_percentile: float,
        nms_iou: float,
    ) -> Selection:
        """Find, describe and select.

        Args:
            images: (batch, 3, height, width) uint8, red first.
            masks: (batch, height, width) bool, keep only features whose centre is on a True pixel
                (the nearest one); None keeps all.
            scales: sizes at which the images are looked at, 1 = their own; rounded to 1/10000.
            max_features: keep at most this many features an image; 0 keeps all.
            score_threshold: keep scores of at least this; 0 keeps all.
            score_percentile: keep scores at or above this percentile, 0..100, of the image's own
                (on the mask); 0 keeps all.
            nms_iou: of two boxes whose intersection over union is above this, keep the one of the
                higher score; at 1 none is dropped.
        """
        height, width = images.shape[2], images.shape[3]
        normalised = (images.to(self.mean.dtype) - self.mean[:, None, None]) / self.std[:, None, None]
        all_scores: list[Tensor] = []
        all_descriptors: list[Tensor] = []
        all_places: list[Tensor] = []
        for scale in scales:
            rows, columns = resized_side(height, scale), resized_side(width, scale)
            if self.tile_pixels > 0 and rows * columns > self.tile_pixels:
                attention, descriptors = self._in_tiles(normalised, rows, columns)
            else:
                attention, descriptors = self._local_features(_resize(normalised, rows, columns))
            all_scores.append(attention.flatten(1).float())
            all_descriptors.append(descriptors.flatten(2))
            all_places.append(self._places(attention, height / rows, width / columns, scale))
        scores = torch.cat(all_scores, dim=1)
        places = torch.cat(all_places)
        boxes = torch.cat([places[:, :2] - places[:, 2:4], places[:, :2] + places[:, 2:4]], dim=1)
        scores = _drop(scores, places, masks, score_threshold, score_percentile)
        scores, order = _choose(scores, boxes, max_features, nms_iou)
        index = order[:, None, :].expand(-1, self.descriptor_size, -1)
        chosen = torch.cat(all_descriptors, dim=2).gather(2, index).transpose(1, 2)
        return Selection(
            boxes=boxes[order],
            keypoints=places[:, :2][order],
            descriptors=F.normalize(chosen.float(), dim=2),
            scales=places[:, 4][order],
            scores=scores,
        )

    def _local_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Attention and descriptor map; in the precision of the weights."""
        images = images.to(dtype=self.encoder.weight.dtype).contiguous(memory_format=torch.channels_last)
        layer3 = self.trunk(images)
        if self.tap_stride > 1:  # every second cell; a slice would make the exporters' sizes static
            layer3 = F.max_pool2d(layer3, kernel_size=1, stride=self.tap_stride)
        return self.attention(layer3), self.encoder(layer3)

    def _in_tiles(self, images: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Attention and descriptor map of images, resized to a height and width, tile by tile.

        A tile begins at a multiple of the stride, so that its cells are those of the whole image; about it there is a
        receptive field more, but at the image's edges, where the network pads it as it pads the whole.
        """
        margin = (self.receptive_field // self.stride + 1) * self.stride
        side = max(int(self.tile_pixels**0.5) // self.stride * self.stride - 2 * margin, self.stride)
        attention: list[Tensor] = []
        descriptors: list[Tensor] = []
        for top in range(0, height, side):
            first, last = max(top - margin, 0), min(top + side + margin, height)
            rows = _resize_part(images, 2, height, first, last)
            attention_row: list[Tensor] = []
            descriptors_row: list[Tensor] = []
            for left in range(0, width, side):
                begin, end = max(left - margin, 0), min(left + side + margin, width)
                found = self._local_features(_resize_part(rows, 3, width, begin, end))
                down, across = (top - first) // self.stride, (left - begin) // self.stride
                more_down = side // self.stride if top + side < height else found[0].shape[2]
                more_across = side // self.stride if left + side < width else found[0].shape[3]
                attention_row.append(found[0][:, :, down : down + more_down, across : across + more_across])
                descriptors_row.append(found[1][:, :, down : down + more_down, across : across + more_across])
            attention.append(torch.cat(attention_row, dim=3))
            descriptors.append(torch.cat(descriptors_row, dim=3))
        return torch.cat(attention, dim=2), torch.cat(descriptors, dim=2)

    def _places(self, attention: Tensor, per_row: float, per_column: float, scale: float) -> Tensor:
        """Where a map's cells lie: (rows * columns, 5) x, y, half the box's width and height, 1 / scale.

        Args:
            attention: the map.
            per_row: rows of the original image to one of the resized image.
            per_column: columns, likewise.
            scale: of the resized image.
        """
        rows, columns = attention.shape[2], attention.shape[3]
        middle = (self.receptive_field - 1) / 2 - self.padding  # 0 where the padding is symmetric
        device = attention.device
        y = torch.arange(rows, device=device, dtype=torch.float32) * self.stride + middle
        x = torch.arange(columns, device=device, dtype=torch.float32) * self.stride + middle
        # Pixel centres: the left edge of the resized image is at -0.5, as is the original's.
        y = ((y + 0.5) * per_row - 0.5)[:, None].expand(rows, columns).flatten()
        x = ((x + 0.5) * per_column - 0.5)[None, :].expand(rows, columns).flatten()
        half_width = torch.full_like(x, 1.0) * (self.receptive_field / 2 * per_column)
        half_height = torch.full_like(x, 1.0) * (self.receptive_field / 2 * per_row)
        return torch.stack([x, y, half_width, half_height, torch.full_like(x, 1.0 / scale)], dim=1)


def resized_side(side: int, scale: float) -> int:
    """A side at a scale, rounded, at least 1; in whole numbers, which every exporter keeps dynamic."""
    return max((2 * side * int(scale * 10000 + 0.5) + 10000) // 20000, 1)


def _resize(images: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, with pixel centres at half, not blurred before shrinking: as the original does it."""
    return F.interpolate(images, size=[height, width], mode="bilinear", align_corners=False)


def _resize_part(images: Tensor, dim: int, size: int, first: int, last: int) -> Tensor:
    """Some rows (dim 2) or columns (dim 3) of what ``_resize`` gives along that side, with ``size`` of them in all."""
    old = images.shape[dim]
    place = (torch.arange(first, last, device=images.device, dtype=torch.float64) + 0.5) * (old / size) - 0.5
    place = place.clamp(0, old - 1)
    low = place.floor().long()
    high = (low + 1).clamp(max=old - 1)
    share = (place - low).to(images.dtype)
    share = share[:, None] if dim == 2 else share
    return images.index_select(dim, low) * (1 - share) + images.index_select(dim, high) * share


def _drop(scores: Tensor, places: Tensor, masks: Tensor | None, threshold: float, percentile: float) -> Tensor:
    """Scores (batch, num_places), those that are not wanted set to -1; what is not a number stays, to be noticed."""
    if masks is not None:
        column = places[:, 0].round().clamp(0, masks.shape[2] - 1).long()
        row = places[:, 1].round().clamp(0, masks.shape[1] - 1).long()
        scores = torch.where(masks[:, row, column], scores, -1.0)
    if percentile > 0.0:
        own = torch.where(scores < 0.0, float("nan"), scores)
        limit = torch.nanquantile(own, percentile / 100.0, dim=1, keepdim=True)
        scores = torch.where(scores < limit, -1.0, scores)  # nothing is below NaN, the limit of no score
    if threshold > 0.0:
        scores = torch.where(scores < threshold, -1.0, scores)
    return scores


def _choose(scores: Tensor, boxes: Tensor, max_features: int, nms_iou: float) -> tuple[Tensor, Tensor]:
    """The best scores of each image and their places, both (batch, num_rows), by falling score."""
    # Stable, so that equal scores stay in the order of scale, row and column on every device. NaN counts as highest.
    scores, order = torch.sort(scores, dim=1, descending=True, stable=True)
    if nms_iou < 1.0:
        kept = torch.zeros_like(scores, dtype=torch.bool)
        for image in range(scores.shape[0]):
            wanted = order[image, ~(scores[image] < 0.0)]
            kept[image, keep_apart(boxes[wanted], nms_iou, max_features)] = True
        scores, again = torch.sort(torch.where(kept, scores, -1.0), dim=1, descending=True, stable=True)
        order = order.gather(1, again)
    if max_features > 0:  # filled up first: a number of rows that depends on the image's size cannot be exported
        scores = F.pad(scores, [0, max_features], value=-1.0)[:, :max_features]
        order = F.pad(order, [0, max_features])[:, :max_features]
    return scores, order


def keep_apart(boxes: Tensor, iou: float, limit: int, block: int = 512) -> Tensor:
    """Non-maximum suppression: drop each box that overlaps a kept, better one too much.

    Plain torch, on any device: a block of boxes is compared with those kept and with itself, and the
    greedy choice inside the block is found by repetition, each of which settles at least one box more.

    Args:
        boxes: (num_boxes, 4) x_min, y_min, x_max, y_max, the best first.
        iou: the largest intersection over union that is allowed.
        limit: stop after this many; 0 for all.
        block: boxes compared at a time.

    Returns:
        (num_kept,) int64, rows of ``boxes``, rising.
    """
    kept = torch.zeros(0, dtype=torch.int64, device=boxes.device)
    start = 0
    while start < boxes.shape[0] and (limit == 0 or kept.shape[0] < limit):
        candidates = boxes[start : start + block]
        free = ~(overlaps(boxes[kept], candidates) > iou).any(dim=0)
        beats = (overlaps(candidates, candidates) > iou).triu(1)
        keep = free
        settled = False
        while not settled:
            better = free & ~(beats & keep[:, None]).any(dim=0)
            settled = torch.equal(better, keep)
            keep = better
        kept = torch.cat([kept, torch.nonzero(keep).flatten() + start])
        start += block
    return kept[:limit] if limit > 0 else kept


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of boxes (n, 4) with boxes (m, 4): (n, m) in 0..1."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clamp_min(0).prod(dim=2)
    areas = (first[:, 2:] - first[:, :2]).prod(dim=1)[:, None] + (second[:, 2:] - second[:, :2]).prod(dim=1)[None, :]
    return shared / (areas - shared)


def prepare(features: nn.Module, device: str, dtype: torch.dtype) -> None:
    """Move a :class:`LocalFeatures`, or one that was exported, to a device and a precision.

    Only convolutions lose precision: normalising, resizing and geometry stay float32. Their kernels
    are laid out channels last, which is up to twice as fast on CPUs and what tensor cores want.
    """
    features.to(device)
    for name in ("trunk", "attention", "encoder"):
        part = getattr(features, name)  # get_submodule is not there in an exported one
        part.to(dtype)
        part.to(memory_format=torch.channels_last)


def _fold_batch_norms(network: nn.Module) -> None:
    """Multiply each batch normalisation into the convolution before it: the same function, fewer passes."""
    for module in list(network.modules()):
        names = dict(module.named_children())
        pairs = [(f"conv{number}", f"bn{number}") for number in (1, 2, 3)]
        if isinstance(module, nn.Sequential):
            pairs = [("0", "1")]  # a block's short cut
        for conv, norm in pairs:
            if isinstance(names.get(conv), nn.Conv2d) and isinstance(names.get(norm), nn.BatchNorm2d):
                fused = fuse_conv_bn_eval(cast(nn.Conv2d, names[conv]), cast(nn.BatchNorm2d, names[norm]))
                setattr(module, conv, fused)
                setattr(module, norm, nn.Identity())
