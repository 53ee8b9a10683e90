"""Images of one file: their positions and stored values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from volseg.errors import DataError
from volseg.io.archives import open_file
from volseg.io.dicom.classify import TAGS
from volseg.io.dicom.dataset import parse_dataset, raw_dataset
from volseg.io.dicom.elements import glance, native_value
from volseg.io.dicom.frames import Frame, frames_of
from volseg.io.dicom.header import Header
from volseg.io.dicom.mosaic import is_mosaic, tiles_of
from volseg.io.dicom.pixels import decode
from volseg.io.readable import COPY_AGAIN, unreadable

_PIXELS = 0x7FE00010
_PIXEL_KEYWORDS = (
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)
_WANTED = frozenset({*TAGS, *(tag_for_keyword(keyword) or 0 for keyword in _PIXEL_KEYWORDS)})
#: Modalities whose values need nothing more than a rescale.
_PLAIN_MODALITIES = ("CT", "MR")


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a file.

    Attributes:
        frames: Position and rescaling of each.
        stored: (F, rows, columns) stored values.
    """

    frames: list[Frame]
    stored: NDArray[np.generic]

    def rescale(self, number: int, out: NDArray[np.float32]) -> None:
        """Write the values of one frame, (J, I), in the unit of the modality.

        Raises:
            DataError: If the file holds fewer images than it describes.
        """
        frame = self.frames[number]
        if frame.index >= len(self.stored):
            raise DataError(f"{frame.path} holds {len(self.stored)} images, fewer than it describes", hint=COPY_AGAIN)
        column, row = frame.corner
        columns, rows = frame.plane.shape
        image = self.stored[frame.index, row : row + rows, column : column + columns]
        if frame.slope == 1 and frame.intercept.is_integer() and image.dtype.itemsize <= 2:
            np.add(image, np.float32(frame.intercept), out=out, dtype=np.float32)  # whole numbers, exact in float32
        else:  # the sum is computed in float64, so that float32 rounds only once
            np.copyto(out, image.astype(np.float64) * frame.slope + frame.intercept, casting="same_kind")


def read_images(path: Path) -> Images:
    """Read a whole file.

    Raises:
        GeometryError: If the header does not state where its images lie.
        DataError: If the file is damaged.
    """
    try:
        with open_file(path) as file:
            content = file.read()
    except OSError as error:
        raise unreadable(path, error) from error
    return _plain_image(content, path) or _images(parse_dataset(content, path))


def frames_in(header: Header) -> list[Frame]:
    """Return the images of a file in the order in which it describes them; for a mosaic, its tiles.

    Raises:
        GeometryError: If the header does not state where they lie.
        DataError: If it does not state what their values mean.
    """
    parts = header.count("InConcatenationTotalNumber") or 1
    if parts > 1:
        raise DataError(
            f"{header.path} is one of {parts} parts of a concatenation", hint="join the parts, or convert them"
        )
    frames = frames_of(header)
    return tiles_of(header, frames[0]) if is_mosaic(header) else frames


def _images(header: Header) -> Images:
    if "PixelData" not in header:
        raise DataError(f"{header.path} holds no pixel data, or is truncated", hint=COPY_AGAIN)
    return Images(frames_in(header), decode(header))


def _plain_image(content: bytes, path: Path) -> Images | None:
    """Read the most common kind of file without pydicom: one uncompressed CT or MR image of whole bytes.

    Returns:
        None if it is something else, or anything about it is unusual.
    """
    seen = glance(content, _WANTED, _PIXELS - 1)
    pixels = native_value(content, seen, _PIXELS) if seen else None
    if seen is None or pixels is None:
        return None
    header = raw_dataset(seen.elements, path)
    stated = header.dataset
    dtype = _plain_dtype(stated)
    columns, rows = stated.get("Columns"), stated.get("Rows")
    if dtype is None or is_mosaic(header) or not columns or not rows:
        return None
    if len(pixels) != columns * rows * dtype.itemsize:
        return None
    stored = np.frombuffer(pixels, dtype).reshape(1, rows, columns)
    if unused := stated.BitsAllocated - stated.BitsStored:  # these bits are not part of the value
        stored = np.right_shift(np.left_shift(stored, unused), unused)
    return Images(frames_of(header), stored)


def _plain_dtype(stated: Dataset) -> np.dtype[np.signedinteger | np.unsignedinteger] | None:
    """Return the dtype of stored values that can be read directly; None for all others."""
    bits, stored = stated.get("BitsAllocated"), stated.get("BitsStored")
    plain = (
        stated.get("Modality") in _PLAIN_MODALITIES
        and "NumberOfFrames" not in stated
        and stated.get("SamplesPerPixel") == 1
        and bits in (8, 16)
        and stored in range(1, bits + 1)
        and stated.get("HighBit") == stored - 1
    )
    match stated.get("PixelRepresentation") if plain else None:
        case 0:
            return np.dtype(f"<u{bits // 8}")
        case 1:
            return np.dtype(f"<i{bits // 8}")
    return None
