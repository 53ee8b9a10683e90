"""VGG of 16 layers, without or with batch normalisation; layers are numbered as in torchvision and timm.

Simonyan and Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image Recognition", arXiv 1409.1556,
table 1, configuration D.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from volseg.model.encoders.encoder import Encoder, scaled, stride_and_dilation
from volseg.model.layers import Dimensions, layers_of

#: Features and convolutions of each block; after each, feature maps are halved.
_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class VGG(Encoder):
    """VGG: five blocks of convolutions; feature maps are the outputs of each block's last convolution, before pooling.

    Args:
        channels: Of the image.
        width: Multiplier of the standard number of features.
        batch_norm: Whether it follows each convolution.
        limit: Largest total stride.
        dimensions: 2 or 3.
    """

    def __init__(self, channels: int, width: float, *, batch_norm: bool, limit: int, dimensions: Dimensions) -> None:
        super().__init__()
        layers = layers_of(dimensions)
        self.features = nn.Sequential()
        widths, strides, before, so_far, dilation = [], [], channels, 1, 1
        for features, count in _BLOCKS:
            for _ in range(count):
                convolution = layers.convolution(
                    before, scaled(features, width), 3, padding=dilation, dilation=dilation
                )
                self.features.append(convolution)
                if batch_norm:
                    self.features.append(layers.batch_norm(scaled(features, width)))
                self.features.append(nn.ReLU(inplace=True))
                before = scaled(features, width)
            widths.append(before)
            strides.append(so_far)
            earlier = dilation
            stride, dilation, so_far = stride_and_dilation(so_far, dilation, 2, limit)
            self.features.append(layers.max_pool(2, 2) if stride == 2 else _DensePool(dimensions, earlier))
        if so_far > strides[-1]:
            widths.append(before)
            strides.append(so_far)
        self.widths, self.strides = tuple(widths), tuple(strides)
        self._ends = [n for n, layer in enumerate(self.features) if isinstance(layer, layers.max_pool | _DensePool)]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the feature maps of (B, channels, ...), from the finest: before each pooling, and after the last."""
        maps, pooled = self._blocks(image)
        return [*maps, pooled[-1]] if len(self.widths) > len(maps) else maps

    def pooled(self, image: Tensor) -> list[Tensor]:
        """Compute the feature maps after three, four and five poolings."""
        return self._blocks(image)[1][-3:]

    @property
    def pooled_widths(self) -> tuple[int, ...]:
        """Features of the maps after three, four and five poolings."""
        return self.widths[2:5]

    def _blocks(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the output of each block, before and after pooling."""
        features, maps, pooled = image, [], []
        begin = 0
        for end in self._ends:
            features = self.features[begin:end](features)
            maps.append(features)
            features, begin = self.features[end](features), end + 1
            pooled.append(features)
        return maps, pooled


class _DensePool(nn.Module):
    """A pooling by two whose stride is replaced by dilation: it also keeps what lies in between.

    Args:
        dimensions: 2 or 3.
        dilation: Distance of the two along each axis.
    """

    def __init__(self, dimensions: Dimensions, dilation: int) -> None:
        super().__init__()
        self.pool = layers_of(dimensions).max_pool(2, 1, dilation=dilation)
        self.padding = (0, dilation) * dimensions

    def forward(self, features: Tensor) -> Tensor:
        """Pool (B, features, ...), none of them negative, to the same size."""
        pooled: Tensor = self.pool(functional.pad(features, self.padding))
        return pooled
