"""Overlay of a mask on its picture, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from volseg.image.views import grey_levels
from volseg.image.volume import Label, Mask
from volseg.io import Source, read_shown
from volseg.io.files import atomic_path

_OPACITY = 0.4


def write_overlay(mask: Mask, image: Source, path: Path) -> None:
    """Write a PNG with the size of a picture: its colours, and labels half-transparent with an outline.

    Args:
        mask: The mask to show, without values that have no label.
        image: Its picture.
        path: The .png file.

    Raises:
        OutputError: If it cannot be written.
    """
    picture = Image.fromarray(painted(_colors_of(image), mask.array[..., 0].T, mask.labels))
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def painted(
    colors: NDArray[np.uint8] | NDArray[np.float32], values: NDArray[np.integer], labels: tuple[Label, ...]
) -> NDArray[np.uint8]:
    """Paint labels over a picture: a tint within, the full colour where the value changes.

    Args:
        colors: (rows, columns, 3), from 0 to 255.
        values: (rows, columns).
        labels: The labels to show.

    Returns:
        (rows, columns, 3).
    """
    picture = colors.astype(np.float32)
    outline = np.zeros(values.shape, bool)
    padded = np.pad(values, 1, mode="edge")
    for neighbour in (padded[2:, 1:-1], padded[:-2, 1:-1], padded[1:-1, 2:], padded[1:-1, :-2]):
        outline |= neighbour != values
    for label in labels:
        inside = values == label.value
        opacity = np.where(outline[inside], 1.0, _OPACITY)[:, np.newaxis]
        picture[inside] += opacity * (np.array(label.display_color) - picture[inside])
    return np.round(picture).astype(np.uint8)


def _colors_of(image: Source) -> NDArray[np.uint8]:
    """Return (rows, columns, 3) bytes: unchanged if they are bytes already, otherwise windowed as for display."""
    channels = read_shown(image).array[..., 0].transpose(2, 1, 0)
    if channels.min() < 0 or channels.max() > 255 or channels.max() <= 1:
        channels = np.stack([grey_levels(channel) for channel in np.moveaxis(channels, -1, 0)], axis=-1)
    return np.round(np.broadcast_to(channels, (*channels.shape[:2], 3))).astype(np.uint8)
