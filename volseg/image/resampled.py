"""A volume resampled part by part to the network's grid, and positions for the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from volseg.image.box import Box, Triple
from volseg.image.geometry import Geometry
from volseg.image.resampling import Place, Spacing, coarse_axis, interpolate_axis, nearest_positions, sample_positions
from volseg.image.splines import BEYOND, Spline

#: Planes that are resampled at once: intermediate results between axes take memory.
_PLANES = 16

Positions = NDArray[np.float64]


@dataclass(frozen=True)
class Resampling:
    """A change of grid with the same axes, and its inverse.

    Attributes:
        shape: Voxels of the volume.
        spacing_mm: Their size.
        new_shape: Voxels of the other grid.
        new_spacing_mm: Their size.
        interpolation: Between the voxels of the volume; on the way back it is always linear.
        nearest: The axis along which the nearest voxel is taken, if any.
        nearest_back: The axes along which the nearest voxel is taken on the way back.
        first: Position of the first voxel of the other grid; None where both share a centre.
    """

    shape: Triple
    spacing_mm: Spacing
    new_shape: Triple
    new_spacing_mm: Spacing
    interpolation: Literal["linear", "cubic"] = "linear"
    nearest: int | None = None
    nearest_back: tuple[int, ...] = ()
    first: Place | None = None

    @classmethod
    def towards(
        cls,
        geometry: Geometry,
        spacing_mm: tuple[float | None, float | None, float | None],
        grid: Literal["spacing", "extent", "corners", "monai"] = "spacing",
        interpolation: Literal["linear", "cubic"] = "linear",
        coarse: Literal["interpolated", "nearest"] = "interpolated",
        answers: Literal["logits", "probabilities", "labels"] = "logits",
    ) -> Resampling:
        """Plan the change to another voxel size.

        Args:
            geometry: Of the volume.
            spacing_mm: Desired voxel size along each axis; None keeps it as it is.
            grid: Whether the new grid has exactly that voxel size, about the centre or placed as MONAI does, or fills
                the volume exactly, up to the outer sides of its voxels or to their centres.
            interpolation: Between the voxels of the volume.
            coarse: How to interpolate along a single axis whose voxels are more than three times as long as the
                others'.
            answers: What is resampled back; labels are taken from the nearest voxel.
        """
        own = geometry.spacing_mm
        i, j, k = (size if wanted is None else wanted for wanted, size in zip(spacing_mm, own, strict=True))
        wanted_mm = (i, j, k)
        first = None
        match grid:
            case "spacing":
                new_shape, new_spacing_mm = geometry.respaced(wanted_mm).shape, wanted_mm
            case "corners":
                new_shape = geometry.respaced(wanted_mm).shape
                i, j, k = (
                    size_mm * (old - 1) / (new - 1) if min(old, new) > 1 else wanted
                    for size_mm, old, new, wanted in zip(own, geometry.shape, new_shape, wanted_mm, strict=True)
                )
                new_spacing_mm, first = (i, j, k), (0.0, 0.0, 0.0)
            case "monai":
                (new_shape, first), new_spacing_mm = geometry.spaced_by_monai(wanted_mm), wanted_mm
            case "extent":
                fitted = geometry.refitted(wanted_mm)
                new_shape, new_spacing_mm = fitted.shape, fitted.spacing_mm
        nearest: int | None = None
        nearest_back: tuple[int, ...] = (0, 1, 2) if answers == "labels" else ()
        if coarse == "nearest":
            nearest, coarse_back = coarse_axis(own, wanted_mm), coarse_axis(wanted_mm, own)
            nearest_back = nearest_back or (() if coarse_back is None else (coarse_back,))
        return cls(geometry.shape, own, new_shape, new_spacing_mm, interpolation, nearest, nearest_back, first)

    def of_geometry(self, geometry: Geometry) -> Geometry:
        """Return the other grid of a volume."""
        if self.first is not None:
            return geometry.from_voxel(self.first, self.new_shape, self.new_spacing_mm)
        return geometry.about_centre(self.new_shape, self.new_spacing_mm)

    @cached_property
    def positions(self) -> list[Positions]:
        """Return, per axis, the positions of the other grid's voxels in the volume."""
        found = []
        for axis, sizes in enumerate(
            zip(self.shape, self.spacing_mm, self.new_shape, self.new_spacing_mm, strict=True)
        ):
            beyond = BEYOND if self.interpolation == "cubic" and axis != self.nearest else 0.0
            first = None if self.first is None else self.first[axis]
            places = sample_positions(*sizes, beyond, first)
            found.append(nearest_positions(places, self.shape[axis]) if axis == self.nearest else places)
        return found

    @cached_property
    def positions_back(self) -> list[Positions]:
        """Return, per axis, the positions of the volume's voxels in the other grid."""
        found = []
        for axis, sizes in enumerate(
            zip(self.new_shape, self.new_spacing_mm, self.shape, self.spacing_mm, strict=True)
        ):
            step = self.spacing_mm[axis] / self.new_spacing_mm[axis]
            first = None if self.first is None else -self.first[axis] * step
            places = sample_positions(*sizes, first=first)
            found.append(nearest_positions(places, self.new_shape[axis]) if axis in self.nearest_back else places)
        return found

    @property
    def splined(self) -> tuple[int, ...]:
        """The axes interpolated by splines: those along which voxels change position."""
        if self.interpolation == "linear":
            return ()
        return tuple(
            axis
            for axis, places in enumerate(self.positions)
            if axis != self.nearest and not np.array_equal(places, np.arange(self.shape[axis]))
        )


@dataclass(frozen=True, eq=False)
class ResampledVolume:
    """A volume on another grid; only the parts that are read are computed.

    Attributes:
        array: (C, I, J, K) float32, a view in any storage order; it is never copied as a whole if interpolated
            linearly.
        resampling: To the other grid.
    """

    array: NDArray[np.float32]
    resampling: Resampling

    @classmethod
    def as_it_is(cls, array: NDArray[np.float32]) -> ResampledVolume:
        """Wrap a volume that is already on the other grid."""
        i, j, k = array.shape[1:]
        return cls(array, Resampling((i, j, k), (1.0, 1.0, 1.0), (i, j, k), (1.0, 1.0, 1.0)))

    @property
    def shape(self) -> Triple:
        """Voxels of the other grid."""
        return self.resampling.new_shape

    @property
    def along(self) -> int | None:
        """The axis along which parts are read most efficiently; None if it does not matter."""
        return None

    @property
    def positions_back(self) -> list[Positions]:
        """Return, per axis, the positions of the volume's voxels in the other grid."""
        return self.resampling.positions_back

    @cached_property
    def _spline(self) -> Spline | None:
        axes = self.resampling.splined
        return Spline.through(self.array, axes, self.resampling.nearest) if axes else None

    def read(self, box: Box) -> torch.Tensor:
        """Resample a part, with the same result as resampling the whole volume.

        Args:
            box: Voxels within the other grid.

        Returns:
            (C, *box) float32, contiguous.
        """
        result = torch.empty(len(self.array), *box.shape)
        for begin in range(box.k.start, box.k.stop, _PLANES):
            few = slice(begin, min(begin + _PLANES, box.k.stop))
            places = [every[side] for every, side in zip(self.resampling.positions, box.with_side(2, few), strict=True)]
            part = self._spline.sample(places) if self._spline else _sample_linear(self.array, places)
            result[..., begin - box.k.start : few.stop - box.k.start] = part
        return result


@dataclass(frozen=True, eq=False)
class ReadyVolume(ResampledVolume):
    """A volume that is already on the other grid, possibly cropped.

    Attributes:
        ready: (C, I, J, K) float32 on the other grid.
        origin: The first voxel of that grid that is left after cropping.
    """

    ready: NDArray[np.float32]
    origin: Triple = (0, 0, 0)

    @property
    def shape(self) -> Triple:
        """Voxels left after cropping."""
        i, j, k = self.ready.shape[1:]
        return i, j, k

    @property
    def positions_back(self) -> list[Positions]:
        """Return, per axis, the positions of the volume's voxels in the cropped grid; they may lie outside it."""
        return [places - begin for places, begin in zip(self.resampling.positions_back, self.origin, strict=True)]

    def read(self, box: Box) -> torch.Tensor:
        """Read a part.

        Args:
            box: Voxels within the other grid.

        Returns:
            (C, *box) float32, contiguous.
        """
        return torch.from_numpy(np.ascontiguousarray(self.ready[:, *box]))


@dataclass(frozen=True, eq=False)
class ResampledWithLabels(ResampledVolume):
    """A volume on another grid, followed by a one-hot channel for each of some labels.

    A voxel of the other grid takes the value that covers most of it; of several, the nearest if it is among them, else
    the smallest.

    Attributes:
        values: (I, J, K) integers on the grid of the volume: labels, and others.
        labels: Those that become channels.
    """

    values: NDArray[np.integer]
    labels: tuple[int, ...]

    def read(self, box: Box) -> torch.Tensor:
        """Resample a part.

        Args:
            box: Voxels within the other grid.

        Returns:
            (C + labels, *box) float32, contiguous.
        """
        places = [every[side] for every, side in zip(self._exact_positions, box, strict=True)]
        corners = [_corners(each) for each in places]
        nearest = self.values[
            np.ix_(*(_nearest(each, size) for each, size in zip(places, self.values.shape, strict=True)))
        ]
        around = [
            (self.values[np.ix_(i, j, k)], of_i[:, None, None], of_j[:, None], of_k)
            for (i, of_i), (j, of_j), (k, of_k) in product(*corners)
        ]
        best, of_nearest, winner = np.zeros(box.shape), np.zeros(box.shape), np.zeros(box.shape, dtype=np.int64)
        for value in np.unique(np.concatenate([np.unique(corner) for corner, *_ in around])):
            share = np.zeros(box.shape)
            for corner, of_i, of_j, of_k in around:
                share += (corner == value) * of_i * of_j * of_k
            winner = np.where(share > best, value, winner)
            best, of_nearest = np.maximum(share, best), np.where(nearest == value, share, of_nearest)
        winner = np.where(of_nearest == best, nearest, winner)
        ones = [torch.from_numpy(winner == label) for label in self.labels]
        return torch.cat([super().read(box), torch.stack(ones).float()])

    @cached_property
    def _exact_positions(self) -> list[Positions]:
        """Return the positions of the other grid's voxels; if it fills the volume, bit for bit as SciPy computes them.

        Values may share a voxel equally, and then the last bit decides.
        """
        way, found = self.resampling, []
        for axis, places in enumerate(way.positions):
            size, new = way.shape[axis], way.new_shape[axis]
            filling = (np.arange(new) + 0.5) * (size / new) - 0.5
            exact = filling if np.allclose(places, filling, rtol=0, atol=1e-6) else places
            exact = np.clip(exact, 0.0, size - 1.0)
            found.append(nearest_positions(exact, size) if axis == way.nearest else exact)
        return found


def _nearest(places: Positions, size: int) -> NDArray[np.int64]:
    return nearest_positions(places, size).astype(np.int64)


def _corners(places: Positions) -> list[tuple[NDArray[np.int64], Positions]]:
    """Find the two voxels around each position along an axis, and their weights."""
    low = np.floor(places)
    first, second = low.astype(np.int64), np.ceil(places).astype(np.int64)
    return [(first, 1 - (places - low)), (second, places - low)]


def _sample_linear(array: NDArray[np.float32], positions: Sequence[Positions]) -> torch.Tensor:
    """Interpolate linearly along each axis: (C, I, J, K) -> (C, len(positions[0]), ...)."""
    lows = [int(each[0]) for each in positions]
    i, j, k = (slice(low, int(np.ceil(each[-1])) + 1) for low, each in zip(lows, positions, strict=True))
    part = torch.from_numpy(np.ascontiguousarray(array[:, i, j, k]))
    for axis, (low, each) in enumerate(zip(lows, positions, strict=True)):
        part = interpolate_axis(part, axis + 1, each - low)
    return part
