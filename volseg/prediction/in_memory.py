"""Images in memory, read with the channels of a model."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import numpy as np

from volseg.config import DataConfig
from volseg.errors import DataError, GeometryError
from volseg.image.intensities import finite_limits
from volseg.image.volume import Volume
from volseg.io import read_volume, single_source, stated_modality
from volseg.io.in_memory import InMemoryImage, volume_of
from volseg.text import listed

StrPath = str | PathLike[str]


def read_in_memory(
    image: InMemoryImage | Mapping[str, StrPath | InMemoryImage], data: DataConfig
) -> tuple[Volume, tuple[str, ...]]:
    """Read an image with the channels of a model.

    Args:
        image: An image of all channels, or a path or an image for each channel by name.
        data: The channels, and how files are read.

    Returns:
        (C, I, J, K) float32, and the modality stated for each channel; empty where none is.

    Raises:
        DataError: If channels are missing, or one is empty.
        GeometryError: If they do not lie on one grid.
    """
    channels = data.channels
    modalities: tuple[str, ...] = ("",) * len(channels)
    if not isinstance(image, Mapping):
        volume = volume_of(image)
    else:
        if not set(channels) <= set(image):
            raise DataError(
                f"the image has the channels {listed(list(image))}, the model needs {listed(channels)}",
                hint="give one image for each channel of the model, under its name",
            )
        given = [image[channel] for channel in channels]
        items = [
            single_source(Path(part), rules=data) if isinstance(part, str | PathLike) else volume_of(part)
            for part in given
        ]
        modalities = tuple("" if isinstance(item, Volume) else stated_modality(item) for item in items)
        parts = [item if isinstance(item, Volume) else read_volume(item) for item in items]
        grid = parts[0].geometry
        for channel, part in zip(channels, parts, strict=True):
            if not part.geometry.matches(grid):
                apart = part.geometry.mismatch(grid, f"channel {channel}", channels[0])
                raise GeometryError(apart, hint="resample them to one grid first")
        volume = Volume(np.concatenate([part.array for part in parts]), grid)
    if len(volume.array) != len(channels):
        raise DataError(
            f"the image has {len(volume.array)} channels, the model needs {len(channels)}: {listed(channels)}",
            hint="the channels are the first axis of an array: (C, I, J, K)",
        )
    _refuse_empty(volume, channels)
    return volume, modalities


def _refuse_empty(volume: Volume, channels: tuple[str, ...]) -> None:
    """Refuse a channel with a single value, as in a file; in a picture, one of several may be constant."""
    limits = [finite_limits(values) for values in volume.array]
    if volume.geometry.is_flat and any(low < high for low, high in limits):
        return
    for channel, (low, high) in zip(channels, limits, strict=True):
        if not low < high:
            what = f"the same value everywhere ({low:g})" if low == high else "no finite voxel"
            raise DataError(f"channel {channel} of the image is empty: it has {what}", hint="is it the right image?")
