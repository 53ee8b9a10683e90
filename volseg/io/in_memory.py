"""Images and masks in memory: arrays, and the images of nibabel, SimpleITK and MONAI."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from volseg.errors import ConfigError, DataError, GeometryError
from volseg.image.geometry import Geometry, flip_lps_ras
from volseg.image.volume import Label, Mask, Volume, label_values

if TYPE_CHECKING:
    import nibabel as nib
    import SimpleITK as sitk  # noqa: N813  the name everybody uses
    from monai.data import MetaTensor

#: Types that `volume_of` accepts; the libraries are not imported for it.
InMemoryImage: TypeAlias = (
    "Volume | nib.spatialimages.SpatialImage | sitk.Image | MetaTensor | tuple[ArrayLike, ArrayLike]"
)

#: Images as the other libraries have them.
NibabelImage: TypeAlias = "nib.Nifti1Image"
SimpleItkImage: TypeAlias = "sitk.Image"
#: Types that `mask_of` accepts.
InMemoryMask: TypeAlias = (
    "Mask | nib.spatialimages.SpatialImage | sitk.Image | MetaTensor | ArrayLike | tuple[ArrayLike, ArrayLike]"
)

_IMAGES = (("nibabel", "spatialimages.SpatialImage"), ("SimpleITK", "Image"), ("monai", "data.MetaTensor"))
_AXES_OF_SIMPLEITK = "sitk.GetArrayFromImage returns (K, J, I); give the SimpleITK image itself, or transpose the array"


def volume_of(image: InMemoryImage) -> Volume:
    """Copy an image into a volume.

    Args:
        image: A `Volume`; a nibabel image (I, J, K) or (I, J, K, C); a SimpleITK image, its components being channels;
            a MONAI `MetaTensor` (C, I, J, K) or (I, J, K); or an array (C, I, J, K) or (I, J, K) with its affine
            (4, 4), voxel index -> RAS+ mm.

    Returns:
        (C, I, J, K) float32, a copy.

    Raises:
        DataError: If it is not one of these, or has another number of axes.
        GeometryError: If it does not state where its voxels lie.
    """
    if isinstance(image, Volume):
        return Volume(np.array(image.array, dtype=np.float32), image.geometry)
    if isinstance(image, tuple) and len(image) == 2:
        return _volume(np.asarray(image[0]), image[1])
    # A caller with such an image has already imported its library.
    for (package, name), read in zip(_IMAGES, (_from_nibabel, _from_simpleitk, _from_monai), strict=True):
        if _is_a(image, package, name):
            return read(image)
    raise DataError(
        f"an image cannot be a {type(image).__name__}",
        hint="give a path, a Volume, an image of nibabel or SimpleITK, a MetaTensor, or (array, affine)",
    )


def has_grid(mask: InMemoryMask) -> bool:
    """Return whether a mask states where its voxels lie; an array alone does not."""
    if isinstance(mask, Mask) or _is_placed_array(mask):
        return True
    return any(_is_a(mask, package, name) for package, name in _IMAGES)


def _is_placed_array(given: object) -> bool:
    """Return whether this is an array with its affine."""
    return isinstance(given, tuple) and len(given) == 2 and np.shape(given[1]) == (4, 4)


def mask_of(mask: InMemoryMask, grid: Geometry | None = None) -> Mask:
    """Copy a mask into a `Mask`.

    Args:
        mask: A `Mask`; an image of nibabel, SimpleITK or MONAI with label values; or an array (I, J, K) of label values
            or bool, or (I, J) as one slice, with or without its affine.
        grid: The grid of an array; not used for others.

    Returns:
        The mask; unless it has labels, with a label "label_N" for every value N.

    Raises:
        DataError: If it is of another kind, or not a label map.
        GeometryError: If the array does not have the shape of the grid.
    """
    if isinstance(mask, Mask):
        return mask if mask.labels else _labelled(mask.array, mask.geometry)
    values, geometry = values_of(mask, grid)
    return _labelled(label_values(values, "the mask"), geometry)


def grid_of(mask: InMemoryMask) -> Geometry:
    """Return the grid of a mask that has one."""
    return mask.geometry if isinstance(mask, Mask) else values_of(mask, None)[1]


def values_of(mask: InMemoryMask, grid: Geometry | None) -> tuple[NDArray[np.generic], Geometry]:
    """Return the values (I, J, K) of a mask that is not a `Mask`, and its grid; arguments and errors as `mask_of`."""
    if has_grid(mask):
        volume = volume_of(mask)
        if len(volume.array) != 1:
            raise DataError(f"a mask has one channel, this image has {len(volume.array)}", hint="is it the image?")
        return volume.array[0], volume.geometry
    values = np.asarray(mask)
    values = values[..., np.newaxis] if values.ndim == 2 else values
    if values.ndim != 3 or not values.size:
        raise DataError(
            f"a mask is an array (I, J, K) of whole numbers, got shape {values.shape}",
            hint="pass an array, an image of nibabel or SimpleITK, or a path",
        )
    if grid is None or values.shape != grid.shape:
        raise GeometryError(
            f"the array has shape {values.shape}, its grid {grid and grid.shape}", hint=_AXES_OF_SIMPLEITK
        )
    return values, grid


def _labelled(array: NDArray[np.unsignedinteger], geometry: Geometry) -> Mask:
    return Mask(array, geometry, tuple(Label(int(value), f"label_{value}") for value in np.unique(array) if value))


def grid_of_array(array: ArrayLike, spacing_mm: Sequence[float]) -> Geometry:
    """Make a grid for an array, on default axes: for metrics that need distances, but no position in the patient.

    Args:
        array: (I, J, K), or (I, J) as one slice.
        spacing_mm: Along i, j and k; k may be left out for one slice.

    Raises:
        ConfigError: If these are not positive numbers, one for each axis.
    """
    if np.ndim(array) not in {2, 3}:
        raise DataError(
            f"a mask is an array (I, J, K) of whole numbers, got shape {np.shape(array)}",
            hint="pass an array, an image of nibabel or SimpleITK, or a path",
        )
    shape = (*np.shape(array), 1)[:3]
    try:
        sizes = np.atleast_1d(np.asarray(spacing_mm, dtype=np.float64)).ravel().tolist()
    except (TypeError, ValueError):
        sizes = []
    sizes = [*sizes, 1.0] if len(sizes) == 2 and shape[2] == 1 else sizes
    if len(sizes) != 3 or not all(0 < size < np.inf for size in sizes):
        raise ConfigError(
            f"spacing_mm must be positive numbers along i, j and k, got {spacing_mm}",
            hint="for example spacing_mm=(1, 1, 2.5)",
        )
    return Geometry((shape[0], shape[1], shape[2]), np.diag([*sizes, 1.0]))


def _is_a(image: object, package: str, name: str) -> bool:
    kind: Any = sys.modules.get(package)
    for part in name.split("."):
        kind = getattr(kind, part, None)
    return kind is not None and isinstance(image, kind)


def _volume(array: NDArray[Any], affine: ArrayLike) -> Volume:
    if array.ndim == 3:
        array = array[np.newaxis]
    if array.ndim != 4:
        raise DataError(
            f"an array of shape {array.shape} is not an image", hint="give it axes (I, J, K) or (C, I, J, K)"
        )
    return Volume(np.array(array, dtype=np.float32), Geometry(array.shape[1:], np.asarray(affine, dtype=np.float64)))


def _from_nibabel(image: Any) -> Volume:
    coded = [getattr(image.header, f"get_{name}", None) for name in ("sform", "qform")]
    unplaced = any(coded) and not any(get(coded=True)[1] for get in coded if get)
    if image.affine is None or unplaced:
        raise GeometryError(
            "the nibabel image does not state where its voxels lie (sform and qform codes are both 0)",
            hint="set one of them from the source of the image",
        )
    if all(coded):
        _check_header(image)
    array = np.asanyarray(image.dataobj)
    return _volume(np.moveaxis(array, -1, 0) if array.ndim == 4 else array, image.affine)


def _check_header(image: Any) -> None:
    """Check that the transforms and sizes of a NIfTI header do not contradict each other, as for a file."""
    from volseg.io.nifti_header import placement, transforms_of

    try:
        placement(transforms_of(Path("the nibabel image"), image.header, (*image.shape, 1)[:3]))
    except GeometryError as error:
        raise GeometryError(str(error), hint="give the array with the correct affine") from error


def _from_simpleitk(image: Any) -> Volume:
    import SimpleITK as sitk  # noqa: N813  the name everybody uses

    if image.GetDimension() != 3:
        raise DataError(
            f"a volume has three axes, the SimpleITK image {image.GetDimension()}", hint="take one volume of it"
        )
    array = sitk.GetArrayViewFromImage(image)  # (K, J, I) or (K, J, I, C)
    channels = array.transpose(3, 2, 1, 0) if array.ndim == 4 else array.transpose(2, 1, 0)[np.newaxis]
    direction = np.reshape(image.GetDirection(), (3, 3))
    geometry = Geometry.from_lps(image.GetSize(), image.GetOrigin(), direction, image.GetSpacing())
    return Volume(np.array(channels, dtype=np.float32), geometry)


def _from_monai(image: Any) -> Volume:
    affine = np.asarray(image.affine, dtype=np.float64)
    is_lps = str(image.meta.get("space", "RAS")) == "LPS"
    return _volume(image.detach().cpu().numpy(), flip_lps_ras(affine) if is_lps else affine)
