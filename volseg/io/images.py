"""Reading and writing images, masks and probabilities in any format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from volseg.config.reading import AS_IT_IS, AS_STATED, FileRules, GeometryChoice, ReadingRules
from volseg.errors import ConfigError, DataError
from volseg.image.geometry import Geometry
from volseg.image.naming import values_by_name
from volseg.image.volume import Label, Mask, Volume, label_values
from volseg.io.readable import check_file, special_kind
from volseg.io.record import Role
from volseg.io.source import FileSource, MasksSource, SegmentsSource, SeriesSource, Source

#: What is recognised as an image by its name; DICOM is recognised by its content.
VOLUME_SUFFIXES = (".nii.gz", ".nii", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp")
IMAGE_SUFFIXES = (*VOLUME_SUFFIXES, *PICTURE_SUFFIXES)
#: What is written.
_NIFTI = {".nii", ".nii.gz", ".hdr"}
WRITTEN_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".png")
#: How the name of a file of probabilities ends.
PROBABILITIES_SUFFIX = ".probabilities.nii.gz"
#: What to do about a file of several volumes.
_ONE_IMAGE = "split it, or describe its volumes as channels in a dataset.json"
_ONE_MASK = (
    "a mask is one volume: 3D Slicer stores segments that overlap as layers; export one file per segment, or keep "
    "their names (.seg.nrrd, DICOM Segmentation)"
)
#: By how much probabilities that were stored scaled may leave the range from 0 to 1.
_ROUNDING = 1e-3


def file_source(path: Path, rules: ReadingRules = AS_STATED) -> FileSource | SegmentsSource:
    """An image file, or, where its header names segments, what it marks."""
    if path.suffix.lower() in {".nrrd", ".nhdr"} and not special_kind(path):
        from volseg.io.seg_nrrd import segments_in

        return segments_in(path) or FileSource(path, rules=rules.of_files)
    return FileSource(path, rules=rules.of_files)


def image_suffix(path: Path) -> str:
    """The suffix that makes `path` an image file, in lower case; empty when there is none."""
    name = path.name.lower()
    if not name.endswith(IMAGE_SUFFIXES):
        return ""
    return next(suffix for suffix in IMAGE_SUFFIXES if name.endswith(suffix))


def is_picture(path: Path) -> bool:
    """Whether a file is a picture by its name, and not of a format for volumes."""
    return path.name.lower().endswith(PICTURE_SUFFIXES)


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
    return read_channels([source])[0]


def read_channels(sources: Sequence[Source]) -> list[Volume]:
    """Read several images; a file that several are parts of is read once. See `read_volume`."""
    files: dict[tuple[Path, FileRules], tuple[NDArray[np.generic], Geometry]] = {}
    volumes = []
    for source in sources:
        if not isinstance(source, FileSource):
            volumes.append(_read_other(source))
            continue
        key = source.path, source.rules
        files[key] = files.get(key) or _read_file(source)
        array, geometry = _frame(source, *files[key])
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, as if the file had it so
            volumes.append(Volume(np.asarray(array, dtype=np.float32)[np.newaxis], geometry))
    return volumes


def read_shown(source: Source) -> Volume:
    """Read an image to look at it: a colour picture in its three channels, of all else the channel that is meant.

    Raises:
        DataError: If it is damaged.
        GeometryError: If it does not say where its voxels lie.
    """
    if isinstance(source, FileSource) and is_picture(source.path):
        array, geometry = _read_file(source)
        return Volume(np.asarray(array[: 3 if len(array) >= 3 else 1], dtype=np.float32), geometry)
    return read_volume(source)


def _read_other(source: SeriesSource | SegmentsSource | MasksSource) -> Volume:
    if isinstance(source, SegmentsSource | MasksSource):
        raise DataError(f"{source} marks structures in images, it is no image", hint="give the images themselves")
    from volseg.io.dicom import read_series

    return read_series(source)


def read_grid(source: Source) -> Geometry:
    """Read on which grid an image lies, whatever channels it has.

    Raises:
        DataError: If it is damaged.
        GeometryError: If it does not say where its voxels lie.
    """
    return _read_file(source)[1] if isinstance(source, FileSource) else read_volume(source).geometry


def read_mask(source: Source, labels: Sequence[Label] = (), on: Geometry | None = None) -> Mask:
    """Read a label map.

    Args:
        source: A file or a DICOM series whose voxels are whole numbers, stored in any type; a file that marks named
            structures; or a binary mask per structure.
        labels: What the values are to mean. Where the source states names, its voxels get the values of the labels of
            these names; a name that is no label keeps its value where no label has it, else gets one that is free.
        on: The grid of the image, for an object that has none of its own.

    Returns:
        The mask, uint8 or uint16.

    Raises:
        DataError: If it is damaged, or a voxel is not a whole number from 0 to 65535.
        GeometryError: If it does not say where its voxels lie.
    """
    match source:
        case SegmentsSource():
            from volseg.io.references import read_segments

            return read_segments(source, labels, on)
        case MasksSource():
            from volseg.io.mask_per_label import read_masks

            return read_masks(source, labels)
        case SeriesSource():
            volume = read_volume(source)
            array, geometry = volume.array[0], volume.geometry
        case FileSource():
            values, geometry = _read_values(source, labels)
            if source.rules.values == "objects":
                values = _as_one_label(values, source, labels)
            if source.labels:
                return named_mask(Mask(values, geometry, source.labels), labels)
            return Mask(values, geometry, tuple(labels))
    return Mask(label_values(array, source), geometry, tuple(labels))


def named_mask(mask: Mask, labels: Sequence[Label]) -> Mask:
    """A mask that states names, with the values that some labels have.

    Args:
        mask: With what its values mean.
        labels: What they are to mean; without any, the mask stays as it is.

    Returns:
        The mask with the labels, and with those of its own that are none of them, "label_2" for a value without a name.

    Raises:
        DataError: If two of its values have one name.
    """
    if not labels:
        return mask
    import fastremap

    present = fastremap.unique(mask.array).tolist()
    new = values_by_name(mask.labels, labels, [value for value in present if value])
    table = np.zeros(max(present) + 1, np.uint16)
    table[list(new)] = list(new.values())
    known = {label.value for label in labels}
    others = [replace(label, value=new[label.value]) for label in mask.labels if label.value in new]
    strangers = [label for label in others if label.value not in known]
    named = known | {label.value for label in strangers}
    strangers += [Label(to, f"label_{value}") for value, to in new.items() if to not in named]
    array = table[mask.array] if any(value != kept for value, kept in new.items()) else mask.array
    dtype = np.uint8 if max(new.values(), default=0) <= 255 else np.uint16
    return Mask(array.astype(dtype), mask.geometry, (*labels, *strangers))


def resample(volume: Volume, geometry: Geometry) -> Volume:
    """Bring an image onto another grid in the same space, linearly; where it does not reach, voxels are NaN."""
    from volseg.io.itk import resample as itk_resample

    return itk_resample(volume, geometry)


def resample_mask(mask: Mask, geometry: Geometry) -> Mask:
    """Bring a mask onto another grid in the same space, each voxel from the nearest; 0 where it does not reach."""
    from volseg.io.itk import resample_mask as itk_resample_mask

    return itk_resample_mask(mask, geometry)


def read_probabilities(path: Path, choice: GeometryChoice | None = None) -> tuple[NDArray[np.float32], Geometry]:
    """Read what `write_probabilities` wrote, or another image of four axes.

    Args:
        path: The file.
        choice: What is right of its header if that contradicts itself.

    Returns:
        (I, J, K, labels) float32 and the grid of the first three axes.

    Raises:
        DataError: If it is damaged, or a voxel is not from 0 to 1.
        GeometryError: If it does not say where its voxels lie.
    """
    array, geometry = _read_file(FileSource(path, rules=FileRules(geometry=choice)))
    shares = np.moveaxis(np.asarray(array, np.float32), 0, -1)
    if not (shares.min() >= -_ROUNDING and shares.max() <= 1 + _ROUNDING):
        raise DataError(
            f"{path} holds no probabilities: some voxels are not from 0 to 1",
            hint="`volseg predict --probabilities` writes some",
        )
    return np.clip(shares, 0, 1), geometry


def write_mask(mask: Mask, path: Path, image: Source | None = None, *, role: Role = "data") -> None:
    """Write a mask in the format that the suffix of `path` names, whole or not at all.

    Args:
        mask: What to write.
        path: The file.
        image: What it was made from. From NIfTI to NIfTI all transforms are copied, so that the mask lies on its image
            in every reader.
        role: Whether it is a result, which is no input of the next run.

    Raises:
        ConfigError: If the suffix names no format for masks.
        OutputError: If it cannot be written.
    """
    library = _writing_library(path)
    if model := _nifti_image(image, path):
        library.write_mask(mask, path, model, role=role)
    else:
        library.write_mask(mask, path, role=role)


def write_volume(volume: Volume, path: Path) -> None:
    """Write an image in the format that the suffix of `path` names, whole or not at all.

    Raises:
        ConfigError: If the suffix names no format for images.
        OutputError: If it cannot be written.
    """
    _writing_library(path).write_volume(volume, path)


def write_probabilities(shares: NDArray[np.uint8], geometry: Geometry, path: Path, image: Source | None = None) -> None:
    """Write probabilities (I, J, K, labels), given in 255ths, as a .nii.gz file of four axes.

    Args:
        shares: In 255ths.
        geometry: The grid of the first three axes.
        path: The file.
        image: What they were made from, as for `write_mask`.

    Raises:
        OutputError: If it cannot be written.
    """
    from volseg.io import nifti

    nifti.write_probabilities(shares, geometry, path, _nifti_image(image, path))


def header_remark(source: Source) -> str:
    """What a person should know about where the header of a file says that it lies; empty if that is one place.

    Raises:
        DataError: If it is damaged.
        GeometryError: If it does not say where its voxels lie, or contradicts itself.
    """
    if not (isinstance(source, FileSource) and image_suffix(source.path) in _NIFTI):
        return ""
    from volseg.io import nifti

    return nifti.header_remark(source.path, source.rules.geometry)


def frame_count(path: Path, rules: FileRules = AS_IT_IS) -> int:
    """How many 3D volumes a file holds, or channels a picture has, by its header.

    Raises:
        DataError: If it is damaged.
    """
    check_file(path)
    if is_picture(path):
        from volseg.io.pictures import channel_count

        return channel_count(path, rules)
    count: int = _library(path).frame_count(path)
    return count


def _library(path: Path) -> ModuleType:
    """The module that knows the format of an image file; each loads its library only when it is needed."""
    if image_suffix(path) in _NIFTI:
        from volseg.io import nifti

        return nifti
    if is_picture(path):
        from volseg.io import pictures

        return pictures
    from volseg.io import itk

    return itk


def _nifti_image(image: Source | None, path: Path) -> FileSource | None:
    """The image of a mask, if both are NIfTI: a mask that is replaced is no image."""
    if not isinstance(image, FileSource) or image.path == path or not image.path.is_file():
        return None
    return image if {image_suffix(image.path), image_suffix(path)} <= _NIFTI else None


def _value_step(source: FileSource) -> float:
    if image_suffix(source.path) not in _NIFTI:
        return 0.0
    from volseg.io import nifti

    return nifti.value_step(source.path)


def _read_file(source: FileSource) -> tuple[NDArray[np.generic], Geometry]:
    path = source.path
    check_file(path)
    if not image_suffix(path):
        raise DataError(f"{path} is no image volseg can read", hint=f"it reads {', '.join(IMAGE_SUFFIXES)} and DICOM")
    given: list[object] = []
    if image_suffix(path) in _NIFTI:
        given = [source.rules.geometry]
    elif is_picture(path):
        given = [source.rules]
    content: tuple[NDArray[np.generic], Geometry] = _library(path).read_array(path, *given)
    return content


def _read_values(source: FileSource, labels: Sequence[Label]) -> tuple[NDArray[np.unsignedinteger], Geometry]:
    if is_picture(source.path):
        from volseg.io.pictures import read_values

        check_file(source.path)
        pixels, geometry = read_values(source.path, source.rules, labels)
        return label_values(pixels, source), geometry
    array, geometry = _frame(source, *_read_file(source), _ONE_MASK)
    step = _value_step(source) if np.issubdtype(array.dtype, np.floating) else 0.0
    return label_values(array, source, step), geometry


def _as_one_label(
    values: NDArray[np.unsignedinteger], source: FileSource, labels: Sequence[Label]
) -> NDArray[np.unsignedinteger]:
    """Numbers of objects -> the value of the label that all of them have.

    Raises:
        DataError: If there are several labels.
    """
    if len(labels) > 1:
        raise DataError(
            f"{source} holds numbers of objects, and nothing says which of {len(labels)} labels each has",
            hint="list the one label in data.labels, or leave out data.values",
        )
    value = labels[0].value if labels else 1
    return np.where(values > 0, value, 0).astype(np.uint8 if value <= 255 else np.uint16)


def _frame(
    source: FileSource, array: NDArray[np.generic], geometry: Geometry, hint: str = _ONE_IMAGE
) -> tuple[NDArray[np.generic], Geometry]:
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
            f"{source.path} holds {len(array)} volumes, there is no number {frame}",
            hint="its volumes are channels, counted from 0: is one missing?",
        )
    return array[frame], geometry


def _writing_library(path: Path) -> ModuleType:
    """The module that writes files of the path's suffix."""
    if not path.name.lower().endswith(WRITTEN_SUFFIXES):
        raise ConfigError(
            f"cannot write {path}: no format is known by that name", hint="use .nii.gz, .nii, .nrrd, .mha or .png"
        )
    return _library(path)
