"""TIFF: the meaning of its pages, planes and samples, as far as stated."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import PHOTOMETRIC

from volseg.config.reading import Pages
from volseg.errors import DataError
from volseg.io.pictures.decode import (
    ORIENTATION,
    Picture,
    check_size,
    refuse_inks,
    refuse_pages,
    say_transparency,
    upright,
)

#: Axes in tifffile: samples of a pixel and channels; slices; pages without a name.
_SAMPLES, _SLICES, _UNNAMED = "SC", "Z", "IQ"
_KINDS = {PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB, PHOTOMETRIC.PALETTE, PHOTOMETRIC.YCBCR}
#: Alpha that is premultiplied into the colours, and alpha that is not (TIFF 6.0, p. 31).
_TRANSPARENT = ((1,), (2,))
#: Compression tags: only JPEG is converted from YCbCr to RGB when unpacked.
_JPEG = {6, 7}
_LOSSY = {*_JPEG, 33003, 33004, 33005, 34712, 34892, 50001}
_RESOLUTION_UNITS_MM = {2: 25.4, 3: 10.0}
_UNITS_MM = {"m": 1000.0, "inch": 25.4, "cm": 10.0, "mm": 1.0, "nm": 1e-6}
_UNITS_MM |= dict.fromkeys(("micron", "um", "\\u00b5m", "µm"), 1e-3)

logger = logging.getLogger(__name__)


def decode_tiff(file: io.BufferedIOBase, path: Path, pages: Pages | None) -> Picture:
    """Read a TIFF; see `volseg.io.pictures.decode.decode`."""
    with tifffile.TiffFile(file, name=path.name) as tiff:  # type: ignore[arg-type]
        series = _largest(tiff, path)
        page = series.keyframe
        axes = _named(series, path, pages)
        check_size(path, math.prod(series.shape))
        pixels, palette = series.asarray().reshape(tuple(axes.values())), None  # without axes of one
        if has_transparency(page):
            place = list(axes).index("S")
            pixels, transparency = np.split(pixels, [axes["S"] - 1], axis=place)
            say_transparency(path, transparency)
        pixels = _ordered(pixels, axes)
        if pixels.dtype == bool:
            pixels = pixels.astype(np.uint8)
        if page.photometric == PHOTOMETRIC.PALETTE and page.colormap is not None:
            palette = (np.asarray(page.colormap).T >> 8).astype(np.uint8)
        if page.photometric == PHOTOMETRIC.MINISWHITE and np.issubdtype(pixels.dtype, np.unsignedinteger):
            pixels = np.subtract(2**page.bitspersample - 1, pixels)
            if page.bitspersample == 1:  # tifffile writes booleans like this by default
                _say_turned(path)
        is_lossy = page.compression in _LOSSY and palette is None
        orientation = page.tags.get(ORIENTATION)
        picture = Picture(pixels, palette, pixel_mm_of(tiff, page), is_lossy)
        return upright(picture, int(orientation.value) if orientation else 1)


def sample_count_of_tiff(file: io.BufferedIOBase, path: Path, pages: Pages | None) -> int:
    """Return the number of samples per pixel; see `volseg.io.pictures.decode.sample_count`."""
    with tifffile.TiffFile(file, name=path.name) as tiff:  # type: ignore[arg-type]
        series = _largest(tiff, path)
        if series.keyframe.photometric == PHOTOMETRIC.PALETTE:
            return 3
        axes = _named(series, path, pages)
        transparent = has_transparency(series.keyframe)
        return math.prod(size - (axis == "S" and transparent) for axis, size in axes.items() if axis in _SAMPLES)


@cache
def _say_turned(path: Path) -> None:
    logger.warning("%s states that 0 is white (MINISWHITE): it is inverted, as viewers show it", path)


def has_transparency(page: Any) -> bool:
    """Return whether the last sample of a pixel is transparency; one of unspecified meaning is a channel."""
    named = 3 if page.photometric in {PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR} else 1
    return page.samplesperpixel == named + 1 and page.extrasamples in _TRANSPARENT


def _largest(tiff: tifffile.TiffFile, path: Path) -> tifffile.TiffPageSeries:
    if not tiff.series:
        raise DataError(f"{path} holds no picture", hint="export it again")
    largest = max(tiff.series, key=lambda series: math.prod(series.shape))
    if len(tiff.series) > 1:
        logger.warning("%s holds pictures of %d sizes; the largest is used", path, len(tiff.series))
    page = largest.keyframe
    if page.photometric == PHOTOMETRIC.SEPARATED:
        raise refuse_inks(path)
    if page.photometric not in _KINDS or (page.photometric == PHOTOMETRIC.YCBCR and page.compression not in _JPEG):
        name = getattr(page.photometric, "name", page.photometric)
        raise DataError(f"{path} holds colours as {name}", hint="convert it to grey or RGB")
    if largest.dtype is None or np.issubdtype(largest.dtype, np.complexfloating):
        raise DataError(f"{path} holds {largest.dtype} pixels, not one number each", hint="convert them to numbers")
    return largest


def _named(series: tifffile.TiffPageSeries, path: Path, pages: Pages | None) -> dict[str, int]:
    """Return the axes of a series in order and their sizes, all of them columns, rows, samples or slices.

    Raises:
        DataError: If the meaning of some is not stated.
    """
    longer = [(axis, n) for axis, n in zip(series.axes, series.shape, strict=True) if n > 1 or axis in {"X", "Y"}]
    sizes = dict(longer)
    unnamed = [axis for axis, _ in longer if axis in _UNNAMED]
    strange = [axis for axis in sizes if axis not in {"X", "Y", *_SAMPLES, *_SLICES, *_UNNAMED}]
    if strange or not {"X", "Y"} <= set(sizes) or len(unnamed) > 1:
        raise DataError(
            f"{path} has the axes {series.axes}, a picture has columns, rows, channels and slices",
            hint="export one point in time, or one picture, by itself",
        )
    if unnamed and pages is None:
        raise refuse_pages(path, sizes[unnamed[0]])
    named = "C" if pages == "channels" else "Z"
    return {named if axis in _UNNAMED else axis: size for axis, size in sizes.items()}


def _ordered(array: NDArray[np.generic], axes: Iterable[str]) -> NDArray[np.generic]:
    """Reorder axes to (samples, columns, rows, slices)."""
    wanted = [[n for n, axis in enumerate(axes) if axis in group] for group in (_SAMPLES, "X", "Y", _SLICES)]
    sizes = [math.prod(array.shape[axis] for axis in group) for group in wanted]
    return array.transpose([axis for group in wanted for axis in group]).reshape(sizes)


def pixel_mm_of(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> tuple[float, float] | None:
    """Return the spacing of columns and of rows, from OME-XML, by ImageJ's unit, or from tags (TIFF 6.0, p. 38)."""
    if tiff.ome_metadata:
        return _of_ome(tiff.ome_metadata)
    try:
        (x, x_parts), (y, y_parts) = (page.tags[name].value for name in ("XResolution", "YResolution"))
        unit_mm = _UNITS_MM.get(str((tiff.imagej_metadata or {}).get("unit", "")))
        unit_mm = unit_mm or _RESOLUTION_UNITS_MM[int(page.tags["ResolutionUnit"].value)]
        return unit_mm * x_parts / x, unit_mm * y_parts / y
    except (KeyError, ZeroDivisionError):
        return None


def _of_ome(description: str) -> tuple[float, float] | None:
    """Return the pixel size of the first image that OME-XML describes, in micrometres unless it states another unit.

    What cannot be read states nothing: pixels can be read without it.
    """
    try:
        images = tifffile.xml2dict(description)["OME"]["Image"]
        pixels = (images[0] if isinstance(images, list) else images)["Pixels"]
        across_mm, down_mm = (
            float(pixels[f"PhysicalSize{axis}"]) * _UNITS_MM[str(pixels.get(f"PhysicalSize{axis}Unit", "µm"))]
            for axis in "XY"
        )
    except (SyntaxError, LookupError, TypeError, ValueError, AttributeError):
        return None
    return across_mm, down_mm
