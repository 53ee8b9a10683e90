"""Millimetres between the surfaces of two masks.

The surface of a mask is the set of its voxels with at least one face neighbour outside it; beyond the edge of the grid
all is outside. A distance runs from the centre of a surface voxel to the centre of the nearest surface voxel of the
other mask, along orthogonal axes of the given spacing: on a sheared grid (gantry tilt) it is an approximation.
"""

from __future__ import annotations

from dataclasses import dataclass

import edt
import numpy as np
from numpy.typing import NDArray

#: float32 rounding must not push a voxel that lies exactly at the tolerance beyond it.
_ROUNDING_MM = 1e-4


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """How far every surface voxel of each mask is from the surface of the other.

    Attributes:
        from_prediction_mm: (P,) float32, one per surface voxel of the prediction, P at least 1.
        from_reference_mm: (R,) float32, one per surface voxel of the reference, R at least 1.
    """

    from_prediction_mm: NDArray[np.float32]
    from_reference_mm: NDArray[np.float32]

    @property
    def hd_mm(self) -> float:
        """Hausdorff distance: the largest of all distances (Huttenlocher 1993)."""
        return float(max(self.from_prediction_mm.max(), self.from_reference_mm.max()))

    @property
    def hd95_mm(self) -> float:
        """The larger of the two directed 95th percentiles, linearly interpolated (Metrics Reloaded; as MONAI).

        MedPy pools both directions before it takes the percentile, which hides an error that only one direction sees.
        """
        directed = (np.percentile(distances, 95) for distances in (self.from_prediction_mm, self.from_reference_mm))
        return float(max(directed))

    @property
    def assd_mm(self) -> float:
        """Average symmetric surface distance: the mean over both directions pooled (Heimann et al. 2009)."""
        total = self.from_prediction_mm.sum(dtype=np.float64) + self.from_reference_mm.sum(dtype=np.float64)
        return float(total / (self.from_prediction_mm.size + self.from_reference_mm.size))

    def nsd(self, tolerance_mm: float) -> float:
        """Normalised surface Dice: the share of both surfaces that lies within `tolerance_mm` of the other.

        Nikolov et al. (arXiv 1809.04430) weigh each surface voxel with the area of the surface that passes through it;
        here each counts as one, as in MONAI unless its `use_subvoxels` is set.

        Args:
            tolerance_mm: The largest distance that counts as agreement.
        """
        limit = tolerance_mm + _ROUNDING_MM
        within = sum(np.count_nonzero(part <= limit) for part in (self.from_prediction_mm, self.from_reference_mm))
        return within / (self.from_prediction_mm.size + self.from_reference_mm.size)


def surface_of(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The voxels of a mask with at least one of their 6 face neighbours outside it.

    Args:
        mask: (I, J, K) bool.

    Returns:
        (I, J, K) bool. Voxels of the mask at the edge of the array are always part of it.
    """
    padded = np.pad(mask, 1)
    interior = mask.copy()
    for axis in range(3):
        for neighbour in (slice(None, -2), slice(2, None)):
            window = [slice(1, -1)] * 3
            window[axis] = neighbour
            interior &= padded[tuple(window)]
    return mask & ~interior


def measure_surfaces(
    prediction: NDArray[np.bool_], reference: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> SurfaceDistances:
    """Measure between the surfaces of two masks, with one distance transform for each.

    A crop to the box around both masks gives the same result as the whole grid, and is faster.

    Args:
        prediction: (I, J, K) bool, not empty.
        reference: (I, J, K) bool, not empty.
        spacing_mm: Spacing along i, j, k.

    Returns:
        The distances in both directions.

    Raises:
        ValueError: If a mask is empty: nothing has no distance to anything.
    """
    if not (prediction.any() and reference.any()):
        raise ValueError("surface distances need two masks that are not empty")
    predicted, wanted = surface_of(prediction), surface_of(reference)
    return SurfaceDistances(
        from_prediction_mm=_distance_to(wanted, spacing_mm)[predicted],
        from_reference_mm=_distance_to(predicted, spacing_mm)[wanted],
    )


def _distance_to(voxels: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
    """(I, J, K) float32, for every voxel the distance to the nearest centre of `voxels`."""
    distances: NDArray[np.float32] = edt.edt(~voxels, anisotropy=spacing_mm)
    return distances
