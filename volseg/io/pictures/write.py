"""Masks and images as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from volseg.errors import ConfigError, DataError
from volseg.image.geometry import Geometry
from volseg.image.volume import Mask, Volume
from volseg.io.files import atomic_path
from volseg.io.pictures.decode import MM_PER_INCH, PIXEL_MM
from volseg.io.record import Role

_BYTE = 255


def write_mask(mask: Mask, path: Path, *, role: Role = "data") -> None:
    """Write a flat mask as PNG: indices of a palette with the labels' colours, or 16-bit grey for values above 255.

    Args:
        mask: Of one slice, in the storage order of a picture.
        path: A .png file.
        role: Whether it is a result.

    Raises:
        ConfigError: If the suffix is not .png.
        DataError: If the mask has several slices.
        OutputError: If it cannot be written.
    """
    _check(mask.geometry, path)
    plane = mask.array[:, :, 0].T
    largest = max([int(plane.max(initial=0)), *(label.value for label in mask.labels)])
    if largest > _BYTE:
        picture = Image.fromarray(np.ascontiguousarray(plane, dtype=np.uint16))
    else:
        picture = Image.fromarray(np.ascontiguousarray(plane, dtype=np.uint8), mode="P")
        palette = np.zeros((largest + 1, 3), np.uint8)
        for label in mask.labels:
            palette[label.value] = label.display_color
        picture.putpalette(palette.tobytes())
    _save(picture, mask.geometry, path, role)


def write_volume(volume: Volume, path: Path) -> None:
    """Write a flat image as PNG, of one channel or of three; values must be integers from 0 to 255.

    Raises:
        ConfigError: If the suffix is not .png.
        DataError: If it has several slices, or other values.
        OutputError: If it cannot be written.
    """
    _check(volume.geometry, path)
    values: NDArray[np.float32] = volume.array[..., 0]
    if len(values) not in (1, 3) or values.min() < 0 or values.max() > _BYTE or (values != np.rint(values)).any():
        raise DataError(f"{path}: a PNG takes one or three channels of whole numbers up to 255", hint="write .nii.gz")
    pixels = values.astype(np.uint8).transpose(2, 1, 0)
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if len(values) == 1 else pixels))
    _save(picture, volume.geometry, path, "data")


def _check(geometry: Geometry, path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise ConfigError(f"cannot write {path}: volseg writes pictures as PNG only", hint="end its name with .png")
    if not geometry.is_flat:
        raise DataError(f"{path}: a PNG holds one slice, not {geometry.shape[2]}", hint="write .nii.gz or .nrrd")


def _save(picture: Image.Image, geometry: Geometry, path: Path, role: Role) -> None:
    options: dict[str, Any] = {}
    if geometry.unit == "mm":
        across_mm, down_mm, _ = geometry.spacing_mm
        exact = PngInfo()
        exact.add_text(PIXEL_MM, f"{across_mm!r} {down_mm!r}")
        options = {"dpi": (MM_PER_INCH / across_mm, MM_PER_INCH / down_mm), "pnginfo": exact}
    with atomic_path(path, role) as temporary:
        picture.save(temporary, format="PNG", **options)
