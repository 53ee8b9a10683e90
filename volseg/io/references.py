"""From the structures that a file marks to a mask: which segment is which label, and where it lies."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

import fastremap
import numpy as np
from numpy.typing import NDArray

from volseg.errors import DataError
from volseg.image.geometry import Geometry
from volseg.image.naming import label_called
from volseg.image.terminology import lookup, matches
from volseg.image.volume import Label, Mask, label_values
from volseg.io.dicom.quiet import quiet_dicom
from volseg.io.dicom.rtstruct import read_rtstruct
from volseg.io.dicom.seg import read_seg
from volseg.io.dicom.series import read_instances, read_series
from volseg.io.seg_nrrd import read_layers
from volseg.io.segments import Segment
from volseg.io.source import SegmentsSource

_log = logging.getLogger("volseg")


def read_segments(source: SegmentsSource, labels: Sequence[Label] = (), on: Geometry | None = None) -> Mask:
    """Read a Segmentation, a Structure Set or a segmentation of 3D Slicer as a mask.

    A segment belongs to the label of its name, of one of the label's aliases, or of the structure its code says it is.
    Where segments overlap, the label with the larger value is painted over the other, and a warning says how much.

    Args:
        source: What to read.
        labels: What the values mean; a segment that is none of them stays background, and a warning names it. Without
            labels, values are the numbers of the segments.
        on: The grid of the image; by default that of the series the object refers to. A segmentation of 3D Slicer has a
            grid of its own.

    Returns:
        The mask on that grid.

    Raises:
        DataError: If the object is damaged, none of its segments is a label, or the series it lies on is not known.
        GeometryError: If its segments do not lie on the grid.
    """
    if source.has_grid:
        return _from_layers(source, labels)
    geometry = on or _grid_of(source)
    found: dict[int, NDArray[np.bool_]] = {}
    strangers: list[str] = []
    with quiet_dicom():
        for segment, where in _segments(source, geometry):
            value = _value_of(segment, labels)
            if value is None:
                strangers.append(segment.name)
            else:
                found[value] = found[value] | where if value in found else where
    _report(source, strangers, anything=bool(found))
    return Mask(_painted(found, geometry, source), geometry, tuple(labels))


def _from_layers(source: SegmentsSource, labels: Sequence[Label]) -> Mask:
    """A segmentation of 3D Slicer; layer by layer, since there may be many segments in each."""
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
    """A layer with its segments' labels for values; what no segment names stays or becomes background, and is told."""
    present = fastremap.unique(stored).tolist()
    nameless = [value for value in present if value and value not in own]
    table = np.arange(max([*present, *own, 0]) + 1, dtype=np.uint16)
    table[[value for value in nameless if not keep]] = 0
    for value, label in own.items():
        table[value] = label
    return table[stored], [] if keep else nameless


def is_called(label: Label, segment: Segment) -> bool:
    """Whether a segment is what a label means: by name or alias, or by the structure that its name or code says."""
    if label_called(segment.name, [label]):
        return True
    if segment.type and f"{segment.type.scheme}:{segment.type.value}" in label.aliases:
        return True
    meant = lookup(segment.name)
    return matches(label.name, segment.type, segment.modifier) if meant is None else meant == lookup(label.name)


def _grid_of(source: SegmentsSource) -> Geometry:
    if source.series is None:
        raise DataError(
            f"the images that {source} refers to are not beside it, so its grid is not known",
            hint="put the series into the same folder",
        )
    return read_series(source.series).geometry  # which proves its pixels, too


def _slices_of(source: SegmentsSource, geometry: Geometry) -> dict[str, int]:
    """SOPInstanceUID -> slice of the grid, of the single-frame images an object lies on, as far as they are known."""
    if source.series is None:
        return {}
    images = read_instances(source.series)
    if len(images.headers) < len(images.frames) or not images.geometry.matches(geometry):
        return {}
    placed = zip(images.frames, images.slices, strict=True)
    return {images.header_of(frame).text("SOPInstanceUID"): k for frame, k in placed}


def _segments(source: SegmentsSource, geometry: Geometry) -> Iterator[tuple[Segment, NDArray[np.bool_]]]:
    match source.kind:
        case "seg":
            return read_seg(source.path, geometry, _slices_of(source, geometry))
        case "rtstruct":
            return read_rtstruct(source.path, geometry)
        case "nrrd":
            raise ValueError(f"{source} has a grid of its own")


def _value_of(segment: Segment, labels: Sequence[Label]) -> int | None:
    """The value of the label a segment is; a name says it before a code does."""
    if not labels:
        return segment.number
    by_name = label_called(segment.name, labels)
    return by_name.value if by_name else next((label.value for label in labels if is_called(label, segment)), None)


def _report(source: SegmentsSource, strangers: Sequence[str], *, anything: bool) -> None:
    if not strangers:
        return
    if not anything:
        raise DataError(
            f"no segment of {source} is a label: it has {', '.join(strangers[:8])}",
            hint="say in data.segments which segment is which label",
        )
    _log.warning("%s: %s is no label and stays background", source.path.name, ", ".join(strangers))


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
        _log.warning("%s: %d voxels are of several labels; the one with the larger value is taken", source, twice)
