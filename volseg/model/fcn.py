"""FCN-32s, 16s and 8s: predictions from coarse feature maps, upsampled and added to those from finer ones.

Long, Shelhamer and Darrell 2015, "Fully Convolutional Networks for Semantic Segmentation", arXiv 1411.4038, figure 3.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from volseg.config import FCN as FCNConfig  # noqa: N811
from volseg.model.encoders import build_encoder
from volseg.model.layers import layers_of

#: Strides of the feature maps that predict, from the finest.
_STRIDES = (8, 16, 32)


class FCN(nn.Module):
    """An encoder followed by two convolutions in place of the fully connected layers.

    The paper upsamples by transposed convolutions initialised to bilinear interpolation; here the interpolation is
    fixed.

    Args:
        config: The encoder, and the finest stride to predict from.
        channels: Of the image.
        outputs: Logits per voxel.
    """

    def __init__(self, config: FCNConfig, channels: int, outputs: int) -> None:
        super().__init__()
        layers = layers_of(config.dimensions)
        self.mode = layers.interpolation
        self.encoder = build_encoder(config.encoder, channels, config.dimensions)
        *finer, coarsest = self.encoder.pooled_widths
        self.connected = nn.Sequential(
            layers.convolution(coarsest, config.features, 7, padding=3),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            layers.convolution(config.features, config.features, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
        )
        self.head = layers.convolution(config.features, outputs, 1)
        answering = [width for width, stride in zip(finer, _STRIDES, strict=False) if stride >= config.stride]
        self.skip_heads = nn.ModuleList(layers.convolution(width, outputs, 1) for width in reversed(answering))

    def forward(self, image: Tensor) -> Tensor:
        """Run the network: (B, channels, ...) -> (B, outputs, ...)."""
        *finer, coarsest = self.encoder.pooled(image)
        answers: Tensor = self.head(self.connected(coarsest))
        for head, features in zip(self.skip_heads, reversed(finer), strict=False):
            answers = self._enlarged(answers, features) + head(features)
        return self._enlarged(answers, image)

    def _enlarged(self, answers: Tensor, like: Tensor) -> Tensor:
        return functional.interpolate(answers, like.shape[2:], mode=self.mode, align_corners=False)
