"""Phrases about the network of a run, with the citation of its paper."""

from __future__ import annotations

from typing import assert_never

from volseg.citing.words import count
from volseg.config import (
    FCN,
    AttentionUnet,
    BlockUNetConfig,
    Config,
    DeepLab,
    DimensionalConfig,
    DynUNet,
    EncoderConfig,
    EncoderUNet,
    PlainUNet,
    ResidualEncoderUNet,
    SegResNet,
    SwinUNETR,
    UNet,
    VNet,
)
from volseg.text import listed


def network_words(config: Config) -> str:  # noqa: C901, PLR0911  one for each network
    """Return a noun phrase with the architecture and its size."""
    network = config.network
    match network:
        case DynUNet():
            blocks = ", with residual blocks" if network.residual else ""
            topology = "a U-Net with the topology of nnU-Net [@isensee2021nnunet] (DynUNet of MONAI)"
            return f"{topology}{blocks}{_levels(network)}"
        case PlainUNet():
            return f"the plain U-Net of nnU-Net [@isensee2021nnunet]{_levels(network)}"
        case ResidualEncoderUNet():
            return f"the U-Net of nnU-Net with a residual encoder [@isensee2024revisited]{_levels(network)}"
        case UNet():
            kind = "residual U-Net" if network.residual_units else "U-Net"
            return f"the {kind} of MONAI [@kerfoot2019residual]{_features(network.channels)}"
        case VNet():
            design = (
                "with the layers of the original paper"
                if network.design == "paper"
                else "in the implementation of MONAI"
            )
            return f"a V-Net [@milletari2016vnet] {design}, with {network.filters} features at full resolution"
        case SegResNet():
            features = f"with {network.initial_filters} features at full resolution"
            return f"SegResNet [@myronenko2019segresnet] in the implementation of MONAI, {features}"
        case AttentionUnet():
            return (
                f"an Attention U-Net [@oktay2018attention] in the implementation of MONAI{_features(network.channels)}"
            )
        case SwinUNETR():
            features = f"with {network.feature_size} features"
            return f"Swin UNETR [@hatamizadeh2022swin] in the implementation of MONAI, {features}"
        case EncoderUNet():
            return f"a U-Net [@ronneberger2015unet] with {_encoder(network.encoder)}"
        case FCN():
            return f"FCN-{network.stride}s [@long2015fcn] with {_encoder(network.encoder)}"
        case DeepLab():
            return f"DeepLabV3+ [@chen2018deeplab] (output stride {network.stride}) with {_encoder(network.encoder)}"
    assert_never(network)


def slices_words(config: Config) -> str:
    """Return a sentence about a network that processes volumes slice by slice; empty for others."""
    network = config.network
    flat = config.patches.planes or (isinstance(network, DimensionalConfig) and network.dimensions == 2)
    if not flat or config.data.unit == "px":
        return ""
    if network.neighbors:
        beside = count(network.neighbors, "slice")
        return f"It processed volumes slice by slice, each with {beside} on either side as additional channels."
    return "It processed volumes slice by slice."


def _features(features: tuple[int, ...]) -> str:
    return f", with {listed([str(number) for number in features])} features at its {len(features)} levels"


def _levels(network: DynUNet | BlockUNetConfig) -> str:
    deep = network.deep_supervision
    supervised = f" and deep supervision at {count(deep, 'coarser level')}" if deep else ""
    return f"{_features(network.filters)}{supervised}"


def _encoder(encoder: EncoderConfig) -> str:
    width = "" if encoder.width == 1 else f" of {encoder.width:g} times the usual width"
    weights = ", pretrained on photographs" if encoder.weights else ""
    return f"{_ENCODERS[encoder.name]}{width} as its encoder{weights}"


_ENCODERS = {
    "vgg16": "VGG-16 [@simonyan2015vgg]",
    "vgg16_bn": "VGG-16 [@simonyan2015vgg] with batch normalisation",
    "resnet18": "ResNet-18 [@he2016resnet]",
    "resnet34": "ResNet-34 [@he2016resnet]",
    "resnet50": "ResNet-50 [@he2016resnet]",
    "efficientnet_b0": "EfficientNet-B0 [@tan2019efficientnet]",
    "tf_efficientnet_b0": "EfficientNet-B0 [@tan2019efficientnet]",
    "efficientnet_lite0": "the lite variant of EfficientNet-B0 [@tan2019efficientnet]",
}
