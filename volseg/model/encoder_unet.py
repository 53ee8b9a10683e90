"""A U-Net on a pretrained or random encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from volseg.config import EncoderUNet as EncoderUNetConfig
from volseg.model.encoders import build_encoder
from volseg.model.layers import Layers, layers_of


class EncoderUNet(nn.Module):
    """A U-Net whose decoder upsamples each level, concatenates the encoder's feature map, and convolves twice.

    Args:
        config: The encoder, and the features of the decoder.
        channels: Of the image.
        outputs: Logits per voxel.
    """

    def __init__(self, config: EncoderUNetConfig, channels: int, outputs: int) -> None:
        super().__init__()
        layers = layers_of(config.dimensions)
        self.encoder = build_encoder(config.encoder, channels, config.dimensions)
        # If the encoder begins at half of the resolution, the image itself is the full-resolution feature map.
        self.begins_at_half = self.encoder.strides[0] > 1
        widths = (channels, *self.encoder.widths) if self.begins_at_half else self.encoder.widths
        self.enlarge = nn.Upsample(scale_factor=2, mode=layers.interpolation, align_corners=False)
        self.decoder = nn.ModuleList()
        *skips, below = widths
        for skip, features in zip(reversed(skips), reversed(config.filters), strict=True):
            self.decoder.append(_two_convolutions(layers, below + skip, features))
            below = features
        self.head = layers.convolution(below, outputs, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Run the network: (B, channels, ...) -> (B, outputs, ...)."""
        maps = self.encoder(image)
        *skips, features = [image, *maps] if self.begins_at_half else maps
        for convolve, skip in zip(self.decoder, reversed(skips), strict=True):
            features = convolve(torch.cat((self.enlarge(features), skip), dim=1))
        logits: Tensor = self.head(features)
        return logits


def _two_convolutions(layers: Layers, inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        layers.convolution(inputs, outputs, 3, padding=1),
        layers.instance_norm(outputs, affine=True),
        nn.ReLU(inplace=True),
        layers.convolution(outputs, outputs, 3, padding=1),
        layers.instance_norm(outputs, affine=True),
        nn.ReLU(inplace=True),
    )
