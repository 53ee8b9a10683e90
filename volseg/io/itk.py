"""NRRD and MetaImage through SimpleITK."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  the name everybody uses
from numpy.typing import NDArray

from volseg.errors import DataError, GeometryError, OutputError
from volseg.image.geometry import Geometry
from volseg.image.volume import Mask, Volume
from volseg.io.archives import gzip_depth
from volseg.io.files import atomic_path
from volseg.io.itk_header import (
    OPEN_POSITION,
    ItkHeader,
    check_position,
    check_voxel_files,
    is_nrrd,
    read_header,
    voxel_files,
)
from volseg.io.itk_paths import readable_path, writable_path
from volseg.io.readable import COPY_AGAIN
from volseg.io.record import Role
from volseg.io.signatures import stands_in_for


def read_array(path: Path) -> tuple[NDArray[np.generic], Geometry]:
    """Read all voxels of a NRRD or MetaImage file.

    Args:
        path: A .nrrd, .nhdr, .mha or .mhd file.

    Returns:
        (F, I, J, K) array of F components in the dtype of the file, and the grid.

    Raises:
        DataError: If the file is damaged or holds complex numbers.
        GeometryError: If the header does not state where its voxels lie; ITK would assume unit spacing and direction.
    """
    header = _header(path)
    check_position(header)
    with readable_path(path, voxel_files(header)) as reachable:
        try:
            image = _reader(path, reachable).Execute()
        except RuntimeError as error:
            raise _damaged(path, error) from error
    if image.GetDimension() != 3:
        raise DataError(f"{path} has {image.GetDimension()} spatial axes, a volume has three", hint="split it")
    if "complex" in image.GetPixelIDTypeAsString():
        raise DataError(f"{path} holds complex numbers", hint="convert it to real numbers, for example to magnitudes")
    direction = np.reshape(image.GetDirection(), (3, 3))
    try:
        geometry = Geometry.from_lps(image.GetSize(), image.GetOrigin(), direction, image.GetSpacing())
    except GeometryError as error:
        raise GeometryError(f"{path} has a broken orientation: {error}", hint=OPEN_POSITION) from error
    array = sitk.GetArrayFromImage(image)  # (K, J, I) or (K, J, I, F)
    return array.transpose(3, 2, 1, 0) if array.ndim == 4 else array.transpose(2, 1, 0)[np.newaxis], geometry


def resample(volume: Volume, geometry: Geometry) -> Volume:
    """Sample an image at the voxel centres of another grid, by linear interpolation.

    Args:
        volume: (C, I, J, K).
        geometry: The grid to sample at; both must be in the same space.

    Returns:
        The image on `geometry`, float32; NaN outside its extent.
    """
    like = image_of(np.zeros(geometry.shape, np.uint8), geometry)
    channels = []
    for channel in volume.array:
        moved = sitk.Resample(image_of(channel, volume.geometry), like, sitk.Transform(), sitk.sitkLinear, float("nan"))
        channels.append(sitk.GetArrayFromImage(moved).transpose(2, 1, 0))
    return Volume(np.stack(channels), geometry)


def resample_mask(mask: Mask, geometry: Geometry) -> Mask:
    """Sample a mask at the voxel centres of another grid, by nearest neighbour.

    Args:
        mask: On its own grid.
        geometry: The grid to sample at; both must be in the same space.

    Returns:
        The mask on `geometry`; 0 outside its extent.
    """
    like = image_of(np.zeros(geometry.shape, np.uint8), geometry)
    moved = sitk.Resample(image_of(mask.array, mask.geometry), like, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0)
    return Mask(sitk.GetArrayFromImage(moved).transpose(2, 1, 0), geometry, mask.labels)


def frame_count(path: Path) -> int:
    """Return the number of components of the voxels of a file, by its header.

    Raises:
        DataError: If the header is damaged.
    """
    return int(_information(path).GetNumberOfComponents())


def voxel_count(path: Path) -> int:
    """Return the number of voxels of a file, by its header.

    Raises:
        DataError: If the header is damaged.
    """
    return math.prod(_information(path).GetSize())


def _information(path: Path) -> sitk.ImageFileReader:
    """Read the header of a file."""
    with readable_path(path, voxel_files(_header(path))) as reachable:
        reader = _reader(path, reachable)
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise _damaged(path, error) from error
    return reader


def write_mask(mask: Mask, path: Path, *, role: Role = "data", compressed: bool = True) -> None:
    """Write a mask as NRRD or MetaImage.

    Args:
        mask: The mask to write.
        path: The file.
        role: Whether it is a result, which is not an input of the next run.
        compressed: Whether to compress it.

    Raises:
        OutputError: If it cannot be written.
    """
    image = sitk.GetImageFromArray(np.ascontiguousarray(mask.array.transpose(2, 1, 0)))
    _write(image, mask.geometry, path, role, compressed=compressed)


def write_labelled_nrrd(mask: Mask, fields: Mapping[str, str], path: Path) -> None:
    """Write a mask as compressed NRRD with key/value pairs in its header.

    Args:
        mask: The mask to write.
        fields: Keys and values, one line each.
        path: A .nrrd file.

    Raises:
        OutputError: If it cannot be written.
    """
    image = sitk.GetImageFromArray(np.ascontiguousarray(mask.array.transpose(2, 1, 0)))
    for key, value in fields.items():
        image.SetMetaData(key, value)
    _write(image, mask.geometry, path, "result")


def write_volume(volume: Volume, path: Path) -> None:
    """Write an image; several channels become vector components.

    Raises:
        OutputError: If it cannot be written.
    """
    array = np.ascontiguousarray(volume.array.transpose(3, 2, 1, 0))
    image = (
        sitk.GetImageFromArray(array[..., 0]) if array.shape[-1] == 1 else sitk.GetImageFromArray(array, isVector=True)
    )
    _write(image, volume.geometry, path, "data")


def image_of(array: NDArray[np.generic], geometry: Geometry) -> sitk.Image:
    """Return an array (I, J, K) on a grid as an image of SimpleITK, which has axes in the same order and LPS+ mm."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    _place(image, geometry)
    return image


def _place(image: sitk.Image, geometry: Geometry) -> None:
    affine = geometry.lps_affine
    spacing = np.asarray(geometry.spacing_mm)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())


def _write(image: sitk.Image, geometry: Geometry, path: Path, role: Role, *, compressed: bool = True) -> None:
    _place(image, geometry)
    with atomic_path(path, role) as temporary, writable_path(temporary) as reachable:
        temporary.touch()  # if that fails the reason is known, which ITK does not report
        try:
            sitk.WriteImage(image, reachable, useCompression=compressed)
            _reader(path, reachable).Execute()  # ITK does not notice a disk that is full when it closes a NRRD file
        except RuntimeError as error:
            raise OutputError(f"cannot write {path}: {_last_line(error)}", hint="is the disk full?") from error


def _reader(path: Path, reachable: str) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(reachable)
    # ITK itself recognises a format by a suffix in lower case only.
    reader.SetImageIO("NrrdImageIO" if is_nrrd(path) else "MetaImageIO")
    return reader


def _header(path: Path) -> ItkHeader:
    """Read the header of a file, after checking for what must not be given to ITK."""
    if found := stands_in_for(path):
        raise found
    if gzip_depth(path):
        raise DataError(f"{path} is gzipped, which its name does not show", hint="unpack it")
    header = read_header(path)
    check_voxel_files(header)
    return header


def _damaged(path: Path, error: RuntimeError) -> DataError:
    return DataError(f"{path} is damaged: {_last_line(error)}", hint=COPY_AGAIN)


def _last_line(error: RuntimeError) -> str:
    """Return ITK's message, without its memory addresses and the reason it adds, which belongs to some earlier call."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("Reason: ")]
    return re.sub(r"(itk::|ITK )ERROR: |\w+\(0x[0-9a-f]+\): ", "", lines[-1])
