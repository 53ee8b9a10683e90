"""Reading label maps and probabilities in any format, with the meaning of their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volseg.config.reading import FileRules, GeometryChoice
from volseg.errors import DataError, GeometryError
from volseg.image.geometry import Geometry
from volseg.image.naming import values_by_name
from volseg.image.volume import Label, Mask, label_values
from volseg.io.images import NIFTI_SUFFIXES, frame_in, image_suffix, is_picture, read_file, read_volume
from volseg.io.readable import check_file
from volseg.io.source import FileSource, MasksSource, ObjectsSource, SegmentsSource, SeriesSource, Source

_ONE_MASK = (
    "a mask is one volume: 3D Slicer stores segments that overlap as layers; export one file per segment, or keep "
    "their names (.seg.nrrd, DICOM Segmentation)"
)
#: How far scaled probabilities may exceed the range from 0 to 1.
_ROUNDING = 1e-3


def read_mask(source: Source, labels: Sequence[Label] = (), on: Geometry | None = None) -> Mask:
    """Read a label map.

    Args:
        source: A file or a DICOM series whose voxels are integers, stored in any dtype; a file that marks named
            structures; or a binary mask per structure or per object.
        labels: The desired labels. If the source states names, its voxels get the values of the labels with these
            names; a name that is not among them keeps its value if no label has it, else gets a free one.
        on: The grid of the image, for an object without its own.

    Returns:
        The mask, uint8 or uint16.

    Raises:
        DataError: If it is damaged, or a voxel is not an integer from 0 to 65535.
        GeometryError: If it does not state where its voxels lie.
    """
    match source:
        case SegmentsSource():
            from volseg.io.references import read_segments

            return read_segments(source, labels, on)
        case MasksSource():
            from volseg.io.mask_per_label import read_masks

            return read_masks(source, labels)
        case ObjectsSource():
            return _read_objects(source, labels)
        case SeriesSource():
            volume = read_volume(source)
            array, geometry = volume.array[0], volume.geometry
        case FileSource():
            # Colours stated by the source take precedence over those of the desired labels.
            own = any(label.color for label in source.labels)
            values, geometry = _read_values(source, source.labels if own else labels)
            if source.rules.values == "objects" or source.rules.threshold is not None:
                values = _as_one_label(values, source, labels)
            if source.labels:
                return named_mask(Mask(values, geometry, source.labels), labels)
            return Mask(values, geometry, tuple(labels))
    return Mask(label_values(array, source), geometry, tuple(labels))


def _read_objects(source: ObjectsSource, labels: Sequence[Label]) -> Mask:
    """Read all objects as the single label, including pixels where two overlap."""
    first, *others = source.each
    mask = read_mask(first, labels)
    array = mask.array.copy()
    for other in others:
        try:
            np.maximum(array, read_mask(other, labels).on(mask.geometry).array, out=array)
        except GeometryError as error:
            raise GeometryError(
                f"{other} lies on a different grid than the masks beside it: {error}", hint=error.hint
            ) from error
    return Mask(array, mask.geometry, tuple(labels))


def named_mask(mask: Mask, labels: Sequence[Label]) -> Mask:
    """Map a mask that states names to the values of some labels.

    Args:
        mask: With the labels of its values.
        labels: The desired labels; without any, the mask stays as it is.

    Returns:
        The mask with the labels, and with its own labels that match none of them, "label_2" for a value without a name.

    Raises:
        DataError: If two of its values have one name.
    """
    if not labels:
        return mask
    import fastremap

    present = fastremap.unique(mask.array).tolist()
    new = values_by_name(mask.labels, labels, [value for value in present if value])
    table = np.zeros(max(present) + 1, np.uint16)
    table[list(new)] = list(new.values())
    known = {label.value for label in labels}
    others = [replace(label, value=new[label.value]) for label in mask.labels if label.value in new]
    strangers = [label for label in others if label.value not in known]
    named = known | {label.value for label in strangers}
    strangers += [Label(to, f"label_{value}") for value, to in new.items() if to not in named]
    array = table[mask.array] if any(value != kept for value, kept in new.items()) else mask.array
    dtype = np.uint8 if max(new.values(), default=0) <= 255 else np.uint16
    return Mask(array.astype(dtype), mask.geometry, (*labels, *strangers))


def read_probabilities(path: Path, choice: GeometryChoice | None = None) -> tuple[NDArray[np.float32], Geometry]:
    """Read what `write_probabilities` wrote, or another 4D image.

    Args:
        path: The file.
        choice: Which part of its header is correct if that contradicts itself.

    Returns:
        (I, J, K, labels) float32 and the grid of the first three axes.

    Raises:
        DataError: If it is damaged, or a voxel is not from 0 to 1.
        GeometryError: If it does not state where its voxels lie.
    """
    array, geometry = read_file(FileSource(path, rules=FileRules(geometry=choice)))
    shares = np.moveaxis(np.asarray(array, np.float32), 0, -1)
    if not (shares.min() >= -_ROUNDING and shares.max() <= 1 + _ROUNDING):
        raise DataError(
            f"{path} holds no probabilities: some voxels are not from 0 to 1",
            hint="`volseg predict --probabilities` writes some",
        )
    return np.clip(shares, 0, 1), geometry


def _read_values(source: FileSource, labels: Sequence[Label]) -> tuple[NDArray[np.unsignedinteger], Geometry]:
    if source.rules.threshold is not None:
        array, geometry = frame_in(source, *_read_soft(source), _ONE_MASK)
        return (_shares(array, source) > source.rules.threshold).astype(np.uint8), geometry
    if is_picture(source.path):
        from volseg.io.pictures import read_values

        check_file(source.path)
        pixels, geometry = read_values(source.path, source.rules, labels)
        return label_values(pixels, source), geometry
    array, geometry = frame_in(source, *read_file(source), _ONE_MASK)
    step = _value_step(source) if np.issubdtype(array.dtype, np.floating) else 0.0
    return label_values(array, source, step), geometry


def _read_soft(source: FileSource) -> tuple[NDArray[np.generic], Geometry]:
    if not is_picture(source.path):
        return read_file(source)
    from volseg.io.pictures import read_soft

    check_file(source.path)
    return read_soft(source.path, source.rules)


def _shares(array: NDArray[np.generic], source: FileSource) -> NDArray[np.floating]:
    """Convert values to probabilities from 0 to 1: as stored, or in integer steps.

    Raises:
        DataError: If a value is neither.
    """
    return shares_of(array, str(source), source.rules.certain)


def shares_of(array: NDArray[np.generic], name: str, certain: int | None = None) -> NDArray[np.floating]:
    """Convert values to probabilities from 0 to 1.

    Args:
        array: Probabilities, or integers.
        name: Its name in errors.
        certain: Integer that stands for 1; by default the largest of the type, or 1 if there is none above.

    Raises:
        DataError: If a value is neither.
    """
    if np.issubdtype(array.dtype, np.unsignedinteger):
        brightest = int(array.max(initial=0))
        most = certain or (1 if brightest <= 1 else np.iinfo(array.dtype).max)  # type: ignore[type-var]
        if brightest <= most:
            return np.asarray(array, np.float32) / most
    shares = np.asarray(array, np.float32)
    if not (shares.min() >= -_ROUNDING and shares.max() <= 1 + _ROUNDING):
        raise DataError(
            f"{name} does not hold probabilities: its values go from {shares.min():g} to {shares.max():g}",
            hint="a threshold is for probabilities, from 0 to 1 or in whole steps (0 to 255)",
        )
    return shares


def _as_one_label(
    values: NDArray[np.unsignedinteger], source: FileSource, labels: Sequence[Label]
) -> NDArray[np.unsignedinteger]:
    """Map object numbers to the value of the label that all of them have.

    Raises:
        DataError: If there are several labels.
    """
    if len(labels) > 1:
        raise DataError(
            f"{source} is of a single label, but it is not stated which of {len(labels)}",
            hint="list only that label in data.labels, or leave out data.values and the threshold",
        )
    value = labels[0].value if labels else 1
    return np.where(values > 0, value, 0).astype(np.uint8 if value <= 255 else np.uint16)


def _value_step(source: FileSource) -> float:
    if image_suffix(source.path) not in NIFTI_SUFFIXES:
        return 0.0
    from volseg.io import nifti

    return nifti.value_step(source.path)
