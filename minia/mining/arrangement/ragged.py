"""Arrays of groups of unequal length, laid end to end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]


def ranges(begins: npt.NDArray[np.integer[Any]], counts: npt.NDArray[np.integer[Any]]) -> Numbers:
    """``begin, begin + 1, ...``, count numbers of each range, laid end to end."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.asarray(np.arange(total) + np.repeat(begins - (ends - counts), counts))


def group_of(offsets: npt.NDArray[np.int64]) -> Numbers:
    """The group of each member, groups beginning at ``offsets``, the last one of which is their end."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def blocks(counts: npt.NDArray[np.integer[Any]], most: int) -> Iterator[slice]:
    """Consecutive groups that have about ``most`` members in all, at least one group each."""
    part = np.cumsum(counts, dtype=np.int64) // most
    edges = np.concatenate([[0], np.flatnonzero(np.diff(part)) + 1, [len(counts)]])
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if end > begin:
            yield slice(begin, end)


def distinct(keys: Numbers) -> Numbers:
    """Each of some numbers from 0 up once, ascending; sorting is quicker here than numpy's table of hashes."""
    keys = np.sort(keys)
    return keys[np.flatnonzero(np.diff(keys, prepend=-1))]


def sums(group: Numbers, values: npt.NDArray[Any], number: int) -> npt.NDArray[np.complex128]:
    """The sum of complex values over each of so many groups."""
    return np.asarray(np.bincount(group, values.real, number) + 1j * np.bincount(group, values.imag, number))


def about_mean(
    group: Numbers, values: npt.NDArray[Any], number: int
) -> tuple[Numbers, npt.NDArray[np.complex128], npt.NDArray[np.float64]]:
    """Of complex values in each of so many groups: how many, their mean, the sum of their squared distances from it."""
    count = np.bincount(group, minlength=number)
    mean = sums(group, values, number) / np.maximum(count, 1)
    square = np.bincount(group, np.abs(values - mean[group]) ** 2, number)
    return count, mean, np.asarray(square, dtype=np.float64)
