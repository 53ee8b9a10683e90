"""Random changes of training patches: MONAI's dictionary transforms, built from the configuration."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.transforms import (
    Compose,
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
)

from volseg.config import AugmentationConfig, axis_number
from volseg.transforms.keys import IMAGE, REFERENCE, Sample


class RandFlipSided(RandFlipd):  # type: ignore[misc]
    """A random left-right flip that exchanges the labels of the left and the right structure.

    Args:
        probability: Of a flip.
        pairs: Label values that change places.
        axis: Which axis of the patch runs from left to right or back.
    """

    def __init__(self, probability: float, pairs: Sequence[tuple[int, int]], axis: int = 0) -> None:
        super().__init__((IMAGE, REFERENCE), prob=probability, spatial_axis=axis)
        self.pairs = tuple(pairs)

    def __call__(self, data: Sample, lazy: bool | None = None) -> dict[Hashable, Any]:
        """Flip a sample, or not."""
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
    config: AugmentationConfig, labels: Mapping[str, int], patch: tuple[int, int, int], axes: str = "RAS"
) -> Compose:
    """The chain of random changes of a training patch.

    Args:
        config: What is changed, how often and how much.
        labels: Label name -> value, for the labels that a left-right flip exchanges.
        patch: Voxels of a patch along each axis.
        axes: Directions of these axes, or "stored".

    Returns:
        A chain for `{"image": (C, *patch), "reference": (1, *patch)}`, to be seeded with `set_random_state`.
    """
    # MONAI's lazy mode stays off: it resamples references with the interpolation of the images.
    return Compose([*_spatial_changes(config, labels, patch, axes), *_intensity_changes(config)], lazy=False)


def _spatial_changes(
    config: AugmentationConfig, labels: Mapping[str, int], patch: tuple[int, int, int], axes: str
) -> list[RandomizableTransform]:
    both: dict[str, Any] = {
        "keys": (IMAGE, REFERENCE),
        "mode": ("bilinear", "nearest"),
        "padding_mode": ("border", "zeros"),
    }
    changes: list[RandomizableTransform] = []
    if config.affine_probability:
        changes.append(
            RandAffined(
                prob=config.affine_probability,
                rotate_range=[np.deg2rad(degrees) for degrees in config.rotation_degrees],
                scale_range=[config.scaling] * 3,
                shear_range=[config.shear] * 6,
                translate_range=[config.translation_fraction * size for size in patch],
                cache_grid=True,
                spatial_size=patch,
                **both,
            )
        )
    if config.elastic_probability:
        magnitude = (0.5 * config.elastic_magnitude, config.elastic_magnitude)
        changes.append(
            Rand3DElasticd(
                prob=config.elastic_probability,
                sigma_range=(5, 8),
                magnitude_range=magnitude,
                spatial_size=patch,
                **both,
            )
        )
    pairs = [(labels[left], labels[right]) for left, right in config.swap_labels]
    for axis in config.flip_axes:
        number = axis_number(axis, axes)
        if axis == "left-right" and pairs:
            changes.append(RandFlipSided(config.flip_probability, pairs, number))
        else:
            changes.append(RandFlipd((IMAGE, REFERENCE), prob=config.flip_probability, spatial_axis=number))
    return changes


def _intensity_changes(config: AugmentationConfig) -> list[RandomizableTransform]:
    blur = (0.5 * config.blur_sigma, config.blur_sigma)
    changes = [
        RandGaussianNoised(IMAGE, prob=config.noise_probability, std=config.noise_std),
        RandGaussianSmoothd(IMAGE, prob=config.blur_probability, sigma_x=blur, sigma_y=blur, sigma_z=blur),
        RandShiftIntensityd(IMAGE, prob=config.brightness_probability, offsets=config.brightness),
        RandScaleIntensityFixedMeand(IMAGE, prob=config.contrast_probability, factors=config.contrast),
        RandSimulateLowResolutiond(
            IMAGE, prob=config.low_resolution_probability, zoom_range=config.low_resolution_zoom
        ),
        RandAdjustContrastd(IMAGE, prob=config.gamma_probability, gamma=config.gamma, retain_stats=True),
        RandBiasFieldd(IMAGE, prob=config.bias_field_probability, coeff_range=(0.0, config.bias_field)),
    ]
    return [change for change in changes if change.prob > 0]
