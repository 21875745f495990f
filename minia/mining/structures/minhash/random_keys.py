"""The random keys that min-hashing gives the elements of the sets that it hashes.

A key is a hash of the numbers of its element and its hash function and of nothing else: keys do not
depend on the device, on threads or on how many are made at once. The same lines of code make them
from numpy's arrays and from torch's tensors, of operations that round alike everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from minia.core.artifact import InputError
from minia.core.random_bits import mix_64
from minia.core.threads import map_in_threads
from minia.mining.lists.listdb import ListDB, blocks_of, offsets_of, ones
from minia.mining.lists.text import LARGEST_ITEM

KEY_RANGE = 2.0**31  # the keys of elements without rates are whole numbers below it
_KEYS_AT_A_TIME = 1 << 17  # so that what they are made from fits the cache
_KEYS_AT_A_TIME_CUDA = 1 << 24
_RATES_AT_A_TIME = 1 << 20
_ENTRIES_AT_A_TIME = 1 << 18  # whose frequencies are sorted into levels
_MIX_32 = (0x7FEB352D, 0x846CA68B - (1 << 32))  # odd multipliers with low bias, as signed 32-bit numbers


@dataclass(frozen=True)
class Universe:
    """All elements of the sets that are hashed: the images, or the frequency levels of images.

    Attributes:
        num_elements: how many there are; they are numbered from 0.
        rates: (num_elements,) float32, 0 or more: an element's key is exponential with that rate, so that it
            is the smallest with a probability proportional to its rate, and infinite at rate 0.
            None: all are equal.
        groups: (num_groups + 1,) int64, offsets of groups of consecutive elements: an element takes over
            the smallest key before it in its group if that is below its own. None: it never does.
    """

    num_elements: int
    rates: npt.NDArray[np.float32] | None = None
    groups: npt.NDArray[np.int64] | None = None

    def mass_of(self, lists: ListDB) -> npt.NDArray[np.float64]:
        """The sum of the rates of each list's elements, or their number if these have none, (num_lists,)."""
        if self.rates is None:
            return lists.sizes.astype(np.float64)
        mass = np.zeros(lists.num_lists)
        filled = np.flatnonzero(lists.offsets[1:] > lists.offsets[:-1])
        for begin, end in blocks_of(np.append(lists.offsets[filled], lists.num_entries), _RATES_AT_A_TIME):
            starts = lists.offsets[filled[begin:end]]
            rates = self.rates[lists.items[starts[0] : lists.offsets[filled[end - 1] + 1]]]
            mass[filled[begin:end]] = np.add.reduceat(rates, starts - starts[0], dtype=np.float64)
        return mass


def frequency_levels(bags: ListDB, weights: npt.NDArray[np.float64] | None) -> tuple[ListDB, Universe]:
    """Count a word that an image holds f times as f elements, without making them.

    An image stands for as many copies of itself as its most frequent word occurs times, and a word of frequency f is in
    the first f of them. So copies between two frequencies that follow each other in the image always come together.
    They are one element, a *level*, with their number as its rate, since the smallest of n exponential keys of rate w
    is exponential with rate n w. A word's smallest key in the image is the smallest among the levels up to its
    frequency.

    Args:
        bags: bags of words, a list an image.
        weights: (num_images,) float64, 0 or more, of each copy; None: all 1.

    Returns:
        The inverted file over levels, a list a word; and the levels, a group an image.
    """
    level_of_entry = np.empty(bags.num_entries, dtype=np.int32)
    num_levels = np.zeros(bags.num_lists, dtype=np.int64)
    rates, first = [np.zeros(0, np.float32)], 0
    top = int(bags.frequencies.max(initial=0)) + 1
    for begin, end in bags.blocks(_ENTRIES_AT_A_TIME):
        entries = slice(bags.offsets[begin], bags.offsets[end])
        image = np.repeat(np.arange(begin, end), bags.offsets[begin + 1 : end + 1] - bags.offsets[begin:end])
        levels, level = np.unique(image * top + bags.frequencies[entries], return_inverse=True)
        level_of_entry[entries] = level + first
        image, frequency = np.divmod(levels, top)
        below = np.where(np.diff(image, prepend=-1) > 0, 0, np.roll(frequency, 1))
        copies = (frequency - below).astype(np.float64)
        rates.append((copies if weights is None else copies * weights[image]).astype(np.float32))
        num_levels[begin:end] = np.bincount(image - begin, minlength=end - begin)
        first += len(levels)
        if first > LARGEST_ITEM:
            raise InputError(f"the images have more than {LARGEST_ITEM} different frequencies to count")
    # The level of an entry, from 1, travels through the transposition in the place of its frequency.
    level_of_entry += 1
    carried = ListDB(bags.offsets, bags.items, level_of_entry, bags.num_items).transpose()
    carried.frequencies[:] -= 1
    words = ListDB(carried.offsets, carried.frequencies, ones(bags.num_entries), first)
    return words, Universe(first, np.concatenate(rates), offsets_of(num_levels))


class RandomKeys:
    """Keys of elements under hash functions 0, 1, 2 ...

    Args:
        universe: the elements that get keys.
        stream: 64 random bits: another number gives independent keys.
        device: where the keys are made.
    """

    def __init__(self, universe: Universe, stream: int, device: torch.device) -> None:
        self._universe, self._stream, self._device = universe, stream, device
        rates = universe.rates
        self._tensor_rates = None if rates is None else torch.from_numpy(rates).to(device)

    def __call__(self, functions: npt.NDArray[np.int64]) -> torch.Tensor:
        """The (num_elements, num_functions) float32 keys, above or equal 0.

        A 31-bit hash of element and function: the element's number is mixed over 32 bits, combined
        with 32 random bits of the function and mixed again. float32 keeps 24 bits of it, at any scale
        (float32 random numbers, of fixed steps, would tie far more often). Two unrelated minima then
        tie about once in 2^24, or for words of n elements, whose minima are small whole numbers, n in
        2^32: measured 2e-4 for two words of 500,000 images each. A tuple of r needs r ties.
        """
        return self._by_numpy(functions) if self._device.type == "cpu" else self._by_torch(functions)

    def _by_numpy(self, functions: npt.NDArray[np.int64]) -> torch.Tensor:
        """On CPU: twice as fast as torch on one thread; and threads of our own stand a busy machine better."""
        keys = np.empty((self._universe.num_elements, len(functions)), dtype=np.float32)
        bits = _function_bits(functions, self._stream)

        def fill(block: tuple[int, int]) -> None:
            begin, end = block
            self._fill(np, keys[begin:end], np.arange(begin, end, dtype=np.int32), bits, self._universe.rates, begin)

        map_in_threads(fill, list(self._blocks(_KEYS_AT_A_TIME // len(functions))))
        return torch.from_numpy(keys)

    def _by_torch(self, functions: npt.NDArray[np.int64]) -> torch.Tensor:
        shape = (self._universe.num_elements, len(functions))
        keys = torch.empty(shape, dtype=torch.float32, device=self._device)
        bits = torch.from_numpy(_function_bits(functions, self._stream)).to(self._device)
        for begin, end in self._blocks(_KEYS_AT_A_TIME_CUDA // len(functions)):
            ids = torch.arange(begin, end, dtype=torch.int32, device=self._device)
            self._fill(torch, keys[begin:end], ids, bits, self._tensor_rates, begin)
        return keys

    def _blocks(self, most: int) -> Iterator[tuple[int, int]]:
        """Ranges of at most so many elements, but of whole groups."""
        begin, num_elements, groups = 0, self._universe.num_elements, self._universe.groups
        while begin < num_elements:
            end = min(begin + max(1, most), num_elements)
            if groups is not None:
                at_most = groups[np.searchsorted(groups, end, side="right") - 1]
                end = int(at_most if at_most > begin else groups[np.searchsorted(groups, begin, side="right")])
            yield begin, end
            begin = end

    def _fill(self, library: ModuleType, keys: Any, ids: Any, bits: Any, rates: Any, begin: int) -> None:
        """Make the keys of the elements from ``begin`` with numpy or torch, whichever the arrays are of."""
        end = begin + len(keys)
        hashes = _mixed(ids, self._stream)[:, None] ^ bits
        hashes *= _MIX_32[0]
        hashes ^= hashes >> 15
        hashes *= _MIX_32[1]
        hashes &= (1 << 31) - 1
        if rates is None:
            keys[:] = hashes
        else:
            with np.errstate(divide="ignore"):
                keys[:] = _exponential(library, hashes) / rates[begin:end, None]
        if self._universe.groups is not None:
            _carry_minima(library, keys, self._ranks(begin, end))

    def _ranks(self, begin: int, end: int) -> npt.NDArray[np.int64]:
        """How many elements of its group stand before each of these elements."""
        groups = self._universe.groups
        assert groups is not None
        first, last = np.searchsorted(groups, [begin, end])
        starts = groups[first : last + 1]
        return np.arange(begin, end) - np.repeat(starts[:-1], np.diff(starts))


def _function_bits(functions: npt.NDArray[np.int64], stream: int) -> npt.NDArray[np.int32]:
    """32 random bits for each hash function, (num_functions,) int32."""
    mixed = mix_64(np.uint64(stream) ^ mix_64(functions.astype(np.uint64)))
    return (mixed >> np.uint64(32)).astype(np.uint32).view(np.int32)


def _mixed(ids: Any, stream: int) -> Any:
    """Other 32-bit numbers for 32-bit numbers, different ones for different ones; changes ``ids``."""
    low = stream & 0xFFFFFFFF
    ids ^= low - (1 << 32) if low >> 31 else low
    for multiplier in _MIX_32:
        ids ^= (ids >> 16) & 0xFFFF
        ids *= multiplier
    ids ^= (ids >> 16) & 0xFFFF
    return ids


def _exponential(library: ModuleType, hashes: Any) -> Any:
    """``-ln(1 - u)`` in float64 with u = (hash + 1/2) / 2^31.

    Made of additions, multiplications and divisions only, which IEEE 754 rounds the same on every
    device, as the logarithms of the libraries are not: 1 - u = m 2^e and
    ln m = 2 artanh((m - 1) / (m + 1)), whose series has |t| <= 0.172 for m within sqrt(2) of 1.
    """
    mantissa, exponent = library.frexp(1 - (_doubles(hashes) + 0.5) / KEY_RANGE)
    small = mantissa < math.sqrt(0.5)
    mantissa = library.where(small, mantissa * 2, mantissa)
    ratio = (mantissa - 1) / (mantissa + 1)
    square = ratio * ratio
    series = library.zeros_like(ratio)
    for power in range(21, 0, -2):
        series *= square
        series += 1 / power
    return (_doubles(small) - _doubles(exponent)) * math.log(2) - 2 * (series * ratio)


def _doubles(numbers: Any) -> Any:
    return numbers.astype(np.float64) if isinstance(numbers, np.ndarray) else numbers.to(torch.float64)


def _carry_minima(library: ModuleType, keys: Any, rank: npt.NDArray[np.int64]) -> None:
    """Give every element the smallest key among itself and the ``rank`` elements before it, in place.

    By doubling: after the step of width w an element knows the minimum of the 2 w before it.
    """
    width, most = 1, int(rank.max(initial=0))
    while width <= most:
        rows: Any = np.flatnonzero(rank >= width)
        if library is torch:
            rows = torch.from_numpy(rows).to(keys.device)
        keys[rows] = library.minimum(keys[rows], keys[rows - width])
        width *= 2
