"""Outlines: the areas of a flat mask as polygons in pixels.

Coordinates are those of picture programs: x runs to the right and y down, and (0, 0) is the outer corner of the first
pixel, half a pixel before its centre.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volseg.image.box import Box
from volseg.image.contours import Polygon, fill, signed_area, trace, with_keyholes
from volseg.image.volume import Label, Mask

#: From the centre of a pixel to its corner.
_HALF = 0.5


@dataclass(frozen=True, eq=False)
class Area:
    """One connected area of a label.

    Attributes:
        label: Its label.
        boundaries: The outer boundary, then that of each hole: (N, 2) x and y of corners, not closed. One may pass a
            corner twice.
        pixels: Number of pixels.
    """

    label: Label
    boundaries: list[Polygon]
    pixels: int

    @property
    def rings(self) -> list[Polygon]:
        """Its outer ring, then a ring for each of its holes; none passes a corner twice (OGC 06-103r4, 6.1.11)."""
        simple = [ring for boundary in self.boundaries for ring in _parted(boundary)]
        return sorted(simple, key=signed_area, reverse=True)

    @property
    def polygon(self) -> Polygon:
        """(N, 2) one polygon with its holes joined to the outer ring by channels of zero width."""
        (joined,) = with_keyholes([ring - _HALF for ring in self.boundaries])
        return joined + _HALF


def areas_of(mask: Mask) -> Iterator[Area]:
    """Find the areas of a flat mask, label by label; pixels that touch at a corner only belong to different areas.

    Args:
        mask: Of one slice, in the storage order of a picture.
    """
    import cc3d

    plane = mask.array[:, :, 0]
    for label in mask.labels:
        parts, count = cc3d.connected_components(plane == label.value, connectivity=4, return_N=True)
        boxes = cc3d.statistics(parts)["bounding_boxes"] if count else []
        for number in range(1, count + 1):
            i, j = boxes[number][:2]
            inside = parts[i, j] == number
            first = np.array([i.start, j.start]) + _HALF
            boundaries = [ring + first for ring in trace(inside)]
            yield Area(label, boundaries, int(np.count_nonzero(inside)))


def filled(polygons: list[Polygon], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Rasterise polygons: return (I, J) the pixels whose centres lie in an odd number of them.

    Args:
        polygons: x and y of corners.
        size: Columns and rows.
    """
    return fill([polygon - _HALF for polygon in polygons], size)


def box_of(area: Area) -> Box:
    """Return the box around the pixels of an area."""
    (left, top), (right, bottom) = area.boundaries[0].min(axis=0), area.boundaries[0].max(axis=0)
    return Box(slice(int(left), int(right)), slice(int(top), int(bottom)), slice(0, 1))


def _parted(boundary: Polygon) -> list[Polygon]:
    """Split a closed line into loops that pass no corner twice, at each repeated corner."""
    loops: list[Polygon] = []
    path: list[tuple[float, float]] = []
    places: dict[tuple[float, float], int] = {}
    for x, y in boundary.tolist():
        corner = (x, y)
        if corner in places:
            begin = places[corner]
            loops.append(np.array(path[begin:]))
            for passed in path[begin:]:
                del places[passed]
            del path[begin:]
        places[corner] = len(path)
        path.append(corner)
    return [*loops, np.array(path)]
