"""Combine binary masks, one per structure, into one label map."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volseg.errors import DataError, GeometryError
from volseg.image.geometry import Geometry
from volseg.image.naming import label_called
from volseg.image.terminology import lookup
from volseg.image.volume import Label, Mask
from volseg.io.label_maps import read_mask
from volseg.io.source import FileSource, MasksSource

logger = logging.getLogger(__name__)


def read_masks(source: MasksSource, labels: Sequence[Label] = ()) -> Mask:
    """Paint the masks into one label map.

    Where masks overlap, the structure with fewer voxels is painted over the larger one, so that a lesion stays in its
    organ whatever their names; a warning states the number of voxels concerned.

    Args:
        source: The files.
        labels: The desired labels; a file that matches none of them is not read. Without labels, values are the
            positions of the names in `source.names`, from 1.

    Returns:
        The label map, on the grid of the masks.

    Raises:
        DataError: If a file is damaged or holds more than one value beside 0, or no file is named after any label.
        GeometryError: If the masks lie on different grids.
    """
    chosen = [(value, path) for value, (name, path) in _with_values(source, labels) if value is not None]
    if not chosen:
        raise DataError(
            f"no mask in {source.folder} is named after a label: there are {_some(source.names)}",
            hint="state in data.segments which name is which label",
        )
    first = read_mask(FileSource(chosen[0][1], rules=source.rules))
    found: dict[int, NDArray[np.bool_]] = {}
    for value, path in chosen:
        where = _read_binary(FileSource(path, rules=source.rules), first.geometry)
        found[value] = found[value] | where if value in found else where
    return Mask(_painted(found, source), first.geometry, tuple(labels))


def label_of_file(name: str, labels: Sequence[Label]) -> Label | None:
    """Return the label that a file or an entity is named after: by its own name, an alias, or the same structure.

    Case and separators do not matter: "Kidney-left" is kidney_left.
    """
    meant = label_called(name, labels) or label_called(name.replace("-", "_"), labels)
    structure = lookup(name)
    if meant or structure is None:
        return meant
    return next((label for label in labels if structure in (label.structure, lookup(label.name))), None)


def _with_values(source: MasksSource, labels: Sequence[Label]) -> list[tuple[int | None, tuple[str, Path]]]:
    if not labels:
        return list(enumerate(source.masks, start=1))
    meant = [label_of_file(name, labels) for name in source.names]
    return [(label.value if label else None, mask) for label, mask in zip(meant, source.masks, strict=True)]


def _read_binary(source: FileSource, geometry: Geometry) -> NDArray[np.bool_]:
    """Return the marked voxels of a mask, in the storage order of the first one."""
    mask = read_mask(source)
    values = [value for value in np.unique(mask.array).tolist() if value]
    if len(values) > 1:
        raise DataError(
            f"{source} is not a mask of one structure: it holds the values {', '.join(map(str, values[:8]))}",
            hint="call a label map of several structures so, ..._dseg in BIDS and ..._seg elsewhere, and let it be the "
            "only reference of its case",
        )
    try:
        return mask.on(geometry).array > 0
    except GeometryError as error:
        raise GeometryError(
            f"{source} lies on a different grid than the masks beside it: {error}", hint=error.hint
        ) from error


def _painted(found: dict[int, NDArray[np.bool_]], source: MasksSource) -> NDArray[np.unsignedinteger]:
    sizes = {value: int(np.count_nonzero(where)) for value, where in found.items()}
    shape = next(iter(found.values())).shape
    array = np.zeros(shape, np.uint8 if max(found) <= 255 else np.uint16)
    for value in sorted(found, key=lambda value: (-sizes[value], value)):
        array[found[value]] = value
    if twice := sum(sizes.values()) - int(np.count_nonzero(array)):
        logger.warning("%s: %d voxels are marked more than once; the smaller structure is used", source, twice)
    return array


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + " ..." * (len(names) > 8)
