"""Meaning of a network's outputs: labels are mutually exclusive, regions may overlap.

With labels there is one output for background and one per label, by value; the largest wins. With regions there is one
output per region, and a voxel belongs to it when the logit is above 0: the network's output is first lowered by the
logit of the region's threshold (`cutoffs`), which is 0 for a threshold of one half.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray

from volseg.config import DataConfig


def encode(reference: torch.Tensor, data: DataConfig) -> torch.Tensor:
    """Encode label values as target outputs.

    Args:
        reference: (B, 1, ...) label values.
        data: Labels and regions.

    Returns:
        (B, outputs, ...) bool.
    """
    if data.regions:
        sets = [region.labels for region in data.regions]
        return torch.cat([torch.isin(reference, torch.tensor(values).to(reference)) for values in sets], dim=1)
    return torch.cat([reference == value for value in (0, *_values(data))], dim=1)


def unknown_outputs(annotated: Collection[str] | None, data: DataConfig) -> tuple[bool, ...]:
    """Return the outputs for which a partially annotated reference has no information.

    Args:
        annotated: Names of the annotated labels; None if all were.
        data: Labels and regions.

    Returns:
        One entry per output. Background is always known: it is then everything outside the annotated labels.
    """
    if annotated is None:
        return (False,) * data.outputs
    known = {data.labels[name] for name in annotated}
    parts = [set(region.labels) for region in data.regions] or [set(), *({value} for value in _values(data))]
    return tuple(not part <= known for part in parts)


def cutoffs(data: DataConfig) -> tuple[float, ...]:
    """Return the logit above which a voxel belongs to each region, ln(p / (1 - p)) of its threshold; 0 for labels."""
    if not data.regions:
        return (0.0,) * data.outputs
    return tuple(math.log(p / (1 - p)) for p in (region.threshold or 0.5 for region in data.regions))


def decide(logits: torch.Tensor, data: DataConfig) -> torch.Tensor:
    """Turn logits into a mask for each label or region, background left out.

    Args:
        logits: (outputs, ...) float.
        data: Labels and regions.

    Returns:
        (labels or regions, ...) bool, in the order of `data.output_labels`.
    """
    if data.regions:
        return logits > 0
    winner = logits.argmax(dim=0)
    return torch.stack([winner == output for output in range(1, data.outputs)])


def winners(logits: torch.Tensor, data: DataConfig) -> torch.Tensor:
    """Decide the label of each voxel.

    Args:
        logits: (..., outputs) float.
        data: Labels and regions.

    Returns:
        (...) uint8, or int16 if there are more: the position of the winner in `data.output_labels`, counted from 1, or
        0 for background. Of overlapping regions the one that is painted last wins. The result does not change if logits
        are multiplied by a positive number.
    """
    dtype = torch.uint8 if len(data.output_labels) <= 255 else torch.int16
    if not data.regions:
        return logits.argmax(dim=-1).to(dtype)
    numbers = torch.zeros(logits.shape[:-1], dtype=dtype, device=logits.device)
    for output in data.paint_order:
        numbers.masked_fill_(logits[..., output] > 0, output + 1)
    return numbers


def probabilities(logits: torch.Tensor, data: DataConfig) -> torch.Tensor:
    """Turn logits (..., outputs) into (..., labels or regions) probabilities of `data.output_labels`, 0 to 1."""
    return torch.sigmoid(logits) if data.regions else torch.softmax(logits, dim=-1)[..., 1:]


def label_values(data: DataConfig) -> NDArray[np.unsignedinteger]:
    """Return the (1 + labels,) mask values of background and of each of `data.output_labels`, in the smallest dtype."""
    return np.array([0, *(label.value for label in data.output_labels)], dtype=mask_dtype(data))


def mask_dtype(data: DataConfig) -> type[np.unsignedinteger]:
    """Return the smallest dtype that holds every value of a mask."""
    return np.uint8 if max(label.value for label in data.output_labels) <= 255 else np.uint16


def _values(data: DataConfig) -> list[int]:
    return [label.value for label in data.learned_labels]
