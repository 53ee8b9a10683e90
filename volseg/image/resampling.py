"""Resampling between two grids that share their axes and their centre.

The result depends on shapes and spacings alone, not on the position or the storage order of the grid, so that the same
anatomy gives the same numbers bit for bit whatever the orientation of its file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

#: A voxel this close to another, in voxels, is at the same position.
_ROUNDING = 0.02
#: An axis is coarse when its voxels are longer than the shortest by more than this factor (nnU-Net, Isensee et al.).
_ANISOTROPY = 3.0

if TYPE_CHECKING:
    import torch

    Shape = tuple[int, int, int]

Spacing = tuple[float, float, float]
#: Position of the first voxel of a grid in another, along each axis.
Place = tuple[float, float, float]


def resample_nearest(
    array: torch.Tensor, spacing_mm: Spacing, shape: Shape, new_spacing_mm: Spacing, first: Place | None = None
) -> torch.Tensor:
    """Resample by nearest neighbour: no new values appear.

    Args:
        array: (C, I, J, K) of any dtype.
        spacing_mm: Its spacing.
        shape: Voxels of the result along each axis.
        new_spacing_mm: Spacing of the result.
        first: Position of its first voxel; by default both grids share a centre.

    Returns:
        (C, *shape) of the same dtype.
    """
    import torch

    for axis in range(3):
        size = array.shape[axis + 1]
        begin = None if first is None else first[axis]
        positions = sample_positions(size, spacing_mm[axis], shape[axis], new_spacing_mm[axis], first=begin)
        nearest = nearest_positions(positions, size)
        array = array.index_select(axis + 1, torch.from_numpy(nearest.astype(np.int64)))
    return array


def sample_positions(
    size: int, spacing_mm: float, new_size: int, new_spacing_mm: float, beyond: float = 0.0, first: float | None = None
) -> np.ndarray:
    """Compute the positions of the new grid's voxels along one axis of the old grid.

    Args:
        size: Voxels of the old grid.
        spacing_mm: Its spacing.
        new_size: Voxels of the new one.
        new_spacing_mm: Its spacing.
        beyond: How many voxels they may lie outside the outermost centres.
        first: Position of the first; by default both grids share a centre.

    Returns:
        (new_size,) float64 indices of the old grid, clamped to it. Positions that are integers up to the rounding of a
        voxel size to four digits are made integers, so that voxels are copied and not interpolated.
    """
    step = new_spacing_mm / spacing_mm
    if first is None:
        positions = (size - 1) / 2 + (np.arange(new_size) - (new_size - 1) / 2) * step
    else:
        # Rounded, because what lies half-way between two voxels must stay there: the nearest is the one behind it.
        positions = np.round(first + np.arange(new_size) * step, 9)
    positions = np.clip(positions, -beyond, size - 1.0 + beyond)
    whole = np.rint(positions)
    return np.clip(whole, 0.0, size - 1.0) if np.abs(positions - whole).max() < _ROUNDING else positions


def nearest_positions(positions: np.ndarray, size: int) -> np.ndarray:
    """Round (N,) positions along an axis to the voxels they lie in, as float64 indices of the grid."""
    return np.clip(np.floor(positions + 0.5), 0.0, size - 1.0)


def coarse_axis(*spacings_mm: Spacing) -> int | None:
    """Find the axis along which voxels are more than three times as long as the shortest, if there is exactly one.

    Args:
        spacings_mm: Voxel sizes along each axis of several grids; the first grid with long voxels decides.
    """
    for spacing_mm in spacings_mm:
        if max(spacing_mm) / min(spacing_mm) > _ANISOTROPY:
            longest = [axis for axis, size_mm in enumerate(spacing_mm) if size_mm == max(spacing_mm)]
            return longest[0] if len(longest) == 1 else None
    return None


def interpolate_axis(array: torch.Tensor, axis: int, positions: np.ndarray) -> torch.Tensor:
    """Interpolate linearly along one axis.

    Args:
        array: Floating point, any shape.
        axis: The axis.
        positions: (N,) indices along it, within the array.

    Returns:
        The array with N entries along that axis.
    """
    import torch

    if np.array_equal(positions, np.arange(array.shape[axis])):
        return array
    low = np.minimum(np.floor(positions).astype(np.int64), max(array.shape[axis] - 2, 0))
    weight = positions - low
    below = torch.from_numpy(low).to(array.device)
    if not weight.any():
        return array.index_select(axis, below)
    high = np.minimum(low + 1, array.shape[axis] - 1)
    shape = [-1 if dimension == axis else 1 for dimension in range(array.ndim)]
    weights = torch.from_numpy(weight).to(array.device, array.dtype).reshape(shape)
    lower = array.index_select(axis, below)
    return lower.lerp_(array.index_select(axis, torch.from_numpy(high).to(array.device)), weights)
