"""Columns of metrics.csv: the definition of each metric, and its value if it could not be measured."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial

from volseg.image.geometry import Unit
from volseg.image.units import Units
from volseg.metrics import Conventions, Hd95, LabelScore, Lesions, Nsd, ProbabilityScore


class Better(Enum):
    """The direction in which a metric improves."""

    HIGHER = "higher"  #: A share; 0 is the worst.
    LOWER = "lower"  #: The worst is the image diagonal for a distance, and 1 for a share.
    ZERO = "zero"  #: A difference.
    NEITHER = "neither"  #: A plain fact.


@dataclass(frozen=True)
class Column:
    """A metric, with one value per case and label.

    Attributes:
        name: Name of the column, with its unit.
        definition: Definition in a few words, including the convention.
        value: Returns the value of a score; None if it could not be measured.
        better: Direction in which it improves.
    """

    name: str
    definition: str
    value: Callable[[LabelScore], float | int | None]
    better: Better = Better.NEITHER

    def worst(self, diagonal_mm: float | None) -> float | None:
        """Return the value to use if the metric could not be measured.

        Args:
            diagonal_mm: Diagonal of the image, longer than any distance in it; None if unknown.

        Returns:
            The worst value; None if there is none.
        """
        match self.better:
            case Better.HIGHER:
                return 0.0
            case Better.LOWER if self.name.endswith(("_mm", "_px")):
                return diagonal_mm
            case Better.LOWER if not self.name.endswith(("_ml", "_px2")):
                return 1.0
            case _:
                return None


def columns_of(
    conventions: Conventions, *, calibrated: bool = False, within: bool = False, unit: Unit = "mm"
) -> tuple[Column, ...]:
    """Return the columns of an evaluation.

    Args:
        conventions: The metrics and their conventions.
        calibrated: Whether there are probabilities.
        within: Whether scoring is limited to regions of interest.
        unit: Unit of the grids.

    Returns:
        The columns in the order of the file.
    """
    columns = (
        *_OVERLAP,
        *_surface(conventions),
        *_VOLUME,
        *(_lesions(conventions.lesion_iou) if "lesions" in conventions.also else ()),
        *(_CENTERLINE if "centerline" in conventions.also else ()),
        *(_CALIBRATION if calibrated else ()),
        *_VOXELS,
    )
    if unit == "px":
        columns = tuple(map(_in_pixels, columns))
    if not within:
        return columns
    return tuple(replace(column, definition=f"{column.definition}; in the region of interest") for column in columns)


def _in_pixels(column: Column) -> Column:
    """Return the column for pictures without a pixel size, computed with pixels in the place of millimetres."""
    name = re.sub(r"(?<=[\d_])mm$", "px", column.name).replace("volume", "area")
    definition = column.definition.replace(" mm ", " px ").replace("volume", "area").replace("voxel", "pixel")
    if not name.endswith("_ml"):
        return replace(column, name=name, definition=definition)
    name = f"{name.removesuffix('_ml')}_px2"
    return replace(column, name=name, definition=definition, value=partial(_pixels, column.value))


def _pixels(volume_ml: Callable[[LabelScore], float | int | None], score: LabelScore) -> float | None:
    value = volume_ml(score)
    return None if value is None else round(Units.of("px").per_ml * value, 3)


_HD95: dict[Hd95, str] = {
    "max_of_directed": "max_of_directed: the larger of the two directed 95th percentiles of surface distances",
    "pooled": "pooled: 95th percentile of the surface distances of both directions together",
    "area_weighted": "area_weighted: the larger of the two directed distances within which 95 % of the area lies",
}
_NSD: dict[Nsd, str] = {
    "voxels": "voxels: share of both surfaces' voxels",
    "area_weighted": "area_weighted: share of both surfaces' area",
}

_OVERLAP = (
    Column("dice", "2 tp / (2 tp + fp + fn)", lambda score: score.dice, Better.HIGHER),
    Column("iou", "tp / (tp + fp + fn)", lambda score: score.iou, Better.HIGHER),
    Column("sensitivity", "tp / (tp + fn)", lambda score: score.overlap.sensitivity, Better.HIGHER),
    Column("specificity", "tn / (tn + fp)", lambda score: score.overlap.specificity, Better.HIGHER),
    Column("precision", "tp / (tp + fp)", lambda score: score.precision, Better.HIGHER),
    Column("accuracy", "(tp + tn) / all voxels", lambda score: score.overlap.accuracy, Better.HIGHER),
)
_VOLUME = (
    Column("reference_ml", "volume of the reference", lambda score: score.reference_ml),
    Column("predicted_ml", "volume of the prediction", lambda score: score.predicted_ml),
    Column("volume_difference_ml", "predicted - reference", lambda score: score.volume_difference_ml, Better.ZERO),
    Column(
        "absolute_volume_difference_ml",
        "|predicted - reference|",
        lambda score: abs(score.volume_difference_ml),
        Better.LOWER,
    ),
    Column(
        "relative_volume_difference",
        "(predicted - reference) / reference",
        lambda score: score.relative_volume_difference,
        Better.ZERO,
    ),
)
_CENTERLINE = (
    Column(
        "centerline_dice",
        "harmonic mean of the shares of each centre line that lie in the other mask",
        lambda score: score.centerline_dice,
        Better.HIGHER,
    ),
)
_VOXELS = (
    Column("tp", "voxels in both", lambda score: score.overlap.tp),
    Column("fp", "voxels in the prediction alone", lambda score: score.overlap.fp),
    Column("fn", "voxels in the reference alone", lambda score: score.overlap.fn),
    Column("tn", "voxels in neither", lambda score: score.overlap.tn),
)


def _surface(conventions: Conventions) -> tuple[Column, ...]:
    width_mm = conventions.tolerances_mm[0]
    return (
        Column("hd_mm", "largest surface distance", lambda score: score.surface.hd_mm, Better.LOWER),
        Column("hd95_mm", _HD95[conventions.hd95], lambda score: score.surface.hd95_mm, Better.LOWER),
        Column("assd_mm", "mean surface distance, pooled", lambda score: score.surface.assd_mm, Better.LOWER),
        Column("masd_mm", "mean of the directed means", lambda score: score.surface.masd_mm, Better.LOWER),
        Column("centroid_distance_mm", "between centroids", lambda score: score.centroid_distance_mm, Better.LOWER),
        Column(
            "boundary_iou",
            f"iou of what lies within {width_mm:g} mm of its own surface",
            lambda score: score.surface.boundary_iou,
            Better.HIGHER,
        ),
        *(
            Column(
                f"nsd_{tolerance_mm:g}mm" if number else "nsd",
                f"{_NSD[conventions.nsd]} within {tolerance_mm:g} mm of the other surface",
                partial(_nsd, number),
                Better.HIGHER,
            )
            for number, tolerance_mm in enumerate(conventions.tolerances_mm)
        ),
    )


def _nsd(number: int, score: LabelScore) -> float:
    return score.surface.nsds[number]


def _lesions(least_iou: float) -> tuple[Column, ...]:
    def column(
        name: str, definition: str, value: Callable[[Lesions], float], better: Better = Better.NEITHER
    ) -> Column:
        return Column(name, definition, lambda score: value(score.lesions) if score.lesions else None, better)

    return (
        column("lesions_found", f"parts paired one to one, iou above {least_iou:g}", lambda found: found.tp),
        column("lesions_false", "parts of the prediction without a pair", lambda found: found.fp),
        column("lesions_missed", "parts of the reference without a pair", lambda found: found.fn),
        column("lesion_sensitivity", "found / (found + missed)", lambda found: found.sensitivity, Better.HIGHER),
        column("lesion_precision", "found / (found + false)", lambda found: found.precision, Better.HIGHER),
        column("lesion_f1", "2 found / (2 found + false + missed), RQ", lambda found: found.f1, Better.HIGHER),
        column("segmentation_quality", "mean iou, SQ", lambda found: found.segmentation_quality, Better.HIGHER),
        column("panoptic_quality", "RQ times SQ", lambda found: found.panoptic_quality, Better.HIGHER),
    )


def _of(number: Callable[[ProbabilityScore], float]) -> Callable[[LabelScore], float | None]:
    return lambda score: number(score.probability) if score.probability else None


_CALIBRATION = (
    Column("auroc", "area under ROC", _of(lambda numbers: numbers.auroc), Better.HIGHER),
    Column("average_precision", "area under PR steps", _of(lambda numbers: numbers.average_precision), Better.HIGHER),
    Column("calibration_error", "ECE of 10 bins", _of(lambda numbers: numbers.calibration_error), Better.LOWER),
    Column("brier", "mean squared difference", _of(lambda numbers: numbers.brier), Better.LOWER),
)
