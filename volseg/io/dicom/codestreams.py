"""Check that a compressed image agrees with the header around it.

Decoders trust one or the other, and some crash the process if the two differ.
"""

from __future__ import annotations

import struct

from pydicom.uid import UID, JPEG2000TransferSyntaxes

from volseg.errors import DataError
from volseg.io.dicom.header import Header
from volseg.io.readable import COPY_AGAIN

#: Bits a header may allocate: JPEG and JPEG-LS support up to 16.
_MOST_BITS, _MOST_JPEG_BITS = 32, 16
_JPEG_START = b"\xff\xd8"
#: Start of codestream and the marker of the image size that must follow it (ITU-T T.800 section A.5.1).
_JPEG2000_START = b"\xff\x4f\xff\x51"
#: Any marker segment except a frame header: JPEG (ITU-T T.81 table B.1) and JPEG-LS (T.87).
_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})


def check_stream(frame: bytes, header: Header) -> None:
    """Check that the format, size and depth of a compressed image are those stated in the header.

    Raises:
        DataError: If they are not.
    """
    dataset, path = header.dataset, header.path
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    size = _jpeg2000_size(frame) if syntax in JPEG2000TransferSyntaxes else _jpeg_size(frame)
    if size is None:
        raise DataError(f"the pixels of {path} are not {syntax.name}, as its header states", hint=COPY_AGAIN)
    rows, columns, bits, samples = size
    if (rows, columns, samples) != (dataset.Rows, dataset.Columns, dataset.SamplesPerPixel):
        raise DataError(
            f"the compressed image in {path} has {rows} x {columns} pixels of {samples} samples, "
            f"its header states {dataset.Rows} x {dataset.Columns} of {dataset.SamplesPerPixel}",
            hint=COPY_AGAIN,
        )
    most = _MOST_BITS if syntax in JPEG2000TransferSyntaxes else _MOST_JPEG_BITS
    if not bits <= dataset.BitsAllocated <= most:
        raise DataError(
            f"the compressed image in {path} has {bits} bits, its header allocates {dataset.BitsAllocated}",
            hint=COPY_AGAIN,
        )


def _jpeg_size(frame: bytes) -> tuple[int, int, int, int] | None:
    """Read rows, columns, bits and samples from the frame header of a JPEG; None if there is none."""
    if not frame.startswith(_JPEG_START):
        return None
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker in _FRAME_HEADERS:
            bits, rows, columns, samples = struct.unpack_from(">BHHB", frame, at + 4)
            return rows, columns, bits, samples
        at += 1 if marker == 0xFF else 2 + struct.unpack_from(">H", frame, at + 2)[0]
    return None


def _jpeg2000_size(frame: bytes) -> tuple[int, int, int, int] | None:
    """Read the same from a JPEG 2000 codestream, in the boxes of a .jp2 file or not."""
    at = frame.find(_JPEG2000_START, 0, 1024)
    if at < 0 or len(frame) < at + 43:
        return None
    right, bottom, left, top = struct.unpack_from(">4L", frame, at + 8)
    samples, depth = struct.unpack_from(">HB", frame, at + 40)
    return bottom - top, right - left, (depth & 0x7F) + 1, samples
