"""A volume on another grid, brought there part by part: what a network sees, and the way back for what it answers."""

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

#: Planes that are resampled at once: what lies between one axis and the next takes memory.
_PLANES = 16

Positions = NDArray[np.float64]


@dataclass(frozen=True)
class Resampling:
    """From one grid to another that has the same axes, and back.

    Attributes:
        shape: Voxels of the volume.
        spacing_mm: Their size.
        new_shape: Voxels of the other grid.
        new_spacing_mm: Their size.
        interpolation: Between the voxels of the volume; on the way back it is always linear.
        nearest: The axis along which nothing is interpolated, if there is one.
        nearest_back: The axes along which nothing is on the way back.
        first: Where the first voxel of the other grid lies; None where both have one centre.
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
        """To another voxel size.

        Args:
            geometry: Of the volume.
            spacing_mm: Voxel size that is wanted along each axis; None leaves it as it is.
            grid: Whether it has exactly that voxel size, about the centre or as MONAI has it, or fills the volume
                exactly, up to the outer sides of its voxels or to their centres.
            interpolation: Between the voxels of the volume.
            coarse: What is done along the one axis whose voxels are more than three times as long as the others'.
            answers: What comes back; of labels the nearest are taken.
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
        """The other grid of a volume."""
        if self.first is not None:
            return geometry.from_voxel(self.first, self.new_shape, self.new_spacing_mm)
        return geometry.about_centre(self.new_shape, self.new_spacing_mm)

    @cached_property
    def positions(self) -> list[Positions]:
        """Per axis where the voxels of the other grid lie among those of the volume."""
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
        """Per axis where the voxels of the volume lie among those of the other grid."""
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
        """The axes along which voxels are interpolated by splines: those along which they do not keep their places."""
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
        array: (C, I, J, K) float32, a view in any storage order; it is never copied as a whole where it is interpolated
            linearly.
        resampling: To the other grid.
    """

    array: NDArray[np.float32]
    resampling: Resampling

    @classmethod
    def as_it_is(cls, array: NDArray[np.float32]) -> ResampledVolume:
        """A volume that is on the other grid already."""
        i, j, k = array.shape[1:]
        return cls(array, Resampling((i, j, k), (1.0, 1.0, 1.0), (i, j, k), (1.0, 1.0, 1.0)))

    @property
    def shape(self) -> Triple:
        """Voxels of the other grid."""
        return self.resampling.new_shape

    @property
    def along(self) -> int | None:
        """The axis along which it is best read, part after part; None if it does not matter."""
        return None

    @property
    def positions_back(self) -> list[Positions]:
        """Per axis where the voxels of the volume lie among those of the other grid."""
        return self.resampling.positions_back

    @cached_property
    def _spline(self) -> Spline | None:
        axes = self.resampling.splined
        return Spline.through(self.array, axes, self.resampling.nearest) if axes else None

    def read(self, box: Box) -> torch.Tensor:
        """Resample a part, the same numbers as if the whole were resampled.

        Args:
            box: Voxels of the other grid, none of them beyond it.

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
    """A volume that lies on the other grid already, or what is left of it after the rest was cut away.

    Attributes:
        ready: (C, I, J, K) float32 on the other grid.
        origin: The first voxel of that grid that is left.
    """

    ready: NDArray[np.float32]
    origin: Triple = (0, 0, 0)

    @property
    def shape(self) -> Triple:
        """Voxels of what is left."""
        i, j, k = self.ready.shape[1:]
        return i, j, k

    @property
    def positions_back(self) -> list[Positions]:
        """Per axis where the voxels of the volume lie among those that are left, or beside them."""
        return [places - begin for places, begin in zip(self.resampling.positions_back, self.origin, strict=True)]

    def read(self, box: Box) -> torch.Tensor:
        """A part of it.

        Args:
            box: Voxels of the other grid, none of them beyond it.

        Returns:
            (C, *box) float32, contiguous.
        """
        return torch.from_numpy(np.ascontiguousarray(self.ready[:, *box]))


@dataclass(frozen=True, eq=False)
class ResampledWithLabels(ResampledVolume):
    """A volume on another grid, and behind its channels one for each of some labels: 1 where a voxel has it, else 0.

    A voxel of the other grid has the value that takes most of what lies about it; of several the nearest, if it is one
    of them, else the smallest.

    Attributes:
        values: (I, J, K) integers on the grid of the volume: labels, and others.
        labels: Those that are channels.
    """

    values: NDArray[np.integer]
    labels: tuple[int, ...]

    def read(self, box: Box) -> torch.Tensor:
        """Resample a part.

        Args:
            box: Voxels of the other grid, none of them beyond it.

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
        """Where the voxels of the other grid lie: on one that fills the volume, to the bit where SciPy finds them.

        Values may share a voxel equally, and then the last bit decides which has it.
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
    """The two voxels between which each place lies along an axis, and how much each counts."""
    low = np.floor(places)
    first, second = low.astype(np.int64), np.ceil(places).astype(np.int64)
    return [(first, 1 - (places - low)), (second, places - low)]


def _sample_linear(array: NDArray[np.float32], positions: Sequence[Positions]) -> torch.Tensor:
    """(C, I, J, K) -> (C, len(positions[0]), ...), interpolated linearly along each axis."""
    lows = [int(each[0]) for each in positions]
    i, j, k = (slice(low, int(np.ceil(each[-1])) + 1) for low, each in zip(lows, positions, strict=True))
    part = torch.from_numpy(np.ascontiguousarray(array[:, i, j, k]))
    for axis, (low, each) in enumerate(zip(lows, positions, strict=True)):
        part = interpolate_axis(part, axis + 1, each - low)
    return part
