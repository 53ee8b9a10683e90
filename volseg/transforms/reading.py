"""Reading volumes from disk into a sample, each with its exact affine."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from volseg.cases import Case, read_images, read_reference, read_region
from volseg.config import Others
from volseg.image.geometry import Geometry
from volseg.image.volume import Label, Mask, Volume
from volseg.io import Source, read_mask, read_volume, single_source
from volseg.transforms.keys import CASE, GEOMETRY, IMAGE, REFERENCE, Sample


class LoadVolumed(MapTransform):  # type: ignore[misc]  # MONAI ships no types
    """Read volumes in any format volseg supports: NIfTI, NRRD, MetaImage, or a folder with one DICOM series.

    MONAI's `LoadImaged` rounds affines to float32 and silently reads no geometry from some files; this transform uses
    float64 affines as volseg does everywhere, and refuses a file that does not state where its voxels lie.

    Args:
        keys: Entries of a sample that hold a path (or what `volseg.io.discover` found).
        mask_keys: Those of them that are label maps rather than images.
    """

    def __init__(self, keys: str | Sequence[str], mask_keys: str | Sequence[str] = ()) -> None:
        super().__init__(keys)
        self.mask_keys = {mask_keys} if isinstance(mask_keys, str) else set(mask_keys)

    def __call__(self, data: Sample) -> dict[Hashable, Any]:
        """Replace each path by a `MetaTensor`: (1, I, J, K) float32, int32 for masks."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            source = _source(sample[key])
            sample[key] = mask_tensor(read_mask(source)) if key in self.mask_keys else image_tensor(read_volume(source))
        return sample


class LoadCased(MapTransform):  # type: ignore[misc]
    """Read the images and, if requested, the reference of `sample["case"]`.

    Args:
        channels: The channels and their order.
        labels: Labels of the values of the reference; if empty, any value is accepted.
        reference: Whether to read the reference, too.
        others: Whether a value without a label is refused, or becomes background.
        outside: The value of the reference outside the field of view, if there is one.
    """

    def __init__(
        self,
        channels: Sequence[str],
        labels: Sequence[Label] = (),
        *,
        reference: bool = False,
        others: Others = "refuse",
        outside: int = 0,
    ) -> None:
        super().__init__(CASE)
        self.channels = tuple(channels)
        self.labels = tuple(labels)
        self.reference = reference
        self.others: Others = others
        self.outside = outside

    def __call__(self, data: Sample) -> dict[Hashable, Any]:
        """Add "image" (C, I, J, K) float32, its "geometry", and "reference" (1, I, J, K) int32 if requested."""
        sample = dict(data)
        case: Case = sample[CASE]
        volume = read_images(case, self.channels)
        sample[GEOMETRY] = volume.geometry
        sample[IMAGE] = image_tensor(volume)
        if self.reference:
            reference = read_reference(case, volume, self.labels, self.others)
            region = read_region(case, volume.geometry)
            if region is not None:
                array = np.where(region, reference.array, np.uint16(self.outside))
                reference = Mask(array, reference.geometry, reference.labels)
            sample[REFERENCE] = mask_tensor(reference)
        return sample


def image_tensor(volume: Volume) -> MetaTensor:
    """Convert a volume to a MONAI tensor: (C, I, J, K) float32 with its affine."""
    return with_geometry(torch.from_numpy(volume.array), volume.geometry)


def mask_tensor(mask: Mask) -> MetaTensor:
    """Convert a mask to a MONAI tensor: (1, I, J, K) int32 with its affine."""
    return with_geometry(torch.from_numpy(mask.array[np.newaxis].astype(np.int32)), mask.geometry)


def with_geometry(tensor: torch.Tensor, geometry: Geometry) -> MetaTensor:
    """Attach a grid to a tensor (C, I, J, K)."""
    return MetaTensor(tensor, affine=torch.from_numpy(geometry.affine.copy()))


def geometry_of(tensor: MetaTensor) -> Geometry:
    """Return the grid of a tensor (C, I, J, K), from its affine.

    Raises:
        GeometryError: If a volume cannot have this affine.
    """
    shape = tuple(int(size) for size in tensor.shape[1:])
    return Geometry(shape, np.asarray(tensor.affine, dtype=np.float64))  # type: ignore[arg-type]  # three axes


def _source(entry: str | os.PathLike[str] | Source) -> Source:
    return single_source(Path(entry)) if isinstance(entry, str | os.PathLike) else entry
