"""Histograms of integer images, from which all statistics follow in little memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volseg.image.intensities import Intensities


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of values.

    Attributes:
        counts: (N,) int64, how often 0, 1 ... N - 1 occur; at least one of them does.
    """

    counts: NDArray[np.int64]

    @property
    def low(self) -> int:
        """The smallest value."""
        return int(np.flatnonzero(self.counts)[0])

    @property
    def high(self) -> int:
        """The largest value."""
        return int(np.flatnonzero(self.counts)[-1])

    @property
    def mean(self) -> float:
        """The mean."""
        return float(np.average(np.arange(len(self.counts)), weights=self.counts))

    @property
    def deviation(self) -> float:
        """The standard deviation."""
        squares = np.square(np.arange(len(self.counts)) - self.mean)
        return math.sqrt(float(np.average(squares, weights=self.counts)))

    def percentile(self, share: float) -> float:
        """Return the value below which a share, in percent, lies, linearly interpolated as in NumPy."""
        place = share / 100 * (int(self.counts.sum()) - 1)
        before, after = np.searchsorted(np.cumsum(self.counts), [math.floor(place), math.ceil(place)], side="right")
        return float(before + (after - before) * (place - math.floor(place)))

    @property
    def intensities(self) -> Intensities:
        """Return the percentiles to compare with the cases that a model was trained on."""
        return Intensities(*(self.percentile(share) for share in (0.5, 10, 50, 99)))
