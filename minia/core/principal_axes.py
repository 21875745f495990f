"""The principal axes of points, in float64, the same to the last digit on any number of cores."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits


class PrincipalAxes(NamedTuple):
    """The directions in which points spread, most first.

    Attributes:
        mean: (dimensions,) float64.
        variances: (dimensions,) float64, along the axes, times the number of points; falling.
        axes: (dimensions, dimensions) float64, a row an axis, orthonormal; the sign of each means nothing.
    """

    mean: NDArray[np.float64]
    variances: NDArray[np.float64]
    axes: NDArray[np.float64]


def principal_axes(points: NDArray[np.floating[Any]]) -> PrincipalAxes:
    """The principal axes of points, by the eigenvectors of their covariance.

    scikit-learn's PCA finds the same axes; it takes the mean from the products and not from the points, which rounds
    otherwise, so that the last digits of descriptors that were shortened already would change.

    Args:
        points: (num_points, dimensions), at least one.
    """
    mean = points.mean(axis=0, dtype=np.float64)
    with threadpool_limits(limits=1):  # the sums' order, and with it their last digits, is that of one thread
        centred = points - mean
        variances, vectors = np.linalg.eigh(centred.T @ centred)
    return PrincipalAxes(mean, variances[::-1], vectors[:, ::-1].T)
