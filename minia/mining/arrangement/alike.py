"""Pairs that are alike in size and direction, found without looking at all pairs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minia.mining.arrangement.places import Complex
from minia.mining.arrangement.ragged import Numbers, blocks, ranges

TURN = np.float32(np.deg2rad(30))  # directions that differ by less are alike
ZOOM = np.float32(np.log(1.5))  # logarithms of sizes likewise
_TURNS = 12  # bins of directions, each as wide as TURN
_PAIRS_AT_A_TIME = 1 << 16  # half a megabyte of numbers: what the cache of a core holds


def alike_pairs(group: Numbers, pose: Complex, turns: bool) -> Iterator[tuple[Numbers, Numbers]]:
    """Ordered pairs of one group whose poses are alike in size, and in direction where that is known.

    Args:
        group: (n,) at least 0.
        pose: (n,) size times ``exp(i angle)``, not 0.
        turns: whether the angles are known.

    Yields:
        Left and right ones, some pairs at a time; one with itself too.
    """
    if len(group) == 0:
        return
    log = np.log(pose)
    zoom = np.floor((log.real - log.real.min()) / ZOOM).astype(np.int64) + 1
    turn = np.floor((log.imag + np.float32(np.pi)) / TURN).astype(np.int64) % _TURNS if turns else 0 * zoom
    width = int(zoom.max()) + 2
    key = (group * _TURNS + turn) * width + zoom
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    for shift in (-1, 0, 1) if turns else (0,):
        wanted = (group * _TURNS + (turn + shift) % _TURNS) * width + zoom
        begin = np.searchsorted(ordered, wanted - 1)
        counts = np.searchsorted(ordered, wanted + 1, side="right") - begin
        for part in blocks(counts, _PAIRS_AT_A_TIME):
            left = np.repeat(np.arange(part.start, part.stop), counts[part])
            right = order[ranges(begin[part], counts[part])]
            near = np.abs(log.real[right] - log.real[left]) < ZOOM
            if turns:
                off = np.abs(log.imag[right] - log.imag[left])
                near &= np.minimum(off, np.float32(2 * np.pi) - off) < TURN
            kept = np.flatnonzero(near)
            yield left[kept], right[kept]
