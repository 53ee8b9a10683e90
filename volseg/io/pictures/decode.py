"""Decode the bytes of a picture to its pixels, as stored.

The format is detected by the first bytes, whatever the name. Only the supported formats are tried in Pillow, and its
limit on the number of pixels is replaced by the memory of the machine.
"""

from __future__ import annotations

import io
import logging
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from volseg.config.reading import Pages
from volseg.errors import DataError
from volseg.io.archives import open_stored
from volseg.io.readable import COPY_AGAIN, unreadable
from volseg.io.signatures import stands_in_for
from volseg.memory import total_gb

#: Pillow's names of the formats, apart from TIFF.
_FORMATS = ("PNG", "JPEG", "GIF", "BMP")
_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_HEAD_BYTES = 32
#: Colour types of a PNG (PNG specification, section 11.2.1).
_GREY, _GREY_WITH_ALPHA = 0, 4
#: Share of the machine's memory that a picture may take, each sample being a number of four bytes.
_MOST_OF_MEMORY = 0.5
_NUMBER_BYTES = 4
#: Pictures below this size are not checked: querying the memory takes longer than reading a small picture.
_ALWAYS_FITS_GB = 0.05
#: Exceptions of Pillow, tifffile and imagecodecs for a damaged file.
BROKEN = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, RuntimeError, struct.error, zlib.error)
#: Samples per pixel of each of Pillow's modes, without transparency; other modes are refused by name.
_SAMPLES = {"1": 1, "L": 1, "LA": 1, "I": 1, "I;16": 1, "I;16B": 1, "F": 1, "P": 1, "PA": 1, "RGB": 3, "RGBA": 3}
_SAMPLES |= {"RGBX": 3, "YCbCr": 3}
#: Text of a PNG with the distance of columns and of rows in mm; its resolution counts whole pixels per metre.
PIXEL_MM = "pixel_mm"
MM_PER_INCH = 25.4
#: Length units of a JFIF header (inch and centimetre), and the EXIF tag that states a resolution.
_JFIF_UNITS, _X_RESOLUTION = (1, 2), 0x011A
#: Orientation tag of EXIF and TIFF: 1 is upright, other values describe how rows and columns lie (TIFF 6.0, p. 36).
ORIENTATION = 0x0112
_TRANSPOSED, _COLUMNS_REVERSED, _ROWS_REVERSED = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Picture:
    """The content of a picture file.

    Attributes:
        pixels: (samples, columns, rows, slices) in the dtype of the file, turned upright.
        palette: (N, 3) the colours, 0 to 255, that pixels are indices of; None if they are brightness.
        pixel_mm: Spacing of columns and of rows, if the file states it.
        is_lossy: Whether lossy compression changed its values.
    """

    pixels: NDArray[np.generic]
    palette: NDArray[np.uint8] | None = None
    pixel_mm: tuple[float, float] | None = None
    is_lossy: bool = False


def decode(path: Path, pages: Pages | None = None) -> Picture:
    """Read a picture.

    Args:
        path: The file.
        pages: Meaning of several pages, if the file does not state it.

    Raises:
        DataError: If it is damaged, not a picture, has several pages of unknown meaning, is in inks (CMYK), or is
            larger than memory.
    """
    with _opened(path) as (file, head):
        if head.startswith(_TIFF_HEADS):
            from volseg.io.pictures.tiff import decode_tiff

            return decode_tiff(file, path, pages)
        return _decode(_picture_in(file, head, path), file, path, pages)


def sample_count(path: Path, pages: Pages | None = None) -> int:
    """Return the number of samples per pixel without transparency, by the header: 3 for a colour picture.

    Raises:
        DataError: As `decode`.
    """
    with _opened(path) as (file, head):
        if head.startswith(_TIFF_HEADS):
            from volseg.io.pictures.tiff import sample_count_of_tiff

            return sample_count_of_tiff(file, path, pages)
        picture = _picture_in(file, head, path)
        frames = _frame_count(picture)
        samples = 3 if _has_colors(picture) else _samples(picture, file, path)
        return samples * (frames if pages == "channels" else 1)


def check_size(path: Path, samples: int) -> None:
    """Check that the numbers of a picture fit into memory.

    Args:
        path: For the message.
        samples: Of all pixels.

    Raises:
        DataError: If not; says how much it would take.
    """
    needed_gb = samples * _NUMBER_BYTES / 1e9
    if needed_gb > _ALWAYS_FITS_GB and needed_gb > _MOST_OF_MEMORY * total_gb():
        raise DataError(
            f"{path} is too large: its numbers would take {needed_gb:.3g} GB, more than half of the memory",
            hint="cut it into parts",
        )


def refuse_pages(path: Path, count: int) -> DataError:
    """Build the error for a file with pages of unknown meaning."""
    return DataError(
        f"{path} holds {count} pictures, and it is not stated whether they are slices or channels",
        hint="--set data.pages=slices, or channels; or keep one of them",
    )


def refuse_inks(path: Path) -> DataError:
    """Build the error for CMYK, which has no colours."""
    return DataError(
        f"{path} holds inks (CMYK), whose colours depend on a printer",
        hint="convert it to RGB, with the profile it was made with",
    )


def say_transparency(path: Path, alpha: NDArray[np.generic]) -> None:
    """Warn that transparency is left out, if there is any; once for each file."""
    if alpha.size and alpha.min() != alpha.max():
        _say_transparency(path)


@cache
def _say_transparency(path: Path) -> None:
    logger.warning("%s: its transparency is ignored", path)


def upright(picture: Picture, orientation: int) -> Picture:
    """Turn a picture according to its orientation tag."""
    pixels, sizes = picture.pixels, picture.pixel_mm
    if orientation in _TRANSPOSED:
        pixels, sizes = pixels.swapaxes(1, 2), sizes and (sizes[1], sizes[0])
    if orientation in _COLUMNS_REVERSED:
        pixels = pixels[:, ::-1]
    if orientation in _ROWS_REVERSED:
        pixels = pixels[:, :, ::-1]
    return replace(picture, pixels=pixels, pixel_mm=sizes)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[io.BufferedIOBase, bytes]]:
    """Open a file and read its first bytes; errors in the block become one line about the file."""
    try:
        with open_stored(path) as file:
            head = file.read(_HEAD_BYTES)
            file.seek(0)
            yield file, head  # type: ignore[misc]  # both of its kinds are buffered
    except DataError:
        raise
    except (FileNotFoundError, PermissionError) as error:
        raise unreadable(path, error) from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit into memory", hint="cut it into parts") from error
    except (ImportError, NotImplementedError) as error:
        raise DataError(
            f"{path} is stored in a way that cannot be read: {_reason(error)}", hint="export it again, as PNG"
        ) from error
    except BROKEN as error:
        raise stands_in_for(path) or DataError(f"{path} is damaged: {_reason(error)}", hint=COPY_AGAIN) from error


def _reason(error: BaseException) -> str:
    """Return a library's message on one line without memory addresses."""
    words = " ".join(str(error).split())
    return words.split("<")[0].strip() or type(error).__name__


def _picture_in(file: io.BufferedIOBase, head: bytes, path: Path) -> ImageFile.ImageFile:
    Image.preinit()
    for name in _FORMATS:
        make, accepts = Image.OPEN[name]
        if accepts is None or accepts(head):
            picture: ImageFile.ImageFile = make(file, str(path))  # type: ignore[arg-type]
            return picture
    raise stands_in_for(path) or DataError(
        f"{path} is not a picture: it does not begin like PNG, JPEG, TIFF, GIF or BMP",
        hint="export it again as one of these",
    )


def _decode(picture: ImageFile.ImageFile, file: io.BufferedIOBase, path: Path, pages: Pages | None) -> Picture:
    count = _frame_count(picture)
    if count > 1 and pages is None:
        raise refuse_pages(path, count)
    samples = _samples(picture, file, path)
    check_size(path, math.prod(picture.size) * count * samples)
    if count == 1 and picture.format == "PNG":
        arrays = [_of_png(picture, file)]
    else:
        arrays = [_frame(picture, number) for number in range(count)]
    if count > 1:  # whose palettes may differ
        samples = arrays[0].shape[2]
    for array in arrays:
        if array.shape[2] > samples and picture.mode != "RGBX":
            say_transparency(path, array[..., samples:])
    stack = np.stack([array[..., :samples] for array in arrays], axis=-1)  # (rows, columns, samples, frames)
    if pages == "channels":
        stack = stack.reshape(*stack.shape[:2], -1, 1)
    palette = None
    if picture.mode in {"P", "PA"} and count == 1:
        palette = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
    is_lossy = picture.format in {"JPEG", "MPO"}
    whole = Picture(stack.transpose(2, 1, 0, 3), palette, _stated_mm(picture), is_lossy)
    return upright(whole, int(picture.getexif().get(ORIENTATION, 1)))


def _stated_mm(picture: ImageFile.ImageFile) -> tuple[float, float] | None:
    """Return the spacing of columns and of rows from the resolution that a file states, if it states one."""
    dpi = picture.info.get("dpi")
    if not dpi or not all(dpi):
        return None
    in_jfif = picture.info.get("jfif_unit") in _JFIF_UNITS
    if picture.format in {"JPEG", "MPO"} and not in_jfif and _X_RESOLUTION not in picture.getexif():
        return None  # Pillow reports 72 if EXIF states nothing
    stated_mm = MM_PER_INCH / float(dpi[0]), MM_PER_INCH / float(dpi[1])
    exact_mm = _numbers(picture.info.get(PIXEL_MM))
    # A program that resized the picture may have kept the text, but not the resolution.
    agree = len(exact_mm) == len(stated_mm) and all(
        abs(1000 / exact - 1000 / stated) < 1 for exact, stated in zip(exact_mm, stated_mm, strict=True)
    )
    return (exact_mm[0], exact_mm[1]) if agree else stated_mm


def _numbers(text: object) -> list[float]:
    """Parse positive numbers in a text; none if it holds anything else."""
    try:
        found = [float(word) for word in str(text).split()]
    except ValueError:
        return []
    return found if all(math.isfinite(number) and number > 0 for number in found) else []


def _frame(picture: ImageFile.ImageFile, number: int) -> NDArray[np.generic]:
    """Return (rows, columns, samples) of one frame; GIF frames of changing colours are all converted to colours."""
    if number or _frame_count(picture) > 1:
        picture.seek(number)
        array = np.asarray(picture.convert("L" if picture.mode == "L" else "RGB"))
    elif picture.mode == "YCbCr":
        array = np.asarray(picture.convert("RGB"))
    else:
        array = np.asarray(picture)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    return array.reshape(*array.shape[:2], -1)


def _frame_count(picture: ImageFile.ImageFile) -> int:
    """Return the number of frames of an animation; extra images that a camera stores in a JPEG do not count."""
    return int(getattr(picture, "n_frames", 1)) if picture.format in {"GIF", "PNG"} else 1


def _samples(picture: ImageFile.ImageFile, file: io.BufferedIOBase, path: Path) -> int:
    if picture.format == "PNG" and _depth_and_kind(file)[1] == _GREY_WITH_ALPHA:
        return 1  # which Pillow reports as coloured if it has 16 bits
    if picture.mode == "CMYK":
        raise refuse_inks(path)
    if picture.mode not in _SAMPLES:
        raise DataError(f"{path} holds pixels of the kind {picture.mode}", hint="convert it to grey or RGB")
    return _SAMPLES[picture.mode]


def _has_colors(picture: ImageFile.ImageFile) -> bool:
    """Return whether a palette, if there is one, holds more than grey."""
    if _frame_count(picture) > 1 and picture.format == "GIF":
        return True
    if picture.mode not in {"P", "PA"}:
        return False
    palette = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
    return bool((palette != palette[:, :1]).any())


def _of_png(picture: ImageFile.ImageFile, file: io.BufferedIOBase) -> NDArray[np.generic]:
    """Return (rows, columns, samples) as stored, where Pillow would rescale low or truncate high bit depths."""
    depth, kind = _depth_and_kind(file)
    if depth == 16 and kind != _GREY:
        import imagecodecs

        file.seek(0)
        deep: NDArray[np.generic] = imagecodecs.png_decode(file.read())
        return deep.reshape(*deep.shape[:2], -1)
    array = _frame(picture, 0)
    return np.floor_divide(array, 255 // (2**depth - 1)) if kind == _GREY and 1 < depth < 8 else array


def _depth_and_kind(file: io.BufferedIOBase) -> tuple[int, int]:
    """Return the bit depth and colour type of a PNG."""
    here = file.tell()
    file.seek(24)
    depth, kind = file.read(2)
    file.seek(here)
    return depth, kind
