"""What is done to a batch of images on the device, before the network sees it.

Every image of a batch goes through one affine map, so that a crop, a rotation, a flip and a move of
the original cost one interpolation together. All that is random comes from numbers drawn for
(seed, pass, image) alone: neither the batch an image is in, nor the process that reads it, nor a
resumed run changes what is done to it.

Plain torch: kornia took 6 times as long for the same kinds of change on a CPU (``benchmarks/training.py``).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from minia.data.labelled.settings import Augmentation

_NAMES = (
    *("area", "aspect", "x", "y", "angle", "flip", "scale", "brightness", "red", "green", "blue"),
    *("move", "direction"),
)
NUM_DRAWS = len(_NAMES)
_MOVE_SHIFT = 0.25  # an eighth of the side, where the side is 2
_MOVE_DEGREES = 30.0
_COLUMN = {name: column for column, name in enumerate(_NAMES)}
MOVE = _COLUMN["move"]  # decides on the original's copies


def draw_numbers(seed: int, epoch: int, index: int, num_views: int = 1) -> NDArray[np.float32]:
    """The random numbers of one image in one pass: (num_views * NUM_DRAWS,) float32, uniform in 0..1."""
    return np.random.default_rng([seed, epoch, index]).random(num_views * NUM_DRAWS, dtype=np.float32)


def augment(images: Tensor, numbers: Tensor, augmentation: Augmentation) -> Tensor:
    """Augment a batch.

    Args:
        images: (batch, 3 or 4, side, side) uint8, RGB and, where there is one, the mask (not 0 on
            the foreground).
        numbers: (batch, NUM_DRAWS) float32 by ``draw_numbers``, on the images' device.
        augmentation: what to do.

    Returns:
        (batch, 3, image_size, image_size) float32, grey levels 0..255.
    """
    drawn = {name: numbers[:, column] for name, column in _COLUMN.items()}
    images, matrices = _middle(images, view_matrices(numbers, augmentation), augmentation)
    pictures = images[:, :3].float()
    if augmentation.needs_mask:
        seen = images[:, 3:] > 0
        seen = seen | (drawn["move"] >= augmentation.filter_probability)[:, None, None, None]
        pictures = pictures * seen
    dark = augmentation.move_probability > 0
    pictures = _sample(
        pictures, matrices, augmentation.image_size, augmentation.supersample, "zeros" if dark else "reflection"
    )
    return _recolour(pictures, drawn, augmentation)


def view_matrices(numbers: Tensor, augmentation: Augmentation) -> Tensor:
    """From what ``augment`` gives to the images: (batch, 3, 3); coordinates run from -1 to 1 between edges.

    Args:
        numbers: (batch, NUM_DRAWS) float32 by ``draw_numbers``.
        augmentation: what is done.
    """
    drawn = {name: numbers[:, column] for name, column in _COLUMN.items()}
    matrices = _crop(drawn, augmentation) if augmentation.crop_area < 1 else _turn(drawn, augmentation)
    return _move(drawn, augmentation.move_probability) @ matrices


def _middle(images: Tensor, matrices: Tensor, augmentation: Augmentation) -> tuple[Tensor, Tensor]:
    """The part of images that small views can see, and the maps to it: the rest need not be gone through."""
    side = images.shape[-1]
    reach = augmentation.view * (math.sqrt(2) * augmentation.scale + 2 * augmentation.shift) + 4 / side
    edge = int(side * (1 - reach) / 2)
    if augmentation.crop_area < 1 or augmentation.move_probability or edge <= 0:
        return images, matrices
    matrices = matrices.clone()
    matrices[:, :2] *= side / (side - 2 * edge)
    return images[..., edge : side - edge, edge : side - edge], matrices


def validation_view(images: Tensor, augmentation: Augmentation) -> Tensor:
    """A batch as validation and extraction see it: the middle part, bilinear, aspect not kept.

    Args:
        images: (batch, 3 or 4, side, side) uint8; a fourth channel is not used.
        augmentation: its ``view`` and ``image_size``.

    Returns:
        (batch, 3, image_size, image_size) float32, grey levels 0..255.
    """
    matrices = torch.eye(3, device=images.device).repeat(len(images), 1, 1)
    matrices[:, :2] *= augmentation.view
    return _sample(images[:, :3].float(), matrices, augmentation.image_size, 1, "border")


def _sample(images: Tensor, matrices: Tensor, side: int, supersample: int, padding: str) -> Tensor:
    """Images at the points that matrices (batch, 3, 3) give; coordinates run from -1 to 1 between edges."""
    size = [len(images), images.shape[1], side * supersample, side * supersample]
    grid = F.affine_grid(matrices[:, :2], size, align_corners=False)
    sampled = F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    return F.avg_pool2d(sampled, supersample) if supersample > 1 else sampled


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    """(batch, 3, 3) from the two upper rows, each entry (batch,)."""
    zero, one = torch.zeros_like(rows[0][0]), torch.ones_like(rows[0][0])
    return torch.stack([torch.stack(row, dim=-1) for row in [*rows, [zero, zero, one]]], dim=1)


def _crop(drawn: dict[str, Tensor], augmentation: Augmentation) -> Tensor:
    """From a random crop to the image: its area is uniform, the logarithm of its aspect too.

    A crop that would be longer than the image is cut to it (TensorFlow draws again).
    """
    area = augmentation.crop_area + (1 - augmentation.crop_area) * drawn["area"]
    aspect = torch.exp((2 * drawn["aspect"] - 1) * math.log(augmentation.crop_aspect))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    x, y = (1 - width) * (2 * drawn["x"] - 1), (1 - height) * (2 * drawn["y"] - 1)
    zero = torch.zeros_like(x)
    return _matrix([[width, zero, x], [zero, height, y]])


def _turn(drawn: dict[str, Tensor], augmentation: Augmentation) -> Tensor:
    """From a turned, flipped, scaled and shifted view to the image."""
    angle = drawn["angle"] * (2 * math.pi if augmentation.rotate else 0.0)
    factor = augmentation.view * torch.exp((2 * drawn["scale"] - 1) * math.log(augmentation.scale))
    mirror = torch.where((drawn["flip"] < 0.5) & augmentation.flip, -1.0, 1.0)
    x, y = (2 * augmentation.shift * augmentation.view * (2 * drawn[axis] - 1) for axis in "xy")
    cosine, sine = angle.cos() * factor, angle.sin() * factor
    return _matrix([[cosine * mirror, -sine, x], [sine * mirror, cosine, y]])


def _move(drawn: dict[str, Tensor], probability: float) -> Tensor:
    """From the original's moved copy to the image; the identity for images that are not moved.

    The original translates by s/8 of the side, turns by s * 30 degrees about the middle and flips
    (s = 1 left to right, s = -1 both ways); this is the way back.
    """
    sign = torch.where(drawn["direction"] < 0.5, -1.0, 1.0)
    moved = drawn["move"] < probability
    angle = math.radians(_MOVE_DEGREES) * sign
    cosine, sine = angle.cos(), angle.sin()
    upright = sign  # s = -1 flips the rows too
    rows = [[-cosine, -sine * upright, -_MOVE_SHIFT * sign], [-sine, cosine * upright, -_MOVE_SHIFT * sign]]
    identity = torch.eye(3, device=sign.device).expand(len(sign), 3, 3)
    return torch.where(moved[:, None, None], _matrix(rows), identity)


def _recolour(images: Tensor, drawn: dict[str, Tensor], augmentation: Augmentation) -> Tensor:
    if not augmentation.brightness and not augmentation.colour:
        return images
    channels = torch.stack([drawn["red"], drawn["green"], drawn["blue"]], dim=1)
    logarithm = (2 * channels - 1) * augmentation.colour + (
        2 * drawn["brightness"][:, None] - 1
    ) * augmentation.brightness
    return (images * logarithm.exp()[:, :, None, None]).clamp(max=255)
