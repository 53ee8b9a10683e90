"""Pixel values of references: label numbers, black and white, or colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volseg.config.reading import AS_IT_IS, FileRules
from volseg.errors import DataError
from volseg.image.geometry import Geometry
from volseg.image.volume import Label
from volseg.io.pictures.channels import grid_of_picture, looked_up, pixels_of
from volseg.io.pictures.decode import Picture, decode

_WHITE = 255
#: This many classes may be painted in greys from black to white; if there are more, the greys are smoothed edges.
_MOST_CLASSES = 8
#: One step of 8 bits in 16-bit values.
_PER_BYTE = 257
_SHOWN = 8


def read_values(
    path: Path, rules: FileRules = AS_IT_IS, labels: Sequence[Label] = ()
) -> tuple[NDArray[np.generic], Geometry]:
    """Read a picture that is a label map.

    Black and white, only 0 and 255, become 0 and 1, unless a label has the value 255. For a palette the indices count,
    unless its only colours are black and white, or `rules` states that references hold colours.

    Args:
        path: The file.
        rules: Reading options.
        labels: The desired labels; if references hold colours, those of these labels.

    Returns:
        (columns, rows, slices) in the dtype of the file, and the grid.

    Raises:
        DataError: If it is damaged, a JPEG, smoothed, coloured without stated meaning of colours, or holds a colour
            that no label has.
    """
    picture = decode(path, rules.pages)
    if picture.is_lossy:
        raise DataError(
            f"{path} is a JPEG, which blurs the values of labels into each other",
            hint="export it again as PNG or TIFF; for one label, data.threshold=0.5 marks what is brighter than half",
        )
    grid = _grid(picture, path, rules)
    if rules.values == "colors":
        return _by_color(picture, path, labels), grid
    pixels = picture.pixels
    if picture.palette is not None and _is_black_and_white(picture.palette):
        pixels = looked_up(picture)[:1]  # whose indices may be in either order
    if len(pixels) > 1 and (pixels == pixels[:1]).all():
        pixels = pixels[:1]
    if len(pixels) > 1:
        raise DataError(
            f"{path} is coloured ({_listed(_colors_in(pixels))}), and the meaning of the colours is not stated",
            hint="--set data.values=colors and data.colors={NAME: [R, G, B], ...}",
        )
    return _without_white(pixels[0], {label.value for label in labels}, path, rules), grid


def read_soft(path: Path, rules: FileRules) -> tuple[NDArray[np.generic], Geometry]:
    """Read a picture of the probability of a label, from black to white.

    Returns:
        (channels, columns, rows, slices) in the dtype of the file, and the grid.

    Raises:
        DataError: If it is damaged.
    """
    picture = decode(path, rules.pages)
    return pixels_of(picture), _grid(picture, path, rules)


def _grid(picture: Picture, path: Path, rules: FileRules) -> Geometry:
    """Return the grid of a mask; one that states no resolution lies on its picture, which does."""
    if rules.pixel_mm == "stated" and picture.pixel_mm is None:
        rules = rules.model_copy(update={"pixel_mm": None})
    return grid_of_picture(picture, path, rules)


def holds_colors(path: Path) -> bool:
    """Return whether pixels are colours themselves, neither grey nor palette indices.

    Raises:
        DataError: If it is damaged.
    """
    picture = decode(path)
    return picture.palette is None and len(picture.pixels) == 3 and bool((picture.pixels != picture.pixels[:1]).any())


def _is_black_and_white(palette: NDArray[np.uint8]) -> bool:
    levels = set(palette.ravel().tolist())
    return bool((palette == palette[:, :1]).all()) and levels <= {0, _WHITE} and _WHITE in levels


def _without_white(values: NDArray[np.generic], known: set[int], path: Path, rules: FileRules) -> NDArray[np.generic]:
    """Map black and white, at 8 bits or the dtype's full range, to 0 and 1; return anything else as it is.

    Raises:
        DataError: If it is black and white with greys in between, which are not labels.
    """
    white = values.max(initial=0)
    whites = {_WHITE, 256**values.dtype.itemsize - 1} if values.dtype.kind == "u" else {_WHITE}
    if white not in whites or int(white) in known:
        return values
    levels, counts = np.unique(values, return_counts=True)
    found = dict(zip(levels.tolist(), counts.tolist(), strict=True))
    others = found.keys() - {0, white}
    if not others:
        return np.floor_divide(values, white)
    is_smoothed = found[white] > sum(found[level] for level in others) and 0 in found
    unknown = len(others - known) > _MOST_CLASSES or bool(known and not others & known)
    if is_smoothed and unknown and rules.values != "objects":
        raise DataError(
            f"{path} is black and white with {len(others)} greys between, as of a mask that was smoothed or resized",
            hint="--set data.threshold=0.5 marks what is brighter than half; or list its values in data.labels",
        )
    return values


def _by_color(picture: Picture, path: Path, labels: Sequence[Label]) -> NDArray[np.unsignedinteger]:
    """Return the values of the labels that have the colours; black is background, unless a label has it."""
    pixels = looked_up(picture) if picture.palette is not None else picture.pixels
    pixels = np.repeat(pixels, 3, axis=0) if len(pixels) == 1 else pixels
    if len(pixels) != 3:
        raise DataError(f"{path} has {len(pixels)} samples in a pixel, colours have 3", hint="export it as RGB")
    if pixels.dtype == np.uint16 and not (pixels % _PER_BYTE).any():
        pixels = pixels // _PER_BYTE
    table = {(0, 0, 0): 0} | {label.color: label.value for label in labels if label.color}
    if len(table) == 1:
        raise DataError(
            f"the meaning of colours is not stated; {path} has {_listed(_colors_in(pixels))}",
            hint="--set data.colors={NAME: [R, G, B], ...}",
        )
    coded = _coded(pixels)
    values = np.zeros(coded.shape, np.uint16)
    known = np.zeros(coded.shape, bool)
    for color, value in table.items():
        here = coded == _code(color)
        values[here], known = value, known | here
    if strangers := int(np.count_nonzero(~known)):
        raise DataError(
            f"{path} has colours that no label has in {strangers} pixels: {_listed(_colors_of(coded[~known]))}",
            hint="add them to data.colors; colours in between come from smoothing, which label maps must not have",
        )
    return values


def _coded(pixels: NDArray[np.generic]) -> NDArray[np.int64]:
    """Encode each colour (3, ...) as one number."""
    red, green, blue = pixels.astype(np.int64)
    coded: NDArray[np.int64] = (red << 32) | (green << 16) | blue
    return coded


def _code(color: tuple[int, int, int]) -> int:
    red, green, blue = color
    return (red << 32) | (green << 16) | blue


def _colors_in(pixels: NDArray[np.generic]) -> list[tuple[int, ...]]:
    return _colors_of(_coded(pixels)) if len(pixels) == 3 else []


def _colors_of(coded: NDArray[np.int64]) -> list[tuple[int, ...]]:
    """Return the colours, the most frequent first."""
    found, counts = np.unique(coded, return_counts=True)
    return [(code >> 32, code >> 16 & 0xFFFF, code & 0xFFFF) for code in found[np.argsort(-counts)].tolist()]


def _listed(colors: Sequence[tuple[int, ...]]) -> str:
    shown = ", ".join(str(list(color)) for color in colors[:_SHOWN])
    return f"{shown} ..." if len(colors) > _SHOWN else shown or "of many samples"
