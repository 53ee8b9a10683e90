"""Mirroring (test-time augmentation): average the logits over mirror images of the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from volseg.config import Config, axis_number
from volseg.inference.sliding import Flip, InferFn
from volseg.inference.windows import Windows


@dataclass(frozen=True)
class Mirroring:
    """The mirror images a network sees in addition.

    Attributes:
        axes: The mirrored axes among 0, 1, 2.
        in_turns: Whether windows may take turns among the mirror images; otherwise each is seen in all.
    """

    axes: tuple[int, ...] = ()
    in_turns: bool = True

    @classmethod
    def of(cls, config: Config) -> Mirroring:
        """Return the mirroring of a configuration."""
        axes = tuple(axis_number(axis, config.preprocessing.axes) for axis in config.inference.mirror_axes)
        return cls(axes, config.inference.mirroring == "turns")

    @property
    def views(self) -> list[Flip]:
        """The volume and all its mirror images, each as the axes that are reversed."""
        return [tuple(axis for n, axis in enumerate(self.axes) if bits >> n & 1) for bits in range(2 ** len(self.axes))]

    def passes(self, windows: Windows) -> int:
        """Count how often a network sees each window: once where windows take turns among the mirror images.

        Where neighbours share at least half of their voxels, several windows cover each voxel. When they take turns,
        all mirror images contribute and mirroring costs nothing (benchmarks/TRAINING.md). Otherwise each window is seen
        in all.
        """
        images = 2 ** len(self.axes)
        steps = [
            (step, side)
            for starts, side in zip(windows.starts, windows.patch, strict=True)
            for step in np.diff(starts).tolist()
        ]
        share_halves = all(2 * step <= side for step, side in steps)
        return 1 if self.in_turns and share_halves and 1 + len(steps) >= images else images

    def applied(self, run: InferFn, windows: Windows) -> tuple[InferFn, list[Flip]]:
        """Average over mirror images: one per window where windows take turns, else all of them.

        Args:
            run: The network.
            windows: The windows it sees.

        Returns:
            The function to run in each window, and the views that windows take turns among.
        """
        if self.passes(windows) == 1:
            return run, self.views
        return mirrored(run, self.views), [()]


def mirrored(run: InferFn, views: Sequence[Flip]) -> InferFn:
    """Average the logits of a patch and of its mirror images; the first view is the patch itself."""
    _, *images = views
    if not images:
        return run

    @torch.inference_mode()  # outputs computed in this mode can be modified only in this mode
    def average(patches: torch.Tensor) -> torch.Tensor:
        total = run(patches).float()
        for flip in images:
            dimensions = [axis + 2 for axis in flip]
            total += torch.flip(run(torch.flip(patches, dimensions)), dimensions)
        return total / len(views)

    return average
