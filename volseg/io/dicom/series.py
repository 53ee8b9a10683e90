"""Reading one series as a volume."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from volseg.errors import DataError, GeometryError
from volseg.io.dicom.dataset import count_of, quiet_pydicom, read_dataset, read_header
from volseg.io.dicom.frames import Frame, frames_of
from volseg.io.dicom.instances import Instances
from volseg.io.dicom.mosaic import is_mosaic, tiles_of
from volseg.io.dicom.pixels import decode
from volseg.io.dicom.stack import Stack, by_position, in_order, stack
from volseg.io.source import SeriesSource
from volseg.volume import Volume

_log = logging.getLogger("volseg")

#: Gives the (J, I) values of a frame.
_Values = Callable[[Frame], NDArray[np.float32]]


def read_series(source: SeriesSource) -> Volume:
    """Read a series of single-frame files, an enhanced multi-frame file, or a mosaic.

    Values are what the modality means: stored values times RescaleSlope plus RescaleIntercept, each slice by its own;
    PET becomes SUV where the header states all it takes. MONOCHROME1 is not inverted and padding is kept as it is
    stored: both are about display, and to change them would change what was measured.

    Args:
        source: From `scan_dicom`; the order of its files does not matter.

    Returns:
        (1, I, J, K) float32: I columns, J rows, K slices along the normal i x j; a view with i fastest in memory.

    Raises:
        GeometryError: If the headers do not say where the images lie, or they are no evenly spaced stack.
        DataError: If a file is damaged, or the series is not one 3D volume.
    """
    place = place_of(source)
    _check(source, place)
    values: dict[Frame, NDArray[np.float32]] = {}
    with quiet_pydicom():
        for path, wanted in source.parts:
            values |= _read_images(path, wanted)
        frames = _one_per_position(in_order(list(values), place), values.__getitem__, place)
        placed = stack(frames, place, fill_gaps=source.fill_gaps)
    slices = np.empty((len(frames), *placed.geometry.shape[1::-1]), dtype=np.float32)
    for k, frame in enumerate(frames):
        slices[k] = values.pop(frame)
    if not placed.is_whole:
        slices = _bridged(slices, placed, place)
    return Volume(slices.transpose(2, 1, 0)[np.newaxis], placed.geometry)


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
    place = place_of(source)
    _check(source, place)
    with quiet_pydicom():
        headers = {path: read_header(path) for path in source.files}
        frames = [frame for path, wanted in source.parts for frame in _frames_in(headers[path], path, wanted)]
        frames = _one_per_position(in_order(frames, place), _values_of, place)
        placed = stack(frames, place, fill_gaps=source.fill_gaps)
        return Instances(placed.geometry, tuple(frames), placed.slices, headers)


def place_of(source: SeriesSource) -> str:
    """How errors name a series."""
    return str(source.files[0] if len(source.files) == 1 else source.folder)


def _check(source: SeriesSource, place: str) -> None:
    if source.doubt and not source.fill_gaps:
        raise GeometryError(
            f"{place}: {source.doubt}", hint="move what does not belong to it away, or use --allow-gaps to do without"
        )


def _read_images(path: Path, wanted: Sequence[int] | None) -> Iterator[tuple[Frame, NDArray[np.float32]]]:
    """The wanted frames of a file with their values."""
    dataset = read_dataset(path)
    frames = _frames_in(dataset, path, wanted)
    stored = decode(dataset, path)
    for frame in frames:
        yield frame, _rescaled(stored, frame)


def _values_of(frame: Frame) -> NDArray[np.float32]:
    return _rescaled(decode(read_dataset(frame.path), frame.path), frame)


def _rescaled(stored: NDArray[np.generic], frame: Frame) -> NDArray[np.float32]:
    """(J, I) values of one frame from the (F, rows, columns) stored values of its file."""
    column, row = frame.corner
    columns, rows = frame.plane.shape
    if frame.index >= len(stored):
        raise DataError(f"{frame.path} holds {len(stored)} images, fewer than it describes")
    image = stored[frame.index, row : row + rows, column : column + columns]
    # The sum is made in float64, so that float32 only rounds once.
    return (image.astype(np.float64) * frame.slope + frame.intercept).astype(np.float32)


def _frames_in(header: Dataset, path: Path, wanted: Sequence[int] | None) -> list[Frame]:
    parts = count_of(header, "InConcatenationTotalNumber", path) or 1
    if parts > 1:
        raise DataError(f"{path} is one of {parts} parts of a concatenation", hint="join the parts, or convert them")
    frames = frames_of(header, path)
    if is_mosaic(header, path):
        frames = tiles_of(header, frames[0])
    return frames if wanted is None else [frames[index] for index in wanted]


def _bridged(slices: NDArray[np.float32], placed: Stack, place: str) -> NDArray[np.float32]:
    """Images on the slices of an even grid that they show, and between them what lies linearly between."""
    known = np.array(placed.slices)
    count = placed.geometry.shape[2]
    _log.warning("%s: %d of %d slices are interpolated over gaps", place, count - len(known), count)
    after = np.clip(np.searchsorted(known, np.arange(count)), 1, len(known) - 1)
    share = (np.arange(count) - known[after - 1]) / (known[after] - known[after - 1])
    share = share.astype(np.float32)[:, np.newaxis, np.newaxis]
    return slices[after - 1] * (1 - share) + slices[after] * share


def _one_per_position(frames: Sequence[Frame], values: _Values, place: str) -> list[Frame]:
    """Drop copies of the same image at the same position; different images at one position are no 3D volume."""
    positions = by_position(frames, lambda frame: frame.plane)
    repeated = [members for members in positions if len(members) > 1]
    for members in repeated:
        first = values(members[0])
        if not all(np.array_equal(first, values(other), equal_nan=True) for other in members[1:]):
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
