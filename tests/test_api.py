"""The public calls: what a script, a notebook or a server sees of volseg."""

from __future__ import annotations

import ast
import csv
import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813  the name everybody uses
import torch
import yaml
from conftest import TINY, make_case
from monai.data import MetaTensor
from numpy.typing import NDArray

import volseg
from volseg.image.geometry import Geometry
from volseg.io import write_volume
from volseg.io.dicom import write_series

#: Columns and lines that tell of time, memory and the moment.
TIMED = ("seconds", "per_second", "memory_mb", "data_wait_share")


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


# The front door


def test_importing_volseg_imports_nothing_else() -> None:
    heavy = "{'torch', 'monai', 'numpy', 'pandas', 'nibabel', 'SimpleITK', 'pydicom', 'pydantic', 'yaml', 'rich'}"
    assert run_python(f"import volseg, sys; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_what_is_promised_to_type_checkers_is_what_is_there() -> None:
    tree = ast.parse(Path(volseg.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    declared = {
        alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert {name: module for name, module in declared.items() if name != "transforms"} == volseg._MODULE_OF
    assert sorted({*declared, "__version__"}) == sorted(volseg.__all__)
    for name in volseg.__all__:
        assert getattr(volseg, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        volseg.nothing  # noqa: B018  asking is what is tested


def test_no_package_hides_a_public_function() -> None:
    modules = {path.stem for path in Path(volseg.__file__).parent.iterdir()} - {"transforms", "__init__"}
    assert not modules & set(volseg.__all__)


# One image, wherever it comes from


@pytest.fixture(scope="module")
def model(trained_run: Path) -> volseg.Model:
    return volseg.load(trained_run)


@pytest.fixture(scope="module")
def image_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "patient.nii.gz"
    write_volume(make_case(3)[0], path)
    return path


def as_volume(path: Path) -> Any:
    image = nib.load(path)
    return volseg.Volume(np.asarray(image.dataobj, np.float32)[np.newaxis], volseg.Geometry(image.shape, image.affine))


def as_simpleitk(path: Path) -> Any:
    return sitk.ReadImage(str(path))


def as_metatensor(path: Path) -> Any:
    image = nib.load(path)
    return MetaTensor(torch.from_numpy(np.asarray(image.dataobj, np.float32))[None], affine=torch.tensor(image.affine))


def as_metatensor_in_lps(path: Path) -> Any:
    image = nib.load(path)
    affine = torch.tensor(np.diag([-1.0, -1, 1, 1]) @ image.affine)
    voxels = torch.from_numpy(np.asarray(image.dataobj, np.float32))[None]
    return MetaTensor(voxels, affine=affine, meta={"space": "LPS"})


def as_array(path: Path) -> Any:
    image = nib.load(path)
    return np.asarray(image.dataobj), image.affine


def as_channels(path: Path) -> Any:
    return {"image": str(path)}


@pytest.mark.parametrize(
    "image_of",
    [as_volume, nib.load, as_simpleitk, as_metatensor, as_metatensor_in_lps, as_array, as_channels],
    ids=lambda each: each.__name__,
)
def test_an_image_gives_the_same_mask_from_disk_and_from_memory(
    model: volseg.Model, image_file: Path, image_of: Callable[[Path], Any]
) -> None:
    from_disk = model.predict(str(image_file))
    image = image_of(image_file)
    from_memory = model.predict(image)
    np.testing.assert_array_equal(from_memory.array, from_disk.array)
    assert from_memory.geometry.matches(from_disk.geometry, 1e-4)
    assert set(np.unique(from_disk.array)) == {0, 1, 2}
    assert [label.name for label in from_disk.labels] == ["label_1", "label_2"]
    counts = np.bincount(from_disk.array.ravel())
    ml = from_disk.geometry.voxel_volume_ml
    assert from_disk.volumes_ml == pytest.approx({"label_1": counts[1] * ml, "label_2": counts[2] * ml})


def test_an_image_in_memory_is_not_changed(model: volseg.Model) -> None:
    image, _ = make_case(3)
    image.array[0, 0, 0, 0] = np.nan
    before = image.array.copy()
    model.predict(image)
    np.testing.assert_array_equal(image.array, before)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((4, 4, 4)), volseg.DataError, "an image cannot be a ndarray"),
        (3, volseg.DataError, "an image cannot be a int"),
        ((np.zeros((4, 4)), np.eye(4)), volseg.DataError, r"of shape \(4, 4\)"),
        ((np.zeros((4, 4, 4)), np.zeros((4, 4))), volseg.GeometryError, "last row"),
        ((np.zeros((2, 4, 4, 4)), np.eye(4)), volseg.DataError, "the image has 2 channels"),
        ({"t1": "nothing.nii.gz"}, volseg.DataError, "has the channels t1, the model needs image"),
        (nib.Nifti1Image(np.zeros((4, 4, 4)), None), volseg.GeometryError, "does not state where its voxels lie"),
        ("nowhere", volseg.DataError, "nowhere does not exist"),
    ],
)
def test_what_is_no_image_is_refused(
    model: volseg.Model, image: Any, error: type[volseg.VolsegError], message: str
) -> None:
    with pytest.raises(error, match=message):
        model.predict(image)


@pytest.mark.parametrize(("value", "message"), [(7.0, "same value everywhere"), (np.nan, "no finite voxel")])
def test_an_image_in_memory_without_content_is_refused_as_a_file_is(
    model: volseg.Model, value: float, message: str
) -> None:
    with pytest.raises(volseg.DataError, match=message):
        model.predict((np.full((20, 20, 20), value), np.eye(4)))


def test_a_prediction_converts_is_edited_and_gives_probabilities(
    model: volseg.Model, dataset: Path, tmp_path: Path
) -> None:
    path = min((dataset / "images").glob("*.nii.gz"))
    result = model.predict(path, probabilities=True)
    image = nib.Nifti1Image.from_filename(path)
    assert result.probabilities.shape == (*image.shape, len(result.labels))
    assert result.probabilities.dtype == np.float32
    likely = np.concatenate([1 - result.probabilities.sum(-1, keepdims=True), result.probabilities], axis=-1)
    assert (likely.argmax(-1) == result.array).mean() > 0.99
    with pytest.raises(volseg.DataError, match="no probabilities"):
        _ = model.predict(path).probabilities
    np.testing.assert_allclose(result.to_nibabel().affine, image.affine)
    np.testing.assert_array_equal(result.to_nibabel().get_fdata(), result.array)
    placed, original = result.to_simpleitk(), sitk.ReadImage(str(path))
    assert placed.GetSize() == original.GetSize()
    np.testing.assert_allclose(placed.GetOrigin(), original.GetOrigin())
    np.testing.assert_allclose(placed.GetDirection(), original.GetDirection())
    np.testing.assert_array_equal(sitk.GetArrayFromImage(placed).transpose(2, 1, 0), result.array)
    edited = np.where(result.array == 1, 2, 0)
    (saved,) = result.with_array(edited).save(tmp_path / "edited.seg.nrrd")
    assert volseg.evaluate(saved, result.with_array(edited)).summary["dice_mean"].iloc[-1] == 1.0
    with pytest.raises(volseg.DataError, match="9, which no label has"):
        result.with_array(edited + 7)
    with pytest.raises(volseg.GeometryError, match="array has shape"):
        result.with_array(edited.transpose()[1:])


def test_results_show_themselves_in_a_line(model: volseg.Model, dataset: Path) -> None:
    shown = repr(model), repr(volseg.inspect(dataset)), repr(volseg.plan(dataset))
    assert all(len(text) < 200 and "\n" not in text for text in shown)
    assert "labels" in shown[0]
    assert volseg.inspect(dataset).table["path"].tolist() == [item.path for item in volseg.inspect(dataset)]


def test_a_folder_of_several_cases_is_not_one_image(model: volseg.Model, dataset: Path) -> None:
    with pytest.raises(volseg.DataError, match="holds 6 cases") as caught:
        model.predict(dataset / "images")
    assert "predict_folder" in caught.value.hint


# What can be done with a mask


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha", "a.seg.nrrd", "a.glb", "a.png"])
def test_the_suffix_says_the_format(model: volseg.Model, image_file: Path, tmp_path: Path, name: str) -> None:
    result = model.predict(image_file)
    assert result.save(tmp_path / name) == [tmp_path / name]
    if not name.endswith(("glb", "png")):
        back = model.predict(image_file)
        source = volseg.export(tmp_path / name, image_file, tmp_path / "back.nii.gz")
        np.testing.assert_array_equal(source.mask.array, back.array)


def test_meshes_are_named_by_their_format(model: volseg.Model, image_file: Path, tmp_path: Path) -> None:
    result = model.predict(image_file)
    assert result.save(tmp_path / "meshes", format="stl") == [tmp_path / "meshes"]
    assert {path.name for path in (tmp_path / "meshes").glob("[!.]*")} == {"label_1.stl", "label_2.stl"}
    with pytest.raises(volseg.ConfigError, match="states no format"):
        result.save(tmp_path / "meshes.xyz")
    with pytest.raises(volseg.ConfigError, match="there is no format 'xyz'"):
        result.save(tmp_path / "a.nii.gz", format="xyz")  # type: ignore[arg-type]


def test_a_dicom_object_refers_to_the_images_it_is_given(model: volseg.Model, tmp_path: Path) -> None:
    image, _ = make_case(3)
    write_series(image, tmp_path / "series")
    from_series = model.predict(tmp_path / "series")
    (one,) = from_series.save(tmp_path / "one.seg.dcm")
    in_memory = model.predict(image)
    with pytest.raises(volseg.DataError, match="needs the images"):
        in_memory.save(tmp_path / "none.seg.dcm")
    written = in_memory.save(tmp_path / "two.sr.dcm", images=tmp_path / "series")
    assert [path.name for path in written] == ["two.seg.dcm", "two.sr.dcm"]
    masks = [volseg.export(path, tmp_path / "series", tmp_path / "x.nii.gz").mask for path in (one, written[0])]
    np.testing.assert_array_equal(*(mask.array for mask in masks))
    with pytest.raises(volseg.GeometryError):
        in_memory.save(tmp_path / "three.seg.dcm", images=write_elsewhere(image, tmp_path / "elsewhere"))


def write_elsewhere(image: volseg.Volume, folder: Path) -> Path:
    affine = image.geometry.affine.copy()
    affine[:3, 3] += 7
    write_series(volseg.Volume(image.array, volseg.Geometry(image.geometry.shape, affine)), folder)
    return folder


# A folder


def test_every_discovered_case_of_a_batch_can_be_asked_for(model: volseg.Model, dataset: Path, tmp_path: Path) -> None:
    patients = shutil.copytree(dataset / "images", tmp_path / "patients")
    (patients / "broken.nii.gz").write_bytes(b"no image")
    shutil.copy(dataset / "labels" / "case_0.nii.gz", patients / "case_0_seg.nii.gz")
    told: list[str] = []
    batch = model.predict_folder(
        str(patients),
        str(tmp_path / "masks"),
        formats=["nifti", "nrrd"],
        on_case_done=lambda one: told.append(one.case_id),
    )
    assert (batch.count("segmented"), batch.count("skipped"), batch.count("failed")) == (6, 1, 1)
    assert len(batch) == 8
    assert sorted(told) == sorted(case_id for case_id, case in batch.items() if case.status != "skipped")
    one = batch["case_1"]
    assert (one.status, one.reason) == (volseg.CaseStatus.SEGMENTED, "")
    np.testing.assert_array_equal(one.mask.array, model.predict(patients / "case_1.nii.gz").array)
    assert one.mask.volumes_ml == pytest.approx(dict(one.volumes_ml))
    assert set(one.paths) == {"nifti", "nrrd"}
    assert "damaged" in batch["broken"].reason
    with pytest.raises(volseg.DataError, match="case broken has no mask"):
        _ = batch["broken"].mask
    assert repr(batch).endswith("masks: 6 segmented, 1 skipped, 1 failed>")


def test_a_cancelled_batch_goes_on_where_it_was(model: volseg.Model, dataset: Path, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "predict" and done == 3:
            raise volseg.Cancelled

    with pytest.raises(volseg.Cancelled):
        model.predict_folder(dataset / "images", tmp_path, progress=stop)
    finished = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.nii.gz")}
    assert 1 <= len(finished) <= 3
    with (tmp_path / "cases.csv").open(encoding="utf-8") as file:
        assert {row["status"] for row in csv.DictReader(file)} == {"segmented"}
    batch = model.predict_folder(dataset / "images", tmp_path)
    assert batch.count("segmented") == 6
    again = {name: (tmp_path / name).stat().st_mtime_ns for name in finished}
    assert sum(again[name] == stamp for name, stamp in finished.items()) >= len(finished) - 1


def test_a_model_that_has_predicted_predicts_again_in_any_thread_and_process(
    model: volseg.Model, image_file: Path
) -> None:
    first = model.predict(image_file).array
    with ThreadPoolExecutor(2) as executor:
        for again in executor.map(lambda path: model.predict(path).array, [image_file] * 4):
            np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(image_file).array, first)


def test_several_models_are_an_ensemble(trained_run: Path, model: volseg.Model, image_file: Path) -> None:
    pair = volseg.load([trained_run, str(trained_run / "model.pt")])
    np.testing.assert_array_equal(pair.predict(image_file).array, model.predict(image_file).array)
    assert isinstance(model.network, torch.nn.Module)
    with pytest.raises(volseg.CheckpointError, match="ensemble of 2 networks"):
        _ = pair.network


def test_settings_that_are_not_learned_can_be_changed(trained_run: Path) -> None:
    model = volseg.load(trained_run, changes={"inference.overlap": 0.75})
    assert model.config.inference.overlap == 0.75
    with pytest.raises(volseg.ConfigError, match="training cannot be changed after training"):
        volseg.load(trained_run, changes={"training.epochs": 3})


# Plans


def test_a_changed_plan_is_a_new_one(dataset: Path, tmp_path: Path) -> None:
    plan = volseg.plan(str(dataset), network="vnet")
    changed = plan.changed({"training.epochs": 7, "loss": {"name": "dice"}})
    assert plan.config.network.name == "vnet"
    assert plan.config.training.epochs is None
    assert (changed.config.training.epochs, changed.config.loss.name) == (7, "dice")
    assert plan.dataset is not None
    assert len(plan.dataset.cases) == 6
    changed.save(tmp_path / "plan.yaml")
    assert yaml.safe_load((tmp_path / "plan.yaml").read_text())["training"]["epochs"] == 7
    with pytest.raises(volseg.ConfigError, match=r"there is no key 'training\.epoch'"):
        plan.changed({"training.epoch": 7})
    with pytest.raises(volseg.ConfigError, match="is not a key"):
        plan.changed({"training..epochs": 7})


# Two arrays


def test_two_arrays_are_scored_in_their_millimetres() -> None:
    reference = np.zeros((12, 10, 8), np.int64)
    reference[2:8, 2:8, 2:6] = 3
    prediction = np.roll(reference, 1, axis=2)
    scores = volseg.evaluate(prediction, reference, spacing_mm=(1.0, 1.0, 2.5))
    (row,) = scores.metrics.to_dict("records")
    assert row["label"] == "label_3"
    assert row["dice"] == pytest.approx(0.75)
    assert row["hd_mm"] == pytest.approx(2.5)
    as_nibabel_gives_them = volseg.evaluate(prediction.astype(float), reference > 0, spacing_mm=(1.0, 1.0, 2.5))
    assert as_nibabel_gives_them.metrics["label"].tolist() == ["label_1", "label_3"]
    assert scores.folder is None
    assert scores.summary["dice_mean"].tolist() == pytest.approx([0.75, 0.75])
    with pytest.raises(volseg.ConfigError, match="voxel sizes"):
        volseg.evaluate(prediction, reference)
    with pytest.raises(volseg.DataError, match="whole numbers"):
        volseg.evaluate(prediction / 2, reference, spacing_mm=(1, 1, 1))
    with pytest.raises(volseg.GeometryError, match="array has shape"):
        volseg.evaluate(prediction[1:], reference, spacing_mm=(1, 1, 1))


PLACED = np.array([[-1.0, 0, 0, 5], [0, 0, 2.5, -7], [0, 1.0, 0, 3], [0, 0, 0, 1]])  # axes L, S, A


def a_pair() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A reference with labels 1 and 3, and a prediction that is off by a voxel."""
    reference = np.zeros((12, 10, 8), np.uint8)
    reference[2:8, 2:8, 2:6] = 3
    reference[9:, 1:4, 1:4] = 1
    return np.roll(reference, 1, axis=2), reference


def simpleitk_of(array: NDArray[np.uint8]) -> sitk.Image:
    return volseg.Prediction(volseg.Mask(array, Geometry(array.shape, PLACED)), 0.0).to_simpleitk()


@pytest.mark.parametrize("kind", ["nibabel", "simpleitk", "mask", "prediction", "file", "beside an array"])
def test_every_kind_of_mask_is_scored_alike(kind: str, tmp_path: Path) -> None:
    prediction, reference = a_pair()
    expected = volseg.evaluate(prediction, reference, spacing_mm=np.linalg.norm(PLACED[:3, :3], axis=0)).metrics
    kinds: dict[str, Callable[[NDArray[np.uint8]], Any]] = {
        "nibabel": lambda array: nib.Nifti1Image(array, PLACED),
        "simpleitk": simpleitk_of,
        "mask": lambda array: volseg.Mask(
            array, Geometry(array.shape, PLACED), (volseg.Label(1, "a"), volseg.Label(3, "b"))
        ),
    }
    kinds["prediction"] = lambda array: volseg.Prediction(kinds["mask"](array), 0.0)
    made, wanted = kinds.get(kind, kinds["mask"])(prediction), kinds.get(kind, kinds["nibabel"])(reference)
    if kind == "file":
        nib.save(wanted, tmp_path / "reference.nii.gz")
        wanted = tmp_path / "reference.nii.gz"
    elif kind == "beside an array":
        wanted = reference
    found = volseg.evaluate(made, wanted).metrics
    pd.testing.assert_frame_equal(found.drop(columns="label"), expected.drop(columns="label"))
    assert "label_1" not in found["label"].tolist() or kind in {"nibabel", "simpleitk"}


def test_masks_in_memory_are_refused_with_a_way_out() -> None:
    prediction, reference = a_pair()
    image = nib.Nifti1Image(reference, PLACED)
    with pytest.raises(volseg.GeometryError, match="array has shape") as caught:
        volseg.evaluate(prediction.transpose(), image)
    assert "GetArrayFromImage" in "".join(caught.value.__notes__)
    with pytest.raises(volseg.ConfigError, match="has its own voxel size"):
        volseg.evaluate(prediction, image, spacing_mm=(1, 1, 1))
    with pytest.raises(volseg.ConfigError, match="output, resample cannot be used"):
        volseg.evaluate(prediction, image, "scores", resample=True)
    for wrong in (1.0, (1, 1), (1, -1, 1), (0, 1, 1)):
        with pytest.raises(volseg.ConfigError, match="positive numbers"):
            volseg.evaluate(prediction, reference, spacing_mm=wrong)
    moved = nib.Nifti1Image(reference, PLACED + np.array([[0, 0, 0, 9.0]] * 3 + [[0] * 4]))
    with pytest.raises(volseg.GeometryError):
        volseg.evaluate(image, moved)
    flat = reference[:, :, 2]
    assert volseg.evaluate(flat, flat, spacing_mm=(0.5, 0.5)).summary["dice_mean"].iloc[-1] == 1.0


def test_labels_in_memory_are_matched_by_name(tmp_path: Path) -> None:
    prediction, reference = a_pair()
    expected = volseg.evaluate(prediction, nib.Nifti1Image(reference, PLACED)).metrics["dice"].tolist()
    nib.save(nib.Nifti1Image(reference, PLACED), tmp_path / "truth.nii.gz")
    (tmp_path / "labels.json").write_text('[{"value": 1, "name": "spleen"}, {"value": 3, "name": "liver"}]')
    numbered = np.array([0, 7, 0, 2], np.uint8)[prediction]
    mask = volseg.Mask(
        numbered, Geometry(reference.shape, PLACED), (volseg.Label(2, "Liver"), volseg.Label(7, "spleen"))
    )
    found = volseg.evaluate(mask, tmp_path / "truth.nii.gz").metrics
    assert found["label"].tolist() == ["spleen", "liver"]
    assert found["dice"].tolist() == pytest.approx(expected)
    strange = volseg.Mask(numbered, mask.geometry, (volseg.Label(2, "kidney"), volseg.Label(7, "spleen")))
    found = volseg.evaluate(strange, tmp_path / "truth.nii.gz").metrics
    assert dict(zip(found["label"], found["status"], strict=True)) == {
        "spleen": "ok", "liver": "missed", "kidney": "false_alarm",
    }  # fmt: skip
    bare = volseg.evaluate(volseg.Mask(prediction, mask.geometry), reference).metrics
    assert bare["dice"].tolist() == pytest.approx(expected)


def test_a_threshold_in_memory_is_that_of_files() -> None:
    prediction, reference = (array == 3 for array in a_pair())
    soft = np.where(prediction, 0.9, 0.1)
    expected = volseg.evaluate(prediction, reference, spacing_mm=(1, 1, 1)).metrics["dice"].tolist()
    whole = (soft * 255).astype(np.uint8)
    for probabilities in (soft, soft.astype(np.float32), whole):
        found = volseg.evaluate(probabilities, reference, spacing_mm=(1, 1, 1), threshold=0.5)
        assert found.metrics["dice"].tolist() == pytest.approx(expected)
    found = volseg.evaluate(soft, reference * np.uint8(7), spacing_mm=(1, 1, 1), threshold=0.5).metrics
    assert (found["value"].tolist(), found["dice"].tolist()) == ([7], pytest.approx(expected))
    for wrong in (20 * soft - 10, np.where(prediction, np.nan, 0.1)):
        with pytest.raises(volseg.DataError, match="does not hold probabilities"):
            volseg.evaluate(wrong, reference, spacing_mm=(1, 1, 1), threshold=0.5)
    with pytest.raises(volseg.DataError, match="the reference has 2"):
        volseg.evaluate(soft, a_pair()[1], spacing_mm=(1, 1, 1), threshold=0.5)
    for threshold in (2.0, -1.0, np.nan):
        with pytest.raises(volseg.ConfigError, match="a probability from 0 to 1"):
            volseg.evaluate(soft, reference, spacing_mm=(1, 1, 1), threshold=threshold)
    grid = Geometry(reference.shape, PLACED)
    with pytest.raises(volseg.ConfigError, match="has no probabilities"):
        volseg.evaluate(volseg.Mask(reference.astype(np.uint8), grid), reference, threshold=0.5)


@pytest.mark.parametrize("wrong", [1, [1, 0], "1,1,2"])
def test_what_is_no_mask_or_spacing_is_refused(wrong: Any) -> None:
    _, reference = a_pair()
    with pytest.raises(volseg.VolsegError):
        volseg.evaluate(reference if isinstance(wrong, str) else wrong, reference, spacing_mm=wrong)


def test_an_edited_prediction_says_so_and_keeps_to_its_images(model: volseg.Model, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_series(make_case(0)[0], tmp_path / name)
    result = model.predict(tmp_path / "a", allow_mismatch=True)
    flipped = nib.Nifti1Image(result.array[::-1], result.geometry.affine @ np.diag([-1.0, 1, 1, 1]))
    flipped.affine[:3, 3] = result.geometry.world([result.array.shape[0] - 1, 0, 0])
    edited = result.with_array(nib.Nifti1Image(result.array[::-1], flipped.affine))
    np.testing.assert_array_equal(edited.array, result.array)
    with pytest.raises(volseg.GeometryError):
        result.with_array(nib.Nifti1Image(result.array, np.diag([2.0, 2, 2, 1])))
    (path,) = edited.save(tmp_path / "edited.seg.dcm")
    assert {item.SegmentAlgorithmType for item in pydicom.dcmread(path).SegmentSequence} == {"SEMIAUTOMATIC"}
    found = volseg.evaluate(edited, path)
    assert found.summary["dice_mean"].iloc[-1] == 1.0
    with pytest.raises(volseg.GeometryError, match="another series"):
        edited.save(tmp_path / "other.seg.dcm", tmp_path / "b")


def test_two_files_of_other_names_are_a_pair(tmp_path: Path) -> None:
    prediction, reference = a_pair()
    for name, array in (("mine", prediction), ("truth", reference)):
        nib.save(nib.Nifti1Image(array, PLACED), tmp_path / f"{name}.nii.gz")
    found = volseg.evaluate(tmp_path / "mine.nii.gz", tmp_path / "truth.nii.gz")
    assert found.metrics["status"].tolist() == ["ok", "ok"]


# The command line and the library are one


def content_of(folder: Path) -> dict[str, Any]:
    """Every file of a folder, times and versions of the moment aside."""
    files = [path for path in sorted(folder.rglob("[!.]*")) if path.is_file()]
    return {re.sub(r"tfevents.*", "tfevents", str(path.relative_to(folder))): without_time(path) for path in files}


def without_time(path: Path) -> Any:
    if "tfevents" in path.name:
        return None
    if path.suffix == ".csv":
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        return table.drop(columns=[name for name in table.columns if name.endswith(TIMED)]).to_csv()
    if path.name == "about.json":
        about = json.loads(path.read_text("utf-8"))
        return {
            **about,
            "made": "",
            "facts": {name: fact for name, fact in about["facts"].items() if "made" not in name},
        }
    if path.suffix == ".pt":
        state = torch.load(path, weights_only=True)
        return repr({key: value for key, value in state.items() if key in {"weights", "network", "config", "epoch"}})
    if path.suffix == ".html":
        return [line for line in path.read_text("utf-8").splitlines() if "UTC" not in line]
    return path.read_bytes()


Cli = Callable[..., tuple[int, str, str]]


def test_each_verb_does_the_same_on_the_command_line_and_in_python(
    volseg_cli: Cli, dataset: Path, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell, script = tmp_path / "shell", tmp_path / "script"
    tiny, images = tmp_path / "tiny.yaml", dataset / "images"
    tiny.write_text(yaml.safe_dump(TINY))

    def verbs(*words: object) -> None:
        code, _, err = volseg_cli(*words)
        assert code == 0, err

    shell.mkdir()
    script.mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(shell)
        verbs("plan", dataset, "--output", "plan.yaml", "--set", "network.name=vnet", "--set", "training.minutes=3")
        steps = ("--epochs", 2, "--set", "training.steps_per_epoch=2")
        verbs("train", dataset, "--output", "run", "--config", tiny, *steps)
        verbs("predict", images, "--model", trained_run, "--output", "masks", "--report")
        verbs("evaluate", "masks", dataset, "--output", "scores", "--tolerance-mm", 1, "--lesions", "--report")
        verbs("evaluate", "--compare", "scores", "scores", "--output", "compared")
        verbs("report", "run")
        reference = ("--reference", images / "case_1.nii.gz")
        verbs("export", "masks/case_1.nii.gz", *reference, "--format", "seg-nrrd", "--output", "a.seg.nrrd")
        archive = shutil.make_archive(str(tmp_path / "Task99_Tiny"), "tar", dataset)
        verbs("download", "Task99_Tiny", "--url", Path(archive).as_uri(), "--output", "data")
        _, shown, _ = volseg_cli("inspect", images, "--json")
    with monkeypatch.context() as patch:
        patch.chdir(script)
        volseg.plan(dataset, network="vnet", minutes=3).save(Path("plan.yaml"))
        volseg.train(dataset, "run", config=tiny, epochs=2, changes={"training.steps_per_epoch": 2})
        volseg.load(trained_run).predict_folder(images, "masks", report=True)
        scores = volseg.evaluate("masks", dataset, "scores", tolerance_mm=1, lesions=True, report=True)
        volseg.compare("scores", "scores", "compared")
        volseg.report("run")
        volseg.export("masks/case_1.nii.gz", images / "case_1.nii.gz", "a.seg.nrrd", format="seg-nrrd")
        volseg.download("Task99_Tiny", "data", url=Path(archive).as_uri())
        items = volseg.inspect(images)
    assert scores.report == Path("scores/report.html")
    assert [item["path"] for item in json.loads(shown)] == [item.path for item in items]
    ours, theirs = content_of(script), content_of(shell)
    assert ours.keys() == theirs.keys()
    timed = {"plan.yaml", "run/train.log"}  # which tell how long steps took
    assert {name for name in ours if ours[name] != theirs[name]} <= timed
    plans = [yaml.safe_load((folder / "plan.yaml").read_text()) for folder in (script, shell)]
    for each in plans:
        assert each["network"].pop("name") == "vnet"
        del each["network"], each["training"]["memory_format"], each["training"]["precision"]
    assert plans[0] == plans[1]
    assert {"plan.yaml", "run/model.pt", "run/report.html", "masks/review.csv", "scores/report.html"} <= ours.keys()


def test_a_case_that_was_found_is_segmented_and_can_be_stopped(dataset: Path, trained_run: Path) -> None:
    model = volseg.load(trained_run)
    found = model.find_cases(dataset / "images", "hash")
    assert len(found.cases) == 6
    steps: list[tuple[str, int, int]] = []
    one = model.predict(found.cases[0], progress=lambda stage, done, total, note="": steps.append((stage, done, total)))
    assert np.array_equal(one.array, model.predict(found.cases[0].image.place).array)
    assert steps[-1][0] == "predict"
    assert steps[-1][1] == steps[-1][2] > 0

    def cancel(*_: object) -> None:
        raise volseg.Cancelled

    with pytest.raises(volseg.Cancelled):
        model.predict(found.cases[0], progress=cancel)


def test_a_prediction_says_why_somebody_should_look_at_it(dataset: Path, trained_run: Path) -> None:
    model = volseg.load(trained_run)
    good = model.predict(dataset / "images" / "case_0.nii.gz")
    assert good.review() == ()
    cut = np.zeros_like(good.array)
    cut[:3, 5:9, 5:9] = 1
    reasons = good.with_array(cut).review()
    assert any("label_1: " in reason and "cut off at the" in reason for reason in reasons)
