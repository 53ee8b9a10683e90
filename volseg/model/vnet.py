"""MONAI's V-Net with as many features as are asked for; its own are fixed."""

from __future__ import annotations

from monai.networks.nets import VNet
from monai.networks.nets.vnet import DownTransition, InputTransition, OutputTransition, UpTransition
from torch import nn

_ACTIVATION = ("elu", {"inplace": True})


class VNetOfWidth(VNet):  # type: ignore[misc]  # MONAI ships no types
    """A V-Net; with the 16 features of the paper (Milletari et al. 2016) it is MONAI's, random weights included.

    Args:
        features: At full resolution, twice as many on each level below; a multiple of `channels`.
        channels: Of the image.
        outputs: Logits per voxel.
        dropout: Share of the features that are left out in training, in the deeper levels.
    """

    def __init__(self, features: int, channels: int, outputs: int, dropout: float) -> None:
        nn.Module.__init__(self)  # MONAI's would build parts of its own width
        down, up = dropout or None, (dropout or None, dropout)
        self.in_tr = InputTransition(3, channels, features, _ACTIVATION)
        self.down_tr32 = DownTransition(3, features, 1, _ACTIVATION)
        self.down_tr64 = DownTransition(3, 2 * features, 2, _ACTIVATION)
        self.down_tr128 = DownTransition(3, 4 * features, 3, _ACTIVATION, dropout_prob=down)
        self.down_tr256 = DownTransition(3, 8 * features, 2, _ACTIVATION, dropout_prob=down)
        self.up_tr256 = UpTransition(3, 16 * features, 16 * features, 2, _ACTIVATION, dropout_prob=up)
        self.up_tr128 = UpTransition(3, 16 * features, 8 * features, 2, _ACTIVATION, dropout_prob=up)
        self.up_tr64 = UpTransition(3, 8 * features, 4 * features, 1, _ACTIVATION)
        self.up_tr32 = UpTransition(3, 4 * features, 2 * features, 1, _ACTIVATION)
        self.out_tr = OutputTransition(3, 2 * features, outputs, _ACTIVATION)
