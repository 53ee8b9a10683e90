"""Axes and voxel size of samples: canonical axes without loss, then one spacing."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform

from volseg.image.resampling import resample_linear, resample_nearest
from volseg.transforms.keys import IMAGE, REFERENCE, Sample
from volseg.transforms.reading import geometry_of, with_geometry


class Canonicald(MapTransform):  # type: ignore[misc]  # MONAI ships no types
    """Permute and flip the axes so that they run R, A, S; lossless, and undone by `AxisOrder.inverse`.

    MONAI's `Orientationd` computes with the affine, whose rounding differs with the storage order.

    Args:
        keys: What is reordered; keys that a sample lacks are passed over.
    """

    def __init__(self, keys: str | Sequence[str] = (IMAGE, REFERENCE)) -> None:
        super().__init__(keys, allow_missing_keys=True)

    def __call__(self, data: Sample) -> dict[Hashable, Any]:
        """Reorder each key of a sample."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            geometry = geometry_of(sample[key])
            order = geometry.to_canonical
            array = np.ascontiguousarray(order.apply(sample[key].numpy()))
            sample[key] = with_geometry(torch.from_numpy(array), geometry.reordered(order))
        return sample


class Respaced(MapTransform):  # type: ignore[misc]
    """Resample to one voxel size about the same centre: images linearly, masks to the nearest voxel.

    Args:
        spacing_mm: The voxel size.
        keys: What is resampled; keys that a sample lacks are passed over.
        mask_keys: Those of them that are label maps.
    """

    def __init__(
        self,
        spacing_mm: tuple[float, float, float],
        keys: str | Sequence[str] = (IMAGE, REFERENCE),
        mask_keys: str | Sequence[str] = REFERENCE,
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.spacing_mm = spacing_mm
        self.mask_keys = {mask_keys} if isinstance(mask_keys, str) else set(mask_keys)

    def __call__(self, data: Sample) -> dict[Hashable, Any]:
        """Resample each key of a sample."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            old = geometry_of(sample[key])
            new = old.respaced(self.spacing_mm)
            resample = resample_nearest if key in self.mask_keys else resample_linear
            array = resample(sample[key].as_tensor(), old.spacing_mm, new.shape, self.spacing_mm)
            sample[key] = with_geometry(array, new)
        return sample
