"""What all encoders have in common."""

from __future__ import annotations

from torch import Tensor, nn

#: Features are multiples of this, whatever share of the usual ones is wanted.
_STEP = 8


class Encoder(nn.Module):
    """An image -> feature maps, from the finest.

    Attributes:
        widths: Features of each map.
        strides: How coarse each is; by the last, sides of an image must be divisible.
    """

    widths: tuple[int, ...]
    strides: tuple[int, ...]

    def pooled(self, image: Tensor) -> list[Tensor]:
        """The feature maps of strides 8, 16 and 32 from which a fully convolutional network answers.

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
    """A share of some features, a multiple of eight."""
    return features if width == 1 else max(_STEP, round(features * width / _STEP) * _STEP)


def stride_and_dilation(so_far: int, dilation: int, stride: int, limit: int) -> tuple[int, int, int]:
    """What is left of a stride where feature maps are to become no coarser than a limit.

    Args:
        so_far: How coarse they are.
        dilation: Of the convolutions before.
        stride: That the layer has by itself.
        limit: How coarse they may become.

    Returns:
        Stride and dilation of the layer, and how coarse feature maps are behind it; each stride that is left out
        doubles the dilation of what follows (Chen et al. 2017, arXiv 1706.05587, section 3.2).
    """
    if so_far * stride > limit:
        return 1, dilation * stride, so_far
    return stride, dilation, so_far * stride
