"""What structures go with: labels and columns that their images have more, or more of, than the others.

All tests of a run are corrected together for their number (Benjamini and Hochberg 1995): ``q`` is the share of false
ones to expect among those that are at least as clear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Enrichment:
    """Whether images with a label hold a structure more often than others.

    Attributes:
        expected: (num_structures, num_labels) float64 images that chance would give.
        q: (num_structures, num_labels) float64, corrected for all pairs.
    """

    expected: Array
    q: Array


def enrichment(both: Counts, holding: Counts, labelled: Counts) -> Enrichment:
    """Test each structure with each label: the hypergeometric chance of so many or more images with both.

    Args:
        both: (num_structures, num_labels) images with the label that hold the structure.
        holding: (num_structures,) labelled images that hold it.
        labelled: (num_labels,) images with the label.
    """
    from scipy.stats import hypergeom

    total = int(labelled.sum())
    expected = holding[:, None] * labelled / max(1, total)
    p = hypergeom.sf(both - 1, total, labelled, holding[:, None]) if both.size else np.ones(both.shape)
    return Enrichment(expected, false_discovery_rates(np.asarray(p, dtype=np.float64)))


@dataclass(frozen=True)
class Shift:
    """Whether a column is higher or lower in the images that hold a structure.

    Attributes:
        share: (num_structures, num_columns) float64, how often an image that holds the structure has the higher value
            of two, one that holds it and one that does not; 0.5 is chance, nan where there is nothing to compare.
        q: (num_structures, num_columns) float64, corrected for all pairs; nan likewise.
    """

    share: Array
    q: Array


def shift(rank_sums: Array, holding: Counts, known: Counts, ties: Array) -> Shift:
    """Test each structure with each column by Mann and Whitney's test, in its normal approximation.

    Args:
        rank_sums: (num_structures, num_columns) sum of the ranks, from 1, of the images that hold the structure.
        holding: (num_structures, num_columns) images that hold it and have a value.
        known: (num_columns,) images with a value.
        ties: (num_columns,) sum of t^3 - t over groups of t equal values.
    """
    from scipy.stats import norm

    inside, outside = holding.astype(np.float64), known - holding.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        above = rank_sums - inside * (inside + 1) / 2
        share = above / (inside * outside)
        variance = inside * outside / 12 * (known + 1 - ties / (known * (known - 1.0)))
        p = 2 * norm.sf(np.abs(above - inside * outside / 2) / np.sqrt(variance))
    usable = (inside > 0) & (outside > 0) & (variance > 0)
    return Shift(np.where(usable, share, np.nan), false_discovery_rates(np.where(usable, p, np.nan)))


def ranks(values: Array) -> tuple[Array, float]:
    """The ranks of a column's values, from 1, equal ones sharing theirs; nan where there is none; and the ties' sum.

    Args:
        values: (n,) float64, nan where missing.
    """
    known = np.isfinite(values)
    _, place, counts = np.unique(values[known], return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    found = np.full(len(values), np.nan)
    found[known] = (last - (counts - 1) / 2)[place]
    return found, float((counts.astype(np.float64) ** 3 - counts).sum())


def false_discovery_rates(p: Array) -> Array:
    """The corrected chances of all tests together, in the same shape; nan where a test is nan."""
    flat = p.ravel()
    order = np.argsort(flat, kind="stable")[: int(np.isfinite(flat).sum())]
    rates = flat[order] * len(order) / np.arange(1, len(order) + 1)
    found = np.full(flat.shape, np.nan)
    found[order] = np.minimum(np.minimum.accumulate(rates[::-1])[::-1], 1)
    return found.reshape(p.shape)
