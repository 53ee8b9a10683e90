"""A picture as a volume of one slice, with channels and a grid in pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volseg.config.reading import AS_IT_IS, FileRules
from volseg.errors import DataError, GeometryError
from volseg.image.geometry import Geometry
from volseg.io.pictures.decode import Picture, decode, sample_count

#: Channels of a colour picture.
_COLORS = 3


def read_array(path: Path, rules: FileRules = AS_IT_IS) -> tuple[NDArray[np.generic], Geometry]:
    """Read a picture.

    Args:
        path: The file.
        rules: Reading options.

    Returns:
        (channels, columns, rows, slices) in the dtype of the file, one grey channel or three colour channels, without
        transparency; and the grid.

    Raises:
        DataError: If it is damaged, or the meaning of its pages is not stated.
        GeometryError: If millimetres are required that it does not state.
    """
    picture = decode(path, rules.pages)
    return pixels_of(picture), grid_of_picture(picture, path, rules)


def pixels_of(picture: Picture) -> NDArray[np.generic]:
    """Return (channels, columns, rows, slices): for a palette its colours, or grey if it has no colours."""
    if picture.palette is None:
        return picture.pixels
    pixels = looked_up(picture)
    return pixels[:1] if (pixels == pixels[:1]).all() else pixels


def looked_up(picture: Picture) -> NDArray[np.uint8]:
    """Return (3, columns, rows, slices) colours of palette indices; black for indices without a colour."""
    if picture.palette is None:
        raise DataError("a picture without a palette has no indices", hint="read its samples")
    table = np.zeros((max(len(picture.palette), int(picture.pixels.max(initial=0)) + 1), 3), np.uint8)
    table[: len(picture.palette)] = picture.palette
    return np.moveaxis(table[picture.pixels[0]], -1, 0)


def grid_of_picture(picture: Picture, path: Path, rules: FileRules) -> Geometry:
    """Return the grid of a decoded picture; see `grid_of`."""
    _, columns, rows, slices = picture.pixels.shape
    return grid_of((columns, rows, slices), picture.pixel_mm, path, rules)


def grid_of(
    size: tuple[int, int, int], stated_mm: tuple[float, float] | None, path: Path, rules: FileRules
) -> Geometry:
    """Return the grid of a picture, in pixels or in given or stated millimetres.

    Args:
        size: Columns, rows and slices.
        stated_mm: Spacing of columns and of rows, if the file states it.
        path: For the message.
        rules: Which of them to use.

    Raises:
        GeometryError: If they must be stated and are not.
    """
    columns, rows, slices = size
    match rules.pixel_mm:
        case None:
            return Geometry.of_picture(columns, rows, slices=slices)
        case "stated":
            if stated_mm is None:
                raise GeometryError(
                    f"{path} states no resolution", hint="--set data.pixel_mm=0.5 sets it for all pictures"
                )
            return Geometry.of_picture(columns, rows, stated_mm, slices=slices)
        case size_mm:
            return Geometry.of_picture(columns, rows, (size_mm, size_mm), slices=slices)


def channel_count(path: Path, rules: FileRules = AS_IT_IS) -> int:
    """Return the number of channels of a picture, by its header: 1 for grey, 3 for colours.

    Raises:
        DataError: If it is damaged, or the meaning of its pages is not stated.
    """
    return sample_count(path, rules.pages)


def frame_of(array: NDArray[np.generic], frame: int | None, path: Path) -> NDArray[np.generic]:
    """Return one channel: a grey picture has the same in all three colours, and three equal channels are grey.

    Args:
        array: (channels, ...).
        frame: Which; None for the only one.
        path: For the message.

    Raises:
        DataError: If there is no such channel, or several and none is selected.
    """
    if frame is None:
        if len(array) > 1 and (array != array[:1]).any():
            raise DataError(
                f"{path} is a colour picture, but one channel is needed",
                hint="convert all to grey, or train on colour pictures",
            )
        return array[0]
    if len(array) == 1 and frame < _COLORS:
        return array[0]
    if frame >= len(array):
        raise DataError(f"{path} has {len(array)} channels, but no number {frame}", hint="is it the right file?")
    return array[frame]
