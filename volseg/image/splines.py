"""Cubic spline interpolation of volumes, part by part: smoother than linear, with overshoot at edges.

A spline through the voxels is a sum of cubic B-splines, one about each (Unser 1999, IEEE Signal Processing Magazine
16(6):22). Their coefficients are computed once for the whole volume; each position then needs four along each axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from volseg.image.resampling import interpolate_axis

#: Padding of the volume while coefficients are computed: more does not change them (as in SciPy).
_CONTINUED = 12
#: Coefficients kept beyond each end: as many as a position half a voxel outside needs.
_MARGIN = 2
#: How many voxels outside the outermost centres a position may lie: within the outermost voxels.
BEYOND = 0.5


@dataclass(frozen=True, eq=False)
class Spline:
    """A volume interpolated by cubic splines along some axes, and linearly along the others.

    Its values are clipped to the range of its voxels, as in scikit-image's `resize`: a spline itself overshoots at
    edges.

    Attributes:
        coefficients: (C, I, J, K) float32, with a margin along the axes of the splines.
        axes: The axes interpolated by splines.
        low: Smallest voxel of each channel, (C, 1, 1, 1), or of each of its planes, as (C, 1, 1, K).
        high: Largest voxel likewise.
    """

    coefficients: NDArray[np.float32]
    axes: tuple[int, ...]
    low: torch.Tensor
    high: torch.Tensor

    @classmethod
    def through(cls, array: NDArray[np.float32], axes: Sequence[int], planes: int | None = None) -> Spline:
        """Fit the spline through the voxels of a volume.

        Args:
            array: (C, I, J, K), in any storage order.
            axes: The axes to interpolate by splines.
            planes: The axis across which planes are independent: each plane is clipped to its own range.
        """
        from scipy import ndimage

        over = tuple(axis + 1 for axis in range(3) if axis != planes)
        low, high = (
            torch.from_numpy(np.ascontiguousarray(extreme(array, axis=over, keepdims=True)))
            for extreme in (np.min, np.max)
        )
        coefficients = array
        for axis in axes:
            margin = [(0, 0)] * 4
            margin[axis + 1] = (_CONTINUED, _CONTINUED)
            continued = np.pad(coefficients, margin, mode="edge")
            found = ndimage.spline_filter1d(continued, 3, axis + 1, output=np.float32, mode="mirror")
            kept = slice(_CONTINUED - _MARGIN, _MARGIN - _CONTINUED)
            coefficients = found[(slice(None),) * (axis + 1) + (kept,)]
        return cls(coefficients, tuple(axes), low, high)

    def sample(self, positions: Sequence[NDArray[np.float64]]) -> torch.Tensor:
        """Interpolate on a grid of positions.

        Args:
            positions: Per axis the positions, as indices of the volume, ascending; up to half a voxel beyond its ends
                along the axes of the splines, within it along the others.

        Returns:
            (C, len(positions[0]), len(positions[1]), len(positions[2])) float32.
        """
        begins, sides = [], [slice(None)]
        for axis, places in enumerate(positions):
            if axis in self.axes:
                first, last = int(np.floor(places[0])) - 1 + _MARGIN, int(np.floor(places[-1])) + 3 + _MARGIN
            else:
                first, last = int(places[0]), int(np.ceil(places[-1])) + 1
            begins.append(first)
            sides.append(slice(first, last))
        part = torch.from_numpy(np.ascontiguousarray(self.coefficients[tuple(sides)]))
        for axis, (places, first) in enumerate(zip(positions, begins, strict=True)):
            if axis in self.axes:
                part = _along(part, axis + 1, places, _MARGIN - first)
            else:
                part = interpolate_axis(part, axis + 1, places - first)
        return part.clamp_(*(self._bound(each, positions) for each in (self.low, self.high)))

    def _bound(self, bound: torch.Tensor, positions: Sequence[NDArray[np.float64]]) -> torch.Tensor:
        for axis, places in enumerate(positions):
            if bound.shape[axis + 1] > 1:
                bound = bound.index_select(axis + 1, torch.from_numpy(np.rint(places).astype(np.int64)))
        return bound


def _along(part: torch.Tensor, axis: int, places: NDArray[np.float64], shift: int) -> torch.Tensor:
    """Sum four B-splines along an axis, at `places`, whose indices plus `shift` are those of the coefficients.

    The shift is added to whole numbers only: added to the places, it could round one up to the next coefficient.
    """
    low = np.floor(places)
    first = torch.from_numpy(low.astype(np.int64) - 1 + shift)
    shape = [-1 if n == axis else 1 for n in range(part.ndim)]
    terms = [
        part.index_select(axis, first + n).mul_(torch.from_numpy(weight.astype(np.float32)).reshape(shape))
        for n, weight in enumerate(_weights(places - low))
    ]
    return terms[0].add_(terms[1]).add_(terms[2]).add_(terms[3])


def _weights(share: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return the weights of the four coefficients about a position, `share` of a voxel behind the second one."""
    rest = 1 - share
    return [
        rest**3 / 6,
        2 / 3 - share**2 * (2 - share) / 2,
        2 / 3 - rest**2 * (2 - rest) / 2,
        share**3 / 6,
    ]
