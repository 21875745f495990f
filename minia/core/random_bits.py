"""Numbers that look random, made from other numbers alone: the same on every machine, in any order of asking.

The steps are those of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

GOLDEN_64 = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio, made odd
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))  # a shift and a factor each


def mix_rounds(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The two mixing rounds, in place: of what comes out the higher 32 bits look random.

    Args:
        values: any shape, uint64; changed and returned.
    """
    for shift, factor in _ROUNDS:
        values ^= values >> np.uint64(shift)
        values *= np.uint64(factor)
    return values


def mix_64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Other 64-bit numbers for 64-bit numbers, different ones for different ones; all their bits look random.

    Args:
        values: any shape, uint64.

    Returns:
        A new array of that shape, uint64.
    """
    mixed = mix_rounds(values + np.uint64(GOLDEN_64))
    return mixed ^ (mixed >> np.uint64(31))


def mix_number(value: int) -> int:
    """The same of one whole number, of which the lowest 64 bits count."""
    return int(mix_64(np.array([value & ((1 << 64) - 1)], dtype=np.uint64))[0])


def name_keys(names: Iterable[str], seed: int) -> NDArray[np.uint64]:
    """A number for each name that the seed and the name alone decide: those of the smallest are a random sample.

    Args:
        names: any strings.
        seed: of the sample, from 0 on.

    Returns:
        (number of names,) uint64.
    """
    salt = seed.to_bytes(16, "little")
    digests = (hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8, salt=salt) for name in names)
    return np.frombuffer(b"".join(each.digest() for each in digests), dtype="<u8").astype(np.uint64)
