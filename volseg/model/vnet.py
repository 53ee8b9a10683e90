"""V-Net: as in the paper, and as in MONAI with a configurable number of features.

    image -> five stages down, each at half the resolution of the one before -> four stages up -> logits

A stage consists of convolutions of 5 x 5 x 5 with a residual connection (Milletari, Navab and Ahmadi 2016, "V-Net:
Fully Convolutional Neural Networks for Volumetric Medical Image Segmentation", arXiv 1606.04797, figure 2 and table 1).
"""

from __future__ import annotations

import torch
from monai.networks.nets import VNet
from monai.networks.nets.vnet import DownTransition, InputTransition, OutputTransition, UpTransition
from torch import Tensor, nn

from volseg.config import VNet as VNetConfig
from volseg.model.layers import layers_of

_ACTIVATION = ("elu", {"inplace": True})
#: Convolutions of each stage, from the finest down, and of each on the way up, from the deepest.
_DOWN, _UP = (1, 2, 3, 3, 3), (3, 3, 2, 1)
_KERNEL, _STEP = 5, 2


class MonaiVNet(VNet):  # type: ignore[misc]  # MONAI ships no types
    """MONAI's V-Net of any width; with 16 features it is MONAI's own, random weights included.

    Args:
        features: At full resolution, twice as many on each level below; a multiple of `channels`.
        channels: Of the image.
        outputs: Logits per voxel.
        dropout: Dropout rate in the deeper levels.
        dimensions: 2 or 3.
    """

    def __init__(self, features: int, channels: int, outputs: int, dropout: float, dimensions: int = 3) -> None:
        nn.Module.__init__(self)  # MONAI's constructor would build parts with a fixed width
        down, up, d = dropout or None, (dropout or None, dropout), dimensions
        self.in_tr = InputTransition(d, channels, features, _ACTIVATION)
        self.down_tr32 = DownTransition(d, features, 1, _ACTIVATION)
        self.down_tr64 = DownTransition(d, 2 * features, 2, _ACTIVATION)
        self.down_tr128 = DownTransition(d, 4 * features, 3, _ACTIVATION, dropout_prob=down)
        self.down_tr256 = DownTransition(d, 8 * features, 2, _ACTIVATION, dropout_prob=down)
        self.up_tr256 = UpTransition(d, 16 * features, 16 * features, 2, _ACTIVATION, dropout_prob=up)
        self.up_tr128 = UpTransition(d, 16 * features, 8 * features, 2, _ACTIVATION, dropout_prob=up)
        self.up_tr64 = UpTransition(d, 8 * features, 4 * features, 1, _ACTIVATION)
        self.up_tr32 = UpTransition(d, 4 * features, 2 * features, 1, _ACTIVATION)
        self.out_tr = OutputTransition(d, 2 * features, outputs, _ACTIVATION)


class PaperVNet(nn.Module):
    """V-Net as in the paper; only normalisation and dropout may be added to it.

    Args:
        config: Features, normalisation and dropout.
        channels: Of the image; a divisor of the features, since it is repeated to that number.
        outputs: Logits per voxel.
    """

    def __init__(self, config: VNetConfig, channels: int, outputs: int) -> None:
        super().__init__()
        widths = [config.filters * 2**level for level in range(len(_DOWN))]
        self.repeats = config.filters // channels
        self.down = nn.ModuleList()  # from one stage to the next
        self.encoder = nn.ModuleList([_Stage(config, channels, widths[0], _DOWN[0])])
        for before, width, convolutions in zip(widths, widths[1:], _DOWN[1:], strict=False):
            self.down.append(_layer(config, before, width, _STEP, _STEP))
            self.encoder.append(_Stage(config, width, width, convolutions))
        self.up, self.decoder = nn.ModuleList(), nn.ModuleList()
        below = widths[-1]
        for width, convolutions in zip(reversed(widths[:-1]), _UP, strict=True):
            self.up.append(_layer(config, below, width, _STEP, _STEP, transposed=True))
            self.decoder.append(_Stage(config, 2 * width, 2 * width, convolutions))
            below = 2 * width
        self.dropout = nn.Dropout(config.dropout)
        self.head = layers_of(config.dimensions).convolution(below, outputs, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Run the network: (B, channels, ...) -> (B, outputs, ...)."""
        first, *stages = self.encoder
        features = first(image, image.repeat_interleave(self.repeats, dim=1))
        levels = [features]
        for shrink, stage in zip(self.down, stages, strict=True):
            features = shrink(features)
            features = stage(features, features)
            levels.append(features)
        features = self.dropout(levels.pop())
        for enlarge, stage, skip in zip(self.up, self.decoder, reversed(levels), strict=True):
            features = torch.cat((enlarge(features), skip), dim=1)
            features = stage(features, features)
        logits: Tensor = self.head(features)
        return logits


class _Stage(nn.Module):
    """Convolutions, each followed by PReLU; that of the last one follows the residual addition."""

    def __init__(self, config: VNetConfig, inputs: int, outputs: int, count: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(_layer(config, inputs if n == 0 else outputs, outputs, _KERNEL) for n in range(count - 1)),
            _layer(config, inputs if count == 1 else outputs, outputs, _KERNEL, activated=False),
        )
        self.activation = nn.PReLU(outputs)

    def forward(self, features: Tensor, shortcut: Tensor) -> Tensor:
        result: Tensor = self.activation(self.layers(features) + shortcut)
        return result


def _layer(
    config: VNetConfig,
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    *,
    transposed: bool = False,
    activated: bool = True,
) -> nn.Sequential:
    layers = layers_of(config.dimensions)
    convolution = layers.transposed if transposed else layers.convolution
    layer = nn.Sequential(convolution(inputs, outputs, kernel, stride, kernel // 2 if stride == 1 else 0))
    match config.norm:
        case "instance":
            layer.append(layers.instance_norm(outputs, affine=True))
        case "batch":
            layer.append(layers.batch_norm(outputs))
    if activated:
        layer.append(nn.PReLU(outputs))
    return layer
