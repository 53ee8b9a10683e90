"""Pretrained encoder weights (learned from photographs), under the names that different programs give them.

Layers of VGG and residual networks have the same names in torchvision, timm and here. Those of EfficientNet differ:

    here                          torchvision             timm                      efficientnet-pytorch
    stem.conv                     features.0.0            conv_stem                 _conv_stem
    stages.1.0.depthwise.conv     features.2.0.block.1.0  blocks.1.0.conv_dw        _blocks.1._depthwise_conv
"""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from volseg.config import EncoderConfig
from volseg.errors import CheckpointError
from volseg.io.readable import check_file, unreadable
from volseg.model.encoders.efficientnet import STAGES
from volseg.model.encoders.encoder import Encoder

#: Classification layers after the encoder.
_CLASSIFIER = re.compile(
    r"(fc|classifier|head|_fc|_conv_head|_bn1|conv_head|bn2|pre_logits|head_fc|features\.8)\..*|.*num_batches_tracked"
)
_HINT = "give the state dictionary of torchvision, timm or efficientnet-pytorch for network.encoder.name"
#: Channels of a photograph: red, green and blue.
_COLORS = 3

Names = Mapping[str, str]

logger = logging.getLogger(__name__)


def load_pretrained(encoder: Encoder, config: EncoderConfig) -> None:
    """Initialise an encoder with the weights of a file.

    For images of one channel, the first layer sums the weights of three: that gives the same output as an image with
    three equal channels.

    Args:
        encoder: Of planes; changed in place.
        config: Names the file.

    Raises:
        CheckpointError: If the file cannot be read, or its weights do not fit the encoder.
    """
    if config.weights is None:
        return
    path = Path(config.weights)
    stored = _read(path)
    names = _names(encoder, config, stored)
    own = encoder.state_dict()
    wanted = {name: stored.get(theirs) for name, theirs in names.items()}
    if missing := [names[name] for name, tensor in wanted.items() if tensor is None]:
        raise CheckpointError(f"{path} has no {missing[0]}: it is not a {config.name}", hint=_HINT)
    extra = [name for name in stored if name not in names.values() and not _CLASSIFIER.fullmatch(name)]
    if extra:
        raise CheckpointError(f"{path} has {extra[0]}, which {config.name} does not have", hint=_HINT)
    weights = {name: tensor for name, tensor in wanted.items() if tensor is not None}
    first = next(name for name in weights if weights[name].dim() > 1)
    weights[first] = _for_channels(weights[first], own[first].shape[1], path)
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape:
            raise CheckpointError(
                f"{path}: {names[name]} is {list(tensor.shape)}, {config.name} has {list(own[name].shape)}", hint=_HINT
            )
    encoder.load_state_dict(weights, strict=False)  # batch counters are not among them


def _read(path: Path) -> dict[str, Tensor]:
    check_file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise unreadable(path, error) from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} holds no weights that can be read", hint=_HINT) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise CheckpointError(f"{path} is not a state dictionary", hint=_HINT)
    return {str(name): tensor for name, tensor in content.items()}


def _names(encoder: Encoder, config: EncoderConfig, stored: Mapping[str, Tensor]) -> dict[str, str]:
    """Map each tensor of the encoder to its name in the file."""
    own = [name for name in encoder.state_dict() if not name.endswith("num_batches_tracked")]
    if "efficientnet" not in config.name:
        return {name: name for name in own}
    if "_conv_stem.weight" in stored:
        if config.name == "efficientnet_b0":
            logger.warning(
                "%s was trained with TensorFlow's padding: network.encoder.name=tf_efficientnet_b0 reproduces that",
                config.weights,
            )
        layers = dict(_of_efficientnet_pytorch())
    elif "conv_stem.weight" in stored:
        layers = dict(_of_timm())
    else:
        layers = dict(_of_torchvision())
    return {name: f"{layers[layer]}.{kind}" for name in own for layer, _, kind in [name.rpartition(".")]}


def _blocks() -> Iterator[tuple[int, int, int, bool]]:
    """Yield, for each block, its stage, its index in the stage, its overall index, and whether it is expanded."""
    number = 0
    for stage, (_, _, widening, _, count) in enumerate(STAGES):
        for n in range(count):
            yield stage, n, number, widening > 1
            number += 1


def _of_efficientnet_pytorch() -> Iterator[tuple[str, str]]:
    yield from (("stem.conv", "_conv_stem"), ("stem.norm", "_bn0"))
    for stage, n, number, _ in _blocks():
        here, there = f"stages.{stage}.{n}", f"_blocks.{number}"
        for part, conv, norm in (
            ("expand", "_expand_conv", "_bn0"),
            ("depthwise", "_depthwise_conv", "_bn1"),
            ("project", "_project_conv", "_bn2"),
        ):
            yield f"{here}.{part}.conv", f"{there}.{conv}"
            yield f"{here}.{part}.norm", f"{there}.{norm}"
        yield f"{here}.squeeze.reduce", f"{there}._se_reduce"
        yield f"{here}.squeeze.expand", f"{there}._se_expand"


def _of_timm() -> Iterator[tuple[str, str]]:
    yield from (("stem.conv", "conv_stem"), ("stem.norm", "bn1"))
    for stage, n, _, widened in _blocks():
        here, there = f"stages.{stage}.{n}", f"blocks.{stage}.{n}"
        parts = ("conv_pw", "conv_dw", "conv_pwl") if widened else ("", "conv_dw", "conv_pw")
        norms = ("bn1", "bn2", "bn3") if widened else ("", "bn1", "bn2")
        for part, conv, norm in zip(("expand", "depthwise", "project"), parts, norms, strict=True):
            yield f"{here}.{part}.conv", f"{there}.{conv}"
            yield f"{here}.{part}.norm", f"{there}.{norm}"
        yield f"{here}.squeeze.reduce", f"{there}.se.conv_reduce"
        yield f"{here}.squeeze.expand", f"{there}.se.conv_expand"


def _of_torchvision() -> Iterator[tuple[str, str]]:
    yield from (("stem.conv", "features.0.0"), ("stem.norm", "features.0.1"))
    for stage, n, _, widened in _blocks():
        here, there = f"stages.{stage}.{n}", f"features.{stage + 1}.{n}.block"
        first = 1 if widened else 0
        for part, number in (("expand", 0), ("depthwise", first), ("project", first + 2)):
            yield f"{here}.{part}.conv", f"{there}.{number}.0"
            yield f"{here}.{part}.norm", f"{there}.{number}.1"
        yield f"{here}.squeeze.reduce", f"{there}.{first + 1}.fc1"
        yield f"{here}.squeeze.expand", f"{there}.{first + 1}.fc2"


def _for_channels(weight: Tensor, channels: int, path: Path) -> Tensor:
    """Adapt the weights of the first layer to images of one or three channels."""
    if channels == weight.shape[1]:
        return weight
    if channels == 1 and weight.shape[1] == _COLORS:
        return weight.sum(dim=1, keepdim=True)
    raise CheckpointError(
        f"{path} was trained on images of {weight.shape[1]} channels, these have {channels}",
        hint="leave out network.encoder.weights, or keep one channel or three",
    )
