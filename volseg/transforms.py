"""MONAI chains built from the configuration: reading and preprocessing a case, and augmenting a patch.

A sample is a dictionary with the keys "case" (a `Case`), "geometry" (the grid of the source), "image" (C, R, A, S) and
"reference" (1, R, A, S), the last two as MONAI `MetaTensor` whose affine is the exact voxel -> RAS+ mm matrix.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    MapTransform,
    NormalizeIntensity,
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
    ScaleIntensity,
    ScaleIntensityRange,
    ScaleIntensityRangePercentiles,
    Transform,
)

from volseg.cases import Case, read_images, read_reference
from volseg.config import (
    AXES,
    AugmentationConfig,
    CtNormalization,
    DataConfig,
    MinMax,
    Normalization,
    Percentiles,
    PreprocessingConfig,
    Window,
    ZScore,
)
from volseg.errors import VolsegError
from volseg.geometry import Geometry
from volseg.resampling import resample_linear, resample_nearest
from volseg.volume import Label

IMAGE, REFERENCE, CASE, GEOMETRY = "image", "reference", "case", "geometry"

logger = logging.getLogger(__name__)

Sample = Mapping[Hashable, Any]


class LoadVolumed(MapTransform):  # type: ignore[misc]  # MONAI ships no types
    """Read the images and, where asked for, the reference of `sample["case"]`, each with its exact affine.

    Args:
        channels: The channels and their order.
        labels: What the values of the reference mean; any value is accepted if empty.
        reference: Whether the reference is read too.
    """

    def __init__(self, channels: Sequence[str], labels: Sequence[Label] = (), *, reference: bool = False) -> None:
        super().__init__(CASE)
        self.channels = tuple(channels)
        self.labels = tuple(labels)
        self.reference = reference

    def __call__(self, data: Sample) -> dict[Hashable, Any]:
        """Add "image" (C, I, J, K) float32, its "geometry", and "reference" (1, I, J, K) int32 if asked for."""
        sample = dict(data)
        case: Case = sample[CASE]
        volume = read_images(case, self.channels)
        sample[GEOMETRY] = volume.geometry
        sample[IMAGE] = _with_geometry(torch.from_numpy(volume.array), volume.geometry)
        if self.reference:
            mask = read_reference(case, volume, self.labels)
            sample[REFERENCE] = _with_geometry(torch.from_numpy(mask.array[np.newaxis].astype(np.int32)), mask.geometry)
        return sample


class FillNonFinited(MapTransform):  # type: ignore[misc]
    """Replace NaN and infinities by the smallest finite value of their channel, and say so."""

    def __call__(self, data: Sample) -> dict[Hashable, Any]:
        """Change the image of a sample where it must be."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            broken = ~torch.isfinite(sample[key])
            if not broken.any():
                continue
            for channel, where in zip(sample[key], broken, strict=True):
                channel[where] = channel[~where].min()
            logger.warning("case %s: %d voxels are not finite; taken as background", sample[CASE].case_id, broken.sum())
        return sample


class Canonicald(MapTransform):  # type: ignore[misc]
    """Permute and flip the axes so that they run R, A, S; lossless, and undone by `AxisOrder.inverse`."""

    def __call__(self, data: Sample) -> dict[Hashable, Any]:
        """Reorder each key of a sample."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            geometry = geometry_of(sample[key])
            order = geometry.to_canonical
            array = np.ascontiguousarray(order.apply(sample[key].numpy()))
            sample[key] = _with_geometry(torch.from_numpy(array), geometry.reordered(order))
        return sample


class Respaced(MapTransform):  # type: ignore[misc]
    """Resample to one voxel size about the same centre: images linearly, references to the nearest voxel.

    Args:
        keys: What is resampled.
        spacing_mm: The voxel size.
    """

    def __init__(self, keys: Sequence[str], spacing_mm: tuple[float, float, float]) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.spacing_mm = spacing_mm

    def __call__(self, data: Sample) -> dict[Hashable, Any]:
        """Resample each key of a sample."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            old = geometry_of(sample[key])
            new = old.respaced(self.spacing_mm)
            resample = resample_nearest if key == REFERENCE else resample_linear
            array = resample(sample[key].as_tensor(), old.spacing_mm, new.shape, self.spacing_mm)
            sample[key] = _with_geometry(array, new)
        return sample


class Normalized(MapTransform):  # type: ignore[misc]
    """Normalise the intensities of each channel in its own way.

    Args:
        normalizations: One per channel.
    """

    def __init__(self, normalizations: Sequence[Normalization]) -> None:
        super().__init__(IMAGE)
        self.transforms = [build_normalization(normalization) for normalization in normalizations]

    def __call__(self, data: Sample) -> dict[Hashable, Any]:
        """Normalise the image of a sample."""
        sample = dict(data)
        image = sample[IMAGE]
        channels = [transform(image[n : n + 1]) for n, transform in enumerate(self.transforms)]
        sample[IMAGE] = _with_geometry(torch.cat([_plain(channel) for channel in channels]), geometry_of(image))
        return sample


class RandFlipSided(RandFlipd):  # type: ignore[misc]
    """A random left-right flip that exchanges the labels of the left and the right structure.

    Args:
        probability: Of a flip.
        pairs: Label values that change places.
    """

    def __init__(self, probability: float, pairs: Sequence[tuple[int, int]]) -> None:
        super().__init__((IMAGE, REFERENCE), prob=probability, spatial_axis=0)
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


def build_preprocessing(data: DataConfig, preprocessing: PreprocessingConfig, *, reference: bool) -> Compose:
    """The chain from a case to a volume as the network expects it.

    Args:
        data: Channels and labels.
        preprocessing: Spacing and normalisation.
        reference: Whether the reference comes along.

    Returns:
        A chain for `{"case": Case}`.
    """
    keys = (IMAGE, REFERENCE)
    return Compose(
        [
            LoadVolumed(data.channels, data.reference_labels, reference=reference),
            FillNonFinited(IMAGE),
            Canonicald(keys, allow_missing_keys=True),
            Respaced(keys, preprocessing.spacing_mm),
            Normalized(preprocessing.normalization),
        ]
    )


def preprocess(case: Case, data: DataConfig, preprocessing: PreprocessingConfig, *, reference: bool) -> dict[str, Any]:
    """Bring a case to the form the network expects.

    Args:
        case: What to read.
        data: Channels and labels.
        preprocessing: Spacing and normalisation.
        reference: Whether the reference comes along.

    Returns:
        A sample with "image", "geometry" and, if asked for, "reference".

    Raises:
        VolsegError: For whatever is wrong with the case.
    """
    chain = build_preprocessing(data, preprocessing, reference=reference)
    try:
        return dict(chain({CASE: case}))
    except RuntimeError as error:  # MONAI wraps what a transform raises; ours says what is wrong
        if isinstance(error.__cause__, VolsegError):
            raise error.__cause__ from None
        raise


def build_normalization(normalization: Normalization) -> Transform:
    """The MONAI transform of one channel."""
    match normalization:
        case ZScore(nonzero=nonzero):
            return NormalizeIntensity(nonzero=nonzero)
        case CtNormalization(low=low, high=high, mean=mean, std=std):
            return ScaleIntensityRange(low, high, (low - mean) / std, (high - mean) / std, clip=True)
        case Window(low=low, high=high):
            return ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)
        case Percentiles(low=low, high=high):
            return ScaleIntensityRangePercentiles(low, high, 0.0, 1.0, clip=True)
        case MinMax():
            return ScaleIntensity(0.0, 1.0)


def build_augmentation(config: AugmentationConfig, labels: Mapping[str, int], patch: tuple[int, int, int]) -> Compose:
    """The chain of random changes of a training patch.

    Args:
        config: What is changed, how often and how much.
        labels: Label name -> value, for the labels that a left-right flip exchanges.
        patch: Voxels of a patch along R, A, S.

    Returns:
        A chain for `{"image": (C, *patch), "reference": (1, *patch)}`, to be seeded with `set_random_state`.
    """
    # MONAI's lazy mode stays off: it resamples references with the interpolation of the images.
    return Compose([*_spatial_changes(config, labels, patch), *_intensity_changes(config)], lazy=False)


def geometry_of(tensor: MetaTensor) -> Geometry:
    """The grid of a sample's image or reference."""
    shape = tuple(int(size) for size in tensor.shape[1:])
    return Geometry(shape, np.asarray(tensor.affine, dtype=np.float64))  # type: ignore[arg-type]  # three axes


def _spatial_changes(
    config: AugmentationConfig, labels: Mapping[str, int], patch: tuple[int, int, int]
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
        if axis == "left-right" and pairs:
            changes.append(RandFlipSided(config.flip_probability, pairs))
        else:
            changes.append(RandFlipd((IMAGE, REFERENCE), prob=config.flip_probability, spatial_axis=AXES.index(axis)))
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


def _with_geometry(tensor: torch.Tensor, geometry: Geometry) -> MetaTensor:
    return MetaTensor(tensor, affine=torch.from_numpy(geometry.affine.copy()))


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor
