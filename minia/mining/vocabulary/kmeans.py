"""K-means of descriptors by the million: on samples that double, comparing with near centroids only.

1. ``size`` descriptors are the first centroids. The first sample has 32 descriptors a word.
2. A descriptor that joins the sample is compared with all centroids where there are few, else with one in
   16, and twice with the 64 nearest to the centroid found so far, itself included; from then on only with
   the 64 nearest to the centroid of the word it has (after k2-means, Agustsson et al. 2017).
3. The words that would be missed least are taken from where they are and put where they help most:
   they split a word that spreads far along one line. This goes on until hardly any word moves.
4. The centroids become the means of their descriptors a few times (Lloyd's algorithm), the sample
   doubles, and so on with 2 until it holds all (after Newling and Fleuret 2016, who let mini-batches double).

So each of n descriptors is compared with all k centroids, or with k / 16, once, where Lloyd's algorithm
does so in every iteration. Compared with near centroids alone, a descriptor costs 128 d operations
whatever k. ``benchmarks/vocabulary.py`` has the figures.

On a CPU the result does not depend on the number of threads: each score is one sum in the order of the
dimensions, and descriptors are added up in float64, exactly if they came as uint8 or float16. Nor does it depend on the
number of processes that torchrun starts: each compares a part of the descriptors, and adds up those of some words.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minia.core.artifact import InputError
from minia.core.device import choose_device
from minia.core.processes import processes
from minia.core.progress import progress
from minia.core.threads import single_threaded_torch
from minia.core.workers import map_in_order
from minia.mining.vocabulary import faiss_kmeans
from minia.mining.vocabulary.clustering import Clustering
from minia.mining.vocabulary.nearest import half_norms, nearest_centroids, scores_at_once, scores_of

logger = logging.getLogger(__name__)

Task = TypeVar("Task")
Result = TypeVar("Result")

_FIRST_SAMPLE = 32  # descriptors a word; fewer leave words that fit chance, more cost time and gain nothing
_NEAR = 64  # centroids that a descriptor is compared with; 32 are 25 % faster and 0.15 % worse
_PIVOTS, _PER_PIVOT = 1000, 16  # centroids a new descriptor is compared with: one in 16, but at least 1,000
_HOPS = 2  # from pivots to near centroids, and once more: the same inertia as by comparing with all
_PASSES = 2  # of Lloyd's algorithm on a sample before it doubles
_FURTHER = 0.8  # centroids go beyond the mean by this share of their way to it: as good as two more passes
_ENOUGH = 5e-4  # Lloyd's algorithm ends when the distances fall by less than this share
_STILL_MOVING = 0.01  # moving words is given up when less than this share of them moved
_POWER_ITERATIONS = 3  # the line along which a word spreads need not be exact

_PACK = 64  # descriptors of one word that are compared at once
_BLOCK = 4096  # descriptors worked on at once: 2 MB at 128 dimensions, the second-level cache of two cores
_BLOCK_ON_GPU = 1 << 18


def train_centroids(descriptors: NDArray[np.float32], clustering: Clustering) -> tuple[NDArray[np.float32], float]:
    """Cluster descriptors into visual words.

    Args:
        descriptors: (num_descriptors, descriptor_size) float32, at least as many as words are asked for.
        clustering: how; all its ``initialisation`` but ``random`` are done by faiss, on the first sample.

    Returns:
        The centroids, (size, descriptor_size) float32, and the mean squared distance of the descriptors to the
        nearest of them, in squared units of the descriptors, as it was before they moved for the last time.

    Raises:
        InputError: there are fewer descriptors than centroids, a descriptor is not finite, or faiss is
            asked for and missing.
    """
    size = clustering.size
    if len(descriptors) < size:
        raise InputError(
            f"vocabulary.size={size}: there are only {len(descriptors)} descriptors; allowed: 1 to as many as there are"
        )
    points = torch.from_numpy(descriptors).to(choose_device(clustering.device))
    with single_threaded_torch(points.device.type) as num_threads:
        found = [_cluster(points, clustering, restart, num_threads) for restart in range(clustering.restarts)]
    centroids, distance = min(found, key=lambda each: each[1])
    return centroids.cpu().numpy(), distance


def _cluster(points: Tensor, clustering: Clustering, restart: int, num_threads: int) -> tuple[Tensor, float]:
    """One of the restarts: its centroids, and the mean squared distance to them before their last move."""
    size = clustering.size
    generator = np.random.default_rng([clustering.seed, restart])
    order = torch.from_numpy(generator.permutation(len(points))).to(points.device)
    centroids = points[order[:size]]
    if clustering.initialisation != "random":
        first_sample = points[order[: _FIRST_SAMPLE * size]].cpu().numpy()
        seed = int(generator.integers(2**31))
        seeding = dataclasses.replace(clustering, iterations=0, restarts=1, seed=seed, device="cpu")
        drawn, _ = faiss_kmeans.train_centroids(first_sample, seeding)
        centroids = processes().of_first(torch.from_numpy(drawn).to(points.device))
    clusters = _Clusters(points, centroids, generator, num_threads)
    taken, moving, distance = 0, True, math.inf
    with progress("clustering", len(points), "descriptor") as advance:
        while taken < len(points):
            target = min(len(points), max(2 * taken, _FIRST_SAMPLE * size))
            clusters.take_in(order[taken:target], advance)
            taken = target
            sample = order[:taken].sort().values  # memory is read fastest in order
            moved = clusters.move_words(sample) if moving else 0
            moving = moved >= _STILL_MOVING * size
            distance = clusters.settle(sample, clustering.iterations if taken == len(points) else _PASSES)
            logger.info(
                "k-means: %d of %d descriptors, mean squared distance %.6g, %d words moved",
                taken, len(points), distance, moved,
            )  # fmt: skip
    clusters.move_centroids()
    return clusters.centroids, distance


class _Clusters:
    """Descriptors, their centroids, and the word of each descriptor of the sample.

    Args:
        points: (num_points, dimensions) float32, the descriptors.
        centroids: (size, dimensions) float32, the first ones.
        generator: draws where the search for lines begins.
        num_threads: to work in.

    Attributes:
        points: (num_points, dimensions) float32.
        centroids: (size, dimensions) float32.
        words: (num_points,) int64, -1 outside the sample.
        sums: (size, dimensions) float64, the sum of the points of each word that this process adds up.
        counts: (size,) int64, how many these are.
    """

    def __init__(self, points: Tensor, centroids: Tensor, generator: np.random.Generator, num_threads: int) -> None:
        self.points, self.centroids, self.num_threads = points, centroids, num_threads
        self.words = torch.full((len(points),), -1, device=points.device)
        self.sums = torch.zeros(centroids.shape, dtype=torch.float64, device=points.device)
        self.counts = torch.zeros(len(centroids), dtype=torch.int64, device=points.device)
        self._norms = torch.linalg.vector_norm(points, dim=1).square_()
        self._generator, self._together = generator, processes()
        self._block = _BLOCK_ON_GPU if points.is_cuda else _BLOCK

    def take_in(self, rows: Tensor, advance: Callable[[int], None]) -> None:
        """Give points that are new to the sample the nearest of the centroids, or one hardly farther.

        Args:
            rows: (n,) int64, of points.
            advance: called with the number of points that are done, again and again.
        """
        size = len(self.centroids)
        pivots = torch.arange(0, size, max(1, size // max(_PIVOTS, size // _PER_PIVOT)), device=rows.device)
        centroids = self.centroids[pivots]
        num_hops = _HOPS if len(pivots) < size else 0
        near = self._near_centroids() if num_hops else pivots

        def nearest(block: Tensor) -> Tensor:
            return pivots[nearest_centroids(self.points.index_select(0, block), centroids)[0]]

        words = self._by_processes(nearest, torch.split(rows, self._block), torch.zeros_like(rows), advance)
        for _ in range(num_hops):
            words = self._compare(rows, words, near)[0][0]
        self._assign(rows, words)

    def _assign(self, rows: Tensor, words: Tensor) -> None:
        """Give points their words and bring the sums of words up to date.

        Only the points whose word changes are added up: soon these are a few in a hundred.
        """
        before = self.words[rows]
        changed = before != words
        rows, words, before = rows[changed], words[changed], before[changed]
        self.words[rows] = words
        for some in torch.split(torch.arange(len(rows), device=rows.device), self._block):
            if self._together.count > 1:  # another order would round otherwise: blocks keep theirs
                some = some[self._owned(words[some]) | self._owned(before[some])]
            points = self.points.index_select(0, rows[some]).double()
            has, had = self._owned(words[some]), self._owned(before[some])
            self.sums.index_add_(0, words[some][has], points[has])
            self.sums.index_add_(0, before[some][had], points[had], alpha=-1)
        self.counts += torch.bincount(words, minlength=len(self.counts))
        self.counts -= torch.bincount(before[before >= 0], minlength=len(self.counts))

    def settle(self, sample: Tensor, passes: int) -> float:
        """Move centroids and reassign descriptors in turn, by Lloyd's algorithm, until hardly anything is gained.

        Args:
            sample: (n,) int64, rows of points.
            passes: at most so many.

        Returns:
            The mean squared distance before the last move.
        """
        self.move_centroids()
        near = self._near_centroids()
        distance = math.inf
        for _ in range(passes):
            words, scores = self._compare(sample, self.words[sample], near)
            self._assign(sample, words[0])
            self.move_centroids(_FURTHER)
            before = distance
            distance = float((self._norms[sample].double() - 2 * scores[0].double()).mean())
            if before - distance < _ENOUGH * distance:
                break
        return distance

    def move_words(self, sample: Tensor) -> int:
        """Take words away where they are missed least and let them split the words that gain most.

        A word that is taken away leaves its descriptors to the second nearest word; one that is split gets a second
        centroid. This is done as long as the sum of squared distances falls.

        Args:
            sample: (n,) int64, rows of points.

        Returns:
            How many words moved.
        """
        self.move_centroids()
        words, scores = self._compare(sample, self.words[sample], self._near_centroids(), num_best=2)
        first, second = words
        # Without its word a descriptor would go to the second nearest.
        loss = self._sum_by_word(first, 2 * (scores[0] - scores[1]))
        gain, halves = self._split(sample, first)
        from_words = loss.argsort(stable=True)[: len(loss) // 2]
        to_words = gain.argsort(stable=True, descending=True)[: len(loss) // 2]
        worth_it = gain[to_words] > loss[from_words]
        worth_it &= ~torch.isin(to_words, from_words[worth_it])
        num_moved = int(worth_it.sum())
        from_words, to_words = from_words[:num_moved], to_words[worth_it]
        self.centroids[to_words], self.centroids[from_words] = halves[to_words].unbind(dim=1)
        gone = torch.zeros(len(loss), dtype=torch.bool, device=sample.device)
        gone[from_words] = True
        self._assign(sample, torch.where(gone[first], second, first))
        return num_moved

    def _split(self, sample: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Cut every word in two across the line along which its descriptors spread most.

        Args:
            sample: (n,) int64, rows of points.
            words: (n,) int64, theirs.

        Returns:
            (size,) float64, by how much the sum of squared distances would fall, and
            (size, 2, dimensions) float32, the centroids of the halves.
        """
        size, dimensions = self.centroids.shape
        if self._together.count > 1:
            own = self._owned(words)
            sample, words = sample[own], words[own]
        start = self._generator.standard_normal((size, dimensions), dtype=np.float32)
        lines = torch.from_numpy(start).to(sample.device)
        blocks = list(zip(torch.split(sample, self._block), torch.split(words, self._block), strict=True))
        for _ in range(_POWER_ITERATIONS):  # towards the first principal component of each word
            lines = torch.nn.functional.normalize(lines)
            total = torch.zeros(size, dimensions, dtype=torch.float64, device=sample.device)
            for rows, word in blocks:
                deviations = self.points.index_select(0, rows) - self.centroids.index_select(0, word)
                along = (deviations * lines.index_select(0, word)).sum(dim=1, keepdim=True)
                total.index_add_(0, word, (deviations * along).double())
            lines = total.float()
        lines = torch.nn.functional.normalize(lines)
        along = torch.cat(
            [((self.points[rows] - self.centroids[word]) * lines[word]).sum(dim=1) for rows, word in blocks]
        )
        sides = torch.stack([along <= 0, along > 0], dim=1)
        counts = self._sum_by_word(words, sides)
        means = self._sum_by_word(words, sides * along[:, None]) / counts.clamp(min=1)
        gain = counts.prod(dim=1) / counts.sum(dim=1).clamp(min=1) * (means[:, 1] - means[:, 0]) ** 2
        halves = self.centroids[:, None] + lines[:, None] * means[:, :, None].float()
        return self._from_owners(gain), self._from_owners(halves)

    def _owned(self, words: Tensor) -> Tensor:
        """Of words, -1 for none, which ones this process adds up, one in so many as there are processes."""
        return (words >= 0) & (words % self._together.count == self._together.number)

    def _from_owners(self, by_word: Tensor) -> Tensor:
        """Numbers a word, (size, ...), of each word those of the process that adds it up, to the bit."""
        if self._together.count == 1:
            return by_word
        bits = by_word.contiguous().view(torch.int64 if by_word.dtype == torch.float64 else torch.int32)
        bits[~self._owned(torch.arange(len(by_word), device=by_word.device))] = 0
        self._together.add(bits)
        return bits.view(by_word.dtype)

    def _sum_by_word(self, words: Tensor, values: Tensor) -> Tensor:
        sums = torch.zeros(len(self.centroids), *values.shape[1:], dtype=torch.float64, device=values.device)
        return sums.index_add_(0, words, values.double())

    def move_centroids(self, further: float = 0) -> None:
        """Move every centroid to the mean of its descriptors in the sample; one without any stays.

        Args:
            further: how far to go beyond the mean, as a share of the way to it.
        """
        counts = self.counts[:, None]
        means = torch.where(counts > 0, (self.sums / counts.clamp(min=1)).float(), self.centroids)
        means = self._from_owners(means)
        self.centroids = means + further * (means - self.centroids)

    def _near_centroids(self) -> Tensor:
        """(size, min(64, size)) int64: the centroids nearest to each, itself among them."""
        offsets, num_near = half_norms(self.centroids), min(_NEAR, len(self.centroids))
        step = max(64, scores_at_once(self.points) // len(self.centroids))

        def nearest(block: Tensor) -> Tensor:
            return scores_of(block, self.centroids, offsets).topk(num_near).indices

        found = torch.zeros(len(self.centroids), num_near, dtype=torch.int64, device=self.centroids.device)
        return self._by_processes(nearest, torch.split(self.centroids, step), found)

    def _by_processes(
        self,
        function: Callable[[Tensor], Tensor],
        blocks: Sequence[Tensor],
        found: Tensor,
        advance: Callable[[int], None] = lambda _: None,
    ) -> Tensor:
        """What a function finds for blocks, whole numbers, laid end to end in place of the zeros of ``found``."""
        parts = self._together.own(torch.split(found, len(blocks[0])))
        own = self._together.own(blocks)
        for part, numbers in zip(parts, self._in_threads(function, own), strict=True):
            part.copy_(numbers)
            advance(len(numbers))
        self._together.add(found)
        advance(len(found) - sum(map(len, own)))  # what the others did
        return found

    def _compare(self, sample: Tensor, start: Tensor, near: Tensor, num_best: int = 1) -> tuple[Tensor, Tensor]:
        """The best of the centroids near a word that is given for each descriptor.

        The descriptors are laid out in packs of 64 of one word; the last pack of a word is filled up with
        its last descriptor.

        Args:
            sample: (n,) int64, rows of points.
            start: (n,) int64, the word of each.
            near: (size, num_near) int64, the centroids nearest to each.
            num_best: how many to find of each, at most the number of near centroids.

        Returns:
            (num_best, n) int64, words, the nearest first, and (num_best, n) float32, their scores.
        """
        words = torch.zeros(num_best, len(sample), dtype=torch.int64, device=sample.device)
        scores = torch.full((num_best, len(sample)), -math.inf, device=sample.device)
        offsets = half_norms(self.centroids)
        packs, pack_words = _packs(start, len(near))

        def compare(block: tuple[Tensor, Tensor]) -> None:
            positions, candidates = block[0].flatten(), near[block[1]]
            points = self.points.index_select(0, sample[positions]).view(*block[0].shape, -1)
            centroids = self.centroids.index_select(0, candidates.flatten()).view(*candidates.shape, -1)
            products = torch.baddbmm(offsets[candidates][:, None], points, centroids.transpose(1, 2))
            for rank in range(min(num_best, near.shape[1])):
                score, best = products.max(dim=2)
                words[rank].index_copy_(0, positions, candidates.gather(1, best).flatten())
                scores[rank].index_copy_(0, positions, score.flatten())
                if rank + 1 < num_best:
                    products.scatter_(2, best[:, :, None], -math.inf)

        at_once = self._block // _PACK
        blocks = list(zip(torch.split(packs, at_once), torch.split(pack_words, at_once), strict=True))
        for _ in self._in_threads(compare, self._together.own(blocks)):
            pass
        self._together.add(words)  # each is found by one process, and 0 in the others
        self._together.largest(scores)
        return words, scores

    def _in_threads(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        return map_in_order(function, tasks, self.num_threads, in_threads=True)


def _packs(words: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Positions with the same word, ``_PACK`` to a row: (num_packs, _PACK) int64, and each row's word."""
    order = words.int().argsort(stable=True)  # takes half as long as of int64
    counts = torch.bincount(words, minlength=size)
    packs = (counts + _PACK - 1) // _PACK
    word = torch.repeat_interleave(torch.arange(size, device=words.device), packs)
    number = torch.arange(len(word), device=words.device) - (packs.cumsum(0) - packs)[word]
    inside = number[:, None] * _PACK + torch.arange(_PACK, device=words.device)
    start = counts.cumsum(0) - counts
    return order[start[word, None] + torch.minimum(inside, counts[word, None] - 1)], word
