"""From planes to a grid: the order of slices, and whether they lie evenly (PS3.3 section C.7.6.2.1.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from volseg.errors import GeometryError
from volseg.geometry import Geometry
from volseg.io.dicom.frames import Frame

#: Images closer than this show the same slice.
SAME_POSITION_MM = 1e-3
#: Every slice must lie within this share of the step, but at least this distance, of its place on the even grid: it
#: bounds how far a voxel is from where the file put it. Positions are decimals, often rounded to 0.01 mm.
EVEN_TOLERANCE = 0.01
EVEN_TOLERANCE_MM = 0.01


def in_order(frames: Sequence[Frame], place: str) -> list[Frame]:
    """Sort by position along the common normal; instance numbers do not matter and names only break ties.

    Args:
        frames: At least one.
        place: Names the series in errors.

    Raises:
        GeometryError: If they are not parallel.
    """
    first = frames[0].plane
    if not all(first.is_parallel_to(frame.plane) for frame in frames):
        raise GeometryError(
            f"the images of {place} differ in matrix, pixel spacing or orientation", hint="split them into volumes"
        )
    normal = first.normal
    return sorted(frames, key=lambda frame: (float(np.dot(frame.plane.origin_mm, normal)), frame.path, frame.index))


def by_position(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Gather the frames, which must be in order, that lie at the same place."""
    positions: list[list[Frame]] = []
    for frame in frames:
        if positions and _distance_mm(positions[-1][0], frame) <= SAME_POSITION_MM:
            positions[-1].append(frame)
        else:
            positions.append([frame])
    return positions


def grid_of(frames: Sequence[Frame], place: str) -> Geometry:
    """The grid whose slices are `frames`, in order, one per position.

    The step along k joins the first and the last position, so the shear of a tilted gantry is kept. A single slice
    steps along its normal by what its header states.

    Args:
        frames: At least one, from `in_order`.
        place: Names the series in errors.

    Raises:
        GeometryError: If they are not evenly spaced along a line.
    """
    first = frames[0].plane
    if len(frames) == 1:
        step = first.normal * frames[0].stated_step_mm()
    else:
        step = _even_step(np.array([frame.plane.origin_mm for frame in frames]), first.normal, place)
    step_mm = float(np.linalg.norm(step))
    direction = np.column_stack([first.orientation[:3], first.orientation[3:], step / step_mm])
    return Geometry.from_lps((*first.shape, len(frames)), first.origin_mm, direction, (*first.spacing_mm, step_mm))


def _even_step(positions: NDArray[np.float64], normal: NDArray[np.float64], place: str) -> NDArray[np.float64]:
    """The (3,) step between (K, 3) positions in mm, K > 1, after a check that every one of them lies on it."""
    intervals = len(positions) - 1
    step: NDArray[np.float64] = (positions[-1] - positions[0]) / intervals
    if step @ normal <= SAME_POSITION_MM:
        raise GeometryError(f"the images of {place} lie side by side in one plane, they are no stack of slices")
    off_mm = np.linalg.norm(positions - positions[0] - np.outer(np.arange(intervals + 1), step), axis=1)
    if off_mm.max() > _tolerance_mm(float(np.linalg.norm(step))):
        raise _uneven(positions, off_mm, place)
    return step


def _uneven(positions: NDArray[np.float64], off_mm: NDArray[np.float64], place: str) -> GeometryError:
    """Say which gap is unlike the others or, when none is, which slice lies furthest from its place."""
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
        message += f", and so on: {len(odd)} of {len(gaps_mm)} gaps are unlike the rest"
    return GeometryError(f"{place}: {message}", hint="a volume needs evenly spaced slices; is one missing?")


def _tolerance_mm(step_mm: float) -> float:
    return max(EVEN_TOLERANCE_MM, EVEN_TOLERANCE * step_mm)


def _distance_mm(a: Frame, b: Frame) -> float:
    return float(np.linalg.norm(np.subtract(a.plane.origin_mm, b.plane.origin_mm)))
