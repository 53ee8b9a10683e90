"""One row of numbers per label, and what a structure that is missing on one side is worth.

A structure that one mask has and the other lacks must never make an average look better than a bad attempt would. Its
overlap counts as 0, and its surface distances as the diagonal of the grid, further than any two voxels of it can be
apart (Metrics Reloaded: give the worst possible value rather than drop the case). Only a label that neither mask has
is not scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import cc3d
import numpy as np
from numpy.typing import NDArray

from volseg.errors import ConfigError, DataError, GeometryError
from volseg.geometry import Geometry
from volseg.metrics.overlap import Overlap, count_overlap
from volseg.metrics.surface import measure_surfaces
from volseg.volume import Label, Mask

#: Files store positions rounded; grids whose corners differ by less are the same grid.
GRID_TOLERANCE_MM = 0.01

_FOREGROUND = Label(1, "foreground")
_UNDEFINED = float("nan")

_Box = tuple[slice, slice, slice]
_NOTHING: _Box = (slice(0, 0), slice(0, 0), slice(0, 0))


class Status(StrEnum):
    """Which of the two masks have a label."""

    OK = "ok"  #: Both.
    MISSED = "missed"  #: The reference alone.
    FALSE_ALARM = "false_alarm"  #: The prediction alone.
    BOTH_EMPTY = "both_empty"  #: Neither; not scored.
    NOT_PREDICTED = "not_predicted"  #: There is no prediction of the case at all.
    FAILED = "failed"  #: A mask cannot be read or compared. Never the status of a score, only of a table's row.


@dataclass(frozen=True)
class LabelScore:
    """The agreement of a prediction with a reference on one label of one case.

    Ratios are 0 to 1. One side missing (`missed`, `false_alarm`, `not_predicted`): dice, iou, precision and nsd are 0,
    distances are `worst_distance_mm`. Undefined numbers are NaN: all but specificity when `both_empty`, sensitivity
    where the reference is empty, specificity where it fills the grid.

    Attributes:
        label: The label.
        status: Which masks have it.
        dice: Dice coefficient.
        iou: Intersection over union.
        sensitivity: Share of the reference that was found.
        specificity: Share of the rest that was left alone.
        precision: Share of the prediction that is right.
        hd_mm: Hausdorff distance.
        hd95_mm: Its 95th percentile.
        assd_mm: Average symmetric surface distance.
        nsd: Normalised surface Dice at the tolerance asked for.
        reference_ml: Volume in the reference.
        predicted_ml: Volume in the prediction.
        volume_difference_ml: Predicted minus reference.
        tp: Voxels in both.
        fp: Voxels in the prediction alone.
        fn: Voxels in the reference alone.
        tn: Voxels in neither.
    """

    label: Label
    status: Status
    dice: float
    iou: float
    sensitivity: float
    specificity: float
    precision: float
    hd_mm: float
    hd95_mm: float
    assd_mm: float
    nsd: float
    reference_ml: float
    predicted_ml: float
    volume_difference_ml: float
    tp: int
    fp: int
    fn: int
    tn: int


@dataclass(frozen=True)
class _SurfaceScores:
    hd_mm: float
    hd95_mm: float
    assd_mm: float
    nsd: float


def worst_distance_mm(geometry: Geometry) -> float:
    """The diagonal of the grid, outer voxel edges included: more than two voxel centres can be apart."""
    return float(np.linalg.norm(np.multiply(geometry.shape, geometry.spacing_mm)))


def score_label(
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float,
) -> LabelScore:
    """Score one structure given as two boolean arrays.

    Args:
        prediction: (I, J, K) bool.
        reference: (I, J, K) bool, the same shape.
        spacing_mm: Spacing along i, j, k.
        tolerance_mm: What the normalised surface Dice takes for agreement.

    Returns:
        The score, its label called "foreground".

    Raises:
        GeometryError: If the shapes differ.
        ConfigError: If the tolerance is negative.
    """
    affine = np.diag([*spacing_mm, 1.0])
    masks = [Mask(array.astype(np.uint8), Geometry(array.shape, affine)) for array in (prediction, reference)]
    return score_masks(masks[0], masks[1], [_FOREGROUND], tolerance_mm)[0]


def score_masks(
    prediction: Mask | None, reference: Mask, labels: Sequence[Label], tolerance_mm: float
) -> list[LabelScore]:
    """Score every label of one case; each costs only the box around it.

    Args:
        prediction: What a model made of the case, None when there is nothing.
        reference: What is held to be right.
        labels: What to score; they must cover all values of both masks. A region of several labels is scored as the
            union of its parts, in the mask as the union of all regions that lie within it.
        tolerance_mm: What the normalised surface Dice takes for agreement.

    Returns:
        One score per label, in the order of `labels`.

    Raises:
        GeometryError: If the masks lie on different grids.
        DataError: If a mask holds a value that is no label.
        ConfigError: If the tolerance is negative.
    """
    if tolerance_mm < 0:
        raise ConfigError(f"a surface tolerance of {tolerance_mm} mm is negative")
    if prediction is not None:
        _check_grids(prediction.geometry, reference.geometry)
    predicted = np.zeros_like(reference.array) if prediction is None else prediction.array
    painted = {label: _painted_values(label, labels) for label in labels}
    united = {label: label.parts or (label.value,) for label in labels}
    predicted_boxes = _boxes(predicted, painted, "prediction")
    reference_boxes = _boxes(reference.array, united, "reference")
    scores = []
    for label in labels:
        boxes = [predicted_boxes[value] for value in painted[label] if value in predicted_boxes]
        boxes += [reference_boxes[value] for value in united[label] if value in reference_boxes]
        box = _union(boxes)
        crops = _inside(predicted[box], painted[label]), _inside(reference.array[box], united[label])
        overlap = count_overlap(*crops, voxels=reference.array.size)
        status = Status.NOT_PREDICTED if prediction is None else _status(overlap)
        surfaces = _score_surfaces(*crops, status, reference.geometry, tolerance_mm)
        scores.append(_combine(label, status, overlap, surfaces, reference.geometry.voxel_volume_ml))
    return scores


def _check_grids(prediction: Geometry, reference: Geometry) -> None:
    distance_mm = prediction.distance_mm(reference)
    if distance_mm > GRID_TOLERANCE_MM:
        apart = f", up to {distance_mm:.3g} mm apart" if np.isfinite(distance_mm) else ""
        raise GeometryError(
            f"the prediction ({prediction}) and the reference ({reference}) lie on different grids{apart}",
            hint="resample the one onto the grid of the other",
        )


def _painted_values(label: Label, labels: Sequence[Label]) -> tuple[int, ...]:
    """The mask values that belong to a label: its own, and for a region those of the regions within it."""
    if not label.parts:
        return (label.value,)
    return tuple(other.value for other in labels if other.parts and set(other.parts) <= set(label.parts))


def _inside(array: NDArray[np.unsignedinteger], values: tuple[int, ...]) -> NDArray[np.bool_]:
    return array == values[0] if len(values) == 1 else np.isin(array, values)


def _boxes(array: NDArray[np.unsignedinteger], labels: Mapping[Label, tuple[int, ...]], role: str) -> dict[int, _Box]:
    """The box around each value that the array holds, found in one pass."""
    found = enumerate(cc3d.statistics(array)["bounding_boxes"])
    boxes = {value: box for value, box in found if value > 0 and box is not None}
    unknown = sorted(boxes.keys() - {value for values in labels.values() for value in values})
    if unknown:
        known = ", ".join(f"{label.value} {label.name}" for label in labels)
        raise DataError(f"the {role} holds {_few(unknown)}, which is none of the labels ({known})")
    return boxes


def _few(values: list[int]) -> str:
    more = f" and {len(values) - 5} more values" if len(values) > 5 else ""
    return ", ".join(str(value) for value in values[:5]) + more


def _union(boxes: list[_Box]) -> _Box:
    """The smallest box around all, without any margin: what is outside both masks has no part in any metric."""
    if not boxes:
        return _NOTHING
    i, j, k = (
        slice(min(part.start for part in parts), max(part.stop for part in parts)) for parts in zip(*boxes, strict=True)
    )
    return i, j, k


def _status(overlap: Overlap) -> Status:
    match overlap.predicted > 0, overlap.reference > 0:
        case True, True:
            return Status.OK
        case False, True:
            return Status.MISSED
        case True, False:
            return Status.FALSE_ALARM
        case _:
            return Status.BOTH_EMPTY


def _score_surfaces(
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    status: Status,
    geometry: Geometry,
    tolerance_mm: float,
) -> _SurfaceScores:
    if status is Status.BOTH_EMPTY:
        return _SurfaceScores(_UNDEFINED, _UNDEFINED, _UNDEFINED, _UNDEFINED)
    if status is not Status.OK:
        worst = worst_distance_mm(geometry)
        return _SurfaceScores(worst, worst, worst, nsd=0.0)
    distances = measure_surfaces(prediction, reference, geometry.spacing_mm)
    return _SurfaceScores(distances.hd_mm, distances.hd95_mm, distances.assd_mm, distances.nsd(tolerance_mm))


def _combine(
    label: Label, status: Status, overlap: Overlap, surfaces: _SurfaceScores, voxel_volume_ml: float
) -> LabelScore:
    one_sided = status in {Status.MISSED, Status.FALSE_ALARM, Status.NOT_PREDICTED}
    return LabelScore(
        label=label,
        status=status,
        dice=0.0 if one_sided else overlap.dice,
        iou=0.0 if one_sided else overlap.iou,
        sensitivity=overlap.sensitivity,
        specificity=overlap.specificity,
        precision=0.0 if one_sided else overlap.precision,
        hd_mm=surfaces.hd_mm,
        hd95_mm=surfaces.hd95_mm,
        assd_mm=surfaces.assd_mm,
        nsd=surfaces.nsd,
        reference_ml=overlap.reference * voxel_volume_ml,
        predicted_ml=overlap.predicted * voxel_volume_ml,
        volume_difference_ml=(overlap.predicted - overlap.reference) * voxel_volume_ml,
        tp=overlap.tp,
        fp=overlap.fp,
        fn=overlap.fn,
        tn=overlap.tn,
    )
