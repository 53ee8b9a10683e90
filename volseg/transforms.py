"""MONAI chains built from the configuration: reading and preprocessing a case, and augmenting a patch.

A sample is a dictionary with the keys "case" (a `Case`), "geometry" (the grid of the source), "image" (C, R, A, S) and
"reference" (1, R, A, S), the last two as MONAI `MetaTensor` whose affine is the exact voxel -> RAS+ mm matrix.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
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
    ScaleIntensityRange,
    Transform,
)
from numpy.typing import NDArray

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
from volseg.image.geometry import Geometry
from volseg.image.resampling import resample_linear, resample_nearest
from volseg.image.volume import Label

IMAGE, REFERENCE, CASE, GEOMETRY = "image", "reference", "case", "geometry"

#: Planes that are normalised at once.
_SLAB = 16

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
        for key in self.key_iterator(data):
            fill_non_finite(data[key].numpy(), data[CASE].case_id)
        return dict(data)


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
        self.normalizations = tuple(normalizations)

    def __call__(self, data: Sample) -> dict[Hashable, Any]:
        """Normalise the image of a sample."""
        normalize(data[IMAGE].numpy(), self.normalizations)
        return dict(data)


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
            Normalized(preprocessing.normalization),
            Respaced(keys, preprocessing.spacing_mm),
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


def fill_non_finite(array: NDArray[np.float32], case_id: str) -> None:
    """Replace NaN and infinities by the smallest finite value of their channel, in place, and say so.

    Args:
        array: (C, ...), with a finite value in each channel.
        case_id: Whose it is.
    """
    count = 0
    for channel in array:
        if np.isfinite(channel.min()) and np.isfinite(channel.max()):  # both see a NaN anywhere
            continue
        broken = ~np.isfinite(channel)
        channel[broken] = channel[~broken].min()
        count += int(broken.sum())
    if count:
        logger.warning("case %s: %d voxels are not finite; taken as background", case_id, count)


def normalize(array: NDArray[np.float32], normalizations: Sequence[Normalization]) -> None:
    """Normalise the intensities of each channel in its own way, in place and without a second volume.

    Args:
        array: (C, R, A, S) finite, a view in any storage order: the numbers do not depend on it.
        normalizations: One per channel.
    """
    for channel, normalization in zip(array, normalizations, strict=True):
        transform = build_normalization(normalization, channel)
        for slab in _slabs(channel):
            slab[...] = np.asarray(transform(torch.from_numpy(np.ascontiguousarray(slab)[np.newaxis])))[0]


def build_normalization(normalization: Normalization, channel: NDArray[np.float32]) -> Transform:
    """The MONAI transform of one channel, which changes each voxel by itself.

    Args:
        normalization: What is wanted.
        channel: (R, A, S), from which it takes the mean, the deviation or the range.

    Returns:
        A transform of (1, ...) tensors.
    """
    match normalization:
        case ZScore(nonzero=nonzero):
            mean, deviation = _moments(channel, nonzero=nonzero)
            return NormalizeIntensity(mean, deviation, nonzero=nonzero)
        case CtNormalization(low=low, high=high, mean=mean, std=std):
            return ScaleIntensityRange(low, high, (low - mean) / std, (high - mean) / std, clip=True)
        case Window(low=low, high=high):
            return ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)
        case Percentiles(low=low, high=high):
            bounds = np.percentile(channel, (low, high))
            return ScaleIntensityRange(float(bounds[0]), float(bounds[1]), 0.0, 1.0, clip=True)
        case MinMax():
            return ScaleIntensityRange(float(channel.min()), float(channel.max()), 0.0, 1.0)


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


def _slabs(channel: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Parts along the last axis, small enough that numbers computed from one take little memory."""
    return [channel[..., n : n + _SLAB] for n in range(0, channel.shape[-1], _SLAB)]


def _moments(channel: NDArray[np.float32], *, nonzero: bool) -> tuple[float, float]:
    """Mean and standard deviation, of voxels that are not 0 if asked for; 0 and 1 where nothing is left to scale."""

    def values() -> Iterator[NDArray[np.float32]]:
        for slab in _slabs(channel):
            flat = np.ascontiguousarray(slab).ravel()
            yield flat[flat != 0] if nonzero else flat

    count = sum(each.size for each in values())
    if not count:
        return 0.0, 1.0
    mean = sum(float(each.sum(dtype=np.float64)) for each in values()) / count
    variance = sum(float(np.square(each - np.float32(mean)).sum(dtype=np.float64)) for each in values()) / count
    return mean, math.sqrt(variance) or 1.0


def _with_geometry(tensor: torch.Tensor, geometry: Geometry) -> MetaTensor:
    return MetaTensor(tensor, affine=torch.from_numpy(geometry.affine.copy()))
