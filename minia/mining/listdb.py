"""Lists of weighted items: bags of words, inverted files, co-occurring sets and structures.

One container serves all of them, and one text format, that of the Sampled-MinHashing programs:
a line a list, ``size item:frequency item:frequency ...``, ids from 0, ``0`` for an empty list.
Files written here are byte for byte what these programs write; unlike them, the reader checks
every line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np
import numpy.typing as npt
import scipy.sparse

from minia.stage import InputError, appearing_whole

LARGEST_ITEM = 2**31 - 2  # num_items, one more, must fit int32 too
LARGEST_FREQUENCY = 2**31 - 1

_BYTES_READ = 1 << 20  # text parsed at a time: its temporaries, some 30 times as large, fit memory easily
_ENTRIES_WRITTEN = 1 << 18  # entries turned to text at a time
_MOST_DIGITS = 18  # more digits might not fit int64
_NEWLINE, _COLON, _SPACE, _ZERO = (ord(character) for character in "\n: 0")
_BLANKS = b" \t\r"


@dataclass(frozen=True, eq=False)
class ListDB:
    """Lists of weighted items in one flat (CSR) form.

    Entries ``offsets[i]`` to ``offsets[i + 1] - 1`` belong to list ``i``. As bags of words a list
    is an image and an item a visual word, as an inverted file the other way round.

    Attributes:
        offsets: (num_lists + 1,) int64, from 0 to the number of entries, never falling.
        items: (num_entries,) int32 in 0 .. num_items - 1; the order inside a list is kept.
        frequencies: (num_entries,) int32, at least 1.
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
        object.__setattr__(self, "frequencies", np.ascontiguousarray(self.frequencies, dtype=np.int32))
        object.__setattr__(self, "num_items", int(self.num_items))
        if self.offsets.ndim != 1 or self.items.ndim != 1 or self.items.shape != self.frequencies.shape:
            raise ValueError("offsets, items and frequencies must be flat, items and frequencies equally long")
        if len(self.offsets) == 0 or self.offsets[0] != 0 or self.offsets[-1] != len(self.items):
            raise ValueError("offsets must go from 0 to the number of entries")
        if np.any(np.diff(self.offsets) < 0):
            raise ValueError("offsets must not fall")
        if len(self.items) and (self.items.min() < 0 or self.items.max() >= self.num_items):
            raise ValueError(f"items must be in 0 .. {self.num_items - 1}")
        if len(self.items) and self.frequencies.min() < 1:
            raise ValueError("frequencies must be at least 1")

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[int]], num_items: int | None = None) -> ListDB:
        """Lists of items, each with frequency 1; ``num_items`` defaults to the largest item + 1."""
        sizes = np.array([len(items) for items in lists], dtype=np.int64)
        flat = np.array([item for items in lists for item in items], dtype=np.int32)
        if num_items is None:
            num_items = int(flat.max()) + 1 if len(flat) else 0
        return cls(offsets_of(sizes), flat, np.ones(len(flat), dtype=np.int32), num_items)

    @property
    def num_lists(self) -> int:
        """Number of lists, empty ones included."""
        return len(self.offsets) - 1

    @property
    def num_entries(self) -> int:
        """Number of entries in all lists together."""
        return len(self.items)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Number of entries of each list, (num_lists,) int64."""
        return np.diff(self.offsets)

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

    def transpose(self) -> ListDB:
        """The inverted file: list ``j`` holds the lists that hold item ``j``, ascending, with their frequencies.

        A counting sort: linear in entries, lists and items, no memory beside the result.
        """
        by_item = scipy.sparse.csr_matrix(
            (self.frequencies, self.items, self.offsets), shape=(self.num_lists, self.num_items)
        ).tocsc()
        return ListDB(by_item.indptr, by_item.indices, by_item.data, self.num_lists)

    def select(self, lists: npt.ArrayLike) -> ListDB:
        """The given lists, in the given order.

        Args:
            lists: list numbers, (n,) integers, repeats allowed; or (num_lists,) booleans.
        """
        chosen = np.asarray(lists)
        chosen = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen.astype(np.int64)
        offsets = offsets_of(self.sizes[chosen])
        entries = np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], np.diff(offsets))
        return ListDB(offsets, self.items[entries], self.frequencies[entries], self.num_items)

    def to_scipy(self, binary: bool) -> scipy.sparse.csr_matrix:
        """The (num_lists, num_items) matrix of frequencies, int32; of ones, float32, where ``binary``."""
        data = np.ones(self.num_entries, dtype=np.float32) if binary else self.frequencies
        return scipy.sparse.csr_matrix((data, self.items, self.offsets), shape=(self.num_lists, self.num_items))


def offsets_of(sizes: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The (num_lists + 1,) int64 offsets of lists of these sizes."""
    sizes = np.asarray(sizes, dtype=np.int64)
    offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


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
    path = Path(path)
    try:
        with path.open("rb") as stream:
            return _read_stream(stream, str(path), num_items)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def _read_stream(stream: BinaryIO, name: str, num_items: int | None) -> ListDB:
    limit = LARGEST_ITEM + 1 if num_items is None else num_items
    sizes, items, frequencies = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    line = 1
    for text in _whole_lines(stream):
        parsed = _parse_lines(np.frombuffer(text, dtype=np.uint8), limit)
        if parsed is None:
            _explain(text, name, line, limit)
        sizes.append(parsed[0])
        items.append(parsed[1])
        frequencies.append(parsed[2])
        line += text.count(b"\n")
    all_items = np.concatenate(items)
    if num_items is None:
        num_items = int(all_items.max()) + 1 if len(all_items) else 0
    return ListDB(offsets_of(np.concatenate(sizes)), all_items, np.concatenate(frequencies), num_items)


def _whole_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The text in pieces that end where a line ends; the last gets its newline if it lacks one."""
    pending: list[bytes] = []
    while block := stream.read(_BYTES_READ):
        end = block.rfind(b"\n") + 1
        if end:
            yield b"".join([*pending, block[:end]])
            pending = []
        pending.append(block[end:])
    rest = b"".join(pending)
    if rest:
        yield rest + b"\n"


_Parsed = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int32]]


def _parse_lines(text: npt.NDArray[np.uint8], limit: int) -> _Parsed | None:
    """Parse whole lines at once.

    Args:
        text: (n,) uint8, the last one a newline.
        limit: items must be below it.

    Returns:
        Sizes, items and frequencies; None if any line is malformed.
    """
    digit = (text - np.uint8(_ZERO)) < 10
    colon = text == _COLON
    newline = text == _NEWLINE
    blank = np.isin(text, np.frombuffer(_BLANKS, dtype=np.uint8), kind="table")
    if not np.all(digit | colon | newline | blank):
        return None
    edges = np.flatnonzero(np.diff(digit, prepend=False))  # a number starts, ends, starts, ends ...
    starts, ends = edges[0::2], edges[1::2]
    followed = colon[ends]
    if np.count_nonzero(followed & digit[np.minimum(ends + 1, len(text) - 1)]) != np.count_nonzero(colon):
        return None  # a colon without a number right before and right after it
    values = _numbers(text, starts, ends)
    if values is None:
        return None
    counts = np.diff(np.searchsorted(starts, np.flatnonzero(newline)), prepend=0)
    counts = counts[counts > 0]
    first = np.cumsum(counts) - counts
    sizes = values[first]
    if np.any(counts != 1 + 2 * sizes) or np.any(followed[first]):
        return None
    is_entry = np.ones(len(values), dtype=bool)
    is_entry[first] = False
    pairs = values[is_entry].reshape(-1, 2)
    pair_followed = followed[is_entry].reshape(-1, 2)
    items, frequencies = pairs[:, 0], pairs[:, 1]
    if not np.all(pair_followed[:, 0]) or np.any(pair_followed[:, 1]):
        return None
    if len(items) and (items.max() >= limit or frequencies.min() < 1 or frequencies.max() > LARGEST_FREQUENCY):
        return None
    if _has_repeats(sizes, items):
        return None
    return sizes, items.astype(np.int32), frequencies.astype(np.int32)


def _numbers(
    text: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64] | None:
    """The values of the digits in ``starts .. ends - 1``, (n,) int64; None if one has too many digits."""
    lengths = ends - starts
    longest = int(lengths.max(initial=0))
    if longest > _MOST_DIGITS:
        return None
    values = np.zeros(len(starts), dtype=np.int64)
    power = 1
    for place in range(longest):  # ones, tens, hundreds ...
        if place == 0:
            values += text[ends - 1] - np.uint8(_ZERO)
        else:
            longer = np.flatnonzero(lengths > place)
            values[longer] += (text[ends[longer] - 1 - place] - np.uint8(_ZERO)) * np.int64(power)
        power *= 10
    return values


def _has_repeats(sizes: npt.NDArray[np.int64], items: npt.NDArray[np.int64]) -> bool:
    """Whether a list holds an item twice."""
    ends = np.cumsum(sizes)
    rising = np.diff(items) > 0
    ends = ends[(ends > 0) & (ends < len(items))]
    rising[ends - 1] = True
    if np.all(rising):  # the common case: every list ascends
        return False
    keys = np.repeat(np.arange(len(sizes)), sizes) * (LARGEST_ITEM + 1) + items
    keys.sort()
    return bool(np.any(keys[1:] == keys[:-1]))


def _explain(text: bytes, name: str, line: int, limit: int) -> NoReturn:
    """Raise the error of the first malformed line of a text that :func:`_parse_lines` refused."""
    for number, raw in enumerate(text.split(b"\n"), line):
        tokens = [token for token in raw.replace(b"\t", b" ").replace(b"\r", b" ").split(b" ") if token]
        problem = _problem(tokens, limit) if tokens else None
        if problem:
            raise InputError(f"{name}, line {number}: {problem}")
    raise InputError(f"{name}, line {line} or below: not a list of the form 'size item:frequency ...'")


def _problem(tokens: list[bytes], limit: int) -> str | None:
    """What is wrong with one line, if anything."""
    if not _is_integer(tokens[0]):
        return f"the size {_shown(tokens[0])} is not an integer of 0 or more"
    seen: set[int] = set()
    for token in tokens[1:]:
        item, separator, frequency = token.partition(b":")
        if not separator:
            return f"{_shown(token)} has no colon; an entry is item:frequency"
        for what, number in (("item", item), ("frequency", frequency)):
            if number[:1] == b"-" and _is_integer(number[1:]):
                return f"the {what} of {_shown(token)} is negative"
            if not _is_integer(number):
                return f"the {what} of {_shown(token)} is not an integer"
        if len(item) > _MOST_DIGITS or int(item) >= limit:
            return f"the item of {_shown(token)} is too large: the largest allowed is {limit - 1}"
        if len(frequency) > _MOST_DIGITS or not 1 <= int(frequency) <= LARGEST_FREQUENCY:
            return f"the frequency of {_shown(token)} is not in 1 .. {LARGEST_FREQUENCY}"
        if int(item) in seen:
            return f"item {int(item)} appears twice"
        seen.add(int(item))
    if len(tokens[0]) > _MOST_DIGITS or int(tokens[0]) != len(tokens) - 1:
        return f"the size is {_shown(tokens[0])} but the line has {len(tokens) - 1} entries"
    return None


def _is_integer(token: bytes) -> bool:
    return token.isdigit()  # of bytes: ASCII digits only, at least one


def _shown(token: bytes) -> str:
    """A token for a message: ASCII, quoted, not too long."""
    text = ascii(token.decode("utf-8", "replace"))
    return text if len(text) <= 40 else text[:36] + "...'"


def write_listdb(path: Path | str, db: ListDB) -> None:
    """Write lists as text, byte for byte as the Sampled-MinHashing programs do.

    The file appears under its name only when whole.
    """
    path = Path(path)
    with appearing_whole(path) as temporary, temporary.open("wb") as stream:
        begin = 0
        while begin < db.num_lists:
            target = db.offsets[begin] + _ENTRIES_WRITTEN
            end = max(begin + 1, int(np.searchsorted(db.offsets, target, side="right")) - 1)
            end = min(end, begin + _ENTRIES_WRITTEN)
            stream.write(_format_lists(db, begin, end).data)
            begin = end


def _format_lists(db: ListDB, begin: int, end: int) -> npt.NDArray[np.uint8]:
    """The text of lists ``begin`` to ``end - 1`` as (n,) uint8."""
    sizes = np.diff(db.offsets[begin : end + 1])
    entries = slice(int(db.offsets[begin]), int(db.offsets[end]))
    last = np.cumsum(1 + 2 * sizes) - 1  # the last number of each line
    is_entry = np.ones(len(sizes) + 2 * int(sizes.sum()), dtype=bool)
    is_entry[last - 2 * sizes] = False
    numbers = np.empty(len(is_entry), dtype=np.int64)
    numbers[~is_entry] = sizes
    numbers[is_entry] = np.stack([db.items[entries], db.frequencies[entries]], axis=1).ravel()
    separators = np.full(len(is_entry), _SPACE, dtype=np.uint8)
    separators[np.flatnonzero(is_entry)[0::2]] = _COLON
    separators[last] = _NEWLINE
    powers = 10 ** np.arange(1, 11, dtype=np.int64)
    lengths = 1 + np.searchsorted(powers, numbers, side="right")
    ends = np.cumsum(lengths + 1) - 1  # where each number's separator goes
    text = np.empty(int(ends[-1]) + 1, dtype=np.uint8)
    text[ends] = separators
    place = ends
    while len(place):  # from the ones upwards, for the numbers that have digits left
        place = place - 1
        rest = numbers // 10
        text[place] = _ZERO + (numbers - 10 * rest)
        left = np.flatnonzero(rest)
        place, numbers = place[left], rest[left]
    return text


def read_weights(path: Path | str) -> npt.NDArray[np.float64]:
    """Read weights, one number a line; ``inf`` is a number, blank lines are skipped.

    Returns:
        (n,) float64, 0 or more.

    Raises:
        InputError: a line is not such a number, or the file cannot be read.
    """
    path = Path(path)
    weights: list[float] = []
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
                    raise InputError(f"{path}, line {number}: {_shown(token)} is not a number of 0 or more")
                weights.append(weight)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    return np.array(weights, dtype=np.float64)


def write_weights(path: Path | str, weights: npt.ArrayLike) -> None:
    """Write weights, one a line with 6 decimals after a space, as the Sampled-MinHashing programs do."""
    path = Path(path)
    text = "".join(f" {weight:.6f}\n" for weight in np.asarray(weights, dtype=np.float64).tolist())
    with appearing_whole(path) as temporary:
        temporary.write_text(text, encoding="ascii")
