"""EfficientNet B0, and its lite variant without squeeze and excitation.

Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", arXiv 1905.11946, table 1.
The lite variant has ReLU6 and no squeeze and excitation. Weights trained in TensorFlow, such as the lite variant's,
need its padding and its epsilon of batch normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from volseg.model.encoders.encoder import Encoder, scaled, stride_and_dilation
from volseg.model.layers import Dimensions, Layers, layers_of

#: For each stage: kernel, stride, expansion factor, features, blocks.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_STEM_FEATURES = 32
#: Features of squeeze and excitation, as a share of a block's input features.
_SQUEEZED = 0.25
_TENSORFLOW_EPS, _EPS = 1e-3, 1e-5


@dataclass(frozen=True)
class Variant:
    """The EfficientNet variant.

    Attributes:
        lite: Whether it is the lite one.
        tensorflow: Whether it computes as TensorFlow does.
    """

    lite: bool
    tensorflow: bool


class EfficientNet(Encoder):
    """EfficientNet: a stem of half the resolution, and seven stages of inverted bottlenecks.

    Args:
        channels: Of the image.
        width: Multiplier of the standard number of features.
        variant: The variant.
        limit: Largest total stride.
        dimensions: 2 or 3.
    """

    def __init__(self, channels: int, width: float, variant: Variant, *, limit: int, dimensions: Dimensions) -> None:
        super().__init__()
        layers = layers_of(dimensions)
        before = scaled(_STEM_FEATURES, width)
        self.stem = _Layer(layers, variant, channels, before, 3, 2)
        self.stages = nn.ModuleList()
        ends, so_far, dilation = [], 2, 1
        for kernel, wanted, widening, usual, count in STAGES:
            features = scaled(usual, width)
            earlier = dilation
            stride, dilation, so_far = stride_and_dilation(so_far, dilation, wanted, limit)
            stage = nn.Sequential()
            for n in range(count):
                # The first block of a stage still has the dilation of the previous stage.
                step, apart = (stride, earlier) if n == 0 else (1, dilation)
                stage.append(_Block(layers, variant, before, features, widening, kernel, step, apart))
                before = features
            self.stages.append(stage)
            ends.append((so_far, features))
        # The last of the stages with one resolution gives a feature map.
        last = [number for number, (one, other) in enumerate(pairwise([*ends, (0, 0)])) if one[0] != other[0]]
        self._last = tuple(last)
        self.widths = tuple(ends[number][1] for number in last)
        self.strides = tuple(ends[number][0] for number in last)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the feature maps of (B, channels, ...), from the finest, which is half as fine as the image."""
        features, maps = self.stem(image), []
        for number, stage in enumerate(self.stages):
            features = stage(features)
            if number in self._last:
                maps.append(features)
        return maps


class _Layer(nn.Module):
    """Convolution, normalisation and, unless it is linear, activation."""

    def __init__(  # noqa: PLR0913  as of the convolution itself
        self,
        layers: Layers,
        variant: Variant,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        *,
        linear: bool = False,
    ) -> None:
        super().__init__()
        # TensorFlow pads the side that is further from 0 more where the sum is odd (its padding "SAME").
        reach = dilation * (kernel - 1)
        before, after = (reach - stride + 1) // 2, (reach - stride + 2) // 2
        uneven = variant.tensorflow and before != after
        own = 0 if uneven else reach // 2
        self.conv = layers.convolution(inputs, outputs, kernel, stride, own, dilation, groups, bias=False)
        self.norm = layers.batch_norm(outputs, eps=_TENSORFLOW_EPS if variant.tensorflow else _EPS)
        self.padding = (before, after) * (self.conv.weight.dim() - 2) if uneven else ()
        activation = nn.ReLU6(inplace=True) if variant.lite else nn.SiLU(inplace=True)
        self.activation = nn.Identity() if linear else activation

    def forward(self, features: Tensor) -> Tensor:
        padded = functional.pad(features, self.padding) if self.padding else features
        result: Tensor = self.activation(self.norm(self.conv(padded)))
        return result


class _Block(nn.Module):
    """An inverted bottleneck: expansion, depthwise convolution, squeeze and excitation, and projection."""

    def __init__(
        self,
        layers: Layers,
        variant: Variant,
        inputs: int,
        outputs: int,
        widening: int,
        kernel: int,
        stride: int,
        dilation: int,
    ) -> None:
        super().__init__()
        inside = inputs * widening
        self.expand: nn.Module = nn.Identity()
        if widening > 1:
            self.expand = _Layer(layers, variant, inputs, inside, 1)
        self.depthwise = _Layer(layers, variant, inside, inside, kernel, stride, dilation, inside)
        self.squeeze: nn.Module = (
            nn.Identity() if variant.lite else _Squeeze(layers, inside, max(1, int(inputs * _SQUEEZED)))
        )
        self.project = _Layer(layers, variant, inside, outputs, 1, linear=True)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.project(self.squeeze(self.depthwise(self.expand(features))))
        return result + features if self.adds else result


class _Squeeze(nn.Module):
    """Squeeze and excitation (Hu et al. 2018): each channel is scaled by a factor computed from the means of all."""

    def __init__(self, layers: Layers, features: int, squeezed: int) -> None:
        super().__init__()
        self.mean = layers.mean(1)
        self.reduce = layers.convolution(features, squeezed, 1)
        self.expand = layers.convolution(squeezed, features, 1)

    def forward(self, features: Tensor) -> Tensor:
        shares = self.expand(functional.silu(self.reduce(self.mean(features))))
        return features * torch.sigmoid(shares)
