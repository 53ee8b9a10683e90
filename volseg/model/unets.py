"""The two U-Nets of nnU-Net v2, plain and with a residual encoder, on PyTorch alone.

    image -> encoder, a feature map per level -> decoder, from the deepest up -> logits

The plain one follows Isensee et al. 2021 (Nature Methods 18:203), the residual encoder Isensee et al. 2024 ("nnU-Net
Revisited", arXiv 2404.09556), whose blocks shrink their shortcut by averaging (He et al. 2019, arXiv 1812.01187,
ResNet-D). Levels count from the finest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from volseg.config import BlockUNetConfig, ResidualEncoderUNet

Triple = tuple[int, int, int]

_ONE: Triple = (1, 1, 1)
#: Slope of the leaky rectifiers below zero.
_SLOPE = 0.01


class Convolution(nn.Module):
    """Convolution and instance normalisation, then a leaky rectifier unless `activated` is false."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Triple,
        stride: Triple = _ONE,
        *,
        bias: bool = True,
        activated: bool = True,
    ) -> None:
        super().__init__()
        r, a, s = kernel
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride, (r // 2, a // 2, s // 2), bias=bias)
        self.norm = nn.InstanceNorm3d(outputs, affine=True)
        self.activation = nn.LeakyReLU(_SLOPE, inplace=True) if activated else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Run the layers: (B, inputs, R, A, S) -> (B, outputs, ...), each side divided by the stride."""
        result: Tensor = self.activation(self.norm(self.conv(features)))
        return result


class Average(nn.AvgPool3d):
    """Average pooling in float32, since PyTorch has none for bf16 on CPUs."""

    def forward(self, features: Tensor) -> Tensor:
        """Pool (B, C, R, A, S) -> (B, C, ...), each side divided by the stride, in the dtype of the input."""
        return super().forward(features.float()).to(features.dtype)


class ResidualBlock(nn.Module):
    """Two convolutions whose result is added to their input, which is average-pooled if the block has a stride."""

    def __init__(self, inputs: int, outputs: int, kernel: Triple, stride: Triple = _ONE) -> None:
        super().__init__()
        self.conv1 = Convolution(inputs, outputs, kernel, stride)
        self.conv2 = Convolution(outputs, outputs, kernel, activated=False)
        self.shortcut = nn.Sequential()
        if stride != _ONE:
            self.shortcut.append(Average(stride, stride))
        if inputs != outputs:
            self.shortcut.append(Convolution(inputs, outputs, _ONE, bias=False, activated=False))
        self.activation = nn.LeakyReLU(_SLOPE, inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """Run the block: (B, inputs, R, A, S) -> (B, outputs, ...), each side divided by the stride."""
        result: Tensor = self.activation(self.conv2(self.conv1(features)) + self.shortcut(features))
        return result


class Decoder(nn.Module):
    """A decoder: each level is upsampled, concatenated with the feature map of the encoder, and convolved.

    Args:
        config: The kernels of a level are those of the encoder's feature map it takes.
    """

    def __init__(self, config: BlockUNetConfig) -> None:
        super().__init__()
        self.upsamplings, self.stages = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(config.strides))):
            below, features = config.filters[level + 1], config.filters[level]
            stride, kernel = config.strides[level], config.kernels_of_levels[level]
            self.upsamplings.append(nn.ConvTranspose3d(below, features, stride, stride))
            self.stages.append(_convolutions(config.decoder_blocks[level], 2 * features, features, kernel))

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Decode: the encoder's feature maps, from the finest -> those of the decoder, from the finest."""
        *skips, features = levels
        decoded: list[Tensor] = []
        for upsample, stage, skip in zip(self.upsamplings, self.stages, reversed(skips), strict=True):
            features = stage(torch.cat((upsample(features), skip), dim=1))
            decoded.insert(0, features)
        return decoded


class BlockUNet(nn.Module):
    """A U-Net of blocks, with a plain or a residual encoder.

    Args:
        config: Features, kernels, strides and blocks of each level.
        channels: Of the image.
        outputs: Logits per voxel.
    """

    def __init__(self, config: BlockUNetConfig, channels: int, outputs: int) -> None:
        super().__init__()
        filters, kernels, strides = config.filters, config.kernels_of_levels, (_ONE, *config.strides)
        self.stem: nn.Module = nn.Identity()
        before = channels
        if isinstance(config, ResidualEncoderUNet):
            self.stem = Convolution(channels, filters[0], kernels[0])
            before = filters[0]
        self.encoder = nn.ModuleList()
        for features, kernel, stride, blocks in zip(filters, kernels, strides, config.blocks, strict=True):
            make = _residual_blocks if isinstance(config, ResidualEncoderUNet) else _convolutions
            self.encoder.append(make(blocks, before, features, kernel, stride))
            before = features
        self.decoder = Decoder(config)
        self.heads = nn.ModuleList(
            nn.Conv3d(features, outputs, kernel_size=1) for features in filters[: 1 + config.deep_supervision]
        )
        self.apply(_initialize)

    def forward(self, image: Tensor) -> Tensor:
        """Run the network: (B, channels, R, A, S) -> (B, outputs, R, A, S).

        In training with deep supervision: (B, 1 + levels, outputs, R, A, S), the finest first.
        """
        features, levels = self.stem(image), []
        for stage in self.encoder:
            features = stage(features)
            levels.append(features)
        decoded = self.decoder(levels)
        finest: Tensor = self.heads[0](decoded[0])
        if not self.training or len(self.heads) == 1:
            return finest
        coarser = [head(features) for head, features in zip(self.heads[1:], decoded[1:], strict=False)]
        size = finest.shape[2:]
        return torch.stack([finest, *(functional.interpolate(logits, size) for logits in coarser)], dim=1)


def _convolutions(count: int, inputs: int, outputs: int, kernel: Triple, stride: Triple = _ONE) -> nn.Sequential:
    first = Convolution(inputs, outputs, kernel, stride)
    return nn.Sequential(first, *(Convolution(outputs, outputs, kernel) for _ in range(count - 1)))


def _residual_blocks(count: int, inputs: int, outputs: int, kernel: Triple, stride: Triple = _ONE) -> nn.Sequential:
    first = ResidualBlock(inputs, outputs, kernel, stride)
    return nn.Sequential(first, *(ResidualBlock(outputs, outputs, kernel) for _ in range(count - 1)))


def _initialize(module: nn.Module) -> None:
    """Initialise weights so that they preserve scale (He et al. 2015); residual blocks begin as their shortcut."""
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, ResidualBlock):
        nn.init.zeros_(module.conv2.norm.weight)
