"""Find tissue, so that nothing is computed where there is only air."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volseg.config import CtNormalization, Normalization, Window
from volseg.image.box import Box, Triple

#: Voxels along each side of the blocks whose mean is looked at: noise averages out, and thin things still show.
_BLOCK = 4
#: Percentile of the block means: the bright end of the range if the configuration states none.
_BRIGHT_PERCENTILE = 99


@dataclass(frozen=True, eq=False)
class Tissue:
    """A coarse map of everything that is not air.

    Attributes:
        blocks: (R, A, S) whether a block of the volume contains tissue.
        shape: Voxels of the volume.
    """

    blocks: NDArray[np.bool_]
    shape: Triple

    def box(self, shape: Triple) -> Box | None:
        """Return the box around all tissue on a grid of `shape` voxels over the same extent; None if there is none."""
        blocks = Box.around(self.blocks)
        if blocks is None:
            return None
        sides = []
        for side, size, own in zip(blocks, shape, self.shape, strict=True):
            scale = _BLOCK * size / own
            sides.append(slice(int(side.start * scale), min(size, math.ceil(side.stop * scale))))
        return Box(*sides)

    def within(self, box: Box, shape: Triple) -> bool:
        """Return whether there is tissue in a box of that grid."""
        scales = np.asarray(self.shape) / shape / _BLOCK
        blocks = Box(
            *(
                slice(int(side.start * scale), int(np.ceil(side.stop * scale)))
                for side, scale in zip(box, scales, strict=True)
            )
        )
        return bool(self.blocks[blocks].any())


def find_tissue(array: NDArray[np.float32], normalizations: Sequence[Normalization], share: float) -> Tissue:
    """Separate tissue from air.

    Air is no brighter than the lower end of the intensities that the network can distinguish, plus a share of their
    range: the window of a fixed normalisation, else the range of the volume itself.

    Args:
        array: (C, R, A, S) as read, in any storage order.
        normalizations: Of each channel.
        share: Of the range; blocks of 4 x 4 x 4 voxels whose mean is no further above its lower end are air.

    Returns:
        The map. A block is tissue if any channel says so, or if it touches such a block.
    """
    shape = array.shape[1:]
    blocks = np.zeros([-(-size // _BLOCK) for size in shape], dtype=bool)
    for channel, normalization in zip(array, normalizations, strict=True):
        match normalization:
            case CtNormalization(low=low, high=high) | Window(low=low, high=high):
                means = _block_means(channel, (low, high))
            case _:
                means = _block_means(channel, (-np.inf, np.inf))
                low, high = float(means.min()), float(np.percentile(means, _BRIGHT_PERCENTILE))
        blocks |= means > low + share * (high - low)
    return Tissue(_touching(blocks), (shape[0], shape[1], shape[2]))


def _block_means(array: NDArray[np.float32], limits: tuple[float, float]) -> NDArray[np.float32]:
    """Compute means of blocks, clipped to limits; the last blocks of an axis hold the remaining voxels."""
    axes = sorted(range(3), key=lambda axis: -abs(array.strides[axis]))  # sums run over long contiguous rows
    slabs = np.moveaxis(array, axes[0], 0)
    means = [np.clip(slabs[begin : begin + _BLOCK], *limits).mean(axis=0) for begin in range(0, slabs.shape[0], _BLOCK)]
    result = np.moveaxis(np.stack(means), 0, axes[0])
    for axis in axes[1:]:
        starts = np.arange(0, result.shape[axis], _BLOCK)
        counts = np.diff([*starts, result.shape[axis]]).astype(np.float32)
        counts = counts.reshape([-1 if n == axis else 1 for n in range(3)])
        result = np.add.reduceat(result, starts, axis=axis) / counts
    return result


def _touching(blocks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Dilate the blocks by their 26 neighbours."""
    for axis in range(3):
        grown = np.moveaxis(blocks.copy(), axis, 0)
        source = np.moveaxis(blocks, axis, 0)
        grown[1:] |= source[:-1]
        grown[:-1] |= source[1:]
        blocks = np.moveaxis(grown, 0, axis)
    return blocks
