"""Bundles of MONAI as runs of volseg, beside what MONAI itself makes of them."""

from __future__ import annotations

import json
import pickle
import random
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import STORAGE_ORDERS, make_case
from monai.bundle import ConfigParser
from monai.networks import nets
from test_importing import Touch, is_refused, mutated

import volseg
from volseg.errors import CheckpointError, DataError
from volseg.image.volume import Volume
from volseg.importing import import_model
from volseg.io import write_volume
from volseg.io.dicom import write_series

UNET = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "channels": [4, 8, 8],
    "strides": [2, 2],
    "num_res_units": 2,
    "norm": "batch",
}
RANGE = {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 80, "a_max": 190, "b_min": 0, "b_max": 1}
PERCENTILES = {"_target_": "ScaleIntensityRangePercentilesd", "keys": "image"}
STANDARDIZE = {"_target_": "NormalizeIntensityd", "keys": "image"}
SPACING = {"_target_": "Spacingd", "keys": "image", "pixdim": [1.5, 1.2, 1.6], "mode": "bilinear"}
ORIENTATION = {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"}
SOFTMAX = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
SIGMOID = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
ARGMAX = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
INVERT = {
    "_target_": "Invertd",
    "keys": "pred",
    "transform": "@preprocessing",
    "orig_keys": "image",
    "nearest_interp": False,
    "to_tensor": True,
}
NEAREST = {**INVERT, "nearest_interp": True}
SAVE = {"_target_": "SaveImaged", "keys": "pred", "output_dir": "$@bundle_root + '/eval'"}
METADATA = {
    "version": "0.1.0",
    "network_data_format": {
        "inputs": {"image": {"modality": "MR", "num_channels": 1, "channel_def": {"0": "image"}}},
        "outputs": {"pred": {"num_channels": 3, "channel_def": {"0": "background", "1": "ball", "2": "box"}}},
    },
}


def chain(*transforms: dict[str, Any]) -> dict[str, Any]:
    return {"_target_": "Compose", "transforms": list(transforms)}


def before(*transforms: dict[str, Any]) -> dict[str, Any]:
    read = {"_target_": "LoadImaged", "keys": "image"}
    return chain(read, {"_target_": "EnsureChannelFirstd", "keys": "image"}, *transforms)


def inference(**changes: Any) -> dict[str, Any]:
    """What zoo bundles say, in their own form."""
    return {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": UNET,
        "network": "$@network_def.to(@device)",
        "preprocessing": before(ORIENTATION, SPACING, STANDARDIZE, {"_target_": "EnsureTyped", "keys": "image"}),
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 8], "sw_batch_size": 4, "overlap": 0.5},
        "postprocessing": chain(SOFTMAX, INVERT, ARGMAX, SAVE),
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
            }
        ],
        **changes,
    }


def write_bundle(
    folder: Path, stated: dict[str, Any], metadata: dict[str, Any] = METADATA, *, as_yaml: bool = False
) -> Path:
    """A bundle whose network has random weights, and statistics of a batch where it has any."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    text = json.dumps(stated)
    if as_yaml:
        text = yaml.safe_dump(stated)
    (folder / "configs" / f"inference.{'yaml' if as_yaml else 'json'}").write_text(text)
    torch.manual_seed(0)
    told = {key: value for key, value in stated["network_def"].items() if not key.startswith("_")}
    network = getattr(nets, stated["network_def"]["_target_"])(**told)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    with torch.inference_mode():  # each output shall win somewhere
        logits = network.eval()(torch.rand(1, told["in_channels"], 64, 32, 32))
        *_, bias = (each for each in network.parameters() if each.shape == (told["out_channels"],))
        bias -= logits.mean(dim=(0, 2, 3, 4))
    torch.save({"model": network.state_dict()}, folder / "models" / "model.pt")
    return folder


def write_image(path: Path, order: int = 0, channels: int = 1) -> Path:
    image, _ = make_case(5, (25, 22, 12))
    turned = STORAGE_ORDERS[order]
    array = np.concatenate([turned.apply(image.array) * (1 + n) for n in range(channels)])
    write_volume(Volume(np.ascontiguousarray(array), image.geometry.reordered(turned)), path)
    return path


def with_monai(bundle: Path, image: Path) -> np.ndarray:
    """The mask that MONAI's own parser, transforms, network and inferer give."""
    parser = ConfigParser()
    parser.read_config(next((bundle / "configs").glob("inference.*")))
    stated = deepcopy(parser.get())
    for part in stated["postprocessing"]["transforms"]:
        part["_disabled_"] = part["_target_"] == "SaveImaged"
    parser.set(stated)
    network = parser.get_parsed_content("network_def").eval()
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    network.load_state_dict(weights.get("model", weights))
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI remarks on readers that are not installed
        sample = parser.get_parsed_content("preprocessing")({"image": str(image)})
        sample["pred"] = parser.get_parsed_content("inferer")(sample["image"][None], network)[0]
        pred = parser.get_parsed_content("postprocessing")(sample)["pred"]
    assert pred.shape[0] == 1
    return np.asarray(pred[0]).round().astype(int)


DYNUNET = {
    "_target_": "DynUNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "kernel_size": [[3, 3, 1], 3, 3],
    "strides": [1, [2, 2, 1], 2],
    "upsample_kernel_size": [[2, 2, 1], 2],
    "filters": [4, 8, 8],
}
SEGRESNET = {
    "_target_": "SegResNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "init_filters": 8,
    "blocks_down": [1, 2],
    "blocks_up": [1],
    "dropout_prob": 0.2,
    "norm_name": "group",
}
SWIN = {"_target_": "SwinUNETR", "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "feature_size": 12}
WINDOW = {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 8]}
BUNDLES = {
    "spleen": inference(),
    "window": inference(preprocessing=before(ORIENTATION, SPACING, {**RANGE, "clip": True})),
    "scaled elsewhere": inference(preprocessing=before(SPACING, {**RANGE, "b_min": -1, "clip": False})),
    "two steps": inference(
        preprocessing=before(
            ORIENTATION,
            SPACING,
            {**STANDARDIZE, "nonzero": True},
            {"_target_": "ScaleIntensityd", "keys": "image", "minv": -1.0, "maxv": 1.0},
        ),
        postprocessing=chain(SOFTMAX, ARGMAX, NEAREST),
        inferer={**WINDOW, "overlap": 0.25, "mode": "gaussian", "padding_mode": "replicate", "roi_size": [16, 16, 16]},
    ),
    "before": inference(preprocessing=before(ORIENTATION, STANDARDIZE, SPACING)),
    "as it is": inference(preprocessing=before(STANDARDIZE), postprocessing=chain(ARGMAX)),
    "percentiles": inference(
        preprocessing=before(
            ORIENTATION,
            {
                "_target_": "ScaleIntensityRangePercentilesd",
                "keys": "image",
                "lower": 1,
                "upper": 99,
                "b_min": 0,
                "b_max": 1,
                "clip": True,
            },
        )
    ),
    "logits": inference(postprocessing=chain(INVERT, ARGMAX)),
    "largest": inference(
        postprocessing=chain(
            SOFTMAX,
            INVERT,
            ARGMAX,
            {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "applied_labels": [1, 2]},
        )
    ),
    "segresnet": inference(network_def=SEGRESNET),
    "dynunet": inference(network_def=DYNUNET),
    "swin": inference(network_def=SWIN, inferer={**WINDOW, "roi_size": [64, 32, 32]}),
    "references": inference(
        display={"highres": False, "overlap": 0.25},
        pixdim="$[1.5, 1.5, 1.5] if @display#highres else [3.0, 2.0, 2.0]",
        preprocessing=before(ORIENTATION, {**SPACING, "pixdim": "@pixdim"}, STANDARDIZE),
        inferer={**WINDOW, "overlap": "@display#overlap"},
        modelname="$'model.pt' if @display#overlap else 'other.pt'",
        handlers=[{"_target_": "CheckpointLoader", "load_path": "$@bundle_root + '/models/' + @modelname"}],
    ),
}


@pytest.mark.parametrize("name", BUNDLES)
def test_the_masks_are_those_of_monai(name: str, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", BUNDLES[name], as_yaml=name == "before")
    image = write_image(tmp_path / "image.nii.gz", 3)
    model = volseg.load(import_model(bundle, tmp_path / "run"))
    found, wanted = model.predict(image).mask.array, with_monai(bundle, image)
    assert (found == wanted).mean() >= 0.999
    assert len(np.unique(wanted)) > 1
    assert [label.name for label in model.labels] == ["ball", "box"]


def painted(text: str, *names: str) -> dict[str, Any]:
    metadata = deepcopy(METADATA)
    defined: Any = metadata["network_data_format"]
    defined["outputs"]["pred"]["channel_def"] = {str(n): name for n, name in enumerate(names)}
    defined["inputs"]["image"]["channel_def"] = {"0": "T1", "1": "T2"}
    threshold = {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}
    paint = [{"_target_": "Lambdad", "keys": "pred", "func": text}] if text else []
    stated = inference(
        network_def={**UNET, "in_channels": 2},
        preprocessing=before({**STANDARDIZE, "channel_wise": True, "nonzero": True}, SPACING),
        postprocessing=chain(SIGMOID, INVERT, threshold, *paint),
    )
    return {"stated": stated, "metadata": metadata}


PAINT = "$lambda x: torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1, torch.where(x[[1]] > 0, 2, 0)))"


def test_overlapping_outputs_are_painted_in_the_order_of_the_bundle(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", **painted(PAINT, "core", "whole", "enhancing"))
    image = write_image(tmp_path / "image.nii.gz", channels=2)
    model = volseg.load(import_model(bundle, tmp_path / "run"))
    assert {label.name: label.value for label in model.labels} == {"core": 1, "whole": 2, "enhancing": 4}
    found, wanted = model.predict(image).mask.array, with_monai(bundle, image)
    assert (found == wanted).mean() >= 0.999
    assert set(np.unique(wanted)) == {0, 1, 2, 4}


def test_overlapping_outputs_without_an_order_ask_for_one(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", **painted("", "core", "whole", "enhancing"))
    with pytest.raises(CheckpointError, match="core, whole, enhancing may overlap"):
        import_model(bundle, tmp_path / "run")
    import_model(bundle, tmp_path / "run", paint=["whole", "core", "enhancing"])
    image = write_image(tmp_path / "image.nii.gz", channels=2)
    found = volseg.load(tmp_path / "run").predict(image).mask.array
    text = "$lambda x: torch.where(x[[2]] > 0, 3, torch.where(x[[0]] > 0, 1, torch.where(x[[1]] > 0, 2, 0)))"
    told = write_bundle(tmp_path / "told", **painted(text, "core", "whole", "enhancing"))
    np.testing.assert_array_equal(found, volseg.load(import_model(told, tmp_path / "same")).predict(image).mask.array)


def test_a_bundle_without_axes_takes_those_of_files(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", BUNDLES["as it is"])
    image, _ = make_case(3)
    write_series(image, tmp_path / "series")
    import_model(bundle, tmp_path / "run")
    with pytest.raises(DataError, match="is DICOM"):
        volseg.load(tmp_path / "run").predict(tmp_path / "series", allow_mismatch=True)
    import_model(bundle, tmp_path / "named", axes="LPS")
    assert volseg.load(tmp_path / "named").predict(tmp_path / "series", allow_mismatch=True).mask.array.any()


# What is refused


def changed(part: str, **changes: Any) -> dict[str, Any]:
    stated = inference()
    return {**stated, part: {**stated[part], **changes}}


@pytest.mark.parametrize(
    ("stated", "named"),
    [
        (changed("network_def", act="relu"), "act='relu'"),
        (changed("network_def", norm=["group", {"num_groups": 2}]), "norm"),
        (changed("network_def", kernel_size=5), "kernel_size=5"),
        (changed("network_def", adn_ordering="AND"), "adn_ordering"),
        (changed("network_def", surprise=1), "surprise"),
        (changed("network_def", spatial_dims=2), "spatial_dims"),
        (changed("network_def", _target_="UNETR"), "UNETR"),
        (changed("network_def", _target_="scripts.net.Mine"), "code of the bundle itself"),
        (changed("network_def", _target_="os.system"), "code of the bundle itself"),
        (changed("network_def", channels="$[2 ** n for n in range(3)]"), "channels"),
        (changed("network_def", channels="@nothing"), "nothing"),
        (changed("network_def", channels="@network_def"), "itself"),
        (changed("inferer", _target_="SimpleInferer"), "SimpleInferer"),
        (changed("inferer", roi_size=[16, 16]), "roi_size"),
        (changed("inferer", roi_size=[16, 15, 8]), r"\[16, 15, 8\]"),
        (changed("inferer", roi_size=[-1, 16, 16]), "roi_size"),
        (changed("inferer", padding_mode="circular"), "padding_mode"),
        (changed("inferer", overlap=[0.5, 0.5, 0.25]), "overlap"),
        (changed("inferer", sigma_scale=0.3), "sigma_scale"),
        (inference(preprocessing=before({**SPACING, "mode": 3})), "mode"),
        (inference(preprocessing=before({**SPACING, "scale_extent": True})), "scale_extent"),
        (inference(preprocessing=before(SPACING, ORIENTATION)), "transforms#3"),
        (inference(preprocessing=before(RANGE, SPACING, STANDARDIZE)), "before and after"),
        (inference(preprocessing=before({"_target_": "CropForegroundd", "keys": "image"})), "CropForegroundd"),
        (inference(preprocessing=before({"_target_": "RandFlipd", "keys": "image"})), "RandFlipd"),
        (inference(preprocessing="$__import__('os').system('true')"), "not a chain"),
        (inference(postprocessing=chain(SOFTMAX, INVERT)), "0 times"),
        (inference(postprocessing=chain(SIGMOID, INVERT, ARGMAX)), "transforms#2"),
        (
            inference(postprocessing=chain(SOFTMAX, ARGMAX, {"_target_": "Lambdad", "keys": "pred", "func": "$print"})),
            "transforms#1",
        ),
        (inference(checkpointloader={"_target_": "CheckpointLoader", "load_path": "/etc/passwd"}), "passwd"),
        (painted(PAINT.replace("> 0, 4", "> 1, 4"), "a", "b", "c")["stated"], "is not executed"),
        (painted(PAINT.replace("torch.where", "os.remove", 1), "a", "b", "c")["stated"], "is not executed"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_named(stated: dict[str, Any], named: str, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", inference())
    (bundle / "configs" / "inference.json").write_text(json.dumps(stated))
    with pytest.raises(CheckpointError, match=named) as raised:
        import_model(bundle, tmp_path / "run")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_what_a_bundle_lacks_is_named(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", inference())
    for n, (lacking, named) in enumerate(
        {
            "network_def": "network_def does not name a component",
            "inferer": "inferer does not name a component",
            "preprocessing": "preprocessing",
            "postprocessing": "not a chain",
        }.items()
    ):
        stated = {key: value for key, value in inference().items() if key != lacking}
        (bundle / "configs" / "inference.json").write_text(json.dumps(stated))
        with pytest.raises(CheckpointError, match=named):
            import_model(bundle, tmp_path / f"run{n}")
    (bundle / "configs" / "inference.json").unlink()
    with pytest.raises(CheckpointError, match=r"no configs/inference\.json"):
        import_model(bundle, tmp_path / "run")
    with pytest.raises(CheckpointError, match="neither folds"):
        import_model(bundle, tmp_path / "run", folds=["0"])


def test_code_in_a_bundle_is_not_executed(tmp_path: Path) -> None:
    """Neither in its weights, nor in expressions, nor in scripts beside it, nor in tags of YAML."""
    touched = tmp_path / "touched"
    bundle = write_bundle(tmp_path / "bundle", inference())
    (bundle / "models" / "model.pt").write_bytes(pickle.dumps(Touch(touched)))
    with pytest.raises(CheckpointError, match=r"model\.pt"):
        import_model(bundle, tmp_path / "run")
    torch.save({"model": Touch(touched)}, bundle / "models" / "model.pt")
    with pytest.raises(CheckpointError, match="holds more than weights"):
        import_model(bundle, tmp_path / "run")
    code = f"$open({str(touched)!r}, 'w').close()"
    stated = inference(imports=[code], initialize=[code], run=[code], device=code)
    bundle = write_bundle(tmp_path / "expressions", stated)
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "__init__.py").write_text(code.removeprefix("$"))
    import_model(bundle, tmp_path / "harmless")
    (bundle / "configs" / "inference.json").unlink()
    (bundle / "configs" / "inference.yaml").write_text(f"network_def: !!python/object/apply:os.mkdir [{touched}]")
    with pytest.raises(CheckpointError, match="YAML"):
        import_model(bundle, tmp_path / "run")
    assert not touched.exists()
    assert not (tmp_path / "run").exists()


def test_references_that_multiply_each_other_end(tmp_path: Path) -> None:
    layers = {f"l{n}": [f"@l{n + 1}"] * 10 for n in range(9)} | {"l9": 1}
    bundle = write_bundle(tmp_path / "bundle", inference(**layers, inferer={**WINDOW, "roi_size": "@l0"}))
    with pytest.raises(CheckpointError, match="expand to too many values"):
        import_model(bundle, tmp_path / "run")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", inference())
    stated = changed("network_def", channels=[4, 8, 16])
    (bundle / "configs" / "inference.json").write_text(json.dumps(stated))
    with pytest.raises(CheckpointError, match="channels and labels need"):
        import_model(bundle, tmp_path / "run")


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_bundle_is_imported_or_refused_in_one_line(seed: int, tmp_path: Path) -> None:
    bundle, rng, refused = write_bundle(tmp_path / "bundle", inference()), random.Random(seed), 0
    for n in range(100):
        (bundle / "configs" / "inference.json").write_text(json.dumps(mutated(inference(), rng)))
        metadata = mutated(METADATA, rng) if rng.random() < 0.2 else METADATA
        (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata))
        refused += is_refused(bundle, tmp_path / f"run{n}")
    assert refused > 20
