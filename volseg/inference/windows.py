"""Windows: boxes of one patch each, laid over a volume so that neighbours overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from volseg.config import Config, Padding, Steps, Weights
from volseg.image.box import Box, Triple

#: Standard deviation of the Gaussian that weighs a window's voxels, as a share of its side (nnU-Net, Isensee et al.).
_SIGMA = 0.125
#: Peak of nnU-Net's Gaussian, which is float16: this determines its smallest number, used beyond the cut-off.
_LARGEST_WEIGHT = 10.0


@dataclass(frozen=True)
class SlidingWindow:
    """The window that slides over a volume.

    Attributes:
        patch: Its voxels.
        overlap: Smallest share of it that neighbours have in common.
        steps: How windows are spaced: by fixed or even steps.
        weights: How its voxels are weighted.
        padding: What it sees beyond the end of a shorter volume.
    """

    patch: Triple
    overlap: float = 0.5
    steps: Steps = "fixed"
    weights: Weights = "gaussian"
    padding: Padding = "zeros"

    @classmethod
    def of(cls, config: Config) -> SlidingWindow:
        """Return the window of a configuration."""
        inference = config.inference
        return cls(config.window, inference.overlap, inference.steps, inference.weights, inference.padding)


@dataclass(frozen=True, eq=False)
class Windows:
    """Boxes over a volume: all combinations of the starts along each axis, except for unwanted ones.

    Attributes:
        shape: Voxels of the volume along R, A, S.
        window: The window; where the volume is shorter, windows reach beyond both of its ends alike.
        starts: Per axis the first voxels of the windows, ascending; negative where windows reach beyond the volume.
        wanted: (len(starts[0]), len(starts[1]), len(starts[2])) which of them are computed.
    """

    shape: Triple
    window: SlidingWindow
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    wanted: NDArray[np.bool_]

    @property
    def patch(self) -> Triple:
        """Voxels of a window."""
        return self.window.patch

    @property
    def count(self) -> int:
        """The number of windows that are computed."""
        return int(self.wanted.sum())

    def box(self, place: Triple) -> Box:
        """Return the voxels of one window, given by its number along each axis, that lie within the volume."""
        return Box(
            *(
                slice(max(starts[n], 0), min(starts[n] + side, size))
                for starts, n, side, size in zip(self.starts, place, self.patch, self.shape, strict=True)
            )
        )

    def corner(self, place: Triple) -> Triple:
        """Return the first voxel of a window, which may lie before the volume's."""
        r, a, s = (starts[n] for starts, n in zip(self.starts, place, strict=True))
        return r, a, s

    def places(self) -> list[Triple]:
        """Return the windows that are computed, by their numbers along each axis."""
        r, a, s = (range(len(starts)) for starts in self.starts)
        return [place for place in product(r, a, s) if self.wanted[place]]

    def in_row(self, axis: int, row: int) -> list[Triple]:
        """Return those of them that begin at one position along an axis."""
        return [place for place in self.places() if place[axis] == row]

    def next_row(self, axis: int, row: int) -> int:
        """Return where the next windows along an axis begin; the end of the last ones if there are none."""
        starts = self.starts[axis]
        if row + 1 < len(starts):
            return max(starts[row + 1], 0)
        return min(starts[row] + self.patch[axis], self.shape[axis])

    @property
    def covered(self) -> Box:
        """The box from the first voxel of the first windows to the last of the last ones."""
        return Box(
            *(
                slice(max(starts[0], 0), min(starts[-1] + side, size))
                for starts, side, size in zip(self.starts, self.patch, self.shape, strict=True)
            )
        )


def lay(shape: Triple, window: SlidingWindow, box: Box | None = None) -> Windows:
    """Place the fewest windows that cover a box with at least the configured overlap.

    Args:
        shape: Voxels of the volume.
        window: The window.
        box: The box to cover; by default the whole volume. Then, with fixed steps, the windows are where MONAI's
            `sliding_window_inference` has them; with even ones, where nnU-Net has them.

    Returns:
        The windows, all wanted.
    """
    r, a, s = (
        _starts(side.start, side.stop, size, length, window.overlap, window.steps)
        for side, size, length in zip(box or Box.whole(shape), shape, window.patch, strict=True)
    )
    return Windows(shape, window, (r, a, s), np.ones((len(r), len(a), len(s)), dtype=bool))


def wide_window(patch: Triple, shapes: Sequence[Sequence[int]]) -> Triple | None:
    """Return a window of twice a patch along each axis where volumes are long enough; None if there is none.

    Larger windows see more context, and fewer of them cover a volume. Where a volume is only a little longer than a
    patch they do harm: its border tells a network where it is (benchmarks/TRAINING.md).

    Args:
        patch: The patch the network was trained with.
        shapes: Voxels of some volumes; their median decides.
    """
    lengths = np.median(np.asarray(shapes), axis=0)
    r, a, s = (2 * side if length >= 2 * side else side for side, length in zip(patch, lengths, strict=True))
    return None if (r, a, s) == patch else (r, a, s)


@cache
def importance(patch: Triple, weights: Weights = "gaussian") -> torch.Tensor:
    """Return (R, A, S) float32 weights of a window's voxels, by default a Gaussian about its middle.

    They equal MONAI's or nnU-Net's, so that results agree.
    """
    match weights:
        case "gaussian":
            from monai.data.utils import compute_importance_map  # MONAI takes seconds to import

            found: torch.Tensor = compute_importance_map(patch, mode="gaussian", sigma_scale=_SIGMA)
            return found.reshape(patch)
        case "cut_gaussian":
            return _cut_gaussian(patch)
        case "constant":
            return torch.ones(patch)


def _cut_gaussian(patch: Triple) -> torch.Tensor:
    """Return a Gaussian about the voxel behind the middle, cut off at four sigma; beyond, its least nonzero value."""
    from scipy import ndimage

    gaussian = np.ones((1, 1, 1))
    for axis, side in enumerate(patch):
        impulse = np.zeros(side)
        impulse[side // 2] = 1.0
        line = ndimage.gaussian_filter1d(impulse, side * _SIGMA, mode="constant")
        gaussian = gaussian * line.reshape([-1 if n == axis else 1 for n in range(3)])
    weights = torch.from_numpy(gaussian / gaussian.max() * _LARGEST_WEIGHT).to(torch.float16).float()
    weights[weights == 0] = weights[weights > 0].min()
    return weights


def _starts(begin: int, end: int, size: int, length: int, overlap: float, steps: Steps) -> tuple[int, ...]:
    if size <= length:
        return (-((length - size) // 2),)
    # A box shorter than a window is seen with its surroundings.
    begin = min(begin, max(0, (begin + end - length) // 2)) if end - begin < length else begin
    begin = min(begin, size - length)
    last = max(begin, min(end, size) - length)
    match steps:
        case "fixed":
            return (*range(begin, last, max(1, int(length * (1 - overlap)))), last)
        case "even":
            count = math.ceil((last - begin) / (length * (1 - overlap)))
            return tuple(dict.fromkeys(round(begin + (last - begin) / max(count, 1) * n) for n in range(count + 1)))
