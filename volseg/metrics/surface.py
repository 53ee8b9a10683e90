"""Surface distances in millimetres between two masks, from surface voxel to surface voxel.

The surface of a mask is the set of its voxels with at least one face neighbour outside it; everything beyond the edge
of the grid is outside. A distance runs from the centre of a surface voxel to the centre of the nearest surface voxel of
the other mask, along orthogonal axes of the given spacing: on a sheared grid (gantry tilt) it is an approximation. An
axis along which the grid has a single voxel is ignored: masks are flat there, and their surfaces are outlines.
"""

from __future__ import annotations

from dataclasses import dataclass

import edt
import numpy as np
from numpy.typing import NDArray

#: Rounding must not push what lies exactly at a tolerance beyond it.
ROUNDING_MM = 1e-4


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Distances of the surface voxels of each mask to the surface of the other.

    Attributes:
        from_prediction_mm: (P,) float32, one per surface voxel of the prediction, P at least 1.
        from_reference_mm: (R,) float32, one per surface voxel of the reference, R at least 1.
    """

    from_prediction_mm: NDArray[np.float32]
    from_reference_mm: NDArray[np.float32]

    @property
    def pooled_mm(self) -> NDArray[np.float32]:
        """(P + R,) float32, both directions together."""
        return np.concatenate([self.from_prediction_mm, self.from_reference_mm])

    @property
    def hd_mm(self) -> float:
        """Hausdorff distance: the largest of all distances (Huttenlocher 1993)."""
        return float(max(self.from_prediction_mm.max(), self.from_reference_mm.max()))

    @property
    def hd95_mm(self) -> float:
        """The larger of the two directed 95th percentiles, linearly interpolated (Metrics Reloaded; as MONAI)."""
        directed = (np.percentile(distances, 95) for distances in (self.from_prediction_mm, self.from_reference_mm))
        return float(max(directed))

    @property
    def pooled_hd95_mm(self) -> float:
        """The 95th percentile of both directions together, which hides errors seen in one direction only (as MedPy)."""
        return float(np.percentile(self.pooled_mm, 95))

    @property
    def assd_mm(self) -> float:
        """Average symmetric surface distance: the mean over both directions pooled (Heimann et al. 2009)."""
        return float(self.pooled_mm.mean(dtype=np.float64))

    @property
    def masd_mm(self) -> float:
        """Mean average surface distance: the mean of the two directed means (Metrics Reloaded)."""
        directed = (part.mean(dtype=np.float64) for part in (self.from_prediction_mm, self.from_reference_mm))
        return float(sum(directed) / 2)

    def nsd(self, tolerance_mm: float) -> float:
        """Return the normalised surface Dice: the share of both surfaces within `tolerance_mm` of the other.

        Each surface voxel counts as one, as in MONAI unless its `use_subvoxels` is set; `surfels` weighs by area.

        Args:
            tolerance_mm: The largest distance that counts as agreement.
        """
        return float(np.mean(self.pooled_mm <= tolerance_mm + ROUNDING_MM))


@dataclass(frozen=True, eq=False)
class SurfacePair:
    """Two masks with their surfaces and distance transforms, shared by all metrics.

    A crop to the box around both masks gives the same numbers as the whole grid, and is faster.

    Attributes:
        prediction: (I, J, K) bool, not empty.
        reference: (I, J, K) bool, not empty.
        prediction_surface: (I, J, K) bool.
        reference_surface: (I, J, K) bool.
        to_prediction_mm2: (I, J, K) float32, the squared distance of every voxel to the prediction's surface.
        to_reference_mm2: (I, J, K) float32, that to the reference's surface.
    """

    prediction: NDArray[np.bool_]
    reference: NDArray[np.bool_]
    prediction_surface: NDArray[np.bool_]
    reference_surface: NDArray[np.bool_]
    to_prediction_mm2: NDArray[np.float32]
    to_reference_mm2: NDArray[np.float32]

    @property
    def distances(self) -> SurfaceDistances:
        """Return the distances from each surface to the other."""
        return SurfaceDistances(
            from_prediction_mm=np.sqrt(self.to_reference_mm2[self.prediction_surface]),
            from_reference_mm=np.sqrt(self.to_prediction_mm2[self.reference_surface]),
        )

    def boundary_iou(self, width_mm: float) -> float:
        """Compute the intersection over union of the two boundaries (Cheng et al., "Boundary IoU", CVPR 2021).

        Args:
            width_mm: Width of a boundary: it consists of the voxels of the mask within this distance of a surface
                voxel, centre to centre; 0 means the surface voxels alone.
        """
        limit = (width_mm + ROUNDING_MM) ** 2
        predicted = self.prediction & (self.to_prediction_mm2 <= limit)
        wanted = self.reference & (self.to_reference_mm2 <= limit)
        return float(np.count_nonzero(predicted & wanted) / np.count_nonzero(predicted | wanted))


def surface_of(mask: NDArray[np.bool_], axes: tuple[int, ...] = (0, 1, 2)) -> NDArray[np.bool_]:
    """Return the voxels of a mask with at least one face neighbour outside it.

    Args:
        mask: (I, J, K) bool.
        axes: Axes along which neighbours count.

    Returns:
        (I, J, K) bool. Voxels of the mask at the edge of the array are always part of it.
    """
    padded = np.pad(mask, 1)
    interior = mask.copy()
    for axis in axes:
        for neighbour in (slice(None, -2), slice(2, None)):
            window = [slice(1, -1)] * 3
            window[axis] = neighbour
            interior &= padded[tuple(window)]
    return mask & ~interior


def measure_surfaces(
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    axes: tuple[int, ...] = (0, 1, 2),
) -> SurfacePair:
    """Find the surfaces of two masks and compute the distance transform of each, once.

    Args:
        prediction: (I, J, K) bool, not empty.
        reference: (I, J, K) bool, not empty.
        spacing_mm: Spacing along i, j, k.
        axes: Axes along which the grid has more than one voxel.

    Returns:
        The masks with surfaces and distances.

    Raises:
        ValueError: If a mask is empty, since it has no distance to anything.
    """
    if not (prediction.any() and reference.any()):
        raise ValueError("surface distances need two masks that are not empty")
    predicted, wanted = surface_of(prediction, axes), surface_of(reference, axes)
    return SurfacePair(
        prediction,
        reference,
        predicted,
        wanted,
        *(distances_mm2(surface, spacing_mm) for surface in (predicted, wanted)),
    )


def distances_mm2(voxels: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
    """Compute the squared distance of every voxel to the nearest of some voxels, centre to centre.

    Args:
        voxels: (I, J, K) bool, not empty.
        spacing_mm: Spacing along i, j, k.

    Returns:
        (I, J, K) float32.
    """
    squared: NDArray[np.float32] = edt.edtsq((~voxels).view(np.uint8), anisotropy=spacing_mm)
    return squared
