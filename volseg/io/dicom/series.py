"""Read a series as a volume."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volseg.errors import DataError, GeometryError
from volseg.image.volume import Volume
from volseg.io.dicom.dataset import read_header
from volseg.io.dicom.frames import Frame
from volseg.io.dicom.images import frames_in, read_images
from volseg.io.dicom.instances import Instances
from volseg.io.dicom.quiet import quiet_dicom
from volseg.io.dicom.stack import Stack, by_position, differing, in_order, stack
from volseg.io.source import SeriesSource
from volseg.parallel import allowed_threads

_log = logging.getLogger("volseg")

#: More threads than this would wait for the disk or for each other.
_MOST_THREADS = 4

#: Factors within a series that differ by less than this differ by rounding only.
_SAME_FACTOR = 1e-6

#: Returns the (J, I) values of a frame.
_Values = Callable[[Frame], NDArray[np.float32]]


def read_series(source: SeriesSource) -> Volume:
    """Read a series of single-frame files, an enhanced multi-frame file, or a mosaic.

    Values are in the unit of the modality: stored values times RescaleSlope plus RescaleIntercept, each slice by its
    own; PET becomes SUV if the header states everything needed. MONOCHROME1 is not inverted and padding is kept as
    stored: both concern display, and changing them would change the measurement.

    Args:
        source: From `scan_dicom`; the order of its files does not matter.

    Returns:
        (1, I, J, K) float32: I columns, J rows, K slices along the normal i x j; a view with i fastest in memory.

    Raises:
        GeometryError: If the headers do not state where the images lie, or they are not an evenly spaced stack.
        DataError: If a file is damaged, or the series is not one 3D volume.
    """
    place = place_of(source)
    _check(source, place)
    with quiet_dicom():
        frames, slices = _read_all(source, place)
        if (factor := _activity_factor(frames, place)) != 1:
            slices *= np.float32(factor)
        kept = _one_per_position(in_order(frames, place), lambda frame: slices[frames.index(frame)], place)
        placed = stack(kept, place, fill_gaps=source.fill_gaps)
    if kept != frames:
        number = {frame: n for n, frame in enumerate(frames)}
        slices = slices[[number[frame] for frame in kept]]
    if not placed.is_whole:
        slices = _bridged(slices, placed, place)
    return Volume(slices.transpose(2, 1, 0)[np.newaxis], placed.geometry)


def read_instances(source: SeriesSource) -> Instances:
    """Read the headers of a series, for objects derived from it.

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
    with quiet_dicom():
        headers = {path: read_header(path) for path in source.files}
        frames = [frame for path, wanted in source.wanted_frames for frame in _wanted(frames_in(headers[path]), wanted)]
        frames = _one_per_position(in_order(frames, place), _values_of, place)
        placed = stack(frames, place, fill_gaps=source.fill_gaps)
        return Instances(source.folder, placed.geometry, tuple(frames), placed.slices, headers)


def _wanted(frames: list[Frame], numbers: Sequence[int] | None) -> list[Frame]:
    return frames if numbers is None else [frames[number] for number in numbers]


def place_of(source: SeriesSource) -> str:
    """Return the name of a series in errors."""
    return str(source.files[0] if len(source.files) == 1 else source.folder)


def _check(source: SeriesSource, place: str) -> None:
    if source.doubt and source.fill_gaps:
        _log.warning("%s is read although it may be incomplete: %s", place, source.doubt)
    elif source.doubt:
        raise GeometryError(
            f"{place}: {source.doubt}", hint="move other files away, or use --allow-gaps to read it anyway"
        )


def _read_all(source: SeriesSource, place: str) -> tuple[list[Frame], NDArray[np.float32]]:
    """Return all frames in the order of the files, and (N, J, I) their values."""
    wanted = source.frames[0] if source.frames else None
    first = read_images(source.files[0])
    chosen = list(range(len(first.frames))) if wanted is None else list(wanted)
    slices = np.empty((max(len(chosen), len(source.files)), *first.frames[0].plane.shape[::-1]), dtype=np.float32)
    if len(source.files) == 1:
        for n, number in enumerate(chosen):
            first.rescale(number, slices[n])
        return [first.frames[number] for number in chosen], slices
    with ThreadPoolExecutor(
        min(_MOST_THREADS, allowed_threads())
    ) as pool:  # reading and rescaling release the GIL, so threads run them in parallel
        frames = list(pool.map(lambda n: _read_slice(source.files[n], slices[n], place), range(len(source.files))))
    return frames, slices


def _activity_factor(frames: Sequence[Frame], place: str) -> float:
    """Return the factor that turns PET images into uptakes; they keep their unit unless all share one factor."""
    faults = [frame.activity.fault for frame in frames if frame.activity.fault]
    factors = {frame.activity.factor for frame in frames}
    if not faults and max(factors) <= (1 + _SAME_FACTOR) * min(factors):
        return factors.pop() if len(factors) == 1 else sum(factors) / len(factors)
    why = faults[0] if faults else "its images state different doses, weights or times"
    _log.warning("%s stays in Bq/ml, because its SUV cannot be computed: %s", place, why)
    return 1.0


def _read_slice(path: Path, out: NDArray[np.float32], place: str) -> Frame:
    """Read a file that holds one slice of a volume."""
    with quiet_dicom():  # each thread of a pool starts without the filter
        images = read_images(path)
    if len(images.frames) != 1 or images.frames[0].plane.shape != out.shape[::-1]:
        raise differing(place)
    images.rescale(0, out)
    return images.frames[0]


def _values_of(frame: Frame) -> NDArray[np.float32]:
    images = read_images(frame.path)
    values = np.empty(frame.plane.shape[::-1], np.float32)
    same = (n for n, other in enumerate(images.frames) if (other.index, other.corner) == (frame.index, frame.corner))
    images.rescale(next(same), values)
    return values


def _bridged(slices: NDArray[np.float32], placed: Stack, place: str) -> NDArray[np.float32]:
    """Interpolate the slices of an even grid linearly between the images on either side."""
    known = np.array(placed.depths)
    count = placed.geometry.shape[2]
    on_image = np.isin(np.arange(count), known)
    _log.warning("%s: %d of %d slices are interpolated across gaps", place, count - int(on_image.sum()), count)
    after = np.clip(np.searchsorted(known, np.arange(count)), 1, len(known) - 1)
    share = (np.arange(count) - known[after - 1]) / (known[after] - known[after - 1])
    share = share.astype(np.float32)[:, np.newaxis, np.newaxis]
    return slices[after - 1] * (1 - share) + slices[after] * share


def _one_per_position(frames: Sequence[Frame], values: _Values, place: str) -> list[Frame]:
    """Drop copies of the same image at the same position; different images at one position are not a 3D volume."""
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
    if len(positions) == 1:
        return DataError(
            f"all {counts.pop()} images of {place} state the same position, so the positions of the slices are unknown",
            hint="export it again with the position of each slice; if they show one slice several times, keep one",
        )
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
