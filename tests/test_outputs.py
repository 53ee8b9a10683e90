"""The verbs among files of the user's: none of them is lost, and who is in the way is told before the work is done."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import TINY, make_case, train_folder

import volseg
from volseg import DataError, Model, OutputError, OutputExistsError
from volseg.exporting import FORMATS, OF_PICTURES, SUFFIXES
from volseg.io import FileSource, read_mask, write_mask
from volseg.io.dicom import write_series
from volseg.prediction.cases_csv import CaseResult, CaseStatus, merge_results, read_rows

OLD = Path(__file__).parent / "data" / "version_0_1_0"
Run = Callable[..., tuple[int, str, str]]
#: What a batch writes for all cases.
TABLES = ("cases.csv", "labels.json", "about.json", "itksnap_labels.txt", "niivue_colormap.json")


@pytest.fixture(scope="module")
def model() -> Model:
    return volseg.load(OLD / "run")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images."""
    return shutil.copytree(OLD / "images", tmp_path / "images")


def state(folder: Path) -> dict[str, str]:
    """Name -> hash of everything but what volseg keeps for itself."""
    files = (path for path in folder.rglob("[!.]*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def statuses(folder: Path) -> dict[str, str]:
    return {row["case_id"]: row["status"] for row in read_rows(folder / "cases.csv")}


@pytest.mark.parametrize("name", [*TABLES, "report.html", "review.csv", "pictures/case_1.json"])
def test_a_table_of_the_users_is_refused_before_anything_is_segmented(
    name: str, model: Model, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("case_id,image\nanna,ct.nii.gz\n")
    before = state(tmp_path)
    with pytest.raises(OutputExistsError, match="volseg did not write it") as caught:
        model.predict_folder(images, out, report=True)
    assert "--overwrite" in caught.value.hint
    assert state(tmp_path) == before
    batch = model.predict_folder(images, out, report=True, overwrite=True)
    assert batch.count("segmented") == 2
    assert model.predict_folder(images, out, report=True).count("segmented") == 2


@pytest.mark.parametrize("form", [form for form in FORMATS if form not in OF_PICTURES])
def test_a_mask_in_the_way_lets_its_own_case_fail(form: str, model: Model, tmp_path: Path) -> None:
    for n in (0, 1):
        write_series(make_case(n)[0], tmp_path / "in" / f"p{n}")
    out = tmp_path / "out"
    theirs = out / f"p1{SUFFIXES[form]}" / "label_1.stl" if form == "stl" else out / f"p1{SUFFIXES[form]}"  # type: ignore[index]
    theirs = theirs / "strange.ply" if form == "ply" else theirs
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    before = state(tmp_path)
    batch = model.predict_folder(tmp_path / "in", out, formats=form)  # type: ignore[arg-type]
    assert {case_id: case.status for case_id, case in batch.items()} == {"p0": "segmented", "p1": "failed"}
    assert "--output" in batch["p1"].reason
    assert state(tmp_path).items() >= before.items()
    if form != "ply":
        assert model.predict_folder(tmp_path / "in", out, formats=form, overwrite=True).count("segmented") == 2  # type: ignore[arg-type]


def test_a_folder_of_scans_is_no_folder_of_meshes(model: Model, tmp_path: Path) -> None:
    write_series(make_case(0)[0], tmp_path / "p0")
    before = state(tmp_path)
    batch = model.predict_folder(tmp_path / "p0", tmp_path, formats="stl")
    assert "a folder that volseg did not create" in batch["p0"].reason
    assert state(tmp_path).items() >= before.items()
    assert not list((tmp_path / "p0").glob("*.stl"))
    assert model.predict_folder(tmp_path / "p0", tmp_path / "out", formats="stl").count("segmented") == 1
    (tmp_path / "out" / "p0" / "notes.txt").write_text("mine")
    changed = volseg.load(OLD / "run", changes={"postprocess": [{"label": "*", "keep_largest": True}]})
    assert changed.predict_folder(tmp_path / "p0", tmp_path / "out", formats="stl").count("segmented") == 1


def test_probabilities_in_the_way_let_their_case_fail(model: Model, images: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "case_0.probabilities.nii.gz").write_text("mine")
    before = state(tmp_path)
    batch = model.predict_folder(images, tmp_path / "out", probabilities=True)
    assert [case.status for case in batch.values()] == ["failed", "segmented"]
    assert state(tmp_path).items() >= before.items()


def test_an_image_beside_the_output_stays(model: Model, images: Path, tmp_path: Path, volseg_cli: Run) -> None:
    before = state(images)
    words = ("predict", images / "case_0.nii.gz", "--model", OLD / "run", "--output", images)
    for more in ((), ("--overwrite",)):
        code, _, err = volseg_cli(*words, *more)
        assert code == 3
        assert "is an input of this command; choose another --output" in err
        assert state(images).items() >= before.items()
    shutil.copytree(OLD / "images", tmp_path / "deep" / "images")
    code, _, err = volseg_cli("predict", tmp_path / "deep", "--model", OLD / "run", "--output", images / "..")
    assert (code, statuses(tmp_path)) == (0, {"case_0": "segmented", "case_1": "segmented"})
    assert state(images).items() >= before.items()


def test_links_to_an_image_are_no_place_for_its_mask(model: Model, images: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "case_0.nii.gz").symlink_to(images / "case_0.nii.gz")
    (tmp_path / "out" / "case_1.nii.gz").hardlink_to(images / "case_1.nii.gz")
    before = state(images)
    for overwrite in (False, True):
        batch = model.predict_folder(images, tmp_path / "out", overwrite=overwrite)
        assert batch.count("failed") == 2
        assert state(images) == before
        assert (tmp_path / "out" / "case_0.nii.gz").is_symlink()


def test_a_failed_case_takes_nothing_of_the_users_with_it(model: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "p1.nii.gz").write_bytes(b"damaged")
    for name in ("p1.nii.gz", "p1.seg.nrrd", "p1.probabilities.nii.gz", "p1/implant.stl", "p1/label_1.stl"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    before = state(out)
    assert model.predict_folder(tmp_path / "in", out)["p1"].status == "failed"
    assert state(out).items() >= before.items()


def test_a_corrected_mask_is_the_users(model: Model, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    model.predict_folder(images, out)
    (out / "case_0.nii.gz").write_bytes((out / "case_1.nii.gz").read_bytes())
    corrected = state(out)["case_0.nii.gz"]
    assert model.predict_folder(images, out).count("segmented") == 2  # nothing is to be done
    other = volseg.load(OLD / "run", changes={"postprocess": [{"label": "*", "keep_largest": True}]})
    batch = other.predict_folder(images, out)
    assert [case.status for case in batch.values()] == ["failed", "segmented"]
    assert "changed since volseg wrote it" in batch["case_0"].reason
    (images / "case_0.nii.gz").write_bytes(b"damaged")
    other.predict_folder(images, out)
    assert state(out)["case_0.nii.gz"] == corrected


def test_an_old_batch_goes_on_and_its_masks_are_replaced(model: Model, images: Path, tmp_path: Path) -> None:
    masks = shutil.copytree(OLD / "masks", tmp_path / "masks")
    other = volseg.load(OLD / "run", changes={"postprocess": [{"label": "*", "keep_largest": True}]})
    assert other.predict_folder(images, masks).count("segmented") == 2
    assert other.predict_folder(images, masks, formats="nrrd").count("segmented") == 2
    assert {path.name for path in masks.glob("case_?.*")} == {"case_0.nrrd", "case_1.nrrd"}


def test_a_log_of_the_users_is_left_alone(
    model: Model, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def defect(*words: object) -> None:
        raise ZeroDivisionError

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "volseg.log").write_text("mine")
    monkeypatch.setattr("volseg.prediction.predictor.Predictor.prepare", defect)
    assert model.predict_folder(images, tmp_path / "out").count("failed") == 2
    assert (tmp_path / "out" / "volseg.log").read_text() == "mine"
    assert "ZeroDivisionError" in caplog.text


# Two batches, one output


def test_rows_of_other_inputs_stay(model: Model, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "b").mkdir()
    shutil.move(images / "case_1.nii.gz", tmp_path / "b" / "case_1.nii.gz")
    (tmp_path / "b" / "bad.nii.gz").write_bytes(b"damaged")
    assert list(model.predict_folder(images, out)) == ["case_0"]
    first = read_rows(out / "cases.csv")
    assert list(model.predict_folder(tmp_path / "b", out)) == ["bad", "case_1"]
    assert statuses(out) == {"bad": "failed", "case_0": "segmented", "case_1": "segmented"}
    assert [row for row in read_rows(out / "cases.csv") if row["case_id"] == "case_0"] == first
    refs = shutil.copytree(OLD / "masks", tmp_path / "refs", ignore=shutil.ignore_patterns("*.csv", "*.json", "*.txt"))
    scores = volseg.evaluate(out, refs)
    assert set(scores.metrics["case_id"]) == {"case_0", "case_1"}
    assert "not_predicted" not in set(scores.metrics["status"])
    assert len(model.predict_folder(images, out)) == 1
    assert set(statuses(out)) == {"bad", "case_0", "case_1"}


def test_cells_stay_as_they_were_written(model: Model, tmp_path: Path) -> None:
    data = model.config.data
    path = tmp_path / "cases.csv"
    ids = ["001", "NA", "null", "NO", "1e5", "true"]
    merge_results(
        [CaseResult(case_id, CaseStatus.FAILED, 'it says "no", twice\nand once') for case_id in ids], data, path
    )
    before = read_rows(path)
    merge_results([CaseResult("1", CaseStatus.SKIPPED, "")], data, path)
    rows = read_rows(path)
    assert [row for row in rows if row["case_id"] != "1"] == before
    assert {row["case_id"] for row in rows} == {"1", *ids}


def test_batches_that_write_their_rows_at_once_lose_none(model: Model, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def add(number: int) -> None:
        merge_results([CaseResult(f"p{number}", CaseStatus.SEGMENTED)], model.config.data, tmp_path / "cases.csv")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(24)))
    assert set(statuses(tmp_path)) == {f"p{number}" for number in range(24)}


@pytest.mark.slow
def test_the_same_command_twice_at_once_ends_well(images: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "volseg", "predict", images, "--model", OLD / "run", "--output", tmp_path / "out"]
    both = [subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)]
    told = [process.communicate()[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert statuses(tmp_path / "out") == {"case_0": "segmented", "case_1": "segmented"}
    for name in ("case_0", "case_1"):
        assert set(np.unique(read_mask(FileSource(tmp_path / "out" / f"{name}.nii.gz")).array)) <= {0, 1, 2}


def test_masks_of_two_meanings_never_share_a_folder(model: Model, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    model.predict_folder(images, out)
    before = state(out)
    network = model.networks[0]
    data = network.config.data.model_copy(update={"labels": {"liver": 1, "spleen": 2}})
    other = Model((network.of(network.network, network.config.model_copy(update={"data": data})),))
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="holds masks with other labels") as caught:
            other.predict_folder(images, out, overwrite=overwrite)
        assert "another --output" in caught.value.hint
        assert state(out) == before
    with pytest.raises(OutputError, match="another batch writes masks with other labels"):
        merge_results([CaseResult("p9", CaseStatus.SEGMENTED)], data, out / "cases.csv")


# Outputs inside the input


def test_masks_below_the_input_are_no_input_of_the_next_run(model: Model, images: Path) -> None:
    for _ in range(3):
        batch = model.predict_folder(images, images / "masks", formats=("nifti", "seg-nrrd"), probabilities=True)
        assert list(batch) == ["case_0", "case_1"]
        assert set(statuses(images / "masks")) == {"case_0", "case_1"}
    found = {item.path: item for item in volseg.inspect(images)}
    assert set(found) == {"case_0.nii.gz", "case_1.nii.gz", "masks"}
    assert found["masks"].status == "result"
    assert found["masks"].remark == "files that volseg wrote (6) are not input"


def test_names_do_not_change_when_results_come_to_lie_beside_the_images(
    model: Model, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "study").mkdir()
    images.rename(tmp_path / "study" / "images")
    for _ in range(2):
        batch = model.predict_folder(tmp_path / "study", tmp_path / "study" / "masks", report=True)
        assert list(batch) == ["case_0", "case_1"]
    model.predict_folder(tmp_path / "study" / "images" / "case_0.nii.gz", tmp_path / "study", formats="nrrd")
    assert list(model.predict_folder(tmp_path / "study", tmp_path / "out")) == ["case_0", "case_1"]


def test_a_mask_that_is_named_is_segmented(model: Model, images: Path, tmp_path: Path) -> None:
    model.predict_folder(images, tmp_path / "masks")
    named = model.predict_folder(tmp_path / "masks" / "case_0.nii.gz", tmp_path / "second", allow_mismatch=True)
    assert set(named) == {"case_0"}
    (tmp_path / "study").mkdir()
    (tmp_path / "masks").rename(tmp_path / "study" / "masks")
    with pytest.raises(DataError, match="2 files that volseg wrote") as caught:
        model.predict_folder(tmp_path / "study", tmp_path / "third")
    assert "name the folder" in caught.value.hint


def test_a_mask_of_volseg_can_be_a_reference(model: Model, images: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(OLD / "images", data / "images")
    model.predict_folder(data / "images", data / "labels")
    assert {case.case_id for case in volseg.plan(data).dataset.cases} == {"case_0", "case_1"}  # type: ignore[union-attr]
    for n in (0, 1):
        (data / "cases" / f"p{n}").mkdir(parents=True)
        shutil.copy(OLD / "images" / f"case_{n}.nii.gz", data / "cases" / f"p{n}" / "ct.nii.gz")
        mask = model.predict(OLD / "images" / f"case_{n}.nii.gz")
        mask.save(data / "cases" / f"p{n}" / "seg.nii.gz")
        mask.save(data / "cases" / f"p{n}" / "other.nrrd")
    model.predict_folder(OLD / "images", data / "cases" / "masks")
    planned = volseg.plan(data / "cases").dataset
    assert planned is not None
    assert [case.case_id for case in planned.cases] == ["p0", "p1"]
    assert planned.set_aside == ()


def test_masks_beside_references_are_no_references(model: Model, images: Path, tmp_path: Path) -> None:
    refs = tmp_path / "refs"
    for n in (0, 1):
        write_mask(make_case(n)[1], tmp_path / "made" / f"case_{n}.nii.gz")
    shutil.copytree(tmp_path / "made", refs, ignore=shutil.ignore_patterns(".*"))
    model.predict_folder(images, refs / "masks")
    scores = volseg.evaluate(refs / "masks", refs)
    assert set(scores.metrics["case_id"]) == {"case_0", "case_1"}


# The other verbs


def test_a_plan_that_was_edited_is_kept(tmp_path: Path, volseg_cli: Run) -> None:
    data = tmp_path / "data"
    shutil.copytree(OLD / "images", data / "images")
    shutil.copytree(OLD / "masks", data / "labels", ignore=shutil.ignore_patterns("*.csv", "*.json", "*.txt"))
    words = ("plan", data, "--output", tmp_path / "plan.yaml")
    assert volseg_cli(*words)[0] == 0
    assert volseg_cli(*words)[0] == 0  # volseg's own is made again
    with (tmp_path / "plan.yaml").open("a") as file:
        file.write("# tried on Tuesday\n")
    before = state(tmp_path)
    code, _, err = volseg_cli(*words)
    assert (code, state(tmp_path)) == (2, before)
    assert "changed since volseg wrote it" in err
    (tmp_path / "mine.yaml").write_text("training: {epochs: 3}\n")
    code, _, err = volseg_cli(
        "plan", data, "--config", tmp_path / "mine.yaml", "--output", tmp_path / "mine.yaml", "--overwrite"
    )
    assert code == 2
    assert "is an input" in err
    assert volseg_cli(*words, "--overwrite")[0] == 0
    assert "Tuesday" not in (tmp_path / "plan.yaml").read_text()


def test_an_export_never_lands_on_what_it_was_made_from(model: Model, images: Path, tmp_path: Path) -> None:
    model.predict_folder(images, tmp_path / "masks")
    mask, image = tmp_path / "masks" / "case_0.nii.gz", images / "case_0.nii.gz"
    (tmp_path / "link.nii.gz").symlink_to(image)
    (tmp_path / "mine.nii.gz").write_text("mine")
    before = state(tmp_path)
    for output in (image, mask, tmp_path / "link.nii.gz", images / "case_1.nii.gz"):
        reference = images if output.name == "case_1.nii.gz" else image
        for overwrite in (False, True):
            with pytest.raises(OutputExistsError, match="is an input"):
                volseg.export(mask, reference, output, overwrite=overwrite)
            assert state(tmp_path) == before
    with pytest.raises(OutputExistsError, match="volseg did not write it"):
        volseg.export(mask, image, tmp_path / "mine.nii.gz")
    assert state(tmp_path) == before
    volseg.export(mask, image, tmp_path / "mine.nii.gz", overwrite=True)
    volseg.export(mask, image, tmp_path / "mine.nii.gz")


def test_a_saved_mask_replaces_nothing_of_the_users(model: Model, images: Path, tmp_path: Path) -> None:
    prediction = model.predict(images / "case_0.nii.gz")
    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes" / "implant.stl").write_text("solid")
    (tmp_path / "a.nrrd").write_text("mine")
    before = state(tmp_path)
    for path, form in ((tmp_path / "a.nrrd", None), (tmp_path / "meshes", "stl"), (images / "case_0.nii.gz", None)):
        with pytest.raises(OutputExistsError):
            prediction.save(path, format=form)  # type: ignore[arg-type]
    with pytest.raises(OutputExistsError, match="is an input"):
        prediction.save(images / "case_0.nii.gz", overwrite=True)
    assert state(tmp_path) == before
    prediction.save(tmp_path / "a.nrrd", overwrite=True)
    prediction.save(tmp_path / "a.nrrd")
    prediction.save(tmp_path / "meshes", format="stl", overwrite=True)
    assert (tmp_path / "meshes" / "implant.stl").read_text() == "solid"


@pytest.mark.parametrize("name", ["metrics.csv", "summary.csv", "statistics.csv", "about.json", "report.html"])
def test_scores_replace_no_table_of_the_users(name: str, tmp_path: Path) -> None:
    masks = shutil.copytree(OLD / "masks", tmp_path / "masks")
    refs = shutil.copytree(OLD / "masks", tmp_path / "refs")
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / name).write_text("mine")
    before = state(tmp_path)
    with pytest.raises(OutputExistsError):
        volseg.evaluate(masks, refs, tmp_path / "scores", report=True)
    assert state(tmp_path) == before
    (tmp_path / "scores" / "pictures").mkdir()
    (tmp_path / "scores" / "pictures" / "mine.json").write_text("mine")
    volseg.evaluate(masks, refs, tmp_path / "scores", report=True, overwrite=True)
    volseg.evaluate(masks, refs, tmp_path / "scores", report=True)
    page = volseg.report(tmp_path / "scores")
    page.write_text("my comments")
    with pytest.raises(OutputExistsError):
        volseg.report(tmp_path / "scores")
    assert page.read_text() == "my comments"
    volseg.evaluate(masks, refs, tmp_path / "scores")  # without a report the old one would go, if it were volseg's
    assert page.read_text() == "my comments"
    assert (tmp_path / "scores" / "pictures" / "mine.json").read_text() == "mine"
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "differences.csv").write_text("mine")
    with pytest.raises(OutputExistsError):
        volseg.compare(tmp_path / "scores", tmp_path / "scores", tmp_path / "both")


@pytest.mark.parametrize("name", ["config.yaml", "splits.json", "model.pt", "about.json", "history.csv"])
def test_a_run_is_refused_among_files_of_the_users(name: str, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("{}")
    before = state(tmp_path)
    with pytest.raises(OutputError):
        train_folder(dataset, tmp_path / "run", TINY)
    assert state(tmp_path) == before


def test_a_configuration_that_is_read_is_not_written(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("training: {epochs: 1}  # mine\n")
    before = state(tmp_path)
    with pytest.raises(OutputExistsError, match="is an input"):
        volseg.train(dataset, tmp_path, config=tmp_path / "config.yaml", overwrite=True)
    assert state(tmp_path) == before


def test_a_run_leaves_what_the_user_put_into_its_folders(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "cache").mkdir(parents=True)
    (tmp_path / "run" / "cache" / "thesis.txt").write_text("mine")
    train_folder(
        dataset, tmp_path / "run", {**TINY, "training": {**TINY["training"], "epochs": 1, "steps_per_epoch": 1}}
    )
    assert [path.name for path in (tmp_path / "run" / "cache").glob("[!.]*")] == ["thesis.txt"]
    assert pd.read_csv(tmp_path / "run" / "history.csv")["epoch"].tolist() == [1]


def test_a_name_in_another_input_is_another_patient(model: Model, tmp_path: Path) -> None:
    for folder, n in (("a", 0), ("b", 1)):
        (tmp_path / folder).mkdir()
        shutil.copy(OLD / "images" / f"case_{n}.nii.gz", tmp_path / folder / "ct.nii.gz")
    model.predict_folder(tmp_path / "a", tmp_path / "o")
    before = (tmp_path / "o" / "ct.nii.gz").read_bytes()
    batch = model.predict_folder(tmp_path / "b", tmp_path / "o")
    assert batch.count("failed") == 1
    assert (tmp_path / "o" / "ct.nii.gz").read_bytes() == before
    assert statuses(tmp_path / "o")["ct"] == "segmented"
    again = model.predict_folder(tmp_path / "a", tmp_path / "o")
    assert list(again) == ["ct"]


def test_a_batch_that_was_copied_without_its_record_gives_no_mask_away(
    model: Model, images: Path, tmp_path: Path
) -> None:
    model.predict_folder(images, tmp_path / "o")
    (tmp_path / "copy").mkdir()
    for path in (tmp_path / "o").glob("[!.]*"):
        shutil.copy(path, tmp_path / "copy")
    mask = tmp_path / "copy" / "case_0.nii.gz"
    mask.write_bytes(mask.read_bytes() + b"corrected")
    before = mask.read_bytes()
    with pytest.raises(OutputError, match="volseg did not write it"):
        model.predict_folder(images, tmp_path / "copy")
    assert mask.read_bytes() == before


def test_a_skipped_file_takes_no_mask_of_another_input_with_it(model: Model, images: Path, tmp_path: Path) -> None:
    model.predict_folder(images, tmp_path / "o")
    (tmp_path / "b").mkdir()
    shutil.copy(images / "case_1.nii.gz", tmp_path / "b" / "other.nii.gz")
    (tmp_path / "b" / "case_0.nii.gz").write_bytes(b"")
    model.predict_folder(tmp_path / "b", tmp_path / "o")
    assert (tmp_path / "o" / "case_0.nii.gz").is_file()
    assert statuses(tmp_path / "o")["case_0"] == "segmented"
