"""Smooth shapes as signed distances to their surface: millimetres, negative inside.

Distances are exact near the surface, which is sufficient for edges. Points are (3, N) float32 RAS+ millimetres.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]
Triple = tuple[float, float, float]
#: A path from point to point.
Polyline = tuple[Triple, ...]
#: Radius of an ellipsoid along an axis on which it is infinite.
ENDLESS = float("inf")


def ellipsoid(points_mm: Array, center_mm: Triple, radii_mm: Triple) -> Array:
    """Return the distance to an ellipsoid along the axes; with a radius of `ENDLESS`, it is a cylinder."""
    scaled = (points_mm - _column(center_mm)) / _column(radii_mm)
    # |p| of the unit sphere, divided by its gradient; a small number avoids 0 / 0 at the centre.
    length = np.sqrt(np.einsum("an,an->n", scaled, scaled) + 1e-6)
    scaled /= _column(radii_mm)
    slope = np.sqrt(np.einsum("an,an->n", scaled, scaled) + 1e-6 / min(radii_mm) ** 2)
    return np.asarray(length * (length - 1) / slope, dtype=np.float32)


def tube(points_mm: Array, path_mm: Polyline, radii_mm: float | Sequence[float]) -> Array:
    """Return the distance to a tube around straight lines from point to point.

    Args:
        points_mm: Points to evaluate.
        path_mm: At least two points.
        radii_mm: Radius of the tube, at each of these points or everywhere.
    """
    radii = np.broadcast_to(np.asarray(radii_mm, dtype=np.float32), len(path_mm))
    nearest = np.full(points_mm.shape[1], np.inf, dtype=np.float32)
    for begin, end, wide, narrow in zip(path_mm, path_mm[1:], radii, radii[1:], strict=False):
        along = np.subtract(end, begin, dtype=np.float32)
        offset = points_mm - _column(begin)
        share = np.clip(along @ offset / (along @ along), 0, 1)
        offset -= along[:, np.newaxis] * share
        distance = np.sqrt(np.einsum("an,an->n", offset, offset)) - (wide + (narrow - wide) * share)
        np.minimum(nearest, distance, out=nearest)
    return nearest


def union(first: Array, second: Array, blend_mm: float) -> Array:
    """Join two shapes, with a fillet of about `blend_mm` where they meet."""
    share = np.clip(0.5 + 0.5 * (second - first) / blend_mm, 0, 1)
    return second + (first - second) * share - blend_mm * share * (1 - share)


def without(first: Array, second: Array, blend_mm: float) -> Array:
    """Cut the second shape out of the first, with an edge rounded over about `blend_mm`."""
    return -union(-first, second, blend_mm)


def rotation(vector: ArrayLike) -> NDArray[np.float64]:
    """Return the (3, 3) rotation about a vector by its length in radians (Rodrigues' formula)."""
    x, y, z = np.asarray(vector, dtype=np.float64)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = float(np.sqrt(x * x + y * y + z * z))
    # sinc(t) is sin(pi t) / (pi t): sin(a) / a and (1 - cos(a)) / a^2 = sinc(a/2)^2 / 2, defined at 0 too.
    half = np.sinc(angle / (2 * np.pi))
    return np.asarray(np.eye(3) + np.sinc(angle / np.pi) * cross + half**2 / 2 * cross @ cross)


def _column(triple: ArrayLike) -> Array:
    return np.asarray(triple, dtype=np.float32)[:, np.newaxis]
