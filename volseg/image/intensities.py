"""Intensity percentiles of an image, and whether its values can be Hounsfield units."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Number of voxels sampled per channel.
_SAMPLES = 1_000_000
#: Fat is about -100 Hounsfield units and gas less, so that the darkest voxels of every part of a body lie below this.
DARK_HU = -20.0
#: Air is -1000 Hounsfield units, and dense bone ends near 3000.
_AIR_HU, _BRIGHTEST_HU = -500.0, 4000.0
#: Soft tissue ends below this, contrast medium in large vessels included.
_SOFT_TISSUE_HU = 500.0
#: Noise alone makes the range of CT values wider than this.
_NARROWEST_HU = 20.0


@dataclass(frozen=True)
class Intensities:
    """Percentiles of one channel, robust against outliers.

    Attributes:
        low: The 0.5th.
        tenth: The 10th.
        median: The 50th.
        high: The 99th.
    """

    low: float
    tenth: float
    median: float
    high: float

    @classmethod
    def of(cls, channel: NDArray[np.float32]) -> Intensities:
        """Measure a channel.

        Args:
            channel: (R, A, S) with a finite value; in this axis order, so that the sampled voxels do not depend on how
                an image is stored.
        """
        step = math.ceil((channel.size / _SAMPLES) ** (1 / 3)) or 1
        values = channel[::step, ::step, ::step]
        finite = values[np.isfinite(values)]
        if not finite.size:  # the few finite voxels lie in between
            finite = channel[np.isfinite(channel)]
        low, tenth, median, high = (float(value) for value in np.percentile(finite, [0.5, 10, 50, 99]))
        return cls(low, tenth, median, high)

    @property
    def looks_like_ct(self) -> bool:
        """True if there is air as dark as only in Hounsfield units, and nothing brighter than bone."""
        return self.low <= _AIR_HU < self.high <= _BRIGHTEST_HU

    @property
    def cannot_be_hounsfield(self) -> bool:
        """True if there is neither fat nor gas, nor are the values as close together as those within an organ."""
        return self.low > DARK_HU and not self._could_be_an_organ

    @property
    def _could_be_an_organ(self) -> bool:
        """True if the values could be those of a box within an organ: around one number, without a dark background."""
        spread = self.high - self.low
        fits = spread >= _NARROWEST_HU and self.high <= _SOFT_TISSUE_HU and self.median >= self.low + 0.2 * spread
        about_one = self.tenth >= 0.6 * self.median or self.low < -0.05 * self.high  # noise reaches below 0 in CT alone
        return fits and about_one


def finite_limits(values: NDArray[np.floating]) -> tuple[float, float]:
    """Return the smallest and the largest finite value; infinity and minus infinity if there is none."""
    low, high = float(values.min()), float(values.max())
    if np.isfinite(low) and np.isfinite(high):
        return low, high
    finite = values[np.isfinite(values)]
    return float(finite.min(initial=np.inf)), float(finite.max(initial=-np.inf))
