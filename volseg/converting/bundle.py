"""Write a run as a MONAI bundle (docs.monai.io, "MONAI Bundle Specification")."""

from __future__ import annotations

import importlib.metadata
import io
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from volseg.config import (
    CtNormalization,
    LabelRule,
    MinMax,
    Percentiles,
    SingleNormalization,
    Standardized,
    Successive,
    Unchanged,
    Window,
    ZScore,
)
from volseg.errors import CheckpointError
from volseg.inference.mirroring import Mirroring
from volseg.io.files import atomic_path, write_text
from volseg.io.json_files import write_json
from volseg.model.checkpoint import TrainedNetwork
from volseg.model.monai_networks import Statement, statement_of
from volseg.version import __version__

_INFERENCE, _METADATA = Path("configs") / "inference.json", Path("configs") / "metadata.json"
_WEIGHTS, _SCRIPTED = Path("models") / "model.pt", Path("models") / "model.ts"
_PACKAGE, _SCRIPT = Path("scripts") / "__init__.py", Path("scripts") / "volseg_bundle.py"
#: Files of a bundle besides the model card.
BUNDLE_FILES = (_INFERENCE, _METADATA, _WEIGHTS, _SCRIPTED, _PACKAGE, _SCRIPT)
_OWN = "scripts.volseg_bundle"
_HINT = "use --to onnx, whose contract.json can state all of it"
_CONNECTIVITY = {6: 1, 18: 2, 26: None}


def write_bundle(
    model: TrainedNetwork, inference: dict[str, Any], folder: Path, licence: str, dice: dict[str, float]
) -> None:
    """Write a bundle.

    Args:
        model: The model to convert.
        inference: Its inference configuration, from `inference_of`.
        folder: The folder, whose files have been claimed.
        licence: Licence of the model.
        dice: Label -> mean Dice on held-out cases, where known.
    """
    write_json(folder / _INFERENCE, inference)
    write_json(folder / _METADATA, _metadata(model, licence, dice))
    write_text(folder / _PACKAGE, "")
    script = files("volseg.converting").joinpath(_SCRIPT.name).read_text(encoding="utf-8")
    write_text(folder / _SCRIPT, script)
    _write(folder / _WEIGHTS, lambda written: torch.save(dict(model.weights), written))
    _write(folder / _SCRIPTED, lambda written: _script(model, folder, written))


def _write(path: Path, write: Any) -> None:
    written = io.BytesIO()
    write(written)
    with atomic_path(path) as temporary:
        temporary.write_bytes(written.getbuffer())


def _script(model: TrainedNetwork, folder: Path, written: io.BytesIO) -> None:
    """Write TorchScript with the bundle's metadata inside, as MONAI Deploy reads it."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # PyTorch recommends another format, which MONAI does not read
        patch = torch.zeros(1, model.config.data.inputs, *model.config.window)
        network = torch.jit.trace(model.network, patch, check_trace=False)  # type: ignore[no-untyped-call]
        extra = {path.name: (folder / path).read_bytes() for path in (_METADATA, _INFERENCE)}
        torch.jit.save(network, written, _extra_files=extra)


def _stated(model: TrainedNetwork) -> Statement:
    config = model.config
    stated = statement_of(config.network, config.data.inputs, config.data.outputs)
    if stated is None:
        raise CheckpointError(f"{model.origin}: MONAI has no network {config.network.name}", hint=_HINT)
    if config.network.neighbors or stated.arguments["spatial_dims"] == 2:
        raise CheckpointError(f"{model.origin}: bundles support 3D networks only, this one is 2D", hint=_HINT)
    return stated


def inference_of(model: TrainedNetwork) -> dict[str, Any]:
    """Return the inference configuration of a bundle.

    Args:
        model: The model to convert.

    Raises:
        CheckpointError: If a bundle cannot hold it; names what MONAI has no component for.
    """
    config, stated = model.config, _stated(model)
    several = config.data.inputs > 1
    cases = "sorted(glob.glob(@dataset_dir + '/*/'))" if several else "sorted(glob.glob(@dataset_dir + '/*.nii.gz'))"
    image = "sorted(glob.glob(case + '*.nii.gz'))" if several else "case"
    return {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/eval'",
        "datalist": f"$[{{'image': {image}}} for case in {cases}]",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": {"_target_": stated.name, **stated.arguments},
        "network": "$@network_def.to(@device)",
        "preprocessing": _chain(
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            *_preprocessing(model),
            {"_target_": "EnsureTyped", "keys": "image"},
        ),
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": _inferer(model),
        "postprocessing": _chain(
            *_postprocessing(model),
            {
                "_target_": "SaveImaged",
                "keys": "pred",
                "output_dir": "@output_dir",
                "output_dtype": "uint16",
                "resample": False,
            },
        ),
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": f"$@bundle_root + '/{_WEIGHTS.as_posix()}'",
                "load_dict": {"model": "@network"},
                "map_location": "@device",
            }
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
            "amp": False,
        },
        "run": ["$@evaluator.run()"],
    }


def _chain(*transforms: dict[str, Any]) -> dict[str, Any]:
    return {"_target_": "Compose", "transforms": list(transforms)}


def _preprocessing(model: TrainedNetwork) -> list[dict[str, Any]]:
    rules = model.config.preprocessing
    for key, wanted in {"crop": "none", "interpolation": "linear", "coarse_axis": "interpolated"}.items():
        if (given := getattr(rules, key)) != wanted:
            raise CheckpointError(f"{model.origin}: bundles do not support preprocessing.{key} {given}", hint=_HINT)
    first, *others = rules.normalization
    if any(other != first for other in others):
        raise CheckpointError(f"{model.origin}: bundles normalise all channels in the same way", hint=_HINT)
    steps = first.steps if isinstance(first, Successive) else (first,)
    intensities = [part for step in steps for part in _intensities(step, model)]
    turned = [] if rules.axes == "stored" else [{"_target_": "Orientationd", "keys": "image", "axcodes": rules.axes}]
    spaced: list[dict[str, Any]] = []
    if any(rules.spacing_mm):
        spaced = [_spacing(model)]
    if rules.normalize == "after_resampling":
        return [*turned, *spaced, *intensities]
    return [*turned, *intensities, *spaced]


def _spacing(model: TrainedNetwork) -> dict[str, Any]:
    rules = model.config.preprocessing
    told = {"keys": "image", "pixdim": rules.spacing_mm}
    match rules.grid:
        case "spacing":
            return {"_target_": f"{_OWN}.SpacingAboutCentred", **told}
        case "monai" if all(rules.spacing_mm):
            return {"_target_": "Spacingd", **told, "mode": "bilinear"}
    raise CheckpointError(f"{model.origin}: bundles do not support preprocessing.grid {rules.grid}", hint=_HINT)


def _intensities(step: SingleNormalization, model: TrainedNetwork) -> list[dict[str, Any]]:
    match step:
        case ZScore(fill_holes=False, nonzero=nonzero):
            told: dict[str, Any] = {"_target_": "NormalizeIntensityd", "nonzero": nonzero, "channel_wise": True}
        case CtNormalization(low=low, high=high, mean=mean, std=std):
            ends = {"b_min": (low - mean) / std, "b_max": (high - mean) / std}
            told = {"_target_": "ScaleIntensityRanged", "a_min": low, "a_max": high, **ends, "clip": True}
        case Window(low=low, high=high):
            ends = {"b_min": 0.0, "b_max": 1.0}
            told = {"_target_": "ScaleIntensityRanged", "a_min": low, "a_max": high, **ends, "clip": True}
        case Percentiles(low=low, high=high):
            ends = {"lower": low, "upper": high, "b_min": 0.0, "b_max": 1.0}
            told = {"_target_": "ScaleIntensityRangePercentilesd", **ends, "clip": True, "channel_wise": True}
        case MinMax(low=low, high=high):
            told = {"_target_": "ScaleIntensityd", "minv": low, "maxv": high, "channel_wise": True}
        case Standardized(mean=mean, std=std):
            told = {"_target_": "NormalizeIntensityd", "subtrahend": mean, "divisor": std}
        case Unchanged():
            return []
        case _:
            raise CheckpointError(f"{model.origin}: bundles do not support z-score with fill_holes", hint=_HINT)
    return [{"keys": "image", **told}]


def _inferer(model: TrainedNetwork) -> dict[str, Any]:
    config, inference = model.config, model.config.inference
    for key, known in {"steps": ("fixed",), "weights": ("gaussian", "constant")}.items():
        if (given := getattr(inference, key)) not in known:
            raise CheckpointError(f"{model.origin}: bundles do not support inference.{key} {given}", hint=_HINT)
    told = {
        "roi_size": config.window,
        "sw_batch_size": 1,
        "overlap": inference.overlap,
        "mode": inference.weights,
        "padding_mode": "constant" if inference.padding == "zeros" else "replicate",
    }
    mirroring = Mirroring.of(config)
    if not mirroring.axes:
        return {"_target_": "SlidingWindowInferer", **told}
    mirrors = {"mirror_axes": mirroring.axes, "in_turns": mirroring.in_turns}
    return {"_target_": f"{_OWN}.MirroredSlidingWindowInferer", **told, **mirrors}


def _postprocessing(model: TrainedNetwork) -> list[dict[str, Any]]:
    config, data = model.config, model.config.data
    kind = "sigmoid" if data.regions else "softmax"
    likely = {"_target_": "Activationsd", "keys": "pred", kind: True}
    back = {
        "_target_": "Invertd",
        "keys": "pred",
        "transform": "@preprocessing",
        "orig_keys": "image",
        "nearest_interp": config.preprocessing.answers == "labels",
        "to_tensor": True,
    }
    decided: dict[str, Any] = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
    if data.regions:
        decided = {
            "_target_": f"{_OWN}.PaintRegionsd",
            "keys": "pred",
            "values": [region.value for region in data.regions],
            "thresholds": [region.threshold or 0.5 for region in data.regions],
            "order": data.paint_order,
        }
    values = {label.name: label.value for label in data.output_labels}
    if not data.regions and sorted(values.values()) != list(range(1, data.outputs)):
        raise CheckpointError(f"{model.origin}: bundles need labels numbered from 1 without gaps", hint=_HINT)
    rules = [part for rule in config.rules for part in _rule(rule, values, model)]
    match config.preprocessing.answers:
        case "logits":
            return [back, likely, decided, *rules]
        case "probabilities":
            return [likely, back, decided, *rules]
        case "labels":
            return [likely, decided, back, *rules]


def _rule(rule: LabelRule, values: dict[str, int], model: TrainedNetwork) -> list[dict[str, Any]]:
    if rule.morphology != "none" or rule.min_voxels > 1 or rule.min_volume_ml:
        raise CheckpointError(
            f"{model.origin}: bundles support only the post-processing keep_largest and fill_holes", hint=_HINT
        )
    labels = list(values.values()) if rule.label == "*" else [values[rule.label]]
    told: dict[str, Any] = {"keys": "pred", "applied_labels": labels}
    largest = {"_target_": "KeepLargestConnectedComponentd", **told, "connectivity": _CONNECTIVITY[rule.connectivity]}
    filled = {"_target_": "FillHolesd", **told, "connectivity": 1}
    return [*([largest] if rule.keep_largest else []), *([filled] if rule.fill_holes else [])]


def _metadata(model: TrainedNetwork, licence: str, dice: dict[str, float]) -> dict[str, Any]:
    config, data = model.config, model.config.data
    names = [label.name for label in data.output_labels]
    defined = names if data.regions else ["background", *names]
    modality = ", ".join(sorted(set(data.modalities)))
    shape = list(config.window)
    common = {"spatial_shape": shape, "dtype": "float32", "is_patch_data": True, "type": "image"}
    return {
        "version": "0.1.0",
        "changelog": {"0.1.0": f"converted by volseg {__version__}"},
        "monai_version": importlib.metadata.version("monai"),
        "pytorch_version": str(torch.__version__).partition("+")[0],
        "numpy_version": importlib.metadata.version("numpy"),
        "required_packages_version": {
            "nibabel": importlib.metadata.version("nibabel"),
            "pytorch-ignite": "0.5.0",
        },
        "name": f"{', '.join(names)} in {modality}",
        "task": f"segmentation of {', '.join(names)}",
        "description": f"A {_stated(model).name} trained with volseg; see MODEL_CARD.md.",
        "authors": "see MODEL_CARD.md",
        "copyright": licence,
        "intended_use": "Research. Not a medical device: a person must review every mask.",
        "eval_metrics": {f"dice_{name}": value for name, value in dice.items()},
        "network_data_format": {
            "inputs": {
                "image": {
                    **common,
                    "format": "hounsfield" if modality == "CT" else "magnitude",
                    "modality": modality,
                    "num_channels": data.inputs,
                    "value_range": [],
                    "channel_def": {str(n): name for n, name in enumerate(data.channels)},
                }
            },
            "outputs": {
                "pred": {
                    **common,
                    "format": "segmentation",
                    "num_channels": data.outputs,
                    "value_range": [0, 1],
                    "channel_def": {str(n): name for n, name in enumerate(defined)},
                }
            },
        },
    }
