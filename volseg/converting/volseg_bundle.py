"""Components of a bundle beyond MONAI's own; independent of volseg."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.utils import affine_to_spacing
from monai.inferers import SlidingWindowInferer, sliding_window_inference
from monai.transforms import InvertibleTransform, MapTransform, SpatialResample


class SpacingAboutCentred(MapTransform, InvertibleTransform):  # type: ignore[misc]  # MONAI ships no types
    """Resample to a voxel size, about the centre of the volume.

    Args:
        keys: The images.
        pixdim: Voxel size along each axis; None keeps it as it is.
        allow_missing_keys: Whether keys may be missing.
    """

    def __init__(self, keys: KeysCollection, pixdim: Sequence[float | None], allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.pixdim = pixdim
        self.resample = SpatialResample(mode="bilinear", padding_mode="border", dtype=np.float64)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample each image (C, I, J, K)."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            image = sample[key]
            affine = np.asarray(image.affine, dtype=np.float64)
            spacing, shape = affine_to_spacing(affine), np.array(image.shape[1:])
            wanted = np.array([own if size is None else size for size, own in zip(self.pixdim, spacing, strict=True)])
            ratio = wanted / spacing
            new = np.maximum(1, np.round(shape / ratio)).astype(int)
            index = np.diag([*ratio, 1.0])
            index[:3, 3] = (shape - 1) / 2 - (new - 1) / 2 * ratio
            sample[key] = self.resample(image, torch.from_numpy(affine @ index), new.tolist())
        return sample

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample back."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            sample[key] = self.resample.inverse(sample[key])
        return sample


class PaintRegionsd(MapTransform):  # type: ignore[misc]
    """Turn probabilities of regions that may overlap into one label map.

    Args:
        keys: The probabilities, (regions, ...).
        values: Label value of each region.
        thresholds: A voxel belongs to a region if its probability exceeds this.
        order: Region numbers, in the order in which they are painted.
        allow_missing_keys: Whether keys may be missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        values: Sequence[int],
        thresholds: Sequence[float],
        order: Sequence[int],
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.values, self.thresholds, self.order = values, thresholds, order

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Paint the regions of a sample."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            likely = sample[key]
            painted = torch.zeros_like(likely[:1])
            for n in self.order:
                painted[likely[n : n + 1] > self.thresholds[n]] = self.values[n]
            sample[key] = painted
        return sample


class MirroredSlidingWindowInferer(SlidingWindowInferer):  # type: ignore[misc]
    """A sliding window that averages over mirror images.

    Args:
        mirror_axes: The mirrored axes among 0, 1, 2.
        in_turns: Whether windows that share halves take turns among the mirror images; otherwise each is seen in all.
        **told: Arguments of the sliding window.
    """

    def __init__(self, *, mirror_axes: Sequence[int], in_turns: bool, **told: Any) -> None:
        super().__init__(**told, with_coord=True)
        self.in_turns = in_turns
        self.views = [
            [2 + axis for n, axis in enumerate(mirror_axes) if bits >> n & 1] for bits in range(2 ** len(mirror_axes))
        ]

    def __call__(self, inputs: torch.Tensor, network: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Run the network: (1, C, ...) -> (1, outputs, ...)."""
        starts = [
            _starts(max(size, side), side, self.overlap)
            for size, side in zip(inputs.shape[2:], self.roi_size, strict=True)
        ]
        steps = [(b - a, side) for along, side in zip(starts, self.roi_size, strict=True) for a, b in pairwise(along)]
        share_halves = all(2 * step <= side for step, side in steps)
        turns = self.in_turns and share_halves and 1 + len(steps) >= len(self.views)

        def look(patches: torch.Tensor, coordinates: Sequence[Sequence[slice]]) -> torch.Tensor:
            answers = []
            for patch, (_, _, *box) in zip(torch.split(patches, 1), coordinates, strict=True):
                place = sum(along.index(side.start) for along, side in zip(starts, box, strict=True))
                views = [self.views[place % len(self.views)]] if turns else self.views
                seen = [torch.flip(network(torch.flip(patch, view)), view) for view in views]
                answers.append(torch.stack(seen).mean(dim=0))
            return torch.cat(answers)

        logits: torch.Tensor = sliding_window_inference(
            inputs,
            self.roi_size,
            self.sw_batch_size,
            look,
            self.overlap,
            self.mode,
            padding_mode=self.padding_mode,
            device=self.device,
            sw_device=self.sw_device,
            with_coord=True,
        )
        return logits


def _starts(size: int, side: int, overlap: float) -> list[int]:
    last = size - side
    return [*range(0, last, max(1, int(side * (1 - overlap)))), last]
