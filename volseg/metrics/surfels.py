"""Area-weighted surface distances: each surface element counts by its area in square millimetres.

The centres of eight neighbouring voxels form a cell. Where a mask has some of them and not all, its surface runs
through the cell, and the part within is a surface element. Its area follows from which of the eight belong to the mask
and from the spacing; distances run from cell to cell (Nikolov et al., arXiv 1809.04430, section "surface Dice", and
their library surface-distance).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from volseg.metrics.surface import ROUNDING_MM, distances_mm2

_PATTERNS = 256


@dataclass(frozen=True, eq=False)
class WeightedDistances:
    """Distances of one surface's elements to the other surface.

    Attributes:
        mm: (N,) float32, ascending, N at least 1.
        mm2: (N,) float64, the area of each element.
    """

    mm: NDArray[np.float32]
    mm2: NDArray[np.float64]

    def percentile_mm(self, percent: float) -> float:
        """Return the distance within which at least this percentage of the area lies."""
        covered = np.cumsum(self.mm2) / self.mm2.sum()
        first = int(np.searchsorted(covered, percent / 100))
        return float(self.mm[min(first, self.mm.size - 1)])

    def within_mm2(self, tolerance_mm: float) -> float:
        """Return the area that lies within a distance."""
        return float(self.mm2[self.mm <= tolerance_mm + ROUNDING_MM].sum())


@dataclass(frozen=True, eq=False)
class AreaDistances:
    """Distances in both directions.

    Attributes:
        from_prediction: Of the prediction's surface.
        from_reference: Of the reference's surface.
    """

    from_prediction: WeightedDistances
    from_reference: WeightedDistances

    @property
    def hd95_mm(self) -> float:
        """The larger of the two directed distances within which 95 % of the area lies."""
        return max(self.from_prediction.percentile_mm(95), self.from_reference.percentile_mm(95))

    def nsd(self, tolerance_mm: float) -> float:
        """Return the share of both surfaces' area that lies within a distance of the other."""
        sides = (self.from_prediction, self.from_reference)
        return sum(side.within_mm2(tolerance_mm) for side in sides) / sum(float(side.mm2.sum()) for side in sides)


def measure_areas(
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    axes: tuple[int, ...] = (0, 1, 2),
) -> AreaDistances:
    """Measure the distances between the surfaces of two masks, weighted by area.

    Args:
        prediction: (I, J, K) bool, not empty.
        reference: (I, J, K) bool, not empty.
        spacing_mm: Spacing along i, j, k.
        axes: Axes along which the grid has more than one voxel; flat masks are weighted by the length of their
            outlines.

    Returns:
        The distances in both directions.

    Raises:
        ValueError: If a mask is empty, since it has no distance to anything.
    """
    if not (prediction.any() and reference.any()):
        raise ValueError("surface distances need two masks that are not empty")
    areas_mm2 = pattern_areas_mm2(spacing_mm)
    patterns = [_patterns(mask, axes) for mask in (prediction, reference)]
    surfaces = [areas_mm2[pattern] > 0 for pattern in patterns]
    squared = [distances_mm2(surface, spacing_mm) for surface in surfaces]
    return AreaDistances(
        _sorted(np.sqrt(squared[1][surfaces[0]]), areas_mm2[patterns[0][surfaces[0]]]),
        _sorted(np.sqrt(squared[0][surfaces[1]]), areas_mm2[patterns[1][surfaces[1]]]),
    )


@lru_cache(maxsize=8)
def pattern_areas_mm2(spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Compute the area of the surface element of every pattern of eight voxels.

    It is that of marching cubes with the surface half-way between the voxels. Where the pattern is ambiguous, it is the
    smaller of the surfaces around the voxels that belong to the mask and around those that do not.

    Args:
        spacing_mm: Spacing along i, j, k.

    Returns:
        (256,) float64; bit n of the index stands for the voxel (n // 4, n // 2 % 2, n % 2) of the cell.
    """
    from skimage.measure import marching_cubes, mesh_surface_area

    areas_mm2 = np.zeros(_PATTERNS)
    for pattern in range(1, _PATTERNS - 1):
        cell = np.array([pattern >> bit & 1 for bit in range(8)], np.float32).reshape(2, 2, 2)
        vertices, faces, *_ = marching_cubes(cell, 0.5, spacing=spacing_mm, method="lorensen")
        areas_mm2[pattern] = mesh_surface_area(vertices, faces)
    return np.minimum(areas_mm2, areas_mm2[::-1])


def _patterns(mask: NDArray[np.bool_], axes: tuple[int, ...]) -> NDArray[np.uint8]:
    """Encode which of its voxels each cell has, cells at the edge of the grid included.

    Everything outside the grid is background, except along a flat axis, where the mask extends indefinitely.

    Returns:
        (I + 1, J + 1, K + 1) uint8.
    """
    padded = np.pad(mask, [(1, 1) if axis in axes else (0, 0) for axis in range(3)])
    padded = np.pad(padded, [(0, 0) if axis in axes else (1, 1) for axis in range(3)], mode="edge").view(np.uint8)
    i, j, k = (size + 1 for size in mask.shape)
    patterns = np.zeros((i, j, k), np.uint8)
    for bit in range(8):
        a, b, c = bit // 4, bit // 2 % 2, bit % 2
        patterns |= padded[a : a + i, b : b + j, c : c + k] << np.uint8(bit)
    return patterns


def _sorted(distances_mm: NDArray[np.float32], areas_mm2: NDArray[np.float64]) -> WeightedDistances:
    order = np.argsort(distances_mm, kind="stable")
    return WeightedDistances(distances_mm[order], areas_mm2[order])
