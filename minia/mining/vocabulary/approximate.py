"""The centroid nearest to each descriptor, or one hardly farther, without comparing with all of them.

The centroids are clustered themselves, into some 3.6 times the square root of their number of *groups*. A descriptor
is compared with the means of all groups, and then with those centroids alone that are nearest to the nearest mean: 26
times as many as a group has on average, so that those across the group's border are among them. Of 20,000 centroids
these are 1,536 comparisons; ``benchmarks/vocabulary.py --assignment`` has how much faster that is, and how many
descriptors get the nearest one of all. The result depends neither on the number of threads nor on how many descriptors
are worked on at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minia.core.artifact import InputError
from minia.core.threads import single_threaded_torch
from minia.core.workers import map_in_order
from minia.mining.vocabulary.clustering import Clustering
from minia.mining.vocabulary.kmeans import train_centroids
from minia.mining.vocabulary.nearest import FOLDED, half_norms, largest, nearest_centroids, scores_of

_GROUPS = 3.6  # times the square root of the number of centroids
_CANDIDATES = 26  # times the centroids of a group
_ITERATIONS = 5
_AT_ONCE = 1 << 18  # descriptors: some hundred in each group, so that their product with its candidates is fast
_BLOCK = 16384
FEWEST = 1024  # centroids; comparing with all of fewer is as fast


@dataclass(frozen=True)
class NearLists:
    """Centroids and where to look for them.

    Attributes:
        centroids: (size, dimensions) float32.
        offsets: (size,) float32, -|c|^2 / 2 of each.
        means: (num_groups, dimensions) float32.
        near: (num_groups, num_candidates) int64, the centroids nearest to each group's mean.
    """

    centroids: Tensor
    offsets: Tensor
    means: Tensor
    near: Tensor

    @classmethod
    def of(cls, centroids: NDArray[np.float32], device: str) -> NearLists:
        """Group centroids.

        Args:
            centroids: (size, dimensions) float32, at least ``FEWEST``.
            device: ``cpu`` or ``cuda``, where descriptors will be compared.
        """
        size = len(centroids)
        groups = max(1, min(size, 1 << round(math.log2(_GROUPS * math.sqrt(size)))))
        wanted = math.ceil(_CANDIDATES * size / groups)
        candidates = min(size - size % FOLDED, -(-wanted // FOLDED) * FOLDED)
        means = train_centroids(centroids, Clustering(groups, _ITERATIONS))[0]
        on_device, of_groups = (torch.from_numpy(each).to(device) for each in (centroids, means))
        offsets = half_norms(on_device)
        near = torch.cat([scores_of(some, on_device, offsets).topk(candidates).indices for some in of_groups.split(64)])
        return cls(on_device, offsets, of_groups, near)

    def nearest(self, descriptors: NDArray[np.float32]) -> NDArray[np.int32]:
        """The centroid of each descriptor.

        Args:
            descriptors: (n, dimensions) numbers, may be memory-mapped.

        Returns:
            (n,) int32.

        Raises:
            InputError: a descriptor is not finite.
        """
        words = np.empty(len(descriptors), dtype=np.int32)
        with single_threaded_torch(self.means.device.type) as num_threads:
            for first in range(0, len(words), _AT_ONCE):
                block = np.array(descriptors[first : first + _AT_ONCE], dtype=np.float32)
                found = self._nearest(torch.from_numpy(block).to(self.means.device), num_threads)
                words[first : first + _AT_ONCE] = found.int().cpu().numpy()
        return words

    def _nearest(self, points: Tensor, num_threads: int) -> Tensor:
        def group_of(block: Tensor) -> Tensor:
            return nearest_centroids(block, self.means)[0]

        groups = torch.cat(list(map_in_order(group_of, points.split(_BLOCK), num_threads, in_threads=True)))
        order = groups.argsort(stable=True)
        counts = torch.bincount(groups, minlength=len(self.means)).tolist()
        words = torch.empty_like(order)

        def compare(task: tuple[int, Tensor]) -> bool:
            group, rows = task
            near = self.near[group]
            scores = scores_of(points.index_select(0, rows), self.centroids.index_select(0, near), self.offsets[near])
            best, place = largest(scores)
            words[rows] = near[place]
            return bool(torch.isfinite(best).all())

        tasks = ((group, rows) for group, rows in enumerate(order.split(counts)) if len(rows))
        if not all(list(map_in_order(compare, tasks, num_threads, in_threads=True))):
            raise InputError("the features hold descriptors that are not finite numbers")
        return words
