"""Contours: a slice of a mask to polygons and back, as RT Structure Sets store them.

Polygons run along the edges of voxels, not through their centres, so they enclose exactly the area of the voxels and a
rasteriser that asks whether a voxel's centre is inside gives the mask back. All coordinates are voxel indices (i, j),
the centre of voxel (0, 0) is at (0, 0) and its corners at +-0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

#: (N, 2) float64, the corners of a closed polygon in order; the last is joined to the first.
Polygon = NDArray[np.float64]


def trace(mask: NDArray[np.bool_]) -> list[Polygon]:
    """Trace the boundaries of the areas of a slice.

    Voxels that touch at a corner only belong to different areas. Each area has one outer ring, and a ring for each of
    its holes. A ring starts at its corner of smallest i, then smallest j. It may pass a corner twice, where voxels
    touch; it crosses neither itself nor another ring.

    Args:
        mask: (I, J).

    Returns:
        Rings of at least four corners, none of them on a straight line between its neighbours. Outer rings have a
        positive `signed_area`, holes a negative one. The order depends on nothing but the mask.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    first = np.array([rows[0], columns[0]])
    padded = np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1)
    corners, along_i, along_j, starts_outer = _corners(padded)
    points = corners + (first - 0.5)
    return [points[ring] for ring in _rings(along_i.tolist(), along_j.tolist(), starts_outer.tolist())]


def with_keyholes(rings: Sequence[Polygon]) -> list[Polygon]:
    """Join each hole to the ring around it by a channel of no width, so that one polygon stands for one area.

    A channel runs from the hole's first corner straight towards smaller i, along edges of voxels, to the first ring it
    meets. It therefore crosses nothing and passes no voxel's centre. The polygon is right by the even-odd and by the
    nonzero winding rule (PS3.3 section C.8.8.6.3 describes the technique).

    Args:
        rings: All rings of a slice, as `trace` gives them.

    Returns:
        A polygon per outer ring; its `signed_area` is the number of the area's voxels.
    """
    if not rings:
        return []
    corners = np.rint(np.concatenate(rings) + 0.5).astype(np.int64)
    ends = np.cumsum([len(ring) for ring in rings])
    starts = ends - [len(ring) for ring in rings]
    following = np.arange(1, len(corners) + 1)
    following[ends - 1] = starts
    is_hole = np.array([signed_area(ring) < 0 for ring in rings])
    edges, meetings = _channels(corners, following, starts[is_hole])
    # Of several channels to one edge, the farthest from the edge's start comes first: each is put next to the start.
    order = np.argsort(-np.abs(meetings - corners[edges]).sum(axis=1), kind="stable")
    chain = _Chain(corners.tolist(), following.tolist())
    holes = zip(edges[order], meetings[order], starts[is_hole][order], ends[is_hole][order], strict=True)
    for edge, meeting, start, end in holes:
        chain.insert(int(edge), meeting.tolist(), int(start), int(end) - 1)
    return [chain.polygon(start) for start in starts[~is_hole].tolist()]


def fill(polygons: Sequence[Polygon], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Rasterise polygons: return the voxels whose centres are inside an odd number of them.

    A centre on an edge is inside when the area lies towards larger i of it, or, on an edge along i, towards larger j:
    of two polygons that share an edge, exactly one has it.

    Args:
        polygons: Finite corners; what lies outside the slice is left out.
        shape: (I, J) of the slice.

    Returns:
        (I, J).
    """
    filled = np.zeros(shape, dtype=np.bool_)
    i, j = _crossings(polygons, shape)
    if not len(i):
        return filled
    first, last = (i.min(), j.min()), (i.max(), j.max() + 1)
    size = (last[0] - first[0] + 1, last[1] - first[1])
    toggles = np.bincount((i - first[0]) * size[1] + j - first[1], minlength=size[0] * size[1]) % 2 == 1
    inside = np.logical_xor.accumulate(toggles.reshape(size)[:-1], axis=0)
    filled[first[0] : last[0], first[1] : last[1]] = inside
    return filled


def signed_area(polygon: Polygon) -> float:
    """Return the enclosed area in voxels, positive when the corners turn from the i axis towards the j axis."""
    i, j = (polygon - polygon[0]).T
    return float(i @ np.roll(j, -1) - j @ np.roll(i, -1)) / 2


def _corners(
    padded: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Find all corners of boundaries, and how they are joined.

    Each line of the grid meets an even number of corners; the first is joined to the second, the third to the fourth.
    Where two areas touch at a corner, there are two corners at one place, one for each area.

    Returns:
        (N, 2) corners by i, then j, in units of voxels from the corner of the first inner voxel; (N,) the corner at the
        other end of the edge along i, and along j; (N,) whether the voxel towards larger i and j is set.
    """
    a, b, c, d = padded[:-1, :-1], padded[1:, :-1], padded[:-1, 1:], padded[1:, 1:]
    touching = (a == d) & (b == c) & (a != b)
    i, j = np.nonzero((a ^ b ^ c ^ d) | touching)
    twice = touching[i, j]
    number = np.repeat(np.arange(len(i)), 1 + twice)
    is_second = np.append(False, number[1:] == number[:-1])
    # Of two corners at one place, the first ends an edge along j and the second starts one. Along i it is the same
    # where the voxels before and after the place are set, and the other way round where the other two are.
    starts_along_i = twice[number] & (is_second == a[i, j][number])
    i, j, inside = i[number], j[number], d[i, j][number]
    by_j = np.lexsort((starts_along_i, i, j))
    along_i = np.empty_like(by_j)
    along_i[by_j] = by_j.reshape(-1, 2)[:, ::-1].ravel()
    along_j = np.arange(len(i)) ^ 1
    return np.column_stack([i, j]), along_i, along_j, inside


def _rings(along_i: list[int], along_j: list[int], starts_outer: list[bool]) -> list[list[int]]:
    """Follow the edges from corner to corner, from the first corner of each ring."""
    rings = []
    is_done = bytearray(len(along_i))
    for start, is_outer in enumerate(starts_outer):
        if is_done[start]:
            continue
        odd, even = (along_i, along_j) if is_outer else (along_j, along_i)
        ring, corner = [], start
        while not is_done[corner]:
            ring += [corner, odd[corner]]
            is_done[corner] = is_done[odd[corner]] = True
            corner = even[odd[corner]]
        rings.append(ring)
    return rings


def _channels(
    corners: NDArray[np.int64], following: NDArray[np.int64], starts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find, for the first corner of each hole, the next edge along j towards smaller i, and where it is met.

    Returns:
        (H,) the corner that the edge starts from, (H, 2) the meeting point.
    """
    edges = np.flatnonzero(corners[:, 0] == corners[following, 0])
    ends = np.stack([corners[edges, 1], corners[following[edges], 1]])
    edge, j = _ranges(ends.min(axis=0), np.abs(ends[1] - ends[0]) + 1)
    # All points of the grid on these edges, line after line: the one before a hole's corner is the one it meets.
    width = corners[:, 0].max() + 1
    places = j * width + corners[edges[edge], 0]
    order = np.argsort(places, kind="stable")
    before = order[np.searchsorted(places[order], corners[starts, 1] * width + corners[starts, 0]) - 1]
    return edges[edge[before]], np.column_stack([corners[edges[edge[before]], 0], j[before]])


class _Chain:
    """Rings as linked lists of points, so that a hole is inserted into a ring without moving anything."""

    def __init__(self, points: list[list[int]], following: list[int]) -> None:
        self._points = points
        self._following = following

    def insert(self, edge: int, meeting: list[int], start: int, end: int) -> None:
        """Insert the ring `start` ... `end` at the point `meeting` of the edge that starts at `edge`."""
        there, back = len(self._points), len(self._points) + 2
        self._points += [meeting, self._points[start], meeting]
        self._following += [start, back, self._following[edge]]
        self._following[end] = there + 1
        self._following[edge] = there

    def polygon(self, start: int) -> Polygon:
        """Return the ring from `start` on, without repeated points."""
        points, node = [self._points[start]], self._following[start]
        while node != start:
            points.append(self._points[node])
            node = self._following[node]
        kept = [point for point, after in pairwise([*points, points[0]]) if point != after]
        return np.array(kept, dtype=np.float64) - 0.5


def _crossings(polygons: Sequence[Polygon], shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find where edges cross lines of voxels along i: the first voxel behind each crossing, at most I, and line j."""
    if not polygons:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    low, high = (np.concatenate(ends) for ends in zip(*map(_upwards, polygons), strict=True))
    # An edge crosses the lines low <= j < high: one along i none, and of two that meet on a line one.
    first, last = (np.clip(np.ceil(end[:, 1]), 0, shape[1]).astype(np.int64) for end in (low, high))
    edge, j = _ranges(first, last - first)
    run, rise = (high - low)[edge].T
    crossing = low[edge, 0] + (j - low[edge, 1]) * run / rise
    return np.clip(np.ceil(crossing), 0, shape[0]).astype(np.int64), j


def _ranges(first: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Concatenate ranges: for each n, counts[n] numbers from first[n] on; return (M,) n and (M,) numbers."""
    n = np.repeat(np.arange(len(first)), counts)
    return n, np.arange(len(n)) + (first - np.cumsum(counts) + counts)[n]


def _upwards(polygon: Polygon) -> tuple[Polygon, Polygon]:
    """Return the ends of all edges, smaller j first, so that crossings do not depend on the direction of an edge."""
    after = np.roll(polygon, -1, axis=0)
    swap = (polygon[:, 1] > after[:, 1])[:, np.newaxis]
    return np.where(swap, after, polygon), np.where(swap, polygon, after)
