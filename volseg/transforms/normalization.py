"""Intensity normalisation: non-finite values are replaced, and each channel is normalised in its own way."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Identity, MapTransform, NormalizeIntensity, ScaleIntensityRange, Transform
from numpy.typing import NDArray

from volseg.config import (
    CtNormalization,
    MinMax,
    Normalization,
    Percentiles,
    SingleNormalization,
    Standardized,
    Successive,
    Unchanged,
    Window,
    ZScore,
)
from volseg.image.histogram import Histogram
from volseg.transforms.keys import CASE, IMAGE, Sample

#: Number of planes normalised at once.
_SLAB = 16

logger = logging.getLogger(__name__)


class FillNonFinited(MapTransform):  # type: ignore[misc]  # MONAI ships no types
    """Replace NaN and infinities by the smallest finite value of their channel, and log how many there were.

    Args:
        keys: The images.
    """

    def __init__(self, keys: str | Sequence[str] = IMAGE) -> None:
        super().__init__(keys)

    def __call__(self, data: Sample) -> dict[Hashable, Any]:
        """Fill each image of a sample in place."""
        for key in self.key_iterator(data):
            fill_non_finite(data[key].numpy(), f"case {data[CASE].case_id}" if CASE in data else str(key))
        return dict(data)


class Normalized(MapTransform):  # type: ignore[misc]
    """Normalise the intensities of each channel in its own way, in place.

    Args:
        normalizations: One per channel.
        keys: The images.
    """

    def __init__(self, normalizations: Sequence[Normalization], keys: str | Sequence[str] = IMAGE) -> None:
        super().__init__(keys)
        self.normalizations = tuple(normalizations)

    def __call__(self, data: Sample) -> dict[Hashable, Any]:
        """Normalise each image (C, R, A, S) of a sample."""
        for key in self.key_iterator(data):
            normalize(data[key].numpy(), self.normalizations)
        return dict(data)


def fill_non_finite(array: NDArray[np.float32], name: str) -> None:
    """Replace NaN and infinities by the smallest finite value of their channel, in place, and log it.

    Args:
        array: (C, ...), with a finite value in each channel.
        name: Name for the log.
    """
    count = 0
    for channel in array:
        if np.isfinite(channel.min()) and np.isfinite(channel.max()):  # both propagate NaN
            continue
        broken = ~np.isfinite(channel)
        channel[broken] = channel[~broken].min()
        count += int(broken.sum())
    if count:
        logger.warning("%s: %d voxels are not finite; treated as background", name, count)


def normalize(array: NDArray[np.float32], normalizations: Sequence[Normalization]) -> None:
    """Normalise the intensities of each channel in its own way, in place and without a second volume.

    Args:
        array: (C, R, A, S) finite, a view in any storage order; the result does not depend on it.
        normalizations: One per channel.
    """
    inside = None
    steps = [each.steps if isinstance(each, Successive) else (each,) for each in normalizations]
    if any(isinstance(each, ZScore) and each.nonzero and each.fill_holes for few in steps for each in few):
        inside = filled_nonzero(array)
    for channel, few in zip(array, steps, strict=True):
        for each in few:
            _normalize_channel(channel, each, inside)


def of_whole_numbers(normalization: Normalization, histogram: Histogram) -> Normalization | None:
    """Fix the parameters of a normalisation for one image, so that its parts can be normalised independently.

    Args:
        normalization: The configured normalisation.
        histogram: Histogram of all values of the channel.

    Returns:
        The normalisation with fixed numbers; None where the result of a voxel depends on others, too.
    """
    match normalization:
        case ZScore(nonzero=False):
            return Standardized(mean=histogram.mean, std=histogram.deviation or 1.0)
        case Percentiles(low=low, high=high) if histogram.percentile(low) < histogram.percentile(high):
            return Window(low=histogram.percentile(low), high=histogram.percentile(high))
        case MinMax(low=low, high=high) if histogram.low < histogram.high and low < high:
            step = (histogram.high - histogram.low) / (high - low)
            return Standardized(mean=histogram.low - low * step, std=step)
        case CtNormalization() | Window() | Standardized() | Unchanged():
            return normalization
        case _:
            return None


def _normalize_channel(
    channel: NDArray[np.float32], normalization: SingleNormalization, inside: NDArray[np.bool_] | None
) -> None:
    match normalization:
        case ZScore(nonzero=True, fill_holes=True) if inside is not None:
            _standardize(channel, inside)
        case _:
            transform = build_normalization(normalization, channel)
            for slab in _slabs(channel):
                slab[...] = np.asarray(transform(torch.from_numpy(np.ascontiguousarray(slab)[np.newaxis])))[0]


def filled_nonzero(array: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the voxels that are not 0 in some channel, with holes filled: (C, I, J, K) -> (I, J, K)."""
    from scipy import ndimage

    filled: NDArray[np.bool_] = ndimage.binary_fill_holes((array != 0).any(axis=0))
    return filled


def _standardize(channel: NDArray[np.float32], inside: NDArray[np.bool_]) -> None:
    """Standardise the voxels inside: subtract their mean and divide by their standard deviation."""
    values = channel[inside]
    if values.size:
        mean = np.float32(values.mean(dtype=np.float64))
        values -= mean
        values /= np.float32(math.sqrt(np.square(values).mean(dtype=np.float64)) or 1.0)
        channel[inside] = values


def build_normalization(  # noqa: PLR0911  one for each method
    normalization: SingleNormalization, channel: NDArray[np.float32]
) -> Transform:
    """Build the MONAI transform of one channel, which changes each voxel independently of its neighbours.

    Args:
        normalization: The configured normalisation.
        channel: (R, A, S), from which mean, deviation or range are computed.

    Returns:
        A transform of (1, ...) tensors.
    """
    match normalization:
        case ZScore(nonzero=nonzero):
            return NormalizeIntensity(*_moments(channel, nonzero=nonzero), nonzero=nonzero)
        case CtNormalization(low=low, high=high, mean=mean, std=std):
            return ScaleIntensityRange(low, high, (low - mean) / std, (high - mean) / std, clip=True)
        case Window(low=low, high=high):
            return ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)
        case Percentiles(low=low, high=high):
            bounds = np.percentile(channel, (low, high))
            return ScaleIntensityRange(float(bounds[0]), float(bounds[1]), 0.0, 1.0, clip=True)
        case MinMax(low=low, high=high):
            return ScaleIntensityRange(float(channel.min()), float(channel.max()), low, high)
        case Standardized(mean=mean, std=std):
            return NormalizeIntensity(mean, std)
        case Unchanged():
            return Identity()


def _slabs(channel: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Split a channel along the last axis into parts so small that temporary arrays take little memory."""
    return [channel[..., n : n + _SLAB] for n in range(0, channel.shape[-1], _SLAB)]


def _moments(channel: NDArray[np.float32], *, nonzero: bool) -> tuple[float, float]:
    """Return mean and standard deviation, of nonzero voxels if requested; 0 and 1 where nothing is left to scale."""

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
