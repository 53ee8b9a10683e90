"""DeepLabV3+: an encoder with a limited stride, a pyramid of dilated convolutions, and a decoder with one finer level.

Chen et al. 2018, "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", arXiv 1802.02611,
figure 2; the pyramid is that of Chen et al. 2017, arXiv 1706.05587, section 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from volseg.config import DeepLab as DeepLabConfig
from volseg.model.encoders import build_encoder
from volseg.model.layers import Layers, layers_of

#: Dilations of the branches at a stride of 16; doubled at a stride of 8.
_RATES = (6, 12, 18)
#: Stride of the finer feature map.
_SKIP_STRIDE = 4


class DeepLab(nn.Module):
    """DeepLabV3+.

    Args:
        config: The encoder, its last stride, and features.
        channels: Of the image.
        outputs: Logits per voxel.
    """

    def __init__(self, config: DeepLabConfig, channels: int, outputs: int) -> None:
        super().__init__()
        layers = layers_of(config.dimensions)
        self.mode = layers.interpolation
        self.encoder = build_encoder(config.encoder, channels, config.dimensions, limit=config.stride)
        self.skip = self.encoder.strides.index(_SKIP_STRIDE)
        rates = [rate * 16 // config.stride for rate in _RATES]
        self.pyramid = Pyramid(layers, self.encoder.widths[-1], config.features, rates)
        self.dropout = nn.Dropout(config.dropout)
        self.narrow = _layer(layers, self.encoder.widths[self.skip], config.skip_features, 1)
        self.decoder = nn.Sequential(
            _layer(layers, config.features + config.skip_features, config.features, 3),
            _layer(layers, config.features, config.features, 3),
        )
        self.head = layers.convolution(config.features, outputs, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Run the network: (B, channels, ...) -> (B, outputs, ...)."""
        maps = self.encoder(image)
        fine = self.narrow(maps[self.skip])
        coarse = self._enlarged(self.dropout(self.pyramid(maps[-1])), fine)
        answers = self.head(self.decoder(torch.cat((coarse, fine), dim=1)))
        return self._enlarged(answers, image)

    def _enlarged(self, features: Tensor, like: Tensor) -> Tensor:
        return functional.interpolate(features, like.shape[2:], mode=self.mode, align_corners=False)


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling: parallel convolutions with several dilations, and the global mean.

    Args:
        layers: For planes or volumes.
        inputs: Features of the input.
        outputs: Features of each branch, and of the result.
        rates: Dilations.
    """

    def __init__(self, layers: Layers, inputs: int, outputs: int, rates: list[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [_layer(layers, inputs, outputs, 1), *(_layer(layers, inputs, outputs, 3, rate) for rate in rates)]
        )
        # A single voxel has no standard deviation to normalise by.
        self.mean = nn.Sequential(layers.mean(1), layers.convolution(inputs, outputs, 1), nn.ReLU(inplace=True))
        self.project = _layer(layers, outputs * (len(rates) + 2), outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Run the module: (B, inputs, ...) -> (B, outputs, ...)."""
        seen = [branch(features) for branch in self.branches]
        mean = self.mean(features).expand_as(seen[0])
        projected: Tensor = self.project(torch.cat((*seen, mean), dim=1))
        return projected


def _layer(layers: Layers, inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        layers.convolution(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False),
        layers.batch_norm(outputs),
        nn.ReLU(inplace=True),
    )
