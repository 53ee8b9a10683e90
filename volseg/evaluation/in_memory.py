"""Score a mask in memory against a reference in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import numpy as np

from volseg.errors import ConfigError, DataError, GeometryError
from volseg.evaluation.evaluate import Evaluation, EvaluationSettings, evaluate_masks
from volseg.image.geometry import Geometry
from volseg.image.naming import is_unnamed, matched
from volseg.image.volume import Label, Mask, label_values
from volseg.io.in_memory import InMemoryMask, grid_of, grid_of_array, has_grid, mask_of, values_of
from volseg.io.label_maps import shares_of
from volseg.metrics import Conventions


def evaluate_in_memory(
    prediction: InMemoryMask,
    reference: InMemoryMask,
    spacing_mm: Sequence[float] | None,
    conventions: Conventions,
    threshold: float | None = None,
) -> Evaluation:
    """Score one mask against its reference, without writing anything.

    Labels are matched by name, else by the structure their names stand for, else by value if one side has no names.

    Args:
        prediction: A `Mask`, an image of nibabel, SimpleITK or MONAI, or an array (I, J, K) of label values; with a
            threshold, the probability of label 1.
        reference: One of these.
        spacing_mm: Voxel size along i, j, k, if both are arrays; an array beside an image lies on the grid of that.
        conventions: How metrics are computed.
        threshold: Probability above which a voxel of the prediction has label 1.

    Raises:
        ConfigError: If the spacing is missing or superfluous, or no voxel has a label.
        DataError: If one is not a label map, or with a threshold does not hold probabilities of one label.
        GeometryError: If the grids differ.
    """
    grid = _grid_of(prediction, reference, spacing_mm)
    wanted = mask_of(reference, grid)
    made = mask_of(prediction, grid) if threshold is None else _above(prediction, grid, threshold, wanted)
    try:
        made = made.on(wanted.geometry)
    except GeometryError as error:
        raise GeometryError(str(error), hint="resample one of them to the grid of the other") from None
    made = _with_values_of(made, wanted)
    more = [label for label in made.labels if label.value not in {known.value for known in wanted.labels}]
    labels = (*_named_by(made, wanted), *more)
    return evaluate_masks(made, wanted, EvaluationSettings(labels, conventions))


def _grid_of(prediction: InMemoryMask, reference: InMemoryMask, spacing_mm: Sequence[float] | None) -> Geometry | None:
    """Return the grid for what is an array: that of the other, or one of the given voxel size."""
    placed = [each for each in (prediction, reference) if has_grid(each)]
    if spacing_mm is None:
        if not placed:
            raise ConfigError("two arrays need their voxel sizes", hint="give spacing_mm along i, j and k")
        return grid_of(placed[0]) if len(placed) == 1 else None
    if placed:
        raise ConfigError("spacing_mm is for two arrays: an image has its own voxel size", hint="leave out spacing_mm")
    return grid_of_array(reference, spacing_mm)  # type: ignore[arg-type]


def _above(prediction: InMemoryMask, grid: Geometry | None, threshold: float, wanted: Mask) -> Mask:
    """Give the label of the reference to voxels whose probability is above a threshold, as for files."""
    if isinstance(prediction, Mask):
        raise ConfigError("a mask with labels has no probabilities", hint="leave out the threshold")
    if len(wanted.labels) > 1:
        raise DataError(
            f"probabilities are of a single label, and the reference has {len(wanted.labels)}",
            hint="pass one label of the reference, such as reference == 1",
        )
    label = wanted.labels[0] if wanted.labels else Label(1, "label_1")
    values, geometry = values_of(prediction, grid)
    marked = shares_of(values, "the prediction") > threshold
    return Mask(label_values(marked * np.uint16(label.value), "the prediction"), geometry, (label,))


def _with_values_of(made: Mask, wanted: Mask) -> Mask:
    """Return the prediction with the values that its labels have in the reference; others get values of their own."""
    found = matched(made.labels, wanted.labels)
    used = {label.value for label in wanted.labels} | {0}
    free = (value for value in count(1) if value not in used)
    values = {label.value: found[label.value].value if label.value in found else next(free) for label in made.labels}
    if all(old == new for old, new in values.items()):
        return made
    table = np.zeros(max(values) + 1, np.uint16)
    for old, new in values.items():
        table[old] = new
    labels = tuple(replace(label, value=values[label.value]) for label in made.labels)
    return Mask(label_values(table[made.array], "the prediction"), made.geometry, labels)


def _named_by(made: Mask, wanted: Mask) -> tuple[Label, ...]:
    """Return the labels of the reference, under the names of the prediction where it has none."""
    names = {label.value: label for label in made.labels}
    return tuple(names.get(label.value, label) if is_unnamed(label) else label for label in wanted.labels)
