"""The smallest keys of long lists, found by looking at few of their elements.

The smallest of n random keys is small: it exceeds (1 + ln n) / n of their range once in e n times. So
for lists of n elements or more it is enough to go through the elements with keys below that threshold,
in falling order of keys, and to write each one's key over those of the lists that hold it: what is
written last is the smallest. The few lists that hold none of these elements are looked through.

This is the order of visits of Chum and Matas ("Fast computation of min-hash signatures for image
collections", 2012), for many lists of like length at once and with a threshold in place of their heap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse

from minia.core.threads import map_in_threads
from minia.mining.lists.listdb import ListDB, blocks_of, offsets_of
from minia.mining.structures.minhash.random_keys import KEY_RANGE, Universe

_GROWTH = 2.0  # of the lists' masses from stratum to stratum
_MOST_ENTRIES = (1 << 31) - 1  # of a stratum, so that its matrix can do with 32-bit numbers
_VISITS_AT_A_TIME = 1 << 17
_KEYS_AT_A_TIME = 1 << 20
_MOST_COLUMNS = 8  # that a thread takes at a time; fewer if they have more visits than these:
_VISITS_OF_A_TASK = 1 << 15
_RATES_SAMPLED = 1 << 20
_CODE_BITS = 62
_KEY_BITS = 31  # floats of 0 or more, read as integers, are below 2^31 and in the same order
_LARGEST = (1 << _KEY_BITS) - 1
# Nanoseconds that a hash function takes here, on one core, for each stratum, each element, each element looked
# at and each visit of a list that holds it. Like the product's, they only decide which way a list goes.
_PER_STRATUM, _PER_ELEMENT, _PER_LOOK, _PER_VISIT = 30e3, 0.4, 30.0, 7.5


class _Lookups(NamedTuple):
    """Elements to look at for some hash functions, as the work of one thread.

    Attributes:
        best: (num_columns, num_lists) float32, the lists' keys so far, a row a hash function.
        columns: (n,) int64, the row of ``best`` that each element is looked at for.
        elements: (n,) int64.
        keys: (n,) float32, falling in each column.
    """

    best: npt.NDArray[np.float32]
    columns: npt.NDArray[np.int64]
    elements: npt.NDArray[np.int64]
    keys: npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Stratum:
    """Lists of like mass.

    Attributes:
        lists: (num_lists,) int64, their numbers.
        threshold: elements of smaller keys are looked at.
        by_element: (num_elements, num_lists) matrix: the columns of a row are the lists that hold an element.
        columns: hash functions to look for at once.
    """

    lists: npt.NDArray[np.int64]
    threshold: np.float32
    by_element: scipy.sparse.csr_matrix
    columns: int

    def write_keys(self, lookups: _Lookups) -> None:
        """Write elements' keys over those of the lists that hold them, one element after the other."""
        num_lists = len(self.lists)
        best = lookups.best.reshape(-1)
        sizes = self.by_element.indptr[lookups.elements + 1] - self.by_element.indptr[lookups.elements]
        for begin, end in blocks_of(offsets_of(sizes), _VISITS_AT_A_TIME):
            part = slice(begin, end)
            lists = self.by_element[lookups.elements[part]].indices
            if len(lookups.best) > 1:
                lists = lists + np.repeat(lookups.columns[part] * num_lists, sizes[part])
            best[lists] = np.repeat(lookups.keys[part], sizes[part])


class LongListMinima:
    """The smallest key of each of those lists that this way is the fastest for.

    Args:
        lists: none may be empty.
        universe: what they hold.
        nanoseconds: (num_lists,) float64, what it takes to find each list's smallest key in another way.

    Attributes:
        others: (num_others,) int64, the numbers of the lists that are left to another way.
    """

    def __init__(self, lists: ListDB, universe: Universe, nanoseconds: npt.NDArray[np.float64]) -> None:
        self._lists, self._sizes = lists, lists.sizes
        self._strata = _strata(lists, universe, nanoseconds)
        is_other = np.ones(lists.num_lists, dtype=bool)
        for stratum in self._strata:
            is_other[stratum.lists] = False
        self.others = np.flatnonzero(is_other)

    def __call__(self, keys: npt.NDArray[np.float32], minima: npt.NDArray[np.float32]) -> None:
        """Put the smallest keys of the lists that are not ``others`` into their rows.

        Args:
            keys: (num_elements, columns) float32.
            minima: (num_lists, columns) float32.
        """
        element_bits = max(1, (len(keys) - 1).bit_length())
        most = 1 << (_CODE_BITS - _KEY_BITS - element_bits)  # columns whose numbers fit a code above key and element
        for begin in range(0, keys.shape[1] if self._strata else 0, most):
            columns = slice(begin, begin + most)
            self._fill(keys[:, columns], minima[:, columns], element_bits)

    def _fill(self, keys: npt.NDArray[np.float32], minima: npt.NDArray[np.float32], element_bits: int) -> None:
        num_columns = keys.shape[1]
        codes = _sorted_codes(keys, max(stratum.threshold for stratum in self._strata), element_bits)
        first_codes = np.arange(num_columns + 1) << (_KEY_BITS + element_bits)
        ends = np.searchsorted(codes, first_codes[1:])
        for stratum in self._strata:
            # Codes rise as keys fall: a column's keys below the threshold are its last ones.
            above = (_LARGEST - int(stratum.threshold.view(np.int32)) + 1) << element_bits
            begins = np.searchsorted(codes, first_codes[:-1] + above)
            best = np.full((num_columns, len(stratum.lists)), np.inf, dtype=np.float32)
            all_lookups = []
            for first in range(0, num_columns, stratum.columns):
                columns = range(first, min(first + stratum.columns, num_columns))
                own = np.concatenate([codes[begins[column] : ends[column]] for column in columns])
                found = (_LARGEST - (own >> element_bits & _LARGEST)).astype(np.int32).view(np.float32)
                local = (own >> (_KEY_BITS + element_bits)) - first
                all_lookups.append(_Lookups(best[first : columns.stop], local, own & ((1 << element_bits) - 1), found))
            map_in_threads(stratum.write_keys, all_lookups)
            self._look_through(stratum, keys, best)
            minima[stratum.lists] = best.T

    def _look_through(self, stratum: _Stratum, keys: npt.NDArray[np.float32], best: npt.NDArray[np.float32]) -> None:
        """Find the smallest keys that are not below the threshold."""
        column, place = np.nonzero(np.isinf(best))
        sizes = self._sizes[stratum.lists[place]]
        for begin, end in blocks_of(offsets_of(sizes), _VISITS_AT_A_TIME):
            part = slice(begin, end)
            lists = self._lists.select(stratum.lists[place[part]])
            found = keys[lists.items, np.repeat(column[part], sizes[part])]
            best[column[part], place[part]] = np.minimum.reduceat(found, lists.offsets[:-1])


def _strata(lists: ListDB, universe: Universe, nanoseconds: npt.NDArray[np.float64]) -> list[_Stratum]:
    """The strata of lists that take less time in this way than in the other one, of which the nanoseconds are given."""
    sizes, mass = lists.sizes, universe.mass_of(lists)  # less than it is where elements take over keys
    scale = KEY_RANGE if universe.rates is None else 1.0
    rates = np.ones(1) if universe.rates is None else universe.rates[:: universe.num_elements // _RATES_SAMPLED + 1]
    level = np.floor(np.log(mass / mass.min(initial=np.inf)) / np.log(_GROWTH)).astype(np.int64)
    strata, saved = [], -_PER_ELEMENT * universe.num_elements
    for chosen in (np.flatnonzero(level == number) for number in range(level.max(initial=-1) + 1)):
        entries = int(sizes[chosen].sum())
        if not 0 < entries <= _MOST_ENTRIES:
            continue
        threshold = max(1.0, np.log(sizes[chosen].mean())) / mass[chosen].min()
        visits = np.minimum(sizes[chosen], threshold * mass[chosen]).sum()
        looks = universe.num_elements * np.minimum(1, threshold * rates).mean()
        gain = nanoseconds[chosen].sum() - _PER_STRATUM - _PER_LOOK * looks - _PER_VISIT * visits
        if gain > 0:
            columns = int(min(max(1, _VISITS_OF_A_TASK // visits), _MOST_COLUMNS))
            strata.append((chosen, np.float32(threshold * scale), columns))
            saved += gain
    if saved <= 0:
        return []
    return [
        _Stratum(chosen, threshold, _by_element(lists.select(chosen)), columns) for chosen, threshold, columns in strata
    ]


def _by_element(lists: ListDB) -> scipy.sparse.csr_matrix:
    """The inverted file as a matrix. Its numbers are not used: the indices stand in for them and need no memory."""
    inverted = lists.transpose()
    return scipy.sparse.csr_matrix(
        (inverted.items, inverted.items, inverted.offsets), shape=(inverted.num_lists, inverted.num_items)
    )


def _sorted_codes(keys: npt.NDArray[np.float32], below: np.float32, element_bits: int) -> npt.NDArray[np.int64]:
    """Column, key (falling) and element of all smaller keys, in one number each, sorted."""

    def find(rows: tuple[int, int]) -> npt.NDArray[np.int64]:
        part = keys[rows[0] : rows[1]].ravel()
        place = np.flatnonzero(part < below)
        row, column = np.divmod(place, keys.shape[1])
        falling = _LARGEST - part[place].view(np.int32).astype(np.int64)
        codes: npt.NDArray[np.int64] = (((column << _KEY_BITS) | falling) << element_bits) | (row + rows[0])
        return codes

    step = max(1, _KEYS_AT_A_TIME // keys.shape[1])
    codes = np.concatenate(map_in_threads(find, [(row, row + step) for row in range(0, len(keys), step)]))
    codes.sort()
    return codes
