"""Segmentations of 3D Slicer: NRRD files whose header names the values of their voxels, in one layer or several.

Source of the fields: 3D Slicer's developer guide, "Segmentation labelmap file format (.seg.nrrd)". Segments that
overlap lie in different layers; layers are the first axis. Versions before 4.11 wrote a layer per segment, of values 0
and 1, and stated neither.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volseg.errors import ConfigError, DataError
from volseg.image.geometry import Geometry
from volseg.image.terminology import Code, Structure, lookup
from volseg.image.volume import LARGEST_LABEL, Label
from volseg.io.itk import read_array
from volseg.io.segments import Segment
from volseg.io.source import SegmentsSource

_KEY = re.compile(r"Segment(\d+)_(\w+):=(.*)")
#: Escape sequences of NRRD for a line feed, a backslash and a quotation mark.
_ESCAPED = re.compile(r"\\(.)")
_TERMS = "TerminologyEntry:"
#: The code that 3D Slicer gives to every new segment; it is meaningless.
_ANY_TISSUE = "85756007"
#: More bytes than the header of a thousand segments needs.
_LONGEST_HEADER = 16_000_000
_AGAIN = "save it again in 3D Slicer"


@dataclass(frozen=True)
class LayeredSegment:
    """A segment and the position of its voxels.

    Attributes:
        segment: Its name, colour and codes; its number is its value, or its position in the file if values repeat.
        structure: Its meaning, if the file states it in codes.
        layer: Its layer, from 0.
        value: Of its voxels in that layer.
    """

    segment: Segment
    structure: Structure | None
    layer: int
    value: int

    @property
    def label(self) -> Label:
        """The segment as a label of a mask."""
        name, color, stated = self.segment.name, self.segment.color, self.structure
        says_nothing = stated is None or stated.type.value == _ANY_TISSUE
        return Label(self.segment.number, name, color, structure=(lookup(name) if says_nothing else None) or stated)


def segments_in(path: Path) -> SegmentsSource | None:
    """Return the structures that the header of a NRRD file marks; None if it names no segment, or cannot be read.

    Raises:
        DataError: If it contradicts itself.
    """
    segments = _segments(path)
    if not segments:
        return None
    ordered = sorted(segments, key=lambda one: one.segment.number)
    numbers = tuple(one.segment.number for one in ordered)
    stated = numbers if all(one.value == one.segment.number for one in ordered) else ()
    return SegmentsSource(path, "nrrd", names=tuple(one.segment.name for one in ordered), values=stated)


def read_layers(path: Path) -> tuple[NDArray[np.generic], Geometry, tuple[LayeredSegment, ...]]:
    """Read all layers of a segmentation.

    Returns:
        (L, I, J, K) in the dtype of the file, the grid of every layer, and the segments in the order of the header.

    Raises:
        DataError: If the file is damaged or contradicts itself.
        GeometryError: If it does not state where its voxels lie.
    """
    array, geometry = read_array(path)
    segments = _segments(path)
    for one in segments:
        if one.layer >= len(array):
            raise DataError(
                f"{path} has {len(array)} layers, but segment {one.segment.name!r} is in layer {one.layer}", hint=_AGAIN
            )
    return array, geometry, segments


def _segments(path: Path) -> tuple[LayeredSegment, ...]:
    fields: dict[int, dict[str, str]] = {}
    for line in _header_lines(path):
        if found := _KEY.fullmatch(line):
            number, key, value = found.groups()
            fields.setdefault(int(number), {})[key] = _ESCAPED.sub(_unescaped, value).strip()
    named = [fields[number] for number in sorted(fields) if fields[number].keys() & {"Name", "ID", "LabelValue"}]
    placed = [_place(one, number, len(named), path) for number, one in enumerate(named)]
    if len(set(placed)) < len(placed):
        raise DataError(f"{path} gives two of its segments the same value in one layer", hint=_AGAIN)
    distinct = len({value for _, value in placed}) == len(placed)
    return tuple(
        _segment(one, value if distinct else number, layer, value)
        for number, (one, (layer, value)) in enumerate(zip(named, placed, strict=True), start=1)
    )


def _header_lines(path: Path) -> list[str]:
    """Read the lines before the voxels; empty if the file is not NRRD."""
    lines: list[str] = []
    read = 0
    try:
        with path.open("rb") as file:
            if file.readline(100)[:4] != b"NRRD":
                return []
            while read < _LONGEST_HEADER and (raw := file.readline(_LONGEST_HEADER)).strip():
                read += len(raw)
                lines.append(_decoded(raw))
    except OSError:  # reading it reports the error
        return []
    return lines


def _unescaped(found: re.Match[str]) -> str:
    return " " if found[1] == "n" else found[1]


def _decoded(raw: bytes) -> str:
    """Decode 3D Slicer's UTF-8; anything else is decoded byte by byte, so that no name is lost."""
    try:
        return raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        return raw.decode("latin-1").rstrip("\r\n")


def _place(fields: Mapping[str, str], number: int, count: int, path: Path) -> tuple[int, int]:
    """Return layer and value of a segment; if neither is stated, each segment has its own layer."""
    name = _name(fields, number + 1)
    if "LabelValue" not in fields and "Layer" not in fields:
        return (number if count > 1 else 0), 1
    try:
        layer, value = int(fields.get("Layer", "0")), int(fields.get("LabelValue", "1"))
    except ValueError as error:
        raise DataError(f"{path}: layer or value of segment {name!r} is not a whole number", hint=_AGAIN) from error
    if layer < 0 or not 1 <= value <= LARGEST_LABEL:
        raise DataError(
            f"{path}: segment {name!r} has value {value} in layer {layer}; values go from 1 to {LARGEST_LABEL}",
            hint=_AGAIN,
        )
    return layer, value


def _segment(fields: Mapping[str, str], number: int, layer: int, value: int) -> LayeredSegment:
    structure = _structure(fields.get("Tags", ""))
    kind, modifier = (structure.type, structure.modifier) if structure else (None, None)
    segment = Segment(number, _name(fields, number), kind, modifier, _color(fields.get("Color", "")))
    return LayeredSegment(segment, structure, layer, value)


def _name(fields: Mapping[str, str], number: int) -> str:
    return " ".join(fields.get("Name", "").split()) or fields.get("ID", "") or f"Segment_{number}"


def _color(text: str) -> tuple[int, int, int] | None:
    """Read a colour; an invalid one is ignored, since it is only for display."""
    try:
        red, green, blue = (round(255 * float(part)) for part in text.split())
    except (ValueError, OverflowError):
        return None
    return (red, green, blue) if all(0 <= part <= 255 for part in (red, green, blue)) else None


def _structure(tags: str) -> Structure | None:
    """Parse the tag TerminologyEntry: list, category, type, modifier, list, region, its modifier."""
    entry = next((tag.removeprefix(_TERMS) for tag in tags.split("|") if tag.startswith(_TERMS)), "")
    parts = [*(_code(part) for part in entry.split("~")), *[None] * 7]
    category, kind, modifier, region, region_modifier = (parts[n] for n in (1, 2, 3, 5, 6))
    if category is None or kind is None:
        return None
    return Structure(category, kind, modifier, region, region_modifier if region else None)


def _code(text: str) -> Code | None:
    """Parse a code if it is valid; values of other forms (URN, long) are dropped."""
    scheme, _, rest = text.partition("^")
    value, _, meaning = rest.partition("^")
    try:
        return Code(value, scheme, meaning)
    except ConfigError:
        return None
