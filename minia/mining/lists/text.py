"""The text format of lists: bytes to arrays and back, many lines at once.

Canonical text, as the Sampled-MinHashing programs write it, has one separator after every number: a
space after the size and each frequency, a colon after each item, a newline at the end of a line. So
the separators' places give all numbers, and the order of their kinds gives the form of every line.
Text with other blanks is first brought into that form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from minia.core.artifact import InputError

LARGEST_ITEM = 2**31 - 2  # num_items, one more, must fit int32 too
LARGEST_FREQUENCY = 2**31 - 1

_BYTES_READ = 1 << 18  # text parsed at a time: its temporaries, some 20 times as large, nearly fit the cache
_DIGITS = 8  # that a 64-bit word holds
_MOST_DIGITS = 2 * _DIGITS
_PAD = b"0" * _MOST_DIGITS  # before the text, so that the digits before every separator can be read at once
_NEWLINE, _COLON, _SPACE, _ZERO = (ord(character) for character in "\n: 0")


class ParsedLists(NamedTuple):
    """Some lines as arrays."""

    sizes: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    frequencies: npt.NDArray[np.int32]


def parse_stream(stream: BinaryIO, name: str, limit: int) -> Iterator[ParsedLists]:
    """Parse text piece by piece; every line is checked.

    Args:
        stream: the text.
        name: of the text, for messages.
        limit: items must be below it.

    Raises:
        InputError: a line is malformed; its number, from 1, is named.
    """
    line = 1
    for padded in _whole_lines(stream):
        parsed = _parse_canonical(padded, limit)
        if parsed is None:
            text = padded[len(_PAD) :]
            parsed = _parse_canonical(_PAD + _canonical(text), limit)
            if parsed is None:
                _explain(text, name, line, limit)
        yield parsed
        line += padded.count(b"\n")


def _whole_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The text in pieces that end where a line ends, after padding; the last gets its newline if it lacks one."""
    pending: list[bytes] = []
    while block := stream.read(_BYTES_READ):
        end = block.rfind(b"\n") + 1
        if end:
            yield b"".join([_PAD, *pending, block[:end]])
            pending = []
        pending.append(block[end:])
    rest = b"".join(pending)
    if rest:
        yield _PAD + rest + b"\n"


def _canonical(text: bytes) -> bytes:
    """The text with single spaces for blanks, without blanks at the ends of lines and without blank lines."""
    text = re.sub(rb"[ \t\r]+", b" ", text)
    text = re.sub(rb" ?\n[ \n]*", b"\n", text)
    return text.lstrip(b" \n")


def _parse_canonical(padded: bytes, limit: int) -> ParsedLists | None:
    """Parse whole lines of canonical text at once; None if any is malformed, or the text not canonical."""
    text = np.frombuffer(padded, dtype=np.uint8)
    ends = np.flatnonzero((text - np.uint8(_ZERO)) > 9)  # of all numbers: where their separators are
    if len(ends) == 0:
        return ParsedLists(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32))
    values = _numbers(text, ends)
    if values is None:
        return None
    separators = text[ends]
    lasts = np.flatnonzero(separators == _NEWLINE)  # the last number of each line
    counts = np.diff(lasts, prepend=-1)
    firsts = lasts - counts + 1
    sizes = values[firsts]
    if np.any(counts != 1 + 2 * sizes):
        return None
    expected = np.full(len(ends), _SPACE, dtype=np.uint8)
    is_entry = np.ones(len(ends), dtype=bool)
    is_entry[firsts] = False
    entries = np.flatnonzero(is_entry)
    expected[entries[0::2]] = _COLON
    expected[lasts] = _NEWLINE
    if not np.array_equal(separators, expected):
        return None
    items, frequencies = values[entries[0::2]], values[entries[1::2]]
    if len(items) and (items.max() >= limit or frequencies.min() < 1 or frequencies.max() > LARGEST_FREQUENCY):
        return None
    parsed = ParsedLists(sizes, items.astype(np.int32), frequencies.astype(np.int32))
    return None if _has_repeats(parsed) else parsed


def _numbers(text: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
    """The values of the digits that end before ``ends``, each number beginning after the end before it.

    Args:
        text: (n,) uint8, digits and separators; the first ``_MOST_DIGITS`` are padding.
        ends: places of all separators, ascending, after the padding.

    Returns:
        (num_ends,) int64; None if a number has no digits or too many.
    """
    lengths = np.diff(ends, prepend=len(_PAD) - 1) - 1
    longest = int(lengths.max())
    if lengths.min() < 1 or longest > _MOST_DIGITS:
        return None
    values = _eight_digits(text, ends, np.minimum(lengths, _DIGITS))
    if longest > _DIGITS:
        long = np.flatnonzero(lengths > _DIGITS)
        values[long] += 10**_DIGITS * _eight_digits(text, ends[long] - _DIGITS, lengths[long] - _DIGITS)
    return values


def _eight_digits(
    text: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The values of the ``lengths`` (1 to 8) digits before ``ends``, all digits of a number at once.

    Eight bytes are read as one little-endian word, the last digit being its highest byte; bytes that
    belong to what stands before become 0. Then neighbours are added up: digits to pairs, pairs to
    fours, fours to eights.
    """
    eights = np.ndarray(len(text) - _DIGITS + 1, dtype="<u8", buffer=text.data, strides=(1,))
    words = eights[ends - _DIGITS]
    foreign = (8 * (_DIGITS - lengths)).astype(np.uint64)
    words >>= foreign
    words <<= foreign
    words &= np.uint64(0x0F0F0F0F0F0F0F0F)  # of a digit's character its value; of the padding's, 0
    for bits, mask in ((8, 0x00FF00FF00FF00FF), (16, 0x0000FFFF0000FFFF), (32, 0x00000000FFFFFFFF)):
        words *= np.uint64((10 ** (bits // 8) << bits) + 1)
        words >>= np.uint64(bits)
        words &= np.uint64(mask)
    return words.view(np.int64)


def _has_repeats(parsed: ParsedLists) -> bool:
    """Whether a list holds an item twice."""
    sizes, items, _ = parsed
    ends = np.cumsum(sizes)
    rising = items[1:] > items[:-1]
    ends = ends[(ends > 0) & (ends < len(items))]
    rising[ends - 1] = True
    if np.all(rising):  # the common case: every list ascends
        return False
    keys = np.repeat(np.arange(len(sizes)), sizes) * (LARGEST_ITEM + 1) + items
    keys.sort()
    return bool(np.any(keys[1:] == keys[:-1]))


def _explain(text: bytes, name: str, line: int, limit: int) -> NoReturn:
    """Raise the error of the first malformed line of a text that :func:`_parse_canonical` refused."""
    for number, raw in enumerate(text.split(b"\n"), line):
        tokens = [token for token in raw.replace(b"\t", b" ").replace(b"\r", b" ").split(b" ") if token]
        problem = _problem(tokens, limit) if tokens else None
        if problem:
            raise InputError(f"{name}, line {number}: {problem}")
    raise InputError(f"{name}, line {line} or below: not a list of the form 'size item:frequency ...'")


def _problem(tokens: list[bytes], limit: int) -> str | None:
    """What is wrong with one line, if anything."""
    if not _is_integer(tokens[0]):
        return f"the size {shown(tokens[0])} is not an integer of 0 or more"
    seen: set[int] = set()
    for token in tokens[1:]:
        item, separator, frequency = token.partition(b":")
        if not separator:
            return f"{shown(token)} has no colon; an entry is item:frequency"
        for what, number in (("item", item), ("frequency", frequency)):
            if number[:1] == b"-" and _is_integer(number[1:]):
                return f"the {what} of {shown(token)} is negative"
            if not _is_integer(number):
                return f"the {what} of {shown(token)} is not an integer"
        if len(item) > _MOST_DIGITS or int(item) >= limit:
            return f"the item of {shown(token)} is too large: the largest allowed is {limit - 1}"
        if len(frequency) > _MOST_DIGITS or not 1 <= int(frequency) <= LARGEST_FREQUENCY:
            return f"the frequency of {shown(token)} is not in 1 .. {LARGEST_FREQUENCY}"
        if int(item) in seen:
            return f"item {int(item)} appears twice"
        seen.add(int(item))
    if len(tokens[0]) > _MOST_DIGITS or int(tokens[0]) != len(tokens) - 1:
        return f"the size is {shown(tokens[0])} but the line has {len(tokens) - 1} entries"
    return None


def _is_integer(token: bytes) -> bool:
    return token.isdigit()  # of bytes: ASCII digits only, at least one


def shown(token: bytes) -> str:
    """A token for a message: ASCII, quoted, not too long."""
    text = ascii(token.decode("utf-8", "replace"))
    return text if len(text) <= 40 else text[:36] + "...'"


def format_lists(
    sizes: npt.NDArray[np.int64], items: npt.NDArray[np.int32], frequencies: npt.NDArray[np.int32]
) -> npt.NDArray[np.uint8]:
    """The canonical text of at least one list as (n,) uint8."""
    last = np.cumsum(1 + 2 * sizes) - 1  # the last number of each line
    is_entry = np.ones(len(sizes) + 2 * int(sizes.sum()), dtype=bool)
    is_entry[last - 2 * sizes] = False
    numbers = np.empty(len(is_entry), dtype=np.int32)
    numbers[~is_entry] = sizes
    numbers[is_entry] = np.stack([items, frequencies], axis=1).ravel()
    separators = np.full(len(is_entry), _SPACE, dtype=np.uint8)
    separators[np.flatnonzero(is_entry)[0::2]] = _COLON
    separators[last] = _NEWLINE
    widths = np.full(len(numbers), 2, dtype=np.int8)  # of digits and separator
    for digits in range(1, len(str(numbers.max()))):
        widths += numbers >= 10**digits
    ends = np.cumsum(widths, dtype=np.int64) - 1  # where each number's separator goes
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
