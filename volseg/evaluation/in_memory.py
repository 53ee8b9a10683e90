"""Score a mask in memory against a reference in memory."""

from __future__ import annotations

from collections.abc import Sequence

from volseg.errors import ConfigError, GeometryError
from volseg.evaluation.evaluate import Evaluation, EvaluationSettings, evaluate_masks
from volseg.image.geometry import Geometry
from volseg.image.naming import is_unnamed, plain_name
from volseg.image.volume import Label, Mask
from volseg.io.in_memory import InMemoryMask, grid_of_array, has_grid, mask_of
from volseg.metrics import Conventions


def evaluate_in_memory(
    prediction: InMemoryMask,
    reference: InMemoryMask,
    spacing_mm: Sequence[float] | None,
    conventions: Conventions,
    threshold: float | None = None,
) -> Evaluation:
    """Score one mask against its reference, without writing anything.

    Args:
        prediction: A `Mask`, an image of nibabel, SimpleITK or MONAI, or an array (I, J, K) of label values; with a
            threshold, the probability of label 1.
        reference: One of these.
        spacing_mm: Voxel size along i, j, k, if both are arrays; an array beside an image lies on the grid of that.
        conventions: How metrics are computed.
        threshold: Probability above which a voxel of the prediction has label 1.

    Raises:
        ConfigError: If the spacing is missing or superfluous, no voxel has a label, or a value has two names.
        DataError: If one is not a label map.
        GeometryError: If the grids differ.
    """
    grid = _grid_of(prediction, reference, spacing_mm)
    made, wanted = mask_of(prediction, grid, threshold), mask_of(reference, grid)
    settings = EvaluationSettings(_labels_of(made, wanted), conventions)
    try:
        made = made.on(wanted.geometry)
    except GeometryError as error:
        raise GeometryError(str(error), hint="resample one of them to the grid of the other") from None
    return evaluate_masks(made, wanted, settings)


def _grid_of(prediction: InMemoryMask, reference: InMemoryMask, spacing_mm: Sequence[float] | None) -> Geometry | None:
    """Return the grid for what is an array: that of the other, or one of the given voxel size."""
    placed = [each for each in (prediction, reference) if has_grid(each)]
    if spacing_mm is None:
        if not placed:
            raise ConfigError("two arrays need their voxel sizes", hint="give spacing_mm along i, j and k")
        return mask_of(placed[0]).geometry if len(placed) == 1 else None
    if placed:
        raise ConfigError("spacing_mm is for two arrays: an image has its own voxel size", hint="leave out spacing_mm")
    return grid_of_array(reference, spacing_mm)  # type: ignore[arg-type]


def _labels_of(made: Mask, wanted: Mask) -> tuple[Label, ...]:
    """Return the labels of both, by value; names that stand for a value only do not count.

    Raises:
        ConfigError: If a value has different names.
    """
    labels: dict[int, Label] = {}
    for label in (*wanted.labels, *made.labels):
        known = labels.setdefault(label.value, label)
        if is_unnamed(known):
            labels[label.value] = label
        elif not is_unnamed(label) and plain_name(known.name) != plain_name(label.name):
            raise ConfigError(
                f"value {label.value} is {known.name!r} in the reference and {label.name!r} in the prediction",
                hint="give both the same labels, or pass the arrays to compare them by value",
            )
    return tuple(labels[value] for value in sorted(labels))
