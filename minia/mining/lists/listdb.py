"""Lists of weighted items: bags of words, inverted files, co-occurring sets and structures.

One container serves all of them, and one text format, that of the Sampled-MinHashing programs:
a line a list, ``size item:frequency item:frequency ...``, ids from 0, ``0`` for an empty list.
Files written here are byte for byte what these programs write; unlike them, the reader checks
every line. Files are read and written piece by piece.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse

from minia.core.artifact import InputError
from minia.core.writing import appearing_whole
from minia.mining.lists.text import LARGEST_ITEM, ParsedLists, format_lists, parse_stream, shown

_ENTRIES_WRITTEN = 1 << 16  # entries turned to text at a time
_ENTRIES_AT_A_TIME = 1 << 20  # entries rearranged at a time, with temporaries of some 32 bytes each
_MOST_SORTED_AT_ONCE = (1 << 31) - 1


@dataclass(frozen=True, eq=False)
class ListDB:
    """Lists of weighted items in one flat (CSR) form.

    Entries ``offsets[i]`` to ``offsets[i + 1] - 1`` belong to list ``i``. As bags of words a list
    is an image and an item a visual word, as an inverted file the other way round.

    Attributes:
        offsets: (num_lists + 1,) int64, from 0 to the number of entries, never falling.
        items: (num_entries,) int32 in 0 .. num_items - 1; the order inside a list is kept.
        frequencies: (num_entries,) int32, at least 1; those of :func:`ones` take no memory.
        num_items: how many items there are, used or not.

    Raises:
        ValueError: the arrays do not fit together.
    """

    offsets: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    frequencies: npt.NDArray[np.int32]
    num_items: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "offsets", np.ascontiguousarray(self.offsets, dtype=np.int64))
        object.__setattr__(self, "items", np.ascontiguousarray(self.items, dtype=np.int32))
        if not self.all_ones:
            object.__setattr__(self, "frequencies", np.ascontiguousarray(self.frequencies, dtype=np.int32))
        object.__setattr__(self, "num_items", int(self.num_items))
        if self.offsets.ndim != 1 or self.items.ndim != 1 or self.items.shape != self.frequencies.shape:
            raise ValueError("offsets, items and frequencies must be flat, items and frequencies equally long")
        if len(self.offsets) == 0 or self.offsets[0] != 0 or self.offsets[-1] != len(self.items):
            raise ValueError("offsets must go from 0 to the number of entries")
        if np.any(self.offsets[1:] < self.offsets[:-1]):
            raise ValueError("offsets must not fall")
        if len(self.items) and (self.items.min() < 0 or self.items.max() >= self.num_items):
            raise ValueError(f"items must be in 0 .. {self.num_items - 1}")
        if len(self.items) and not self.all_ones and self.frequencies.min() < 1:
            raise ValueError("frequencies must be at least 1")

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[int]], num_items: int | None = None) -> ListDB:
        """Lists of items, each with frequency 1; ``num_items`` defaults to the largest item + 1."""
        sizes = np.array([len(items) for items in lists], dtype=np.int64)
        flat = np.array([item for items in lists for item in items], dtype=np.int32)
        if num_items is None:
            num_items = int(flat.max()) + 1 if len(flat) else 0
        return cls(offsets_of(sizes), flat, ones(len(flat)), num_items)

    @property
    def num_lists(self) -> int:
        """Number of lists, empty ones included."""
        return len(self.offsets) - 1

    @property
    def num_entries(self) -> int:
        """Number of entries in all lists together."""
        return len(self.items)

    @property
    def num_bytes(self) -> int:
        """Memory that the arrays take."""
        return self.offsets.nbytes + self.items.nbytes + (0 if self.all_ones else self.frequencies.nbytes)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Number of entries of each list, (num_lists,) int64."""
        return np.diff(self.offsets)

    @property
    def all_ones(self) -> bool:
        """Whether the frequencies are those of :func:`ones`."""
        return _is_ones(np.asarray(self.frequencies))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ListDB):
            return NotImplemented
        return (
            self.num_items == other.num_items
            and np.array_equal(self.offsets, other.offsets)
            and np.array_equal(self.items, other.items)
            and np.array_equal(self.frequencies, other.frequencies)
        )

    def __getitem__(self, index: int) -> npt.NDArray[np.int32]:
        """The items of one list, (size,) int32; a view."""
        if not 0 <= index < self.num_lists:
            raise IndexError(f"list {index} of {self.num_lists}")
        return self.items[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[npt.NDArray[np.int32]]:
        return (self[index] for index in range(self.num_lists))

    def blocks(self, most: int | None = None) -> Iterator[tuple[int, int]]:
        """All lists as ranges ``begin, end`` of at most so many lists and entries (default: 2^20), or one list."""
        return blocks_of(self.offsets, most or _ENTRIES_AT_A_TIME)

    def item_counts(self) -> npt.NDArray[np.int64]:
        """How many entries each item has, (num_items,) int64, with temporaries of some entries at a time."""
        counts = np.zeros(self.num_items, dtype=np.int64)
        step = max(_ENTRIES_AT_A_TIME, self.num_items)
        for begin in range(0, self.num_entries, step):
            counts += np.bincount(self.items[begin : begin + step], minlength=self.num_items)
        return counts

    def transpose(self) -> ListDB:
        """The inverted file: list ``j`` holds the lists that hold item ``j``, ascending, with their frequencies.

        A counting sort: linear in entries, lists and items, with little memory beside the result.
        """
        if self.num_entries > _MOST_SORTED_AT_ONCE:
            return self._transpose_in_blocks()
        data = np.ones(self.num_entries, dtype=np.int8) if self.all_ones else self.frequencies
        matrix = scipy.sparse.csr_matrix((data, self.items, self.offsets), shape=(self.num_lists, self.num_items))
        by_item = matrix.tocsc()
        frequencies = ones(self.num_entries) if self.all_ones else by_item.data
        return ListDB(by_item.indptr, by_item.indices, frequencies, self.num_lists)

    def _transpose_in_blocks(self) -> ListDB:
        """The same of more entries than 32-bit numbers count: with 64 bits, scipy would take thrice the memory."""
        offsets = offsets_of(self.item_counts())
        free = offsets[:-1].copy()  # where each item's next entry goes
        lists = np.empty(self.num_entries, dtype=np.int32)
        frequencies = ones(len(lists)) if self.all_ones else np.empty_like(lists)
        for begin, end in self.blocks():
            entries = slice(self.offsets[begin], self.offsets[end])
            part = ListDB(
                self.offsets[begin : end + 1] - entries.start,
                self.items[entries],
                self.frequencies[entries],
                self.num_items,
            ).transpose()
            place = np.arange(part.num_entries) + np.repeat(free - part.offsets[:-1], part.sizes)
            free += part.sizes
            lists[place] = part.items + begin
            if not self.all_ones:
                frequencies[place] = part.frequencies
        return ListDB(offsets, lists, frequencies, self.num_lists)

    def select(self, lists: npt.ArrayLike) -> ListDB:
        """The given lists, in the given order.

        Args:
            lists: list numbers, (n,) integers, repeats allowed; or (num_lists,) booleans.
        """
        chosen = np.asarray(lists)
        chosen = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen.astype(np.int64)
        starts = self.offsets[chosen]
        sizes = self.offsets[chosen + 1] - starts
        offsets = offsets_of(sizes)
        items = np.empty(offsets[-1], dtype=np.int32)
        frequencies = ones(len(items)) if self.all_ones else np.empty_like(items)
        for begin, end in blocks_of(offsets, _ENTRIES_AT_A_TIME):
            new = slice(offsets[begin], offsets[end])
            shift = np.repeat(starts[begin:end] - offsets[begin:end], sizes[begin:end])
            old = np.arange(new.start, new.stop) + shift
            items[new] = self.items[old]
            if not self.all_ones:
                frequencies[new] = self.frequencies[old]
        return ListDB(offsets, items, frequencies, self.num_items)

    def followed_by(self, others: ListDB) -> ListDB:
        """These lists and then others, of as many items."""
        return ListDB(
            np.concatenate([self.offsets, self.offsets[-1] + others.offsets[1:]]),
            np.concatenate([self.items, others.items]),
            np.concatenate([self.frequencies, others.frequencies]),
            self.num_items,
        )

    def to_scipy(self, binary: bool) -> scipy.sparse.csr_matrix:
        """The (num_lists, num_items) matrix of frequencies, int32; of ones, float32, where ``binary``."""
        data = np.ones(self.num_entries, dtype=np.float32) if binary else np.ascontiguousarray(self.frequencies)
        return scipy.sparse.csr_matrix((data, self.items, self.offsets), shape=(self.num_lists, self.num_items))


def ones(count: int) -> npt.NDArray[np.int32]:
    """Frequencies of 1, (count,) int32, read-only, that take no memory."""
    return np.broadcast_to(np.int32(1), count)


def _is_ones(frequencies: npt.NDArray[np.int32]) -> bool:
    """Whether frequencies were made by :func:`ones`; others are not looked through."""
    repeated = len(frequencies) > 1 and frequencies.strides == (0,)
    return repeated and frequencies.dtype == np.int32 and bool(frequencies[0] == 1)


def offsets_of(sizes: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The (num_lists + 1,) int64 offsets of lists of these sizes."""
    sizes = np.asarray(sizes, dtype=np.int64)
    offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


def blocks_of(offsets: npt.NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Lists of these offsets as ranges ``begin, end`` of at most so many lists and entries, or one list."""
    begin, num_lists = 0, len(offsets) - 1
    while begin < num_lists:
        end = int(np.searchsorted(offsets, offsets[begin] + most, side="right")) - 1
        end = min(max(begin + 1, end), begin + most)
        yield begin, end
        begin = end


def listdb_pieces(path: Path | str, num_items: int | None = None) -> Iterator[ParsedLists]:
    """Read lists from text, some 256 kB at a time: see :func:`read_listdb`, which puts the pieces together.

    Raises:
        InputError: a line is malformed (its number, from 1, is named), or the file cannot be read.
    """
    limit = LARGEST_ITEM + 1 if num_items is None else num_items
    try:
        with Path(path).open("rb") as stream:
            yield from parse_stream(stream, str(path), limit)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def read_listdb(path: Path | str, num_items: int | None = None) -> ListDB:
    """Read lists from text. Blank lines are skipped; blanks at the ends of a line do not matter.

    Args:
        path: the text file.
        num_items: how many items there are; default: the largest item + 1.

    Returns:
        The lists, in the file's order.

    Raises:
        InputError: a line is malformed (its number, from 1, is named), or the file cannot be read.
    """
    sizes, items, frequencies = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    for piece in listdb_pieces(path, num_items):
        sizes.append(piece.sizes)
        items.append(piece.items)
        frequencies.append(piece.frequencies)
    all_items = np.concatenate(items)
    items.clear()
    if num_items is None:
        num_items = int(all_items.max()) + 1 if len(all_items) else 0
    return ListDB(offsets_of(np.concatenate(sizes)), all_items, np.concatenate(frequencies), num_items)


def write_listdb(path: Path | str, lists: ListDB | Iterable[ListDB]) -> None:
    """Write lists as text, byte for byte as the Sampled-MinHashing programs do.

    The file appears under its name only when whole.

    Args:
        path: the file.
        lists: all of them, or in pieces, which are then never held together.
    """
    with appearing_whole(Path(path)) as temporary, temporary.open("wb") as stream:
        for piece in [lists] if isinstance(lists, ListDB) else lists:
            for begin, end in piece.blocks(_ENTRIES_WRITTEN):
                sizes = piece.offsets[begin + 1 : end + 1] - piece.offsets[begin:end]
                entries = slice(piece.offsets[begin], piece.offsets[end])
                stream.write(format_lists(sizes, piece.items[entries], piece.frequencies[entries]).data)


def read_weights(path: Path | str) -> npt.NDArray[np.float64]:
    """Read weights, one number a line; ``inf`` is a number, blank lines are skipped.

    Returns:
        (n,) float64, 0 or more.

    Raises:
        InputError: a line is not such a number, or the file cannot be read.
    """
    path = Path(path)
    weights = array("d")
    try:
        with path.open("rb") as stream:
            for number, raw in enumerate(stream, 1):
                token = raw.strip()
                if not token:
                    continue
                try:
                    weight = float(token)
                except ValueError:
                    weight = -1.0
                if not weight >= 0:  # also true of nan
                    raise InputError(f"{path}, line {number}: {shown(token)} is not a number of 0 or more")
                weights.append(weight)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    return np.array(weights, dtype=np.float64)


def write_weights(path: Path | str, weights: npt.ArrayLike) -> None:
    """Write weights, one a line with 6 decimals after a space, as the Sampled-MinHashing programs do."""
    with appearing_whole(Path(path)) as temporary, temporary.open("w", encoding="ascii", newline="\n") as stream:
        stream.writelines(f" {weight:.6f}\n" for weight in np.asarray(weights, dtype=np.float64))
