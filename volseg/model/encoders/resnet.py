"""Residual networks of 18, 34 and 50 layers; layers are named as in torchvision and timm.

He et al. 2016, "Deep Residual Learning for Image Recognition", arXiv 1512.03385, table 1; the stride of a bottleneck
lies in its 3 x 3 convolution, as torchvision has it.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from volseg.model.encoders.encoder import Encoder, scaled, stride_and_dilation
from volseg.model.layers import Dimensions, layers_of

#: Blocks of each stage, and the expansion factor of a block.
_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
_FEATURES = 64


class ResNet(Encoder):
    """ResNet: a stem of a quarter of the resolution, and four stages of residual blocks.

    Args:
        depth: Layers.
        channels: Of the image.
        width: Multiplier of the standard number of features.
        limit: Largest total stride.
        dimensions: 2 or 3.
    """

    def __init__(
        self, depth: Literal[18, 34, 50], channels: int, width: float, *, limit: int, dimensions: Dimensions
    ) -> None:
        super().__init__()
        layers = layers_of(dimensions)
        before = scaled(_FEATURES, width)
        self.conv1 = layers.convolution(channels, before, 7, stride=2, padding=3, bias=False)
        self.bn1 = layers.batch_norm(before)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = layers.max_pool(3, 2, padding=1)
        widths, strides, so_far, dilation = [before], [2], 4, 1
        for number, count in enumerate(_BLOCKS[depth]):
            features = scaled(_FEATURES * 2**number, width)
            earlier = dilation
            stride, dilation, so_far = stride_and_dilation(so_far, dilation, 1 if number == 0 else 2, limit)
            stage = nn.Sequential()
            for n in range(count):
                # The first block of a stage still has the dilation of the previous stage.
                step, apart = (stride, earlier) if n == 0 else (1, dilation)
                block = _Block(before, features, step, (apart, dilation), bottleneck=depth == 50, dimensions=dimensions)
                before = block.outputs
                stage.append(block)
            self.add_module(f"layer{number + 1}", stage)
            widths.append(before)
            strides.append(so_far)
        self.widths, self.strides = tuple(widths), tuple(strides)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the feature maps of (B, channels, ...), from the finest, which is half as fine as the image."""
        features = self.relu(self.bn1(self.conv1(image)))
        maps = [features]
        features = self.maxpool(features)
        for number in range(1, 5):
            features = self.get_submodule(f"layer{number}")(features)
            maps.append(features)
        return maps


class _Block(nn.Module):
    """Two convolutions, or a bottleneck of three, whose result is added to the input."""

    def __init__(
        self,
        inputs: int,
        features: int,
        stride: int,
        dilations: tuple[int, int],
        *,
        bottleneck: bool,
        dimensions: Dimensions,
    ) -> None:
        super().__init__()
        layers = layers_of(dimensions)
        first, second = dilations
        self.outputs = 4 * features if bottleneck else features
        if bottleneck:
            self.conv1 = layers.convolution(inputs, features, 1, bias=False)
            self.conv2 = layers.convolution(features, features, 3, stride, first, first, bias=False)
            self.conv3 = layers.convolution(features, self.outputs, 1, bias=False)
            self.bn3 = layers.batch_norm(self.outputs)
        else:
            self.conv1 = layers.convolution(inputs, features, 3, stride, first, first, bias=False)
            self.conv2 = layers.convolution(features, features, 3, padding=second, dilation=second, bias=False)
        self.bn1, self.bn2 = layers.batch_norm(features), layers.batch_norm(features)
        self.bottleneck = bottleneck
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential()
        if stride != 1 or inputs != self.outputs:
            self.downsample.append(layers.convolution(inputs, self.outputs, 1, stride, bias=False))
            self.downsample.append(layers.batch_norm(self.outputs))

    def forward(self, features: Tensor) -> Tensor:
        result = self.relu(self.bn1(self.conv1(features)))
        result = self.bn2(self.conv2(result))
        if self.bottleneck:
            result = self.bn3(self.conv3(self.relu(result)))
        added: Tensor = self.relu(result + self.downsample(features))
        return added
