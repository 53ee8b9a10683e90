"""Reading and writing images, masks and probabilities in any format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from volseg.config.reading import AS_IT_IS, AS_STATED, FileRules, ReadingRules
from volseg.errors import ConfigError, DataError
from volseg.image.geometry import Geometry
from volseg.image.volume import Mask, Volume
from volseg.io.readable import check_file, special_kind
from volseg.io.record import Role
from volseg.io.signatures import is_dicom
from volseg.io.source import FileSource, MasksSource, ObjectsSource, SegmentsSource, SeriesSource, Source

#: Suffixes of images; DICOM is recognised by its content.
VOLUME_SUFFIXES = (".nii.gz", ".nii", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp")
IMAGE_SUFFIXES = (*VOLUME_SUFFIXES, *PICTURE_SUFFIXES)
#: Suffixes that can be written.
NIFTI_SUFFIXES = {".nii", ".nii.gz", ".hdr"}
WRITTEN_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".png")
#: Suffix of files with probabilities.
PROBABILITIES_SUFFIX = ".probabilities.nii.gz"
#: Hint for a file with several volumes.
_ONE_IMAGE = "split it, or describe its volumes as channels in a dataset.json"


def file_source(path: Path, rules: ReadingRules = AS_STATED) -> FileSource | SegmentsSource:
    """Return the source of an image file or, if it names segments or holds outlines, the structures it marks."""
    if not special_kind(path):
        from volseg.io.outlines import outline_suffix, outlines_in

        if outline_suffix(path):
            return outlines_in(path)
    if path.suffix.lower() in {".nrrd", ".nhdr"} and not special_kind(path):
        from volseg.io.seg_nrrd import segments_in

        return segments_in(path) or FileSource(path, rules=rules.of_files)
    return FileSource(path, rules=rules.of_files)


def image_suffix(path: Path) -> str:
    """Return the suffix that makes `path` an image file, in lower case; empty if there is none."""
    name = path.name.lower()
    if not name.endswith(IMAGE_SUFFIXES):
        return ""
    return next(suffix for suffix in IMAGE_SUFFIXES if name.endswith(suffix))


def has_picture_suffix(path: Path) -> bool:
    """Return whether a file is a picture by its name, and not of a format for volumes."""
    return path.name.lower().endswith(PICTURE_SUFFIXES)


def is_picture(path: Path) -> bool:
    """Return whether an image file is flat: a picture by its name, or a DICOM file (volumes are series)."""
    return has_picture_suffix(path) or is_flat_dicom(path)


def is_flat_dicom(path: Path) -> bool:
    """Return whether an image file is DICOM: a single one is an image of one plane."""
    return not image_suffix(path) and is_dicom(path)


def read_volume(source: Source) -> Volume:
    """Read one image.

    Args:
        source: A file (with its frame, if it has several) or a DICOM series.

    Returns:
        A volume of one channel, (1, I, J, K) float32.

    Raises:
        DataError: If it is damaged or is not a single 3D volume.
        GeometryError: If it does not state where its voxels lie.
    """
    return read_channels([source])[0]


def read_channels(sources: Sequence[Source]) -> list[Volume]:
    """Read several images; a file that several are parts of is read only once. See `read_volume`."""
    files: dict[tuple[Path, FileRules], tuple[NDArray[np.generic], Geometry]] = {}
    volumes = []
    for source in sources:
        if not isinstance(source, FileSource):
            volumes.append(_read_other(source))
            continue
        key = source.path, source.rules
        files[key] = files.get(key) or read_file(source)
        array, geometry = frame_in(source, *files[key])
        _check_all_are_seen(source, len(files[key][0]), sources)
        with np.errstate(over="ignore"):  # values beyond float32 become infinite, as if the file stored them so
            volumes.append(Volume(np.asarray(array, dtype=np.float32)[np.newaxis], geometry))
    return volumes


def _check_all_are_seen(source: FileSource, count: int, sources: Sequence[Source]) -> None:
    """Check that a picture has no more channels than requested, since it would be ambiguous which ones to use."""
    asked = sum(isinstance(other, FileSource) and other.path == source.path for other in sources)
    if source.frame is not None and is_picture(source.path) and 1 < asked < count:
        raise DataError(
            f"{source.path} has {count} channels, of which {asked} are wanted",
            hint="keep those that the others also have",
        )


def read_shown(source: Source) -> Volume:
    """Read an image for display: a colour picture with its three channels, of anything else the selected channel.

    Raises:
        DataError: If it is damaged.
        GeometryError: If it does not state where its voxels lie.
    """
    if isinstance(source, FileSource) and is_picture(source.path):
        array, geometry = read_file(source)
        return Volume(np.asarray(array[: 3 if len(array) >= 3 else 1], dtype=np.float32), geometry)
    return read_volume(source)


def _read_other(source: SeriesSource | SegmentsSource | MasksSource | ObjectsSource) -> Volume:
    if isinstance(source, SegmentsSource | MasksSource | ObjectsSource):
        raise DataError(
            f"{source} marks structures in images, and is not an image itself", hint="give the images themselves"
        )
    from volseg.io.dicom import read_series

    return read_series(source)


def read_grid(source: Source) -> Geometry:
    """Read the grid of an image, whatever channels it has.

    Raises:
        DataError: If it is damaged.
        GeometryError: If it does not state where its voxels lie.
    """
    return read_file(source)[1] if isinstance(source, FileSource) else read_volume(source).geometry


def resample(volume: Volume, geometry: Geometry) -> Volume:
    """Resample an image to another grid in the same space, linearly; NaN outside its extent."""
    from volseg.io.itk import resample as itk_resample

    return itk_resample(volume, geometry)


def resample_mask(mask: Mask, geometry: Geometry) -> Mask:
    """Resample a mask to another grid in the same space, by nearest neighbour; 0 outside its extent."""
    from volseg.io.itk import resample_mask as itk_resample_mask

    return itk_resample_mask(mask, geometry)


def write_mask(mask: Mask, path: Path, image: Source | None = None, *, role: Role = "data") -> None:
    """Write a mask in the format given by the suffix of `path`, whole or not at all.

    Args:
        mask: The mask to write.
        path: The file.
        image: The image it was made from. From NIfTI to NIfTI all transforms are copied, so that the mask lies on its
            image in every reader.
        role: Whether it is a result, which is not an input of the next run.

    Raises:
        ConfigError: If the suffix is not that of a mask format.
        OutputError: If it cannot be written.
    """
    library = _writing_library(path)
    if model := _nifti_image(image, path):
        library.write_mask(mask, path, model, role=role)
    else:
        library.write_mask(mask, path, role=role)


def write_volume(volume: Volume, path: Path) -> None:
    """Write an image in the format given by the suffix of `path`, whole or not at all.

    Raises:
        ConfigError: If the suffix is not that of an image format.
        OutputError: If it cannot be written.
    """
    _writing_library(path).write_volume(volume, path)


def write_probabilities(shares: NDArray[np.uint8], geometry: Geometry, path: Path, image: Source | None = None) -> None:
    """Write probabilities (I, J, K, labels), given in 255ths, as a 4D .nii.gz file.

    Args:
        shares: In 255ths.
        geometry: The grid of the first three axes.
        path: The file.
        image: The image they were made from, as for `write_mask`.

    Raises:
        OutputError: If it cannot be written.
    """
    from volseg.io import nifti

    nifti.write_probabilities(shares, geometry, path, _nifti_image(image, path))


def header_remark(source: Source) -> str:
    """Describe ambiguities in the position stated by a file's header, for the user; empty if there are none.

    Raises:
        DataError: If it is damaged.
        GeometryError: If it does not state where its voxels lie, or contradicts itself.
    """
    if not (isinstance(source, FileSource) and image_suffix(source.path) in NIFTI_SUFFIXES):
        return ""
    from volseg.io import nifti

    return nifti.header_remark(source.path, source.rules.geometry)


def frame_count(path: Path, rules: FileRules = AS_IT_IS) -> int:
    """Return the number of 3D volumes in a file, or of channels in a picture, by its header.

    Raises:
        DataError: If it is damaged.
    """
    check_file(path)
    if is_picture(path):
        if is_flat_dicom(path):
            from volseg.io.dicom import flat

            return flat.channel_count(path)
        from volseg.io.pictures import channel_count

        return channel_count(path, rules)
    count: int = _library(path).frame_count(path)
    return count


def _library(path: Path) -> ModuleType:
    """Return the module for the format of an image file; each loads its library only when needed."""
    if image_suffix(path) in NIFTI_SUFFIXES:
        from volseg.io import nifti

        return nifti
    if is_flat_dicom(path):
        from volseg.io.dicom import flat

        return flat
    if is_picture(path):
        from volseg.io import pictures

        return pictures
    from volseg.io import itk

    return itk


def _nifti_image(image: Source | None, path: Path) -> FileSource | None:
    """Return the image of a mask, if both are NIfTI: a mask that is being replaced is not an image."""
    if not isinstance(image, FileSource) or image.path == path or not image.path.is_file():
        return None
    return image if {image_suffix(image.path), image_suffix(path)} <= NIFTI_SUFFIXES else None


def read_file(source: FileSource) -> tuple[NDArray[np.generic], Geometry]:
    """Read everything in a file: (frames, I, J, K) in its own dtype, and the grid.

    Raises:
        DataError: If it is damaged, or of an unknown format.
        GeometryError: If it does not state where its voxels lie.
    """
    path = source.path
    check_file(path)
    if not (image_suffix(path) or is_flat_dicom(path)):
        raise DataError(
            f"{path} is not an image volseg can read", hint=f"it reads {', '.join(IMAGE_SUFFIXES)} and DICOM"
        )
    given: list[object] = []
    if image_suffix(path) in NIFTI_SUFFIXES:
        given = [source.rules.geometry]
    elif is_picture(path):
        given = [source.rules]
    content: tuple[NDArray[np.generic], Geometry] = _library(path).read_array(path, *given)
    return content


def frame_in(
    source: FileSource, array: NDArray[np.generic], geometry: Geometry, hint: str = _ONE_IMAGE
) -> tuple[NDArray[np.generic], Geometry]:
    """Return the selected frame of a file, (I, J, K).

    Args:
        source: The file, and which frame.
        array: Its content.
        geometry: Its grid, which is returned with the frame.
        hint: What to do if it has several and none is selected.

    Raises:
        DataError: If there is no such frame, or none is selected of several.
    """
    if is_picture(source.path):
        from volseg.io.pictures import frame_of

        return frame_of(array, source.frame, source.path), geometry
    if source.frame is None and len(array) != 1:
        raise DataError(
            f"{source.path} is 4D: it holds {len(array)} volumes of {geometry}, not one",
            hint=hint,
        )
    frame = source.frame or 0
    if frame >= len(array):
        raise DataError(
            f"{source.path} holds {len(array)} volumes, but no number {frame}",
            hint="its volumes are channels, counted from 0: is one missing?",
        )
    return array[frame], geometry


def _writing_library(path: Path) -> ModuleType:
    """Return the module that writes files with the path's suffix."""
    if not path.name.lower().endswith(WRITTEN_SUFFIXES):
        raise ConfigError(
            f"cannot write {path}: its suffix is not that of a known format",
            hint="use .nii.gz, .nii, .nrrd, .mha or .png",
        )
    return _library(path)
