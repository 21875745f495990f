"""The centroid nearest to each descriptor, by comparing with all of them.

Nearest to a descriptor x is the centroid c of the largest score x·c - |c|²/2, which is half of |x|² less the squared
distance. Each score is one sum in the order of the dimensions, so that the result does not depend on how many
descriptors are worked on at once or in how many threads.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from minia.core.artifact import InputError

_FOLDS = 8  # parts that a row of scores is folded into to find its largest
_VECTOR = 16  # numbers of float32 in a vector of AVX-512
FOLDED = _FOLDS * _VECTOR  # a number of centroids that is a multiple of it is compared fastest
_SCORES = 1 << 18  # scores computed at once: 1 MB, to stay in the second-level cache
_SCORES_ON_GPU = 1 << 27


def nearest_centroids(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """The centroid nearest to each point.

    Args:
        points: (num_points, dimensions) float32.
        centroids: (size, dimensions) float32, on the same device.

    Returns:
        (num_points,) int64, the nearest centroid's number, and (num_points,) float32, the score
        x·c - |c|²/2 with it: the squared distance is |x|² minus twice the score.

    Raises:
        InputError: a point is not finite.
    """
    # Centroids that are never nearest make every fold of a row begin where a vector does: a tenth faster at 1,000.
    padding = -len(centroids) % FOLDED
    centroids = torch.nn.functional.pad(centroids, (0, 0, 0, padding))
    offsets = half_norms(centroids)
    if padding:
        offsets[-padding:] = -math.inf
    words = torch.empty(len(points), dtype=torch.int64, device=points.device)
    scores = torch.empty(len(points), dtype=torch.float32, device=points.device)
    step = max(256, scores_at_once(points) // len(centroids))
    for begin in range(0, len(points), step):
        block = slice(begin, begin + step)
        scores[block], words[block] = largest(scores_of(points[block], centroids, offsets))
    if not bool(torch.isfinite(scores).all()):
        raise InputError("the features hold descriptors that are not finite numbers")
    return words, scores


def half_norms(centroids: Tensor) -> Tensor:
    """-|c|²/2 of each centroid, the part of a score that does not depend on the point: (size,) float32."""
    return (centroids * centroids).sum(dim=-1) / -2


def scores_at_once(points: Tensor) -> int:
    """How many scores to compute at once where the points are."""
    return _SCORES_ON_GPU if points.is_cuda else _SCORES


def scores_of(points: Tensor, centroids: Tensor, offsets: Tensor) -> Tensor:
    """The score of every point with every centroid.

    Args:
        points: (num_points, dimensions) float32.
        centroids: (size, dimensions) float32.
        offsets: (size,) float32, what to add to each centroid's products.

    Returns:
        (num_points, size) float32.
    """
    onednn = None if points.is_cuda else _onednn_product()
    return torch.addmm(offsets, points, centroids.T) if onednn is None else onednn(points, centroids, offsets)


@functools.cache
def _onednn_product() -> Callable[[Tensor, Tensor, Tensor], Tensor] | None:
    """OneDNN's product of points and centroids plus offsets, or None where this torch does not have it as it was.

    It uses AVX-512 wherever the processor has it; the product behind ``addmm`` (MKL) does so on Intel's alone and is
    half as fast elsewhere. It is the operator that ``torch.compile`` makes of a linear layer. Since torch calls it
    private, it is tried once on small numbers, and ``addmm`` takes its place where it is gone or gives another result.
    """
    if not torch.backends.mkldnn.is_available():
        return None

    def product(points: Tensor, centroids: Tensor, offsets: Tensor) -> Tensor:
        scores: Tensor = torch.ops.mkldnn._linear_pointwise(points, centroids, offsets, "none", [], "")
        return scores

    points, offsets = torch.arange(6, dtype=torch.float32).view(2, 3), torch.tensor([1.0, -2.0, 0.5, 4.0])
    centroids = torch.arange(12, dtype=torch.float32).view(4, 3) - 5
    try:
        as_expected = torch.equal(product(points, centroids, offsets), torch.addmm(offsets, points, centroids.T))
    except (AttributeError, RuntimeError, TypeError):  # NotImplementedError is a RuntimeError
        return None
    return product if as_expected else None


def largest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of each row and its column.

    Args:
        scores: (n, columns) float32, a multiple of 8 columns.

    Returns:
        (n,) float32 and (n,) int64.

    ``max`` over a row costs as much as half the product that made it, ``amax`` hardly anything: so the
    row is folded to an eighth by the latter first, and the column is one of the eight under the largest.
    """
    folds = scores.view(len(scores), _FOLDS, -1)
    largest, place = folds.amax(dim=1).max(dim=1)
    under = folds.gather(2, place[:, None, None].expand(-1, _FOLDS, 1)).squeeze(2)
    return largest, under.argmax(dim=1) * folds.shape[2] + place
