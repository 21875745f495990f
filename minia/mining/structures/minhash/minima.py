"""The kernels of min-hashing: the smallest key of each list, for many hash functions at once."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from minia.mining.lists.listdb import ListDB, offsets_of, ones
from minia.mining.structures.minhash.long_lists import LongListMinima
from minia.mining.structures.minhash.random_keys import Universe

_ELEMENTS_IN_CACHE = 12288  # their keys in 32 columns take 1.5 MB; 4,000 to 33,000 measured about alike
_ENTRIES_PER_LIST = 4  # a block of elements should hold so many entries per list to be worth a pass of its own
_MOST_ENTRIES = 1 << 30  # of a block on average, so that its offsets fit int32 as a rule
_LARGEST_INT32 = (1 << 31) - 1
_PER_ENTRY, _PER_PASS = 0.2, 1.8  # nanoseconds of the product for an entry, and for a list in a block
_PIECE = 1024  # the gather kernel splits longer lists, so that a stop word does not hold up the rest

Kernel = Callable[[torch.Tensor], torch.Tensor]  # (num_elements, columns) keys to (num_lists, columns) smallest ones


def free_memory(device: torch.device) -> int:
    """Bytes that tensors can still take on a CUDA device, with those that torch holds unused."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def choose_kernel(lists: ListDB, universe: Universe, device: torch.device, name: str | None) -> Kernel:
    """The kernel of that name, ``product`` or ``mixed`` (CPU only) or ``gather``; None: the device's fastest."""
    if name == "gather" or (name is None and device.type != "cpu"):
        return GatherMinima(lists, device)
    return ProductMinima(lists) if name == "product" else MixedMinima(lists, universe)


class MixedMinima:
    """Minima of long lists by :class:`LongListMinima`, of the others by :class:`ProductMinima`."""

    def __init__(self, lists: ListDB, universe: Universe) -> None:
        self._num_lists = lists.num_lists
        self._long = LongListMinima(lists, universe, ProductMinima.nanoseconds(lists))
        others = self._long.others
        self._product = ProductMinima(lists if len(others) == lists.num_lists else lists.select(others))

    def __call__(self, keys: torch.Tensor) -> torch.Tensor:
        """(num_elements, columns) float32 keys to (num_lists, columns) smallest ones."""
        others = self._long.others
        if len(others) == self._num_lists:
            return self._product(keys)
        minima = np.empty((self._num_lists, keys.shape[1]), dtype=np.float32)
        self._long(keys.numpy(), minima)
        if len(others):
            minima[others] = self._product(keys).numpy()
        return torch.from_numpy(minima)


class ProductMinima:
    """Minima by torch's sparse product with ``amin``, which reads a row of keys for each entry.

    The elements are taken in blocks whose keys fit the second-level cache: four times as fast as
    all at once where neighbours on the machine use the shared cache too.
    """

    def __init__(self, lists: ListDB) -> None:
        most = lists.num_entries // (_ENTRIES_PER_LIST * max(1, lists.num_lists))  # a block costs a pass over all lists
        num_blocks = min(-(-lists.num_items // _ELEMENTS_IN_CACHE), most)
        num_blocks = max(1, num_blocks, -(-lists.num_entries // _MOST_ENTRIES))
        step = max(1, -(-lists.num_items // num_blocks))
        self._ranges = [(begin, min(begin + step, lists.num_items)) for begin in range(0, lists.num_items, step)]
        if len(self._ranges) <= 1:
            self._matrices = [_matrix(lists, torch.ones(lists.num_entries))]
            return
        by_element = lists.transpose()
        blocks = [_with_sentinel(by_element, begin, end) for begin, end in self._ranges]
        values = torch.ones(max(block.num_entries for block in blocks))
        self._matrices = [_matrix(block, values[: block.num_entries]) for block in blocks]

    @staticmethod
    def nanoseconds(lists: ListDB) -> npt.NDArray[np.float64]:
        """About what a hash function takes for each list on one core, (num_lists,)."""
        passes = np.minimum(lists.num_items // _ELEMENTS_IN_CACHE, lists.sizes / _ENTRIES_PER_LIST)
        return _PER_ENTRY * lists.sizes + _PER_PASS * passes

    def __call__(self, keys: torch.Tensor) -> torch.Tensor:
        """(num_elements, columns) float32 keys to (num_lists, columns) smallest ones."""
        if len(self._ranges) <= 1:
            only: torch.Tensor = torch.sparse.mm(self._matrices[0], keys, "amin")
            return only
        infinite = torch.full((1, keys.shape[1]), math.inf)
        minima = torch.full((self._matrices[0].shape[0], keys.shape[1]), math.inf)
        for (begin, end), matrix in zip(self._ranges, self._matrices, strict=True):
            block = torch.cat([keys[begin:end], infinite])
            torch.minimum(minima, torch.sparse.mm(matrix, block, "amin"), out=minima)
        return minima


def _with_sentinel(by_element: ListDB, begin: int, end: int) -> ListDB:
    """The lists over elements ``begin`` to ``end - 1``, renumbered, each with element ``end - begin`` added.

    That one's key will be infinite; without it the product would give 0 for an empty list.
    """
    entries = slice(int(by_element.offsets[begin]), int(by_element.offsets[end]))
    offsets = by_element.offsets[begin : end + 1] - by_element.offsets[begin]
    block = ListDB(offsets, by_element.items[entries], by_element.frequencies[entries], by_element.num_items)
    lists = block.transpose()
    items = np.insert(lists.items, lists.offsets[1:], end - begin)
    longer = lists.offsets + np.arange(len(lists.offsets))
    return ListDB(longer, items, ones(len(items)), end - begin + 1)


def _matrix(lists: ListDB, values: torch.Tensor) -> torch.Tensor:
    """The lists as a sparse matrix, (num_lists, num_items) float32, of ones given to be shared by many."""
    fits = max(lists.num_entries, lists.num_items) <= _LARGEST_INT32
    offsets = lists.offsets.astype(np.int32) if fits else lists.offsets
    items = lists.items if fits else lists.items.astype(np.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(offsets),
            torch.from_numpy(items),
            values,
            size=(lists.num_lists, lists.num_items),
            check_invariants=False,  # a ListDB has them checked
        )


class GatherMinima:
    """Minima by gathering the keys of each list, in two steps: inside pieces of lists, then over pieces.

    Keys change their signs while they are read, and are given back as they were.
    """

    def __init__(self, lists: ListDB, device: torch.device) -> None:
        pieces = -(-lists.sizes // _PIECE)
        first = offsets_of(pieces)
        within = np.arange(first[-1]) - np.repeat(first[:-1], pieces)
        starts = np.repeat(lists.offsets[:-1], pieces) + within * _PIECE
        self._items = torch.from_numpy(lists.items).to(device, torch.int64)
        self._piece_starts = torch.from_numpy(starts).to(device)
        self._pieces = torch.arange(len(starts), device=device)
        self._list_starts = torch.from_numpy(first[:-1].copy()).to(device)

    def __call__(self, keys: torch.Tensor) -> torch.Tensor:
        """(num_elements, columns) float32 keys to (num_lists, columns) smallest ones."""
        bag = torch.nn.functional.embedding_bag  # knows only the maximum; a change of sign is exact
        by_piece = bag(self._items, keys.neg_(), self._piece_starts, mode="max")
        keys.neg_()
        return bag(self._pieces, by_piece, self._list_starts, mode="max").neg_()

    @staticmethod
    def num_bytes(lists: ListDB) -> tuple[int, int]:
        """What it takes on the device for the lists, and for a hash function beside its keys and minima.

        An entry's element and, inside ``embedding_bag``, its bag are int64; so is the place of the maximum
        that this keeps of each piece and of each list.
        """
        pieces = int((-(-lists.sizes // _PIECE)).sum())
        return 16 * lists.num_entries + 24 * pieces + 8 * lists.num_lists, 12 * pieces + 8 * lists.num_lists
