"""Disk to types and back: the only place that knows file formats."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from volseg.errors import ConfigError, DataError
from volseg.image.geometry import Geometry
from volseg.image.volume import Label, Mask, Volume
from volseg.io.archives import is_archive, members
from volseg.io.source import Discovery, FileSource, SegmentsSource, SeriesSource, SetAside, Source
from volseg.progress import Progress, ignore_progress

__all__ = [
    "IMAGE_SUFFIXES",
    "Discovery",
    "FileSource",
    "SegmentsSource",
    "SeriesSource",
    "SetAside",
    "Source",
    "discover",
    "image_suffix",
    "read_mask",
    "read_volume",
    "resample",
    "single_source",
    "stands_for",
    "write_mask",
    "write_volume",
]

#: What is recognised as an image by its name; DICOM is recognised by its content.
IMAGE_SUFFIXES = (".nii.gz", ".nii", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd")
#: What is written.
WRITTEN_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
#: The largest label value a mask can hold.
LARGEST_LABEL = 65535
#: How far from a whole number a label may lie: 255 * float32(1 / 255), a 1 that was stored scaled, is no exact 1.
_ROUNDING = 1e-3

# The voxels that a header of two-file formats refers to: part of the header's image, not files of their own.
_VOXEL_SUFFIXES = {".img": (".hdr",), ".raw": (".nhdr", ".mhd"), ".zraw": (".mhd",)}


def image_suffix(path: Path) -> str:
    """The suffix that makes `path` an image file, in lower case; empty when there is none."""
    name = path.name.lower()
    if not name.endswith(IMAGE_SUFFIXES):
        return ""
    return next(suffix for suffix in IMAGE_SUFFIXES if name.endswith(suffix))


def discover(root: Path, progress: Progress = ignore_progress, *, fill_gaps: bool = False) -> Discovery:
    """Find everything below `root` that may be a volume; only headers are read.

    Args:
        root: A folder, a single image or DICOM file, a .zip of DICOM files, or a DICOMDIR, which stands for its folder.
        progress: Told how many files were looked at.
        fill_gaps: Whether DICOM series with missing or unevenly spaced slices are to be bridged when they are read.

    Returns:
        The sources, and what was set aside with the reason. Hidden files are not looked at.

    Raises:
        DataError: If `root` does not exist.
    """
    from volseg.io.dicom import scan_dicom

    if not root.exists():
        raise DataError(f"{root} does not exist")
    root = stands_for(root)
    images: list[Source] = []
    candidates: list[Path] = []
    set_aside: list[SetAside] = []
    for path in _files_of(root, set_aside):
        if image_suffix(path):
            images.append(FileSource(path))
        elif not _belongs_to_header(path):
            candidates.append(path)
    scan = scan_dicom(candidates, progress, fill_gaps=fill_gaps)
    sources = sorted([*images, *scan.series], key=_order)
    set_aside += scan.set_aside
    return Discovery(tuple(sources), tuple(sorted(set_aside, key=lambda item: item.path)), scan.ignored, scan.segments)


def stands_for(path: Path) -> Path:
    """What a path that a user names means: a DICOMDIR, the index of a medium, stands for its folder."""
    return path.parent if path.name.upper() == "DICOMDIR" and path.is_file() else path


def single_source(path: Path, *, fill_gaps: bool = False) -> Source:
    """The one volume at a path: a file, a folder that holds one DICOM series, or an object that marks structures.

    Args:
        path: Where it lies.
        fill_gaps: Whether a DICOM series with missing slices is to be bridged when it is read.

    Raises:
        DataError: If there is none, or more than one.
    """
    discovery = discover(path, fill_gaps=fill_gaps)
    sources = discovery.sources or discovery.segments
    if len(sources) != 1:
        raise DataError(f"{path} holds {len(sources)} volumes, one is needed", hint="`volseg inspect` shows them")
    return sources[0]


def read_volume(source: Source) -> Volume:
    """Read one image.

    Args:
        source: A file (with the frame that is meant, if it has several) or a DICOM series.

    Returns:
        A volume of one channel, (1, I, J, K) float32.

    Raises:
        DataError: If it is damaged or is no single 3D volume.
        GeometryError: If it does not say where its voxels lie.
    """
    if isinstance(source, SegmentsSource):
        raise DataError(f"{source} marks structures in images, it is no image")
    if isinstance(source, SeriesSource):
        from volseg.io.dicom import read_series

        return read_series(source)
    array, geometry = _read_frame(source)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, as if the file had it so
        return Volume(np.asarray(array, dtype=np.float32)[np.newaxis], geometry)


def read_mask(source: Source, labels: Sequence[Label] = (), on: Geometry | None = None) -> Mask:
    """Read a label map.

    Args:
        source: A file or a DICOM series whose voxels are whole numbers, stored in any type; or a DICOM Segmentation or
            RT Structure Set.
        labels: What the values mean, and which structures of a DICOM object they are.
        on: The grid of the image, for an object that has none of its own.

    Returns:
        The mask, uint8 or uint16.

    Raises:
        DataError: If it is damaged, or a voxel is not a whole number from 0 to 65535.
        GeometryError: If it does not say where its voxels lie.
    """
    match source:
        case SegmentsSource():
            from volseg.io.dicom.references import read_segments

            return read_segments(source, labels, on)
        case SeriesSource():
            volume = read_volume(source)
            array, geometry = volume.array[0], volume.geometry
        case FileSource():
            array, geometry = _read_frame(source)
    return Mask(_label_values(array, source), geometry, tuple(labels))


def resample(volume: Volume, geometry: Geometry) -> Volume:
    """Bring an image onto another grid in the same space, linearly; where it does not reach, voxels are NaN."""
    from volseg.io.itk import resample as itk_resample

    return itk_resample(volume, geometry)


def resample_mask(mask: Mask, geometry: Geometry) -> Mask:
    """Bring a mask onto another grid in the same space, each voxel from the nearest; 0 where it does not reach."""
    from volseg.io.itk import resample_mask as itk_resample_mask

    return itk_resample_mask(mask, geometry)


def read_probabilities(path: Path) -> tuple[NDArray[np.float32], Geometry]:
    """Read what `write_probabilities` wrote, or another image of four axes.

    Returns:
        (I, J, K, labels) float32 and the grid of the first three axes.

    Raises:
        DataError: If it is damaged, or a voxel is not from 0 to 1.
        GeometryError: If it does not say where its voxels lie.
    """
    array, geometry = _read_file(path)
    shares = np.moveaxis(np.asarray(array, np.float32), 0, -1)
    if not (shares.min() >= -_ROUNDING and shares.max() <= 1 + _ROUNDING):
        raise DataError(f"{path} holds no probabilities: some voxels are not from 0 to 1")
    return np.clip(shares, 0, 1), geometry


def write_mask(mask: Mask, path: Path) -> None:
    """Write a mask in the format that the suffix of `path` names, whole or not at all.

    Raises:
        ConfigError: If the suffix names no format for masks.
        OutputError: If it cannot be written.
    """
    if image_suffix(path) not in WRITTEN_SUFFIXES:
        raise _unwritable(path)
    _library(path).write_mask(mask, path)


def write_volume(volume: Volume, path: Path) -> None:
    """Write an image in the format that the suffix of `path` names, whole or not at all.

    Raises:
        ConfigError: If the suffix names no format for images.
        OutputError: If it cannot be written.
    """
    if image_suffix(path) not in WRITTEN_SUFFIXES:
        raise _unwritable(path)
    _library(path).write_volume(volume, path)


def write_probabilities(shares: NDArray[np.uint8], geometry: Geometry, path: Path) -> None:
    """Write probabilities (I, J, K, labels), given in 255ths, as a .nii.gz file of four axes.

    Raises:
        OutputError: If it cannot be written.
    """
    from volseg.io import nifti

    nifti.write_probabilities(shares, geometry, path)


def frame_count(path: Path) -> int:
    """How many 3D volumes a file holds, by its header.

    Raises:
        DataError: If it is damaged.
    """
    count: int = _library(path).frame_count(path)
    return count


def _library(path: Path) -> ModuleType:
    """The module that knows the format of an image file; each loads its library only when it is needed."""
    if image_suffix(path) in {".nii", ".nii.gz", ".hdr"}:
        from volseg.io import nifti

        return nifti
    from volseg.io import itk

    return itk


def _read_file(path: Path) -> tuple[NDArray[np.generic], Geometry]:
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    if not image_suffix(path):
        raise DataError(f"{path} is no image volseg can read", hint=f"it reads {', '.join(IMAGE_SUFFIXES)} and DICOM")
    content: tuple[NDArray[np.generic], Geometry] = _library(path).read_array(path)
    return content


def _read_frame(source: FileSource) -> tuple[NDArray[np.generic], Geometry]:
    array, geometry = _read_file(source.path)
    if source.frame is None and len(array) != 1:
        raise DataError(
            f"{source.path} is 4D: it holds {len(array)} volumes of {geometry}, not one",
            hint="split it, or describe its volumes as channels in a dataset.json",
        )
    frame = source.frame or 0
    if frame >= len(array):
        raise DataError(f"{source.path} holds {len(array)} volumes, there is no number {frame}")
    return array[frame], geometry


def _label_values(array: NDArray[np.generic], source: Source) -> NDArray[np.unsignedinteger]:
    """Check that all voxels are label values, and store them as small as they fit."""
    if np.issubdtype(array.dtype, np.floating):
        whole = np.rint(array)
        if not np.isfinite(array).all() or np.abs(array - whole).max() > _ROUNDING:
            raise DataError(f"{source} is no label map: some voxels are not whole numbers", hint="is it the image?")
        array = whole
    smallest, largest = int(array.min()), int(array.max())
    if smallest < 0 or largest > LARGEST_LABEL:
        raise DataError(
            f"{source} is no label map: values from {smallest} to {largest}, allowed are 0 to {LARGEST_LABEL}"
        )
    return array.astype(np.uint8 if largest <= 255 else np.uint16)


def _files_of(root: Path, set_aside: list[SetAside]) -> Iterator[Path]:
    """All files below a path; those in archives, too, of which only DICOM is read."""
    for path in [root] if root.is_file() else _walk(root, set_aside):
        if not is_archive(path):
            yield path
            continue
        try:
            for member in members(path):
                if image_suffix(member) or member.suffix.lower() == path.suffix.lower():
                    set_aside.append(SetAside(member, "only DICOM is read from an archive: unpack it"))
                else:
                    yield member
        except DataError as error:
            set_aside.append(SetAside(path, str(error)))


def _walk(root: Path, set_aside: list[SetAside]) -> Iterator[Path]:
    """All files that are not hidden, through links to folders too, no folder twice; closed folders are set aside."""
    entered: set[str] = set()

    def closed(error: OSError) -> None:
        set_aside.append(SetAside(Path(error.filename), f"cannot look into the folder: {error.strerror}"))

    for folder, folders, files in os.walk(root, followlinks=True, onerror=closed):
        place = os.path.realpath(folder)
        if place in entered:
            folders.clear()
            continue
        entered.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))


def _belongs_to_header(path: Path) -> bool:
    if not path.name.lower().endswith(tuple(_VOXEL_SUFFIXES)):
        return False
    return any(path.with_suffix(suffix).exists() for suffix in _VOXEL_SUFFIXES[path.suffix.lower()])


def _order(source: Source) -> tuple[str, int, str]:
    if isinstance(source, SeriesSource):
        return str(source.place), source.traits.number or 0, source.series_uid + source.volume
    return str(source.place), 0, ""


def _unwritable(path: Path) -> ConfigError:
    return ConfigError(f"cannot write {path}: no format is known by that name", hint="use .nii.gz, .nii, .nrrd or .mha")
