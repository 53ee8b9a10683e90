"""Each label of two masks as two boolean arrays, no larger than the box around both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from volseg.errors import DataError
from volseg.image.volume import Label

Box = tuple[slice, slice, slice]
_NOTHING: Box = (slice(0, 0), slice(0, 0), slice(0, 0))


@dataclass(frozen=True, eq=False)
class Crop:
    """One label.

    Attributes:
        label: Which.
        box: The part of the grid; empty where neither mask has it.
        prediction: (I, J, K) bool.
        reference: (I, J, K) bool, the same part of the grid; both lie wholly within.
    """

    label: Label
    box: Box
    prediction: NDArray[np.bool_]
    reference: NDArray[np.bool_]


def label_crops(
    prediction: NDArray[np.unsignedinteger], reference: NDArray[np.unsignedinteger], labels: Sequence[Label]
) -> Iterator[Crop]:
    """Cut each label out of two masks.

    Args:
        prediction: (I, J, K), 0 where there is nothing.
        reference: (I, J, K), the same shape.
        labels: Which; they must cover all values of both. A region of several labels is the union of its parts in the
            reference, and in the prediction that of all regions that lie within it.

    Yields:
        A crop per label, in their order.

    Raises:
        DataError: If a mask holds a value that is no label.
    """
    painted = {label: _painted_values(label, labels) for label in labels}
    united = {label: label.parts or (label.value,) for label in labels}
    predicted_boxes = _boxes(prediction, painted, "prediction")
    reference_boxes = _boxes(reference, united, "reference")
    for label in labels:
        boxes = [predicted_boxes[value] for value in painted[label] if value in predicted_boxes]
        boxes += [reference_boxes[value] for value in united[label] if value in reference_boxes]
        box = _union(boxes)
        yield Crop(label, box, _inside(prediction[box], painted[label]), _inside(reference[box], united[label]))


def _painted_values(label: Label, labels: Sequence[Label]) -> tuple[int, ...]:
    """The mask values that belong to a label: its own, and for a region those of the regions within it."""
    if not label.parts:
        return (label.value,)
    return tuple(other.value for other in labels if other.parts and set(other.parts) <= set(label.parts))


def _inside(array: NDArray[np.unsignedinteger], values: tuple[int, ...]) -> NDArray[np.bool_]:
    return array == values[0] if len(values) == 1 else np.isin(array, values)


def _boxes(array: NDArray[np.unsignedinteger], labels: Mapping[Label, tuple[int, ...]], role: str) -> dict[int, Box]:
    """The box around each value that the array holds."""
    occupied = _occupied(array)
    inside = np.ascontiguousarray(array[occupied])
    found = enumerate(ndimage.find_objects(inside) if inside.size else [], start=1)
    boxes = {value: _within(occupied, box) for value, box in found if box is not None}
    unknown = sorted(boxes.keys() - {value for values in labels.values() for value in values})
    if unknown:
        known = ", ".join(f"{label.value} {label.name}" for label in labels)
        raise DataError(f"the {role} holds {_few(unknown)}, which is none of the labels ({known})")
    return boxes


def _occupied(array: NDArray[np.unsignedinteger]) -> Box:
    """The box around everything that is not 0: most of a mask is, and this is found ten times faster than values."""
    found = [np.flatnonzero(array.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    if not found[0].size:
        return _NOTHING
    i, j, k = (slice(int(indices[0]), int(indices[-1]) + 1) for indices in found)
    return i, j, k


def _within(outer: Box, inner: Box) -> Box:
    """A box that is given within another, on the grid of that one."""
    i, j, k = (
        slice(whole.start + part.start, whole.start + part.stop) for whole, part in zip(outer, inner, strict=True)
    )
    return i, j, k


def _few(values: list[int]) -> str:
    more = f" and {len(values) - 5} more values" if len(values) > 5 else ""
    return ", ".join(str(value) for value in values[:5]) + more


def _union(boxes: list[Box]) -> Box:
    """The smallest box around all, without any margin: what is outside both masks has no part in any metric."""
    if not boxes:
        return _NOTHING
    i, j, k = (
        slice(min(part.start for part in parts), max(part.stop for part in parts)) for parts in zip(*boxes, strict=True)
    )
    return i, j, k
