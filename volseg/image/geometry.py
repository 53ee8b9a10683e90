"""Geometry of voxels in the patient: affines, axes and millimetres, in this one place.

Arrays are indexed `[i, j, k]`; world coordinates are RAS+ millimetres (x grows towards the patient's Right, y towards
Anterior, z towards Superior), as in NIfTI. DICOM, NRRD and ITK use LPS+; the flip between the two is `flip_lps_ras` and
exists nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from volseg.errors import GeometryError

#: Two grids are the same when no corner voxel lies further apart than this share of the smallest voxel size. Headers
#: hold rounded numbers: float32 moves a corner 1000 mm away by 0.0001 mm, and six digits there, five at 250 mm or a
#: DICOM position of two decimals by less than 0.01 mm. That is 5 % of a voxel of 0.2 mm, and few are finer. What lies
#: elsewhere lies further off: half a voxel where a program took the edge of a voxel for its centre.
GRID_TOLERANCE = 0.05

#: Unit of a grid: millimetres, or the pixels of a picture that states no size.
Unit = Literal["mm", "px"]

_Scalar = TypeVar("_Scalar", bound=np.generic)

_POSITIVE_CODES = "RAS"
_NEGATIVE_CODES = "LPI"
#: Axes whose unit parallelepiped has a smaller volume than this are too close to a common plane to be trusted.
_SMALLEST_DETERMINANT = 1e-3


def world_axis(code: str) -> int:
    """Return the world axis x, y or z (0, 1, 2) along which a letter points: R and L 0, A and P 1, S and I 2.

    Raises:
        ValueError: If it is not one of these letters.
    """
    return (_POSITIVE_CODES if code in _POSITIVE_CODES else _NEGATIVE_CODES).index(code)


def flip_lps_ras(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn an LPS+ affine into a RAS+ one, or back: the same flip of x and y serves both ways.

    Args:
        affine: (4, 4) voxel index -> world mm.

    Returns:
        (4, 4) float64, a new array.
    """
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(affine, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class AxisOrder:
    """A lossless change of storage order: a permutation of the axes and a reversal of some of them.

    Attributes:
        axes: `axes[n]` is the old axis that becomes the new axis `n`.
        flips: `flips[n]`: whether the new axis `n` runs opposite to the old one.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply(self, array: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """Reorder the last three axes of `array`, as a view without copying."""
        lead = array.ndim - 3
        moved = array.transpose(*range(lead), *(lead + axis for axis in self.axes))
        backwards = tuple(lead + axis for axis, flip in enumerate(self.flips) if flip)
        return np.flip(moved, backwards)

    def inverse(self) -> AxisOrder:
        """The order that undoes this one."""
        axes = tuple(self.axes.index(axis) for axis in range(3))
        return AxisOrder(axes, tuple(self.flips[axis] for axis in axes))  # type: ignore[arg-type]  # three each


@dataclass(frozen=True, eq=False)
class Geometry:
    """The grid of a volume in the patient.

    Attributes:
        shape: Voxels along (i, j, k), each at least 1.
        affine: (4, 4) float64, homogeneous voxel index -> RAS+ mm of the voxel's centre. Columns may be oblique and
            sheared (gantry tilt); they must span space.
        unit: Unit of the affine. A picture without a stated pixel size is in pixels: then all lengths named `_mm` are
            in pixels, and are to be shown as such.

    Raises:
        GeometryError: If a volume cannot have this shape or affine.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    unit: Unit = "mm"

    def __post_init__(self) -> None:
        shape = tuple(int(size) for size in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError(f"a volume needs three axes of at least one voxel, got shape {tuple(self.shape)}")
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError(f"the affine must be 4x4 and finite, got {affine.tolist()}")
        if not np.array_equal(affine[3], [0.0, 0.0, 0.0, 1.0]):
            raise GeometryError(f"the affine's last row must be 0 0 0 1, got {affine[3].tolist()}")
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        if spacing.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / spacing)) < _SMALLEST_DETERMINANT:
            raise GeometryError(f"the affine's axes do not span space: {affine[:3, :3].tolist()}")
        affine.flags.writeable = False
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def from_lps(
        cls, shape: tuple[int, int, int], origin_mm: ArrayLike, direction: ArrayLike, spacing_mm: ArrayLike
    ) -> Geometry:
        """Build a geometry from what ITK, NRRD and DICOM state.

        Args:
            shape: Voxels along (i, j, k).
            origin_mm: (3,) LPS+ position of the first voxel's centre.
            direction: (3, 3), column n is the LPS+ unit vector of axis n.
            spacing_mm: (3,) distance between voxel centres along each axis.

        Returns:
            The same grid in RAS+.
        """
        affine = np.eye(4)
        affine[:3, :3] = np.asarray(direction, dtype=np.float64) * np.asarray(spacing_mm, dtype=np.float64)
        affine[:3, 3] = origin_mm
        return cls(shape, flip_lps_ras(affine))

    @classmethod
    def of_picture(
        cls, columns: int, rows: int, pixel_mm: tuple[float, float] | None = None, *, slices: int = 1
    ) -> Geometry:
        """Build the grid of a picture, placed as in ITK: columns run towards L, rows towards P, first pixel at 0.

        Args:
            columns: Pixels in a row, along i.
            rows: Pixels in a column, along j.
            pixel_mm: Spacing of columns and of rows; None for a grid in pixels.
            slices: Number of slices along k; they are 1 apart, in the unit of the grid.
        """
        grid = cls.from_lps((columns, rows, slices), (0, 0, 0), np.eye(3), (*(pixel_mm or (1.0, 1.0)), 1.0))
        return grid if pixel_mm else replace(grid, unit="px")

    @property
    def is_flat(self) -> bool:
        """True if there is a single slice."""
        return self.shape[2] == 1

    @property
    def lps_affine(self) -> NDArray[np.float64]:
        """(4, 4) float64 voxel index -> LPS+ mm, for DICOM, NRRD and ITK."""
        return flip_lps_ras(self.affine)

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along i, j and k."""
        # Squares are summed in sorted order, so that a flip or a permutation of world axes changes no bit.
        squares = np.sort(self.affine[:3, :3] ** 2, axis=0)
        i, j, k = np.sqrt(squares.sum(axis=0))
        return float(i), float(j), float(k)

    @property
    def direction(self) -> NDArray[np.float64]:
        """(3, 3) float64, column n is the RAS+ unit vector of axis n."""
        return self.affine[:3, :3] / np.asarray(self.spacing_mm)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres, accounting for shear."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @cached_property
    def _world_axes(self) -> tuple[int, int, int]:
        """The closest world axis for each voxel axis, each used once, by the largest sum of cosines."""
        best = max(permutations(range(3)), key=self._closeness)
        return best[0], best[1], best[2]

    def _closeness(self, world_axes: tuple[int, ...]) -> tuple[float, ...]:
        """Score how well voxel axes run along these world axes: the sum of cosines, then a tie-breaker.

        At exactly 45 degrees two assignments are equally close. The one with the larger reordered direction wins:
        unlike taking the first, this does not depend on the storage order of the voxels.
        """
        towards = self.direction[:, [world_axes.index(world) for world in range(3)]]
        towards = towards * np.where(np.diag(towards) < 0, -1.0, 1.0)
        return float(np.trace(towards).round(6)), *(towards.round(6) + 0.0).ravel().tolist()

    @property
    def axis_codes(self) -> str:
        """The anatomical direction in which each voxel axis increases, as three letters: "RAS", "LPI", "PSR" ..."""
        signs = (self.affine[world, n] >= 0 for n, world in enumerate(self._world_axes))
        return "".join(
            (_POSITIVE_CODES if positive else _NEGATIVE_CODES)[world]
            for world, positive in zip(self._world_axes, signs, strict=True)
        )

    @property
    def to_canonical(self) -> AxisOrder:
        """The order that brings the axes as close to R, A, S as a permutation and flips can."""
        return self.order_towards(_POSITIVE_CODES)

    def order_towards(self, codes: str) -> AxisOrder:
        """Return the order that brings the axes as close to some directions as a permutation and flips can.

        Args:
            codes: Three letters, one for each new axis, of R or L, A or P, and S or I: "LPS".
        """
        axes = tuple(self._world_axes.index(world_axis(code)) for code in codes)
        flips = tuple(self.axis_codes[axis] != code for axis, code in zip(axes, codes, strict=True))
        return AxisOrder(axes, flips)  # type: ignore[arg-type]  # three each

    def reordered(self, order: AxisOrder) -> Geometry:
        """Return the grid of an array after `order.apply`: the same voxels at the same positions."""
        index = np.zeros((4, 4))
        index[3, 3] = 1.0
        for new, (old, flip) in enumerate(zip(order.axes, order.flips, strict=True)):
            index[old, new] = -1.0 if flip else 1.0
            index[old, 3] = self.shape[old] - 1 if flip else 0.0
        shape = tuple(self.shape[old] for old in order.axes)
        return Geometry(shape, self.affine @ index, self.unit)  # type: ignore[arg-type]  # three axes

    def respaced(self, spacing_mm: tuple[float, float, float]) -> Geometry:
        """Return a grid with another spacing, the same axes and centre, and as much of the field of view as fits.

        Args:
            spacing_mm: New spacing along i, j, k.

        Returns:
            The new grid; its voxel count per axis is the extent over the new spacing, rounded, at least 1.
        """
        ratio = np.asarray(spacing_mm, dtype=np.float64) / np.asarray(self.spacing_mm)
        i, j, k = np.maximum(1, np.round(np.asarray(self.shape) / ratio)).astype(int).tolist()
        return self.about_centre((i, j, k), spacing_mm)

    def refitted(self, spacing_mm: tuple[float, float, float]) -> Geometry:
        """Return a grid with the same axes that fills the same extent exactly, with whole voxels.

        Args:
            spacing_mm: Desired spacing along i, j, k; the result is as close to it as possible.
        """
        ratio = np.asarray(self.spacing_mm) / np.asarray(spacing_mm, dtype=np.float64)
        i, j, k = np.maximum(1, np.round(ratio * np.asarray(self.shape))).astype(int).tolist()
        sizes = zip(self.spacing_mm, self.shape, (i, j, k), strict=True)
        fitted_mm = [size_mm * size / new for size_mm, size, new in sizes]
        return self.about_centre((i, j, k), (fitted_mm[0], fitted_mm[1], fitted_mm[2]))

    def about_centre(self, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Geometry:
        """Return a grid with the same axes and centre, but other voxels."""
        ratio = np.asarray(spacing_mm, dtype=np.float64) / np.asarray(self.spacing_mm)
        i, j, k = ((np.asarray(self.shape) - 1) / 2 - (np.asarray(shape) - 1) / 2 * ratio).tolist()
        return self.from_voxel((i, j, k), shape, spacing_mm)

    def spaced_by_monai(
        self, spacing_mm: tuple[float, float, float]
    ) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
        """Compute the grid that MONAI's `Spacingd` makes (`monai.data.utils.compute_shape_offset`).

        It begins at the first voxel. But where the axes are not perpendicular, if only because the affine was rounded,
        MONAI finds no first corner and uses a grid about the centre instead, which it takes to be at half of the shape.

        Args:
            spacing_mm: New spacing along i, j, k.

        Returns:
            Its shape, and the position of its first voxel in voxel indices of this grid.
        """
        ratio = np.asarray(spacing_mm, dtype=np.float64) / np.asarray(self.spacing_mm)
        shape = np.asarray(self.shape)
        new = np.round((shape - 1) / ratio + 1).astype(int)
        axes = self.affine[:3, :3]
        skew = np.linalg.cholesky(axes.T @ axes).T / np.asarray(spacing_mm)[:, np.newaxis]
        before_first = np.minimum(skew * (shape - 1), 0.0).sum(axis=1)
        first = np.zeros(3) if np.allclose(before_first, 0.0) else shape / 2 - new / 2 * ratio
        (i, j, k), (x, y, z) = new.tolist(), first.tolist()
        return (i, j, k), (x, y, z)

    def from_voxel(
        self, first: tuple[float, float, float], shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
    ) -> Geometry:
        """Return a grid with the same axes, but another first voxel, shape and spacing.

        Args:
            first: Index of its first voxel in this grid.
            shape: Voxels along i, j, k.
            spacing_mm: Spacing along i, j, k.
        """
        # Voxel n of the new grid lies at old index  first + n * ratio.
        index = np.diag([*(np.asarray(spacing_mm, dtype=np.float64) / np.asarray(self.spacing_mm)), 1.0])
        index[:3, 3] = first
        return Geometry(shape, self.affine @ index, self.unit)

    def part(self, box: Sequence[slice]) -> Geometry:
        """Return the grid of a crop.

        Args:
            box: The range of voxels along each axis.
        """
        shift = np.eye(4)
        shift[:3, 3] = [side.start for side in box]
        i, j, k = (side.stop - side.start for side in box)
        return Geometry((i, j, k), self.affine @ shift, self.unit)

    def world(self, index: ArrayLike) -> NDArray[np.float64]:
        """Map (..., 3) voxel indices to (..., 3) RAS+ mm."""
        return np.asarray(index, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    @property
    def corners_mm(self) -> NDArray[np.float64]:
        """(8, 3) RAS+ centres of the corner voxels, in index order."""
        ends = [(0, size - 1) for size in self.shape]
        return self.world(np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3))

    def distance_mm(self, other: Geometry) -> float:
        """Return the largest distance between corresponding corner voxels; infinite when the shapes differ."""
        if self.shape != other.shape:
            return float("inf")
        return float(np.linalg.norm(self.corners_mm - other.corners_mm, axis=1).max())

    @property
    def tolerance_mm(self) -> float:
        """The distance up to which two corners count as the same position; see `GRID_TOLERANCE`."""
        return GRID_TOLERANCE * min(self.spacing_mm)

    def matches(self, other: Geometry, tolerance_mm: float | None = None) -> bool:
        """Return whether both grids describe the same voxels at the same positions.

        Args:
            other: In the same storage order.
            tolerance_mm: Largest allowed distance of corners; by default what rounding in headers can cause.
        """
        limit_mm = min(self.tolerance_mm, other.tolerance_mm) if tolerance_mm is None else tolerance_mm
        return self.distance_mm(other) <= limit_mm

    def is_drawn_on(self, other: Geometry) -> bool:
        """Return whether these are the grids of a picture and of a drawing on it, only one of which states a size."""
        lie_alike = self.unit == "px" or np.array_equal(np.sign(self.affine[:3, :3]), np.sign(other.affine[:3, :3]))
        return self.unit != other.unit and self.shape == other.shape and lie_alike

    def mismatch(self, other: Geometry, mine: str, its: str) -> str:
        """Describe how two grids differ, including the distance if their shapes are equal.

        Args:
            other: The other grid, in any storage order.
            mine: Name of what lies on this one: "the mask".
            its: Name of what lies on the other.
        """
        if "px" in (self.unit, other.unit):
            return f"{mine} has {self}, but {its} has {other}: different grids"
        distance_mm = self.reordered(self.to_canonical).distance_mm(other.reordered(other.to_canonical))
        voxels = distance_mm / min(self.spacing_mm)
        apart = f", up to {distance_mm:.3g} {self.unit} apart ({voxels:.2g} voxels)" if np.isfinite(distance_mm) else ""
        return f"{mine} has {self}, but {its} has {other}: different grids{apart}"

    def is_part_of(self, whole: Geometry) -> bool:
        """Return whether this grid shares some, but not all voxels with another: a crop of it, or reaching beyond it.

        A grid of equal shape that is shifted by whole voxels is not a part: there, an origin is wrong. Pictures in
        pixels all begin at 0, so their position within another one is unknown.
        """
        if "px" in (self.unit, whole.unit):
            return False
        part, rest = self.reordered(self.to_canonical), whole.reordered(whole.to_canonical)
        return part.shape != rest.shape and part.first_in(rest) is not None

    def first_in(self, whole: Geometry) -> tuple[int, int, int] | None:
        """Return the index of this grid's first voxel in another grid of which this one is a part.

        Args:
            whole: In the same storage order.

        Returns:
            (i, j, k), negative where this grid begins outside the other one; None when their voxels do not coincide, or
            they have none in common.
        """
        offset = np.rint(np.linalg.solve(whole.affine[:3, :3], self.affine[:3, 3] - whole.affine[:3, 3]))
        if (offset >= whole.shape).any() or (offset + self.shape <= 0).any():
            return None
        shift = np.eye(4)
        shift[:3, 3] = offset
        i, j, k = map(int, offset)
        return (i, j, k) if self.matches(Geometry(self.shape, whole.affine @ shift)) else None

    def __str__(self) -> str:
        if self.unit == "px":
            return "x".join(str(size) for size in self.shape[: 2 if self.is_flat else 3]) + " pixels"
        shape = "x".join(str(size) for size in self.shape)
        spacing = " x ".join(f"{size:.4g}" for size in self.spacing_mm)
        return f"{shape} voxels of {spacing} mm, {self.axis_codes}"
