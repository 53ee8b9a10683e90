"""Large TIFF files, of which only the parts that are read are decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import PHOTOMETRIC

from volseg.config.reading import FileRules
from volseg.errors import DataError
from volseg.image.geometry import Geometry
from volseg.image.histogram import Histogram
from volseg.io.pictures.channels import grid_of
from volseg.io.pictures.decode import BROKEN, ORIENTATION
from volseg.io.pictures.tiff import has_transparency, pixel_mm_of
from volseg.io.readable import COPY_AGAIN

#: Axes of pictures that can be read in parts: grey, colours side by side, colours one plane after the other.
_AXES = ("YX", "YXS", "SYX")
#: Values with more bits are too many to count.
_MOST_BITS = 16
_UPRIGHT = 1


@dataclass(frozen=True, eq=False)
class StreamedPicture:
    """A TIFF of tiles or strips.

    Attributes:
        path: The file.
        geometry: Its grid.
        channels: Number of channels to read, without transparency.
        page: The tile or strip layout known to tifffile; the file itself is open only while parts are read.
    """

    path: Path
    geometry: Geometry
    channels: int
    page: Any

    def read(self, columns: slice, rows: slice) -> NDArray[np.unsignedinteger]:
        """Read a part.

        Args:
            columns: Range within the picture.
            rows: Range within the picture.

        Returns:
            (channels, columns, rows, 1) in the dtype of the file.

        Raises:
            DataError: If a tile or strip is damaged.
        """
        page = self.page
        shape = (self.channels, rows.stop - rows.start, columns.stop - columns.start)
        part = np.zeros(shape, page.dtype)
        for pixels, channels, top, left in self._segments(rows, columns):
            height, width = pixels.shape[:2]
            first_row, last_row = max(top, rows.start), min(top + height, rows.stop)
            first, last = max(left, columns.start), min(left + width, columns.stop)
            if first_row >= last_row or first >= last:
                continue
            inside = pixels[first_row - top : last_row - top, first - left : last - left]
            place = part[
                channels,
                first_row - rows.start : last_row - rows.start,
                first - columns.start : last - columns.start,
            ]
            place[...] = np.moveaxis(inside, -1, 0)[: place.shape[0]]
        return part.transpose(0, 2, 1)[..., np.newaxis]

    @cached_property
    def histograms(self) -> list[Histogram]:
        """Compute the histogram of each channel; the picture is read once."""
        counts = np.zeros((self.channels, 2 ** (8 * self.page.dtype.itemsize)), np.int64)
        columns, rows, _ = self.geometry.shape
        for pixels, channels, top, left in self._segments(slice(0, rows), slice(0, columns)):
            inside = np.moveaxis(pixels[: rows - top, : columns - left], -1, 0)
            for number, channel in zip(range(self.channels)[channels], inside, strict=False):
                counts[number] += np.bincount(channel.ravel(), minlength=counts.shape[1])
        return [Histogram(count) for count in counts]

    def _segments(self, rows: slice, columns: slice) -> Iterator[tuple[NDArray[Any], slice, int, int]]:
        """Yield tiles or strips that overlap a part: (rows, columns, samples), their channels, first row and column."""
        page = self.page
        height, width = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
        down = -(-page.imagelength // height)
        across = -(-page.imagewidth // width)
        planes = self.channels if page.axes == "SYX" else 1
        with self.path.open("rb") as file:
            for plane in range(planes):
                channels = slice(plane, plane + 1) if planes > 1 else slice(0, self.channels)
                for row in range(rows.start // height, -(-rows.stop // height)):
                    for column in range(columns.start // width, -(-columns.stop // width)):
                        number = (plane * down + row) * across + column
                        yield self._unpacked(file, number, height, width), channels, row * height, column * width

    def _unpacked(self, file: BinaryIO, number: int, height: int, width: int) -> NDArray[Any]:
        """Return (rows, columns, samples) of a tile or strip; one that is not stored holds zeros."""
        page = self.page
        try:
            file.seek(page.dataoffsets[number])
            packed = file.read(page.databytecounts[number]) or None
            pixels, _, shape = page.decode(packed, number, jpegtables=page.jpegtables, jpegheader=page.jpegheader)
        except BROKEN as error:
            raise DataError(f"{self.path} is damaged: part {number} cannot be unpacked", hint=COPY_AGAIN) from error
        if pixels is None:
            return np.zeros((height, width, self.channels), page.dtype)
        return np.asarray(pixels[0][: shape[1], : shape[2]])


def streamed(path: Path, rules: FileRules) -> StreamedPicture | None:
    """Return a picture that can be read in parts; None if it cannot.

    Args:
        path: The file.
        rules: Reading options.
    """
    if path.suffix.lower() not in {".tif", ".tiff"} or not path.is_file():
        return None
    try:
        # A picture is one file: what its metadata say of others (OME-TIFF) must not lead to any file of this machine.
        with tifffile.TiffFile(path, _multifile=False) as tiff:
            page = tiff.series[0].keyframe
            kept = _kept_channels(page) if len(tiff.series) == 1 and tiff.series[0].axes in _AXES else 0
            if not kept:
                return None
            page.decode  # noqa: B018  finds out whether it can, and needs the file for it
            grid = grid_of((page.imagewidth, page.imagelength, 1), pixel_mm_of(tiff, page), path, rules)
    except (tifffile.TiffFileError, ValueError, OSError, LookupError):  # reading it as a whole reports the error
        return None
    return StreamedPicture(path, grid, kept, page)


def _kept_channels(page: Any) -> int:
    """Return the number of channels without transparency; 0 for a picture that cannot be read in parts."""
    orientation = page.tags.get(ORIENTATION)
    if orientation is not None and orientation.value != _UPRIGHT:
        return 0
    bits = 0 if page.dtype is None or page.dtype.kind != "u" else 8 * page.dtype.itemsize
    if page.photometric not in {PHOTOMETRIC.RGB, PHOTOMETRIC.MINISBLACK}:
        return 0
    kept = 3 if page.photometric == PHOTOMETRIC.RGB else 1
    transparent = page.axes == "YXS" and has_transparency(page)
    readable = 0 < bits <= _MOST_BITS and page.bitspersample == bits
    return kept if readable and (page.samplesperpixel == kept or transparent) else 0
