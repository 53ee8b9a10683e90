"""A mask in another format, exactly on the grid of the image it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from volseg.errors import GeometryError
from volseg.io import Source, read_mask, read_volume, write_mask
from volseg.io.source import FileSource
from volseg.volume import Mask

Format = Literal["nifti", "nrrd", "mha"]

SUFFIXES: dict[Format, str] = {"nifti": ".nii.gz", "nrrd": ".nrrd", "mha": ".mha"}


def output_path(folder: Path, case_id: str, form: Format) -> Path:
    """Where the mask of a case is written in a format."""
    return folder / f"{case_id}{SUFFIXES[form]}"


def export_mask(mask_file: Path, reference: Source, output: Path) -> Mask:
    """Write a mask on the grid of its source image, in the format that the suffix of `output` names.

    The mask may be stored with its axes in another order than the image; its voxels are then put into the image's
    order. Nothing is resampled.

    Args:
        mask_file: The mask.
        reference: The image it belongs to.
        output: The file to write.

    Returns:
        What was written.

    Raises:
        GeometryError: If the voxels of the mask do not lie where those of the image lie.
        DataError: If one of them cannot be read.
        OutputError: If it cannot be written.
    """
    mask = read_mask(FileSource(mask_file))
    target = read_volume(reference).geometry
    canonical = mask.geometry.reordered(mask.geometry.to_canonical)
    if not canonical.matches(target.reordered(target.to_canonical)):
        raise GeometryError(
            f"{mask_file} has {mask.geometry}, but {reference} has {target}; they do not cover the same voxels",
            hint="export a mask with the image it was made from",
        )
    array = target.to_canonical.inverse().apply(mask.geometry.to_canonical.apply(mask.array))
    placed = Mask(np.ascontiguousarray(array), target, mask.labels)
    write_mask(placed, output)
    return placed
