"""Convert a bundle to a configuration and weights of volseg."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from volseg.config import named_modality, validate
from volseg.errors import CheckpointError, ConfigError
from volseg.importing.bundle import components
from volseg.importing.bundle.components import read_component
from volseg.importing.bundle.content import HINT, Bundle
from volseg.importing.bundle.network import read_network
from volseg.importing.bundle.postprocessing import Answers, read_answers
from volseg.importing.bundle.preprocessing import read_preprocessing
from volseg.importing.weights import check_fit, read_dictionary, weights_in
from volseg.model.checkpoint import TrainedNetwork
from volseg.model.networks import check_divisible

_MODEL_FOLDER = "models"


def convert_bundle(bundle: Bundle, axes: str, paint: Sequence[str]) -> TrainedNetwork:
    """Rebuild the model of a bundle.

    Args:
        bundle: Its content.
        axes: Directions of the network's axes, or "stored", or "" for those of the bundle.
        paint: Names of outputs that may overlap, in the order in which they are painted.

    Returns:
        The model, whose weights fit its network.

    Raises:
        CheckpointError: If anything is not supported, or does not fit.
    """
    network, channels, outputs = read_network(bundle.get("network_def"), bundle.where("network_def"))
    names = _named(bundle, "outputs", outputs)
    answers = read_answers(bundle.get("postprocessing"), bundle.where("postprocessing"), names, paint)
    window = read_component(bundle.get("inferer"), bundle.where("inferer"))
    if not isinstance(window, components.SlidingWindow):
        raise CheckpointError(f"{bundle.where('inferer')} is not a SlidingWindowInferer", hint=HINT)
    stated, where = bundle.get("preprocessing"), bundle.where("preprocessing")
    preprocessing = {**read_preprocessing(stated, where, channels, axes), "answers": answers.interpolated}
    size = [window.roi_size] * 3 if isinstance(window.roi_size, int) else window.roi_size
    tree = {
        "data": _data(bundle, channels, names, answers),
        "preprocessing": preprocessing,
        "patches": {"size": size},
        "network": network.model_dump(mode="json"),
        "inference": _inference(window),
        "augmentation": {"flip_axes": []},
        "postprocess": _rules(answers, names),
    }
    try:
        check_divisible(network, size, bundle.where("inferer"), "windows", HINT)
        config = validate(tree, str(bundle.file))
    except ConfigError as error:
        raise CheckpointError(str(error), hint=HINT) from error
    file = _weights_file(bundle)
    weights = weights_in(read_dictionary(file, "weights"), file)
    model = TrainedNetwork(weights, config, origin=str(file))
    check_fit(model, "network_def and the weights must come from the same training")
    return model


def _named(bundle: Bundle, side: str, count: int) -> list[str]:
    """Return the names of the image channels, or of the outputs."""
    stated = bundle.described(side, "image" if side == "inputs" else "pred", "channel_def")
    defined = stated if isinstance(stated, dict) else {}
    names = [str(defined.get(str(n), "")).strip() for n in range(count)]
    word = "channel" if side == "inputs" else "label"
    names = [name or f"{word}_{n}" for n, name in enumerate(names)]
    return ["image"] if side == "inputs" and count == 1 else names


def _data(bundle: Bundle, channels: int, names: Sequence[str], answers: Answers) -> dict[str, Any]:
    stated = bundle.described("inputs", "image", "modality")
    modality = named_modality(stated) if isinstance(stated, str) else None
    tree = {"channels": _named(bundle, "inputs", channels), "modality": [modality or "unknown"] * channels}
    if not answers.regions:
        return {**tree, "labels": {name: value for value, name in enumerate(names) if value}}
    return {
        **tree,
        "labels": {names[output]: value for output, value, _ in answers.regions},
        "regions": [
            {"name": names[output], "labels": [value], "value": value, "threshold": threshold}
            for output, value, threshold in sorted(answers.regions)
        ],
        "painted": [names[output] for output, *_ in answers.regions],
    }


def _inference(window: components.SlidingWindow) -> dict[str, Any]:
    overlaps = window.overlap if isinstance(window.overlap, list) else [window.overlap]
    if len(set(overlaps)) != 1:
        raise CheckpointError(f"the windows of the inferer overlap by {overlaps}, differently along axes", hint=HINT)
    mirrors: dict[str, Any] = {"mirror_axes": [], "mirroring": "each"}
    if isinstance(window, components.MirroredSlidingWindow):
        axes = ["ijk"[axis] for axis in window.mirror_axes]
        mirrors = {"mirror_axes": axes, "mirroring": "turns" if window.in_turns else "each"}
    return {
        **mirrors,
        "overlap": overlaps[0],
        "weights": window.mode,
        "padding": "zeros" if window.padding_mode == "constant" else "edge",
        "precision": "fp32",
        "air": None,
    }


def _rules(answers: Answers, names: Sequence[str]) -> list[dict[str, Any]]:
    named = {value: names[output] for output, value, _ in answers.regions} or dict(enumerate(names[1:], start=1))
    return [
        {"label": named[value], rule.key: True, "connectivity": rule.connectivity}
        for rule in answers.rules
        for value in (named if rule.values is None else rule.values)
        if value in named
    ]


def _weights_file(bundle: Bundle) -> Path:
    """Return the file that its CheckpointLoader loads, or the only one there is.

    Raises:
        CheckpointError: If there is none, or it lies outside the bundle.
    """
    folder = bundle.folder / _MODEL_FOLDER
    named = _load_path(bundle)
    if named is not None:
        file = folder / Path(named).name
        if Path(named).parent.name != _MODEL_FOLDER or not file.is_file():
            raise CheckpointError(f"{bundle.file}: its weights, {named}, do not exist", hint=f"put them into {folder}")
        return file
    files = sorted(folder.glob("*.pt"))
    if len(files) != 1:
        raise CheckpointError(f"{folder} holds {len(files)} weight files (.pt)", hint="keep only the one to use")
    return files[0]


def _load_path(bundle: Bundle) -> str | None:
    """Return the file that a CheckpointLoader names, if it is plain text."""
    loaders = [bundle.get("checkpointloader")]
    handlers = bundle.get("handlers")
    loaders += handlers if isinstance(handlers, list) else []
    for loader in loaders:
        if isinstance(loader, dict) and str(loader.get("_target_", "")).endswith("CheckpointLoader"):
            path = loader.get("load_path")
            return path if isinstance(path, str) else None
    return None
