"""MONAI's networks, as constructed in MONAI and as stated in bundles: a class and its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from volseg.config import AttentionUnet, DimensionalConfig, DynUNet, NetworkConfig, SegResNet, SwinUNETR, UNet, VNet

#: Features of MONAI's V-Net at full resolution.
_VNET_FEATURES = 16


@dataclass(frozen=True)
class Statement:
    """A class and its arguments.

    Attributes:
        name: Of a class in `monai.networks.nets`.
        arguments: Its arguments; plain values.
    """

    name: str
    arguments: Mapping[str, Any]


def statement_of(config: NetworkConfig, channels: int, outputs: int) -> Statement | None:
    """Return the MONAI class and arguments of a network.

    Args:
        config: The network.
        channels: Image channels.
        outputs: Logits per voxel.

    Returns:
        The statement; None if MONAI has no class of that network.
    """
    dimensions = config.dimensions if isinstance(config, DimensionalConfig) else 3
    ends = {"spatial_dims": dimensions, "in_channels": channels, "out_channels": outputs}
    match config:
        case UNet():
            own: dict[str, Any] = {
                "channels": config.channels,
                "strides": tuple(stride[-dimensions:] for stride in config.strides),
                "num_res_units": config.residual_units,
                "norm": config.norm,
                "dropout": config.dropout,
            }
        case DynUNet():
            own = {
                "kernel_size": config.kernels_of_levels,
                "strides": ((1, 1, 1), *config.strides),
                "upsample_kernel_size": config.strides,
                "filters": config.filters,
                "res_block": config.residual,
                "deep_supervision": config.deep_supervision > 0,
                "deep_supr_num": max(1, config.deep_supervision),
            }
        case SegResNet():
            own = {
                "init_filters": config.initial_filters,
                "blocks_down": config.blocks_down,
                "blocks_up": (1,) * (len(config.blocks_down) - 1),
                "dropout_prob": config.dropout or None,
            }
        case AttentionUnet():
            own = {
                "channels": config.channels,
                "strides": (2,) * (len(config.channels) - 1),
                "dropout": config.dropout,
            }
        case SwinUNETR():
            own = {"feature_size": config.feature_size}
        case VNet(filters=filters, design="monai") if filters == _VNET_FEATURES and filters % channels == 0:
            own = {
                "dropout_prob_down": config.dropout or None,
                "dropout_prob_up": (config.dropout or None, config.dropout),
            }
        case _:
            return None
    return Statement(type(config).__name__, {**ends, **own})
