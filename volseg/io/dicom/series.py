"""Reading one series as a volume."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from volseg.errors import DataError
from volseg.io.dicom.dataset import count_of, quiet_pydicom, read_header, words_of
from volseg.io.dicom.frames import Frame, frames_of
from volseg.io.dicom.instances import Instances
from volseg.io.dicom.pixels import read_pixels
from volseg.io.dicom.stack import by_position, grid_of, in_order
from volseg.io.source import SeriesSource
from volseg.volume import Volume

_log = logging.getLogger("volseg")


def read_series(source: SeriesSource) -> Volume:
    """Read a series of single-frame files, or one enhanced multi-frame file.

    Values are what the modality means: stored values times RescaleSlope plus RescaleIntercept, each slice by its own.
    MONOCHROME1 is not inverted and padding is kept as it is stored: both are about display, and to change them would
    change what was measured.

    Args:
        source: From `scan_dicom`; the order of its files does not matter.

    Returns:
        (1, I, J, K) float32: I columns, J rows, K slices along the normal i x j; a view with i fastest in memory.

    Raises:
        GeometryError: If the headers do not say where the images lie, or they are no evenly spaced stack.
        DataError: If a file is damaged, or the series is not one 3D volume.
    """
    place = str(source.files[0] if len(source.files) == 1 else source.folder)
    images = _Images()
    with quiet_pydicom():
        frames = in_order([frame for path in source.files for frame in _frames_in(path)], place)
        frames = _one_per_position(frames, images, place)
        geometry = grid_of(frames, place)
        slices = np.empty(geometry.shape[::-1], dtype=np.float32)
        for k, frame in enumerate(frames):
            slices[k] = images.of(frame)
    return Volume(slices.transpose(2, 1, 0)[np.newaxis], geometry)


def read_instances(source: SeriesSource) -> Instances:
    """Read the headers of a series, for what is derived from it.

    Args:
        source: From `scan_dicom`.

    Returns:
        The images in the order of the slices that `read_series` gives.

    Raises:
        GeometryError: As `read_series`.
        DataError: As `read_series`.
    """
    place = str(source.files[0] if len(source.files) == 1 else source.folder)
    with quiet_pydicom():
        headers = {path: read_header(path) for path in source.files}
        frames = in_order([frame for path in source.files for frame in _frames_in(path)], place)
        frames = _one_per_position(frames, _Images(), place)
        return Instances(grid_of(frames, place), tuple(frames), tuple(range(len(frames))), headers)


class _Images:
    """The rescaled images of frames; a multi-frame file is decoded once for all of its frames in a row."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._stored: NDArray[np.generic] = np.empty((0, 0, 0))

    def of(self, frame: Frame) -> NDArray[np.float32]:
        """(J, I) values of one frame.

        Raises:
            DataError: If its file cannot be decoded.
        """
        if frame.path != self._path:
            self._stored, self._path = read_pixels(frame.path), frame.path
        if frame.index >= len(self._stored):
            raise DataError(f"{frame.path} holds {len(self._stored)} images, fewer than it describes")
        # The sum is made in float64, so that float32 only rounds once.
        values: NDArray[np.float64] = self._stored[frame.index].astype(np.float64) * frame.slope + frame.intercept
        return values.astype(np.float32)


def _frames_in(path: Path) -> list[Frame]:
    header = read_header(path)
    _refuse_special_layout(header, path)
    return frames_of(header, path)


def _refuse_special_layout(header: Dataset, path: Path) -> None:
    if "MOSAIC" in words_of(header, "ImageType", path):
        raise DataError(
            f"{path} is a Siemens mosaic: all slices of a volume tiled into one image",
            hint="convert it to NIfTI, for example with dcm2niix",
        )
    parts = count_of(header, "InConcatenationTotalNumber", path) or 1
    if parts > 1:
        raise DataError(f"{path} is one of {parts} parts of a concatenation", hint="join the parts, or convert them")


def _one_per_position(frames: Sequence[Frame], images: _Images, place: str) -> list[Frame]:
    """Drop copies of the same image at the same position; different images at one position are no 3D volume."""
    positions = by_position(frames)
    repeated = [members for members in positions if len(members) > 1]
    for members in repeated:
        first = images.of(members[0])
        if not all(np.array_equal(first, images.of(other)) for other in members[1:]):
            raise _not_3d(positions, members, place)
    if repeated:
        _log.warning("%s: %d identical copies of slices left out", place, len(frames) - len(positions))
    return [members[0] for members in positions]


def _not_3d(positions: Sequence[Sequence[Frame]], differing: Sequence[Frame], place: str) -> DataError:
    counts = {len(members) for members in positions}
    hint = "keep one image per position, for example one echo, phase or time point"
    if len(counts) == 1:
        return DataError(
            f"{place} is a 4D series: {counts.pop()} images at each of {len(positions)} positions", hint=hint
        )
    where = ", ".join(sorted({frame.path.name for frame in differing})[:2])
    return DataError(
        f"{place} holds different images of the same slice ({where}); {len(positions)} positions hold from "
        f"{min(counts)} to {max(counts)} images",
        hint=hint,
    )
