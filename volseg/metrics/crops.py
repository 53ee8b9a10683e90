"""Crops: each label of two masks as two boolean arrays, no larger than the box around both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volseg.errors import DataError
from volseg.image.box import Box
from volseg.image.naming import shown_value
from volseg.image.volume import Label, Mask

_NOTHING = Box.whole((0, 0, 0))


@dataclass(frozen=True, eq=False)
class Crop:
    """One label, cropped.

    Attributes:
        label: The label.
        box: The part of the grid; empty where neither mask has the label.
        prediction: (I, J, K) bool.
        reference: (I, J, K) bool, the same part of the grid; both lie wholly within.
    """

    label: Label
    box: Box
    prediction: NDArray[np.bool_]
    reference: NDArray[np.bool_]


def label_crops(prediction: Mask, reference: Mask, labels: Sequence[Label]) -> Iterator[Crop]:
    """Cut each label out of two masks.

    Args:
        prediction: The predicted mask.
        reference: The ground truth, of the same shape.
        labels: The labels; they must cover all values of both masks. A region of several labels is the union of its
            parts in the reference, and in the prediction the union of all regions within it.

    Yields:
        A crop per label, in their order.

    Raises:
        DataError: If a mask holds a value without a label.
    """
    painted = {label: painted_values(label, labels) for label in labels}
    united = {label: label.parts or (label.value,) for label in labels}
    predicted_boxes = _boxes(prediction, painted, "prediction")
    reference_boxes = _boxes(reference, united, "reference")
    for label in labels:
        boxes = [predicted_boxes[value] for value in painted[label] if value in predicted_boxes]
        boxes += [reference_boxes[value] for value in united[label] if value in reference_boxes]
        # No margin: voxels outside both masks do not affect any metric.
        box = boxes[0].union(*boxes[1:]) if boxes else _NOTHING
        yield Crop(
            label, box, _inside(prediction.array[box], painted[label]), _inside(reference.array[box], united[label])
        )


def painted_values(label: Label, labels: Sequence[Label]) -> tuple[int, ...]:
    """Return the mask values that belong to a label: its own, and for a region those of the regions within it."""
    if not label.parts:
        return (label.value,)
    return tuple(other.value for other in labels if other.parts and set(other.parts) <= set(label.parts))


def _inside(array: NDArray[np.unsignedinteger], values: tuple[int, ...]) -> NDArray[np.bool_]:
    return array == values[0] if len(values) == 1 else np.isin(array, values)


def _boxes(mask: Mask, labels: Mapping[Label, tuple[int, ...]], role: str) -> dict[int, Box]:
    """Find the box around each value in a mask."""
    boxes = _boxes_of_values(mask.array)
    unknown = sorted(boxes.keys() - {value for values in labels.values() for value in values})
    if unknown:
        known = ", ".join(f"{label.value} {label.name}" for label in labels)
        shown = [shown_value(value, mask.labels) for value in unknown]
        raise DataError(
            f"the {role} holds {_few(shown)}, which is not among the labels ({known})",
            hint="list it in the labels.json beside it, or set it to 0",
        )
    return boxes


def _boxes_of_values(array: NDArray[np.unsignedinteger]) -> dict[int, Box]:
    from scipy import ndimage

    occupied = Box.around(array)  # most of a mask is 0, and this is ten times faster than finding values
    if occupied is None:
        return {}
    found = enumerate(ndimage.find_objects(np.ascontiguousarray(array[occupied])), start=1)
    return {value: Box(*box).shifted(occupied.origin) for value, box in found if box is not None}


def _few(values: list[str]) -> str:
    more = f" and {len(values) - 5} more values" if len(values) > 5 else ""
    return ", ".join(values[:5]) + more
