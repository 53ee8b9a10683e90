"""Transfer learning: initialise a network with the weights of an earlier one that fit and keep their meaning."""

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

#: Patterns of the names of encoder parameters, including the bottleneck; all others belong to the decoder.
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
    """Load the matching weights of another run, or of a weights file of the same network.

    The first layers keep random weights if the channels differ, the output layers if the labels differ; a warning lists
    them.

    Args:
        network: The network to initialise.
        config: The configuration of the network, its channels and labels.
        source: A run, a model file, or a file that holds only weights.

    Returns:
        The names of the weights that were loaded.

    Raises:
        CheckpointError: If the file does not exist, or none of its weights fit.
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
            hint="start from a run with the same network configuration",
        )
    network.load_state_dict({**own, **fitting})
    fresh = sorted({key.rpartition(".")[0] for key in own if key not in fitting})
    logger.warning(
        "started from %s with %d of %d weights; initialised at random: %s",
        source,
        len(fitting),
        len(own),
        ", ".join(fresh) or "none",
    )
    return set(fitting)


def freeze_encoder(network: nn.Module, name: NetworkName, loaded: Collection[str]) -> None:
    """Freeze the loaded weights of the encoder; the decoder and randomly initialised layers stay trainable.

    Raises:
        CheckpointError: If none of them was loaded.
    """
    pattern = re.compile(rf"(network\.)*{_ENCODERS[name]}")  # the prefix that wrappers add
    frozen = [each for key, each in network.named_parameters() if key in loaded and pattern.match(key)]
    if not frozen:
        raise CheckpointError(
            f"no encoder weights of {name} were loaded, so none can be frozen",
            hint="leave out training.freeze_encoder",
        )
    for parameter in frozen:
        parameter.requires_grad = False


def _of_changed_layers(config: Config, earlier: Config) -> set[str]:
    """Return the names of weights that belong to other channels or labels, even if their number is the same."""
    channels, outputs = len(config.data.channels), config.data.outputs
    changed: set[tuple[str, tuple[int, ...]]] = set()
    if earlier.data.channels != config.data.channels:
        changed |= _shapes(config, channels, outputs) ^ _shapes(config, channels + 1, outputs)
    names, earlier_names = ([label.name for label in each.data.output_labels] for each in (config, earlier))
    if names != earlier_names:
        changed |= _shapes(config, channels, outputs) ^ _shapes(config, channels, outputs + 1)
    return {key for key, _ in changed}


def _shapes(config: Config, channels: int, outputs: int) -> set[tuple[str, tuple[int, ...]]]:
    """Return name and shape of every weight, given the number of channels and outputs."""
    state = build_network(config.network, channels, outputs).state_dict()
    return {(key, tuple(value.shape)) for key, value in state.items()}
