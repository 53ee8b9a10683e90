"""FCN-32s, 16s and 8s: answers of coarse feature maps, added to those of finer ones, and enlarged.

Long, Shelhamer and Darrell 2015, "Fully Convolutional Networks for Semantic Segmentation", arXiv 1411.4038, figure 3.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from volseg.config import FCN as FCNConfig  # noqa: N811
from volseg.model.encoders import build_encoder
from volseg.model.layers import layers_of

#: Strides of the feature maps that answer, from the finest.
_STRIDES = (8, 16, 32)


class FCN(nn.Module):
    """An encoder whose last feature map goes through two layers more, in the place of those that were fully connected.

    The paper enlarges answers by transposed convolutions that begin as bilinear interpolation; here they stay that.

    Args:
        config: The encoder, and the finest stride that answers.
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
        """(B, channels, ...) -> (B, outputs, ...)."""
        *finer, coarsest = self.encoder.pooled(image)
        answers: Tensor = self.head(self.connected(coarsest))
        for head, features in zip(self.skip_heads, reversed(finer), strict=False):
            answers = self._enlarged(answers, features) + head(features)
        return self._enlarged(answers, image)

    def _enlarged(self, answers: Tensor, like: Tensor) -> Tensor:
        return functional.interpolate(answers, like.shape[2:], mode=self.mode, align_corners=False)
