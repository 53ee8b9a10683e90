"""Views: axial, coronal and sagittal slices, oriented as a radiologist hangs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Voxel = TypeVar("_Voxel", bound=np.generic)

#: Grey levels run between these percentiles of the image: a few bright voxels (metal, vessels) must not darken it.
_DARKEST, _BRIGHTEST = 1.0, 99.0


@dataclass(frozen=True)
class View:
    """One of the three anatomical planes, in canonical axes (0 towards R, 1 towards A, 2 towards S).

    Oblique volumes are cut along their own axes, those closest to the anatomical ones.

    Attributes:
        name: Of the view.
        across: The axis that runs from right to left in the picture.
        up: The axis that runs from bottom to top.
        through: The axis perpendicular to the plane.
        letters: At the left, right, top and bottom edge.
    """

    name: str
    across: int
    up: int
    through: int
    letters: str

    def cut(self, array: NDArray[_Voxel], plane: int) -> NDArray[_Voxel]:
        """Return one slice as a picture.

        Args:
            array: (I, J, K) in canonical order.
            plane: Index along `through`.

        Returns:
            (rows, columns), the first row at the top.
        """
        taken = np.take(array, plane, axis=self.through)
        rows_first = taken.T if self.across < self.up else taken
        return rows_first[::-1, ::-1]


#: The patient is seen from the feet, from the front and from the left.
VIEWS = (View("axial", 0, 1, 2, "RLAP"), View("coronal", 0, 2, 1, "RLSI"), View("sagittal", 1, 2, 0, "APSI"))


def grey_levels(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale (I, J, K) intensities to 0 ... 255 between robust percentiles of the finite ones."""
    finite = array[np.isfinite(array)]
    low, high = np.percentile(finite, (_DARKEST, _BRIGHTEST)) if finite.size else (0.0, 0.0)
    if low == high:  # nearly all background: use everything else
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    scale = 255.0 / (high - low) if high > low else 0.0
    return np.clip((np.nan_to_num(array, nan=low) - low) * scale, 0.0, 255.0).astype(np.float32)


def fullest_planes(marked: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Find, for each axis, the plane with the most marked voxels, the middle one of several."""
    planes = []
    for axis in range(3):
        counts = np.count_nonzero(marked, axis=tuple(other for other in range(3) if other != axis))
        fullest = np.flatnonzero(counts == counts.max())
        planes.append(int(fullest[len(fullest) // 2]))
    r, a, s = planes
    return r, a, s
