"""Networks and their settings."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from volseg.config.encoders import EncoderConfig
from volseg.config.section import ContradictionError, Fraction, IntTriple, Section

#: Of features, or of blocks; no machine holds more.
_Count = Annotated[int, Field(ge=1, le=8192)]
_LEVELS = "filters, kernels and blocks have one for each level, strides and decoder_blocks one less"
_STRIDES = "give one stride for each level but the first: network.strides=[[2, 2, 2], [2, 2, 2]] has three levels"
_FLAT_STRIDES = "begin each with 1: network.strides=[[1, 2, 2], [1, 2, 2]], or set network.dimensions=3"


def _check_supervision(supervised: int, strides: int) -> None:
    """Refuse deep supervision of more levels than lie between the finest and the deepest."""
    if supervised > strides - 1:
        raise ContradictionError(
            f"{strides} strides leave {strides - 1} levels for deep_supervision",
            hint=f"set network.deep_supervision to {strides - 1} or less",
        )


class AnyNetwork(Section):
    """Settings of every network.

    Attributes:
        name: Architecture; each has settings of its own.
        neighbors: Number of neighbouring slices on each side that a 2D network sees as additional channels (2.5D).
    """

    name: str
    neighbors: Annotated[int, Field(ge=0, le=8)] = 0

    def inputs(self, channels: int) -> int:
        """Return the number of input channels for an image of so many channels."""
        return channels * (2 * self.neighbors + 1)


class DimensionalConfig(AnyNetwork):
    """A network that exists for volumes and for planes.

    Attributes:
        dimensions: 3 for volumes; 2 for slices spanned by the second and third axis.
    """

    dimensions: Literal[2, 3] = 3

    def over_planes(self, sizes: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return sizes along three axes; 1 along the first for a network of planes."""
        return sizes if self.dimensions == 3 else (1, sizes[1], sizes[2])


class UNet(DimensionalConfig):
    """MONAI's residual U-Net (Kerfoot et al. 2018): strided convolutions down, transposed ones up.

    Attributes:
        channels: Feature channels of each level, from the finest.
        strides: Stride of each level except the first.
        residual_units: Convolutions in the residual block of each level.
        norm: Normalisation of features.
        dropout: Dropout rate.
    """

    name: Literal["unet"] = "unet"
    channels: Annotated[tuple[_Count, ...], Field(min_length=2)] = (32, 64, 128, 256)
    strides: tuple[IntTriple, ...] = ((2, 2, 2), (2, 2, 2), (2, 2, 2))
    residual_units: Annotated[int, Field(ge=0)] = 2
    norm: Literal["instance", "batch"] = "instance"
    dropout: Fraction = 0.0

    @model_validator(mode="after")
    def _levels(self) -> UNet:
        if len(self.strides) != len(self.channels) - 1:
            raise ContradictionError(
                f"{len(self.channels)} channels need {len(self.channels) - 1} strides, got {len(self.strides)}",
                hint=_STRIDES,
            )
        if self.dimensions == 2 and any(first > 1 for first, _, _ in self.strides):
            raise ContradictionError("a 2D network cannot have a stride along the first axis", hint=_FLAT_STRIDES)
        return self


class VNet(DimensionalConfig):
    """V-Net (Milletari et al. 2016, arXiv 1606.04797); it halves every axis four times.

    Attributes:
        design: Layers of the `paper`, or of `monai`: fewer convolutions, ELU instead of PReLU, batch normalisation.
        filters: Feature channels at full resolution; the paper has 16, and 8 take a quarter of the time.
        norm: Normalisation after the convolutions with `design: paper`, which has none itself; MONAI's is always
            `batch`.
        dropout: Dropout rate of the deeper levels.
    """

    name: Literal["vnet"] = "vnet"
    design: Literal["monai", "paper"] = "monai"
    filters: Annotated[int, Field(ge=2, le=8192, multiple_of=2)] = 16
    norm: Literal["none", "instance", "batch"] = "batch"
    dropout: Fraction = 0.0


class LevelsConfig(AnyNetwork):
    """A U-Net that is described level by level, from the finest.

    Attributes:
        filters: Feature channels of each level, from the finest.
        strides: Stride of each level except the first.
        kernels: Kernel size of each level; empty for 3 x 3 x 3.
        deep_supervision: Number of coarser levels that contribute to the loss; the plan sets it.
    """

    filters: Annotated[tuple[_Count, ...], Field(min_length=2)] = (32, 64, 128, 256)
    strides: tuple[IntTriple, ...] = ((2, 2, 2), (2, 2, 2), (2, 2, 2))
    kernels: tuple[IntTriple, ...] = ()
    deep_supervision: Annotated[int, Field(ge=0)] = 0

    @property
    def kernels_of_levels(self) -> tuple[tuple[int, int, int], ...]:
        """Kernel size of each level."""
        return self.kernels or ((3, 3, 3),) * len(self.filters)

    @model_validator(mode="after")
    def _one_for_each_level(self) -> Self:
        self._check_count("strides", len(self.filters) - 1)
        if self.kernels:
            self._check_count("kernels", len(self.filters))
        if any(size % 2 == 0 for kernel in self.kernels for size in kernel):
            raise ContradictionError(
                "kernel sizes must be odd: an even one shifts the image by half a voxel", hint="use 1 or 3"
            )
        _check_supervision(self.deep_supervision, len(self.strides))
        return self

    def _check_count(self, name: str, count: int) -> None:
        if (given := len(getattr(self, name))) != count:
            raise ContradictionError(f"{len(self.filters)} filters need {count} {name}, got {given}", hint=_LEVELS)


class DynUNet(LevelsConfig):
    """MONAI's DynUNet, the topology of nnU-Net (Isensee et al. 2021).

    In the decoder, a level has the kernels of the next coarser one.

    Attributes:
        residual: Use residual blocks.
    """

    name: Literal["dynunet"] = "dynunet"
    filters: Annotated[tuple[_Count, ...], Field(min_length=3)] = (32, 64, 128, 256)
    residual: bool = False


class BlockUNetConfig(LevelsConfig):
    """A U-Net with a stated number of blocks per level.

    Attributes:
        blocks: Blocks of each level of the encoder.
        decoder_blocks: Convolutions of each level of the decoder, except the deepest.
    """

    blocks: tuple[_Count, ...]
    decoder_blocks: tuple[_Count, ...]

    @model_validator(mode="after")
    def _blocks_for_each_level(self) -> Self:
        self._check_count("blocks", len(self.filters))
        self._check_count("decoder_blocks", len(self.filters) - 1)
        return self


class PlainUNet(BlockUNetConfig):
    """The plain U-Net of nnU-Net (Isensee et al. 2021): each block is a convolution."""

    name: Literal["plain_unet"] = "plain_unet"
    blocks: tuple[_Count, ...] = (2, 2, 2, 2)
    decoder_blocks: tuple[_Count, ...] = (2, 2, 2)


class ResidualEncoderUNet(BlockUNetConfig):
    """nnU-Net's U-Net with a residual encoder (Isensee et al. 2024): each block is two convolutions."""

    name: Literal["residual_encoder_unet"] = "residual_encoder_unet"
    blocks: tuple[_Count, ...] = (1, 3, 4, 6)
    decoder_blocks: tuple[_Count, ...] = (1, 1, 1)


class SegResNet(DimensionalConfig):
    """MONAI's SegResNet (Myronenko 2018, without the autoencoder branch).

    Attributes:
        initial_filters: Feature channels at full resolution.
        blocks_down: Residual blocks of each level of the encoder.
        dropout: Dropout rate.
    """

    name: Literal["segresnet"] = "segresnet"
    initial_filters: Annotated[int, Field(ge=8, le=8192, multiple_of=8)] = 16
    blocks_down: Annotated[tuple[_Count, ...], Field(min_length=2)] = (1, 2, 2, 4)
    dropout: Fraction = 0.0


class AttentionUnet(DimensionalConfig):
    """MONAI's Attention U-Net (Oktay et al. 2018).

    Attributes:
        channels: Feature channels of each level, from the finest.
        dropout: Dropout rate.
    """

    name: Literal["attention_unet"] = "attention_unet"
    channels: Annotated[tuple[_Count, ...], Field(min_length=2)] = (16, 32, 64, 128)
    dropout: Fraction = 0.0


class SwinUNETR(DimensionalConfig):
    """MONAI's SwinUNETR (Hatamizadeh et al. 2022); it halves every axis five times.

    Attributes:
        feature_size: Feature channels at the finest level of the transformer.
    """

    name: Literal["swin_unetr"] = "swin_unetr"
    feature_size: Annotated[int, Field(ge=12, le=8184, multiple_of=12)] = 24


class EncodedConfig(DimensionalConfig):
    """A network with one of the encoders of `config.encoders`.

    Attributes:
        encoder: Encoder and its pretrained weights.
    """

    encoder: EncoderConfig = EncoderConfig()

    @model_validator(mode="after")
    def _photographs_are_flat(self) -> Self:
        if self.encoder.weights and self.dimensions == 3:
            raise ContradictionError(
                "weights pretrained on photographs need a 2D network", hint="set network.dimensions to 2"
            )
        return self


class EncoderUNet(EncodedConfig):
    """A U-Net (Ronneberger et al. 2015) with a classification network as encoder.

    Attributes:
        filters: Feature channels of the levels of the decoder, from the finest.
    """

    name: Literal["encoder_unet"] = "encoder_unet"
    filters: Annotated[tuple[_Count, ...], Field(min_length=5, max_length=5)] = (16, 32, 64, 128, 256)


class FCN(EncodedConfig):
    """A fully convolutional network (Long, Shelhamer and Darrell 2015): FCN-8s, 16s or 32s.

    Attributes:
        stride: Stride of the finest feature map that contributes to the output: 8 is FCN-8s.
        features: Feature channels of the layer that replaces the fully connected ones; the paper has 4096.
        dropout: Dropout rate of these features.
    """

    name: Literal["fcn"] = "fcn"
    encoder: EncoderConfig = EncoderConfig(name="vgg16_bn")
    stride: Literal[8, 16, 32] = 8
    features: _Count = 512
    dropout: Fraction = 0.5


class DeepLab(EncodedConfig):
    """DeepLabV3+ (Chen et al. 2018).

    Attributes:
        stride: Output stride of the encoder; later strides are replaced by dilation.
        features: Feature channels of the atrous spatial pyramid pooling (ASPP) and of the decoder.
        skip_features: Feature channels of the low-level features in the decoder.
        dropout: Dropout rate after the ASPP.
    """

    name: Literal["deeplabv3plus"] = "deeplabv3plus"
    stride: Literal[8, 16] = 16
    features: _Count = 256
    skip_features: _Count = 48
    dropout: Fraction = 0.1


NetworkConfig = Annotated[
    UNet
    | VNet
    | DynUNet
    | PlainUNet
    | ResidualEncoderUNet
    | SegResNet
    | AttentionUnet
    | SwinUNETR
    | EncoderUNet
    | FCN
    | DeepLab,
    Field(discriminator="name"),
]
NetworkName = Literal[
    "unet",
    "vnet",
    "dynunet",
    "plain_unet",
    "residual_encoder_unet",
    "segresnet",
    "attention_unet",
    "swin_unetr",
    "encoder_unet",
    "fcn",
    "deeplabv3plus",
]
