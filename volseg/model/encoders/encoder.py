"""Base class of all encoders."""

from __future__ import annotations

from torch import Tensor, nn

#: Numbers of features are multiples of this, whatever the multiplier.
_STEP = 8


class Encoder(nn.Module):
    """Computes feature maps of an image, from the finest.

    Attributes:
        widths: Features of each map.
        strides: Total stride of each map; sides of an image must be divisible by the last.
    """

    widths: tuple[int, ...]
    strides: tuple[int, ...]

    def pooled(self, image: Tensor) -> list[Tensor]:
        """Compute the feature maps of strides 8, 16 and 32, from which a fully convolutional network predicts.

        Args:
            image: (B, channels, ...).
        """
        maps: list[Tensor] = self(image)
        return [maps[self.strides.index(stride)] for stride in (8, 16, 32)]

    @property
    def pooled_widths(self) -> tuple[int, ...]:
        """Features of the maps of `pooled`."""
        return tuple(self.widths[self.strides.index(stride)] for stride in (8, 16, 32))


def scaled(features: int, width: float) -> int:
    """Scale a number of features, rounded to a multiple of eight."""
    return features if width == 1 else max(_STEP, round(features * width / _STEP) * _STEP)


def stride_and_dilation(so_far: int, dilation: int, stride: int, limit: int) -> tuple[int, int, int]:
    """Replace a stride by dilation where it would exceed a total stride.

    Args:
        so_far: Total stride before the layer.
        dilation: Of the convolutions before.
        stride: The layer's own stride.
        limit: Largest total stride.

    Returns:
        Stride and dilation of the layer, and the total stride after it; each stride that is left out multiplies the
        dilation of what follows (Chen et al. 2017, arXiv 1706.05587, section 3.2).
    """
    if so_far * stride > limit:
        return 1, dilation * stride, so_far
    return stride, dilation, so_far * stride
