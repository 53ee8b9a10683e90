"""Boxes of voxels: parts of a grid, as arrays are indexed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Triple = tuple[int, int, int]


class Box(NamedTuple):
    """A part of a grid: `array[box]` crops a NumPy array or a tensor to it.

    Every slice states its start and its stop, and no step.

    Attributes:
        i: Along the first axis.
        j: Along the second.
        k: Along the third.
    """

    i: slice
    j: slice
    k: slice

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Box:
        """Return the box of a whole grid of three axes."""
        return cls(*(slice(0, size) for size in shape))

    @classmethod
    def around(cls, mask: NDArray[np.bool_ | np.integer]) -> Box | None:
        """Return the smallest box around all nonzero voxels; None if there are none.

        Args:
            mask: (I, J, K).
        """
        found = [np.flatnonzero(mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
        if not found[0].size:
            return None
        return cls(*(slice(int(indices[0]), int(indices[-1]) + 1) for indices in found))

    @property
    def origin(self) -> tuple[int, int, int]:
        """The first voxel along each axis."""
        return self.i.start, self.j.start, self.k.start

    @property
    def shape(self) -> tuple[int, int, int]:
        """The number of voxels along each axis."""
        return self.i.stop - self.i.start, self.j.stop - self.j.start, self.k.stop - self.k.start

    def union(self, *others: Box) -> Box:
        """Return the smallest box that contains this one and the others."""
        return Box(
            *(
                slice(min(side.start for side in sides), max(side.stop for side in sides))
                for sides in zip(self, *others, strict=True)
            )
        )

    def intersection(self, other: Box) -> Box:
        """Return the intersection with another box; empty where they do not overlap."""
        return Box(*(_common(one, another) for one, another in zip(self, other, strict=True)))

    def overlaps(self, other: Box) -> bool:
        """Return whether both boxes have a voxel in common."""
        return all(max(a.start, b.start) < min(a.stop, b.stop) for a, b in zip(self, other, strict=True))

    def shifted(self, offset: Sequence[int]) -> Box:
        """Return the box shifted by an offset in voxels along each axis."""
        return Box(*(slice(side.start + far, side.stop + far) for side, far in zip(self, offset, strict=True)))

    def seen_from(self, origin: Sequence[int]) -> Box:
        """Return the same voxels in indices relative to another origin, such as that of a crop."""
        return Box(*(slice(side.start - zero, side.stop - zero) for side, zero in zip(self, origin, strict=True)))

    def grown(self, margin: Sequence[int], shape: Sequence[int]) -> Box:
        """Return the box grown by a margin on each side, clipped to the grid.

        Args:
            margin: Voxels per axis.
            shape: Of the grid.
        """
        return Box(
            *(
                slice(max(0, side.start - extra), min(size, side.stop + extra))
                for side, extra, size in zip(self, margin, shape, strict=True)
            )
        )

    def with_side(self, axis: int, side: slice) -> Box:
        """Return the box with the slice along one axis replaced."""
        return Box(*(side if n == axis else every for n, every in enumerate(self)))


def _common(one: slice, other: slice) -> slice:
    start = max(one.start, other.start)
    return slice(start, max(start, min(one.stop, other.stop)))
