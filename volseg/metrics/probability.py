"""Metrics of probabilities: discrimination and calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volseg.metrics.overlap import ratio

#: Bins of the expected calibration error.
_BINS = 10


@dataclass(frozen=True)
class ProbabilityScore:
    """The voxel-wise agreement of a label's probability with a reference; undefined values are NaN.

    The first two measure how well it separates the label from the rest (discrimination), the others how far it matches
    the observed frequency (calibration).

    Attributes:
        auroc: Area under the receiver operating characteristic; NaN where the reference is empty or full.
        average_precision: Area under the steps of precision over recall; NaN where the reference is empty.
        calibration_error: Expected calibration error, of ten equally wide bins.
        brier: Mean squared difference (Brier score).
    """

    auroc: float
    average_precision: float
    calibration_error: float
    brier: float


def score_probability(probability: NDArray[np.floating], reference: NDArray[np.bool_]) -> ProbabilityScore:
    """Compare the probability of one label with a reference.

    Args:
        probability: Any shape, 0 to 1.
        reference: The same shape, bool.

    Returns:
        The scores.

    Raises:
        ValueError: If there are no voxels.
    """
    if not reference.size:
        raise ValueError("there are no voxels to score")
    values, positive, negative = _counted(probability[reference], probability[~reference])
    total = positive + negative
    return ProbabilityScore(
        auroc=_auroc(positive, negative),
        average_precision=_average_precision(positive, total),
        calibration_error=_calibration_error(values, positive, total),
        brier=float((positive * (1 - values) ** 2 + negative * values**2).sum() / reference.size),
    )


def _counted(
    inside: NDArray[np.floating], outside: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the distinct probabilities, ascending, and how often each occurs inside a reference and outside."""
    sides = [np.unique(side, return_counts=True) for side in (inside, outside)]
    values = np.union1d(sides[0][0], sides[1][0])
    counts = np.zeros((2, values.size))
    for row, (found, times) in zip(counts, sides, strict=True):
        row[np.searchsorted(values, found)] = times
    return values.astype(np.float64), counts[0], counts[1]


def _auroc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Return the chance that a voxel of the label has the larger probability; ties count half (Mann-Whitney)."""
    below = np.cumsum(negative) - negative
    return ratio(float((positive * (below + negative / 2)).sum()), float(positive.sum() * negative.sum()))


def _average_precision(positive: NDArray[np.float64], total: NDArray[np.float64]) -> float:
    """Sum, over thresholds, the gain in recall times the precision there (as scikit-learn)."""
    found = np.cumsum(positive[::-1])
    precision = found / np.cumsum(total[::-1])
    return ratio(float((positive[::-1] * precision).sum()), float(positive.sum()))


def _calibration_error(values: NDArray[np.float64], positive: NDArray[np.float64], total: NDArray[np.float64]) -> float:
    """Average, over bins, the distance of mean probability and share of the label (Naeini et al., AAAI 2015)."""
    bins = np.minimum((values * _BINS).astype(int), _BINS - 1)
    stated = np.bincount(bins, weights=values * total, minlength=_BINS)
    real = np.bincount(bins, weights=positive, minlength=_BINS)
    return float(np.abs(stated - real).sum() / total.sum())
