"""Build an encoder by its name."""

from __future__ import annotations

from volseg.config import EncoderConfig
from volseg.model.encoders.efficientnet import EfficientNet, Variant
from volseg.model.encoders.encoder import Encoder
from volseg.model.encoders.resnet import ResNet
from volseg.model.encoders.vgg import VGG
from volseg.model.layers import Dimensions

#: The largest total stride of any encoder.
COARSEST = 32


def build_encoder(config: EncoderConfig, channels: int, dimensions: Dimensions, limit: int = COARSEST) -> Encoder:
    """Build an encoder with random weights.

    Args:
        config: The encoder's configuration.
        channels: Of the image.
        dimensions: 2 or 3.
        limit: Largest total stride; where a stride would exceed it, dilation replaces it.
    """
    match config.name:
        case "vgg16" | "vgg16_bn":
            batch_norm = config.name == "vgg16_bn"
            return VGG(channels, config.width, batch_norm=batch_norm, limit=limit, dimensions=dimensions)
        case "resnet18":
            return ResNet(18, channels, config.width, limit=limit, dimensions=dimensions)
        case "resnet34":
            return ResNet(34, channels, config.width, limit=limit, dimensions=dimensions)
        case "resnet50":
            return ResNet(50, channels, config.width, limit=limit, dimensions=dimensions)
        case "efficientnet_b0" | "tf_efficientnet_b0" | "efficientnet_lite0":
            variant = Variant(lite=config.name == "efficientnet_lite0", tensorflow=config.name != "efficientnet_b0")
            return EfficientNet(channels, config.width, variant, limit=limit, dimensions=dimensions)
