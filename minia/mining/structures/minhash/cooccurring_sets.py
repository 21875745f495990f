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

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from minia.core.artifact import InputError
from minia.core.progress import progress
from minia.core.random_bits import mix_number
from minia.mining.lists.listdb import ListDB, offsets_of, ones, read_weights
from minia.mining.structures.minhash.minima import GatherMinima, choose_kernel, free_memory
from minia.mining.structures.minhash.random_keys import Elements, RandomKeys, frequency_levels

logger = logging.getLogger(__name__)

TABLES_AT_A_TIME = 32  # 32 columns a product measured fastest on CPU; 64 miss the cache
_TABLES_AT_A_TIME_CUDA = 256
_ENTRIES_AT_A_TIME = 1 << 20
_CODES_AT_A_TIME = 1 << 15  # mixed at a time: in the cache, and too few for torch to wake threads for
_MIX_64 = 0x9E3779B97F4A7C15 - (1 << 64)  # 2^64 / golden ratio, as a signed 64-bit number
SMALLEST_WEIGHT, LARGEST_WEIGHT = 1e-20, 1e20  # beyond, keys might not fit float32
MEMORY_BUDGET = 1 << 30
_TEMPORARIES_CUDA = 1 << 30  # of the keys that are made at a time there: float64, several times


def image_weights(bags: ListDB, scheme: str, path: Path | None = None) -> npt.NDArray[np.float64] | None:
    """Weights of the images for mining.

    Args:
        bags: bags of visual words, a list an image.
        scheme: ``none``; ``ids``: ln(number of words / number of distinct words of the image), so
            that an image that holds everything says nothing, inf for an image without words; or ``file``.
        path: for ``file``, the file of weights: a number a line, 0 or from 1e-20 to 1e20, anything
            for an image without words.

    Returns:
        (num_images,) float64, or None for ``none``.

    Raises:
        InputError: the scheme is unknown, or the file cannot be read or does not fit the bags.
    """
    if scheme == "none":
        return None
    if scheme == "file" and path is not None:
        try:
            return _checked_weights(bags, read_weights(path))
        except InputError as error:
            raise InputError(f"mining.weights_path={path}: {error}") from None
    if scheme != "ids":
        raise InputError(f"unknown weighting {scheme!r}: use none, ids, or file with a path")
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
    memory_budget: int = MEMORY_BUDGET,
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
        weights: (num_images,) float64, 0 or from 1e-20 to 1e20; that of an image without words does not matter.
        expand_frequencies: a word that an image holds f times counts as f elements.
        seed: chooses the random numbers; they depend on nothing else (device, threads, blocks).
        device: ``cpu`` or a CUDA device, in torch's words.
        memory_budget: bytes. The bags, what is made of them and what is mined with them take together
            at most three times the bags' memory, and this much more; the sets themselves are not counted.
            A CUDA device's own memory counts by itself: see :class:`TupleTables`.

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
    numbers, compact = _without_unused_words(bags)
    words, elements = _hashed_words(compact, _checked_weights(bags, weights), expand_frequencies)
    massive = np.flatnonzero(elements.mass_of(words))  # words in no image, or in such of weight 0 only, form no sets
    words, numbers = words.select(massive), numbers[massive]
    memory = memory_budget // 2 + _spare_memory(bags, words, elements)  # the other half is for temporaries
    tables = TupleTables(words, elements, tuple_size=tuple_size, seed=seed, device=device, memory=memory)
    members, sizes = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    with progress("mining", num_tuples, "tuple") as advance:
        for begin, end in tables.blocks(num_tuples):
            buckets = tables.buckets(begin, end, min_set_size)
            members.append(numbers[buckets.members])
            sizes.append(buckets.sizes)
            advance(end - begin)
    flat = np.concatenate(members)
    members.clear()
    unsorted = ListDB(offsets_of(np.concatenate(sizes)), flat, ones(len(flat)), bags.num_items)
    return unsorted.select(np.argsort(-unsorted.sizes, kind="stable"))


def _checked_weights(bags: ListDB, weights: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64] | None:
    if weights is None:
        return None
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (bags.num_lists,):
        raise InputError(f"there are {weights.size} weights for {bags.num_lists} images")
    fits = (weights == 0) | ((weights >= SMALLEST_WEIGHT) & (weights <= LARGEST_WEIGHT))  # false for nan
    wrong = np.flatnonzero(~fits & (bags.sizes > 0))
    if len(wrong):
        raise InputError(
            f"image {wrong[0]} has words and the weight {weights[wrong[0]]:g}; "
            f"allowed: 0, or from {SMALLEST_WEIGHT:g} to {LARGEST_WEIGHT:g}"
        )
    return weights


def _without_unused_words(bags: ListDB) -> tuple[npt.NDArray[np.int32], ListDB]:
    """Bags over no more words than they have entries, and what these words' numbers were, (num_words,) int32."""
    if bags.num_items <= bags.num_entries:
        return np.arange(bags.num_items, dtype=np.int32), bags
    used = np.unique(bags.items)
    items = np.empty_like(bags.items)
    for begin in range(0, len(items), _ENTRIES_AT_A_TIME):
        part = slice(begin, begin + _ENTRIES_AT_A_TIME)
        items[part] = np.searchsorted(used, bags.items[part])
    return used, ListDB(bags.offsets, items, bags.frequencies, len(used))


def _hashed_words(
    bags: ListDB, weights: npt.NDArray[np.float64] | None, expand_frequencies: bool
) -> tuple[ListDB, Elements]:
    """The inverted file over elements: a list a word, its items being elements."""
    if weights is not None:
        weights = np.where(bags.offsets[1:] > bags.offsets[:-1], weights, 0.0)
    if expand_frequencies:
        return frequency_levels(bags, weights)
    rates = None if weights is None else weights.astype(np.float32)
    words = ListDB(bags.offsets, bags.items, ones(bags.num_entries), bags.num_items).transpose()
    return words, Elements(bags.num_lists, rates)


def _spare_memory(bags: ListDB, words: ListDB, elements: Elements) -> int:
    """What is left of three times the bags' memory, in bytes, beside the bags and all that is made of them."""
    matrix = 8 * (bags.num_lists + bags.num_entries)
    kernel = 9 * words.num_entries  # at most: the entries twice, and a quarter more
    made = sum(array.nbytes for array in (elements.rates, elements.groups) if array is not None)
    return max(0, 3 * matrix - bags.num_bytes - words.num_bytes - kernel - made)


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
        device: where the min-hashes are taken; where lists and a table do not fit the free memory of a
            CUDA device, on CPU, which the log tells.
        kernel: ``product`` (a sparse product with the minimum in place of the sum) or ``mixed`` (it, and
            for long lists a search among the smallest keys), both on CPU only, or ``gather``;
            None: the fastest one of the device. All give the same bits.
        memory: bytes that keys, minima and codes may take together, as far as one table does with it; on a
            CUDA device half of what is free there.
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
        memory: int = MEMORY_BUDGET // 2,
    ) -> None:
        self.num_lists = lists.num_lists
        self.tuple_size = tuple_size
        elements = elements if elements is not None else Elements(lists.num_items)
        self.device, self._affordable = torch.device(device), 0
        if self.device.type != "cpu":
            self._affordable = _affordable_on_device(lists, elements, tuple_size, self.device)
        if not self._affordable:
            self.device = torch.device("cpu")
            # A table takes a key an element, some of them again in sorting; and a list two codes and three minima.
            a_table = 8 * elements.count + (24 + 4 * tuple_size) * lists.num_lists
            self._affordable = max(1, memory // max(1, a_table))
        self.keys = RandomKeys(elements, mix_number(seed ^ mix_number(purpose + 1)), self.device)
        self._minima = choose_kernel(lists, elements, self.device, kernel)

    def blocks(self, num_tables: int) -> Iterator[tuple[int, int]]:
        """Tables 0 .. num_tables - 1 as ranges small enough to be hashed at once."""
        return self._blocks(0, num_tables if self.num_lists else 0)

    def _blocks(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        most = min(TABLES_AT_A_TIME if self.device.type == "cpu" else _TABLES_AT_A_TIME_CUDA, self._affordable)
        for first in range(begin, end, most):
            yield first, min(first + most, end)

    def buckets(self, begin: int, end: int, smallest: int) -> Buckets:
        """The buckets of tables ``begin`` to ``end - 1`` with at least ``smallest`` (2 or more) members."""
        parts = [_runs(self._codes(*block), self._number_bits, smallest) for block in self._blocks(begin, end)]
        members = np.concatenate([np.zeros(0, np.int64), *(part.members for part in parts)])
        return Buckets(members, np.concatenate([np.zeros(0, np.int64), *(part.sizes for part in parts)]))

    @property
    def _number_bits(self) -> int:
        """Bits that a list's number takes."""
        return max(1, (self.num_lists - 1).bit_length())

    def _codes(self, begin: int, end: int) -> torch.Tensor:
        """Each table's tuples as hash codes, with the lists' numbers in their lowest bits, (tables, lists), sorted.

        One sort of plain integers then brings equal tuples together, members ascending. With n lists two
        tuples agree by chance once in 2^64 / n.
        """
        positions = np.arange(begin, end) * self.tuple_size
        minima = [self._minima(self.keys(positions + position)) for position in range(self.tuple_size)]
        codes = torch.empty((end - begin, self.num_lists), dtype=torch.int64, device=self.device)
        numbers = torch.arange(self.num_lists, device=self.device)[:, None]
        for part in _parts(self.num_lists, end - begin, self.device):
            mixed = torch.zeros_like(codes[:, part].t(), memory_format=torch.contiguous_format)
            for smallest in minima:
                mixed ^= smallest[part].view(torch.int32)  # its bits tell which element it is
                mixed *= _MIX_64
                mixed ^= mixed >> 32
            mixed >>= self._number_bits
            mixed <<= self._number_bits
            mixed |= numbers[part]
            codes[:, part] = mixed.t()
        return _sorted_rows(codes)


def _affordable_on_device(lists: ListDB, elements: Elements, tuple_size: int, device: torch.device) -> int:
    """How many tables a CUDA device has room for at once, beside the lists; 0 where these or one table do not fit."""
    for_lists, for_function = GatherMinima.num_bytes(lists)
    for_lists += sum(array.nbytes for array in (elements.rates, elements.groups) if array is not None)
    # A key an element; of a list the minima, the codes, and beside these six more such numbers in sorting.
    a_table = 4 * elements.count + for_function + (56 + 4 * tuple_size) * lists.num_lists
    free = free_memory(device)
    affordable = (min(free // 2, free - _TEMPORARIES_CUDA) - for_lists) // max(1, a_table)
    if affordable < 1:
        logger.info(
            "mining: on CPU, which gives the same bits: lists and a table take %.2f GB of the device's memory, too much"
            " beside temporaries in the %.2f GB that are free there", (for_lists + a_table) / 1e9, free / 1e9,
        )  # fmt: skip
    return max(0, affordable)


def _parts(count: int, width: int, device: torch.device) -> Iterator[slice]:
    """So many rows in parts: on CPU of numbers that fit the cache, and too few for torch to wake threads for."""
    step = max(1, _CODES_AT_A_TIME // width) if device.type == "cpu" else count
    for begin in range(0, count, step):
        yield slice(begin, begin + step)


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
    found = []
    for part in _parts(len(rows), rows.shape[1], rows.device):
        difference = rows[part, reach:] ^ rows[part, :width]
        difference >>= number_bits
        same = (difference == 0).reshape(-1)  # no bit of the codes differs
        # numpy's search is five times as fast as torch's where little is found
        place = np.flatnonzero(same.numpy()) if rows.device.type == "cpu" else same.nonzero().squeeze(1).cpu().numpy()
        found.append(place + place // width * reach + part.start * rows.shape[1])
    starts = np.concatenate(found)  # of windows of equal codes
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
