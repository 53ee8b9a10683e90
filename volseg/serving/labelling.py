"""Masks as programs exchange them in which people draw: 3D Slicer and OHIF.

They go by the position of a label: the first one has the value 1, the next one 2, whatever values a model uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from volseg.errors import DataError
from volseg.image.geometry import Geometry
from volseg.image.volume import Label, Mask
from volseg.io import Source, read_grid, read_mask, single_source
from volseg.io.itk_header import check_alone
from volseg.io.label_maps import named_mask

#: Suffix of masks that are voxels alone, as OHIF sends them.
VOXELS_ONLY = ".bin"
#: Segments that 3D Slicer needs for itself.
_NO_LABELS = frozenset({"background", "foreground_scribbles", "background_scribbles"})


def drawn_labels(names: Sequence[str]) -> list[str]:
    """Return the names of labels, without those that mark nothing."""
    return [name for name in names if name.lower() not in _NO_LABELS]


def numbered(mask: Mask) -> Mask:
    """Return a mask whose labels have the values 1, 2, 3 ... in their order."""
    labels = tuple(replace(label, value=number) for number, label in enumerate(mask.labels, 1))
    largest = max((label.value for label in mask.labels), default=0)
    table = np.zeros(max(largest, int(mask.array.max(initial=0))) + 1, np.uint8 if len(labels) <= 255 else np.uint16)
    table[[label.value for label in mask.labels]] = np.arange(1, len(labels) + 1)
    return Mask(table[mask.array], mask.geometry, labels)


def read_drawn(file: Path, image: Source, names: Sequence[str], labels: Sequence[Label]) -> Mask:
    """Read a mask that somebody has drawn on an image.

    Args:
        file: A label map, a segmentation of 3D Slicer, or the voxels alone, one byte each, columns first.
        image: The image.
        names: What its values mean: the first one is called 1. A segmentation of 3D Slicer says that itself.
        labels: The labels of the model that it is for: names that are among them get their values.

    Returns:
        The mask on the grid of the image, with the labels, and further ones for names that are not among them.

    Raises:
        DataError: If it cannot be read, or holds a value that has no name.
        GeometryError: If it does not lie on the image.
    """
    check_alone(file)
    grid = read_grid(image)
    drawn = _voxels(file, grid) if file.suffix == VOXELS_ONLY else read_mask(single_source(file))
    if not drawn.labels:
        drawn = Mask(drawn.array, drawn.geometry, _named(drawn, names))
    drawn = drawn.only([label.value for label in drawn.labels if label.name.lower() not in _NO_LABELS])
    return named_mask(drawn, labels).placed_on(grid)


def _voxels(file: Path, grid: Geometry) -> Mask:
    values = np.fromfile(file, np.uint8)
    if values.size != np.prod(grid.shape):
        raise DataError(f"the mask has {values.size} voxels, but the image {grid.shape}", hint="send all of its slices")
    return Mask(np.ascontiguousarray(values.reshape(grid.shape, order="F")), grid)


def _named(mask: Mask, names: Sequence[str]) -> tuple[Label, ...]:
    largest = int(mask.array.max(initial=0))
    if largest > len(names):
        raise DataError(
            f"the mask holds the value {largest}, but {len(names)} names came with it", hint="name them in label_info"
        )
    return tuple(Label(value, name) for value, name in enumerate(names, 1))
