"""Encoders that several networks share, and their pretrained weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from volseg.config.section import ContradictionError, Section

EncoderName = Literal[
    "vgg16",
    "vgg16_bn",
    "resnet18",
    "resnet34",
    "resnet50",
    "efficientnet_b0",
    "tf_efficientnet_b0",
    "efficientnet_lite0",
]


class EncoderConfig(Section):
    """The encoder of a network.

    Attributes:
        name: Encoder: VGG16 without or with batch normalisation (Simonyan and Zisserman 2015); ResNet of 18, 34 or 50
            layers (He et al. 2016); EfficientNet B0 (Tan and Le 2019) with the padding of torchvision, or of TensorFlow
            as in efficientnet-pytorch and timm (`tf_efficientnet_b0`); EfficientNet-lite0.
        width: Number of features relative to the paper's.
        weights: File of pretrained weights: a state dictionary of torchvision, timm or efficientnet-pytorch; only for
            2D networks with `width` 1.
    """

    name: EncoderName = "resnet18"
    width: Annotated[float, Field(gt=0, le=2)] = 1.0
    weights: str | None = None

    @model_validator(mode="after")
    def _of_one_width(self) -> EncoderConfig:
        if self.weights and self.width != 1:
            raise ContradictionError(
                "pretrained weights need an encoder of the usual width",
                hint="leave out network.encoder.width, or the weights",
            )
        return self
