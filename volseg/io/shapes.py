"""Shapes drawn in a picture, rasterised on a grid of columns and rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.image.outlines import filled

#: (columns, rows) of a picture -> where it is marked, (columns, rows); raises a ValueError if it is drawn in another.
Shape = Callable[[tuple[int, int]], NDArray[np.bool_]]

_FEWEST_CORNERS = 3
#: No picture has this many rows or columns.
_FARTHEST = 1e9


def polygon(rings: Any) -> Shape:
    """Make a shape from an outline and its holes.

    Args:
        rings: Lists of x and y.

    Raises:
        ValueError: If one is not such a list.
    """
    return partial(_filled, [_corners(ring) for ring in rings])


def _corners(ring: Any) -> NDArray[np.float64]:
    corners = np.asarray(ring, np.float64)
    if corners.ndim != 2 or corners.shape[1] < 2 or not (np.abs(corners) < _FARTHEST).all():
        raise ValueError("a polygon is not a list of x and y")
    if len(corners) < _FEWEST_CORNERS:
        raise ValueError(f"a polygon has {len(corners)} corners")
    return corners[:, :2]


def _filled(rings: list[NDArray[np.float64]], size: tuple[int, int]) -> NDArray[np.bool_]:
    return filled(rings, size)


def run_lengths(counts: str | list[int], drawn_in: tuple[int, int]) -> Shape:
    """Make a shape from run lengths in COCO's format: column by column, unmarked and marked pixels in turn.

    Args:
        counts: The lengths, or COCO's text of them.
        drawn_in: Columns and rows of the picture.

    Raises:
        ValueError: If they are neither.
    """
    if not isinstance(counts, str) and not all(isinstance(count, int) for count in counts):
        raise ValueError("its runs are not whole numbers")
    return partial(_marked, counts, drawn_in)


def _marked(counts: str | list[int], drawn_in: tuple[int, int], size: tuple[int, int]) -> NDArray[np.bool_]:
    if drawn_in != size:
        raise ValueError(f"it was drawn in {drawn_in[0]}x{drawn_in[1]} pixels, the picture has {size[0]}x{size[1]}")
    runs = _unpacked(counts) if isinstance(counts, str) else list(counts)
    if sum(runs) != size[0] * size[1] or min(runs, default=0) < 0:
        raise ValueError("its runs do not add up to the picture")
    marked = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return marked.reshape(size)


def _unpacked(text: str) -> list[int]:
    """Decode run lengths from COCO's text: five bits a character, the lowest first, each relative to the last but one.

    The format is that of `rleToString` in the API of COCO (maskApi.c).
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value |= -1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
