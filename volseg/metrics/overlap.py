"""Overlap: voxel counts, and the ratios computed from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Overlap:
    """The confusion matrix of one label; a ratio whose denominator is 0 is NaN.

    Attributes:
        tp: Voxels in both masks.
        fp: Voxels in the prediction alone.
        fn: Voxels in the reference alone.
        tn: Voxels in neither.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def predicted(self) -> int:
        """Voxels of the prediction."""
        return self.tp + self.fp

    @property
    def reference(self) -> int:
        """Voxels of the reference."""
        return self.tp + self.fn

    @property
    def accuracy(self) -> float:
        """Share of all voxels that are correct, (tp + tn) / all; near 1 whenever the structure is small."""
        return ratio(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn)

    @property
    def dice(self) -> float:
        """2 tp / (2 tp + fp + fn) (Dice 1945)."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        """Intersection over union, tp / (tp + fp + fn) (Jaccard 1912)."""
        return ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def sensitivity(self) -> float:
        """Share of the reference that was found, tp / (tp + fn); also called recall."""
        return ratio(self.tp, self.reference)

    @property
    def specificity(self) -> float:
        """Share of the background that is predicted as such, tn / (tn + fp); near 1 whenever the structure is small."""
        return ratio(self.tn, self.tn + self.fp)

    @property
    def precision(self) -> float:
        """Share of the prediction that is correct, tp / (tp + fp)."""
        return ratio(self.tp, self.predicted)


def count_overlap(prediction: NDArray[np.bool_], reference: NDArray[np.bool_], voxels: int | None = None) -> Overlap:
    """Count the voxels in which two masks agree and disagree.

    Args:
        prediction: (I, J, K) bool.
        reference: (I, J, K) bool.
        voxels: Voxels of the whole grid, when the arrays are only a crop of it and nothing lies outside.

    Returns:
        The four counts, over the whole grid.
    """
    tp = int(np.count_nonzero(prediction & reference))
    fp = int(np.count_nonzero(prediction)) - tp
    fn = int(np.count_nonzero(reference)) - tp
    total = prediction.size if voxels is None else voxels
    return Overlap(tp, fp, fn, tn=total - tp - fp - fn)


def ratio(part: float, whole: float) -> float:
    """Divide a part by the whole; NaN if the whole is 0."""
    return part / whole if whole else float("nan")
