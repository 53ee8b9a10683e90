"""Pictures for TensorBoard: a slice of a validation case, with the reference left and the prediction right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from volseg.config import STORED
from volseg.image.geometry import Geometry, world_axis
from volseg.image.views import VIEWS, fullest_planes, grey_levels

#: Pixels of the longer side of each half: small slices are enlarged to about as many, large ones thinned out.
_SIDE_PX, _LARGEST_SIDE_PX = 512, 1024
_OUTLINE_PX = 2
_GAP_PX = 8

_Color = tuple[int, int, int]
_Voxel = TypeVar("_Voxel", bound=np.generic)


def compared_slice(
    image: NDArray[np.float32],
    reference: NDArray[np.integer],
    prediction: NDArray[np.integer],
    axes: str,
    spacing_mm: Sequence[float],
    colors: Mapping[int, _Color],
) -> NDArray[np.uint8]:
    """Draw the slice with the most labelled voxels in radiological view, once with each outline.

    It is perpendicular to the axis with the largest voxels: the slice plane of a scan, or a flat picture itself.

    Args:
        image: (I, J, K) intensities.
        reference: (I, J, K) label values.
        prediction: (I, J, K) label values.
        axes: Direction of each axis, such as "RAS", which is assumed where they are not known.
        spacing_mm: Voxel size along each axis.
        colors: Label value -> red, green, blue.

    Returns:
        (rows, columns, 3) RGB values.
    """
    stored = network_grid(image.shape, axes, spacing_mm)
    order = stored.to_canonical
    grid = stored.reordered(order)
    sizes = [np.inf if count == 1 else size for count, size in zip(grid.shape, grid.spacing_mm, strict=True)]
    view = next(view for view in VIEWS if sizes[view.through] == max(sizes))
    plane = fullest_planes(order.apply(reference) > 0)[view.through]
    grey = _sized(view.cut(order.apply(image), plane))
    background = np.repeat(grey_levels(grey).astype(np.uint8)[..., np.newaxis], 3, axis=-1)
    cuts = (_sized(view.cut(order.apply(values), plane)) for values in (reference, prediction))
    left, right = (_outlined(background, values, colors) for values in cuts)
    gap = np.zeros((len(left), _GAP_PX, 3), np.uint8)
    return np.concatenate([left, gap, right], axis=1)


def network_grid(shape: tuple[int, ...], axes: str, spacing_mm: Sequence[float]) -> Geometry:
    """Return a grid whose axes run in these directions; stored axes count as R, A, S."""
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    for axis, (code, size_mm) in enumerate(zip("RAS" if axes == STORED else axes, spacing_mm, strict=True)):
        affine[world_axis(code), axis] = size_mm if code in "RAS" else -size_mm
    return Geometry(shape, affine)  # type: ignore[arg-type]  # three axes


def _sized(picture: NDArray[_Voxel]) -> NDArray[_Voxel]:
    """Repeat pixels, or leave some out, until the longer side has about as many as wanted."""
    times = max(1, round(_SIDE_PX / max(picture.shape)))
    step = -(-max(picture.shape) // _LARGEST_SIDE_PX)
    return picture[::step, ::step].repeat(times, axis=0).repeat(times, axis=1)


def _outlined(
    background: NDArray[np.uint8], values: NDArray[np.integer], colors: Mapping[int, _Color]
) -> NDArray[np.uint8]:
    """Draw the inner edge of every label in its colour."""
    picture = background.copy()
    edge = _edge(values)
    for value, color in colors.items():
        picture[edge & (values == value)] = color
    return picture


def _edge(values: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Find the labelled pixels that are next to another value."""
    width = _OUTLINE_PX
    padded = np.pad(values, width, mode="edge")
    inner = slice(width, -width)
    neighbours = (
        *(padded[inner, 2 * width :], padded[inner, : -2 * width]),
        *(padded[2 * width :, inner], padded[: -2 * width, inner]),
    )
    return (values > 0) & np.any([values != neighbour for neighbour in neighbours], axis=0)
