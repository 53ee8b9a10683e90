"""NIfTI-1 and NIfTI-2, plain and gzipped, through nibabel."""

from __future__ import annotations

import gzip
import io
import logging
import math
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from volseg.errors import DataError, GeometryError
from volseg.image.geometry import Geometry
from volseg.image.volume import Mask, Volume
from volseg.io.archives import gzip_depth, open_file, open_stored, read_head
from volseg.io.files import atomic_path, new_path
from volseg.io.gzip_files import unpack
from volseg.io.readable import COPY_AGAIN, refuse_special
from volseg.io.signatures import stands_in_for

SUFFIXES = (".nii", ".nii.gz", ".hdr")

#: Where voxels begin in a file without extensions (NIfTI-1 standard).
_VOXELS_AT = 352
_BYTES_AT_ONCE = 2**24
#: More than the header of either version, which ends after 540 bytes.
_HEAD_BYTES = 1_024

_BROKEN = (ImageFileError, HeaderDataError, EOFError, KeyError, OSError, OverflowError, ValueError, zlib.error)
#: Units beside mm in the lower bits of xyzt_units. Some readers heed them and some do not: a mask of such a file would
#: lie in two places.
_OTHER_UNITS = {1: "metres", 3: "micrometres"}

_log = logging.getLogger("volseg")


def read_array(path: Path) -> tuple[NDArray[np.generic], Geometry]:
    """Read all voxels of a NIfTI file, scaled by scl_slope and scl_inter where the file has them.

    Args:
        path: A .nii, .nii.gz or .hdr (with its .img) file.

    Returns:
        (F, I, J, K) array of F frames in the dtype of the file (float64 when it is scaled), and the grid.

    Raises:
        DataError: If the file is damaged, is no NIfTI, or holds colours or complex numbers.
        GeometryError: If the file does not say where its voxels lie.
    """
    image = _load(path)
    if not isinstance(
        image, nib.Nifti1Pair
    ):  # NIfTI-2 is a subclass; what remains is Analyze, which has no orientation
        raise GeometryError(
            f"{path} is an Analyze header, which does not say where its voxels lie", hint="convert it to NIfTI"
        )
    if image.get_data_dtype().names or np.issubdtype(image.get_data_dtype(), np.complexfloating):
        raise DataError(
            f"{path} holds {image.get_data_dtype()} voxels, not one number each", hint="convert its voxels to numbers"
        )
    shape, affine = _spatial_shape(path, image.shape), _affine(path, image.header)
    try:
        geometry = Geometry(shape, affine)
    except GeometryError as error:
        raise GeometryError(f"{path} has a broken orientation: {error}") from error
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
    """How many 3D volumes a file holds, by its header.

    Raises:
        DataError: If the file is damaged or is no NIfTI.
    """
    if path.suffix.lower() == ".hdr":
        return math.prod(_load(path).shape[3:])
    try:
        return math.prod(map(int, _header(path).get_data_shape()[3:]))
    except _BROKEN as error:
        raise _damaged(path, error) from error


def write_mask(mask: Mask, path: Path) -> None:
    """Write a mask: unsigned integers, sform and qform equal, intent "label".

    Args:
        mask: What to write.
        path: A .nii or .nii.gz file.

    Raises:
        OutputError: If it cannot be written.
    """
    image = _image(mask.array, mask.geometry)
    image.header.set_intent("label")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def write_volume(volume: Volume, path: Path) -> None:
    """Write an image as float32 where there is nothing yet; several channels become the fourth axis.

    Args:
        volume: What to write.
        path: A .nii or .nii.gz file.

    Raises:
        OutputError: If it cannot be written.
    """
    array = volume.array[0] if len(volume.array) == 1 else np.moveaxis(volume.array, 0, -1)
    with new_path(path) as temporary:
        nib.save(_image(array, volume.geometry), temporary)


def write_probabilities(shares: NDArray[np.uint8], geometry: Geometry, path: Path) -> None:
    """Write probabilities as four axes, the labels last; scl_slope makes 0 to 1 of 0 to 255.

    Args:
        shares: (I, J, K, labels) in 255ths, the first axis fastest; possibly on disk: it is read bit by bit.
        geometry: The grid of the first three axes.
        path: A .nii.gz file.

    Raises:
        OutputError: If it cannot be written.
    """
    image = _image(shares, geometry)
    image.header["scl_slope"], image.header["scl_inter"] = 1 / 255, 0
    image.header["vox_offset"] = _VOXELS_AT
    voxels = shares.T.reshape(-1)
    with atomic_path(path) as temporary, gzip.open(temporary, "wb", compresslevel=1) as file:
        file.write(image.header.binaryblock.ljust(_VOXELS_AT, b"\0"))
        for begin in range(0, len(voxels), _BYTES_AT_ONCE):
            file.write(voxels[begin : begin + _BYTES_AT_ONCE].tobytes())


def _load(path: Path) -> nib.Nifti1Pair:
    """The image of a file, however it is packed; what is packed is unpacked, and its checksum verified."""
    apart = path.suffix.lower() == ".hdr"
    refuse_special(path.with_suffix(".img") if apart else path)
    try:
        depth = 0 if apart else gzip_depth(path)
        with np.errstate(invalid="ignore"):  # an orientation that is not finite is refused by `Geometry`
            if depth or path.suffix.lower() == ".gz":
                return _kind_of(path).from_bytes(_content(path, depth))
            return nib.load(path)
    except _BROKEN as error:
        raise _damaged(path, error) from error


def _kind_of(path: Path) -> type[nib.Nifti1Image]:
    """The version of a single file, by its first bytes.

    Raises:
        ImageFileError: If it is no NIfTI, packed or not.
    """
    head = read_head(path, _HEAD_BYTES)
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        if len(head) >= kind.header_class.sizeof_hdr and kind.header_class.may_contain_header(head):
            return kind
    raise ImageFileError("there is no NIfTI header")


def _header(path: Path) -> nib.Nifti1Header:
    """The header of a single file, without what extends it; no more of the file is unpacked."""
    kind = _kind_of(path).header_class
    return kind(read_head(path, kind.sizeof_hdr), check=False)


def _content(path: Path, depth: int) -> bytes:
    """All bytes of a file that is packed `depth` times, as far as its header asks for them.

    nibabel stops at the last voxel, and would not notice damage: the checksum is behind it (RFC 1952 section 2.3.1).
    What lies behind the checksum is no part of the image.
    """
    if depth != 1:
        with open_file(path) as file:
            return file.read()
    header = _header(path)
    voxels = math.prod(map(int, header.get_data_shape())) * header.get_data_dtype().itemsize
    with open_stored(path) as file:
        unpacked = unpack(file, max(_HEAD_BYTES, int(header["vox_offset"]) + voxels))
    if unpacked.trailing:
        _log.warning("%s: %d bytes behind the end of the image are left out", path, unpacked.trailing)
    return unpacked.content


def _image(array: NDArray[np.generic], geometry: Geometry) -> nib.Nifti1Image:
    image = nib.Nifti1Image(array, geometry.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(geometry.affine, code="scanner")
    # A quaternion cannot express shear: rather no qform than one that says something else than the sform.
    sheared = not np.allclose(geometry.direction.T @ geometry.direction, np.eye(3), atol=1e-5)
    image.set_qform(None if sheared else geometry.affine, code="unknown" if sheared else "scanner")
    return image


def _spatial_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) < 2 or min(shape) < 1:
        raise DataError(f"{path} has shape {shape}, which is no image", hint=COPY_AGAIN)
    i, j, k = (*shape, 1)[:3]
    return i, j, k


def _affine(path: Path, header: nib.Nifti1Header) -> NDArray[np.float64]:
    """The sform if its code is set, else the qform if its code is set (NIfTI-1 standard, methods 3 and 2)."""
    try:
        with np.errstate(invalid="ignore"):
            sform, sform_code = header.get_sform(coded=True)
            qform, qform_code = header.get_qform(coded=True)
    except (HeaderDataError, ValueError) as error:
        raise GeometryError(f"{path} has a broken orientation: {error}") from error
    if unit := _OTHER_UNITS.get(int(header["xyzt_units"]) & 0b111):
        raise GeometryError(f"{path} states its positions in {unit}, volseg takes mm", hint="convert it to mm")
    if sform_code:
        return np.asarray(sform, dtype=np.float64)
    if qform_code:
        _check_voxel_sizes(path, type(header))
        return np.asarray(qform, dtype=np.float64)
    # Method 1 of the standard has voxel sizes only; which side is left would be a guess.
    raise GeometryError(
        f"{path} does not say where its voxels lie (sform and qform codes are both 0)",
        hint="set one of them from the source of the image",
    )


def _check_voxel_sizes(path: Path, kind: type[nib.Nifti1Header]) -> None:
    """Refuse voxel sizes of zero and below, which nibabel mends: it takes 1 for 0, and drops the sign."""
    sizes = kind.from_fileobj(io.BytesIO(read_head(path, _HEAD_BYTES)), check=False)["pixdim"][1:4]
    if not (sizes > 0).all():
        raise GeometryError(f"{path} has a broken orientation: its voxel sizes are {sizes.tolist()}")


def _damaged(path: Path, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        missing = Path(error.filename or path).name
        return DataError(
            f"{path} cannot be read: {missing} does not exist", hint="put it beside it, or convert the image"
        )
    if (found := stands_in_for(path)) is not None:
        return found
    what = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(f"{path} is damaged or not NIfTI: {what}", hint=COPY_AGAIN)
