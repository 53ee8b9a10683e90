"""Stack planes into a grid: sort slices and check that they are evenly spaced (PS3.3 section C.7.6.2.1.1)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from volseg.errors import GeometryError
from volseg.image.geometry import Geometry
from volseg.io.dicom.frames import Frame, Plane

#: Images closer than this show the same slice: positions are decimals, often rounded to 0.01 mm.
SAME_POSITION_MM = 0.01
#: Every slice must lie within this share of the step, but at least this distance, of its place on the even grid: it
#: bounds how far a voxel is from where the file put it.
EVEN_TOLERANCE = 0.01
EVEN_TOLERANCE_MM = SAME_POSITION_MM
#: Scanners round positions to hundredths of a millimetre, some to tenths; none rounds to whole millimetres.
_DECIMALS = (1, 2, 3)
#: Rounding that moves slices by more than this share of the step makes their positions ambiguous.
_ROUNDED_SHARE = 0.1
#: Rounding error of float32 for a position of one metre, in mm.
_STORED_MM = 5e-5
#: Number of search steps for the line along which rounded positions lie.
_LINE_STEPS = 60
#: Filling gaps may not make more slices than this: two images very close together would fill the memory.
_MOST_SLICES = 2000

_Placed = TypeVar("_Placed")


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices on an even grid.

    Attributes:
        geometry: The grid.
        slices: For each image, the index k of the closest slice of the grid; each index at most once.
        depths: For each image, its position along k, in slices; integers unless uneven gaps were filled.
    """

    geometry: Geometry
    slices: tuple[int, ...]
    depths: tuple[float, ...]

    @property
    def is_whole(self) -> bool:
        """Return whether every slice of the grid is an image."""
        return len(self.slices) == self.geometry.shape[2]


def in_order(frames: Sequence[Frame], place: str) -> list[Frame]:
    """Sort by position along the common normal; instance numbers do not matter and names only break ties.

    Args:
        frames: At least one.
        place: Name of the series in errors.

    Raises:
        GeometryError: If they are not parallel.
    """
    first = frames[0].plane
    if not all(first.is_parallel_to(frame.plane) for frame in frames):
        raise differing(place)
    normal = first.normal
    return sorted(frames, key=lambda frame: (float(np.dot(frame.plane.origin_mm, normal)), frame.path, frame.index))


def differing(place: str) -> GeometryError:
    """Build the error for images that cannot be slices of one volume."""
    return GeometryError(
        f"the images of {place} differ in matrix, pixel spacing or orientation", hint="split them into volumes"
    )


def by_position(items: Iterable[_Placed], plane: Callable[[_Placed], Plane]) -> list[list[_Placed]]:
    """Group items at the same position.

    Args:
        items: Sorted by depth.
        plane: Returns the plane of an item.
    """
    positions: list[list[_Placed]] = []
    for item in items:
        if positions and math.dist(plane(positions[-1][0]).origin_mm, plane(item).origin_mm) <= SAME_POSITION_MM:
            positions[-1].append(item)
        else:
            positions.append([item])
    return positions


def stack(frames: Sequence[Frame], place: str, *, fill_gaps: bool = False) -> Stack:
    """Build the grid whose slices are `frames`, in order, one per position.

    The step along k connects the first and the last position, so the shear of a tilted gantry is kept. A single slice
    steps along its normal by what its header states.

    Args:
        frames: At least one, from `in_order`.
        place: Name of the series in errors.
        fill_gaps: If they are unevenly spaced, use the spacing of the closest two slices instead of raising.

    Raises:
        GeometryError: If they are not evenly spaced along a line.
    """
    plane = _common(frames)
    positions = np.array([frame.plane.origin_mm for frame in frames])
    if len(frames) == 1:
        row = _Row(positions[0], plane.normal * frames[0].stated_step_mm(), (0.0,))
    else:
        _check_direction(positions, plane, place)
        row = _filled_row(positions, place) if fill_gaps else _even_row(positions, place)
    step, depths = row.step, row.depths
    slices = tuple(math.floor(depth + 0.5) for depth in depths)
    step_mm = float(np.linalg.norm(step))
    direction = np.column_stack([plane.orientation[:3], plane.orientation[3:], step / step_mm])
    shape = (*plane.shape, slices[-1] + 1)
    return Stack(Geometry.from_lps(shape, row.origin_mm, direction, (*plane.spacing_mm, step_mm)), slices, depths)


def _common(frames: Sequence[Frame]) -> Plane:
    """Return a plane that most images state, so that one with a digit changed within the tolerance does not count."""
    counts = Counter((frame.plane.orientation, frame.plane.spacing_mm) for frame in frames)
    grid = counts.most_common(1)[0][0]
    return next(frame.plane for frame in frames if (frame.plane.orientation, frame.plane.spacing_mm) == grid)


def _check_direction(positions: NDArray[np.float64], plane: Plane, place: str) -> None:
    if (positions[-1] - positions[0]) @ plane.normal <= SAME_POSITION_MM * (len(positions) - 1):
        raise GeometryError(
            f"the images of {place} lie side by side in one plane, and are not a stack of slices",
            hint="is it one series? split it",
        )


@dataclass(frozen=True, eq=False)
class _Row:
    """Positions of slices along a line.

    Attributes:
        origin_mm: (3,) the first one.
        step: (3,) from one slice of the grid to the next, in mm.
        depths: For each position, where it lies in the grid, in slices.
    """

    origin_mm: NDArray[np.float64]
    step: NDArray[np.float64]
    depths: tuple[float, ...]


def rounding_mm(positions: NDArray[np.float64]) -> float:
    """Return the unit of the last decimal with which any of some positions is stated, from 0.1 mm down to 0.001 mm.

    Args:
        positions: (K, 3) as stored, in mm.

    Returns:
        0 if they have more decimals, so that rounding explains nothing.
    """
    for decimals in _DECIMALS:
        if np.abs(positions - positions.round(decimals)).max() < _STORED_MM:
            return float(10.0**-decimals)
    return 0.0


def _even_row(positions: NDArray[np.float64], place: str) -> _Row:
    """Return the row of (K, 3) positions in mm, K > 1, after checking that every one of them lies on it."""
    slices = np.arange(len(positions))
    if row := _row(positions, slices):
        return row
    step: NDArray[np.float64] = (positions[-1] - positions[0]) / slices[-1]
    raise _uneven(positions, np.linalg.norm(positions - positions[0] - np.outer(slices, step), axis=1), place)


def _row(positions: NDArray[np.float64], slices: NDArray[np.int64]) -> _Row | None:
    """Return the row on which positions are these slices, None if they do not lie on one.

    It connects the first and the last position. If those are rounded too coarsely for that, it is a line of which all
    positions may be rounded values.
    """
    step: NDArray[np.float64] = (positions[-1] - positions[0]) / slices[-1]
    depths = tuple(slices.astype(float).tolist())
    off_mm = np.linalg.norm(positions - positions[0] - np.outer(slices, step), axis=1)
    if off_mm.max() <= _tolerance_mm(float(np.linalg.norm(step))):
        return _Row(positions[0], step, depths)
    half_mm = rounding_mm(positions) / 2
    if not 0 < half_mm <= _ROUNDED_SHARE * float(np.linalg.norm(step)):
        return None
    lines = [_line_through(numbers, slices) for numbers in positions.T]
    if max(off for _, _, off in lines) > half_mm + _STORED_MM:
        return None
    return _Row(np.array([begin for begin, _, _ in lines]), np.array([slope for _, slope, _ in lines]), depths)


def _line_through(numbers: NDArray[np.float64], slices: NDArray[np.int64]) -> tuple[float, float, float]:
    """Fit the line with the smallest maximum distance to all numbers; return its start, its slope, and that distance.

    The distance is convex in the slope, so a ternary search over slopes finds it.
    """

    def spread(slope: float) -> float:
        return float(np.ptp(numbers - slope * slices))

    middle, room = float((numbers[-1] - numbers[0]) / slices[-1]), float(np.ptp(numbers) + 1)
    low, high = middle - room, middle + room
    for _ in range(_LINE_STEPS):
        third = (high - low) / 3
        if spread(low + third) <= spread(high - third):
            high -= third
        else:
            low += third
    slope = (low + high) / 2
    rest = numbers - slope * slices
    return float(rest.max() + rest.min()) / 2, slope, spread(slope) / 2


def _filled_row(positions: NDArray[np.float64], place: str) -> _Row:
    """Return an even grid over uneven positions on a line, and the position of each in it.

    If slices are missing from an even series, the others lie on the grid exactly. Otherwise the step is that of the
    closest two slices, or a little less, so that no two positions share a slice.
    """
    along = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    steps = np.maximum(1, np.rint(along / np.median(along))).astype(np.int64)
    if steps.sum() < _MOST_SLICES and (row := _row(positions, np.concatenate([[0], np.cumsum(steps)]))):
        return row
    whole: NDArray[np.float64] = positions[-1] - positions[0]
    length_mm = float(np.linalg.norm(whole))
    along_mm = (positions - positions[0]) @ whole / length_mm
    off_mm = np.linalg.norm(positions - positions[0] - np.outer(along_mm / length_mm, whole), axis=1)
    gaps_mm = np.diff(along_mm)
    if off_mm.max() > _tolerance_mm(float(np.median(gaps_mm))):
        raise _uneven(positions, off_mm, place)
    smallest_mm = float(gaps_mm.min())
    intervals = math.ceil(length_mm / smallest_mm - _tolerance_mm(smallest_mm) / smallest_mm)
    if intervals >= _MOST_SLICES:
        raise GeometryError(
            f"{place}: its slices, {smallest_mm:.4g} to {gaps_mm.max():.5g} mm apart, are too uneven to interpolate",
            hint="are these several scans in one series?",
        )
    while len(set(np.floor(along_mm / length_mm * intervals + 0.5))) < len(positions):  # a step slightly too long
        intervals += 1
    depths = along_mm / length_mm * intervals
    whole_depths = np.rint(depths)
    on_grid = np.abs(depths - whole_depths).max() * smallest_mm <= _tolerance_mm(smallest_mm)
    return _Row(positions[0], whole / intervals, tuple((whole_depths if on_grid else depths).tolist()))


def _uneven(positions: NDArray[np.float64], off_mm: NDArray[np.float64], place: str) -> GeometryError:
    """Build the error that names the gap unlike the others or, if there is none, the slice furthest from its place."""
    gaps_mm = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    usual_mm = float(np.sort(gaps_mm)[(len(gaps_mm) - 1) // 2])
    odd = np.flatnonzero(np.abs(gaps_mm - usual_mm) > _tolerance_mm(usual_mm))
    if len(odd) == 0:
        worst = int(off_mm.argmax())
        message = f"slice {worst + 1} lies {off_mm[worst]:.4g} mm off the even line through the first and the last"
    else:
        worst = int(odd[np.abs(gaps_mm[odd] - usual_mm).argmax()])
        message = (
            f"slices {worst + 1} and {worst + 2} lie {gaps_mm[worst]:.5g} mm apart "
            f"where the others lie {usual_mm:.5g} mm apart"
        )
    if len(odd) > 1:
        message += f", and so on: {len(odd)} of {len(gaps_mm)} gaps differ from the others"
    return GeometryError(
        f"{place}: {message}",
        hint="a volume needs evenly spaced slices; is one missing? --allow-gaps fills gaps by interpolation",
    )


def _tolerance_mm(step_mm: float) -> float:
    return max(EVEN_TOLERANCE_MM, EVEN_TOLERANCE * step_mm)
