"""What a stage needs beside its inputs and its settings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Context:
    """The seed of a run and the machine's means.

    Attributes:
        seed: of everything random, 0 to 2^31 - 1.
        device: ``auto``, ``cpu`` or ``cuda``.
        num_workers: processes or threads to use, at least 1; no result depends on it.
    """

    seed: int = 0
    device: str = "auto"
    num_workers: int = 1
