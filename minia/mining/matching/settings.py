"""The settings of the matching stage."""

from __future__ import annotations

from typing import Literal

from minia.core.setting_types import PositiveShare, Settings


class OverlapMatching(Settings):
    """``matching=overlap``.

    Attributes:
        formula: of the overlap, ``distinct`` or ``multiset`` (see ``overlap_matrix``).
        min_overlap: smallest overlap of a match.
    """

    kind: Literal["overlap"] = "overlap"
    formula: Literal["distinct", "multiset"]
    min_overlap: PositiveShare


MatchingSettings = OverlapMatching
