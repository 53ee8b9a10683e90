"""Spatial transforms: axis order (lossless), cropping to nonzero voxels, and resampling to one spacing."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform
from numpy.typing import NDArray

from volseg.config import STORED, PreprocessingRules
from volseg.image.box import Box
from volseg.image.geometry import AxisOrder, Geometry
from volseg.image.resampled import ResampledVolume, Resampling
from volseg.image.resampling import resample_nearest
from volseg.transforms.keys import IMAGE, REFERENCE, Sample
from volseg.transforms.reading import geometry_of, with_geometry


class Canonicald(MapTransform):  # type: ignore[misc]  # MONAI ships no types
    """Permute and flip the axes so that they run R, A, S; lossless, and undone by `AxisOrder.inverse`.

    MONAI's `Orientationd` computes with the affine, whose rounding differs with the storage order.

    Args:
        keys: Entries to reorder; keys that a sample lacks are skipped.
        axes: Other directions of the axes, such as "LPS"; "stored" keeps them as they are.
    """

    def __init__(self, keys: str | Sequence[str] = (IMAGE, REFERENCE), axes: str = "RAS") -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.axes = axes

    def __call__(self, data: Sample) -> dict[Hashable, Any]:
        """Reorder each key of a sample."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            geometry = geometry_of(sample[key])
            order = network_order(geometry, self.axes)
            array = np.ascontiguousarray(order.apply(sample[key].numpy()))
            sample[key] = with_geometry(torch.from_numpy(array), geometry.reordered(order))
        return sample


class CroppedToNonzerod(MapTransform):  # type: ignore[misc]
    """Crop to the box of the voxels that are not 0 in some channel of an image.

    Args:
        keys: Entries to crop; keys that a sample lacks are skipped.
        image: The key of the image.
    """

    def __init__(self, keys: str | Sequence[str] = (IMAGE, REFERENCE), image: str = IMAGE) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.image = image

    def __call__(self, data: Sample) -> dict[Hashable, Any]:
        """Crop each key of a sample."""
        sample = dict(data)
        box = nonzero_box(sample[self.image].numpy())
        for key in self.key_iterator(sample):
            part = geometry_of(sample[key]).part(box)
            sample[key] = with_geometry(sample[key].as_tensor()[:, *box].contiguous(), part)
        return sample


class Respaced(MapTransform):  # type: ignore[misc]
    """Resample to one voxel size about the same centre: images linearly, masks by nearest neighbour.

    Args:
        spacing_mm: The voxel size.
        keys: Entries to resample; keys that a sample lacks are skipped.
        mask_keys: Those of them that are label maps.
        rules: Settings that deviate from this.
    """

    def __init__(
        self,
        spacing_mm: tuple[float | None, float | None, float | None],
        keys: str | Sequence[str] = (IMAGE, REFERENCE),
        mask_keys: str | Sequence[str] = REFERENCE,
        rules: PreprocessingRules = PreprocessingRules(),  # noqa: B008  frozen
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.spacing_mm = spacing_mm
        self.mask_keys = {mask_keys} if isinstance(mask_keys, str) else set(mask_keys)
        self.rules = rules

    def __call__(self, data: Sample) -> dict[Hashable, Any]:
        """Resample each key of a sample."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            old = geometry_of(sample[key])
            way = network_resampling(old, self.spacing_mm, self.rules)
            array = sample[key].as_tensor()
            if key in self.mask_keys:
                array = resample_nearest(array, way.spacing_mm, way.new_shape, way.new_spacing_mm, way.first)
            else:
                array = ResampledVolume(array.numpy(), way).read(Box.whole(way.new_shape))
            sample[key] = with_geometry(array, way.of_geometry(old))
        return sample


def network_order(geometry: Geometry, axes: str) -> AxisOrder:
    """Return the change from the storage order of a volume to the axis order of the network.

    Args:
        geometry: Geometry of the volume.
        axes: Directions of the network's axes, or "stored".
    """
    return AxisOrder((0, 1, 2), (False, False, False)) if axes == STORED else geometry.order_towards(axes)


def nonzero_box(array: NDArray[np.float32]) -> Box:
    """Return the box of voxels of (C, I, J, K) that are not 0 in some channel; the whole volume if there are none."""
    return Box.around((array != 0).any(axis=0)) or Box.whole(array.shape[1:])


def network_resampling(
    geometry: Geometry, spacing_mm: tuple[float | None, float | None, float | None], rules: PreprocessingRules
) -> Resampling:
    """Return the change from the grid of a volume to the grid of the network."""
    return Resampling.towards(geometry, spacing_mm, rules.grid, rules.interpolation, rules.coarse_axis, rules.answers)
