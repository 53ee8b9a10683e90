"""Positions of the images of a file in the patient, from its header (PS3.3 section C.7.6.2, C.7.6.16)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volseg.errors import DataError, GeometryError
from volseg.io.dicom.header import EXPORT_AGAIN, Header
from volseg.io.dicom.suv import AS_IT_IS, Activity, activity_of
from volseg.io.readable import COPY_AGAIN

#: Two images have the same spacing if the relative difference is no larger.
SPACING_TOLERANCE = 1e-4
#: Two images are parallel when no direction cosine differs by more: one unit in the last of three decimals, and what
#: scaling to unit length adds. It turns a slice of 500 pixels by half a pixel at its far edge.
COSINE_TOLERANCE = 1.1e-3
#: No image lies this far from the scanner's origin.
FARTHEST_MM = 1e6
#: Direction cosines are stored as rounded decimals; this far from orthonormal they are wrong, not rounded. Of three
#: decimals two axes miss a right angle by up to 0.0005 (|i| + |j|); the sum |i| of three cosines is at most 1.73.
_ORTHONORMAL_TOLERANCE = 1.75e-3
#: Two axes that miss a right angle by more are turned towards it, half way each: ITK opens no mask on axes that do.
_SKEW = 1e-4


@dataclass(frozen=True)
class Plane:
    """The grid of one image in the patient.

    Attributes:
        shape: Pixels along (i, j): columns, rows.
        origin_mm: LPS+ position of the centre of the first pixel.
        orientation: Unit vectors in LPS+ along i (increasing column) and j (increasing row), one after the other.
        spacing_mm: Distance between pixel centres along (i, j).
    """

    shape: tuple[int, int]
    origin_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing_mm: tuple[float, float]

    @property
    def normal(self) -> NDArray[np.float64]:
        """(3,) the unit vector i x j."""
        return np.cross(self.orientation[:3], self.orientation[3:])

    def depth_mm(self, other: Plane) -> float:
        """Return the position of another plane along the normal of this one."""
        (a, b, c, d, e, f), (x, y, z) = self.orientation, other.origin_mm
        return (b * f - c * e) * x + (c * d - a * f) * y + (a * e - b * d) * z

    def is_parallel_to(self, other: Plane) -> bool:
        """Return whether both can be slices of one volume: same matrix, spacing and orientation."""
        grid, other_grid = (
            (self.shape, self.spacing_mm, self.orientation),
            (other.shape, other.spacing_mm, other.orientation),
        )
        return grid == other_grid or (
            self.shape == other.shape
            and all(math.isclose(a, b, rel_tol=SPACING_TOLERANCE) for a, b in _pairs(self.spacing_mm, other.spacing_mm))
            and all(abs(a - b) <= COSINE_TOLERANCE for a, b in _pairs(self.orientation, other.orientation))
        )


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a file.

    Attributes:
        path: The file.
        index: Index of the image in the file, from 0.
        plane: Its position.
        slope: Factor of stored values.
        intercept: Added after that.
        measures: The header, or item of it, that states the distance to the next slice, if anything does.
        activity: Factor that turns a PET image into an uptake.
        corner: (column, row) of its first pixel within the stored image; not (0, 0) for a tile of a mosaic.
    """

    path: Path
    index: int
    plane: Plane
    slope: float
    intercept: float
    measures: Header
    activity: Activity = AS_IT_IS
    corner: tuple[int, int] = (0, 0)

    def stated_step_mm(self) -> float:
        """Return SpacingBetweenSlices, or SliceThickness: the only hint at the third dimension of a single slice.

        Raises:
            GeometryError: If neither is stated, or it is not a positive number.
        """
        for keyword in ("SpacingBetweenSlices", "SliceThickness"):
            if self.measures.value(keyword) is not None:
                return _positive(self.measures, keyword, 1)[0]
        raise GeometryError(
            f"{self.path} is a single slice and states neither SpacingBetweenSlices nor SliceThickness",
            hint="are the other slices of the series missing?",
        )


def plane_of(header: Header) -> Plane:
    """Return the position of the image of a classic single-frame file.

    Raises:
        GeometryError: If the header does not state it, or contradicts itself.
    """
    return _plane(_shape(header), header, header, header)


def frames_of(header: Header) -> list[Frame]:
    """Return all images of a classic or an enhanced multi-frame file, in stored order.

    Raises:
        GeometryError: If the header does not state where they lie.
        DataError: If it does not state what their values mean.
    """
    if "PerFrameFunctionalGroupsSequence" in header:
        return list(_enhanced_frames(header))
    if (header.count("NumberOfFrames") or 1) > 1:
        raise GeometryError(
            f"{header.path} holds several frames without functional groups, which would state where each lies",
            hint="convert it to NIfTI with a tool that knows this scanner",
        )
    slope, intercept = _rescale(header)
    return [Frame(header.path, 0, plane_of(header), slope, intercept, header, activity=activity_of(header))]


def _enhanced_frames(header: Header) -> Iterator[Frame]:
    groups = header.items("PerFrameFunctionalGroupsSequence")
    shared = header.first_item("SharedFunctionalGroupsSequence")
    stated = header.count("NumberOfFrames")
    if stated != len(groups):
        raise DataError(f"{header.path} states {stated} frames, but describes {len(groups)}", hint=COPY_AGAIN)
    shape = _shape(header)
    pet = header.words("Modality") == ("PT",)
    activity = Activity(fault=f"{header.path} is an enhanced PET image") if pet else AS_IT_IS
    for index, own in enumerate(groups):
        measures = _group("PixelMeasuresSequence", own, shared)
        plane = _plane(
            shape,
            _group("PlanePositionSequence", own, shared),
            _group("PlaneOrientationSequence", own, shared),
            measures,
        )
        transformation = own.functional_group("PixelValueTransformationSequence", shared)
        slope, intercept = _rescale(transformation) if transformation else (1.0, 0.0)
        yield Frame(header.path, index, plane, slope, intercept, measures, activity)


def _group(keyword: str, own: Header, shared: Header) -> Header:
    """Return the functional group of a frame: its own, or the one all frames share."""
    group = own.functional_group(keyword, shared)
    if group is None:
        raise GeometryError(
            f"{own.path} does not state the {keyword} of its frames, so where they lie is unknown", hint=EXPORT_AGAIN
        )
    return group


def _plane(shape: tuple[int, int], position: Header, orientation: Header, measures: Header) -> Plane:
    # PixelSpacing is the distance between rows, then between columns (PS3.3 section 10.7.1.3): j before i.
    spacing_j, spacing_i = _positive(measures, "PixelSpacing", 2)
    origin_mm = position.numbers("ImagePositionPatient", 3)
    if max(map(abs, origin_mm)) > FARTHEST_MM:
        raise GeometryError(f"ImagePositionPatient of {position.path} is implausible: {origin_mm}", hint=EXPORT_AGAIN)
    return Plane(
        shape,
        origin_mm,
        _orthonormal(orientation),
        (spacing_i, spacing_j),
    )


def _shape(header: Header) -> tuple[int, int]:
    columns, rows = header.count("Columns"), header.count("Rows")
    if not columns or not rows:
        raise GeometryError(f"{header.path} does not state how many Rows and Columns it has", hint=EXPORT_AGAIN)
    return columns, rows


def _orthonormal(orientation: Header) -> tuple[float, ...]:
    cosines = orientation.numbers("ImageOrientationPatient", 6)
    i, j = np.array(cosines[:3]), np.array(cosines[3:])
    length_i, length_j = np.linalg.norm(i), np.linalg.norm(j)
    if max(abs(length_i - 1), abs(length_j - 1), abs(i @ j)) > _ORTHONORMAL_TOLERANCE:
        raise GeometryError(
            f"ImageOrientationPatient of {orientation.path} is not a pair of orthogonal unit vectors: {cosines}",
            hint=EXPORT_AGAIN,
        )
    i, j = i / length_i, j / length_j
    if abs(skew := i @ j) > _SKEW:
        i, j = i - skew / 2 * j, j - skew / 2 * i
        i, j = i / np.linalg.norm(i), j / np.linalg.norm(j)
    return (*i.tolist(), *j.tolist())


def _positive(header: Header, keyword: str, size: int) -> tuple[float, ...]:
    numbers = header.numbers(keyword, size)
    if min(numbers) <= 0:
        raise GeometryError(f"{keyword} of {header.path} must be positive, it is {numbers}", hint=EXPORT_AGAIN)
    return numbers


def _rescale(header: Header) -> tuple[float, float]:
    """Return RescaleSlope and RescaleIntercept; without them, values are used as stored (PS3.3 C.11.1)."""
    if "ModalityLUTSequence" in header:
        raise DataError(
            f"the values of {header.path} use a ModalityLUTSequence, which is not supported",
            hint="convert it to NIfTI with a tool that applies it",
        )
    stated = [keyword for keyword in ("RescaleSlope", "RescaleIntercept") if keyword in header]
    if not stated:
        return 1.0, 0.0
    try:
        slope = header.numbers("RescaleSlope", 1)[0]
        intercept = header.numbers("RescaleIntercept", 1)[0]
    except GeometryError as error:
        raise DataError(f"what the voxels mean is unknown: {error}", hint=EXPORT_AGAIN) from error
    if slope == 0:
        raise DataError(f"RescaleSlope of {header.path} is 0, which makes all voxels equal", hint=EXPORT_AGAIN)
    return slope, intercept


def _pairs(a: tuple[float, ...], b: tuple[float, ...]) -> Iterator[tuple[float, float]]:
    return zip(a, b, strict=True)
