"""RT Structure Sets as masks: contours in the patient, filled on a grid (PS3.3 sections C.8.8.5 and C.8.8.6)."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
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
from volseg.io.segments import Marked, Segment

#: A contour belongs to a slice when all of it lies this close to it, in slices.
SLICE_TOLERANCE = 0.1
#: How far beyond the centres of the outermost voxels a contour may go: half a voxel to their edges, and half a voxel
#: for software that means the corner of a pixel where the standard means its centre.
_MARGIN = 1.0
#: Coordinates are decimals. Rounded to thousandths of a voxel, contours meant to pass through centres do so.
_DECIMALS = 3

#: Fewer points enclose nothing.
_FEWEST_POINTS = 3
#: No patient is this many voxels wide: a point farther away is a corrupt number.
_FARTHEST = 1e5
_DRAW_AGAIN = "correct it in the program that drew it"

_FILLED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_WITHOUT_AREA = ("POINT", "OPEN_PLANAR", "OPEN_NONPLANAR")

#: Characters of a list of decimal strings (PS3.5 section 6.2), and the padding after it.
_DECIMAL_STRING = b"0123456789+-.eE\\ \0"
_CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")

_log = logging.getLogger("volseg")


@dataclass(frozen=True, eq=False)
class _Roi:
    """A region of interest as listed in the file, before its contours are examined.

    Attributes:
        segment: Its description in the file.
        items: The items of ROIContourSequence that refer to it.
        place: Its name in a message.
        fault: Why its drawing is unknown; empty if it is known.
    """

    segment: Segment
    items: tuple[Header, ...]
    place: str
    fault: str


@dataclass(frozen=True, eq=False)
class _Contour:
    """A contour: its name in a message, its type, and its (N, 3) LPS+ points in mm."""

    name: str
    type: str
    points_mm: NDArray[np.float64]

    @property
    def no_polygon(self) -> str:
        """Message that it has too few points to enclose anything."""
        count = self.points_mm.size
        return f"{self.name} is not a polygon: it has {count} coordinates, not 3 for each of 3 or more points"


def read_rtstruct(path: Path, geometry: Geometry, space_uid: str = "") -> Iterator[Marked]:
    """Fill the contours of each ROI on a grid, each by itself.

    A voxel belongs to an ROI if its centre is inside an odd number of the ROI's contours in its slice, so that both
    keyholes and inner contours make holes. Contours of type CLOSED_PLANAR and CLOSEDPLANAR_XOR are filled; of
    CLOSED_PLANAR contours that repeat each other point by point, only one is. Points, open lines and contours of fewer
    than three points enclose nothing and are ignored beside filled ones, and everything beyond the grid is cut off,
    both with a warning.

    Args:
        path: The structure set.
        geometry: The grid of the series it was drawn on; contours must lie in its slices.
        space_uid: FrameOfReferenceUID of that series, if known: ROIs of other frames of reference lie on other images.

    Yields:
        Each ROI, in the order of the file. Its voxels are empty if it has no contours, or points only. They raise
        GeometryError if a contour lies between slices or across several, or all lie outside the grid; and DataError if
        none of its contours encloses anything, one is damaged, or CLOSED_PLANAR contours overlap in part, so that it is
        ambiguous which area is meant.

    Raises:
        DataError: If the file is damaged or not an RT Structure Set.
    """
    with quiet_dicom():
        rois = _rois(_structure_set(path), space_uid)
    to_index = np.linalg.inv(geometry.lps_affine).astype(np.float64)
    for roi in rois:
        yield Marked(roi.segment, partial(_voxels, roi, geometry, to_index))


def rtstruct_segments(path: Path) -> tuple[Segment, ...]:
    """Read the descriptions of the ROIs of a structure set.

    Raises:
        DataError: If the file is damaged or not an RT Structure Set.
    """
    with quiet_dicom():
        return tuple(roi.segment for roi in _rois(_structure_set(path), ""))


def _structure_set(path: Path) -> Header:
    header = read_dataset(path)
    if header.words("SOPClassUID") != (RTStructureSetStorage,):
        raise DataError(f"{path} is not an RT Structure Set", hint="give a structure set or a segmentation")
    return header


def _rois(header: Header, space_uid: str) -> list[_Roi]:
    listed = [(_number(item, "ROINumber"), item) for item in header.items("StructureSetROISequence")]
    drawn, observed = (
        _by_number(header.items(keyword)) for keyword in ("ROIContourSequence", "RTROIObservationsSequence")
    )
    if listed and not drawn:
        raise DataError(f"{header.path} lists {len(listed)} structures and draws none", hint="export it again")
    counts = Counter(number for number, _ in listed)
    lost = sorted(str(number or "without a number") for number in set(drawn) - set(counts))
    spaces = {uid for _, item in listed for uid in item.words("ReferencedFrameOfReferenceUID")}
    rois = []
    for number, item in listed:
        name = _first_word(item, "ROIName")
        place = f"ROI {name!r} of {header.path}" if name else f"ROI {number} without a name of {header.path}"
        own = drawn.get(number, [])
        if number is None:
            fault = f"{place} is an ROI without ROINumber, so its contours are unknown"
        elif counts[number] > 1:
            fault = f"{place} is one of several ROIs of the same number"
        elif len(own) > 1:
            fault = f"{place} has several lists of contours"
        elif len(spaces) > 1 and item.words("ReferencedFrameOfReferenceUID") != (space_uid,):
            fault = f"{place} lies in another frame of reference than the images, if they state theirs"
        elif lost and not own:
            fault = f"{place} has no contours, but there are contours of an ROI {lost[0]}, which it does not list"
        else:
            fault = ""
        codes = _codes(observed.get(number, []))
        algorithms = item.items("ROIDerivationAlgorithmIdentificationSequence")
        made = item.text("ROIGenerationAlgorithm"), algorithms[0].text("AlgorithmName") if algorithms else ""
        rois.append(_Roi(Segment(number or 0, name, *codes, _color(own), *made), tuple(own), place, fault))
    return rois


def _by_number(items: Sequence[Header]) -> dict[int | None, list[Header]]:
    """Group items by the number of their ROI, None for those that do not state it."""
    found: dict[int | None, list[Header]] = defaultdict(list)
    for item in items:
        found[_number(item, "ReferencedROINumber")].append(item)
    return found


def _number(item: Header, keyword: str) -> int | None:
    try:
        return item.count(keyword)
    except DataError:  # it cannot be matched, which is reported where it matters
        return None


def _color(items: Sequence[Header]) -> tuple[int, int, int] | None:
    """Read a colour; an invalid one is ignored, since it is only for display."""
    words = items[0].words("ROIDisplayColor") if items else ()
    if len(words) != 3 or not all(word.isdecimal() and int(word) <= 255 for word in words):
        return None
    red, green, blue = (int(word) for word in words)
    return red, green, blue


def _codes(observations: Sequence[Header]) -> tuple[Code | None, Code | None]:
    """Return the codes of the ROI's structure and side."""
    types = observations[0].items("RTROIIdentificationCodeSequence") if observations else ()
    modifiers = types[0].items("SegmentedPropertyTypeModifierCodeSequence") if types else ()
    return _code(types), _code(modifiers)


def _code(items: Sequence[Header]) -> Code | None:
    """Read a code if it is valid; otherwise the name of the structure is used."""
    try:
        return Code(*(_first_word(items[0], keyword) for keyword in _CODE)) if items else None
    except ConfigError:
        return None


def _first_word(header: Header, keyword: str) -> str:
    return next(iter(header.words(keyword)), "")


def _voxels(roi: _Roi, geometry: Geometry, to_index: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the (I, J, K) voxels of an ROI."""
    with quiet_dicom():
        if roi.fault:
            raise DataError(roi.fault, hint=_DRAW_AGAIN)
        stored = [item for each in roi.items for item in each.items("ContourSequence")]
        contours = [_contour(item, index, roi.place) for index, item in enumerate(stored, 1)]
    closed = _closed(contours, roi.place)
    array = np.zeros(geometry.shape, dtype=np.bool_, order="F")
    for k, members in _by_slice(closed, geometry, to_index, roi.place).items():
        is_xor = any(contour.type == "CLOSEDPLANAR_XOR" for contour, _ in members)
        polygons = [polygon for _, polygon in members] if is_xor else _laminar(members, geometry.shape[:2])
        array[:, :, k] = fill(polygons, geometry.shape[:2])
    if closed and not array.any():
        _log.warning("%s encloses no voxel centre: it marks nothing", roi.place)
    return array


def _contour(item: Header, index: int, place: str) -> _Contour:
    name = f"contour {index} of {place}"
    kind = _first_word(item, "ContourGeometricType")
    if kind not in (*_FILLED, *_WITHOUT_AREA):
        raise DataError(f"{name} is of the type {kind!r}, which has no known meaning", hint=_DRAW_AGAIN)
    numbers = _numbers(item, name)
    contour = _Contour(name, kind, numbers[: len(numbers) // 3 * 3].reshape(-1, 3))
    if len(numbers) % 3:
        raise DataError(
            f"{name} is not a polygon: it has {len(numbers)} coordinates, not 3 for each of 3 or more points",
            hint=_DRAW_AGAIN,
        )
    stated = item.count("NumberOfContourPoints")
    if stated not in {None, len(numbers) // 3}:
        raise DataError(f"{name} states {stated} points, but has {len(numbers) // 3}", hint=_DRAW_AGAIN)
    return contour


def _closed(contours: Sequence[_Contour], place: str) -> list[_Contour]:
    """Return the contours that enclose something, and warn about the others.

    Raises:
        DataError: If something is drawn that encloses no area. Points alone are markers, not a failed drawing.
    """
    if not contours:
        _log.warning("%s has no contours: it counts as not drawn", place)
    closed = [contour for contour in contours if contour.type in _FILLED and len(contour.points_mm) >= _FEWEST_POINTS]
    small = [contour for contour in contours if contour.type in _FILLED and len(contour.points_mm) < _FEWEST_POINTS]
    lines = [contour for contour in contours if contour.type not in _FILLED]
    if not closed and small:
        raise DataError(small[0].no_polygon, hint=_DRAW_AGAIN)
    if not closed and any(contour.type != "POINT" for contour in lines):
        raise DataError(f"{place} consists of open lines, which enclose nothing", hint=_DRAW_AGAIN)
    if lines:
        _log.warning("%s: %d points or open lines left out", place, len(lines))
    if small:
        _log.warning("%s: %d contours of fewer than three points left out", place, len(small))
    return closed


def _numbers(item: Header, name: str) -> NDArray[np.float64]:
    """Parse ContourData from the stored text: there are millions, and pydicom would make an object of each number."""
    element = item.dataset.get_item("ContourData")
    text = b"" if element is None else element.value or b""
    if not isinstance(text, bytes) or text.translate(
        None, delete=_DECIMAL_STRING
    ):  # float() accepts more: "1_0", "nan"
        raise DataError(f"{name} does not consist of decimal numbers", hint=_DRAW_AGAIN)
    try:
        numbers = np.array(text.rstrip(b" \0").split(b"\\")).astype(np.float64) if text else np.empty(0)
    except ValueError as error:
        raise DataError(f"{name} does not consist of decimal numbers", hint=_DRAW_AGAIN) from error
    return numbers


def _by_slice(
    contours: Sequence[_Contour], geometry: Geometry, to_index: NDArray[np.float64], place: str
) -> dict[int, list[tuple[_Contour, Polygon]]]:
    """Return slice -> contours and their (N, 2) corners as voxel indices, clipped to the grid with a warning.

    Raises:
        GeometryError: If a contour lies in no slice, or all lie outside.
    """
    slices: dict[int, list[tuple[_Contour, Polygon]]] = defaultdict(list)
    margin = np.array([_MARGIN, _MARGIN, SLICE_TOLERANCE])
    low, high = -margin, np.subtract(geometry.shape, 1) + margin
    outside: list[GeometryError] = []
    beyond = 0
    for contour in contours:
        index = _index(contour, geometry, to_index)
        if (index.max(axis=0) < low).any() or (index.min(axis=0) > high).any():
            outside.append(_outside(contour, index[0], geometry))
            continue
        beyond += bool((index < low).any() or (index > high).any())
        slices[_slice_of(contour, index)].append((contour, index[:, :2].round(_DECIMALS)))
    if contours and not slices:
        raise outside[0]
    if outside or beyond:
        _log.warning(
            "%s reaches beyond the image: of %d contours, %d lie outside and %d are cut off",
            place, len(contours), len(outside), beyond,
        )  # fmt: skip
    return slices


def _index(contour: _Contour, geometry: Geometry, to_index: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (N, 3) points of a contour as voxel indices.

    Raises:
        GeometryError: If one is implausibly far away: the contour is damaged, not large.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        index = contour.points_mm @ to_index[:3, :3].T + to_index[:3, 3]
    absurd = ~(np.abs(index) < _FARTHEST).all(axis=1)
    if absurd.any():
        raise _outside(contour, index[int(np.argmax(absurd))], geometry)
    return index


def _outside(contour: _Contour, point: NDArray[np.float64], geometry: Geometry) -> GeometryError:
    where = ", ".join(f"{axis:.1f}" for axis in point)
    return GeometryError(
        f"{contour.name} reaches voxel ({where}), outside the grid of {geometry}",
        hint="read it with the series it was drawn on",
    )


def _slice_of(contour: _Contour, index: NDArray[np.float64]) -> int:
    """Return the slice in which all points of a contour lie."""
    k = int(np.rint(index[:, 2].mean()))
    distance = float(np.abs(index[:, 2] - k).max())
    if distance > SLICE_TOLERANCE:
        raise GeometryError(
            f"{contour.name} lies in no slice: it is up to {distance:.2f} slices away from the nearest, number {k}",
            hint="read it with the series it was drawn on",
        )
    return k


def _laminar(members: Sequence[tuple[_Contour, Polygon]], shape: tuple[int, int]) -> list[Polygon]:
    """Return the contours of a slice without repetitions, each nested in another or disjoint from it.

    Raises:
        DataError: If two overlap in part, whose meaning the standard does not define.
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
                f"{contour.name} overlaps another contour of its slice in part, so the area is ambiguous",
                hint="unite them in the program that drew them",
            )
        box[inside] = number
    return [polygon for _, polygon in by_area]
