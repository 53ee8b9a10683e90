"""Models made of parts: TotalSegmentator's tasks, from folders as it keeps them, with made-up weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import STORAGE_ORDERS, make_case
from scipy import ndimage
from test_importing import plans_of, write_model

import volseg
from volseg.errors import CheckpointError, DataError
from volseg.image.box import Box
from volseg.image.geometry import Geometry
from volseg.image.resampled import ResampledVolume, Resampling
from volseg.image.volume import Volume
from volseg.importing import import_model
from volseg.io import write_volume
from volseg.io.dicom import write_series
from volseg.model.checkpoint import load_weights

NAMES = {
    291: ("spleen", "liver", "stomach"),
    292: ("sacrum", "vertebrae_L5"),
    293: ("heart",),
    294: ("humerus_left", "humerus_right"),
    295: ("rib_left_1",),
    298: ("lung_upper_lobe_left", "lung_lower_lobe_left", "lung_upper_lobe_right", "lung_middle_lobe_right",
          "lung_lower_lobe_right"),
    913: ("lung", "lung_nodules"),
}  # fmt: skip


def write_weights(folder: Path, number: int, spacing_mm: float, **changes: Any) -> None:
    """A folder of one model, as TotalSegmentator downloads it."""
    plans = plans_of(spacing=[spacing_mm] * 3, normalization_schemes=["CTNormalization"], **changes)
    plans["configurations"]["3d_fullres"] = {"inherits_from": "base"}
    labels = {"background": 0, **{name: n for n, name in enumerate(NAMES[number], start=1)}}
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    write_model(
        folder / f"Dataset{number:03}_made_up" / "nnUNetTrainerNoMirroring__nnUNetPlans__3d_fullres",
        plans,
        dataset,
        outputs=len(labels),
        init_args={"configuration": "3d_fullres", "fold": 0},
        trainer_name="nnUNetTrainerNoMirroring",
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    for number in (291, 292, 293, 294, 295, 913):
        write_weights(folder, number, 1.5)
    write_weights(folder, 298, 6.0)
    return folder


def write_image(path: Path, order: int = 0) -> Path:
    image, _ = make_case(5, (40, 44, 24))
    turned = STORAGE_ORDERS[order]
    array = np.ascontiguousarray(turned.apply(image.array))
    write_volume(Volume(array, image.geometry.reordered(turned)), path)
    return path


@pytest.mark.parametrize("shape", [(20, 31, 9), (1, 12, 2), (7, 7, 7)])
def test_the_grid_is_that_of_scipy_zoom(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(size=(1, *shape)).astype(np.float32)
    geometry = Geometry(shape, np.diag([0.8, 0.9, 4.0, 1.0]))
    way = Resampling.towards(geometry, (1.5, 1.5, 1.5), "corners", answers="labels")
    wanted = ndimage.zoom(array[0].astype(float), np.array([0.8, 0.9, 4.0]) / 1.5, mode="nearest", order=1)
    found = ResampledVolume(array, way).read(Box.whole(way.new_shape))[0].numpy()
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    labels = rng.integers(0, 5, way.new_shape)
    back = ndimage.zoom(labels, np.array(shape) / np.array(way.new_shape), mode="nearest", order=0)
    places = [each.astype(int) for each in way.positions_back]
    np.testing.assert_array_equal(labels[np.ix_(*places)], back)


def test_labels_are_numbered_through_and_painted_in_order(weights: Path, tmp_path: Path) -> None:
    run = import_model(weights, tmp_path / "run", task="total")
    model = volseg.load(run)
    names = [name for number in (291, 292, 293, 294, 295) for name in NAMES[number]]
    assert [(label.name, label.value) for label in model.labels] == [(name, n) for n, name in enumerate(names, 1)]
    image = write_image(tmp_path / "image.nii.gz")
    wanted = np.zeros((40, 44, 24), int)
    for n in range(5):
        part = volseg.load(run / "parts" / str(n)).predict(image, allow_mismatch=True).mask.array
        wanted = np.where(part != 0, part, wanted)
    found = model.predict(image, allow_mismatch=True).mask.array
    np.testing.assert_array_equal(found, wanted)
    assert len(np.unique(found)) > 4


def test_every_order_of_storage_gives_one_mask(weights: Path, tmp_path: Path) -> None:
    model = volseg.load(import_model(weights, tmp_path / "run", task="total"))
    masks = []
    for n in (0, 9, 30):
        image = write_image(tmp_path / f"{n}.nii.gz", n)
        mask = model.predict(image, allow_mismatch=True).mask.array
        masks.append(STORAGE_ORDERS[n].inverse().apply(mask))
    assert all(np.array_equal(mask, masks[0]) for mask in masks)


def test_a_coarse_model_finds_where_the_others_look(weights: Path, tmp_path: Path) -> None:
    """Outside of its lungs and 20 mm about them there is nothing; where it finds none, nothing at all."""
    run = import_model(weights, tmp_path / "run", task="lung_nodules")
    image = write_image(tmp_path / "image.nii.gz")
    coarse = volseg.load(run / "coarse").predict(image, allow_mismatch=True).mask
    found = volseg.load(run).predict(image, allow_mismatch=True).mask.array
    box = Box.around(coarse.array > 0)
    assert box is not None
    box = box.grown([int(20 / size) for size in coarse.geometry.spacing_mm], coarse.array.shape)
    outside = np.ones(found.shape, bool)
    outside[box] = False
    assert not found[outside].any()
    part = volseg.load(run / "parts" / "0")
    volume = volseg.Volume(make_case(5, (40, 44, 24))[0].array[:, *box], coarse.geometry.part(box))
    np.testing.assert_array_equal(found[box], part.predict(volume, allow_mismatch=True).mask.array)
    empty = np.full((1, 30, 30, 30), 1000, np.float32)
    empty[0, 0, 0, 0] = 1001  # an image of a single value is refused
    nothing = Volume(empty, Geometry((30, 30, 30), np.eye(4)))
    model = volseg.load(run)
    if not volseg.load(run / "coarse").predict(nothing, allow_mismatch=True).mask.array.any():
        assert not model.predict(nothing, allow_mismatch=True).mask.array.any()


def test_a_folder_of_patients_dicom_included(weights: Path, tmp_path: Path) -> None:
    run = import_model(weights, tmp_path / "run", task="total")
    image, _ = make_case(5, (40, 44, 24))
    write_series(image, tmp_path / "in" / "series", modality="CT")
    write_volume(image, tmp_path / "in" / "file.nii.gz")
    model = volseg.load(run)
    batch = model.predict_folder(tmp_path / "in", tmp_path / "out", allow_mismatch=True)
    assert [case.status for case in batch.values()] == ["segmented", "segmented"]
    again = model.predict_folder(tmp_path / "in", tmp_path / "out", allow_mismatch=True)
    assert all(case.is_unchanged for case in again.values())
    with pytest.raises(CheckpointError, match="made of parts"):
        _ = model.network
    assert "Apache" in model.licence
    with pytest.raises(CheckpointError, match="made of parts"):
        volseg.convert(run, tmp_path / "converted", to="onnx")
    with pytest.raises(CheckpointError, match="made of parts"):
        load_weights(run)
    assert "Apache" in volseg.card(run, tmp_path / "card").read_text()


def test_what_is_not_there_is_named(weights: Path, tmp_path: Path) -> None:
    for task, named in {
        "total_mr": "dataset 850",
        "liver_segments": "dataset 570",
        "vertebrae_pp": "needs steps beyond its models",
        "everything": "no task 'everything'",
    }.items():
        with pytest.raises(CheckpointError, match=named):
            import_model(weights, tmp_path / "run", task=task)
    other = tmp_path / "other"
    write_weights(other, 913, 2.0)
    write_weights(other, 298, 6.0)
    with pytest.raises(CheckpointError, match="its plan has voxels of"):
        import_model(other, tmp_path / "run", task="lung_nodules")
    assert not (tmp_path / "run").exists()


def test_there_are_no_probabilities_of_parts(weights: Path, tmp_path: Path) -> None:
    run = import_model(weights, tmp_path / "run", task="lung_nodules")
    write_image(tmp_path / "in" / "image.nii.gz")
    batch = volseg.load(run).predict_folder(tmp_path / "in", tmp_path / "out", probabilities=True, allow_mismatch=True)
    assert "no probabilities" in next(iter(batch.values())).reason
    image, _ = make_case(5, (40, 44, 24))
    write_series(image, tmp_path / "series", modality="MR")
    with pytest.raises(DataError, match="not made for"):
        volseg.load(run).predict(tmp_path / "series")
