"""Read marked structures as a mask: match segments with labels, and combine them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from volseg.errors import DataError
from volseg.image.geometry import Geometry
from volseg.image.naming import label_called
from volseg.image.terminology import lookup, matches
from volseg.image.volume import LARGEST_LABEL, Label, Mask, label_values
from volseg.io.dicom.quiet import quiet_dicom
from volseg.io.dicom.rtstruct import read_rtstruct, rtstruct_segments
from volseg.io.dicom.seg import read_seg, seg_segments
from volseg.io.dicom.series import read_instances, read_series
from volseg.io.outlines import read_outlines
from volseg.io.seg_nrrd import read_layers
from volseg.io.segments import Marked, Segment
from volseg.io.source import SegmentsSource

_log = logging.getLogger("volseg")


def read_segments(source: SegmentsSource, labels: Sequence[Label] = (), on: Geometry | None = None) -> Mask:
    """Read a Segmentation, a Structure Set, a segmentation of 3D Slicer or outlines in a picture as a mask.

    A segment belongs to the label with its name, an alias of its name, or the structure of its code. Only segments that
    match a label are read. Where they overlap, the label with the larger value is painted over the other, with a
    warning that says how much.

    Args:
        source: The source to read.
        labels: The desired labels; a segment that matches none of them stays background, with a warning. Without
            labels, values are the numbers of the segments.
        on: The grid of the image; by default that of the series the object refers to. A segmentation of 3D Slicer has
            its own grid.

    Returns:
        The mask on that grid. A label without a drawing has no voxels.

    Raises:
        DataError: If the object is damaged, none of its segments matches a label, one that does cannot be used, or the
            series it lies on is unknown.
        GeometryError: If a segment that matches a label does not lie on the grid.
    """
    if source.has_grid:
        return _from_layers(source, labels)
    mask, faults = _read(source, labels, on)
    if faults:
        raise _refusal(list(faults.values()))
    return mask


def read_usable_segments(source: SegmentsSource, labels: Sequence[Label], on: Geometry) -> Mask:
    """Read the usable parts of a Segmentation or a Structure Set, with a warning that names the others.

    Args:
        source: The source to read.
        labels: As for `read_segments`.
        on: The grid of the image.

    Returns:
        The mask, with the labels that could be read.

    Raises:
        DataError: As `read_segments`, if nothing can be used.
    """
    mask, faults = _read(source, labels, on)
    if faults and not mask.array.any():
        raise _refusal(list(faults.values()))
    for fault in faults.values():
        _log.warning("left out: %s", fault.explanation)
    return Mask(mask.array, mask.geometry, tuple(label for label in mask.labels if label.value not in faults))


def described_segments(source: SegmentsSource) -> tuple[Segment, ...]:
    """Read the descriptions of all segments of an object; none of outlines in a picture.

    Raises:
        DataError: If it is damaged.
    """
    match source.kind:
        case "seg":
            return seg_segments(source.path)
        case "rtstruct":
            return rtstruct_segments(source.path)
        case "nrrd":
            return tuple(one.segment for one in read_layers(source.path)[2])
        case "geojson" | "coco":
            return ()


def unusable_segments(source: SegmentsSource) -> list[str]:
    """Describe why segments of an object cannot be used on the series it refers to, one sentence each.

    Raises:
        DataError: If the object or the series is damaged, or the series is unknown.
    """
    if source.is_of_a_picture:
        return []
    if source.series is None:
        raise _unknown_grid(source)
    faults = []
    for marked in _marked(source, read_instances(source.series).geometry):
        try:
            marked.voxels()
        except DataError as error:
            faults.append(error.explanation)
    return faults


def _read(source: SegmentsSource, labels: Sequence[Label], on: Geometry | None) -> tuple[Mask, dict[int, DataError]]:
    """Return the mask of the usable segments, and label value -> why one of its segments cannot be used."""
    geometry = on or _grid_of(source)
    found: dict[int, NDArray[np.bool_]] = {}
    faults: dict[int, DataError] = {}
    strangers: list[str] = []
    for marked in _marked(source, geometry):
        segment = marked.segment
        value = _value_of(segment, labels)
        if value is None:
            strangers.append(segment.name or f"segment {segment.number} without a name")
            continue
        try:
            where = marked.voxels()
        except DataError as error:
            faults.setdefault(value, error)
            continue
        if value in found:
            _log.warning("%s has several segments that are %s: they are merged", source.path.name, segment.name)
        found[value] = found[value] | where if value in found else where
    _report(source, strangers, anything=bool(found or faults))
    usable = {value: where for value, where in found.items() if value not in faults}
    return Mask(_painted(usable, geometry, source), geometry, tuple(labels)), faults


def _refusal(faults: Sequence[DataError]) -> DataError:
    """Build the error for wanted structures that cannot be used, without which background would be wrong."""
    first = faults[0]
    more = f"; {len(faults) - 1} more of the required structures cannot be used either" if len(faults) > 1 else ""
    hint = f"{first.hint}, or leave the structure out of the labels" if first.hint else "leave it out of the labels"
    return type(first)(f"{first}{more}", hint=hint)


def _from_layers(source: SegmentsSource, labels: Sequence[Label]) -> Mask:
    """Read a segmentation of 3D Slicer layer by layer, since each may have many segments."""
    layers, geometry, segments = read_layers(source.path)
    values = {one: _value_of(one.segment, labels) for one in segments}
    strangers = [one.segment.name for one, value in values.items() if value is None]
    keep = not labels and len(layers) == 1
    largest = max([*(value or 0 for value in values.values()), int(layers.max()) if keep else 0])
    array = np.zeros(geometry.shape, np.uint8 if largest <= 255 else np.uint16)
    twice = 0
    for number, stored in enumerate(layers):
        own = {one.value: values[one] or 0 for one in segments if one.layer == number}
        layer, nameless = _renumbered(label_values(stored, source), own, keep=keep)
        strangers += [f"value {value}" for value in nameless]
        twice += int(np.count_nonzero((array != 0) & (layer != 0) & (array != layer)))
        np.maximum(array, layer.astype(array.dtype), out=array)
    _report(source, strangers, anything=any(values.values()) or keep)
    _report_overlap(source, twice)
    return Mask(array, geometry, tuple(labels) or tuple(one.label for one in segments))


def _renumbered(
    stored: NDArray[np.unsignedinteger], own: Mapping[int, int], *, keep: bool
) -> tuple[NDArray[np.unsignedinteger], list[int]]:
    """Map a layer to label values; voxels without a segment stay, or become background, and their values returned."""
    import fastremap

    present = fastremap.unique(stored).tolist()
    nameless = [value for value in present if value and value not in own]
    table = np.arange(max([*present, *own, 0]) + 1, dtype=np.uint16)
    table[[value for value in nameless if not keep]] = 0
    for value, label in own.items():
        table[value] = label
    return table[stored], [] if keep else nameless


def is_called(label: Label, segment: Segment) -> bool:
    """Return whether a segment matches a label: by name or alias, or by the structure of its name or code."""
    if label_called(segment.name, [label]):
        return True
    if segment.type and f"{segment.type.scheme}:{segment.type.value}" in label.aliases:
        return True
    meant = lookup(segment.name)
    return matches(label.name, segment.type, segment.modifier) if meant is None else meant == lookup(label.name)


def _grid_of(source: SegmentsSource) -> Geometry:
    if source.series is None:
        raise _unknown_grid(source)
    return read_series(source.series).geometry  # which also checks its pixels


def _unknown_grid(source: SegmentsSource) -> DataError:
    return DataError(
        f"the images that {source} refers to are not beside it, so its grid is not known",
        hint="name the picture" if source.is_of_a_picture else "put the series into the same folder",
    )


def _slices_of(source: SegmentsSource, geometry: Geometry) -> dict[str, int]:
    """Return SOPInstanceUID -> slice of the grid, for the single-frame images an object lies on, as far as known."""
    if source.series is None:
        return {}
    images = read_instances(source.series)
    if len(images.headers) < len(images.frames) or not images.geometry.matches(geometry):
        return {}
    placed = zip(images.frames, images.slices, strict=True)
    with quiet_dicom():  # pydicom checks an element when it is first looked at
        return {images.header_of(frame).text("SOPInstanceUID"): k for frame, k in placed}


def _marked(source: SegmentsSource, geometry: Geometry) -> Iterator[Marked]:
    match source.kind:
        case "seg":
            return read_seg(source.path, geometry, _slices_of(source, geometry))
        case "rtstruct":
            return read_rtstruct(
                source.path, geometry, source.series.traits.frame_of_reference_uid if source.series else ""
            )
        case "geojson" | "coco":
            return read_outlines(source, geometry)
        case "nrrd":
            raise ValueError(f"{source} has its own grid")


def _value_of(segment: Segment, labels: Sequence[Label]) -> int | None:
    """Return the value of the label that a segment matches; its name takes precedence over its code."""
    if not labels:
        if not 1 <= segment.number <= LARGEST_LABEL:
            raise DataError(f"segment {segment.number} cannot be a label value", hint="state the labels")
        return segment.number
    by_name = label_called(segment.name, labels)
    return by_name.value if by_name else next((label.value for label in labels if is_called(label, segment)), None)


def _report(source: SegmentsSource, strangers: Sequence[str], *, anything: bool) -> None:
    if not strangers:
        return
    if not anything:
        raise DataError(
            f"no segment of {source} matches a label: it has {', '.join(strangers[:8])}",
            hint="state in data.segments which segment is which label",
        )
    _log.warning("%s: %s is not a label and stays background", source.path.name, ", ".join(strangers))


def _painted(
    found: dict[int, NDArray[np.bool_]], geometry: Geometry, source: SegmentsSource
) -> NDArray[np.unsignedinteger]:
    array = np.zeros(geometry.shape, np.uint8 if max(found, default=0) <= 255 else np.uint16)
    twice = 0
    for value in sorted(found):
        twice += int(np.count_nonzero(array[found[value]]))
        array[found[value]] = value
    _report_overlap(source, twice)
    return array


def _report_overlap(source: SegmentsSource, twice: int) -> None:
    if twice:
        _log.warning("%s: %d voxels have several labels; the one with the larger value is used", source, twice)
