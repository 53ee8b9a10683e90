"""Sampling of training patches: their positions and their voxels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

IntTriple = tuple[int, int, int]

#: Most locations per label to draw from, and most locations of all labels as a share of the voxels of a volume: at
#: four bytes each they take at most a tenth of the memory of a one-channel image.
_LOCATIONS_PER_LABEL, _LOCATIONS_SHARE = 10_000, 0.1


def find_locations(reference: NDArray[np.unsignedinteger], seed: int) -> dict[int, NDArray[np.uint32]]:
    """List voxels of every label; if there are many, a uniform sample of them.

    Args:
        reference: (R, A, S) label values.
        seed: Seed of the sample.

    Returns:
        Label value -> (N,) indices into `reference.ravel()`, ascending.
    """
    foreground = np.flatnonzero(reference).astype(np.uint32)
    values = reference.ravel()[foreground]
    labels = np.unique(values)
    limit = max(1, min(_LOCATIONS_PER_LABEL, int(_LOCATIONS_SHARE * reference.size) // max(1, len(labels))))
    rng = np.random.default_rng(seed)
    locations = {}
    for value in labels:
        found = foreground[values == value]
        locations[int(value)] = found if len(found) <= limit else np.sort(rng.choice(found, limit, replace=False))
    return locations


def draw_corner(
    shape: IntTriple,
    patch: IntTriple,
    locations: Mapping[int, NDArray[np.uint32]],
    foreground: float,
    rng: np.random.Generator,
) -> IntTriple:
    """Draw the position of a training patch.

    Args:
        shape: Size of the volume in voxels.
        patch: Size of the patch in voxels.
        locations: Voxels of each label, from `find_locations`.
        foreground: Probability that the patch is centred on a labelled voxel, with each label equally likely.
        rng: Random number generator.

    Returns:
        Index of the first voxel. A patch stays within the volume; along an axis where the patch is larger, the volume
        is centred in it and the index is negative.
    """
    if locations and rng.random() < foreground:
        voxels = locations[int(rng.choice(sorted(locations)))]
        center = np.unravel_index(voxels[rng.integers(len(voxels))], shape)
        corner = np.asarray(center) - np.asarray(patch) // 2
    else:
        corner = rng.integers(0, np.maximum(np.asarray(shape) - patch, 0) + 1)
    room = np.asarray(shape) - patch
    r, a, s = np.where(room >= 0, np.clip(corner, 0, np.maximum(room, 0)), room // 2).tolist()
    return r, a, s


def cut(array: NDArray[np.generic], corner: IntTriple, patch: IntTriple, outside: int = 0) -> NDArray[np.generic]:
    """Cut a patch out of the last three axes, padded where it reaches beyond the array.

    Args:
        array: (..., R, A, S), possibly memory-mapped: only the patch is read.
        corner: Index of the first voxel; it may be negative.
        patch: Size of the patch in voxels.
        outside: Padding value beyond the array.

    Returns:
        (..., *patch), a copy.
    """
    result = np.full((*array.shape[:-3], *patch), outside, dtype=array.dtype)
    low = [max(begin, 0) for begin in corner]
    high = [min(begin + length, size) for begin, length, size in zip(corner, patch, array.shape[-3:], strict=True)]
    r, a, s = (slice(*ends) for ends in zip(low, high, strict=True))
    to_r, to_a, to_s = (slice(*ends) for ends in zip(np.subtract(low, corner), np.subtract(high, corner), strict=True))
    result[..., to_r, to_a, to_s] = array[..., r, a, s]
    return result
