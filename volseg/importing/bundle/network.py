"""Convert the network of a bundle to a configuration, or refuse it and name the difference."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from volseg.config import NetworkConfig
from volseg.errors import CheckpointError
from volseg.importing.bundle.components import arguments_of, class_name
from volseg.importing.bundle.content import HINT
from volseg.model.monai_networks import Statement, statement_of

#: Arguments that do not affect prediction, or have another name today.
_PASSED_OVER = {"dropout", "dropout_prob", "dropout_prob_down", "dropout_prob_up", "drop_rate", "attn_drop_rate",
                "dropout_path_rate", "use_checkpoint", "img_size", "deep_supr_num"}  # fmt: skip
_MOST_CHANNELS = 4096
_OLD_NAMES = {"dimensions": "spatial_dims"}
#: Class -> network of volseg; its arguments -> keys of volseg.
_NETWORKS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "UNet": ("unet", {"channels": "channels", "strides": "strides", "num_res_units": "residual_units", "norm": "norm"}),
    "DynUNet": (
        "dynunet",
        {
            "filters": "filters",
            "strides": "strides",
            "kernel_size": "kernels",
            "res_block": "residual",
            "deep_supr_num": "deep_supervision",
        },
    ),
    "SegResNet": ("segresnet", {"init_filters": "initial_filters", "blocks_down": "blocks_down"}),
    "AttentionUnet": ("attention_unet", {"channels": "channels"}),
    "SwinUNETR": ("swin_unetr", {"feature_size": "feature_size"}),
    "VNet": ("vnet", {}),
}


def read_network(stated: Any, where: str) -> tuple[NetworkConfig, int, int]:
    """Read a network.

    Args:
        stated: Class and arguments.
        where: Its name in errors.

    Returns:
        The network, its channels and its outputs.

    Raises:
        CheckpointError: If volseg has no such network; names the unsupported argument.
    """
    name = class_name(stated, where)
    if name not in _NETWORKS:
        raise CheckpointError(f"{where} is {name}, which volseg does not have", hint=HINT)
    told = {_OLD_NAMES.get(key, key): value for key, value in arguments_of(stated).items()}
    if name == "SegResNet" and _plain(told.get("norm_name")) == "group":
        del told["norm_name"]  # as older bundles state the default
    wanted = {**_defaults(name), **told}
    channels, outputs = wanted.get("in_channels"), wanted.get("out_channels")
    if (
        not isinstance(channels, int)
        or not isinstance(outputs, int)
        or not (0 < channels <= _MOST_CHANNELS and 0 < outputs <= _MOST_CHANNELS)
    ):
        raise CheckpointError(f"{where}: {name} does not state its channels", hint=HINT)
    network = _config_of(name, wanted, where)
    made = statement_of(network, channels, outputs)
    _check_same(wanted, made or Statement(name, {}), where)
    return network, channels, outputs


def _config_of(name: str, wanted: Mapping[str, Any], where: str) -> NetworkConfig:
    network, keys = _NETWORKS[name]
    tree = {own: wanted[theirs] for theirs, own in keys.items() if wanted.get(theirs) is not None}
    if name == "UNet":
        tree = {**tree, "strides": _triples(tree.get("strides")), "norm": _plain(tree["norm"])}
    if name == "DynUNet":
        levels = _triples(tree.get("strides"))
        tree |= {"strides": levels[1:], "kernels": _triples(tree.get("kernels"))}
        tree["deep_supervision"] = wanted["deep_supr_num"] if wanted["deep_supervision"] else 0
        tree.setdefault("filters", [min(2 ** (5 + n), 320) for n in range(len(levels))])  # as MONAI has them by default
    adapter: TypeAdapter[NetworkConfig] = TypeAdapter(NetworkConfig)
    try:
        return adapter.validate_python({"name": network, **tree})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"][1:])
        raise CheckpointError(
            f"{where}: {name} {key}: {first['msg'].removeprefix('Value error, ')}", hint=HINT
        ) from error


def _check_same(wanted: Mapping[str, Any], made: Statement, where: str) -> None:
    """Check that volseg's network has the same arguments."""
    own = {**_defaults(made.name), **made.arguments}
    for argument, value in wanted.items():
        if argument in _PASSED_OVER or (argument == "filters" and value is None):
            continue
        if argument not in own or _plain(value) != _plain(own[argument]):
            raise CheckpointError(f"{where}: {made.name} with {argument}={value!r} is not supported", hint=HINT)


def _defaults(name: str) -> dict[str, Any]:
    """Return MONAI's default arguments."""
    from monai.networks import nets  # takes seconds

    parameters = inspect.signature(getattr(nets, name).__init__).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}


def _triples(values: Any) -> list[Any]:
    """Expand one number or three for each level to three."""
    if not isinstance(values, list | tuple):
        return []
    return [[each] * 3 if isinstance(each, int) else each for each in values]


def _plain(value: Any) -> Any:
    """Normalise a value for comparison: names ignore case, three equal sizes become one."""
    match value:
        case str():
            return value.lower()
        case list() | tuple():
            parts = [_plain(each) for each in value]
            if len(parts) == 2 and isinstance(parts[0], str) and isinstance(parts[1], dict):
                options = {key: each for key, each in parts[1].items() if key != "inplace"}
                return [parts[0], options] if options else parts[0]
            return parts[0] if parts and all(isinstance(each, int) and each == parts[0] for each in parts) else parts
        case dict():
            return {key: _plain(each) for key, each in value.items()}
        case _:
            return value
