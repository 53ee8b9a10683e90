"""TIFF: what its pages, planes and samples are, as far as it says so."""

from __future__ import annotations

import io
import logging
import math
from pathlib import Path

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

#: Axes of tifffile: samples of a pixel and channels; slices; pages that nobody has named.
_SAMPLES, _SLICES, _UNNAMED = "SC", "Z", "IQ"
_RESOLUTION_UNITS_MM = {2: 25.4, 3: 10.0}
_UNITS_MM = {"mm": 1.0, "cm": 10.0, "inch": 25.4, "micron": 1e-3, "um": 1e-3, "\\u00b5m": 1e-3, "µm": 1e-3}

logger = logging.getLogger(__name__)


def decode_tiff(file: io.BufferedIOBase, path: Path, pages: Pages | None) -> Picture:
    """Read a TIFF; see `volseg.io.pictures.decode.decode`."""
    with tifffile.TiffFile(file, name=path.name) as tiff:  # type: ignore[arg-type]
        series = _largest(tiff, path)
        page = series.keyframe
        axes = _named(series, path, pages)
        check_size(path, math.prod(series.shape))
        pixels = _ordered(_read(series, path), axes)
        kept = _kept(page, pixels.shape[0])
        say_transparency(path, pixels[kept:])
        pixels, palette = pixels[:kept], None
        if page.photometric == PHOTOMETRIC.PALETTE and page.colormap is not None:
            palette = (np.asarray(page.colormap).T >> 8).astype(np.uint8)
        if page.photometric == PHOTOMETRIC.MINISWHITE and np.issubdtype(pixels.dtype, np.unsignedinteger):
            pixels = (2**page.bitspersample - 1) - pixels
        if pixels.dtype == bool:
            pixels = pixels.astype(np.uint8)
        is_lossy = page.compression in {6, 7, 33003, 33004, 33005, 34712} and palette is None
        orientation = page.tags.get(ORIENTATION)
        picture = Picture(pixels, palette, pixel_mm_of(tiff, page), is_lossy)
        return upright(picture, int(orientation.value) if orientation else 1)


def sample_count_of_tiff(file: io.BufferedIOBase, path: Path, pages: Pages | None) -> int:
    """How many samples a pixel has; see `volseg.io.pictures.decode.sample_count`."""
    with tifffile.TiffFile(file, name=path.name) as tiff:  # type: ignore[arg-type]
        series = _largest(tiff, path)
        if series.keyframe.photometric == PHOTOMETRIC.PALETTE:
            return 3
        axes = _named(series, path, pages)
        samples = math.prod(size for axis, size in zip(axes, series.shape, strict=True) if axis in _SAMPLES)
        return _kept(series.keyframe, samples)


def _largest(tiff: tifffile.TiffFile, path: Path) -> tifffile.TiffPageSeries:
    if not tiff.series:
        raise DataError(f"{path} holds no picture", hint="export it again")
    largest = max(tiff.series, key=lambda series: math.prod(series.shape))
    if len(tiff.series) > 1:
        logger.warning("%s holds pictures of %d sizes; the largest is taken", path, len(tiff.series))
    kind = largest.keyframe.photometric
    if kind == PHOTOMETRIC.SEPARATED:
        raise refuse_inks(path)
    if largest.dtype is None or np.issubdtype(largest.dtype, np.complexfloating):
        raise DataError(f"{path} holds {largest.dtype} pixels, not one number each", hint="convert them to numbers")
    return largest


def _named(series: tifffile.TiffPageSeries, path: Path, pages: Pages | None) -> str:
    """The axes of a series, all of them columns, rows, samples or slices.

    Raises:
        DataError: If nothing says what some are.
    """
    unnamed = [size for axis, size in zip(series.axes, series.shape, strict=True) if axis in _UNNAMED]
    strange = [axis for axis in series.axes if axis not in {"X", "Y", *_SAMPLES, *_SLICES, *_UNNAMED}]
    if strange or not {"X", "Y"} <= set(series.axes) or len(unnamed) > 1:
        raise DataError(
            f"{path} has the axes {series.axes}, a picture has columns, rows, channels and slices",
            hint="export one point in time, or one picture, by itself",
        )
    if unnamed and unnamed[0] > 1 and pages is None:
        raise refuse_pages(path, unnamed[0])
    named = "C" if pages == "channels" else "Z"
    return "".join(named if axis in _UNNAMED else axis for axis in series.axes)


def _ordered(array: NDArray[np.generic], axes: str) -> NDArray[np.generic]:
    """(samples, columns, rows, slices)."""
    wanted = [[n for n, axis in enumerate(axes) if axis in group] for group in (_SAMPLES, "X", "Y", _SLICES)]
    order = [axis for group in wanted for axis in group]
    sizes = [math.prod(array.shape[axis] for axis in group) for group in wanted]
    return array.transpose(order).reshape(sizes)


def _kept(page: tifffile.TiffPage, samples: int) -> int:
    """How many samples are left without transparency."""
    transparent = len(page.extrasamples) if page.photometric in {PHOTOMETRIC.RGB, PHOTOMETRIC.MINISBLACK} else 0
    named = 3 if page.photometric == PHOTOMETRIC.RGB else 1
    return samples - transparent if transparent == 1 and page.samplesperpixel == named + 1 else samples


def _read(series: tifffile.TiffPageSeries, path: Path) -> NDArray[np.generic]:
    try:
        array: NDArray[np.generic] = series.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        return _through_itk(series, path)
    return array


def _through_itk(series: tifffile.TiffPageSeries, path: Path) -> NDArray[np.generic]:
    """What tifffile decompresses only with another package, where ITK can."""
    import SimpleITK as sitk  # noqa: N813

    from volseg.io.itk_paths import readable_path

    try:
        with readable_path(path, ()) as reachable:
            array: NDArray[np.generic] = sitk.GetArrayFromImage(sitk.ReadImage(str(reachable)))
    except RuntimeError as error:
        how = tifffile.COMPRESSION(series.keyframe.compression).name
        raise DataError(
            f"{path} is compressed by {how}, which needs another package",
            hint="pip install imagecodecs, or store it uncompressed",
        ) from error
    return array.reshape(series.shape)


def pixel_mm_of(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> tuple[float, float] | None:
    """The distance of columns and of rows: by the unit that ImageJ writes, else by the tag (TIFF 6.0, p. 38)."""
    try:
        (x, x_parts), (y, y_parts) = (page.tags[name].value for name in ("XResolution", "YResolution"))
        unit_mm = _UNITS_MM.get(str((tiff.imagej_metadata or {}).get("unit", "")))
        unit_mm = unit_mm or _RESOLUTION_UNITS_MM[int(page.tags["ResolutionUnit"].value)]
        return unit_mm * x_parts / x, unit_mm * y_parts / y
    except (KeyError, ZeroDivisionError):
        return None
