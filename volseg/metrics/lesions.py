"""Lesion-wise detection: which connected components of a reference were found, and which of a prediction are real."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray

from volseg.metrics.overlap import ratio


@dataclass(frozen=True)
class Lesions:
    """The connected components of two masks, matched one to one.

    Attributes:
        tp: Lesions of the reference that were found.
        fp: Lesions of the prediction that are not real.
        fn: Lesions of the reference that were missed.
        iou_sum: Sum of the intersections over union of the pairs.
    """

    tp: int
    fp: int
    fn: int
    iou_sum: float

    @property
    def sensitivity(self) -> float:
        """Share of the reference's lesions that were found."""
        return ratio(self.tp, self.tp + self.fn)

    @property
    def precision(self) -> float:
        """Share of the prediction's lesions that are real; 0 where lesions exist and none was predicted."""
        if self.tp + self.fp == 0 and self.fn:
            return 0.0
        return ratio(self.tp, self.tp + self.fp)

    @property
    def f1(self) -> float:
        """2 tp / (2 tp + fp + fn), the recognition quality of Kirillov et al. (CVPR 2019)."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def segmentation_quality(self) -> float:
        """Mean intersection over union of the pairs; 0 where lesions exist and none was paired."""
        if self.tp == 0 and self.fp + self.fn:
            return 0.0
        return ratio(self.iou_sum, self.tp)

    @property
    def panoptic_quality(self) -> float:
        """Recognition times segmentation quality (Kirillov et al., CVPR 2019)."""
        return self.f1 * self.segmentation_quality


def match_lesions(prediction: NDArray[np.bool_], reference: NDArray[np.bool_], least_iou: float) -> Lesions:
    """Match the connected components of two masks.

    Components are connected across faces, edges and corners. Pairs are made one to one, the largest intersection over
    union first, as long as it exceeds `least_iou`; from 0.5 on no other pairing is possible.

    Args:
        prediction: (I, J, K) bool.
        reference: (I, J, K) bool.
        least_iou: From 0 to below 1.

    Returns:
        The counts.
    """
    predicted, wanted = (cc3d.connected_components(mask, connectivity=26) for mask in (prediction, reference))
    sizes = [np.bincount(parts.ravel(), minlength=1) for parts in (predicted, wanted)]
    both = prediction & reference
    keys = predicted[both].astype(np.int64) * len(sizes[1]) + wanted[both]
    pairs, common = np.unique(keys, return_counts=True)
    found, real = np.divmod(pairs, len(sizes[1]))
    ious = common / (sizes[0][found] + sizes[1][real] - common)
    matched = _matched(found, real, ious, least_iou)
    return Lesions(len(matched), len(sizes[0]) - 1 - len(matched), len(sizes[1]) - 1 - len(matched), sum(matched))


def _matched(
    found: NDArray[np.int64], real: NDArray[np.int64], ious: NDArray[np.float64], least_iou: float
) -> list[float]:
    """Return the intersections over union of the matched pairs."""
    matched, found_pairs, real_pairs = [], set[int](), set[int]()
    for n in np.argsort(-ious, kind="stable"):
        if ious[n] <= least_iou:
            break
        if int(found[n]) not in found_pairs and int(real[n]) not in real_pairs:
            found_pairs.add(int(found[n]))
            real_pairs.add(int(real[n]))
            matched.append(float(ious[n]))
    return matched
