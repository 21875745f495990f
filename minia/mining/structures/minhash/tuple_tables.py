"""Hash tables of tuples of min-hashes: lists whose tuples are equal share a bucket."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from minia.core.random_bits import GOLDEN_64, mix_number
from minia.mining.lists.listdb import ListDB, offsets_of
from minia.mining.structures.minhash.minima import GatherMinima, choose_kernel, free_memory
from minia.mining.structures.minhash.random_keys import RandomKeys, Universe

logger = logging.getLogger(__name__)

TABLES_AT_A_TIME = 32  # 32 columns a product measured fastest on CPU; 64 miss the cache
MEMORY_BUDGET = 1 << 30
_TABLES_AT_A_TIME_CUDA = 256
_CODES_AT_A_TIME = 1 << 15  # mixed at a time: in the cache, and too few for torch to wake threads for
_FACTOR = GOLDEN_64 - (1 << 64)  # as a signed 64-bit number
_TEMPORARIES_CUDA = 1 << 30  # of the keys that are made at a time there: float64, several times


@dataclass(frozen=True)
class TupleHashing:
    """How lists are hashed.

    Attributes:
        tuple_size: min-hashes in a tuple, at least 1.
        num_tuples: tuples of each list, that is hash tables, at least 1.
        seed: chooses the random numbers; they depend on nothing else (device, threads, blocks).
        device: where the min-hashes are taken: ``cpu`` or a CUDA device, in torch's words.
    """

    tuple_size: int
    num_tuples: int
    seed: int = 0
    device: str = "cpu"


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
        hashing: how. Where lists and a table do not fit the free memory of a CUDA device, the min-hashes are taken on
            the CPU, which the log tells.
        universe: what the items are; None: elements that are all alike.
        purpose: another number gives independent tables of the same seed.
        kernel: ``product`` (a sparse product with the minimum in place of the sum) or ``mixed`` (it, and
            for long lists a search among the smallest keys), both on CPU only, or ``gather``;
            None: the fastest one of the device. All give the same bits.
        memory: bytes that keys, minima and codes may take together, as far as one table does with it; on a
            CUDA device half of what is free there.
    """

    def __init__(
        self,
        lists: ListDB,
        hashing: TupleHashing,
        *,
        universe: Universe | None = None,
        purpose: int = 0,
        kernel: str | None = None,
        memory: int = MEMORY_BUDGET // 2,
    ) -> None:
        self.num_lists, self.num_tuples = lists.num_lists, hashing.num_tuples
        self.tuple_size = tuple_size = hashing.tuple_size
        universe = universe if universe is not None else Universe(lists.num_items)
        self.device, self._affordable = torch.device(hashing.device), 0
        if self.device.type != "cpu":
            self._affordable = _affordable_on_device(lists, universe, tuple_size, self.device)
        if not self._affordable:
            self.device = torch.device("cpu")
            # A table takes a key an element, some of them again in sorting; and a list two codes and three minima.
            a_table = 8 * universe.num_elements + (24 + 4 * tuple_size) * lists.num_lists
            self._affordable = max(1, memory // max(1, a_table))
        self.keys = RandomKeys(universe, mix_number(hashing.seed ^ mix_number(purpose + 1)), self.device)
        self._minima = choose_kernel(lists, universe, self.device, kernel)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """All tables, as ranges small enough to be hashed at once."""
        return self._blocks(0, self.num_tuples if self.num_lists else 0)

    def blocks_for_all(self) -> Iterator[tuple[int, int]]:
        """All tables, as ranges that are the same in any process, whatever memory it has."""
        for first in range(0, self.num_tuples if self.num_lists else 0, TABLES_AT_A_TIME):
            yield first, min(first + TABLES_AT_A_TIME, self.num_tuples)

    def _blocks(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        most = min(TABLES_AT_A_TIME if self.device.type == "cpu" else _TABLES_AT_A_TIME_CUDA, self._affordable)
        for first in range(begin, end, most):
            yield first, min(first + most, end)

    def buckets(self, begin: int, end: int, smallest: int) -> Buckets:
        """The buckets of tables ``begin`` to ``end - 1`` with at least ``smallest`` (2 or more) members."""
        found = [_runs(self._codes(*block), self._number_bits, smallest) for block in self._blocks(begin, end)]
        members = np.concatenate([np.zeros(0, np.int64), *(buckets.members for buckets in found)])
        return Buckets(members, np.concatenate([np.zeros(0, np.int64), *(buckets.sizes for buckets in found)]))

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
        for block in _row_blocks(self.num_lists, end - begin, self.device):
            mixed = torch.zeros_like(codes[:, block].t(), memory_format=torch.contiguous_format)
            for smallest in minima:
                mixed ^= smallest[block].view(torch.int32)  # its bits tell which element it is
                mixed *= _FACTOR
                mixed ^= mixed >> 32
            mixed >>= self._number_bits
            mixed <<= self._number_bits
            mixed |= numbers[block]
            codes[:, block] = mixed.t()
        return _sorted_rows(codes)


def _affordable_on_device(lists: ListDB, universe: Universe, tuple_size: int, device: torch.device) -> int:
    """How many tables a CUDA device has room for at once, beside the lists; 0 where these or one table do not fit."""
    for_lists, for_function = GatherMinima.num_bytes(lists)
    for_lists += sum(array.nbytes for array in (universe.rates, universe.groups) if array is not None)
    # A key an element; of a list the minima, the codes, and beside these six more such numbers in sorting.
    a_table = 4 * universe.num_elements + for_function + (56 + 4 * tuple_size) * lists.num_lists
    free = free_memory(device)
    affordable = (min(free // 2, free - _TEMPORARIES_CUDA) - for_lists) // max(1, a_table)
    if affordable < 1:
        logger.info(
            "mining: on CPU, which gives the same bits: lists and a table take %.2f GB of the device's memory, too much"
            " beside temporaries in the %.2f GB that are free there", (for_lists + a_table) / 1e9, free / 1e9,
        )  # fmt: skip
    return max(0, affordable)


def _row_blocks(count: int, width: int, device: torch.device) -> Iterator[slice]:
    """So many rows in blocks: on CPU of numbers that fit the cache, and too few for torch to wake threads for."""
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
    for block in _row_blocks(len(rows), rows.shape[1], rows.device):
        difference = rows[block, reach:] ^ rows[block, :width]
        difference >>= number_bits
        same = (difference == 0).reshape(-1)  # no bit of the codes differs
        # numpy's search is five times as fast as torch's where little is found
        place = np.flatnonzero(same.numpy()) if rows.device.type == "cpu" else same.nonzero().squeeze(1).cpu().numpy()
        found.append(place + place // width * reach + block.start * rows.shape[1])
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
