from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import STORAGE_ORDERS, make_case, predict, predict_folder

from volseg.cases import Case
from volseg.config import merge, validate
from volseg.errors import CheckpointError, ConfigError, DataError
from volseg.exporting import Format
from volseg.image.volume import Volume
from volseg.io import FileSource, read_mask, write_volume
from volseg.io.dicom import write_series
from volseg.io.labels import read_labels
from volseg.model.checkpoint import TrainedNetwork, load, load_model, save
from volseg.prediction.cases_csv import CaseResult, CaseStatus
from volseg.prediction.predictor import Predictor, blank_mask, check_ensemble
from volseg.prediction.request import Request
from volseg.progress import Progress, ignore_progress

CPU = torch.device("cpu")


#: Columns that differ from run to run.
MEASURED = ["seconds", "read_seconds", "network_seconds", "restore_seconds", "write_seconds", "peak_memory_mb"]


def case_of(path: Path) -> Case:
    return Case("case", {"image": FileSource(path)})


def segment(
    source: Path,
    models: list[Path],
    output: Path,
    formats: tuple[Format, ...] = ("nifti",),
    progress: Progress = ignore_progress,
) -> list[CaseResult]:
    return predict_folder(source, models, Request(output, formats), progress=progress)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_the_mask_lies_on_the_anatomy(trained_run: Path, tmp_path: Path) -> None:
    image, reference = make_case(0)
    write_volume(image, tmp_path / "image.nii.gz")
    mask = predict(case_of(tmp_path / "image.nii.gz"), [load_model(trained_run, CPU)])
    assert mask.geometry.matches(image.geometry, 1e-4)
    assert min(dice(mask.array == value, reference.array == value) for value in (1, 2)) > 0.7


def test_the_same_anatomy_in_every_storage_order_gives_the_same_mask_to_the_voxel(
    trained_run: Path, tmp_path: Path
) -> None:
    image, _ = make_case(0)
    predictor = Predictor([load_model(trained_run, CPU)])  # one for all: some engines take long to start
    expected = None
    for n, order in enumerate(STORAGE_ORDERS):
        geometry = image.geometry.reordered(order)
        path = tmp_path / f"{n}.nii.gz"
        write_volume(Volume(np.ascontiguousarray(order.apply(image.array)), geometry), path)
        mask = predictor.finish(predictor.segment(predictor.prepare(case_of(path))))
        assert mask.geometry.distance_mm(geometry) < 1e-4
        anatomy = order.inverse().apply(mask.array)
        expected = anatomy if expected is None else expected
        np.testing.assert_array_equal(anatomy, expected)
    assert expected is not None
    assert set(np.unique(expected)) == {0, 1, 2}


def test_dicom_gives_the_mask_of_nifti(trained_run: Path, tmp_path: Path) -> None:
    image, _ = make_case(1)
    whole = Volume(np.rint(image.array), image.geometry)
    write_volume(whole, tmp_path / "nifti" / "case.nii.gz")
    write_series(whole, tmp_path / "dicom" / "case")
    reports = [segment(tmp_path / kind, [trained_run], tmp_path / f"{kind}_out") for kind in ("nifti", "dicom")]
    assert [[(report.case_id, report.status) for report in each] for each in reports] == [
        [("case", CaseStatus.SEGMENTED)]
    ] * 2
    one, other = (read_mask(FileSource(tmp_path / f"{kind}_out" / "case.nii.gz")) for kind in ("nifti", "dicom"))
    canonical = [mask.geometry.to_canonical.apply(mask.array) for mask in (one, other)]
    np.testing.assert_array_equal(canonical[0], canonical[1])
    order = other.geometry.to_canonical
    assert other.geometry.reordered(order).matches(one.geometry.reordered(one.geometry.to_canonical), 1e-3)


def test_a_coarser_source_gets_a_mask_on_its_own_grid(trained_run: Path, tmp_path: Path) -> None:
    image, _ = make_case(0, (20, 18, 16))
    thin = Volume(image.array[:, :, :, :1].copy(), type(image.geometry)((20, 18, 1), image.geometry.affine))
    write_volume(thin, tmp_path / "one_slice.nii.gz")
    mask = predict(case_of(tmp_path / "one_slice.nii.gz"), [load_model(trained_run, CPU)])
    assert mask.array.shape == (20, 18, 1)


def test_an_ensemble_of_one_model_twice_is_that_model(trained_run: Path, tmp_path: Path) -> None:
    image, _ = make_case(2)
    write_volume(image, tmp_path / "image.nii.gz")
    model = load_model(trained_run, CPU)
    alone, twice = (predict(case_of(tmp_path / "image.nii.gz"), [model] * n) for n in (1, 2))
    np.testing.assert_array_equal(alone.array, twice.array)


def test_models_with_other_labels_are_not_averaged(trained_run: Path) -> None:
    model = load_model(trained_run, CPU)
    data = model.config.data.model_copy(update={"labels": {"else": 1, "other": 2}})
    other = TrainedNetwork.of(model.network, model.config.model_copy(update={"data": data}))
    with pytest.raises(CheckpointError, match="differ in channels, labels or regions"):
        check_ensemble([model, other])


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """Three good cases, one DICOM series, one truncated file, one text file renamed, a report."""
    folder = tmp_path / "patients"
    for seed in range(3):
        write_volume(make_case(seed)[0], folder / f"p{seed}" / "t1.nii.gz")
    image, _ = make_case(3)
    write_series(Volume(np.rint(image.array), image.geometry), folder / "p3" / "series")
    (folder / "p4").mkdir()
    (folder / "p4" / "t1.nii.gz").write_bytes((folder / "p0" / "t1.nii.gz").read_bytes()[:1000])
    (folder / "p5").mkdir()
    (folder / "p5" / "t1.nii.gz").write_text("not an image")
    (folder / "p5" / "report.txt").write_text("not an image")
    return folder


EXPECTED = {
    "p0_t1": "segmented",
    "p1_t1": "segmented",
    "p2_t1": "segmented",
    "p3_series": "segmented",
    "p4_t1": "failed",
    "p5_t1": "failed",
}


def rows(output: Path) -> pd.DataFrame:
    return pd.read_csv(output / "cases.csv", keep_default_na=False)


def test_a_bad_patient_never_stops_the_rest(trained_run: Path, patients: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    segment(patients, [trained_run], output)
    table = rows(output)
    assert dict(zip(table["case_id"], table["status"], strict=True)) == EXPECTED
    assert table.loc[table["status"] == "failed", "reason"].str.contains("damaged or not NIfTI").all()
    assert {path.name for path in output.glob("*.nii.gz")} == {
        f"{case_id}.nii.gz" for case_id, status in EXPECTED.items() if status == "segmented"
    }
    mask = read_mask(FileSource(output / "p1_t1.nii.gz"))
    volume_ml = (mask.array == 1).sum() * mask.geometry.voxel_volume_ml
    stated = float(table.loc[table["case_id"] == "p1_t1", "label_1_ml"].iloc[0])
    assert stated == pytest.approx(volume_ml, rel=1e-4)
    assert [label.name for label in read_labels(output / "labels.json")] == ["label_1", "label_2"]


def test_an_interrupted_batch_goes_on_where_it_was(trained_run: Path, patients: Path, tmp_path: Path) -> None:
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    segment(patients, [trained_run], whole)

    class Killed(BaseException):
        pass

    def kill_at_second(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "predict" and done == 2:
            raise Killed

    with pytest.raises(Killed):
        segment(patients, [trained_run], pieces, progress=kill_at_second)
    first = (pieces / "p0_t1.nii.gz").stat().st_mtime_ns
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    (pieces / f".volseg-part-{dead.pid}-p2_t1.nii.gz").write_bytes(b"half")
    segment(patients, [trained_run], pieces)
    assert (pieces / "p0_t1.nii.gz").stat().st_mtime_ns == first
    assert not list(pieces.glob(".volseg-part-*"))
    pd.testing.assert_frame_equal(*(rows(out).drop(columns=MEASURED) for out in (whole, pieces)))
    for path in whole.glob("*.nii.gz"):
        assert path.read_bytes() == (pieces / path.name).read_bytes()


def test_a_mask_is_made_anew_when_its_input_or_model_changed(trained_run: Path, patients: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    segment(patients, [trained_run], output)
    stamps = {path.name: path.stat().st_mtime_ns for path in output.glob("*.nii.gz")}
    shutil.copy(patients / "p2" / "t1.nii.gz", patients / "p1" / "t1.nii.gz")
    shutil.copy(patients / "p4" / "t1.nii.gz", patients / "p0" / "t1.nii.gz")
    segment(patients, [trained_run], output)
    assert not (output / "p0_t1.nii.gz").exists()  # it failed now: its old mask must not stay
    changed = {
        name
        for name, stamp in stamps.items()
        if (output / name).exists() and (output / name).stat().st_mtime_ns != stamp
    }
    assert changed == {"p1_t1.nii.gz"}
    content = load(trained_run / "model.pt")
    save(tmp_path / "same.pt", {**content, "epoch": 99})
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("*.nii.gz")}
    segment(patients, [tmp_path / "same.pt"], output)  # the same weights and settings are the same model
    assert {path.name: path.stat().st_mtime_ns for path in output.glob("*.nii.gz")} == before
    bias = next(tensor for tensor in content["weights"].values() if tensor.ndim == 1)
    bias += 1e-3
    save(tmp_path / "other.pt", content)
    segment(patients, [tmp_path / "other.pt"], output)
    assert all(
        (output / name).stat().st_mtime_ns != stamp for name, stamp in stamps.items() if (output / name).exists()
    )


def test_several_formats_hold_the_same_mask(trained_run: Path, tmp_path: Path) -> None:
    image, _ = make_case(0)
    write_volume(image, tmp_path / "in" / "a.nii.gz")
    segment(tmp_path / "in", [trained_run], tmp_path / "out", ("nifti", "nrrd", "mha"))
    masks = [read_mask(FileSource(tmp_path / "out" / f"a{suffix}")) for suffix in (".nii.gz", ".nrrd", ".mha")]
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask.array, masks[0].array)
        assert mask.geometry.matches(masks[0].geometry, 1e-4)


def test_a_defect_in_one_case_is_kept_in_the_log(
    trained_run: Path, patients: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(predictor: Predictor, case: Case) -> None:
        raise ZeroDivisionError(f"in {case.case_id}")

    monkeypatch.setattr(Predictor, "prepare", defect)
    reports = segment(patients, [trained_run], tmp_path / "out")
    assert all(report.status is CaseStatus.FAILED for report in reports)
    assert "ZeroDivisionError: in p3_series" in (tmp_path / "out" / "volseg.log").read_text()


def test_nothing_to_segment(trained_run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert segment(tmp_path / "empty", [trained_run], tmp_path / "out") == []
    assert rows(tmp_path / "out").empty
    with pytest.raises(DataError, match="does not exist"):
        segment(tmp_path / "nothing", [trained_run], tmp_path / "out")


@pytest.mark.real_data
@pytest.mark.parametrize("folder", ["spine", "nifti_odd"])
def test_real_folders_are_accounted_for_on_their_exact_grids(
    trained_run: Path, real_data: Path, tmp_path: Path, folder: str
) -> None:
    reports = segment(real_data / folder, [trained_run], tmp_path / "out")
    found = [path for path in (real_data / folder).rglob("*") if path.is_file()]
    assert len(reports) == len(found)
    for path in found:
        relative = path.relative_to(real_data / folder)
        case_id = "_".join([*relative.parts[:-1], relative.name.split(".")[0]])
        report = next(report for report in reports if report.case_id == case_id)
        if report.status is CaseStatus.SEGMENTED:
            image, mask = nib.load(path), nib.load(tmp_path / "out" / f"{case_id}.nii.gz")
            assert mask.shape == image.shape[:3]
            corners = np.stack(np.meshgrid(*[(0, size - 1) for size in mask.shape]), -1).reshape(-1, 3)
            shift = nib.affines.apply_affine(mask.affine, corners) - nib.affines.apply_affine(image.affine, corners)
            assert np.abs(shift).max() < 1e-4
        else:
            assert report.reason


def test_two_interruptions_lose_nothing(trained_run: Path, patients: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    segment(patients, [trained_run], output)
    stamps = {path.name: path.stat().st_mtime_ns for path in output.glob("*.nii.gz")}

    class Killed(BaseException):
        pass

    def kill_at(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "predict" and done == 1:
            raise Killed

    (patients / "p0" / "t1.nii.gz").unlink()
    write_volume(make_case(7)[0], patients / "p0" / "t1.nii.gz")
    for _ in range(2):
        with pytest.raises(Killed):
            segment(patients, [trained_run], output, progress=kill_at)
    assert set(rows(output)["case_id"]) >= {"p0_t1", "p1_t1", "p2_t1", "p3_series"}
    segment(patients, [trained_run], output)
    changed = {name for name, stamp in stamps.items() if (output / name).stat().st_mtime_ns != stamp}
    assert changed == {"p0_t1.nii.gz"}


def test_a_mask_of_another_format_does_not_stay_behind(trained_run: Path, tmp_path: Path) -> None:
    write_volume(make_case(0)[0], tmp_path / "in" / "a.nii.gz")
    segment(tmp_path / "in", [trained_run], tmp_path / "out", ("nifti",))
    segment(tmp_path / "in", [trained_run], tmp_path / "out", ("nrrd",))
    assert [path.name for path in (tmp_path / "out").glob("a.*")] == ["a.nrrd"]


def test_reasons_do_not_tell_where_the_input_lies(trained_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Doe_John"
    folder.mkdir()
    (folder / "ct.nii.gz").write_bytes(b"no image")
    for source in (folder, folder / "ct.nii.gz"):
        (report,) = segment(source, [trained_run], tmp_path / "out")
        assert "ct.nii.gz" in report.reason
        assert "Doe" not in report.reason


@pytest.mark.slow
def test_killed_twice_a_batch_ends_like_one_that_was_left_alone(trained_run: Path, tmp_path: Path) -> None:
    """Processes that are killed with no chance to clean up, while cases are read, segmented and written at once."""
    for n in range(8):
        write_volume(make_case(n)[0], tmp_path / "in" / f"p{n}.nii.gz")
    for n in (2, 5):
        (tmp_path / "in" / f"p{n}.nii.gz").write_bytes(b"damaged")
    words = [sys.executable, "-m", "volseg", "predict", tmp_path / "in", "--model", trained_run, "--output"]
    undisturbed, pieces = tmp_path / "undisturbed", tmp_path / "pieces"
    assert subprocess.run([*words, undisturbed], check=False, capture_output=True).returncode == 3
    for wanted in (1, 4):
        process = subprocess.Popen([*words, pieces], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(pieces.glob("*.nii.gz"))) < wanted:
            time.sleep(0.002)
        process.kill()
        process.wait()
        if (pieces / "cases.csv").exists():
            table = rows(pieces)
            done = set(table.loc[table["status"] == "segmented", "case_id"])
            assert all((pieces / f"{case_id}.nii.gz").exists() for case_id in done)
    assert subprocess.run([*words, pieces], check=False, capture_output=True).returncode == 3
    pd.testing.assert_frame_equal(*(rows(out).drop(columns=MEASURED) for out in (undisturbed, pieces)))
    names = sorted(path.name for path in undisturbed.iterdir())
    assert sorted(path.name for path in pieces.iterdir()) == names
    for name in names:
        if name.endswith(".nii.gz"):
            assert (undisturbed / name).read_bytes() == (pieces / name).read_bytes()


def test_cases_csv_says_what_each_case_took(trained_run: Path, tmp_path: Path) -> None:
    write_volume(make_case(0)[0], tmp_path / "in" / "a.nii.gz")
    told: list[CaseResult] = []
    (report,) = predict_folder(tmp_path / "in", [trained_run], Request(tmp_path / "out"), on_case_done=told.append)
    assert told == [report]
    row = rows(tmp_path / "out").iloc[0]
    parts = [row[f"{name}_seconds"] for name in ("read", "network", "restore", "write")]
    assert row["seconds"] == pytest.approx(sum(parts), abs=0.03)
    assert row["windows"] == report.effort.windows > 0
    assert row["network_seconds"] == pytest.approx(report.effort.network_seconds, abs=0.006)
    assert report.effort.network_seconds > 0


def test_inference_can_be_changed_after_training_and_what_was_learned_cannot(trained_run: Path, tmp_path: Path) -> None:
    write_volume(make_case(0)[0], tmp_path / "in" / "a.nii.gz")
    windows = []
    for overlap in (0.0, 0.9):
        request = Request(tmp_path / f"out_{overlap}")
        (report,) = predict_folder(tmp_path / "in", [trained_run], request, {"inference": {"overlap": overlap}})
        windows.append(report.effort.windows)
    assert windows[0] < windows[1]
    overrides = {"patches": {"size": [8, 8, 8]}, "data": {"labels": {"a": 1}, "allow_gaps": True}}
    with pytest.raises(ConfigError, match=r"data\.labels, patches cannot be changed after training"):
        predict_folder(tmp_path / "in", [trained_run], Request(tmp_path / "out"), overrides)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_engines_that_are_named_give_nearly_the_same_mask(
    trained_run: Path, tmp_path: Path, backend: str, precision: str
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    image, reference = make_case(0)
    write_volume(image, tmp_path / "image.nii.gz")
    model = load_model(trained_run, CPU)
    tree = {"inference": {"backend": backend, "precision": precision}}
    config = validate(merge(model.config.model_dump(mode="json"), tree), "the test")
    mask = predict(case_of(tmp_path / "image.nii.gz"), [TrainedNetwork.of(model.network, config)])
    assert min(dice(mask.array == value, reference.array == value) for value in (1, 2)) > 0.7


def test_a_case_goes_on_with_less_memory_when_it_runs_short(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel refuses what is asked for once; what comes out is the same."""
    write_volume(make_case(0)[0], tmp_path / "image.nii.gz")
    predictor = Predictor([load_model(trained_run, CPU)])
    prepared = predictor.prepare(case_of(tmp_path / "image.nii.gz"))
    wanted = predictor.segment(prepared).mask.array
    real, refused = torch.zeros, []

    def scarce(*size: object, **options: object) -> torch.Tensor:
        if not refused:
            refused.append(size)
            return torch.empty(2**50)
        return real(*size, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("volseg.inference.sliding.torch.zeros", scarce)
    np.testing.assert_array_equal(predictor.segment(prepared).mask.array, wanted)
    assert "out of memory; continuing with 1.5 GB" in caplog.text


def test_a_mask_too_large_for_memory_lies_on_disk() -> None:
    mask = blank_mask((2**14, 2**14, 2**13), np.dtype(np.uint16))  # 4 TB, of which nothing is written
    assert isinstance(mask, np.memmap)
    mask[5, 6, 7] = 300
    assert mask[5, 6, 7] == 300
    assert not mask[5, 6, 8]
    assert mask.flags.f_contiguous


def test_probabilities_say_what_the_mask_says(trained_run: Path, tmp_path: Path) -> None:
    image, _ = make_case(0)
    order = STORAGE_ORDERS[7]
    stored = Volume(np.ascontiguousarray(order.apply(image.array)), image.geometry.reordered(order))
    write_volume(stored, tmp_path / "in" / "a.nii.gz")
    request = Request(tmp_path / "out", probabilities=True)
    predict_folder(tmp_path / "in", [trained_run], request)
    file = nib.load(tmp_path / "out" / "a.probabilities.nii.gz")
    mask = nib.load(tmp_path / "out" / "a.nii.gz")
    likely = file.get_fdata()
    np.testing.assert_array_equal(file.affine, mask.affine)
    assert likely.shape == (*mask.shape, 2)
    assert 0 <= likely.min() < likely.max() <= 1 + 1e-6
    background = 1 - likely.sum(axis=-1)
    said = np.concatenate([background[..., None], likely], axis=-1).argmax(axis=-1)
    assert (said != np.asarray(mask.dataobj)).mean() < 0.002  # ties of 255ths
    (plain,) = predict_folder(tmp_path / "in", [trained_run], Request(tmp_path / "plain"))
    same = np.asarray(nib.load(tmp_path / "plain" / "a.nii.gz").dataobj) == np.asarray(mask.dataobj)
    assert same.mean() > 0.9999
    predict_folder(tmp_path / "in", [trained_run], Request(tmp_path / "out"))  # not asked for any more
    assert not (tmp_path / "out" / "a.probabilities.nii.gz").exists()
    assert plain.status is CaseStatus.SEGMENTED
