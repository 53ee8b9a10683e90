"""Images in memory: arrays with an affine, and the images of nibabel, SimpleITK and MONAI."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from volseg.errors import DataError, GeometryError
from volseg.image.geometry import Geometry, flip_lps_ras
from volseg.image.volume import Volume

if TYPE_CHECKING:
    import nibabel as nib
    import SimpleITK as sitk  # noqa: N813  the name everybody uses
    from monai.data import MetaTensor

#: Types that `volume_of` accepts; the libraries are not imported for it.
InMemoryImage: TypeAlias = (
    "Volume | nib.spatialimages.SpatialImage | sitk.Image | MetaTensor | tuple[ArrayLike, ArrayLike]"
)


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
    if _is_a(image, "nibabel", "spatialimages.SpatialImage"):
        return _from_nibabel(image)
    if _is_a(image, "SimpleITK", "Image"):
        return _from_simpleitk(image)
    if _is_a(image, "monai", "data.MetaTensor"):
        return _from_monai(image)
    raise DataError(
        f"an image cannot be a {type(image).__name__}",
        hint="give a path, a Volume, an image of nibabel or SimpleITK, a MetaTensor, or (array, affine)",
    )


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
