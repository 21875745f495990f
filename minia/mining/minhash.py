"""Sampled Min-Hashing: sets of visual words that occur in the same images.

A visual word is the set of images that hold it. A min-hash of such a set is its element of smallest
key, the keys being random; two sets have the same min-hash with the probability of their Jaccard
similarity J. Words whose ``tuple_size`` min-hashes all agree (probability J^tuple_size) fall into
one bucket, and a bucket of enough words is a co-occurring set. ``num_tuples`` tables repeat that.

Sources: Fuentes-Pineda, Koga, Watanabe, "Scalable object discovery: a hash-based approach to
clustering co-occurring visual words" (2011); Fuentes-Pineda, Meza-Ruiz, arXiv:1807.00938, sections
3 and 4; Chum, Philbin, Zisserman, "Near duplicate image detection: min-hash and tf-idf weighting"
(2008), section 4, for weights and frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from minia.mining.listdb import ListDB, offsets_of
from minia.mining.minima import GatherMinima, ProductMinima
from minia.progress import progress
from minia.stage import InputError

TABLES_AT_A_TIME = 32  # 32 columns a product measured fastest on CPU; 64 miss the cache
_TABLES_AT_A_TIME_CUDA = 256
_ELEMENTS_AT_A_TIME = 1 << 16  # keys are made in tiles of so many elements, to bound the temporaries
_MASK_64 = (1 << 64) - 1
_MIX_32 = (0x7FEB352D, 0x846CA68B - (1 << 32))  # odd multipliers with low bias, as signed 32-bit numbers
_MIX_64 = 0x9E3779B97F4A7C15 - (1 << 64)  # 2^64 / golden ratio, as a signed 64-bit number
_KEY_BITS = 31


def image_weights(bags: ListDB, scheme: str) -> npt.NDArray[np.float64] | None:
    """Weights of the images for mining.

    Args:
        bags: bags of visual words, a list an image.
        scheme: ``none``, or ``ids``: ln(number of words / number of distinct words of the image), so
            that an image that holds everything says nothing; inf for an image without words.

    Returns:
        (num_images,) float64, or None for ``none``.

    Raises:
        InputError: the scheme is unknown.
    """
    if scheme == "none":
        return None
    if scheme != "ids":
        raise InputError(f"unknown weighting {scheme!r}: use none or ids")
    sizes = bags.sizes.astype(np.float64)
    weights = np.full(bags.num_lists, np.inf)
    weights[sizes > 0] = np.log(bags.num_items / sizes[sizes > 0])
    return weights


def mine_cooccurring_sets(
    bags: ListDB,
    *,
    tuple_size: int,
    num_tuples: int,
    min_set_size: int,
    weights: npt.NDArray[np.float64] | None = None,
    expand_frequencies: bool = False,
    seed: int = 0,
    device: str = "cpu",
) -> ListDB:
    """Mine sets of co-occurring visual words.

    Two words meet in a table with probability J^tuple_size, J being the Jaccard similarity of the
    sets of images that hold them: ``sum min / sum max`` over images of weight (default 1) times
    presence, or times frequency with ``expand_frequencies``.

    Args:
        bags: bags of visual words, a list an image.
        tuple_size: min-hashes that must agree, at least 1.
        num_tuples: number of tables, at least 1.
        min_set_size: smallest set kept, at least 2 words.
        weights: (num_images,) float64, 0 or more; that of an image without words does not matter.
        expand_frequencies: a word that an image holds f times counts as f elements.
        seed: chooses the random numbers; they depend on nothing else (device, threads, blocks).
        device: ``cpu`` or a CUDA device, in torch's words.

    Returns:
        A list a co-occurring set: words ascending, frequency 1; duplicates are kept; largest sets first,
        in the order of tables among equally large ones.

    Raises:
        InputError: a setting is out of range, or the weights do not fit the bags.
    """
    if tuple_size < 1 or num_tuples < 1 or min_set_size < 2:
        raise InputError(
            "mining needs a tuple size and a number of tuples of at least 1 and a set size of at least 2, "
            f"not {tuple_size}, {num_tuples} and {min_set_size}"
        )
    words, elements = _hashed_words(bags, _checked_weights(bags, weights), expand_frequencies)
    used = np.flatnonzero(words.sizes)  # words in no image never form sets
    tables = TupleTables(words.select(used), elements, tuple_size=tuple_size, seed=seed, device=device)
    members, sizes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    with progress("mining", num_tuples, "tuple") as advance:
        for begin, end in tables.blocks(num_tuples):
            buckets = tables.buckets(begin, end, min_set_size)
            members.append(buckets.members)
            sizes.append(buckets.sizes)
            advance(end - begin)
    flat = used[np.concatenate(members)].astype(np.int32)
    unsorted = ListDB(offsets_of(np.concatenate(sizes)), flat, np.ones(len(flat), np.int32), bags.num_items)
    return unsorted.select(np.argsort(-unsorted.sizes, kind="stable"))


def _checked_weights(bags: ListDB, weights: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64] | None:
    if weights is None:
        return None
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (bags.num_lists,):
        raise InputError(f"there are {weights.size} weights for {bags.num_lists} images")
    used = weights[bags.sizes > 0]
    if not np.all(np.isfinite(used) & (used >= 0)):
        raise InputError("the weights of images with words must be finite and 0 or more")
    return weights


@dataclass(frozen=True)
class Elements:
    """What min-hashing draws from: images, or frequency levels of images.

    Attributes:
        count: number of elements.
        rates: (count,) float64, above 0: an element's key is exponential with that rate, so that it
            is the smallest with a probability proportional to its rate. None: all are equal.
        rank: (count,) int64; an element of rank k takes over the smallest key among the k elements
            before it, if that is smaller than its own. None: every element keeps its own.
    """

    count: int
    rates: npt.NDArray[np.float64] | None = None
    rank: npt.NDArray[np.int64] | None = None


def _hashed_words(
    bags: ListDB, weights: npt.NDArray[np.float64] | None, expand_frequencies: bool
) -> tuple[ListDB, Elements]:
    """The inverted file over elements: a list a word, its items being elements."""
    if weights is not None:  # an image of weight 0 adds nothing to sum min or sum max
        kept = np.repeat(weights > 0, bags.sizes)
        offsets = offsets_of(np.where(weights > 0, bags.sizes, 0))
        bags = ListDB(offsets, bags.items[kept], bags.frequencies[kept], bags.num_items)
    if not expand_frequencies:
        rates = None if weights is None else np.where(bags.sizes > 0, weights, 1.0)
        return bags.transpose(), Elements(bags.num_lists, rates)
    return _frequency_levels(bags, weights)


def _frequency_levels(bags: ListDB, weights: npt.NDArray[np.float64] | None) -> tuple[ListDB, Elements]:
    """Count a word that an image holds f times as f elements, without making them.

    Copy k of an image belongs to all its words of frequency above k. So the copies between two
    frequencies that follow each other in the image always come together: they are one element, a
    *level*, with their number as its rate, and a word's smallest key in the image is the smallest
    among the levels up to its frequency. The smallest of n exponential keys of rate w is
    exponential with rate n w.
    """
    image = np.repeat(np.arange(bags.num_lists), bags.sizes)
    top = int(bags.frequencies.max(initial=0)) + 1
    levels, level_of_entry = np.unique(image * top + bags.frequencies, return_inverse=True)
    level_image, level_frequency = np.divmod(levels, top)
    starts = np.flatnonzero(np.diff(level_image, prepend=-1))
    rank = np.arange(len(levels)) - np.repeat(starts, np.diff(starts, append=len(levels)))
    below = np.where(rank > 0, np.roll(level_frequency, 1), 0)
    rates = (level_frequency - below).astype(np.float64)
    if weights is not None:
        rates *= weights[level_image]
    # The level of an entry travels through the transposition in the place of its frequency.
    carried = ListDB(bags.offsets, bags.items, level_of_entry + 1, bags.num_items).transpose()
    words = ListDB(carried.offsets, carried.frequencies - 1, np.ones_like(carried.items), len(levels))
    return words, Elements(len(levels), rates, rank)


@dataclass(frozen=True)
class Buckets:
    """Lists that share a bucket, of several tables one after another.

    Attributes:
        members: (num_members,) int64 list numbers, ascending inside a bucket.
        sizes: (num_buckets,) int64.
    """

    members: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]


class TupleTables:
    """Hash tables of tuples of min-hashes over non-empty lists.

    Args:
        lists: what is hashed, by the items of each; no list may be empty.
        elements: what the items are; default: all alike.
        tuple_size: min-hashes in a tuple.
        seed: chooses the random numbers.
        purpose: another number gives independent tables of the same seed.
        device: where the min-hashes are taken.
        kernel: ``product`` (a sparse product with the minimum in place of the sum, CPU only) or
            ``gather``; None: the faster one of the device. Both give the same bits.
    """

    def __init__(
        self,
        lists: ListDB,
        elements: Elements | None = None,
        *,
        tuple_size: int,
        seed: int,
        purpose: int = 0,
        device: str = "cpu",
        kernel: str | None = None,
    ) -> None:
        self.num_lists = lists.num_lists
        self.elements = elements if elements is not None else Elements(lists.num_items)
        self.tuple_size = tuple_size
        self.device = torch.device(device)
        self._stream = _mix_64(seed ^ _mix_64(purpose + 1))
        self._ids = _element_ids(self.elements.count, self._stream).to(self.device)
        self._rates = _on(self.elements.rates, self.device)
        self._rank = _on(self.elements.rank, self.device)
        kernel = kernel or ("product" if self.device.type == "cpu" else "gather")
        self._minima = ProductMinima(lists) if kernel == "product" else GatherMinima(lists, self.device)

    def blocks(self, num_tables: int) -> Iterator[tuple[int, int]]:
        """Tables 0 .. num_tables - 1 as ranges small enough to be hashed at once."""
        step = TABLES_AT_A_TIME if self.device.type == "cpu" else _TABLES_AT_A_TIME_CUDA
        for begin in range(0, num_tables if self.num_lists else 0, step):
            yield begin, min(begin + step, num_tables)

    def buckets(self, begin: int, end: int, smallest: int) -> Buckets:
        """The buckets of tables ``begin`` to ``end - 1`` with at least ``smallest`` (2 or more) members."""
        codes = torch.zeros((self.num_lists, end - begin), dtype=torch.int64, device=self.device)
        for position in range(self.tuple_size):
            functions = np.arange(begin, end) * self.tuple_size + position
            minima = self._minima(self.keys(functions))
            codes ^= minima.view(torch.int32)  # the bits of the smallest key tell which element it is
            codes *= _MIX_64
            codes ^= codes >> 32
        # Below the code goes the list's number: one sort of plain integers then brings equal codes
        # together, members ascending. With n lists two codes agree by chance once in 2^64 / n.
        number_bits = max(1, (self.num_lists - 1).bit_length())
        codes >>= number_bits
        codes <<= number_bits
        codes |= torch.arange(self.num_lists, device=self.device)[:, None]
        return _runs(_sorted_rows(codes.t().contiguous()), number_bits, smallest)

    def keys(self, functions: npt.NDArray[np.int64]) -> torch.Tensor:
        """Random keys, (num_elements, num_functions) float32, above or equal 0.

        A 31-bit hash of element and function: the element's number is mixed over 32 bits, combined
        with 32 random bits of the function and mixed again. float32 keeps 24 bits of it, at any scale
        (float32 random numbers, of fixed steps, would tie far more often). Two unrelated minima then
        tie about once in 2^24, or for words of n elements, whose minima are small whole numbers, n in
        2^32: measured 2e-4 for two words of 500,000 images each. A tuple of r needs r ties.
        """
        bits = _function_bits(functions, self._stream).to(self.device)
        keys = torch.empty((self.elements.count, len(functions)), dtype=torch.float32, device=self.device)
        for begin in range(0, self.elements.count, _ELEMENTS_AT_A_TIME):
            tile = slice(begin, begin + _ELEMENTS_AT_A_TIME)
            hashes = self._ids[tile, None] ^ bits
            hashes *= _MIX_32[0]
            hashes ^= hashes >> 15
            hashes *= _MIX_32[1]
            hashes &= (1 << _KEY_BITS) - 1
            if self._rates is None:
                keys[tile] = hashes
            else:
                keys[tile] = _exponential(hashes) / self._rates[tile, None]
        if self._rank is not None:
            _carry_minima(keys, self._rank)
        return keys


def _exponential(hashes: torch.Tensor) -> torch.Tensor:
    """``-ln(1 - u)`` in float64 with u = (hash + 1/2) / 2^31.

    Made of additions, multiplications and divisions only, which IEEE 754 rounds the same on every
    device, as the logarithms of the libraries are not: 1 - u = m 2^e and
    ln m = 2 artanh((m - 1) / (m + 1)), whose series has |t| <= 0.172 for m within sqrt(2) of 1.
    """
    mantissa, exponent = torch.frexp(1 - (hashes.to(torch.float64) + 0.5) * 2.0**-_KEY_BITS)
    small = mantissa < math.sqrt(0.5)
    mantissa = torch.where(small, mantissa * 2, mantissa)
    ratio = (mantissa - 1) / (mantissa + 1)
    square = ratio * ratio
    series = torch.zeros_like(ratio)
    for power in range(21, 0, -2):
        series *= square
        series += 1 / power
    return (small.to(torch.float64) - exponent) * math.log(2) - 2 * (series * ratio)


def _carry_minima(keys: torch.Tensor, rank: torch.Tensor) -> None:
    """Give every element the smallest key among itself and the ``rank`` elements before it, in place.

    By doubling: after the step of width w an element knows the minimum of the 2 w before it.
    """
    width, most = 1, int(rank.max()) if len(rank) else 0
    while width <= most:
        rows = torch.nonzero(rank >= width).squeeze(1)
        keys[rows] = torch.minimum(keys[rows], keys[rows - width])
        width *= 2


def _sorted_rows(codes: torch.Tensor) -> torch.Tensor:
    """Sort every row, in place where possible."""
    if codes.device.type != "cpu":
        return torch.sort(codes, dim=1).values
    codes.numpy().sort(axis=1)  # ten times as fast as torch's, which sorts an index with it
    return codes


def _runs(rows: torch.Tensor, number_bits: int, smallest: int) -> Buckets:
    """Runs of equal codes in sorted rows of codes with list numbers in their lowest bits."""
    reach = smallest - 1
    width = rows.shape[1] - reach
    if width <= 0:
        return Buckets(np.zeros(0, np.int64), np.zeros(0, np.int64))
    difference = rows[:, reach:] ^ rows[:, :width]
    same = (difference >= 0) & (difference < (1 << number_bits))  # no bit of the code differs
    table, place = torch.nonzero(same, as_tuple=True)
    starts = (table * rows.shape[1] + place).cpu().numpy()  # of windows of equal codes
    if len(starts) == 0:
        return Buckets(np.zeros(0, np.int64), np.zeros(0, np.int64))
    # Windows of one run follow each other; those of the next begin at least two places later.
    last = np.flatnonzero(np.append(np.diff(starts) > 1, True))
    first = np.append(0, last[:-1] + 1)
    sizes = starts[last] - starts[first] + smallest
    offsets = offsets_of(sizes)
    flat = np.arange(offsets[-1]) + np.repeat(starts[first] - offsets[:-1], sizes)
    chosen = rows.reshape(-1)[torch.from_numpy(flat).to(rows.device)]
    return Buckets((chosen & ((1 << number_bits) - 1)).cpu().numpy(), sizes)


def _mix_64(value: int) -> int:
    """The finisher of splitmix64 (Steele, Lea, Flood 2014): a one-to-one map of 64-bit numbers."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK_64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK_64
    return value ^ (value >> 31)


def _function_bits(functions: npt.NDArray[np.int64], stream: int) -> torch.Tensor:
    """32 random bits for each hash function, (num_functions,) int32."""
    bits = [_mix_64(stream ^ _mix_64(int(function))) >> 32 for function in functions]
    return torch.from_numpy(np.array(bits, dtype=np.uint32).view(np.int32))


def _element_ids(count: int, stream: int) -> torch.Tensor:
    """A mixed 32-bit number for each element, all different, (count,) int32."""
    ids = np.arange(count, dtype=np.uint32) ^ np.uint32(stream & 0xFFFFFFFF)
    for multiplier in _MIX_32:
        ids ^= ids >> np.uint32(16)
        ids *= np.uint32(multiplier & 0xFFFFFFFF)
    ids ^= ids >> np.uint32(16)
    return torch.from_numpy(ids.view(np.int32))


def _on(array: npt.NDArray[np.generic] | None, device: torch.device) -> torch.Tensor | None:
    return None if array is None else torch.from_numpy(array).to(device)
