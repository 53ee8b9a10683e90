"""Volumes (images) and masks, on a grid."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volseg.errors import DataError, GeometryError
from volseg.image.geometry import Geometry
from volseg.image.terminology import Structure, default_color
from volseg.text import is_text

#: The largest label value a mask can hold.
LARGEST_LABEL = 65535
#: How far from an integer a label may lie that was not stored as one: float32 and decimals round it.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Label:
    """One class of a mask.

    Attributes:
        value: The integer that marks its voxels, at least 1; 0 is always background.
        name: Its name.
        color: Display colour, (red, green, blue) of 0 to 255, or None for a default.
        parts: For a region of several labels, which may overlap others: the values it unites in a reference. In a mask
            a voxel shows the last region painted over it.
        structure: Its coded meaning; None if not stated.
        aliases: Other names of it in references: names, or codes as in "SCT:10200004".
    """

    value: int
    name: str
    color: tuple[int, int, int] | None = None
    parts: tuple[int, ...] = ()
    structure: Structure | None = None
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.value < 1:
            raise DataError(f"label {self.name!r} has value {self.value}; 0 is background, labels start at 1")
        if not self.name.strip():
            raise DataError(f"the label of value {self.value} has no name")
        if not is_text(self.name):
            raise DataError(f"label {self.name!r} cannot be encoded as UTF-8", hint="give it another name")

    @property
    def display_color(self) -> tuple[int, int, int]:
        """The colour it is shown in, (red, green, blue) of 0 to 255.

        Its own, else the one recommended for the structure it marks, else one that depends only on its value.
        """
        if self.color is not None:
            return self.color
        if self.structure is not None and self.structure.color is not None:
            return self.structure.color
        return default_color(self.value)


@dataclass(frozen=True, eq=False)
class Volume:
    """An image of one or more channels.

    Attributes:
        array: (C, I, J, K) float32, may contain NaN and infinities from the file.
        geometry: The grid of every channel.
    """

    array: NDArray[np.float32]
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.array.ndim != 4 or self.array.shape[1:] != self.geometry.shape:
            raise DataError(
                f"a volume of {self.geometry.shape} voxels needs a (C, I, J, K) array, got {self.array.shape}"
            )


@dataclass(frozen=True, eq=False)
class Mask:
    """A segmentation: one integer per voxel.

    Attributes:
        array: (I, J, K) unsigned integer, 0 is background.
        geometry: Its grid.
        labels: The labels of the values. Readers must not leave other values in the array; this is not checked here, as
            it would cost a pass over the volume.
    """

    array: NDArray[np.unsignedinteger]
    geometry: Geometry
    labels: tuple[Label, ...] = ()

    def __post_init__(self) -> None:
        if self.array.shape != self.geometry.shape:
            raise DataError(
                f"a mask of {self.geometry.shape} voxels needs an array of that shape, got {self.array.shape}"
            )
        if not np.issubdtype(self.array.dtype, np.unsignedinteger):
            raise DataError(f"a mask is of unsigned integers, got {self.array.dtype}")

    @property
    def volumes_ml(self) -> dict[str, float]:
        """Return label name -> volume in millilitres (thousands of pixels for pictures), 0 for absent labels."""
        import fastremap

        values, counts = fastremap.unique(self.array, return_counts=True)
        found = dict(zip(values.tolist(), counts.tolist(), strict=True))
        return {label.name: found.get(label.value, 0) * self.geometry.voxel_volume_ml for label in self.labels}

    def only(self, values: Collection[int]) -> Mask:
        """Return the mask with all other values set to background."""
        import fastremap

        return Mask(fastremap.mask_except(self.array, [value for value in values if value]), self.geometry, self.labels)

    def within(self, region: NDArray[np.bool_]) -> Mask:
        """Return the mask with background wherever `region`, (I, J, K), is false."""
        return Mask(np.where(region, self.array, self.array.dtype.type(0)), self.geometry, self.labels)

    def on(self, geometry: Geometry) -> Mask:
        """Return the mask in the storage order of another grid with the same positions; nothing is resampled.

        Raises:
            GeometryError: If the grids do not cover the same voxels.
        """
        if self.geometry.is_drawn_on(geometry):
            return Mask(self.array, geometry, self.labels)
        mine, other = self.geometry.to_canonical, geometry.to_canonical
        if not self.geometry.reordered(mine).matches(geometry.reordered(other)):
            raise GeometryError(
                self.geometry.mismatch(geometry, "the mask", "the image"),
                hint="a mask belongs to the image it was made from",
            )
        array = np.ascontiguousarray(other.inverse().apply(mine.apply(self.array)))
        return Mask(array, geometry, self.labels)

    def placed_on(self, geometry: Geometry) -> Mask:
        """Return the mask on a larger grid that it was cropped from; nothing is resampled.

        Outside of this mask, the result is background.

        Raises:
            GeometryError: If the grids share no voxels, or marked voxels lie outside the other grid.
        """
        if not self.geometry.is_part_of(geometry):
            return self.on(geometry)
        mine, other = self.geometry.to_canonical, geometry.to_canonical
        part, whole = self.geometry.reordered(mine), geometry.reordered(other)
        first = part.first_in(whole) or (0, 0, 0)
        array, placed = mine.apply(self.array), np.zeros(whole.shape, self.array.dtype)
        ends = [(at, min(at + size, room)) for at, size, room in zip(first, part.shape, whole.shape, strict=True)]
        shared = array[tuple(slice(max(at, 0) - at, end - at) for at, end in ends)]
        if outside := np.count_nonzero(array) - np.count_nonzero(shared):
            raise GeometryError(
                f"the mask ({self.geometry}) marks {outside} voxels outside the image ({geometry})",
                hint="crop both alike, or give the image that the mask was drawn on",
            )
        placed[tuple(slice(max(at, 0), end) for at, end in ends)] = shared
        return Mask(np.ascontiguousarray(other.inverse().apply(placed)), geometry, self.labels)


def label_values(array: NDArray[np.generic], name: object, step: float = 0.0) -> NDArray[np.unsignedinteger]:
    """Check that all voxels are label values, and convert them to the smallest dtype.

    Args:
        array: Not empty, of any shape; integers in any dtype.
        name: Its name in errors.
        step: Distance between representable values, for scaled integers. A label may be off by half of that: with steps
            of 1/255 a 1 is stored exactly, with 0.0039 it is 0.9984.

    Returns:
        The same values as uint8 or uint16.

    Raises:
        DataError: If a voxel holds anything else.
    """
    if np.issubdtype(array.dtype, np.floating):
        whole = np.rint(array)
        # Steps of 1 and more cannot tell one label from the next.
        tolerance = max(_ROUNDING, step / 2 * (1 + _ROUNDING)) if step < 1 else _ROUNDING
        if not np.isfinite(array).all() or np.abs(array - whole).max() > tolerance:
            raise DataError(f"{name} is not a label map: some voxels are not whole numbers", hint="is it the image?")
        array = whole
    elif not (np.issubdtype(array.dtype, np.integer) or array.dtype == bool):
        raise DataError(f"{name} is not a label map: its voxels are of type {array.dtype}", hint="is it the image?")
    smallest, largest = int(array.min()), int(array.max())
    if smallest < 0 or largest > LARGEST_LABEL:
        raise DataError(
            f"{name} is not a label map: values from {smallest} to {largest}, allowed are 0 to {LARGEST_LABEL}",
            hint="is it the image?",
        )
    return array.astype(np.uint8 if largest <= 255 else np.uint16)
