"""Read DICOM Segmentations: what their segments mark, on the grid of an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels import iter_pixels
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from volseg.errors import ConfigError, DataError, GeometryError
from volseg.image.geometry import Geometry
from volseg.image.terminology import Code
from volseg.io.dicom.dataset import read_dataset
from volseg.io.dicom.header import BROKEN, EXPORT_AGAIN, Header, one_line
from volseg.io.dicom.quiet import quiet_dicom
from volseg.io.dicom.seg_frames import Faults, PlacedFrame, find_misplaced, is_label_map, place_frames
from volseg.io.readable import COPY_AGAIN
from volseg.io.segments import Marked, Segment

#: The segment of a label map that describes the background (PS3.3 section C.8.20.2.3); it marks nothing.
_BACKGROUND = 0
#: Transfer syntaxes whose pixels are stored as they are.
_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)


def read_seg(path: Path, geometry: Geometry, slices: Mapping[str, int] | None = None) -> Iterator[Marked]:
    """Place the segments of a file on the grid of an image, each by itself.

    Nothing is resampled: each pixel must be a voxel of the grid, whatever the order, direction and number of the
    frames. In fractional segments, voxels of at least half of the maximum count.

    Args:
        path: A Segmentation: BINARY, FRACTIONAL or LABELMAP.
        geometry: The grid; the caller has compared the frames of reference.
        slices: If known, SOPInstanceUID of the images -> slice of the grid: a frame must lie on the image it refers to.

    Yields:
        Each segment; the voxels of two may overlap, those of one without frames are empty. They raise GeometryError if
        frames of the segment do not state where they lie, lie between the voxels of the grid by more than
        `LATTICE_TOLERANCE`, or mark something outside it.

    Raises:
        DataError: If the file is damaged as a whole, or not a Segmentation.
    """
    with quiet_dicom():
        header = _segmentation(read_dataset(path))
        segments = _segments(header)
        faults = _shared_numbers(segments, path)
        frames = place_frames(header, geometry, faults)
        find_misplaced(frames, slices or {}, path, faults)
        label_map = is_label_map(header)
        least = 1 if label_map else _least_value(header)
    described = {segment.number for segment in segments}
    for frame in frames:
        if frame.segment is not None and frame.segment not in described:
            message = f"{path} does not describe segment {frame.segment}, which frame {frame.index + 1} shows"
            raise next(iter(_shared_numbers(segments, path).values()), DataError(message, hint=EXPORT_AGAIN))
    for segment in segments:
        own = [frame for frame in frames if label_map or frame.segment == segment.number]
        fault = faults.get(None if label_map else segment.number, faults.get(segment.number))
        only = segment.number if label_map else None
        yield Marked(segment, partial(_voxels, header, own, geometry, least, fault, only))


def seg_segments(path: Path) -> tuple[Segment, ...]:
    """Read the descriptions of the segments of a Segmentation.

    Raises:
        DataError: If the file is damaged or not a Segmentation.
    """
    with quiet_dicom():
        return _segments(_segmentation(read_dataset(path)))


def _voxels(
    header: Header,
    frames: Sequence[PlacedFrame],
    geometry: Geometry,
    least: int,
    fault: DataError | None,
    only: int | None,
) -> NDArray[np.bool_]:
    """Return the (I, J, K) voxels that some frames mark; in a label map those with the number `only`."""
    if fault is not None:
        raise fault
    numbers = _numbers(header, frames, geometry, least)
    return numbers > 0 if only is None else numbers == only


def _segmentation(header: Header) -> Header:
    if not header.items("SegmentSequence") or "SegmentationType" not in header:
        raise DataError(f"{header.path} is not a DICOM Segmentation", hint="give a segmentation or a structure set")
    return header


def _segments(header: Header) -> tuple[Segment, ...]:
    segments = [_segment(item) for item in header.items("SegmentSequence")]
    return tuple(segment for segment in segments if segment.number != _BACKGROUND)


def _shared_numbers(segments: Sequence[Segment], path: Path) -> Faults:
    """Return a fault for each number that several segments share: it is ambiguous which of them a frame shows."""
    counts = Counter(segment.number for segment in segments)
    return {
        number: DataError(f"{path} describes several segments with the same number: {number}", hint=EXPORT_AGAIN)
        for number, count in counts.items()
        if count > 1
    }


def _segment(item: Header) -> Segment:
    number = item.count("SegmentNumber")
    if number is None:
        raise DataError(f"{item.path} has a segment without SegmentNumber", hint=EXPORT_AGAIN)
    kind = item.items("SegmentedPropertyTypeCodeSequence")
    modifiers = kind[0].items("SegmentedPropertyTypeModifierCodeSequence") if kind else None
    return Segment(
        number,
        " ".join(item.words("SegmentLabel")),
        _code(kind[0]) if kind else None,
        _code(modifiers[0]) if modifiers else None,
        _color(item),
        item.text("SegmentAlgorithmType"),
        " ".join(item.words("SegmentAlgorithmName")),
    )


def _code(item: Header) -> Code | None:
    """Read a code if it is valid; values of other forms (URN, long) are dropped."""
    keywords = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    try:
        return Code(*(item.text(keyword) for keyword in keywords))
    except ConfigError:
        return None


def _color(item: Header) -> tuple[int, int, int] | None:
    value = item.value("RecommendedDisplayCIELabValue")
    if not isinstance(value, MultiValue | list) or len(value) != 3:
        return None
    from highdicom.color import CIELabColor

    red, green, blue = CIELabColor.from_dicom_value(value).to_rgb(clip=True)
    return red, green, blue


def _numbers(header: Header, frames: Sequence[PlacedFrame], geometry: Geometry, least: int = 1) -> NDArray[np.uint16]:
    """Return (I, J, K) pixel values that are at least `least`, 0 elsewhere; i is the fastest in memory."""
    numbers = np.zeros(geometry.shape[::-1], dtype=np.uint16).transpose(2, 1, 0)
    with quiet_dicom():
        for frame, pixels in zip(frames, _pixels(header, frames), strict=True):
            rows, columns = np.nonzero(pixels >= least)
            voxels = frame.origin + columns[:, np.newaxis] * frame.steps[0] + rows[:, np.newaxis] * frame.steps[1]
            outside = ((voxels < 0) | (voxels >= geometry.shape)).any(axis=1)
            if outside.any():
                raise GeometryError(
                    f"frame {frame.index + 1} of {header.path} marks {int(outside.sum())} voxels outside the image",
                    hint="is it the segmentation of this image?",
                )
            numbers[tuple(voxels.T)] = pixels[rows, columns]
    return numbers


def _pixels(header: Header, frames: Sequence[PlacedFrame]) -> Iterator[NDArray[np.unsignedinteger]]:
    """Yield the (rows, columns) stored values of frames.

    Raises:
        DataError: If they cannot be decoded.
    """
    if not frames:
        return
    dataset = header.dataset
    try:
        if dataset.file_meta.TransferSyntaxUID in _NATIVE:
            _check_length(header)
        if dataset.BitsAllocated == 1 and dataset.file_meta.TransferSyntaxUID in _NATIVE:
            yield from (_bits(dataset, frame.index) for frame in frames)
            return
        yield from iter_pixels(dataset, indices=[frame.index for frame in frames], raw=True)
    except BROKEN as error:
        raise DataError(f"the pixels of {header.path} cannot be decoded: {one_line(error)}", hint=COPY_AGAIN) from error


def _check_length(header: Header) -> None:
    """Check that the number of pixels matches the stated frames; otherwise it was another matrix."""
    dataset = header.dataset
    bits = int(dataset.NumberOfFrames) * dataset.Rows * dataset.Columns * dataset.BitsAllocated
    if not 0 <= len(dataset.PixelData) - (bits + 7) // 8 <= 1:  # one byte makes an odd length even
        raise DataError(
            f"{header.path} holds {len(dataset.PixelData)} bytes of pixels where its Rows and Columns make "
            f"{(bits + 7) // 8}",
            hint="its header is damaged",
        )


def _bits(dataset: Dataset, index: int) -> NDArray[np.uint8]:
    """Return the (rows, columns) bits of a frame, which follows the previous one without a gap, even within a byte.

    pydicom handles this when all frames are read at once, but not one by one.

    Raises:
        ValueError: If there are fewer bits.
    """
    shape = (dataset.Rows, dataset.Columns)
    first = index * shape[0] * shape[1]
    last = first + shape[0] * shape[1]
    content = np.frombuffer(dataset.PixelData, dtype=np.uint8)[first // 8 : (last + 7) // 8]
    bits = np.unpackbits(content, bitorder="little")[first % 8 :]
    return bits[: last - first].reshape(shape)


def _least_value(header: Header) -> int:
    """Return the smallest stored value that counts as inside."""
    if header.words("SegmentationType") != ("FRACTIONAL",):
        return 1
    most = header.count("MaximumFractionalValue")
    if not most:
        raise DataError(f"{header.path} is fractional and does not state MaximumFractionalValue", hint=EXPORT_AGAIN)
    return (most + 1) // 2
