"""Models of nnU-Net as runs of volseg: real ones beside nnU-Net's own masks, made-up ones for all that may vary."""

from __future__ import annotations

import json
import pickle
import random
import zipfile
from collections import OrderedDict
from copy import deepcopy
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import STORAGE_ORDERS, make_case

import volseg
from volseg.errors import CheckpointError, DataError, OutputExistsError, VolsegError
from volseg.image.geometry import Geometry
from volseg.image.volume import Volume
from volseg.importing import import_model
from volseg.io import read_mask, single_source, write_volume
from volseg.io.dicom import write_series
from volseg.model.files import model_files

REAL = {"hippo_iso": "hippocampus_058", "hippo_resenc": "hippocampus_058", "ct_aniso": "ct"}
FEATURES = (4, 6, 8)


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL)
def test_a_real_model_gives_the_masks_that_nnunet_gave(name: str, real_data: Path, tmp_path: Path) -> None:
    models = real_data / "nnunet_models"
    import_model(next((models / name).iterdir()), tmp_path / "run")
    image = f"{REAL[name]}.nii.gz"
    found = volseg.load(tmp_path / "run").predict(models / "inputs" / image).mask.array
    in_float32, as_it_sums = (
        np.asarray(nib.load(models / kind / f"{name}__{image}").dataobj) for kind in ("references_fp32", "references")
    )
    np.testing.assert_array_equal(found, in_float32)
    assert (found != as_it_sums).sum() <= 0.001 * (as_it_sums > 0).sum()


# Made-up models


def plans_of(*, residual: bool = False, flat: bool = False, **changes: Any) -> dict[str, Any]:
    """A plan as nnU-Net writes it, of three levels."""
    sides = (lambda *values: list(values[1:])) if flat else (lambda *values: list(values))
    axes = 2 if flat else 3
    blocks = "n_blocks_per_stage" if residual else "n_conv_per_stage"
    kwargs = {
        "n_stages": 3,
        "features_per_stage": list(FEATURES),
        "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
        "kernel_sizes": [sides(1, 3, 3), sides(3, 3, 3), sides(3, 3, 3)],
        "strides": [sides(1, 1, 1), sides(1, 2, 2), sides(2, 2, 2)],
        blocks: [1, 2, 2],
        "n_conv_per_stage_decoder": [1, 2],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    kind = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    resampling = {"is_seg": False, "order_z": 0, "force_separate_z": None}
    configuration = {
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": sides(8, 16, 16),
        "spacing": sides(2.0, 1.0, 1.0),
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {**resampling, "order": 3},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
            "arch_kwargs": kwargs,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return {
        "dataset_name": "Dataset900_made_up",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"base": {**configuration, **changes}, "ours": {"inherits_from": "base"}},
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 50.0, "std": 20.0, "percentile_00_5": -10.0, "percentile_99_5": 90.0}
        },
    }


DATASET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "spleen": 2}, "file_ending": ".nii.gz"}


def weights_of(plans: dict[str, Any], outputs: int, seed: int = 0, channels: int = 1) -> dict[str, torch.Tensor]:
    """Random weights under the names of nnU-Net's layers, those that it lists twice included."""
    made = torch.Generator().manual_seed(seed)
    told = plans["configurations"]["base"]["architecture"]["arch_kwargs"]
    features, kernels, strides = told["features_per_stage"], told["kernel_sizes"], told["strides"]
    residual = "n_blocks_per_stage" in told
    weights: dict[str, torch.Tensor] = OrderedDict()

    def convolve(name: str, before: int, after: int, kernel: list[int], *, bias: bool = True) -> None:
        fan = before * int(np.prod(kernel))
        weights[f"{name}.conv.weight"] = torch.randn(after, before, *kernel, generator=made) / fan**0.5
        if bias:
            weights[f"{name}.conv.bias"] = torch.randn(after, generator=made)
        weights[f"{name}.norm.weight"] = torch.rand(after, generator=made) + 0.5
        weights[f"{name}.norm.bias"] = torch.randn(after, generator=made) / 4
        weights[f"{name}.all_modules.0.weight"] = weights[f"{name}.conv.weight"]

    before = channels
    if residual:
        convolve("encoder.stem.convs.0", before, features[0], kernels[0])
        before = features[0]
    for level, after in enumerate(features):
        for block in range((told.get("n_blocks_per_stage") or told["n_conv_per_stage"])[level]):
            if residual:
                name = f"encoder.stages.{level}.blocks.{block}"
                convolve(f"{name}.conv1", before, after, kernels[level])
                convolve(f"{name}.conv2", after, after, kernels[level])
                if before != after:
                    strided = block == 0 and max(strides[level]) > 1
                    convolve(f"{name}.skip.{int(strided)}", before, after, [1] * len(kernels[0]), bias=False)
            else:
                convolve(f"encoder.stages.{level}.0.convs.{block}", before, after, kernels[level])
            before = after
    for n, level in enumerate(reversed(range(len(features) - 1))):
        stride, after = strides[level + 1], features[level]
        weights[f"decoder.transpconvs.{n}.weight"] = torch.randn(before, after, *stride, generator=made) / before**0.5
        weights[f"decoder.transpconvs.{n}.bias"] = torch.randn(after, generator=made)
        for block in range(told["n_conv_per_stage_decoder"][n]):
            convolve(f"decoder.stages.{n}.convs.{block}", after if block else 2 * after, after, kernels[level])
        weights[f"decoder.seg_layers.{n}.weight"] = torch.randn(outputs, after, *[1] * len(stride), generator=made)
        weights[f"decoder.seg_layers.{n}.bias"] = torch.randn(outputs, generator=made) / 4
        before = after
    weights["decoder.encoder.first"] = torch.zeros(1)
    return weights


def write_model(
    folder: Path,
    plans: dict[str, Any] | None = None,
    dataset: dict[str, Any] | None = None,
    *,
    outputs: int = 3,
    channels: int = 1,
    folds: tuple[str, ...] = ("0",),
    **told: Any,
) -> Path:
    """A model folder of nnU-Net."""
    plans = plans or plans_of()
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset or DATASET))
    for seed, fold in enumerate(folds):
        (folder / f"fold_{fold}").mkdir()
        content = {
            "network_weights": weights_of(plans, outputs, seed, channels),
            "_best_ema": np.float32(0.5),
            "current_epoch": 1000,
            "init_args": {"configuration": "ours", "fold": fold},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": (0, 1) if len(plans["transpose_forward"]) else None,
            **told,
        }
        torch.save(content, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def write_image(path: Path, codes: int = 0) -> np.ndarray:
    """An image of blobs with a border of zeros, stored in one of the 48 orders."""
    rng = np.random.default_rng(0)
    array = np.zeros((1, 22, 30, 18), np.float32)
    array[:, 2:-3, 3:-2, 2:-2] = rng.normal(40, 30, (1, 17, 25, 14)).astype(np.float32)
    geometry = Geometry((22, 30, 18), np.diag([1.1, 0.9, 2.3, 1.0]))
    order = STORAGE_ORDERS[codes]
    write_volume(Volume(np.ascontiguousarray(order.apply(array)), geometry.reordered(order)), path)
    return array[0]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("transpose", [[0, 1, 2], [2, 0, 1], [1, 2, 0]], ids=str)
def test_a_model_is_rebuilt_whatever_its_plan(residual: bool, flat: bool, transpose: list[int], tmp_path: Path) -> None:
    plans = {**plans_of(residual=residual, flat=flat), "transpose_forward": transpose}
    import_model(write_model(tmp_path / "model", plans), tmp_path / "run")
    write_image(tmp_path / "image.nii.gz")
    model = volseg.load(tmp_path / "run")
    mask = model.predict(tmp_path / "image.nii.gz").mask.array
    assert mask.any()
    assert (mask[:2] == 0).all()  # what was cropped away is background
    sizes = [1 if flat else 8, 16, 16]
    assert [model.config.patches.size[2 - axis] for axis in transpose] == sizes
    assert model.config.preprocessing.spacing_mm[2 - transpose[0]] == (None if flat else 2.0)


def test_folds_are_averaged(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", folds=("0", "1", "all"))
    files = model_files(import_model(folder, tmp_path / "run"))
    assert [file.parent.name for file in files] == ["fold_0", "fold_1", "fold_2"]
    assert len(volseg.load(tmp_path / "run").networks) == 3
    (alone,) = model_files(import_model(folder, tmp_path / "one", folds=("1",)))
    one, other = (torch.load(file, weights_only=True)["weights"] for file in (alone, files[1]))
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(CheckpointError, match="fold_7 has no checkpoint_final"):
        import_model(folder, tmp_path / "none", folds=("7",))
    assert not (tmp_path / "none").exists()


def test_a_plan_of_the_first_versions_is_read(tmp_path: Path) -> None:
    plans = plans_of()
    told = plans["configurations"]["base"].pop("architecture")["arch_kwargs"]
    new = write_model(tmp_path / "new")
    old = {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 8,
        "n_conv_per_stage_encoder": told["n_conv_per_stage"],
        "n_conv_per_stage_decoder": told["n_conv_per_stage_decoder"],
        "pool_op_kernel_sizes": told["strides"],
        "conv_kernel_sizes": told["kernel_sizes"],
        "num_pool_per_axis": [1, 2, 2],
    }
    plans["configurations"]["base"] |= old
    plans["foreground_intensity_properties_by_modality"] = plans.pop("foreground_intensity_properties_per_channel")
    described = plans_of()
    described["configurations"]["base"]["architecture"]["arch_kwargs"]["features_per_stage"] = [4, 8, 8]
    folder = write_model(tmp_path / "old", described)
    (folder / "plans.json").write_text(json.dumps(plans))
    import_model(folder, tmp_path / "run")
    assert volseg.load(tmp_path / "run").config.network.filters == (4, 8, 8)
    assert new.is_dir()


def test_regions_are_painted_in_their_order(tmp_path: Path) -> None:
    dataset = {
        **DATASET,
        "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3], "ignore": 4},
        "regions_class_order": [1, 2, 3],
    }
    import_model(write_model(tmp_path / "model", dataset=dataset), tmp_path / "run")
    config = volseg.load(tmp_path / "run").config
    assert [(region.name, region.labels, region.value) for region in config.data.regions] == [
        ("whole", (1, 2, 3), 1), ("core", (2, 3), 2), ("enhancing", (3,), 3),
    ]  # fmt: skip
    write_image(tmp_path / "image.nii.gz")
    assert volseg.load(tmp_path / "run").predict(tmp_path / "image.nii.gz").mask.array.any()


def test_the_second_network_of_a_cascade_sees_the_mask_of_the_first(tmp_path: Path) -> None:
    plans = plans_of()
    plans["configurations"]["low"] = {"inherits_from": "base", "spacing": [3.1, 2.2, 1.9]}
    plans["configurations"]["ours"]["previous_stage"] = "low"
    name = "nnUNetTrainer__nnUNetPlans"
    second = write_model(tmp_path / "models" / f"{name}__ours", plans, channels=3)
    with pytest.raises(CheckpointError, match=f"the first stage, low, is not at .*{name}__low"):
        import_model(second, tmp_path / "run")
    with pytest.raises(CheckpointError, match="is itself the second stage"):
        import_model(second, tmp_path / "run", previous=second)
    first = write_model(tmp_path / "models" / f"{name}__low", plans, init_args={"configuration": "low"})
    runs = [import_model(second, tmp_path / "beside"), import_model(second, tmp_path / "named", previous=first)]
    write_image(tmp_path / "image.nii.gz")
    masks = [volseg.load(run).predict(tmp_path / "image.nii.gz").mask.array for run in runs]
    assert np.array_equal(*masks)
    alone = volseg.load(import_model(first, tmp_path / "first"))
    before = alone.predict(tmp_path / "image.nii.gz").mask.array
    assert np.array_equal(volseg.load(runs[0] / "previous").predict(tmp_path / "image.nii.gz").mask.array, before)
    # Where the first network says something else, so does the second.
    file = runs[1] / "previous" / "model.pt"
    content = torch.load(file, weights_only=True)
    content["weights"]["heads.0.bias"] += torch.tensor([0.0, 0.0, 50.0])
    torch.save(content, file)
    changed = volseg.load(runs[1]).predict(tmp_path / "image.nii.gz").mask.array
    assert (changed != masks[0]).any()
    (runs[1] / "previous" / "model.pt").unlink()
    with pytest.raises(CheckpointError, match="previous"):
        volseg.load(runs[1])


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAR"])
def test_all_orders_of_storage_give_one_mask_where_the_axes_are_named(axes: str, tmp_path: Path) -> None:
    import_model(write_model(tmp_path / "model"), tmp_path / "run", axes=axes)
    model, masks = volseg.load(tmp_path / "run"), []
    for n in (0, 7, 21, 46):
        write_image(tmp_path / f"{n}.nii.gz", n)
        masks.append(STORAGE_ORDERS[n].inverse().apply(model.predict(tmp_path / f"{n}.nii.gz").mask.array))
    assert all(np.array_equal(mask, masks[0]) for mask in masks)
    assert masks[0].any()


def test_dicom_has_no_stored_axes(tmp_path: Path) -> None:
    """The same mask from DICOM as from NIfTI where the axes are named, and a word where they are not."""
    folder = write_model(tmp_path / "model")
    image, _ = make_case(3)
    write_volume(image, tmp_path / "image.nii.gz")
    write_series(image, tmp_path / "series")
    import_model(folder, tmp_path / "run")
    with pytest.raises(DataError, match="is DICOM, but the model uses the axis order"):
        volseg.load(tmp_path / "run").predict(tmp_path / "series", allow_mismatch=True)
    model = volseg.load(import_model(folder, tmp_path / "named", axes="LPS"))
    one, other = (model.predict(tmp_path / name, allow_mismatch=True).mask for name in ("image.nii.gz", "series"))
    order = other.geometry.order_towards(one.geometry.axis_codes)
    assert (order.apply(other.array) != one.array).mean() < 0.001  # DICOM holds whole numbers
    assert one.array.any()


def test_the_segmentation_of_a_series_is_the_mask_of_the_file(tmp_path: Path) -> None:
    """DICOM in and a Segmentation out say what NIfTI in and NIfTI out say."""
    image, _ = make_case(3)
    whole = Volume(np.rint(image.array), image.geometry)  # DICOM holds whole numbers
    write_volume(whole, tmp_path / "image.nii.gz")
    write_series(whole, tmp_path / "series", modality="CT")
    model = volseg.load(import_model(write_model(tmp_path / "model"), tmp_path / "run", axes="RAS"))
    wanted = model.predict(tmp_path / "image.nii.gz").mask
    batch = model.predict_folder(tmp_path / "series", tmp_path / "out", formats=("dicom-seg",))
    (case,) = batch.values()
    found = read_mask(single_source(case.paths["dicom-seg"]), model.labels, image.geometry)
    np.testing.assert_array_equal(found.array, wanted.array)
    assert len(np.unique(wanted.array)) == 3


def test_a_run_that_was_imported_is_fine_tuned(dataset: Path, tmp_path: Path) -> None:
    told = {**DATASET, "channel_names": {"0": "MRI"}}
    import_model(write_model(tmp_path / "model", dataset=told), tmp_path / "run")
    run = volseg.train(
        dataset, tmp_path / "tuned", start_from=tmp_path / "run", epochs=1,
        changes={"training.steps_per_epoch": 2, "patches.size": [16, 16, 8]},
    )  # fmt: skip
    assert run.config.preprocessing.axes == "stored"
    assert run.config.preprocessing.interpolation == "cubic"
    assert run.config.network.name == "plain_unet"


# What is refused


class Touch:
    """What a careless loader would execute."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_code_in_a_checkpoint_is_not_executed(tmp_path: Path) -> None:
    folder, trap = write_model(tmp_path / "model"), tmp_path / "trap"
    path = folder / "fold_0" / "checkpoint_final.pth"
    torch.save({"network_weights": {}, "logging": Touch(trap)}, path)
    (folder / "postprocessing.pkl").write_bytes(pickle.dumps(Touch(trap)))
    with pytest.raises(CheckpointError, match="holds more than weights") as caught:
        import_model(folder, tmp_path / "run")
    assert "\n" not in str(caught.value)
    path.write_bytes(pickle.dumps({"network_weights": Touch(trap)}))  # no archive: the oldest format
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        import_model(folder, tmp_path / "run")
    assert not trap.exists()
    assert not (tmp_path / "run").exists()


def _norm(plans: dict[str, Any]) -> None:
    plans["configurations"]["base"]["architecture"]["arch_kwargs"]["norm_op"] = "torch.nn.BatchNorm3d"


def _primus(plans: dict[str, Any]) -> None:
    name = "dynamic_network_architectures.architectures.primus.PrimusM"
    plans["configurations"]["base"]["architecture"]["network_class_name"] = name


def _resampler(plans: dict[str, Any]) -> None:
    plans["configurations"]["base"]["resampling_fn_data"] = "resample_torch_simple"


def _preprocessor(plans: dict[str, Any]) -> None:
    plans["configurations"]["base"]["preprocessor_name"] = "PathologyPreprocessor"


def _reader(plans: dict[str, Any]) -> None:
    plans["image_reader_writer"] = "NaturalImage2DIO"


def _nobody(plans: dict[str, Any]) -> None:
    plans["configurations"]["ours"]["inherits_from"] = "nobody"


def _circle(plans: dict[str, Any]) -> None:
    plans["configurations"]["base"]["inherits_from"] = "ours"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_norm, "BatchNorm3d"),
        (_primus, "PrimusM"),
        (_resampler, "resample_torch_simple"),
        (_preprocessor, "PathologyPreprocessor"),
        (_reader, "NaturalImage2DIO"),
        (_nobody, "nobody"),
        (_circle, "ours"),
    ],
)
def test_what_is_not_understood_is_named(change: Any, named: str, tmp_path: Path) -> None:
    folder, plans = write_model(tmp_path / "model"), plans_of()
    change(plans)
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(CheckpointError, match=named) as caught:
        import_model(folder, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ({"trainer_name": "nnUNetTrainerBN"}, "nnUNetTrainerBN"),
        ({"trainer_name": "nnUNetTrainerUMambaBot"}, "mamba"),
        ({"init_args": {"configuration": "2d"}}, "no configuration '2d'"),
        ({"network_weights": {}}, "no network_weights"),
        ({"outputs": 5}, "heads.0.weight is 5 x 4 x 1 x 1 x 1; .* need 3 x 4 x 1 x 1 x 1"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(told: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=named):
        import_model(write_model(tmp_path / "model", **told), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_lacks_something_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", folds=("0", "1"))
    (folder / "fold_1" / "checkpoint_final.pth").unlink()
    with pytest.raises(CheckpointError, match="fold_1 has no checkpoint_final"):
        import_model(folder, tmp_path / "run")
    for name in ("dataset.json", "plans.json"):
        (folder / name).unlink()
        with pytest.raises(CheckpointError, match=f"has no {name}"):
            import_model(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.pt").write_text("mine")
    with pytest.raises(OutputExistsError):
        import_model(folder, tmp_path / "run")
    assert (tmp_path / "run" / "model.pt").read_text() == "mine"


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON document."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


def mutated(tree: Any, rng: random.Random) -> Any:
    """A document in which something is gone, or something else than it was."""
    tree = deepcopy(tree)
    *path, key = rng.choice([place for place in places(tree) if place])
    parent = tree
    for part in path:
        parent = parent[part]
    if rng.random() < 0.25:
        del parent[key]
    else:
        strange = [None, True, 0, -1, 1, 2, 7, 10**9, 1e300, 0.5, "", "x", [], {}, [[]], [1, 2], {"a": 1}, parent[key]]
        parent[key] = rng.choice(strange)
    return tree


def is_refused(folder: Path, output: Path) -> bool:
    """Whether a model is refused; then in one line, and nothing is written."""
    try:
        import_model(folder, output)
    except VolsegError as error:
        message = str(error)
    else:
        return False
    assert "\n" not in message
    assert not output.exists()
    return True


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_plan_is_imported_or_refused_in_one_line(seed: int, tmp_path: Path) -> None:
    folder, rng, refused = write_model(tmp_path / "model"), random.Random(seed), 0
    for n in range(250):
        (folder / "plans.json").write_text(json.dumps(mutated(plans_of(), rng)))
        (folder / "dataset.json").write_text(json.dumps(mutated(DATASET, rng) if rng.random() < 0.2 else DATASET))
        refused += is_refused(folder, tmp_path / f"run{n}")
    assert refused > 100


@pytest.mark.parametrize("seed", range(2))
def test_a_damaged_checkpoint_is_imported_or_refused_in_one_line(seed: int, tmp_path: Path) -> None:
    folder, rng = write_model(tmp_path / "model"), random.Random(seed)
    path = folder / "fold_0" / "checkpoint_final.pth"
    sound = path.read_bytes()
    assert zipfile.is_zipfile(path)
    for n in range(60):
        damaged = bytearray(sound)
        for _ in range(rng.randint(1, 8)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(bytes(damaged[: rng.choice([len(sound), rng.randrange(len(sound))])]))
        is_refused(folder, tmp_path / f"run{n}")
