"""Mirror images of what a network looks at, whose answers are averaged (test-time augmentation)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from volseg.config import AXES
from volseg.inference.sliding import Flip, InferFn
from volseg.inference.windows import Windows


def mirrored(run: InferFn, axes: Sequence[str]) -> InferFn:
    """Average the answers to a patch and to all its mirror images along some axes."""
    _, *images = views(axes)
    if not images:
        return run

    @torch.inference_mode()  # what a network answers in this mode can be added to only in this mode
    def average(patches: torch.Tensor) -> torch.Tensor:
        total = run(patches).float()
        for flip in images:
            dimensions = [axis + 2 for axis in flip]
            total += torch.flip(run(torch.flip(patches, dimensions)), dimensions)
        return total / (1 + len(images))

    return average


def views(axes: Sequence[str]) -> list[Flip]:
    """A volume and all its mirror images along some axes: of each, the axes R, A, S (0, 1, 2) that are reversed."""
    numbers = [AXES.index(axis) for axis in axes]
    return [tuple(axis for n, axis in enumerate(numbers) if bits >> n & 1) for bits in range(2 ** len(numbers))]


def passes(axes: Sequence[str], windows: Windows) -> int:
    """Count how often a network sees each window: once where windows take turns among the mirror images.

    Where neighbours share at least half of their voxels, several windows see each voxel. When they take turns, all
    mirror images have a say and mirroring costs nothing (benchmarks/TRAINING.md). Otherwise each window is seen in all.
    """
    images = 2 ** len(axes)
    steps = [
        (step, side)
        for starts, side in zip(windows.starts, windows.patch, strict=True)
        for step in np.diff(starts).tolist()
    ]
    share_halves = all(2 * step <= side for step, side in steps)
    return 1 if share_halves and 1 + len(steps) >= images else images


def in_turns(run: InferFn, axes: Sequence[str], windows: Windows) -> tuple[InferFn, list[Flip]]:
    """Average over mirror images: one of them in each window where windows overlap enough, else all of them.

    Args:
        run: The network.
        axes: To mirror along.
        windows: Where it looks.

    Returns:
        What to run in each window, and the views that windows take turns among.
    """
    if passes(axes, windows) == 1:
        return run, views(axes)
    return mirrored(run, axes), [()]
