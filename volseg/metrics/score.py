"""Scores: one row of metrics per label, including structures that are missing on one side.

A structure that one mask has and the other lacks must never improve an average over a bad attempt. Its overlap counts
as 0, and its surface distances as the diagonal of the grid, larger than the distance of any two of its voxels (Metrics
Reloaded: assign the worst possible value rather than drop the case). Only a label in neither mask is not scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from volseg.errors import GeometryError
from volseg.image.geometry import Geometry
from volseg.image.volume import Label, Mask
from volseg.metrics.centerline import centerline_dice
from volseg.metrics.conventions import Conventions
from volseg.metrics.crops import Crop, label_crops
from volseg.metrics.lesions import Lesions, match_lesions
from volseg.metrics.overlap import Overlap, count_overlap, ratio
from volseg.metrics.probability import ProbabilityScore, score_probability
from volseg.metrics.surface import measure_surfaces
from volseg.metrics.surfels import measure_areas

_FOREGROUND = Label(1, "foreground")
_UNDEFINED = float("nan")
_DEFAULT = Conventions()


class LabelStatus(StrEnum):
    """Presence of a label in the two masks."""

    OK = "ok"  #: Both.
    MISSED = "missed"  #: The reference alone.
    FALSE_ALARM = "false_alarm"  #: The prediction alone.
    BOTH_EMPTY = "both_empty"  #: Neither; not scored.
    NOT_PREDICTED = "not_predicted"  #: There is no prediction of the case at all.
    FAILED = "failed"  #: A mask cannot be read or compared. Never the status of a score, only of a table's row.


@dataclass(frozen=True)
class SurfaceScore:
    """Surface distances between two masks.

    One side missing: distances are `worst_distance_mm`, shares 0. Both missing: NaN.

    Attributes:
        hd_mm: Hausdorff distance.
        hd95_mm: Its 95th percentile, by the chosen convention.
        assd_mm: Average symmetric surface distance.
        masd_mm: Mean of the two directed average distances.
        boundary_iou: Intersection over union of the boundaries, as wide as the first tolerance.
        nsds: Normalised surface Dice at each of the tolerances.
    """

    hd_mm: float
    hd95_mm: float
    assd_mm: float
    masd_mm: float
    boundary_iou: float
    nsds: tuple[float, ...]


@dataclass(frozen=True)
class LabelScore:
    """The agreement of a prediction with a reference on one label of one case.

    Ratios are 0 to 1. One side missing (`missed`, `false_alarm`, `not_predicted`): dice, iou, precision, centre line
    and surface shares are 0, distances are `worst_distance_mm`. Undefined numbers are NaN: all but specificity and
    accuracy when `both_empty`, sensitivity and the relative volume where the reference is empty, specificity where it
    fills the grid.

    Attributes:
        label: The label.
        status: Its presence in the two masks.
        overlap: Voxels of the confusion matrix.
        dice: Dice coefficient.
        iou: Intersection over union.
        precision: Share of the prediction that is correct.
        surface: Distances between the surfaces.
        centroid_distance_mm: Distance between the centres of mass.
        reference_ml: Volume in the reference.
        predicted_ml: Volume in the prediction.
        lesions: Connected components matched one to one, if requested.
        centerline_dice: Agreement of the centre lines, if requested.
        probability: Metrics of the probabilities, if there are any.
    """

    label: Label
    status: LabelStatus
    overlap: Overlap
    dice: float
    iou: float
    precision: float
    surface: SurfaceScore
    centroid_distance_mm: float
    reference_ml: float
    predicted_ml: float
    lesions: Lesions | None = None
    centerline_dice: float | None = None
    probability: ProbabilityScore | None = None

    @property
    def volume_difference_ml(self) -> float:
        """Predicted minus reference."""
        return self.predicted_ml - self.reference_ml

    @property
    def relative_volume_difference(self) -> float:
        """Predicted minus reference, as a share of the reference."""
        return ratio(self.volume_difference_ml, self.reference_ml)


def worst_distance_mm(geometry: Geometry) -> float:
    """Return the diagonal of the grid, outer voxel edges included: larger than any distance of two voxel centres."""
    edges_mm = geometry.affine[:3, :3] * geometry.shape
    return float(max(np.linalg.norm(edges_mm @ (1, j, k)) for j in (-1, 1) for k in (-1, 1)))


def score_label(
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    conventions: Conventions = _DEFAULT,
) -> LabelScore:
    """Score one structure given as two boolean arrays.

    Args:
        prediction: (I, J, K) bool.
        reference: (I, J, K) bool, the same shape.
        spacing_mm: Spacing along i, j, k.
        conventions: How to measure.

    Returns:
        The score, its label called "foreground".

    Raises:
        GeometryError: If the shapes differ.
    """
    affine = np.diag([*spacing_mm, 1.0])
    masks = [Mask(array.astype(np.uint8), Geometry(array.shape, affine)) for array in (prediction, reference)]
    return score_masks(masks[0], masks[1], [_FOREGROUND], conventions)[0]


def score_masks(
    prediction: Mask | None,
    reference: Mask,
    labels: Sequence[Label],
    conventions: Conventions = _DEFAULT,
    *,
    within: NDArray[np.bool_] | None = None,
    probabilities: NDArray[np.floating] | None = None,
) -> list[LabelScore]:
    """Score every label of one case, each within its bounding box only.

    Args:
        prediction: The predicted mask, None if there is none.
        reference: The ground truth.
        labels: The labels to score; they must cover all values of both masks. A region of several labels is the union
            of its parts in the reference, and in the prediction the union of all regions within it.
        conventions: How to measure.
        within: (I, J, K) bool, the region of interest; everything outside is ignored.
        probabilities: (I, J, K, labels), the probability of each label at each voxel.

    Returns:
        One score per label, in the order of `labels`.

    Raises:
        GeometryError: If the masks lie on different grids.
        DataError: If a mask holds a value without a label.
    """
    if prediction is not None:
        _check_grids(prediction.geometry, reference.geometry)
    made = Mask(np.zeros_like(reference.array), reference.geometry) if prediction is None else prediction
    if within is not None:
        made, reference = made.within(within), reference.within(within)
    voxels = reference.array.size if within is None else int(np.count_nonzero(within))
    scores = []
    for number, crop in enumerate(label_crops(made, reference, labels)):
        overlap = count_overlap(crop.prediction, crop.reference, voxels)
        status = LabelStatus.NOT_PREDICTED if prediction is None else _status(overlap)
        stated = None if probabilities is None else probabilities[..., number]
        probability = None if stated is None else _score_probability(stated, crop.label, reference.array, within)
        scores.append(_score(crop, status, overlap, reference.geometry, conventions, probability))
    return scores


def _check_grids(prediction: Geometry, reference: Geometry) -> None:
    if not prediction.matches(reference):
        raise GeometryError(
            prediction.mismatch(reference, "the prediction", "the reference"),
            hint="--resample (in Python resample=True) resamples the prediction to the grid of the reference",
        )


def _status(overlap: Overlap) -> LabelStatus:
    match overlap.predicted > 0, overlap.reference > 0:
        case True, True:
            return LabelStatus.OK
        case False, True:
            return LabelStatus.MISSED
        case True, False:
            return LabelStatus.FALSE_ALARM
        case _:
            return LabelStatus.BOTH_EMPTY


def _score(
    crop: Crop,
    status: LabelStatus,
    overlap: Overlap,
    geometry: Geometry,
    conventions: Conventions,
    probability: ProbabilityScore | None,
) -> LabelScore:
    one_sided = status not in {LabelStatus.OK, LabelStatus.BOTH_EMPTY}
    lesions = "lesions" in conventions.also
    return LabelScore(
        label=crop.label,
        status=status,
        overlap=overlap,
        dice=0.0 if one_sided else overlap.dice,
        iou=0.0 if one_sided else overlap.iou,
        precision=0.0 if one_sided else overlap.precision,
        surface=_surface(crop, status, geometry, conventions),
        centroid_distance_mm=_centroid_distance_mm(crop, status, geometry),
        reference_ml=overlap.reference * geometry.voxel_volume_ml,
        predicted_ml=overlap.predicted * geometry.voxel_volume_ml,
        lesions=match_lesions(crop.prediction, crop.reference, conventions.lesion_iou) if lesions else None,
        centerline_dice=_centerline(crop, status) if "centerline" in conventions.also else None,
        probability=probability,
    )


def _surface(crop: Crop, status: LabelStatus, geometry: Geometry, conventions: Conventions) -> SurfaceScore:
    if status is not LabelStatus.OK:
        distance_mm, share = _worst(status, geometry)
        shares = (share,) * len(conventions.tolerances_mm)
        return SurfaceScore(distance_mm, distance_mm, distance_mm, distance_mm, share, shares)
    axes = tuple(axis for axis, size in enumerate(geometry.shape) if size > 1) or (0, 1, 2)
    arrays = (crop.prediction, crop.reference, geometry.spacing_mm, axes)
    pair = measure_surfaces(*arrays)
    distances = pair.distances
    areas = measure_areas(*arrays) if conventions.by_area else distances
    nsd = areas.nsd if conventions.nsd == "area_weighted" else distances.nsd
    match conventions.hd95:
        case "max_of_directed":
            hd95_mm = distances.hd95_mm
        case "pooled":
            hd95_mm = distances.pooled_hd95_mm
        case "area_weighted":
            hd95_mm = areas.hd95_mm
    return SurfaceScore(
        hd_mm=distances.hd_mm,
        hd95_mm=hd95_mm,
        assd_mm=distances.assd_mm,
        masd_mm=distances.masd_mm,
        boundary_iou=pair.boundary_iou(conventions.tolerances_mm[0]),
        nsds=tuple(nsd(tolerance_mm) for tolerance_mm in conventions.tolerances_mm),
    )


def _worst(status: LabelStatus, geometry: Geometry) -> tuple[float, float]:
    """Return a distance and a share for a structure that one side lacks, or both."""
    return (_UNDEFINED, _UNDEFINED) if status is LabelStatus.BOTH_EMPTY else (worst_distance_mm(geometry), 0.0)


def _centroid_distance_mm(crop: Crop, status: LabelStatus, geometry: Geometry) -> float:
    if status is not LabelStatus.OK:
        return _worst(status, geometry)[0]
    apart = _centroid(crop.prediction) - _centroid(crop.reference)
    return float(np.linalg.norm(geometry.affine[:3, :3] @ apart))


def _centroid(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the centroid, (3,) float64 mean index along each axis."""
    others = ((1, 2), (0, 2), (0, 1))
    counts = [mask.sum(axis=axes, dtype=np.uint32) for axes in others]
    return np.array([np.average(np.arange(count.size), weights=count) for count in counts])


def _centerline(crop: Crop, status: LabelStatus) -> float:
    if status is LabelStatus.OK:
        return centerline_dice(crop.prediction, crop.reference)
    return _UNDEFINED if status is LabelStatus.BOTH_EMPTY else 0.0


def _score_probability(
    probability: NDArray[np.floating],
    label: Label,
    reference: NDArray[np.unsignedinteger],
    within: NDArray[np.bool_] | None,
) -> ProbabilityScore:
    """Score probabilities over all voxels of the grid, or of the region of interest."""
    wanted = np.isin(reference, label.parts or (label.value,))
    if within is None:
        return score_probability(probability, wanted)
    return score_probability(probability[within], wanted[within])
