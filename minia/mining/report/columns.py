"""What is known of the images in numbers: columns of their catalogue, and what the run itself counts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from minia.mining.report.associations import ranks
from minia.mining.report.holding import Columns
from minia.mining.report.run import Run


def load_columns(run: Run) -> Columns:
    """The columns of a run's images, in which structures may differ from others.

    Args:
        run: of which.
    """
    values: dict[str, npt.NDArray[np.float64]] = {"number of words": run.bags.sizes.astype(np.float64)}
    if run.features is not None:
        table = run.features.images
        values["width in pixels"] = table["width"].to_numpy(np.float64)
        values["height in pixels"] = table["height"].to_numpy(np.float64)
    values = {name: column for name, column in values.items() if np.ptp(column) > 0} if len(run.names) else {}
    ranked = [ranks(column) for column in values.values()]
    table_of_ranks = np.array([each for each, _ in ranked]).reshape(len(ranked), len(run.names))
    return Columns(list(values), table_of_ranks, np.array([ties for _, ties in ranked]))
