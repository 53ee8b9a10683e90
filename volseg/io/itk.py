"""NRRD and MetaImage through SimpleITK."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  the name everybody uses
from numpy.typing import NDArray

from volseg.errors import DataError, GeometryError, OutputError
from volseg.geometry import Geometry
from volseg.io.files import atomic_path
from volseg.volume import Mask, Volume

SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")

#: The patient spaces that ITK's NRRD reader turns into LPS; it takes any other as if it were LPS.
_NRRD_SPACES = {"left-posterior-superior", "lps", "right-anterior-superior", "ras", "left-anterior-superior", "las"}
#: What a header must state, each under one of its names, for the position not to be a default.
_NRRD_FIELDS = (("space directions",), ("space origin",))
_META_FIELDS = (
    ("elementspacing", "elementsize"),
    ("transformmatrix", "orientation", "rotation"),
    ("offset", "position", "origin"),
)


def read_array(path: Path) -> tuple[NDArray[np.generic], Geometry]:
    """Read all voxels of a NRRD or MetaImage file.

    Args:
        path: A .nrrd, .nhdr, .mha or .mhd file.

    Returns:
        (F, I, J, K) array of F components in the dtype of the file, and the grid.

    Raises:
        DataError: If the file is damaged or holds complex numbers.
        GeometryError: If the header does not say where its voxels lie; ITK would assume unit spacing and direction.
    """
    _check_header(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise DataError(f"{path} is damaged: {_last_line(error)}", hint="copy or export the file again") from error
    if image.GetDimension() != 3:
        raise DataError(f"{path} has {image.GetDimension()} spatial axes, a volume has three")
    if "complex" in image.GetPixelIDTypeAsString():
        raise DataError(f"{path} holds complex numbers")
    direction = np.reshape(image.GetDirection(), (3, 3))
    geometry = Geometry.from_lps(image.GetSize(), image.GetOrigin(), direction, image.GetSpacing())
    array = sitk.GetArrayFromImage(image)  # (K, J, I) or (K, J, I, F)
    return array.transpose(3, 2, 1, 0) if array.ndim == 4 else array.transpose(2, 1, 0)[np.newaxis], geometry


def write_mask(mask: Mask, path: Path) -> None:
    """Write a mask as compressed NRRD or MetaImage.

    Raises:
        OutputError: If it cannot be written.
    """
    _write(sitk.GetImageFromArray(np.ascontiguousarray(mask.array.transpose(2, 1, 0))), mask.geometry, path)


def write_volume(volume: Volume, path: Path) -> None:
    """Write an image; several channels become vector components.

    Raises:
        OutputError: If it cannot be written.
    """
    array = np.ascontiguousarray(volume.array.transpose(3, 2, 1, 0))
    image = (
        sitk.GetImageFromArray(array[..., 0]) if array.shape[-1] == 1 else sitk.GetImageFromArray(array, isVector=True)
    )
    _write(image, volume.geometry, path)


def _write(image: sitk.Image, geometry: Geometry, path: Path) -> None:
    affine = geometry.lps_affine
    spacing = np.asarray(geometry.spacing_mm)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    with atomic_path(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise OutputError(f"cannot write {path}: {_last_line(error)}", hint="is the disk full?") from error


def _check_header(path: Path) -> None:
    """Refuse a header that leaves the position open."""
    separator, fields = (":", _NRRD_FIELDS) if path.suffix in {".nrrd", ".nhdr"} else ("=", _META_FIELDS)
    header = _header(path, separator)
    for names in fields:
        if not any(name in header for name in names):
            raise GeometryError(
                f"{path} does not say where its voxels lie: no '{names[0]}' in its header",
                hint="export it again from a tool that writes the patient space",
            )
    space = header.get("space", "lps").strip('"').lower() if separator == ":" else "lps"
    if separator == ":" and ("space" not in header or space not in _NRRD_SPACES):
        raise GeometryError(
            f"{path} is not in a patient space: 'space' is {header.get('space', 'not stated')!r}",
            hint="left-posterior-superior or right-anterior-superior can be read",
        )


def _header(path: Path, separator: str) -> dict[str, str]:
    """The text fields at the head of a NRRD or MetaImage file, keys in lower case."""
    fields: dict[str, str] = {}
    try:
        with path.open("rb") as file:
            for raw in file:
                line = raw.decode("latin-1").strip()
                key, found, value = line.partition(separator)
                if found:
                    fields[key.strip().lower()] = value.strip()
                # NRRD ends its header with an empty line, MetaImage with the place of the voxels.
                if not line or key.strip().lower() == "elementdatafile" or len(fields) > 1000:
                    break
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    return fields


def _last_line(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1].removeprefix("ITK ERROR: ")
