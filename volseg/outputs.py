"""What the outputs of a network mean: labels exclude each other, regions may overlap.

With labels there is one output for background and one per label, by value; the largest wins. With regions there is one
output per region, and a voxel belongs to it when that is more likely than not.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from volseg.config import DataConfig


def encode(reference: torch.Tensor, data: DataConfig) -> torch.Tensor:
    """Label values -> what the outputs should be.

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


def activate(logits: torch.Tensor, data: DataConfig) -> torch.Tensor:
    """Logits (outputs, ...) -> probabilities of the same shape: softmax of labels, sigmoid of regions."""
    return torch.sigmoid(logits) if data.regions else torch.softmax(logits, dim=0)


def decide(probabilities: torch.Tensor, data: DataConfig) -> torch.Tensor:
    """Probabilities -> what belongs to each label or region, background left out.

    Args:
        probabilities: (outputs, ...) float.
        data: Labels and regions.

    Returns:
        (labels or regions, ...) bool, in the order of `data.output_labels`.
    """
    if data.regions:
        return probabilities > 0.5
    winner = probabilities.argmax(dim=0)
    return torch.stack([winner == output for output in range(1, data.outputs)])


def paint(probabilities: torch.Tensor, data: DataConfig) -> NDArray[np.unsignedinteger]:
    """Probabilities -> mask values.

    Args:
        probabilities: (outputs, ...) float.
        data: Labels and regions.

    Returns:
        (...) uint8 or uint16; of overlapping regions the last one listed shows.
    """
    values = [label.value for label in data.output_labels]
    dtype = mask_dtype(data)
    if not data.regions:
        return np.array([0, *values], dtype=dtype)[probabilities.argmax(dim=0).numpy()]
    mask = np.zeros(probabilities.shape[1:], dtype=dtype)
    for inside, value in zip((probabilities > 0.5).numpy(), values, strict=True):
        mask[inside] = value
    return mask


def mask_dtype(data: DataConfig) -> type[np.unsignedinteger]:
    """The smallest type that holds every value of a mask."""
    return np.uint8 if max(label.value for label in data.output_labels) <= 255 else np.uint16


def _values(data: DataConfig) -> list[int]:
    return [label.value for label in data.reference_labels]
