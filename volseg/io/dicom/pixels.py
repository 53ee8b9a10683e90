"""Decode the stored values of a file with pydicom, and reject damage that its decoders ignore."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from volseg.errors import DataError
from volseg.io.dicom.codestreams import check_stream
from volseg.io.dicom.header import BROKEN, Header, one_line
from volseg.io.readable import COPY_AGAIN

_WITH_END_MARKER = (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes)
_SEQUENTIAL_JPEG = (JPEGBaseline8Bit, JPEGExtended12Bit)
_END_MARKER = b"\xff\xd9"
#: Start of scan of a grey image: 8 bytes, one component.
_GREY_SCAN = b"\xff\xda\x00\x08\x01"


def decode(header: Header) -> NDArray[np.generic]:
    """Decode the stored values of a grey image.

    Args:
        header: The whole file, from `read_dataset`.

    Returns:
        (F, J, I) array of F frames of J rows and I columns, in the dtype of the file, before any rescaling.

    Raises:
        DataError: If the pixels are missing, truncated, or cannot be decoded.
    """
    dataset = header.dataset
    if "PixelData" not in dataset:
        raise DataError(f"{header.path} holds no pixel data, or is truncated", hint=COPY_AGAIN)
    try:
        if "TransferSyntaxUID" not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = _native_syntax(dataset)
        if dataset.file_meta.TransferSyntaxUID in _WITH_END_MARKER:
            _check_and_mend(header)
        elif not dataset.file_meta.TransferSyntaxUID.is_compressed:
            _check_length(header)
        images: NDArray[np.generic] = dataset.pixel_array
        return images.reshape(-1, int(dataset.Rows), int(dataset.Columns))
    except DataError:
        raise
    except BROKEN as error:
        raise DataError(f"the pixels of {header.path} cannot be decoded: {one_line(error)}", hint=COPY_AGAIN) from error


def _check_length(header: Header) -> None:
    """Check that pixels do not exceed the stated matrix by a row or a column: then it was another matrix."""
    dataset = header.dataset
    rows, columns, frames = int(dataset.Rows), int(dataset.Columns), int(dataset.get("NumberOfFrames") or 1)
    expected = rows * columns * frames * int(dataset.BitsAllocated) // 8
    line = min(rows, columns) * frames * int(dataset.BitsAllocated) // 8
    if len(dataset.PixelData) >= expected + max(line, 2):
        raise DataError(
            f"{header.path} holds {len(dataset.PixelData)} bytes of pixels where its Rows and Columns make {expected}",
            hint="its header is damaged",
        )


def _check_and_mend(header: Header) -> None:
    """Check that compressed images are not truncated, which some decoders silently pad, and repair scan headers."""
    dataset = header.dataset
    frames = list(generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1)))
    if not all(frame.rstrip(b"\x00\xff").endswith(_END_MARKER) for frame in frames):
        raise DataError(
            f"the compressed pixels of {header.path} are truncated: their end marker is missing", hint=COPY_AGAIN
        )
    for frame in frames:
        check_stream(frame, header)
    # GDCM, pydicom's first choice, crashes the process on some damaged images and prints messages about others.
    dataset.pixel_array_options(decoding_plugin="pylibjpeg")
    if dataset.file_meta.TransferSyntaxUID in _SEQUENTIAL_JPEG:
        dataset.PixelData = encapsulate([_with_full_spectrum(frame) for frame in frames])
        dataset["PixelData"].is_undefined_length = True


def _with_full_spectrum(frame: bytes) -> bytes:
    """Make the scan of a sequential JPEG stream end at coefficient 63, the only value allowed (ITU-T T.81 table B.3).

    Some old encoders wrote 0 there, at which decoders stop though the image is complete.
    """
    start = frame.find(_GREY_SCAN)
    if start < 0:
        return frame
    last_coefficient = start + len(_GREY_SCAN) + 3
    return frame[:last_coefficient] + b"\x3f" + frame[last_coefficient + 1 :]


def _native_syntax(dataset: Dataset) -> UID:
    """Return the uncompressed transfer syntax in which pydicom found the data set to be written."""
    implicit, little_endian = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian
