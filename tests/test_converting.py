"""Converted models: run without volseg, they give volseg's labels."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_importing import DATASET, plans_of, write_image, write_model

import volseg
from volseg.config import dump, validate
from volseg.errors import CheckpointError, ConfigError, OutputExistsError
from volseg.image.box import Box
from volseg.io import read_volume, single_source
from volseg.loaded_model import Model
from volseg.model.checkpoint import TrainedNetwork, save
from volseg.model.networks import build_network
from volseg.prediction.predictor import Predictor

RULES: dict[str, dict[str, Any]] = {
    "as imported": {},
    "as volseg plans": {"steps": "fixed", "weights": "gaussian", "mirroring": "turns", "mirror_axes": ["i"]},
    "far apart": {"overlap": 0.2, "mirror_axes": []},
}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}


def seen_by_the_network(model: Model, path: Path) -> np.ndarray:
    """A volume on the network's grid, normalised."""
    prepared = Predictor(model.networks).prepare_volume(read_volume(single_source(path)), "image")
    (seen,) = prepared.inputs
    return seen.read(Box.whole(seen.shape)).numpy()


def run_elsewhere(folder: Path, volume: np.ndarray, tmp_path: Path) -> np.ndarray:
    """In a process that cannot import volseg."""
    np.save(tmp_path / "volume.npy", volume)
    block = "import sys; sys.modules['volseg'] = sys.modules['torch'] = sys.modules['monai'] = None; "
    code = f"{block}sys.argv = ['', {str(tmp_path / 'volume.npy')!r}, {str(tmp_path / 'labels.npy')!r}]; "
    code += f"import runpy; runpy.run_path({str(folder / 'run_model.py')!r}, run_name='__main__')"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    return np.load(tmp_path / "labels.npy")


@pytest.mark.parametrize("form", ["onnx", "openvino"])
@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("regions", [False, True])
def test_the_script_gives_the_labels_that_volseg_gives(form: Any, rules: str, regions: bool, tmp_path: Path) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    dataset = {**DATASET, "labels": REGIONS, "regions_class_order": [3, 1, 2]} if regions else DATASET
    plans = plans_of(spacing=[2.3, 0.9, 1.1])  # the voxels of the image: the grids are one
    folds = ("0", "1") if rules == "as imported" else ("0",)
    run = volseg.import_model(write_model(tmp_path / "model", plans, dataset, folds=folds), tmp_path / "run")
    model = volseg.load(run, changes={f"inference.{key}": value for key, value in RULES[rules].items()})
    if RULES[rules]:
        (network,) = model.networks
        config = network.config
        if regions:  # drawn elsewhere than at one half
            tree = config.model_dump(mode="json")
            tree["data"]["regions"][0]["threshold"] = 0.3
            config = validate(tree, "the test")
            model = Model((TrainedNetwork(network.weights, config),))
        run = tmp_path / "changed"
        run.mkdir()
        save(run / "model.pt", {"weights": dict(network.weights), "config": dump(config)})
    write_image(tmp_path / "image.nii.gz")
    folder = volseg.convert(run, tmp_path / "converted", to=form)
    volume = seen_by_the_network(model, tmp_path / "image.nii.gz")
    labels = run_elsewhere(folder, volume, tmp_path)
    mask = model.predict(tmp_path / "image.nii.gz", allow_mismatch=True).mask.array
    box = tuple(
        slice(int(where.min()), int(where.max()) + 1)
        for where in np.nonzero(read_volume(single_source(tmp_path / "image.nii.gz")).array[0])
    )
    assert labels.shape == mask[box].shape
    assert (labels != mask[box]).mean() <= 1e-4
    assert len(np.unique(labels)) > 1


def test_onnx_runtime_in_javascript_gives_the_labels_too(tmp_path: Path) -> None:
    if (node := shutil.which("node")) is None or (npm := shutil.which("npm")) is None:
        pytest.skip("Node.js is not installed")
    modules = subprocess.run([npm, "root", "--global"], check=True, capture_output=True, text=True).stdout.strip()
    if not (Path(modules) / "onnxruntime-web").is_dir():
        pytest.skip("onnxruntime-web is not installed: npm install --global onnxruntime-web")
    pytest.importorskip("onnxscript")
    plans = plans_of(spacing=[2.3, 0.9, 1.1])
    run = volseg.import_model(write_model(tmp_path / "model", plans), tmp_path / "run")
    folder = volseg.convert(run, tmp_path / "converted", to="onnx")
    write_image(tmp_path / "image.nii.gz")
    model = volseg.load(run, changes={"inference.mirror_axes": []})
    volume = seen_by_the_network(model, tmp_path / "image.nii.gz")
    np.ascontiguousarray(volume, dtype="<f4").tofile(tmp_path / "volume.bin")
    command = [node, str(Path(__file__).with_name("run_model.js")), str(folder), str(tmp_path / "volume.bin")]
    command += [",".join(map(str, volume.shape)), str(tmp_path / "labels.bin")]
    subprocess.run(command, check=True, env={**os.environ, "NODE_PATH": modules})
    labels = np.fromfile(tmp_path / "labels.bin", np.uint8).reshape(volume.shape[1:])
    contract = json.loads((folder / "contract.json").read_text())
    (folder / "contract.json").write_text(json.dumps({**contract, "mirror_axes": [], "views": 1}))
    wanted = run_elsewhere(folder, volume, tmp_path)
    assert (labels == wanted).mean() >= 0.9999
    assert len(np.unique(labels)) > 1


NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {"name": "unet", "channels": [4, 8], "strides": [[2, 2, 2]]},
    "dynunet": {"name": "dynunet", "filters": [4, 8, 8], "strides": [[2, 2, 1], [2, 2, 2]]},
    "segresnet": {"name": "segresnet", "initial_filters": 8, "blocks_down": [1, 1]},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_in_onnx_take_other_sizes(name: str, tmp_path: Path) -> None:
    """Any whose sides the network can halve; the contract says which."""
    runtime = pytest.importorskip("onnxruntime")
    tree = {
        "data": {"labels": {"ball": 1}},
        "preprocessing": {"spacing_mm": [1, 1, 1], "normalization": [{"method": "zscore"}]},
        "patches": {"size": [16, 16, 8]},
        "network": NETWORKS[name],
    }
    config = validate(tree, "the test")
    network = build_network(config.network, 1, 2).eval()
    (tmp_path / "run").mkdir()
    save(tmp_path / "run" / "model.pt", {"weights": network.state_dict(), "config": dump(config)})
    folder = volseg.convert(tmp_path / "run", tmp_path / "out", to="onnx")
    steps = json.loads((folder / "contract.json").read_text())["other_sides"]
    session = runtime.InferenceSession(folder / "network.onnx", providers=["CPUExecutionProvider"])
    for counts in ((4, 4, 4), (5, 3, 6), (9, 4, 5)):
        image = torch.randn(1, 1, *(count * step for count, step in zip(counts, steps, strict=True)))
        with torch.inference_mode():
            wanted = network(image)
        found = torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0])
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_the_contract_says_what_goes_in_and_out(trained_run: Path, tmp_path: Path) -> None:
    folder = volseg.convert(trained_run, tmp_path / "out", to="openvino")
    contract = json.loads((folder / "contract.json").read_text())
    config = volseg.load(trained_run).config
    assert contract["patch"] == list(config.patches.size)
    assert contract["preprocessing"]["spacing_mm"] == list(config.preprocessing.spacing_mm)
    assert contract["preprocessing"]["axes"] == "RAS"
    assert [channel["name"] for channel in contract["channels"]] == list(config.data.channels)
    assert [output["value"] for output in contract["outputs"]] == [
        0,
        *(label.value for label in config.data.output_labels),
    ]
    assert (contract["input"]["name"], contract["output"]["name"]) == ("image", "logits")


def test_onnx_has_the_operators_of_opset_20(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    run = volseg.import_model(write_model(tmp_path / "model"), tmp_path / "run")
    folder = volseg.convert(run, tmp_path / "out", to="onnx")
    made = onnx.load(folder / "network.onnx")
    onnx.checker.check_model(made)
    assert made.opset_import[0].version >= 20
    network = volseg.load(run).network
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(folder / "network.onnx", providers=["CPUExecutionProvider"])
    image = torch.randn(1, 1, 16, 16, 8)
    with torch.inference_mode():
        wanted = network(image)
    torch.testing.assert_close(
        torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0]), wanted, atol=1e-4, rtol=1e-4
    )


def test_what_cannot_be_converted_is_refused(tmp_path: Path) -> None:
    run = volseg.import_model(write_model(tmp_path / "model"), tmp_path / "run")
    with pytest.raises(ConfigError, match="no form 'tflite'"):
        volseg.convert(run, tmp_path / "out", to="tflite")  # type: ignore[arg-type]
    with pytest.raises(CheckpointError):
        volseg.convert(tmp_path / "nothing", tmp_path / "out", to="openvino")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "contract.json").write_text("mine")
    with pytest.raises(OutputExistsError):
        volseg.convert(run, tmp_path / "mine", to="openvino")
    assert [path.name for path in (tmp_path / "mine").iterdir() if not path.name.startswith(".")] == ["contract.json"]
    assert not (tmp_path / "out").exists()
