"""Post-processing of masks by anatomical knowledge that a network lacks.

A kidney is in one piece, a liver has no holes. Each `LabelRule` states such facts about one label; `postprocess` makes
a mask obey them. Distances are millimetres along the axes of the grid, which are taken to be orthogonal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cc3d
import edt
import fastremap
import fill_voids
import numpy as np
from numpy.typing import NDArray

from volseg.config import LabelRule
from volseg.errors import ConfigError
from volseg.image.box import Box
from volseg.image.volume import Mask

Labels = NDArray[np.unsignedinteger]
Binary = NDArray[np.bool_]

#: Distances and volumes that should be equal differ by float32 rounding; a ball's surface belongs to the ball.
_ROUNDING = 1e-5


def postprocess(mask: Mask, rules: Sequence[LabelRule]) -> Mask:
    """Apply rules to the labels of a mask, rule after rule.

    Within a rule the order is: morphology, small components, largest component, holes. A label only ever takes
    background: no rule for one label changes a voxel of another. Where two labels grow into the same background, the
    one with the smaller value gets it.

    Args:
        mask: The mask, (I, J, K); it is not modified.
        rules: What to do to which label; "*" means every label that has voxels.

    Returns:
        A new mask of the same dtype on the same grid; its values are a subset of those before.

    Raises:
        ConfigError: If a rule names a label the mask does not have.
    """
    array = np.array(mask.array, order="C")
    for rule in rules:
        _apply(rule, array, _values_of(rule, mask), mask)
    return Mask(array, mask.geometry, mask.labels)


def postprocess_as_it_lies(mask: Mask, rules: Sequence[LabelRule]) -> Mask:
    """Apply the same in patient axis order, so that the result does not depend on how a case is stored."""
    if not rules:
        return mask
    order = mask.geometry.to_canonical
    canonical = Mask(order.apply(mask.array), mask.geometry.reordered(order), mask.labels)
    stored = order.inverse().apply(postprocess(canonical, rules).array)
    return Mask(np.ascontiguousarray(stored), mask.geometry, mask.labels)


def _values_of(rule: LabelRule, mask: Mask) -> set[int] | None:
    """Return the values a rule applies to, None for all."""
    if rule.label == "*":
        return None
    values = {label.value for label in mask.labels if label.name == rule.label}
    if not values:
        names = ", ".join(label.name for label in mask.labels) or "none"
        raise ConfigError(
            f"a postprocessing rule names the label {rule.label!r}, which the mask does not have",
            hint=f'its labels are: {names}; "*" stands for all of them',
        )
    return values


def _apply(rule: LabelRule, array: Labels, values: set[int] | None, mask: Mask) -> None:
    """Apply one rule to `array`, in place; `values` None means all that occur."""
    if rule.morphology != "none" and rule.radius_mm > 0:
        for value, box in _boxes(array, values).items():
            _morph(array, value, box, rule, mask.geometry.spacing_mm)
    if rule.keep_largest or rule.min_voxels > 1 or rule.min_volume_ml > 0:
        smallest = max(rule.min_voxels, rule.min_volume_ml / mask.geometry.voxel_volume_ml * (1 - _ROUNDING))
        _drop_components(array, values, rule, smallest)
    if rule.fill_holes:
        for value, box in _boxes(array, values).items():
            _fill_holes(array, value, box)


def _boxes(array: Labels, values: set[int] | None) -> dict[int, Box]:
    """Return the bounding box of each value that occurs, without background, in the order of values."""
    # cc3d counts only values below the number of voxels, so they are numbered through first.
    compact, numbers = fastremap.renumber(array)
    boxes = cc3d.statistics(compact)["bounding_boxes"]
    number_of = {int(value): int(number) for value, number in numbers.items() if value != 0}
    return {value: Box(*boxes[number_of[value]]) for value in sorted(number_of) if values is None or value in values}


def _replace(crop: Labels, value: int, before: Binary, after: Binary) -> None:
    """Turn a label's voxels from `before` into `after`, taking none from other labels."""
    crop[before & ~after] = 0
    crop[after & (crop == 0)] = value


def _morph(array: Labels, value: int, box: Box, rule: LabelRule, spacing_mm: tuple[float, float, float]) -> None:
    """Apply morphology to one label with a ball of `rule.radius_mm`.

    What lies outside the image is unknown. Erosion and opening therefore do not shrink an organ that the image border
    cuts, and closing does not grow towards the border (the outside counts as background there).
    """
    # One voxel more than the ball reaches, so that there is background on every side that is not the image's border.
    margin = [math.ceil(rule.radius_mm / size) + 1 for size in spacing_mm]
    crop = array[box.grown(margin, array.shape)]
    before = crop == value
    after = {"dilation": _dilated, "erosion": _eroded, "opening": _opened, "closing": _closed}[rule.morphology]
    _replace(crop, value, before, after(before, rule.radius_mm, spacing_mm))


def _distance_mm(inside: Binary, spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
    """Compute the distance of each voxel of `inside` to the nearest one outside; 0 elsewhere, infinite if none is.

    Euclidean, between voxel centres: Felzenszwalb and Huttenlocher, Theory of Computing 8 (2012).
    """
    distance: NDArray[np.float32] = edt.edt(np.ascontiguousarray(inside), anisotropy=spacing_mm, parallel=1)
    return distance


def _dilated(inside: Binary, radius_mm: float, spacing_mm: tuple[float, float, float]) -> Binary:
    """Dilate: all voxels within the radius."""
    return _distance_mm(~inside, spacing_mm) <= radius_mm * (1 + _ROUNDING)


def _eroded(inside: Binary, radius_mm: float, spacing_mm: tuple[float, float, float]) -> Binary:
    """Erode: the voxels with nothing but `inside` within the radius."""
    return _distance_mm(inside, spacing_mm) > radius_mm * (1 + _ROUNDING)


def _opened(inside: Binary, radius_mm: float, spacing_mm: tuple[float, float, float]) -> Binary:
    """Open: everything that a ball inside can cover, without bridges and spikes thinner than it."""
    core = _eroded(inside, radius_mm, spacing_mm)
    return _dilated(core, radius_mm, spacing_mm) if core.any() else core


def _closed(inside: Binary, radius_mm: float, spacing_mm: tuple[float, float, float]) -> Binary:
    """Close: everything that a ball outside cannot cover, so that gaps and dents narrower than it are filled."""
    margin = [math.ceil(radius_mm / size) + 1 for size in spacing_mm]
    padded = np.pad(inside, [(extra, extra) for extra in margin])
    closed = _eroded(_dilated(padded, radius_mm, spacing_mm), radius_mm, spacing_mm)
    i, j, k = (slice(extra, -extra) for extra in margin)
    return closed[i, j, k]


def _drop_components(array: Labels, values: set[int] | None, rule: LabelRule, smallest: float) -> None:
    """Remove components of fewer than `smallest` voxels, and all but the largest if the rule says so.

    Among components of equal size, the one whose first voxel comes first in (i, j, k) order counts as the largest.
    """
    chosen = array if values is None else fastremap.mask_except(array, sorted(values))
    components = cc3d.connected_components(chosen, connectivity=rule.connectivity)
    sizes = np.bincount(components.ravel())
    keep = sizes >= smallest
    if rule.keep_largest:
        keep &= _is_largest(sizes, fastremap.component_map(components, chosen))
    keep[0] = True  # Component 0 is everything the rule does not concern.
    array[~keep[components]] = 0


def _is_largest(sizes: NDArray[np.int64], value_of: Mapping[Any, Any]) -> Binary:
    """Return which components are the largest of their label; `value_of` gives the label of each component from 1."""
    largest: dict[int, int] = {}
    for component in range(1, len(sizes)):
        champion = largest.setdefault(value_of[component], component)
        if sizes[component] > sizes[champion]:
            largest[value_of[component]] = component
    marked = np.zeros(len(sizes), dtype=bool)
    marked[list(largest.values())] = True
    return marked


def _fill_holes(array: Labels, value: int, box: Box) -> None:
    """Fill the background that a label encloses: what no path over voxel faces connects to the edge of the image."""
    crop = array[box]
    before = crop == value
    _replace(crop, value, before, fill_voids.fill(before))
