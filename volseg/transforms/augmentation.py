"""Augmentation of training patches: MONAI's dictionary transforms, built from the configuration."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    Compose,
    Lambdad,
    Rand2DElasticd,
    Rand3DElasticd,
    RandAdjustContrastd,
    RandAffined,
    RandBiasFieldd,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandomizableTransform,
    RandScaleIntensityFixedMeand,
    RandShiftIntensityd,
    RandSimulateLowResolutiond,
    Transform,
)

from volseg.config import AugmentationConfig, axis_number
from volseg.transforms.keys import IMAGE, REFERENCE, Sample

_BOTH = (IMAGE, REFERENCE)
#: For planes: spacing of the control points of elastic deformations in pixels, and magnitude relative to volumes.
_ELASTIC_SPACING, _ELASTIC_OF_PLANES = (24, 24), 50.0


class RandFlipSided(RandFlipd):  # type: ignore[misc]
    """A random left-right flip that swaps the labels of left and right structures.

    Args:
        probability: Probability of a flip.
        pairs: Label values to swap.
        axis: The axis of the patch that runs between left and right.
    """

    def __init__(self, probability: float, pairs: Sequence[tuple[int, int]], axis: int = 0) -> None:
        super().__init__(_BOTH, prob=probability, spatial_axis=axis)
        self.pairs = tuple(pairs)

    def __call__(self, data: Sample, lazy: bool | None = None) -> dict[Hashable, Any]:
        """Randomly flip a sample."""
        sample: dict[Hashable, Any] = super().__call__(data, lazy=lazy)
        if self._do_transform:
            reference = sample[REFERENCE]
            flipped = reference.clone()
            for left, right in self.pairs:
                flipped[reference == left] = right
                flipped[reference == right] = left
            sample[REFERENCE] = flipped
        return sample


def build_augmentation(
    config: AugmentationConfig,
    labels: Mapping[str, int],
    patch: tuple[int, int, int],
    axes: str = "RAS",
    *,
    planes: bool = False,
    outside: int = 0,
) -> Compose:
    """Build the augmentation of training patches.

    Args:
        config: The changes, their probabilities and their strengths.
        labels: Label name -> value, for the labels that a left-right flip swaps.
        patch: Size of a patch in voxels along each axis.
        axes: Directions of these axes, or "stored".
        planes: Whether a patch is a stack of slices, which are all moved in the same way within their planes.
        outside: Value for reference voxels that come from outside the patch.

    Returns:
        The transforms for `{"image": (C, *patch), "reference": (1, *patch)}`, to be seeded with `set_random_state`.
    """
    flat = planes or patch[0] == 1
    size = patch[1:] if flat else patch
    deformations = _deformations(config, size)
    if deformations and outside:  # MONAI pads with zeros
        lowered, raised = (Lambdad(REFERENCE, partial(change, other=outside)) for change in (torch.sub, torch.add))
        deformations = [lowered, *deformations, raised]
    spatial = [*deformations, *_flips(config, labels, axes, flat=flat)]
    # MONAI's lazy mode stays off: it resamples references with the interpolation of the images.
    if flat and spatial:
        spatial = [Lambdad(_BOTH, _as_channels), *spatial, Lambdad(_BOTH, partial(_as_slices, count=patch[0]))]
    return Compose([*spatial, *_intensity_changes(config)], lazy=False)


def _as_channels(stack: torch.Tensor) -> torch.Tensor:
    """Reshape (C, R, A, S) -> (C * R, A, S)."""
    return stack.flatten(0, 1)


def _as_slices(channels: torch.Tensor, count: int) -> torch.Tensor:
    """Reshape (C * R, A, S) -> (C, R, A, S)."""
    return channels.reshape(-1, count, *channels.shape[1:])


def _deformations(config: AugmentationConfig, size: tuple[int, ...]) -> list[Transform]:
    """Build affine and elastic deformations of patches: in volumes, or in planes if `size` has two entries."""
    turns = config.rotation_degrees if len(size) == 3 else config.rotation_degrees[:1]
    both: dict[str, Any] = {
        "keys": _BOTH,
        "mode": ("bilinear", "nearest"),
        "padding_mode": ("border", "zeros"),
        "spatial_size": size,
    }
    changes: list[Transform] = []
    if config.affine_probability:
        changes.append(
            RandAffined(
                prob=config.affine_probability,
                rotate_range=[np.deg2rad(degrees) for degrees in turns],
                scale_range=[config.scaling] * len(size),
                shear_range=[config.shear] * (len(size) * (len(size) - 1)),
                translate_range=[config.translation_fraction * side for side in size],
                cache_grid=True,
                **both,
            )
        )
    if config.elastic_probability:
        magnitude = (0.5 * config.elastic_magnitude, config.elastic_magnitude)
        if len(size) == 3:
            elastic = Rand3DElasticd(
                prob=config.elastic_probability, sigma_range=(5, 8), magnitude_range=magnitude, **both
            )
        else:  # here the magnitude is the displacement in pixels of control points this far apart, before smoothing
            limits = tuple(each / _ELASTIC_OF_PLANES for each in magnitude)
            elastic = Rand2DElasticd(
                prob=config.elastic_probability, spacing=_ELASTIC_SPACING, magnitude_range=limits, **both
            )
        changes.append(elastic)
    return changes


def _flips(config: AugmentationConfig, labels: Mapping[str, int], axes: str, *, flat: bool) -> list[Transform]:
    changes: list[Transform] = []
    pairs = [(labels[left], labels[right]) for left, right in config.swap_labels]
    for axis in config.flip_axes:
        number = axis_number(axis, axes) - flat
        if number < 0:  # a plane cannot be flipped along its missing axis
            continue
        if axis == "left-right" and pairs:
            changes.append(RandFlipSided(config.flip_probability, pairs, number))
        else:
            changes.append(RandFlipd(_BOTH, prob=config.flip_probability, spatial_axis=number))
    return changes


def _intensity_changes(config: AugmentationConfig) -> list[RandomizableTransform]:
    channels = {"channel_wise": config.channelwise}
    blur = (0.5 * config.blur_sigma, config.blur_sigma)
    changes = [
        RandGaussianNoised(IMAGE, prob=config.noise_probability, std=config.noise_std),
        RandGaussianSmoothd(IMAGE, prob=config.blur_probability, sigma_x=blur, sigma_y=blur, sigma_z=blur),
        RandShiftIntensityd(IMAGE, prob=config.brightness_probability, offsets=config.brightness, **channels),
        RandScaleIntensityFixedMeand(IMAGE, prob=config.contrast_probability, factors=config.contrast, **channels),
        RandSimulateLowResolutiond(
            IMAGE, prob=config.low_resolution_probability, zoom_range=config.low_resolution_zoom
        ),
        RandAdjustContrastd(IMAGE, prob=config.gamma_probability, gamma=config.gamma, retain_stats=True),
        RandBiasFieldd(IMAGE, prob=config.bias_field_probability, coeff_range=(0.0, config.bias_field)),
    ]
    return [change for change in changes if change.prob > 0]
