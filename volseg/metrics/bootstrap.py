"""Confidence intervals of means, by bootstrapping over cases."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Number of bootstrap samples for the confidence intervals.
_RESAMPLES = 2000
NO_INTERVAL = (float("nan"), float("nan"))


def bootstrap_means(values: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """Compute means of cases drawn with replacement, the same cases for all columns (Efron 1979).

    Args:
        values: (cases, columns) float64; NaN is left out of a mean.
        seed: Seed of the draws.

    Returns:
        (2000, columns) float64; NaN where a draw has no number.
    """
    cases = len(values)
    times = np.random.default_rng(seed).multinomial(cases, np.full(cases, 1 / cases), size=_RESAMPLES)
    known = np.isfinite(values)
    draws = times.astype(np.float64)  # integer matrix products do not use BLAS
    with np.errstate(invalid="ignore"):
        return (draws @ np.where(known, values, 0.0)) / (draws @ known.astype(np.float64))


def interval(means: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile of resampled means; NaN where there are none."""
    known = means[np.isfinite(means)]
    if not known.size:
        return NO_INTERVAL
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)
