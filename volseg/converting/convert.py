"""The verb: convert the networks of a run, with their contract and a script that runs them."""

from __future__ import annotations

import importlib.util
import io
import logging
import tempfile
import warnings
from collections.abc import Sequence
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import torch

from volseg.config import one_of
from volseg.converting.bundle import BUNDLE_FILES, inference_of, write_bundle
from volseg.converting.contract import contract_of, onnx_steps
from volseg.errors import CheckpointError, ConfigError
from volseg.inference.windows import importance
from volseg.io.files import atomic_path, write_text
from volseg.io.json_files import write_json
from volseg.io.written import Inputs, claim
from volseg.model.checkpoint import TrainedNetwork, load_model
from volseg.model.devices import choose_device
from volseg.model.files import model_files
from volseg.reporting.card import CARD_FILES, ModelCard, make_card, write_card

Form = Literal["bundle", "onnx", "openvino"]
#: An opset that runtimes of the last years support.
_OPSET = 20
_CONTRACT_FILE, _WEIGHTS_FILE, _SCRIPT = "contract.json", "window_weights.npy", "run_model.py"


def convert(
    model: str | PathLike[str],
    output: str | PathLike[str],
    *,
    to: Form,
    licence: str = "",
    overwrite: bool = False,
) -> Path:
    """Write the networks of a run in another format, with the model card.

    ONNX and OpenVINO come with contract.json, which states how images are prepared and what the outputs mean, and with
    run_model.py, which runs them without volseg. A bundle contains all of that itself.

    Args:
        model: A run folder, or a model file; of a run of several folds all are converted, but to a bundle only one.
        output: The folder to write.
        to: "bundle" (of MONAI), "onnx" (opset 20) or "openvino" (its intermediate representation).
        licence: Licence of the model.
        overwrite: Whether to replace files there that volseg did not write.

    Returns:
        The folder.

    Raises:
        CheckpointError: If there is no model, or the format cannot hold it.
        ConfigError: If the format is unknown, or a package needed to write it is not installed.
        OutputError: If it cannot be written.
    """
    form = cast("Form", one_of("form", to, get_args(Form)))
    run, folder = Path(model), Path(output)
    models = [load_model(file, choose_device("cpu")) for file in model_files(run)]
    if models[0].config.data.previous_labels:
        raise CheckpointError(f"{run} is a cascade, which a single file cannot hold", hint=f"convert {run}/previous")
    if models[0].parts:
        raise CheckpointError(f"{run} is made of parts, which a single file cannot hold", hint=f"convert {run}/parts/0")
    made = make_card(run, licence)
    if form == "bundle":
        _convert_to_bundle(run, models, folder, made, overwrite=overwrite)
    else:
        _convert_networks(run, models, folder, form, overwrite=overwrite)
    write_card(made, folder)
    return folder


def _convert_to_bundle(
    run: Path, models: Sequence[TrainedNetwork], folder: Path, made: ModelCard, *, overwrite: bool
) -> None:
    model, *others = models
    if others:
        raise CheckpointError(
            f"{run} holds {len(models)} networks, but a bundle holds only one", hint=f"name one: {model.origin}"
        )
    inference = inference_of(model)  # before anything is written: it refuses what no bundle can hold
    claim([folder / name for name in (*BUNDLE_FILES, *CARD_FILES)], Inputs.of(run), overwrite=overwrite)
    dice = {label.name: label.dice for label in made.labels if label.dice is not None}
    write_bundle(model, inference, folder, made.licence, dice)


def _convert_networks(
    run: Path, models: Sequence[TrainedNetwork], folder: Path, form: Form, *, overwrite: bool
) -> None:
    config = models[0].config
    names = [f"network_{n}" for n in range(len(models))] if len(models) > 1 else ["network"]
    ends = _ends(form)
    written = [folder / f"{name}{end}" for name in names for end in ends]
    others = [folder / name for name in (_CONTRACT_FILE, _WEIGHTS_FILE, _SCRIPT, *CARD_FILES)]
    claim([*written, *others], Inputs.of(run), overwrite=overwrite)
    for name, each in zip(names, models, strict=True):
        _write_network(each, folder / name, form)
    with atomic_path(folder / _WEIGHTS_FILE) as temporary:
        weights = io.BytesIO()
        np.save(weights, importance(config.window, config.inference.weights).numpy())
        temporary.write_bytes(weights.getbuffer())
    write_text(folder / _SCRIPT, files("volseg.converting").joinpath(_SCRIPT).read_text(encoding="utf-8"))
    steps = onnx_steps(config) if form == "onnx" else (None, None, None)
    contract = contract_of(config, [f"{name}{ends[0]}" for name in names], _WEIGHTS_FILE, steps)
    write_json(folder / _CONTRACT_FILE, contract)


def _ends(form: Form) -> tuple[str, ...]:
    """Return the suffixes of a network's files; the first is the file to open."""
    match form:
        case "onnx":
            return (".onnx",)
        case _:
            return (".xml", ".bin")


def _write_network(model: TrainedNetwork, base: Path, form: Form) -> None:
    """Write one network, whole or not at all."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters, about their own use of PyTorch
        if form == "onnx":
            _write_onnx(model, Path(folder))
        else:
            _write_openvino(model, Path(folder))
        for end in _ends(form):
            with atomic_path(base.with_name(base.name + end)) as temporary:
                temporary.write_bytes((Path(folder) / f"network{end}").read_bytes())


def _write_onnx(model: TrainedNetwork, folder: Path) -> None:
    if missing := [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"ONNX needs {' and '.join(missing)}", hint="pip install 'volseg[onnx]'")
    config = model.config
    steps = onnx_steps(config)
    # PyTorch treats sides of one step as fixed, so the example has at least two.
    sides = [side if step is None else max(side, 2 * step) for side, step in zip(config.window, steps, strict=True)]
    free = {2 + n: step * torch.export.Dim(f"n{n}", min=1) for n, step in enumerate(steps) if step is not None}
    # PyTorch warns that operators of torchvision are missing, which no network here has.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    program = torch.onnx.export(
        model.network,
        (torch.zeros(1, config.data.inputs, *sides),),
        dynamo=True,
        opset_version=_OPSET,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=(free,),
        verbose=False,
    )
    if program is None:
        raise CheckpointError("PyTorch cannot export this network to ONNX", hint="use --to openvino")
    program.save(folder / "network.onnx")


def _write_openvino(model: TrainedNetwork, folder: Path) -> None:
    if importlib.util.find_spec("openvino") is None:
        raise ConfigError("OpenVINO is not installed", hint="pip install openvino")
    import openvino

    patch = torch.zeros(1, model.config.data.inputs, *model.config.window)
    converted = openvino.convert_model(model.network, example_input=patch, input=[tuple(patch.shape)])
    converted.inputs[0].get_tensor().set_names({"image"})
    converted.outputs[0].get_tensor().set_names({"logits"})
    openvino.save_model(converted, folder / "network.xml", compress_to_fp16=False)
