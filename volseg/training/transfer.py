"""Weights of an earlier network for a new one: all that fit, and that are still for the same."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from torch import nn

from volseg.config import Config, NetworkName
from volseg.errors import CheckpointError
from volseg.model.checkpoint import load_weights
from volseg.model.networks import build_network

logger = logging.getLogger(__name__)

#: Names of the parameters that look, down to the deepest level; the others answer.
_ENCODERS: Mapping[NetworkName, str] = MappingProxyType(
    {
        "unet": r"model\.(?>(1\.submodule\.)*)(?!2\.)",
        "vnet": r"(0\.(weight|bias)|(1\.)?(in_tr|down_tr\d+)\.)",
        "dynunet": r"(input_block|downsamples|bottleneck)\.",
        "segresnet": r"(convInit|down_layers)\.",
        "attention_unet": r"model\.(?>(1\.submodule\.)*)(0|conv)\.",
        "swin_unetr": r"(swinViT|encoder\d+)\.",
    }
)


def load_matching_weights(network: nn.Module, config: Config, source: Path) -> set[str]:
    """Take over the weights of another run, or of a file with the weights of the same network.

    The first layers stay new where the channels are others, the last ones where the labels are; what stays new is said.

    Args:
        network: Gets the weights.
        config: What it is and is for.
        source: A run, a model file, or a file with nothing but weights.

    Returns:
        The names of the weights that were taken over.

    Raises:
        CheckpointError: If there is no such file, or nothing of it fits.
    """
    weights, earlier = load_weights(source)
    own = network.state_dict()
    other = _of_other_use(config, earlier) if earlier else set()
    fitting = {
        key: value
        for key, value in weights.items()
        if key in own and own[key].shape == value.shape and key not in other
    }
    if not any(value.ndim > 1 for value in fitting.values()):
        raise CheckpointError(
            f"no weights of {source} fit network {config.network.name}",
            hint="start from a run whose network is configured alike",
        )
    network.load_state_dict({**own, **fitting})
    fresh = sorted({key.rpartition(".")[0] for key in own if key not in fitting})
    logger.warning(
        "started from %s with %d of %d weights; new: %s", source, len(fitting), len(own), ", ".join(fresh) or "none"
    )
    return set(fitting)


def freeze_encoder(network: nn.Module, name: NetworkName, learned: Collection[str]) -> None:
    """Keep what the way down has learned, so that only what answers, and what is new, goes on learning."""
    for key, parameter in network.named_parameters():
        if key in learned and re.match(_ENCODERS[name], key):
            parameter.requires_grad = False


def _of_other_use(config: Config, earlier: Config) -> set[str]:
    """Weights of layers for other channels or labels, even where there are as many of them."""
    channels, outputs = len(config.data.channels), config.data.outputs
    other: set[tuple[str, tuple[int, ...]]] = set()
    if earlier.data.channels != config.data.channels:
        other |= _shapes(config, channels, outputs) ^ _shapes(config, channels + 1, outputs)
    names, earlier_names = ([label.name for label in each.data.output_labels] for each in (config, earlier))
    if names != earlier_names:
        other |= _shapes(config, channels, outputs) ^ _shapes(config, channels, outputs + 1)
    return {key for key, _ in other}


def _shapes(config: Config, channels: int, outputs: int) -> set[tuple[str, tuple[int, ...]]]:
    """Name and shape of every weight; what differs for one channel or output more belongs to these."""
    state = build_network(config.network, channels, outputs).state_dict()
    return {(key, tuple(value.shape)) for key, value in state.items()}
