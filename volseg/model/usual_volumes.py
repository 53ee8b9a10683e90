"""Usual volumes of structures in the training data, and detection of outliers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Quartiles of fewer volumes are not meaningful.
_FEWEST = 8
#: Tukey's fences: so many interquartile ranges beyond the quartiles.
_FENCE = 1.5


@dataclass(frozen=True)
class VolumeRange:
    """The volumes of one structure in the cases that have it.

    Attributes:
        cases: Number of cases.
        q1_ml: First quartile.
        median_ml: Median.
        q3_ml: Third quartile.
    """

    cases: int
    q1_ml: float
    median_ml: float
    q3_ml: float

    @classmethod
    def of(cls, volumes_ml: Sequence[float]) -> VolumeRange:
        """Compute the range of some volumes, at least one."""
        q1_ml, median_ml, q3_ml = (float(value) for value in np.percentile(volumes_ml, [25, 50, 75]))
        return cls(len(volumes_ml), q1_ml, median_ml, q3_ml)

    def is_unusual(self, volume_ml: float) -> bool:
        """Return whether a volume lies beyond the fences (Tukey 1977); never if too few cases are known."""
        margin_ml = _FENCE * (self.q3_ml - self.q1_ml)
        usual = self.q1_ml - margin_ml <= volume_ml <= self.q3_ml + margin_ml
        return self.cases >= _FEWEST and not usual
