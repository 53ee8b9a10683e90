"""Frames of a DICOM Segmentation on the grid of an image, with consistency checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.multival import MultiValue
from pydicom.tag import Tag

from volseg.errors import DataError, GeometryError
from volseg.image.geometry import Geometry
from volseg.io.dicom.header import EXPORT_AGAIN, Header
from volseg.io.readable import COPY_AGAIN

#: How far, in voxels along each axis, a pixel may lie from the voxel it is assigned to. Positions and spacings are
#: rounded decimals, and slices may lie off the even grid by a hundredth of their distance.
LATTICE_TOLERANCE = 0.05
_POSITION = Tag("ImagePositionPatient")

#: Segment -> why it cannot be used; None stands for all of them, where the frames of a label map show them all.
Faults = dict[int | None, DataError]


@dataclass(frozen=True)
class PlacedFrame:
    """One frame and its position on the grid.

    Attributes:
        index: Index of the frame in the file, from 0.
        segment: Its segment; None in a label map, whose frames show all segments.
        origin: (3,) voxel of the first pixel; it may lie outside the grid.
        steps: (2, 3) to the voxel of the next pixel along i (next column) and along j (next row).
        rank: Its number in the order of positions, None if the file states none.
        source_uid: SOPInstanceUID of the image it was drawn on, empty if the file does not state it.
    """

    index: int
    segment: int | None
    origin: NDArray[np.int64]
    steps: NDArray[np.int64]
    rank: int | None
    source_uid: str


def is_label_map(header: Header) -> bool:
    """Return whether each frame shows all segments, by their numbers."""
    return header.words("SegmentationType") == ("LABELMAP",)


def place_frames(header: Header, geometry: Geometry, faults: Faults) -> list[PlacedFrame]:
    """Place all frames, in stored order, on the grid; one that does not fit adds a fault to its segment."""
    groups = header.items("PerFrameFunctionalGroupsSequence")
    shared = header.first_item("SharedFunctionalGroupsSequence")
    stated = header.count("NumberOfFrames")
    if not groups:
        raise _placeless(header.path)
    if stated != len(groups):
        raise DataError(f"{header.path} states {stated or 'no'} frames, but describes {len(groups)}", hint=COPY_AGAIN)
    columns, rows = header.count("Columns"), header.count("Rows")
    if not columns or not rows:
        raise DataError(f"{header.path} does not state how many Rows and Columns it has", hint=EXPORT_AGAIN)
    to_grid = np.linalg.inv(geometry.lps_affine)
    by_position, label_map = _position_dimension(header), is_label_map(header)
    frames = []
    for index, own in enumerate(groups):
        number = None if label_map else _segment_number(own, shared, index)
        try:
            affine = to_grid @ _affine(own, shared)
            place = _on_grid(affine, (columns, rows), f"frame {index + 1} of {header.path}")
            frames.append(PlacedFrame(index, number, *place, _rank(own, by_position), _source_uid(own)))
        except DataError as error:
            faults.setdefault(number, error)
    _find_doubles(frames, header.path, faults)
    _find_strays(frames, header.path, faults)
    return frames


def _find_doubles(frames: Sequence[PlacedFrame], path: Path, faults: Faults) -> None:
    """Add faults for two frames of one segment at one position: one of them states a wrong position."""
    places = Counter((frame.segment, tuple(frame.origin.tolist())) for frame in frames)
    for (segment, place), count in places.items():
        if count > 1:
            of = "" if segment is None else f" of segment {segment}"
            message = f"{path}: {count} frames{of} lie at the same position, from voxel {place} on"
            faults.setdefault(segment, GeometryError(message, hint=EXPORT_AGAIN))


def _position_dimension(header: Header) -> int | None:
    """Return which of the dimensions that number the frames is their position (PS3.3 section C.7.6.17)."""
    items = header.items("DimensionIndexSequence")
    pointers = [item.value("DimensionIndexPointer") for item in items]
    return pointers.index(_POSITION) if _POSITION in pointers else None


def _rank(own: Header, dimension: int | None) -> int | None:
    content = own.items("FrameContentSequence")
    values = content[0].value("DimensionIndexValues") if content else None
    ranks = list(values) if isinstance(values, MultiValue) else [values]
    return ranks[dimension] if dimension is not None and dimension < len(ranks) else None


def _source_uid(own: Header) -> str:
    """Return the image a frame was derived from (PS3.3 section C.7.6.16.2.6); empty if there is none or several."""
    derivations = own.items("DerivationImageSequence")
    images = derivations[0].items("SourceImageSequence") if len(derivations) == 1 else ()
    return images[0].text("ReferencedSOPInstanceUID") if len(images) == 1 else ""


def find_misplaced(frames: Sequence[PlacedFrame], slices: Mapping[str, int], path: Path, faults: Faults) -> None:
    """Add faults for frames in the plane of the images that do not lie on the image they refer to."""
    for frame in frames:
        in_plane = not frame.steps[:, 2].any()
        if in_plane and slices.get(frame.source_uid, frame.origin[2]) != frame.origin[2]:
            message = (
                f"frame {frame.index + 1} of {path} lies on slice {frame.origin[2]}, but refers to the image of slice "
                f"{slices[frame.source_uid]}"
            )
            faults.setdefault(frame.segment, GeometryError(message, hint=EXPORT_AGAIN))


def _find_strays(frames: Sequence[PlacedFrame], path: Path, faults: Faults) -> None:
    """Add a fault for a single frame whose position number contradicts its position, while all others agree."""
    ranked = sorted((frame for frame in frames if isinstance(frame.rank, int)), key=lambda frame: frame.rank or 0)
    if len(ranked) < 4:
        return
    origins = np.array([frame.origin for frame in ranked])
    steps = np.diff(origins, axis=0) @ (origins[-1] - origins[0])
    same = np.diff([frame.rank for frame in ranked]) == 0
    wrong = np.where(same, (np.diff(origins, axis=0) != 0).any(axis=1), steps < 0)
    if 0 < wrong.sum() <= 2 and len(wrong) > 2 * wrong.sum():
        first = int(np.flatnonzero(wrong)[0])
        message = f"{path}: the position of frame {ranked[first + 1].index + 1} contradicts its position number"
        for n in np.flatnonzero(wrong):
            for frame in ranked[n : n + 2]:  # either of the two may be the wrong one
                faults.setdefault(frame.segment, GeometryError(message, hint=EXPORT_AGAIN))


def _segment_number(own: Header, shared: Header, index: int) -> int:
    group = own.functional_group("SegmentIdentificationSequence", shared)
    number = None if group is None else group.count("ReferencedSegmentNumber")
    if number is None:
        raise DataError(f"{own.path} does not state which segment its frame {index + 1} shows", hint=EXPORT_AGAIN)
    return number


def _affine(own: Header, shared: Header) -> NDArray[np.float64]:
    """Return (4, 3), homogeneous columns: the LPS+ steps in mm along i and j, and the position of the first pixel."""
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
    """Return the voxel of the first pixel of a frame, and the steps to the next ones.

    Args:
        affine: From `_affine`, in voxels of the grid instead of mm.
        size: Columns and rows.
        what: Name of the frame in errors.

    Raises:
        GeometryError: If the pixels do not coincide with voxels of the grid, extended beyond its ends.
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


def _placeless(path: Path) -> GeometryError:
    return GeometryError(f"{path} does not state where its frames lie in the patient", hint=EXPORT_AGAIN)


def _shown(vector: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{x:.3g}" for x in vector) + ")"
