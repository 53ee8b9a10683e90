"""NIfTI-1 and NIfTI-2, plain and gzipped, through nibabel."""

from __future__ import annotations

import gzip
import logging
import math
import os
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.fileholders import FileHolder
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from volseg.config.reading import GeometryChoice
from volseg.errors import DataError, GeometryError
from volseg.image.geometry import Geometry
from volseg.image.volume import Mask, Volume
from volseg.io.archives import gzip_depth, open_file, open_stored, read_head
from volseg.io.companions import companion
from volseg.io.files import atomic_path
from volseg.io.gzip_files import unpack
from volseg.io.nifti_header import Placement, placement, transforms_of
from volseg.io.readable import COPY_AGAIN, refuse_special
from volseg.io.record import Role
from volseg.io.signatures import stands_in_for
from volseg.io.source import FileSource

SUFFIXES = (".nii", ".nii.gz", ".hdr")

#: Where voxels begin in a file without extensions (NIfTI-1 standard).
_VOXELS_AT = 352
_BYTES_AT_ONCE = 2**24
#: More than the header of either version, which ends after 540 bytes.
_HEAD_BYTES = 1_024

_BROKEN = (ImageFileError, HeaderDataError, EOFError, KeyError, OSError, OverflowError, ValueError, zlib.error)
#: Header fields that state where the voxels lie, apart from pixdim and the units.
_TRANSFORM_FIELDS = (
    *("sform_code", "srow_x", "srow_y", "srow_z", "qform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z"),
)
_SPATIAL_UNIT = 0b111
#: A mask has the grid of the image whose header it copies.
_COPIED_MM = 1e-4

_log = logging.getLogger("volseg")


def read_array(path: Path, choice: GeometryChoice | None = None) -> tuple[NDArray[np.generic], Geometry]:
    """Read all voxels of a NIfTI file, scaled by scl_slope and scl_inter where the file has them.

    Args:
        path: A .nii, .nii.gz or .hdr (with its .img) file.
        choice: Which part of the header is correct if it contradicts itself.

    Returns:
        (F, I, J, K) array of F frames in the dtype of the file (float64 when it is scaled), and the grid.

    Raises:
        DataError: If the file is damaged, is not NIfTI, or holds colours or complex numbers.
        GeometryError: If the file does not state where its voxels lie, or contradicts itself.
    """
    image = _load(path)
    if image.get_data_dtype().names or np.issubdtype(image.get_data_dtype(), np.complexfloating):
        raise DataError(
            f"{path} holds {image.get_data_dtype()} voxels, not one number each", hint="convert its voxels to numbers"
        )
    placed = _placed(path, choice)
    if placed.remark:
        _log.warning("%s: %s", path, placed.remark)
    geometry = placed.geometry
    try:
        with np.errstate(over="ignore"):  # a damaged header may state more voxels than there are numbers
            array = np.asanyarray(image.dataobj)
    except MemoryError as error:
        raise DataError(
            f"{path} is damaged or too large: {image.shape} voxels do not fit into memory", hint=COPY_AGAIN
        ) from error
    except _BROKEN as error:
        raise _damaged(path, error) from error
    return np.moveaxis(array.reshape(*geometry.shape, -1), -1, 0), geometry


def frame_count(path: Path) -> int:
    """Return the number of 3D volumes in a file, by its header.

    Raises:
        DataError: If the file is damaged or is not NIfTI.
    """
    return math.prod(map(int, _whole_header(path).get_data_shape()[3:]))


def voxel_count(path: Path) -> int:
    """Return the number of voxels of a 3D volume of a file, by its header.

    Raises:
        DataError: If the file is damaged or is not NIfTI.
    """
    return math.prod(map(int, _whole_header(path).get_data_shape()[:3]))


def header_remark(path: Path, choice: GeometryChoice | None = None) -> str:
    """Describe ambiguities in the position stated by a file, for the user; empty if its header is consistent.

    Raises:
        DataError: If the file is damaged or is not NIfTI.
        GeometryError: If the file does not state where its voxels lie, or contradicts itself.
    """
    return _placed(path, choice).remark


def value_step(path: Path) -> float:
    """Return the distance of neighbouring values in a file of scaled integers; 0 for any other."""
    header = _whole_header(path)
    slope = header.get_slope_inter()[0] if np.issubdtype(header.get_data_dtype(), np.integer) else None
    return 0.0 if slope is None else abs(float(slope))


def write_mask(mask: Mask, path: Path, image: FileSource | None = None, *, role: Role = "data") -> None:
    """Write a mask: unsigned integers, intent "label".

    It copies transforms, codes and voxel sizes of the NIfTI image that it was made from, so that it lies on its image
    in every reader, whichever of them that uses; otherwise sform and qform are equal. A sheared grid has no qform, and
    ITK opens no NIfTI file without a transform at right angles: a warning says so.

    Args:
        mask: The mask to write.
        path: A .nii or .nii.gz file.
        image: The image it was made from, if that is NIfTI.
        role: Whether it is a result.

    Raises:
        OutputError: If it cannot be written.
    """
    written = image_of(mask.array, mask.geometry, image)
    written.header.set_intent("label")
    with atomic_path(path, role) as temporary:
        _save(written, temporary)
    if not (written.header["qform_code"] or _fits_a_qform(mask.geometry)):
        _log.warning(
            "%s lies on a sheared grid, as its image does: viewers based on ITK do not open it as NIfTI; "
            "--format nrrd writes what they open",
            path,
        )


def write_volume(volume: Volume, path: Path) -> None:
    """Write an image as float32; several channels become the fourth axis.

    Args:
        volume: The image to write.
        path: A .nii or .nii.gz file.

    Raises:
        OutputError: If it cannot be written.
    """
    array = volume.array[0] if len(volume.array) == 1 else np.moveaxis(volume.array, 0, -1)
    with atomic_path(path, role="data") as temporary:
        _save(image_of(array, volume.geometry), temporary)


def write_probabilities(
    shares: NDArray[np.uint8], geometry: Geometry, path: Path, image: FileSource | None = None
) -> None:
    """Write probabilities as a 4D image, the labels last; scl_slope maps 0 to 255 to 0 to 1.

    Args:
        shares: (I, J, K, labels) in 255ths, the first axis fastest; may be on disk: it is read in parts.
        geometry: The grid of the first three axes.
        path: A .nii.gz file.
        image: The image they were made from, as for `write_mask`.

    Raises:
        OutputError: If it cannot be written.
    """
    header = image_of(shares, geometry, image).header
    header["scl_slope"], header["scl_inter"] = 1 / 255, 0
    header["vox_offset"] = _VOXELS_AT
    voxels = shares.T.reshape(-1)
    with atomic_path(path) as temporary, gzip.open(temporary, "wb", compresslevel=1) as file:
        file.write(header.binaryblock.ljust(_VOXELS_AT, b"\0"))
        for begin in range(0, len(voxels), _BYTES_AT_ONCE):
            file.write(voxels[begin : begin + _BYTES_AT_ONCE].tobytes())


def _load(path: Path) -> nib.Nifti1Pair:
    """Load the image of a file; if it is gzipped, unpack it and verify its checksum."""
    apart = _is_apart(path)
    voxels = companion(path, ".img") or path.with_suffix(".img") if apart else path
    refuse_special(voxels)
    try:
        depth = 0 if apart else gzip_depth(path)
        with np.errstate(invalid="ignore"):  # an orientation that is not finite is refused by `Geometry`
            if depth or path.suffix.lower() == ".gz":
                return _kind_of(path).from_bytes(_content(path, depth))
            # Not memory-mapped: truncating a file while its voxels are accessed would crash the process.
            return _kind_of(path).from_file_map(_file_map(path, voxels), mmap=False)
    except _BROKEN as error:
        raise _damaged(path, error) from error


def _is_apart(path: Path) -> bool:
    """Return whether a file is a header whose voxels are in another file."""
    return path.suffix.lower() == ".hdr"


def _file_map(header: Path, voxels: Path) -> dict[str, FileHolder]:
    """Return nibabel's file map of an image; from a name, it would find suffixes in all lower or upper case only."""
    return {"header": FileHolder(os.fspath(header)), "image": FileHolder(os.fspath(voxels))}


def _save(image: nib.Nifti1Image, path: Path) -> None:
    image.to_file_map(_file_map(path, path))


def _kind_of(path: Path) -> type[nib.Nifti1Pair]:
    """Return the NIfTI version of a file by its first bytes, and whether its voxels are in another file.

    Raises:
        ImageFileError: If it is not NIfTI, packed or not.
        GeometryError: If it is the header of an Analyze image.
    """
    head, apart = read_head(path, _HEAD_BYTES), _is_apart(path)
    for kind in (nib.Nifti1Pair, nib.Nifti2Pair) if apart else (nib.Nifti1Image, nib.Nifti2Image):
        if len(head) >= kind.header_class.sizeof_hdr and kind.header_class.may_contain_header(head):
            return kind
    if apart and nib.AnalyzeHeader.may_contain_header(head):
        raise GeometryError(
            f"{path} is an Analyze header, which does not state where its voxels lie", hint="convert it to NIfTI"
        )
    raise ImageFileError("there is no NIfTI header")


def _header(path: Path) -> nib.Nifti1Header:
    """Read the header exactly as stored, without extensions; no more of the file is unpacked.

    `nibabel.load` changes it: it replaces a size of 0 by 1, and drops a sign.
    """
    kind = _kind_of(path).header_class
    return kind(read_head(path, kind.sizeof_hdr), check=False)


def _content(path: Path, depth: int) -> bytes:
    """Read all bytes of a file that is gzipped `depth` times, as far as its header requires.

    nibabel stops at the last voxel, and would not notice damage: the checksum comes after it (RFC 1952 section 2.3.1).
    Bytes after the checksum are not part of the image.
    """
    if depth != 1:
        with open_file(path) as file:
            return file.read()
    header = _header(path)
    voxels = math.prod(map(int, header.get_data_shape())) * header.get_data_dtype().itemsize
    with open_stored(path) as file:
        unpacked = unpack(file, max(_HEAD_BYTES, int(header["vox_offset"]) + voxels))
    if unpacked.trailing:
        _log.warning("%s: %d bytes after the end of the image are ignored", path, unpacked.trailing)
    return unpacked.content


def image_of(array: NDArray[np.generic], geometry: Geometry, source: FileSource | None = None) -> nib.Nifti1Image:
    """Return an array (I, J, K, ...) on a grid as an image of nibabel, placed like the source if there is one."""
    image = nib.Nifti1Image(array, geometry.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(geometry.affine, code="scanner")
    # No qform is better than one that contradicts the sform.
    fits = _fits_a_qform(geometry)
    image.set_qform(geometry.affine if fits else None, code="scanner" if fits else "unknown")
    return image if source is None else _placed_like(image, geometry, source)


def _fits_a_qform(geometry: Geometry) -> bool:
    """Return whether a quaternion and voxel sizes can express a grid: they cannot express shear."""
    header = nib.Nifti1Header()
    header.set_qform(geometry.affine)
    return Geometry(geometry.shape, header.get_qform()).matches(geometry)


def _placed_like(image: nib.Nifti1Image, geometry: Geometry, source: FileSource) -> nib.Nifti1Image:
    """Return an image with all position fields of another file's header on the same grid."""
    if _placed(source.path, source.rules.geometry).geometry.distance_mm(geometry) > _COPIED_MM:
        return image
    raw = _whole_header(source.path)
    header = image.header
    for field in _TRANSFORM_FIELDS:
        header[field] = raw[field]
    header["xyzt_units"] = int(raw["xyzt_units"]) & _SPATIAL_UNIT
    # Given an affine, nibabel would make all transforms agree with it when it saves.
    placed = type(image)(image.dataobj, None, header)
    stated = min(3, int(raw["dim"][0])) + 1  # qfac, and the sizes of the axes there are
    placed.header["pixdim"][:stated] = raw["pixdim"][:stated]
    return placed


def _placed(path: Path, choice: GeometryChoice | None) -> Placement:
    header = _whole_header(path)
    shape = _spatial_shape(path, header.get_data_shape())
    return placement(transforms_of(path, header, shape), choice)


def _whole_header(path: Path) -> nib.Nifti1Header:
    """Read the header exactly as stored, or raise."""
    try:
        return _header(path)
    except _BROKEN as error:
        raise _damaged(path, error) from error


def _spatial_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) < 2 or min(shape) < 1:
        raise DataError(f"{path} has shape {shape}, which is not an image", hint=COPY_AGAIN)
    i, j, k = (*shape, 1)[:3]
    return i, j, k


def _damaged(path: Path, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        missing = Path(error.filename or path).name
        return DataError(
            f"{path} cannot be read: {missing} does not exist", hint="put it beside the image, or convert the image"
        )
    if (found := stands_in_for(path)) is not None:
        return found
    what = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(f"{path} is damaged or not NIfTI: {what}", hint=COPY_AGAIN)
