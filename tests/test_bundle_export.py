"""Runs as bundles of MONAI: what MONAI's own command line makes of them, and what they are when they come back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import make_case
from test_bundles import BUNDLES, painted, write_bundle, write_image

import volseg
from volseg.config import dump, validate
from volseg.errors import CheckpointError, OutputExistsError
from volseg.io import write_volume
from volseg.model.checkpoint import save
from volseg.model.networks import build_network

BASE: dict[str, Any] = {
    "data": {"channels": ["image"], "modality": ["MR"], "labels": {"ball": 1, "box": 2}},
    "preprocessing": {"spacing_mm": [1.5, 1.2, 1.6], "normalization": [{"method": "zscore", "nonzero": False}]},
    "patches": {"size": [16, 16, 8]},
    "network": {"name": "dynunet", "filters": [4, 8, 8], "strides": [[2, 2, 1], [2, 2, 2]]},
    "inference": {"air": None, "precision": "fp32", "backend": "torch"},
    "postprocess": [],
}
UNET = {"name": "unet", "channels": [4, 8, 8], "strides": [[2, 2, 2], [2, 2, 2]]}
REGIONS = [
    {"name": "core", "labels": [2], "value": 2, "threshold": 0.4},
    {"name": "whole", "labels": [1, 2], "value": 1, "threshold": 0.6},
]
RUNS: dict[str, dict[str, Any]] = {
    "as planned": {},
    "mirrored in turns": {"inference": {"mirror_axes": ["left-right", "inferior-superior"]}},
    "mirrored": {"inference": {"mirror_axes": ["posterior-anterior"], "mirroring": "each", "overlap": 0.3}},
    "largest parts": {
        "postprocess": [{"label": "box", "keep_largest": True, "fill_holes": True}, {"label": "*", "fill_holes": True}]
    },
    "ct": {"preprocessing": {"normalization": [{"method": "ct", "low": 70, "high": 190, "mean": 110, "std": 30}]}},
    "percentiles": {"preprocessing": {"normalization": [{"method": "percentiles"}]}, "network": UNET},
    "minmax": {"preprocessing": {"normalization": [{"method": "minmax"}], "axes": "LPS"}},
    "stored": {"preprocessing": {"axes": "stored", "spacing_mm": [None, None, None]}},
    "some spacings": {"preprocessing": {"spacing_mm": [None, None, 1.5]}},
    "regions": {"data": {"regions": REGIONS, "painted": ["whole", "core"]}},
    "segresnet": {"network": {"name": "segresnet", "initial_filters": 8, "blocks_down": [1, 1]}},
    "vnet": {"network": {"name": "vnet"}, "patches": {"size": [16, 16, 16]}},
}


def write_run(folder: Path, changes: dict[str, Any]) -> Path:
    """A run with random weights, each output of which wins somewhere."""
    tree = {key: value if isinstance(value, list) else {**value} for key, value in BASE.items()}
    for key, change in changes.items():
        tree[key] = change if isinstance(change, list) or "name" in change else {**tree[key], **change}
    config = validate(tree, "the test")
    torch.manual_seed(0)
    network = build_network(config.network, config.data.inputs, config.data.outputs).eval()
    with torch.inference_mode():
        logits = network(torch.rand(1, 1, 32, 32, 32))
        *_, bias = (each for each in network.parameters() if each.shape == (config.data.outputs,))
        bias -= logits.mean(dim=(0, 2, 3, 4))
    folder.mkdir()
    save(folder / "model.pt", {"weights": network.state_dict(), "config": dump(config)})
    return folder


def monai(bundle: Path, *words: str) -> None:
    """MONAI's command line, in the folder of a bundle, where volseg cannot be imported."""
    code = "import sys, runpy; sys.modules['volseg'] = None; sys.argv[0] = 'bundle'; sys.path.insert(0, ''); "
    code += "runpy.run_module('monai.bundle', run_name='__main__', alter_sys=True)"
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=bundle, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


#: One process of MONAI each takes long; what differs most is tried whenever tests run.
QUICK = ("as planned", "mirrored in turns", "regions")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RUNS]
)
def test_monai_runs_the_bundle_and_volseg_takes_it_back(name: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", RUNS[name])
    bundle = volseg.convert(run, tmp_path / "bundle", to="bundle", licence="CC-BY-4.0")
    image = write_image(tmp_path / "image.nii.gz")
    (bundle / "images").mkdir()
    write_image(bundle / "images" / "image.nii.gz")
    monai(bundle, "run", "--config_file", "configs/inference.json")
    (made,) = (bundle / "eval").rglob("*.nii.gz")
    found = np.asarray(nib.load(made).dataobj).round()
    wanted = volseg.load(run).predict(image).mask.array
    assert len(np.unique(wanted)) == 3
    assert (found == wanted).mean() >= 0.999
    back = volseg.load(volseg.import_model(bundle, tmp_path / "back"))
    np.testing.assert_array_equal(back.predict(image).mask.array, wanted)
    assert [(label.name, label.value) for label in back.labels] == [
        (label.name, label.value) for label in volseg.load(run).labels
    ]


def test_monai_finds_the_shapes_as_they_are_stated(tmp_path: Path) -> None:
    bundle = volseg.convert(write_run(tmp_path / "run", {}), tmp_path / "bundle", to="bundle")
    told = ("--meta_file", "configs/metadata.json", "--config_file", "configs/inference.json", "--device", "cpu")
    monai(bundle, "verify_net_in_out", "network_def", *told)


def test_a_trained_run_travels_with_its_card(trained_run: Path, tmp_path: Path) -> None:
    """The script inside answers as the network does, and says what it is."""
    bundle = volseg.convert(trained_run, tmp_path / "bundle", to="bundle", licence="CC-BY-4.0")
    extra = {"metadata.json": "", "inference.json": ""}
    with pytest.warns(DeprecationWarning, match=r"torch\.jit\.load"):
        scripted = torch.jit.load(bundle / "models" / "model.ts", _extra_files=extra)
    model = volseg.load(trained_run)
    patch = torch.randn(1, 1, *model.config.window)
    with torch.inference_mode():
        torch.testing.assert_close(scripted(patch), model.network(patch), atol=1e-5, rtol=1e-4)
    metadata = json.loads(extra["metadata.json"])
    assert metadata["copyright"] == "CC-BY-4.0"
    assert set(metadata["eval_metrics"]) == {f"dice_{label.name}" for label in model.labels}
    assert json.loads(extra["inference.json"])["network_def"]["_target_"]
    assert "CC-BY-4.0" in (bundle / "MODEL_CARD.md").read_text()
    assert {label["name"] for label in json.loads((bundle / "model_card.json").read_text())["labels"]} == {
        label.name for label in model.labels
    }


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"network": {"name": "plain_unet"}, "patches": {"size": [16, 16, 16]}}, "plain_unet"),
        ({"preprocessing": {"crop": "nonzero"}}, "crop nonzero"),
        ({"preprocessing": {"interpolation": "cubic"}}, "interpolation cubic"),
        ({"preprocessing": {"grid": "extent"}}, "grid extent"),
        ({"inference": {"steps": "even"}}, "steps even"),
        ({"inference": {"weights": "cut_gaussian"}}, "weights cut_gaussian"),
        ({"postprocess": [{"min_volume_ml": 1.0}]}, "keep_largest and fill_holes"),
        ({"data": {"labels": {"ball": 1, "box": 5}}}, "without gaps"),
    ],
)
def test_what_no_bundle_can_hold_is_named(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    base = {key: {**BASE[key], **value} if isinstance(value, dict) else value for key, value in changes.items()}
    run = write_run(tmp_path / "run", {**base, **({"network": changes["network"]} if "network" in changes else {})})
    with pytest.raises(CheckpointError, match=named):
        volseg.convert(run, tmp_path / "bundle", to="bundle")
    assert not (tmp_path / "bundle").exists()


def test_files_of_somebody_else_stay(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {})
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "MODEL_CARD.md").write_text("mine")
    with pytest.raises(OutputExistsError):
        volseg.convert(run, tmp_path / "bundle", to="bundle")
    assert [path.name for path in (tmp_path / "bundle").iterdir()] == ["MODEL_CARD.md"]


@pytest.mark.parametrize("name", ["spleen", "two steps", "percentiles", "largest"])
def test_a_bundle_that_was_imported_goes_out_again(name: str, tmp_path: Path) -> None:
    run = volseg.import_model(write_bundle(tmp_path / "first", BUNDLES[name]), tmp_path / "run")
    again = volseg.convert(run, tmp_path / "second", to="bundle")
    image = write_image(tmp_path / "image.nii.gz")
    one, other = (
        volseg.load(each).predict(image).mask.array for each in (run, volseg.import_model(again, tmp_path / "back"))
    )
    np.testing.assert_array_equal(one, other)


def test_several_channels_are_files_of_a_folder(tmp_path: Path) -> None:
    text = "$lambda x: torch.where(x[[2]] > 0, 3, torch.where(x[[0]] > 0, 1, torch.where(x[[1]] > 0, 2, 0)))"
    first = write_bundle(tmp_path / "first", **painted(text, "core", "whole", "enhancing"))
    run = volseg.import_model(first, tmp_path / "run")
    bundle = volseg.convert(run, tmp_path / "bundle", to="bundle")
    image, _ = make_case(4, (25, 22, 12))
    folder = bundle / "images" / "patient"
    folder.mkdir(parents=True)
    for name in ("0_T1", "1_T2"):
        write_volume(image, folder / f"{name}.nii.gz")
    monai(bundle, "run", "--config_file", "configs/inference.json")
    (made,) = (bundle / "eval").rglob("*.nii.gz")
    found = np.asarray(nib.load(made).dataobj).round()
    sources = {"T1": folder / "0_T1.nii.gz", "T2": folder / "1_T2.nii.gz"}
    assert (found == volseg.load(run).predict(sources).mask.array).mean() >= 0.999
