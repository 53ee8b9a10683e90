"""A folder of masks in another format."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from conftest import make_case
from test_dicom_volumes import write_parts

import volseg
from volseg.cases import find_dataset
from volseg.cases.phantoms import LABELS as PHANTOM_LABELS
from volseg.cases.phantoms import write_dataset
from volseg.config import DataConfig
from volseg.exporting import FORMATS, SUFFIXES, Format
from volseg.exporting.description import ModelIdentity
from volseg.image.volume import Label, Mask
from volseg.io import read_grid, read_mask, read_volume, single_source, write_mask, write_volume
from volseg.io.dicom import write_series
from volseg.io.labels import write_labels
from volseg.prediction.batch_inputs import told_place
from volseg.prediction.cases_csv import CaseResult, CaseStatus, merge_results
from volseg.prediction.defects import reason_of_defect

Run = Callable[..., tuple[int, str, str]]
LABELS = (Label(1, "liver"), Label(2, "spleen"))


def make_study(folder: Path, seed: int) -> Path:
    write_series(make_case(seed)[0], folder)
    return folder


def make_mask(image: Path, path: Path, seed: int) -> Mask:
    """The mask of a case, on the grid of its DICOM images."""
    mask = make_case(seed)[1].on(read_volume(single_source(image)).geometry)
    write_mask(mask, path)
    return mask


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for seed in range(3):
        make_study(tmp_path / "dicom" / f"p{seed}", seed)
    return tmp_path / "dicom"


@pytest.fixture
def masks(images: Path, tmp_path: Path) -> Path:
    for seed in range(3):
        make_mask(images / f"p{seed}", tmp_path / "masks" / f"p{seed}.nii.gz", seed)
    write_labels(LABELS, tmp_path / "masks" / "labels.json")
    return tmp_path / "masks"


def series_of(path: Path) -> str:
    """Which series an object says it was made from."""
    return str(pydicom.dcmread(path).ReferencedSeriesSequence[0].SeriesInstanceUID)


def uid_of(folder: Path) -> str:
    return str(pydicom.dcmread(next(iter(sorted(folder.glob("*.dcm"))))).SeriesInstanceUID)


def rows_of(output: Path) -> list[dict[str, str]]:
    with (output / "exports.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_mask_goes_to_the_image_of_its_name(masks: Path, images: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        told.append((stage, done, total))

    output = tmp_path / "out"
    cases = volseg.export_folder(masks, images, output, format="dicom-seg", progress=progress)
    assert [(case.case_id, str(case.status), case.paths) for case in cases] == [
        (f"p{seed}", "exported", (output / f"p{seed}.seg.dcm",)) for seed in range(3)
    ]
    assert [series_of(output / f"p{seed}.seg.dcm") for seed in range(3)] == [
        uid_of(images / f"p{seed}") for seed in range(3)
    ]
    segments = pydicom.dcmread(output / "p0.seg.dcm").SegmentSequence
    assert [segment.SegmentLabel for segment in segments] == ["liver", "spleen"]
    assert told == [("export", done, 3) for done in range(4)]
    again = {path: path.read_bytes() for path in output.glob("*.dcm")}
    volseg.export_folder(masks, images, output, format="dicom-seg")  # over what volseg wrote itself
    assert {path.name for path in again} == {path.name for path in output.glob("*.dcm")}


def test_what_fails_is_told_and_stops_nothing(masks: Path, images: Path, tmp_path: Path, volseg_cli: Run) -> None:
    (masks / "p1.nii.gz").write_bytes(b"damaged")
    shutil.copy(masks / "p2.nii.gz", masks / "stranger.nii.gz")
    shutil.copy(masks / "p0.nii.gz", masks / "p2.nii.gz")  # which lies elsewhere
    (tmp_path / "out").mkdir()
    words = ("export", masks, "--reference", images, "--format", "dicom-seg", "--output", tmp_path / "out")
    code, out, err = volseg_cli(*words)
    assert code == 3, err
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["failed", "p1", "p2", "stranger"]
    assert "p1.nii.gz is damaged" in lines[1]
    assert "the image has" in lines[2]
    assert "no image has the name stranger" in lines[3]
    assert lines[-1] == f"1 exported, 3 failed of 4 masks; see {tmp_path / 'out' / 'exports.csv'}"
    rows = rows_of(tmp_path / "out")
    assert [(row["case_id"], row["status"], row["path"]) for row in rows] == [
        ("p0", "exported", "p0.seg.dcm"),
        ("p1", "failed", ""),
        ("p2", "failed", ""),
        ("stranger", "failed", ""),
    ]
    assert str(tmp_path) not in "".join(row["reason"] for row in rows)
    assert {path.name for path in (tmp_path / "out").glob("[!.]*")} == {"p0.seg.dcm", "exports.csv"}


@pytest.mark.parametrize("form", ["stl", "nrrd", "dicom-sr", "png"])
def test_every_format_again_and_again(form: Format, masks: Path, images: Path, tmp_path: Path) -> None:
    for _ in range(2):
        cases = volseg.export_folder(masks, images, tmp_path / "out", format=form)
        assert [case.reason for case in cases] == [""] * 3
    assert all(path.exists() for case in cases for path in case.paths)
    assert len(cases[0].paths) == (2 if form == "dicom-sr" else 1)


def test_meshes_that_are_not_volsegs_stay(masks: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "p1").mkdir(parents=True)
    (tmp_path / "out" / "p1" / "liver.stl").write_bytes(b"solid mine")
    cases = volseg.export_folder(masks, images, tmp_path / "out", format="stl")
    assert [str(case.status) for case in cases] == ["exported", "failed", "exported"]
    assert (tmp_path / "out" / "p1" / "liver.stl").read_bytes() == b"solid mine"


def test_objects_may_lie_beside_their_masks(masks: Path, images: Path) -> None:
    cases = volseg.export_folder(masks, images, masks, format="rtstruct")
    assert [case.reason for case in cases] == [""] * 3
    assert {path.name for path in masks.glob("p0*")} == {"p0.nii.gz", "p0.rtstruct.dcm"}
    before = (masks / "p0.nii.gz").read_bytes()
    cases = volseg.export_folder(masks, images, masks, format="nifti", overwrite=True)
    assert all("is an input" in case.reason for case in cases)
    assert (masks / "p0.nii.gz").read_bytes() == before


def test_a_batch_remembers_which_image_a_mask_is_of(trained_run: Path, tmp_path: Path) -> None:
    """By cases.csv: its case ids are those of series, which no folder is called by."""
    for seed, study in ((0, "a/study"), (1, "b/study")):
        make_study(tmp_path / "in" / study / "thick", seed)
    model = volseg.load(trained_run)
    model.predict_folder(tmp_path / "in", tmp_path / "masks", case_id="series")
    cases = volseg.export_folder(tmp_path / "masks", tmp_path / "in", tmp_path / "out", format="dicom-seg")
    assert {case.case_id for case in cases} == {uid_of(tmp_path / "in" / p / "study" / "thick") for p in "ab"}
    for case in cases:
        assert case.reason == ""
        assert series_of(case.paths[0]) == case.case_id
        made_by = pydicom.dcmread(case.paths[0]).SegmentSequence[0].SegmentAlgorithmName
        assert made_by == "trained_run"


def test_masks_of_nifti_go_to_the_dicom_series_of_that_name(trained_run: Path, images: Path, tmp_path: Path) -> None:
    """As where a converter stood between archive and network."""
    for seed in range(3):
        write_volume(read_volume(single_source(images / f"p{seed}")), tmp_path / "converted" / f"p{seed}.nii.gz")
    volseg.load(trained_run).predict_folder(tmp_path / "converted", tmp_path / "masks")
    cases = volseg.export_folder(tmp_path / "masks", images, tmp_path / "out", format="rtstruct")
    assert [(case.case_id, case.reason) for case in cases] == [(f"p{seed}", "") for seed in range(3)]
    cases = volseg.export_folder(tmp_path / "masks", tmp_path / "converted", tmp_path / "none", format="rtstruct")
    assert all("refers to DICOM images" in case.reason for case in cases)


def test_segmentations_find_the_series_that_they_name(masks: Path, images: Path, tmp_path: Path) -> None:
    volseg.export_folder(masks, images, tmp_path / "seg", format="dicom-seg")
    for number, path in enumerate(sorted((tmp_path / "seg").glob("*.seg.dcm"))):
        path.rename(tmp_path / "seg" / f"other_{number}.seg.dcm")
    for folder in sorted(images.iterdir()):
        folder.rename(images / f"renamed_{folder.name}")
    cases = volseg.export_folder(tmp_path / "seg", images, tmp_path / "out", format="nifti")
    assert [(case.case_id, case.reason) for case in cases] == [(f"other_{number}", "") for number in range(3)]
    for number in range(3):
        made = np.asarray(nib.load(tmp_path / "out" / f"other_{number}.nii.gz").dataobj)
        np.testing.assert_array_equal(made, np.asarray(nib.load(masks / f"p{number}.nii.gz").dataobj))


def test_a_folder_of_masks_per_structure_is_a_mask(masks: Path, images: Path, tmp_path: Path) -> None:
    image = nib.load(masks / "p0.nii.gz")
    voxels = np.asarray(image.dataobj)
    for value, name in ((2, "liver"), (1, "spleen")):
        path = tmp_path / "structures" / "p0" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image((voxels == value).astype(np.uint8), image.affine), path)
    (case,) = volseg.export_folder(tmp_path / "structures", images, tmp_path / "out", format="dicom-seg")
    assert (case.case_id, case.reason) == ("p0", "")
    assert [segment.SegmentLabel for segment in pydicom.dcmread(case.paths[0]).SegmentSequence] == ["liver", "spleen"]
    (again,) = volseg.export_folder(tmp_path / "out", images, tmp_path / "back", format="nifti")
    made = np.asarray(nib.load(again.paths[0]).dataobj)
    np.testing.assert_array_equal(made, np.array([0, 2, 1])[voxels])


def test_of_a_study_the_series_is_taken_that_the_mask_lies_on(tmp_path: Path) -> None:
    study = tmp_path / "in" / "p1"
    for name, seed, shape in (("thin", 0, (20, 18, 16)), ("thick", 1, (20, 18, 6))):
        write_series(make_case(seed, shape)[0], study / name)
        for path in (study / name).iterdir():
            dataset = pydicom.dcmread(path)
            dataset.StudyInstanceUID, dataset.SeriesNumber = "1.2.3", seed
            dataset.save_as(path)
    geometry = read_volume(single_source(study / "thick")).geometry
    write_mask(Mask(np.ones(geometry.shape, np.uint8), geometry), tmp_path / "masks" / "p1.nii.gz")
    (case,) = volseg.export_folder(tmp_path / "masks", tmp_path / "in", tmp_path / "out", format="dicom-seg")
    assert case.reason == ""
    assert series_of(case.paths[0]) == uid_of(study / "thick")


def test_of_a_series_the_volume_is_taken_that_is_called_like_the_mask(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All of them lie on one grid, and share their series and their folder."""
    folder = tmp_path / "in" / "p1"
    folder.mkdir(parents=True)
    grid = write_parts(folder, {"EchoTime": "9"}, {"EchoTime": "80"})[0].geometry
    for name in ("p1_echo1", "p1_echo2"):
        write_mask(Mask(np.ones(grid.shape, np.uint8), grid), tmp_path / "masks" / f"{name}.nii.gz")
    cases = volseg.export_folder(tmp_path / "masks", tmp_path / "in", tmp_path / "out", format="dicom-seg")
    assert [(case.case_id, case.reason) for case in cases] == [("p1_echo1", ""), ("p1_echo2", "")]
    echoes = {str(one.SOPInstanceUID): float(one.EchoTime) for one in map(pydicom.dcmread, folder.iterdir())}
    for case, echo in zip(cases, (9.0, 80.0), strict=True):
        referred = pydicom.dcmread(case.paths[0]).SourceImageSequence
        assert {echoes[str(item.ReferencedSOPInstanceUID)] for item in referred} == {echo}
    assert "is taken" not in caplog.text


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("masks", "dicom", "out"), "states no format"),
        (("masks", "dicom", "out", "--format", "dicom"), "choose one of"),
        (("masks", "empty", "out", "--format", "nifti"), "holds no image"),
        (("empty", "dicom", "out", "--format", "nifti"), "there is no mask in"),
        (("masks", "nothing", "out", "--format", "nifti"), "nothing"),
    ],
)
def test_requests_that_make_no_sense_are_refused_at_once(
    words: Sequence[str], problem: str, masks: Path, images: Path, tmp_path: Path, volseg_cli: Run
) -> None:
    (tmp_path / "empty").mkdir()
    mask, reference, output, *more = words
    code, _, err = volseg_cli(
        "export", tmp_path / mask, "--reference", tmp_path / reference, "--output", tmp_path / output, *more
    )
    assert (code, problem in err, "hint" in err) == (2, True, True), err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_one_mask_is_a_mask_where_a_file_is_to_be_written(
    masks: Path, images: Path, tmp_path: Path, volseg_cli: Run
) -> None:
    volseg.export(masks / "p0.nii.gz", images / "p0", tmp_path / "seg" / "object.seg.dcm")
    code, out, err = volseg_cli(
        "export", tmp_path / "seg", "--reference", images / "p0", "--output", tmp_path / "p0.nii.gz"
    )
    assert (code, out.startswith("wrote")) == (0, True), err


def test_a_defect_is_told_where_the_user_has_a_file_of_the_logs_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "volseg.log").write_text("mine")
    reason = reason_of_defect(ValueError("odd"), "mask p1", tmp_path, str)
    assert reason == "a defect of volseg (ValueError: odd); see volseg.log"
    assert (tmp_path / "volseg.log").read_text() == "mine"
    assert "mask p1\nValueError: odd" in caplog.text


# docs/export.md

DOCUMENT = (Path(__file__).parents[1] / "docs" / "export.md").read_text(encoding="utf-8")


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """What `volseg demo` makes, with the masks of a perfect model."""
    write_dataset(tmp_path / "volseg-demo" / "test", 4, seed=1000)
    data = DataConfig(labels={label.name: label.value for label in PHANTOM_LABELS})
    results = []
    for case in find_dataset(tmp_path / "volseg-demo" / "test").cases:
        assert case.reference is not None
        mask = read_mask(case.reference, PHANTOM_LABELS).on(read_grid(case.image))
        write_mask(mask, tmp_path / "volseg-demo" / "masks" / f"{case.case_id}.nii.gz")
        source = told_place(case.image.place, tmp_path / "volseg-demo" / "test")
        model = str(ModelIdentity("run", ("0123456789abcdef",)))
        result = CaseResult(case.case_id, CaseStatus.SEGMENTED, volumes_ml=mask.volumes_ml, source=source, model=model)
        results.append(result)
    write_labels(PHANTOM_LABELS, tmp_path / "volseg-demo" / "masks" / "labels.json")
    merge_results(results, data, tmp_path / "volseg-demo" / "masks" / "cases.csv")
    return tmp_path


def test_the_examples_of_the_document_run_as_it_says(
    demo: Path, monkeypatch: pytest.MonkeyPatch, volseg_cli: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(demo)
    blocks = re.findall(r"^```console\n(.*?)^```$", DOCUMENT, flags=re.DOTALL | re.MULTILINE)
    examples = [example for block in blocks for example in block.split("$ volseg ")[1:]]
    assert len(examples) == 5
    for example in examples:
        command, _, shown = example.partition("\n")
        code, out, err = volseg_cli(*shlex.split(command))
        assert (out, code) == (shown, 3 if "failed  " in shown else 0), err
    (program,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT, flags=re.DOTALL | re.MULTILINE)
    exec(compile(program, "docs/export.md", "exec"), {})
    out, _ = capfd.readouterr()
    assert out.splitlines()[1] == "liver, kidney_left, kidney_right, spleen"
    assert out.count("exported") == 4
    segment = pydicom.dcmread(demo / "phantom_04.seg.dcm").SegmentSequence[0]
    assert segment.SegmentAlgorithmName == "run"


def test_the_document_names_every_format() -> None:
    (table,) = re.findall(r"^## Formats\n(.*?)^## ", DOCUMENT, flags=re.DOTALL | re.MULTILINE)
    for form in FORMATS:
        assert f"`{form}`" in table
        assert f"`{SUFFIXES[form] or f'.{form}'}`" in table


# Whose mask it is, and how it was made


def with_other_identity(folder: Path, target: Path) -> Path:
    """A copy of a series as another patient's: the same grid, other identifiers."""
    shutil.copytree(folder, target)
    for path in target.glob("*.dcm"):
        image = pydicom.dcmread(path)
        image.PatientID = "STRANGER"
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID"):
            uid = image[keyword].value
            image[keyword].value = uid[:-1] + ("2" if uid[-1] == "1" else "1")
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.save_as(path)
    return target


@pytest.mark.parametrize("ending", ["seg.dcm", "rtstruct.dcm"])
@pytest.mark.parametrize("target", ["a.nii.gz", "a.seg.dcm", "a.rtstruct.dcm"])
def test_an_object_of_another_patient_is_refused(ending: str, target: str, tmp_path: Path) -> None:
    image = make_study(tmp_path / "p0", 0)
    make_mask(image, tmp_path / "mask.nii.gz", 0)
    (marks,) = volseg.export(tmp_path / "mask.nii.gz", image, tmp_path / f"mask.{ending}").paths
    stranger = with_other_identity(image, tmp_path / "stranger")
    with pytest.raises(volseg.GeometryError, match="another frame of reference"):
        volseg.export(marks, stranger, tmp_path / target)
    assert not (tmp_path / target).exists()
    assert volseg.export(marks, image, tmp_path / target).mask.array.any()


def test_a_mask_of_a_batch_is_exported_on_its_own_series_only(images: Path, tmp_path: Path, trained_run: Path) -> None:
    batch = volseg.load(trained_run).predict_folder(images, tmp_path / "batch")
    mask = batch["p0"].paths["nifti"]
    stranger = with_other_identity(images / "p0", tmp_path / "stranger")
    with pytest.raises(volseg.GeometryError, match="made from another series"):
        volseg.export(mask, stranger, tmp_path / "a.seg.dcm")
    assert not (tmp_path / "a.seg.dcm").exists()
    copy = shutil.copy(mask, tmp_path / "copy.nii.gz")
    assert volseg.export(copy, stranger, tmp_path / "a.seg.dcm").paths
    (case, *_) = volseg.export_folder(tmp_path / "batch", stranger, tmp_path / "out", format="dicom-seg")
    assert case.status == "failed"


def test_what_a_person_drew_stays_manual_and_keeps_its_colors(tmp_path: Path) -> None:
    image = make_study(tmp_path / "p0", 0)
    make_mask(image, tmp_path / "mask.nii.gz", 0)
    write_labels(LABELS, tmp_path / "labels.json")
    (drawn,) = volseg.export(tmp_path / "mask.nii.gz", image, tmp_path / "drawn.rtstruct.dcm").paths
    contours = pydicom.dcmread(drawn)
    for roi, color in zip(contours.ROIContourSequence, ([255, 0, 0], [0, 0, 255]), strict=True):
        roi.ROIDisplayColor = color
    for roi in contours.StructureSetROISequence:
        roi.ROIGenerationAlgorithm = ""
        del roi.ROIDerivationAlgorithmIdentificationSequence
    by_hand = tmp_path / "planning" / "rs.dcm"
    by_hand.parent.mkdir()
    contours.save_as(by_hand)
    for ending in ("seg.dcm", "rtstruct.dcm"):
        (path,) = volseg.export(by_hand, image, tmp_path / f"again.{ending}").paths
        found = pydicom.dcmread(path)
        assert found.SeriesDescription == "liver, spleen"
        if ending == "seg.dcm":
            assert {item.SegmentAlgorithmType for item in found.SegmentSequence} == {"MANUAL"}
            assert not any("SegmentationAlgorithmIdentificationSequence" in item for item in found.SegmentSequence)
        else:
            assert {item.ROIGenerationAlgorithm for item in found.StructureSetROISequence} == {"MANUAL"}
            assert [list(roi.ROIDisplayColor) for roi in found.ROIContourSequence] == [[255, 0, 0], [0, 0, 255]]
            assert found.RTROIObservationsSequence[0].RTROIInterpretedType == "ORGAN"
        assert "Artificial" not in str(found)
    (again,) = volseg.export(tmp_path / "again.seg.dcm", image, tmp_path / "third.rtstruct.dcm").paths
    assert {item.ROIGenerationAlgorithm for item in pydicom.dcmread(again).StructureSetROISequence} == {"MANUAL"}


def test_another_programs_algorithm_is_named(tmp_path: Path) -> None:
    image = make_study(tmp_path / "p0", 0)
    make_mask(image, tmp_path / "mask.nii.gz", 0)
    (path,) = volseg.export(tmp_path / "mask.nii.gz", image, tmp_path / "made.seg.dcm").paths
    made = pydicom.dcmread(path)
    for segment in made.SegmentSequence:
        segment.SegmentAlgorithmType, segment.SegmentAlgorithmName = "SEMIAUTOMATIC", "RegionGrower 3"
    other = tmp_path / "other" / "made.dcm"
    other.parent.mkdir()
    made.save_as(other)
    (path,) = volseg.export(other, image, tmp_path / "again.seg.dcm").paths
    for segment in pydicom.dcmread(path).SegmentSequence:
        assert (segment.SegmentAlgorithmType, segment.SegmentAlgorithmName) == ("SEMIAUTOMATIC", "RegionGrower 3")


# Structure sets of several patients in one folder


@pytest.fixture
def export_of_a_planning_system(tmp_path: Path) -> Path:
    """Four patients, all files in one folder; one calls the liver otherwise."""
    folder = tmp_path / "export"
    folder.mkdir()
    for seed in range(4):
        image = make_study(tmp_path / "single" / f"p{seed}", seed)
        make_mask(image, tmp_path / "masks" / f"p{seed}.nii.gz", seed)
        write_labels(LABELS, tmp_path / "masks" / "labels.json")
        (path,) = volseg.export(
            tmp_path / "masks" / f"p{seed}.nii.gz", image, tmp_path / "drawn" / f"p{seed}.rtstruct.dcm"
        ).paths
        contours = pydicom.dcmread(path)
        if seed == 2:
            contours.StructureSetROISequence[0].ROIName = "liver_ai"
            del contours.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence
        contours.save_as(folder / f"RS.{seed}.dcm")
        for number, file in enumerate(sorted(image.glob("*.dcm"))):
            shutil.copy(file, folder / f"MR.{seed}.{number}.dcm")
    return folder


def test_structure_sets_are_paired_with_their_series_by_uid(export_of_a_planning_system: Path) -> None:
    dataset = find_dataset(export_of_a_planning_system)
    assert len(dataset.cases) == 4
    for case in dataset.cases:
        (uid,) = case.reference.series_uids
        assert case.image.series_uid == uid
    assert volseg.inspect(export_of_a_planning_system).readiness.usable == 4


def test_a_synonym_is_suggested_and_makes_one_label(
    export_of_a_planning_system: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = volseg.plan(export_of_a_planning_system)
    assert set(plan.config.data.labels) == {"liver", "spleen", "liver_ai"}
    assert (
        "have liver_ai instead of liver; if these are one structure, set data.segments={liver: [liver_ai]}"
        in caplog.text
    )
    caplog.clear()
    plan = volseg.plan(export_of_a_planning_system, changes={"data.segments": {"liver": ["liver_ai"]}})
    assert dict(plan.config.data.labels) == {"liver": 1, "spleen": 2}
    assert "instead of" not in caplog.text
    plan = volseg.plan(export_of_a_planning_system, changes={"data.segments": {"Liver": ["LIVER_AI"]}})
    assert dict(plan.config.data.labels) == {"Liver": 1, "spleen": 2}
    found = volseg.inspect(export_of_a_planning_system, changes={"data.segments": {"liver": ["liver_ai"]}})
    assert found.readiness.labels == {"liver": 4, "spleen": 4}


def test_structure_sets_beside_their_images_are_exported_and_the_images_are_not(
    export_of_a_planning_system: Path, tmp_path: Path
) -> None:
    cases = volseg.export_folder(
        export_of_a_planning_system, export_of_a_planning_system, tmp_path / "out", format="nifti"
    )
    assert [case.status for case in cases] == ["exported"] * 4
