"""Weights of other programs: loaded without executing anything, and checked against their network."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from volseg.config import SwinUNETR
from volseg.errors import CheckpointError
from volseg.model.checkpoint import TrainedNetwork, load_plain, tensors_in
from volseg.model.networks import build_network

_COPY = "copy it again from where it was trained"
#: Prefixes of weights saved from several GPUs, or from a compiled network.
_WRAPPERS = ("module.", "_orig_mod.")


def read_dictionary(path: Path, what: str, harmless: Sequence[Any] = ()) -> dict[str, Any]:
    """Read a file that `torch.save` wrote; no code in it is executed.

    Args:
        path: The file.
        what: What it should be: "checkpoint of nnU-Net".
        harmless: Types allowed besides tensors and plain values, as for `torch.serialization.safe_globals`.

    Raises:
        CheckpointError: If it is damaged, or holds anything else.
    """
    try:
        content = load_plain(path, harmless)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than weights: {_culprit(error)}; it could be code, so it is not loaded",
            hint="ask its author for a file with weights only",
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged or not a {what}", hint=_COPY) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a {what}: it holds no dictionary", hint=_COPY)
    return content


def weights_in(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the weights in a dictionary, at its top level or under one key: names without wrappers, values in float32.

    Raises:
        CheckpointError: If there are none.
    """
    tensors = tensors_in(content)
    if not tensors:
        raise CheckpointError(f"{path} holds no weights", hint=_COPY)
    return {plain_name(name): value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def plain_name(name: object) -> str:
    """Return the name of a weight without the prefixes of wrapper modules."""
    plain = str(name)
    for wrapper in _WRAPPERS:
        plain = plain.removeprefix(wrapper)
    return plain


def check_fit(model: TrainedNetwork, hint: str) -> None:
    """Check that weights fit their network, before allocating its memory.

    Args:
        model: Weights and configuration.
        hint: What to do about a mismatch.

    Raises:
        CheckpointError: If not; names the first weight that does not fit.
    """
    config = model.config
    # Built without memory, except for the one network that computes values in its constructor.
    place = "cpu" if isinstance(config.network, SwinUNETR) else "meta"
    try:
        with torch.device(place):
            network = build_network(config.network, config.data.inputs, config.data.outputs)
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{model.origin}: such a network cannot be built", hint=hint) from error
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for name, shape in shapes.items():
        own = tuple(model.weights[name].shape) if name in model.weights else None
        if own != shape:
            raise CheckpointError(
                f"{model.origin}: {name} is {_shown(own)}; the stated network, channels and labels need "
                f"{_shown(shape)}",
                hint=hint,
            )
    if strange := [name for name in model.weights if name not in shapes]:
        raise CheckpointError(f"{model.origin}: {strange[0]} does not belong to such a network", hint=hint)


def _shown(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " x ".join(map(str, shape)) or "a number"


def _culprit(error: pickle.UnpicklingError) -> str:
    """Extract the name of the type that is not loaded from PyTorch's long message."""
    words = [word.strip(".,:`'\"") for word in str(error).replace("GLOBAL", "").split()]
    names = [word for word in words if "." in word and word.replace(".", "").replace("_", "").isalnum()]
    return next((name for name in names if not name.startswith("torch.")), "something unknown")
