"""PyTorch's layers for planes and for volumes, under common names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

Dimensions = Literal[2, 3]


@dataclass(frozen=True)
class Layers:
    """The classes of layers for one number of dimensions.

    Attributes:
        convolution: Convolution.
        transposed: Transposed convolution.
        instance_norm: Instance normalisation.
        batch_norm: Batch normalisation.
        max_pool: Max pooling.
        mean: Adaptive average pooling to a given size.
        interpolation: Name of linear interpolation.
    """

    convolution: type[nn.Conv2d | nn.Conv3d]
    transposed: type[nn.ConvTranspose2d | nn.ConvTranspose3d]
    instance_norm: type[nn.InstanceNorm2d | nn.InstanceNorm3d]
    batch_norm: type[nn.BatchNorm2d | nn.BatchNorm3d]
    max_pool: type[nn.MaxPool2d | nn.MaxPool3d]
    mean: type[nn.AdaptiveAvgPool2d | nn.AdaptiveAvgPool3d]
    interpolation: Literal["bilinear", "trilinear"]


_PLANES = Layers(
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.InstanceNorm2d,
    nn.BatchNorm2d,
    nn.MaxPool2d,
    nn.AdaptiveAvgPool2d,
    "bilinear",
)
_VOLUMES = Layers(
    nn.Conv3d,
    nn.ConvTranspose3d,
    nn.InstanceNorm3d,
    nn.BatchNorm3d,
    nn.MaxPool3d,
    nn.AdaptiveAvgPool3d,
    "trilinear",
)


def layers_of(dimensions: Dimensions) -> Layers:
    """Return the layers for planes (2) or volumes (3)."""
    return _PLANES if dimensions == 2 else _VOLUMES
