"""RT Structure Sets as masks: contours in the patient, filled on a grid (PS3.3 sections C.8.8.5 and C.8.8.6)."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import RTStructureSetStorage

from volseg.errors import ConfigError, DataError, GeometryError
from volseg.image.contours import Polygon, fill, signed_area
from volseg.image.geometry import Geometry
from volseg.image.terminology import Code
from volseg.io.dicom.dataset import read_dataset
from volseg.io.dicom.header import Header
from volseg.io.dicom.quiet import quiet_dicom
from volseg.io.segments import Segment

#: A contour belongs to a slice when all of it lies this close to it, in slices.
SLICE_TOLERANCE = 0.1
#: How far beyond the centres of the outermost voxels a contour may go: half a voxel to their edges, and half a voxel
#: for software that means the corner of a pixel where the standard means its centre.
_MARGIN = 1.0
#: Coordinates are decimals. Rounded to thousandths of a voxel, what was meant to go through centres does.
_DECIMALS = 3

_FILLED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_WITHOUT_AREA = ("POINT", "OPEN_PLANAR", "OPEN_NONPLANAR")

#: All that a list of decimal strings is made of (PS3.5 section 6.2), and the padding behind it.
_DECIMAL_STRING = b"0123456789+-.eE\\ \0"
_CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")

_log = logging.getLogger("volseg")


@dataclass(frozen=True, eq=False)
class _Contour:
    """A closed contour: what to call it in a message, its type, and its (N, 3) LPS+ corners in mm."""

    name: str
    type: str
    points_mm: NDArray[np.float64]


def read_rtstruct(path: Path, geometry: Geometry) -> Iterator[tuple[Segment, NDArray[np.bool_]]]:
    """Fill the contours of each ROI on a grid.

    A voxel belongs to an ROI when its centre is inside an odd number of the ROI's contours in its slice, so that both
    keyholes and inner contours make holes. Contours CLOSED_PLANAR and CLOSEDPLANAR_XOR are filled; of CLOSED_PLANAR
    ones that repeat each other point by point, one is. Points and open lines enclose nothing: they are left out with a
    warning, and so is an ROI of nothing else.

    Args:
        path: The structure set.
        geometry: The grid of the series it was drawn on; contours must lie in its slices.

    Yields:
        Each ROI, in the order of the file, with its (I, J, K) voxels; none for an ROI without contours.

    Raises:
        GeometryError: If a contour lies between slices, across several, or outside the grid.
        DataError: If the file is damaged or no RT Structure Set, a contour is no polygon, or CLOSED_PLANAR contours
            overlap in part, so that it is not clear which area is meant.
    """
    with quiet_dicom():
        header = _structure_set(path)
        segments = _segments(header)
        contours = _contours_by_number(header, segments)
    to_index = np.linalg.inv(geometry.lps_affine).astype(np.float64)
    for segment in segments:
        closed = contours[segment.number]
        if closed is not None:
            yield segment, _filled(closed, geometry, to_index)


def _structure_set(path: Path) -> Header:
    header = read_dataset(path)
    if header.words("SOPClassUID") != (RTStructureSetStorage,):
        raise DataError(f"{path} is no RT Structure Set")
    return header


def _segments(header: Header) -> tuple[Segment, ...]:
    rois = {_number(roi, "ROINumber"): roi for roi in header.items("StructureSetROISequence")}
    if len(rois) != len(header.items("StructureSetROISequence")):
        raise DataError(f"{header.path} has several ROIs of the same number")
    colors = {_number(item, "ReferencedROINumber"): _color(item) for item in header.items("ROIContourSequence")}
    codes = {_number(item, "ReferencedROINumber"): _codes(item) for item in header.items("RTROIObservationsSequence")}
    return tuple(
        Segment(number, _first_word(roi, "ROIName"), *codes.get(number, (None, None)), colors.get(number))
        for number, roi in rois.items()
    )


def _number(item: Header, keyword: str) -> int:
    number = item.count(keyword)
    if number is None:
        raise DataError(f"{item.path} has an ROI without {keyword}")
    return number


def _color(item: Header) -> tuple[int, int, int] | None:
    """A colour is only for display: one that cannot be understood is none."""
    words = item.words("ROIDisplayColor")
    if len(words) != 3 or not all(word.isdecimal() and int(word) <= 255 for word in words):
        return None
    red, green, blue = (int(word) for word in words)
    return red, green, blue


def _codes(observation: Header) -> tuple[Code | None, Code | None]:
    """What the ROI is, and on which side."""
    types = observation.items("RTROIIdentificationCodeSequence")
    modifiers = types[0].items("SegmentedPropertyTypeModifierCodeSequence") if types else ()
    return _code(types), _code(modifiers)


def _code(items: Sequence[Header]) -> Code | None:
    if not items:
        return None
    value, scheme, meaning = (_first_word(items[0], keyword) for keyword in _CODE)
    try:
        return Code(value, scheme, meaning)
    except ConfigError as error:
        raise DataError(f"{items[0].path} states a code that is none: {error}") from error


def _first_word(header: Header, keyword: str) -> str:
    return next(iter(header.words(keyword)), "")


def _contours_by_number(header: Header, segments: Sequence[Segment]) -> dict[int, list[_Contour] | None]:
    """The closed contours of each ROI; None for an ROI that consists of points and open lines."""
    contours: dict[int, list[_Contour] | None] = {segment.number: [] for segment in segments}
    names = {segment.number: segment.name for segment in segments}
    for item in header.items("ROIContourSequence"):
        number = _number(item, "ReferencedROINumber")
        if number not in contours:
            raise DataError(f"{header.path} has contours of an ROI {number}, which it does not list")
        stored = item.items("ContourSequence")
        place = f"ROI {names[number]!r} of {header.path}"
        closed = [contour for index, one in enumerate(stored, 1) if (contour := _contour(one, index, place))]
        if len(closed) < len(stored):
            _log.warning("%s: %d points or open lines left out", place, len(stored) - len(closed))
        if contours[number]:
            raise DataError(f"{place} has contours in two places")
        contours[number] = closed if closed or not stored else None
    return contours


def _contour(item: Header, index: int, place: str) -> _Contour | None:
    """A closed contour, None for one without an area."""
    name = f"contour {index} of {place}"
    kind = _first_word(item, "ContourGeometricType")
    if kind in _WITHOUT_AREA:
        return None
    if kind not in _FILLED:
        raise DataError(f"{name} is of the type {kind!r}, which has no known meaning")
    numbers = _numbers(item, name)
    if len(numbers) % 3 or len(numbers) < 9:
        raise DataError(f"{name} is no polygon: it has {len(numbers)} coordinates, not 3 for each of 3 or more points")
    stated = item.count("NumberOfContourPoints")
    if stated not in {None, len(numbers) // 3}:
        raise DataError(f"{name} states {stated} points, but has {len(numbers) // 3}")
    return _Contour(name, kind, numbers.reshape(-1, 3))


def _numbers(item: Header, name: str) -> NDArray[np.float64]:
    """ContourData from the text that is stored: there are millions, and pydicom would keep an object for each."""
    element = item.dataset.get_item("ContourData")
    text = b"" if element is None else element.value or b""
    if not isinstance(text, bytes) or text.translate(None, delete=_DECIMAL_STRING):  # float() reads more: "1_0", "nan"
        raise DataError(f"{name} is not made of decimal numbers")
    try:
        numbers = np.array(text.rstrip(b" \0").split(b"\\")).astype(np.float64) if text else np.empty(0)
    except ValueError as error:
        raise DataError(f"{name} is not made of decimal numbers") from error
    return numbers


def _filled(contours: Sequence[_Contour], geometry: Geometry, to_index: NDArray[np.float64]) -> NDArray[np.bool_]:
    slices: dict[int, list[tuple[_Contour, Polygon]]] = defaultdict(list)
    for contour in contours:
        k, polygon = _placed(contour, geometry, to_index)
        slices[k].append((contour, polygon))
    array = np.zeros(geometry.shape, dtype=np.bool_, order="F")
    for k, members in slices.items():
        is_xor = any(contour.type == "CLOSEDPLANAR_XOR" for contour, _ in members)
        polygons = [polygon for _, polygon in members] if is_xor else _laminar(members, geometry.shape[:2])
        array[:, :, k] = fill(polygons, geometry.shape[:2])
    return array


def _placed(contour: _Contour, geometry: Geometry, to_index: NDArray[np.float64]) -> tuple[int, Polygon]:
    """The slice a contour lies in, and its (N, 2) corners there, as voxel indices."""
    with np.errstate(over="ignore", invalid="ignore"):  # absurdly far away is outside, too
        index = contour.points_mm @ to_index[:3, :3].T + to_index[:3, 3]
    margin = np.array([_MARGIN, _MARGIN, SLICE_TOLERANCE])
    outside = ~((index >= -margin) & (index <= np.subtract(geometry.shape, 1) + margin)).all(axis=1)
    if outside.any():
        where = ", ".join(f"{axis:.1f}" for axis in index[np.argmax(outside)])
        raise GeometryError(
            f"{contour.name} goes to voxel ({where}), outside the grid of {geometry}",
            hint="read it with the series that it was drawn on",
        )
    k = int(np.rint(index[:, 2].mean()))
    distance = float(np.abs(index[:, 2] - k).max())
    if distance > SLICE_TOLERANCE:
        raise GeometryError(
            f"{contour.name} lies in no slice: it is up to {distance:.2f} slices away from the nearest, number {k}",
            hint="read it with the series that it was drawn on",
        )
    return k, index[:, :2].round(_DECIMALS)


def _laminar(members: Sequence[tuple[_Contour, Polygon]], shape: tuple[int, int]) -> list[Polygon]:
    """The contours of a slice, each within another or beside it, none twice.

    Raises:
        DataError: If two overlap in part: what is meant by that, the standard does not say.
    """
    distinct = {polygon.tobytes(): (contour, polygon) for contour, polygon in reversed(members)}
    if len(distinct) < len(members):
        _log.warning("%s: %d copies of contours left out", members[0][0].name, len(members) - len(distinct))
    owner = np.zeros(shape, dtype=np.int64)
    by_area = sorted(distinct.values(), key=lambda member: -abs(signed_area(member[1])))
    for number, (contour, polygon) in enumerate(by_area, start=1):
        low = np.maximum(np.floor(polygon.min(axis=0)), 0).astype(int)
        box = owner[low[0] : int(polygon[:, 0].max()) + 1, low[1] : int(polygon[:, 1].max()) + 1]
        inside = fill([polygon - low], (box.shape[0], box.shape[1]))
        if len(np.unique(box[inside])) > 1:
            raise DataError(
                f"{contour.name} overlaps another contour of its slice in part, so which area is meant is not clear",
                hint="unite them in the program that drew them",
            )
        box[inside] = number
    return [polygon for _, polygon in by_area]
