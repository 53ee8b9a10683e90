"""Transfer learning: weights of an earlier network for a new one, as far as they fit and keep their meaning."""

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

#: Patterns of the names of encoder parameters, the bottleneck included; all others are the decoder's.
_ENCODERS: Mapping[NetworkName, str] = MappingProxyType(
    {
        "unet": r"model\.(?>(1\.submodule\.)*)(?!2\.)",
        "vnet": r"(0\.(weight|bias)|(1\.)?(in_tr|down_tr\d+|down|encoder)\.)",
        "dynunet": r"(input_block|downsamples|bottleneck)\.",
        "plain_unet": r"(stem|encoder)\.",
        "residual_encoder_unet": r"(stem|encoder)\.",
        "segresnet": r"(convInit|down_layers)\.",
        "attention_unet": r"model\.(?>(1\.submodule\.)*)(0|conv)\.",
        "swin_unetr": r"(swinViT|encoder\d+)\.",
        **dict.fromkeys(("encoder_unet", "fcn", "deeplabv3plus"), r"encoder\."),
    }
)


def load_matching_weights(network: nn.Module, config: Config, source: Path) -> set[str]:
    """Take over the weights of another run, or of a file with the weights of the same network.

    The first layers keep random weights where the channels differ, the output layers where the labels do; a warning
    lists them.

    Args:
        network: Gets the weights.
        config: Of the network, its channels and labels.
        source: A run, a model file, or a file of weights alone.

    Returns:
        The names of the weights that were loaded.

    Raises:
        CheckpointError: If there is no such file, or none of its weights fit.
    """
    weights, earlier = load_weights(source)
    own = network.state_dict()
    changed = _of_changed_layers(config, earlier) if earlier else set()
    fitting = {
        key: value
        for key, value in weights.items()
        if key in own and own[key].shape == value.shape and key not in changed
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


def freeze_encoder(network: nn.Module, name: NetworkName, loaded: Collection[str]) -> None:
    """Freeze the loaded weights of the encoder; the decoder and layers with new weights stay trainable.

    Raises:
        CheckpointError: If none of them was loaded.
    """
    pattern = re.compile(rf"(network\.)*{_ENCODERS[name]}")  # whose wrappers call what they hold so
    frozen = [each for key, each in network.named_parameters() if key in loaded and pattern.match(key)]
    if not frozen:
        raise CheckpointError(
            f"no weights of the encoder of {name} were taken over, and none can be frozen",
            hint="leave out training.freeze_encoder",
        )
    for parameter in frozen:
        parameter.requires_grad = False


def _of_changed_layers(config: Config, earlier: Config) -> set[str]:
    """Weights that belong to other channels or labels, even where their number is the same."""
    channels, outputs = len(config.data.channels), config.data.outputs
    changed: set[tuple[str, tuple[int, ...]]] = set()
    if earlier.data.channels != config.data.channels:
        changed |= _shapes(config, channels, outputs) ^ _shapes(config, channels + 1, outputs)
    names, earlier_names = ([label.name for label in each.data.output_labels] for each in (config, earlier))
    if names != earlier_names:
        changed |= _shapes(config, channels, outputs) ^ _shapes(config, channels, outputs + 1)
    return {key for key, _ in changed}


def _shapes(config: Config, channels: int, outputs: int) -> set[tuple[str, tuple[int, ...]]]:
    """Name and shape of every weight; those that differ with one channel or output more depend on their number."""
    state = build_network(config.network, channels, outputs).state_dict()
    return {(key, tuple(value.shape)) for key, value in state.items()}
