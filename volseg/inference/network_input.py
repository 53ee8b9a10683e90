"""A volume as a network sees it: on the grid of its voxel size, brought there part by part."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from volseg.image.box import Box
from volseg.image.resampling import interpolate_axis, sample_positions

__all__ = ["Box", "NetworkInput", "Spacing", "Triple"]

Spacing = tuple[float, float, float]
Triple = tuple[int, int, int]

#: Planes that are resampled at once: what lies between one axis and the next takes memory.
_PLANES = 16


@dataclass(frozen=True, eq=False)
class NetworkInput:
    """A normalised volume and the voxel size at which it is looked at.

    Attributes:
        array: (C, R, A, S) float32, a view in any storage order; it is never copied as a whole.
        spacing_mm: Its spacing.
        network_shape: Voxels at the network's voxel size.
        network_spacing_mm: That voxel size; both grids have one centre.
    """

    array: NDArray[np.float32]
    spacing_mm: Spacing
    network_shape: Triple
    network_spacing_mm: Spacing

    @classmethod
    def at_network_spacing(cls, array: NDArray[np.float32]) -> NetworkInput:
        """A volume that is at the network's voxel size already."""
        r, a, s = array.shape[1:]
        return cls(array, (1.0, 1.0, 1.0), (r, a, s), (1.0, 1.0, 1.0))

    @cached_property
    def _positions(self) -> list[NDArray[np.float64]]:
        """Per axis where the network's voxels lie among those of the array."""
        return [
            sample_positions(self.array.shape[axis + 1], self.spacing_mm[axis], size, self.network_spacing_mm[axis])
            for axis, size in enumerate(self.network_shape)
        ]

    @cached_property
    def native_positions(self) -> list[NDArray[np.float64]]:
        """Per axis where the array's voxels lie among those of the network."""
        return [
            sample_positions(size, self.network_spacing_mm[axis], self.array.shape[axis + 1], self.spacing_mm[axis])
            for axis, size in enumerate(self.network_shape)
        ]

    def read(self, box: Box) -> torch.Tensor:
        """Resample a part, the same numbers as if the whole were resampled.

        Args:
            box: Voxels of the network's grid, none of them beyond it.

        Returns:
            (C, *box) float32, contiguous.
        """
        result = torch.empty(len(self.array), *box.shape)
        for begin in range(box.k.start, box.k.stop, _PLANES):
            few = slice(begin, min(begin + _PLANES, box.k.stop))
            result[..., begin - box.k.start : few.stop - box.k.start] = self._resampled(box.with_side(2, few))
        return result

    def _resampled(self, box: Box) -> torch.Tensor:
        positions = [every[side] for every, side in zip(self._positions, box, strict=True)]
        lows = [int(each[0]) for each in positions]
        r, a, s = (slice(low, int(np.ceil(each[-1])) + 1) for low, each in zip(lows, positions, strict=True))
        part = torch.from_numpy(np.ascontiguousarray(self.array[:, r, a, s]))
        for axis, (low, each) in enumerate(zip(lows, positions, strict=True)):
            part = interpolate_axis(part, axis + 1, each - low)
        return part
