"""Reading DICOM Segmentations: what their segments mark, and where that lies on the grid of an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels import iter_pixels
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from volseg.errors import ConfigError, DataError, GeometryError
from volseg.image.geometry import Geometry
from volseg.image.terminology import Code
from volseg.io.dicom.dataset import read_dataset
from volseg.io.dicom.header import BROKEN, Header, one_line
from volseg.io.dicom.quiet import quiet_dicom
from volseg.io.segments import Segment

#: How far, in voxels along each axis, a pixel may lie from the voxel it is taken for. Positions and spacings are
#: rounded decimals, and slices may lie off the even grid by a hundredth of their distance.
LATTICE_TOLERANCE = 0.05
#: The segment of a label map that says what background is (PS3.3 section C.8.20.2.3); it marks nothing.
_BACKGROUND = 0
_POSITION = Tag("ImagePositionPatient")
#: Transfer syntaxes whose pixels are stored as they are.
_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)


@dataclass(frozen=True)
class _PlacedFrame:
    """One frame and its place on the grid.

    Attributes:
        index: Which frame of the file, from 0.
        segment: Its segment; None in a label map, whose frames show all segments.
        origin: (3,) voxel of the first pixel; it may lie outside the grid.
        steps: (2, 3) to the voxel of the next pixel along i (next column) and along j (next row).
        rank: Its number in the order of positions, None where the file states none.
        source_uid: SOPInstanceUID of the image it was drawn on, empty where the file does not say.
    """

    index: int
    segment: int | None
    origin: NDArray[np.int64]
    steps: NDArray[np.int64]
    rank: int | None
    source_uid: str


def read_seg(
    path: Path, geometry: Geometry, slices: Mapping[str, int] | None = None
) -> Iterator[tuple[Segment, NDArray[np.bool_]]]:
    """Place the segments of a file on the grid of an image, one after the other.

    Nothing is resampled: each pixel must be a voxel of the grid, whatever the order, direction and number of the
    frames. Of fractional segments the voxels count that are at least half of the maximum.

    Args:
        path: A Segmentation: BINARY, FRACTIONAL or LABELMAP.
        geometry: The grid; the caller has compared the frames of reference.
        slices: Where they are known, SOPInstanceUID of the images -> slice of the grid: a frame must lie on the image
            it refers to.

    Yields:
        Each segment and its (I, J, K) voxels; those of two segments may overlap, those of one without frames are none.

    Raises:
        GeometryError: If the file does not say where its frames lie, they lie between the voxels of the grid by more
            than `LATTICE_TOLERANCE`, or they mark something outside it.
        DataError: If the file is damaged or no Segmentation.
    """
    with quiet_dicom():
        header = _segmentation(read_dataset(path))
        segments = _segments(header)
        frames = _frames(header, geometry)
        _refuse_misplaced(frames, slices or {}, path)
    described = {segment.number for segment in segments}
    for frame in frames:
        if frame.segment is not None and frame.segment not in described:
            raise DataError(f"{path} does not describe segment {frame.segment}, which frame {frame.index + 1} shows")
    if _is_label_map(header):
        numbers = _numbers(header, frames, geometry)
        yield from ((segment, numbers == segment.number) for segment in segments)
        return
    least = _least_value(header)
    for segment in segments:
        own = [frame for frame in frames if frame.segment == segment.number]
        yield segment, _numbers(header, own, geometry, least) > 0


def _segmentation(header: Header) -> Header:
    if not header.items("SegmentSequence") or "SegmentationType" not in header:
        raise DataError(f"{header.path} is no DICOM Segmentation")
    return header


def _is_label_map(header: Header) -> bool:
    return header.words("SegmentationType") == ("LABELMAP",)


def _segments(header: Header) -> tuple[Segment, ...]:
    segments = [_segment(item) for item in header.items("SegmentSequence")]
    if len({segment.number for segment in segments}) < len(segments):
        raise DataError(f"{header.path} describes several segments under one number")
    return tuple(segment for segment in segments if segment.number != _BACKGROUND)


def _segment(item: Header) -> Segment:
    number = item.count("SegmentNumber")
    if number is None:
        raise DataError(f"{item.path} has a segment without SegmentNumber")
    kind = item.items("SegmentedPropertyTypeCodeSequence")
    modifiers = kind[0].items("SegmentedPropertyTypeModifierCodeSequence") if kind else None
    return Segment(
        number,
        " ".join(item.words("SegmentLabel")),
        _code(kind[0]) if kind else None,
        _code(modifiers[0]) if modifiers else None,
        _color(item),
    )


def _code(item: Header) -> Code | None:
    """A code as far as it is one: values of other forms (URN, long) are not kept."""
    keywords = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    try:
        return Code(*(item.text(keyword) for keyword in keywords))
    except ConfigError:
        return None


def _color(item: Header) -> tuple[int, int, int] | None:
    value = item.value("RecommendedDisplayCIELabValue")
    if not isinstance(value, MultiValue | list) or len(value) != 3:
        return None
    from highdicom.color import CIELabColor

    red, green, blue = CIELabColor.from_dicom_value(value).to_rgb(clip=True)
    return red, green, blue


def _frames(header: Header, geometry: Geometry) -> list[_PlacedFrame]:
    """All frames in stored order, each on the grid."""
    groups = header.items("PerFrameFunctionalGroupsSequence")
    shared = header.first_item("SharedFunctionalGroupsSequence")
    stated = header.count("NumberOfFrames")
    if not groups:
        raise _placeless(header.path)
    if stated != len(groups):
        raise DataError(f"{header.path} states {stated or 'no'} frames, but describes {len(groups)}")
    columns, rows = header.count("Columns"), header.count("Rows")
    if not columns or not rows:
        raise DataError(f"{header.path} does not state how many Rows and Columns it has")
    to_grid = np.linalg.inv(geometry.lps_affine)
    by_position, label_map = _position_dimension(header), _is_label_map(header)
    frames = []
    for index, own in enumerate(groups):
        number = None if label_map else _segment_number(own, shared, index)
        affine = to_grid @ _affine(own, shared)
        place = _on_grid(affine, (columns, rows), f"frame {index + 1} of {header.path}")
        frames.append(_PlacedFrame(index, number, *place, _rank(own, by_position), _source_uid(own)))
    _refuse_doubles(frames, header.path)
    _refuse_strays(frames, header.path)
    return frames


def _refuse_doubles(frames: Sequence[_PlacedFrame], path: Path) -> None:
    """Two frames of one segment in one place: one of them states a wrong place."""
    places = Counter((frame.segment, tuple(frame.origin.tolist())) for frame in frames)
    for (segment, place), count in places.items():
        if count > 1:
            of = "" if segment is None else f" of segment {segment}"
            raise GeometryError(f"{path}: {count} frames{of} lie in the same place, from voxel {place} on")


def _position_dimension(header: Header) -> int | None:
    """Which of the dimensions that number the frames is their position (PS3.3 section C.7.6.17)."""
    items = header.items("DimensionIndexSequence")
    pointers = [item.value("DimensionIndexPointer") for item in items]
    return pointers.index(_POSITION) if _POSITION in pointers else None


def _rank(own: Header, dimension: int | None) -> int | None:
    content = own.items("FrameContentSequence")
    values = content[0].value("DimensionIndexValues") if content else None
    ranks = list(values) if isinstance(values, MultiValue) else [values]
    return ranks[dimension] if dimension is not None and dimension < len(ranks) else None


def _source_uid(own: Header) -> str:
    """The image a frame was derived from (PS3.3 section C.7.6.16.2.6); empty where it is none or several."""
    derivations = own.items("DerivationImageSequence")
    images = derivations[0].items("SourceImageSequence") if len(derivations) == 1 else ()
    return images[0].text("ReferencedSOPInstanceUID") if len(images) == 1 else ""


def _refuse_misplaced(frames: Sequence[_PlacedFrame], slices: Mapping[str, int], path: Path) -> None:
    """Frames in the plane of the images must lie on the image they refer to."""
    for frame in frames:
        in_plane = not frame.steps[:, 2].any()
        if in_plane and slices.get(frame.source_uid, frame.origin[2]) != frame.origin[2]:
            raise GeometryError(
                f"frame {frame.index + 1} of {path} lies on slice {frame.origin[2]}, but refers to the image of slice "
                f"{slices[frame.source_uid]}"
            )


def _refuse_strays(frames: Sequence[_PlacedFrame], path: Path) -> None:
    """One frame whose number among the positions contradicts where it says to lie, while those of all others agree."""
    ranked = sorted((frame for frame in frames if isinstance(frame.rank, int)), key=lambda frame: frame.rank or 0)
    if len(ranked) < 4:
        return
    origins = np.array([frame.origin for frame in ranked])
    steps = np.diff(origins, axis=0) @ (origins[-1] - origins[0])
    same = np.diff([frame.rank for frame in ranked]) == 0
    wrong = np.where(same, (np.diff(origins, axis=0) != 0).any(axis=1), steps < 0)
    if 0 < wrong.sum() <= 2 and len(wrong) > 2 * wrong.sum():
        frame = ranked[int(np.flatnonzero(wrong)[0]) + 1]
        raise GeometryError(f"{path}: the place of frame {frame.index + 1} contradicts its number among the positions")


def _segment_number(own: Header, shared: Header, index: int) -> int:
    group = own.functional_group("SegmentIdentificationSequence", shared)
    number = None if group is None else group.count("ReferencedSegmentNumber")
    if number is None:
        raise DataError(f"{own.path} does not say which segment its frame {index + 1} shows")
    return number


def _affine(own: Header, shared: Header) -> NDArray[np.float64]:
    """(4, 3), homogeneous: the LPS+ steps in mm along i and j, and the position of the first pixel, as columns."""
    position = own.functional_group("PlanePositionSequence", shared)
    orientation = own.functional_group("PlaneOrientationSequence", shared)
    measures = own.functional_group("PixelMeasuresSequence", shared)
    if position is None or orientation is None or measures is None:
        raise _placeless(own.path)
    cosines = orientation.numbers("ImageOrientationPatient", 6)
    between_rows, between_columns = measures.numbers("PixelSpacing", 2)
    origin = position.numbers("ImagePositionPatient", 3)
    i, j = np.array(cosines[:3]) * between_columns, np.array(cosines[3:]) * between_rows
    return np.vstack([np.column_stack([i, j, origin]), [0, 0, 1]])


def _on_grid(
    affine: NDArray[np.float64], size: tuple[int, int], what: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The voxel of the first pixel of a frame, and the steps to the next ones.

    Args:
        affine: From `_affine`, in voxels of the grid instead of mm.
        size: Columns and rows.
        what: Names the frame in errors.

    Raises:
        GeometryError: If the pixels are not voxels of the grid, or of what would be the grid if it went on.
    """
    steps, origin = affine[:3, :2].T, affine[:3, 2]
    whole_origin, whole_steps = np.rint(origin), np.rint(steps)
    corners = np.array([[i, j] for i in (0, size[0] - 1) for j in (0, size[1] - 1)])
    off = np.abs(origin + corners @ steps - whole_origin - corners @ whole_steps).max()
    unit = np.abs(whole_steps).sum(axis=1).tolist() == [1, 1] and not (whole_steps[0] * whole_steps[1]).any()
    if not unit:
        raise GeometryError(
            f"{what} has other pixel axes than the image: its columns step by {_shown(steps[0])} voxels, its rows by "
            f"{_shown(steps[1])}",
            hint="resample the segmentation to the grid of the image",
        )
    if off > LATTICE_TOLERANCE:
        raise GeometryError(
            f"{what} lies {off:.3g} voxels off the grid of the image, more than {LATTICE_TOLERANCE:g}",
            hint="resample the segmentation to the grid of the image, or use the image it was made for",
        )
    return whole_origin.astype(np.int64), whole_steps.astype(np.int64)


def _numbers(header: Header, frames: Sequence[_PlacedFrame], geometry: Geometry, least: int = 1) -> NDArray[np.uint16]:
    """(I, J, K): the values of the pixels that are at least `least`, 0 elsewhere; i is the fastest in memory."""
    numbers = np.zeros(geometry.shape[::-1], dtype=np.uint16).transpose(2, 1, 0)
    with quiet_dicom():
        for frame, pixels in zip(frames, _pixels(header, frames), strict=True):
            rows, columns = np.nonzero(pixels >= least)
            voxels = frame.origin + columns[:, np.newaxis] * frame.steps[0] + rows[:, np.newaxis] * frame.steps[1]
            outside = ((voxels < 0) | (voxels >= geometry.shape)).any(axis=1)
            if outside.any():
                raise GeometryError(
                    f"frame {frame.index + 1} of {header.path} marks {int(outside.sum())} voxels outside the image",
                    hint="is it the segmentation of this image?",
                )
            numbers[tuple(voxels.T)] = pixels[rows, columns]
    return numbers


def _pixels(header: Header, frames: Sequence[_PlacedFrame]) -> Iterator[NDArray[np.unsignedinteger]]:
    """The (rows, columns) stored values of frames.

    Raises:
        DataError: If they cannot be decoded.
    """
    if not frames:
        return
    dataset = header.dataset
    try:
        if dataset.file_meta.TransferSyntaxUID in _NATIVE:
            _check_length(header)
        if dataset.BitsAllocated == 1 and dataset.file_meta.TransferSyntaxUID in _NATIVE:
            yield from (_bits(dataset, frame.index) for frame in frames)
            return
        yield from iter_pixels(dataset, indices=[frame.index for frame in frames], raw=True)
    except BROKEN as error:
        raise DataError(f"the pixels of {header.path} cannot be decoded: {one_line(error)}") from error


def _check_length(header: Header) -> None:
    """Refuse pixels that are more or fewer than the stated frames take: it was another matrix."""
    dataset = header.dataset
    bits = int(dataset.NumberOfFrames) * dataset.Rows * dataset.Columns * dataset.BitsAllocated
    if not 0 <= len(dataset.PixelData) - (bits + 7) // 8 <= 1:  # one byte makes an odd length even
        raise DataError(
            f"{header.path} holds {len(dataset.PixelData)} bytes of pixels where its Rows and Columns make "
            f"{(bits + 7) // 8}",
            hint="its header is damaged",
        )


def _bits(dataset: Dataset, index: int) -> NDArray[np.uint8]:
    """The (rows, columns) bits of a frame that follows the one before without a gap, even within a byte.

    pydicom reads them so when all frames are wanted at once, but not one by one.

    Raises:
        ValueError: If there are fewer bits.
    """
    shape = (dataset.Rows, dataset.Columns)
    first = index * shape[0] * shape[1]
    last = first + shape[0] * shape[1]
    content = np.frombuffer(dataset.PixelData, dtype=np.uint8)[first // 8 : (last + 7) // 8]
    bits = np.unpackbits(content, bitorder="little")[first % 8 :]
    return bits[: last - first].reshape(shape)


def _least_value(header: Header) -> int:
    """The smallest stored value that counts as inside."""
    if header.words("SegmentationType") != ("FRACTIONAL",):
        return 1
    most = header.count("MaximumFractionalValue")
    if not most:
        raise DataError(f"{header.path} is fractional and does not state MaximumFractionalValue")
    return (most + 1) // 2


def _placeless(path: Path) -> GeometryError:
    return GeometryError(f"{path} does not say where its frames lie: it has no place in the patient")


def _shown(vector: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{x:.3g}" for x in vector) + ")"
