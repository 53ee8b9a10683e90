"""The ways down that networks share, and may have learned from photographs."""

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
    """The way down of a network.

    Attributes:
        name: VGG of 16 layers, without or with batch normalisation (Simonyan and Zisserman 2015); a residual network of
            18, 34 or 50 layers (He et al. 2016); EfficientNet B0 (Tan and Le 2019), also as TensorFlow computes it
            (efficientnet-pytorch, and timm under this name), or the lite variant, as TensorFlow computes it.
        width: Features are this share of what the papers have.
        weights: File of weights that it starts with: a state dictionary of torchvision, timm or efficientnet-pytorch,
            learned from photographs. They are of planes.
    """

    name: EncoderName = "resnet18"
    width: Annotated[float, Field(gt=0, le=2)] = 1.0
    weights: str | None = None

    @model_validator(mode="after")
    def _of_one_width(self) -> EncoderConfig:
        if self.weights and self.width != 1:
            raise ContradictionError(
                "weights are of encoders of the usual width", hint="leave out network.encoder.width, or the weights"
            )
        return self
