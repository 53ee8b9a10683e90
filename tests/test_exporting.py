from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813  the name everybody uses
from conftest import make_case
from test_dicom import edit

from volseg.config import ReadingRules
from volseg.errors import ConfigError, DataError, GeometryError, OutputError
from volseg.exporting import FORMATS, OF_PICTURES, SUFFIXES, Export, Format, export, output_path, write_all
from volseg.exporting.formats import format_of
from volseg.image.geometry import AxisOrder
from volseg.image.terminology import Code, Structure, lookup
from volseg.image.volume import Label, Mask
from volseg.io import read_mask, read_volume, single_source, write_mask, write_volume
from volseg.io.dicom import dataset, write_series
from volseg.io.labels import read_labels, write_labels

Run = Callable[..., tuple[int, str, str]]
LABELS = (Label(1, "liver", structure=lookup("liver")), Label(2, "a b/c", (10, 20, 30)))


@pytest.fixture
def series(tmp_path: Path) -> Path:
    image, _ = make_case(0)
    write_series(image, tmp_path / "ct")
    return tmp_path / "ct"


@pytest.fixture
def mask_file(series: Path, tmp_path: Path) -> Path:
    geometry = read_volume(single_source(series)).geometry
    array = np.zeros(geometry.shape, np.uint8)
    array[3:9, 4:12, 2:9], array[12:15, 2:5, 5] = 1, 2
    write_mask(Mask(array, geometry), tmp_path / "masks" / "p1.nii.gz")
    write_labels(LABELS, tmp_path / "masks" / "labels.json")
    return tmp_path / "masks" / "p1.nii.gz"


@pytest.mark.parametrize("form", [form for form in FORMATS if form not in OF_PICTURES])
def test_every_format_on_the_command_line(
    form: str, mask_file: Path, series: Path, tmp_path: Path, volseg: Run
) -> None:
    output = tmp_path / "out" / f"p1{SUFFIXES[form]}"  # type: ignore[index]  # one of them
    code, out, err = volseg("export", mask_file, "--reference", series, "--format", form, "--output", output)
    assert (code, out.count("wrote")) == (0, 2 if form == "dicom-sr" else 1), err
    assert output.exists()
    written = {path.name for path in (tmp_path / "out").rglob("[!.]*") if path.is_file()}
    expected = {
        "stl": {"liver.stl", "a_b_c.stl"},
        "ply": {"liver.ply", "a_b_c.ply"},
        "dicom-sr": {"p1.sr.dcm", "p1.seg.dcm"},
    }
    assert written == expected.get(form, {output.name})


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose headers are read."""
    paths: list[Path] = []
    original = dataset.open_file
    monkeypatch.setattr(dataset, "open_file", lambda path: (paths.append(path), original(path))[1])
    return paths


def test_the_headers_of_a_series_are_read_once_for_all_formats(
    mask_file: Path, series: Path, tmp_path: Path, opened: list[Path]
) -> None:
    mask, image = read_mask(single_source(mask_file), LABELS), single_source(series)
    forms: tuple[Format, ...] = ("nifti", "dicom-seg", "rtstruct", "dicom-sr", "png")
    write_all(mask, image, {form: output_path(tmp_path / "out", "p1", form) for form in forms})
    assert sorted(opened) == sorted(series.iterdir())
    assert len(list((tmp_path / "out").glob("[!.]*"))) == len(forms)


def test_the_headers_of_a_series_are_read_once_for_an_export(
    mask_file: Path, series: Path, tmp_path: Path, opened: list[Path]
) -> None:
    export(Export(mask_file, series, tmp_path / "p1.sr.dcm", "dicom-sr"))  # and the Segmentation it refers to
    assert sorted(opened) == sorted(series.iterdir())


@pytest.mark.parametrize("form", FORMATS)
def test_the_suffix_says_the_format(form: Format) -> None:
    assert format_of(Path("a.b") / f"P1.x{(SUFFIXES[form] or f'.{form}').upper()}") == form


@pytest.mark.parametrize("name", ["p1", "p1.dcm", "p1.json", "p1.gz", "p1.nii", "p1.jpg", "stl"])
def test_a_suffix_that_says_no_format_is_refused_with_the_list(
    name: str, mask_file: Path, series: Path, tmp_path: Path, volseg: Run
) -> None:
    code, _, err = volseg("export", mask_file, "--reference", series, "--output", tmp_path / "out" / name)
    assert (code, "states no format" in err) == (2, True)
    assert all(suffix in err for suffix in (".seg.dcm", ".nii.gz", ".stl", ".geojson"))
    assert not (tmp_path / "out").exists()


def test_the_format_need_not_be_said_twice(mask_file: Path, series: Path, tmp_path: Path, volseg: Run) -> None:
    for name in ("p1.rtstruct.dcm", "p1.seg.nrrd", "p1.stl"):
        code, out, err = volseg("export", mask_file, "--reference", series, "--output", tmp_path / "out" / name)
        assert (code, out.startswith(f"wrote {tmp_path / 'out' / name}: ")) == (0, True), err
    assert pydicom.dcmread(tmp_path / "out" / "p1.rtstruct.dcm").Modality == "RTSTRUCT"
    assert {path.name for path in (tmp_path / "out" / "p1.stl").glob("[!.]*")} == {"liver.stl", "a_b_c.stl"}
    code, _, err = volseg(
        *("export", mask_file, "--reference", series, "--format", "nrrd"), "--output", tmp_path / "p1.nii.gz"
    )
    assert (code, "does not fit --format nrrd" in err) == (2, True)


def test_a_series_is_called_as_the_user_says(mask_file: Path, series: Path, tmp_path: Path, volseg: Run) -> None:
    words = ("export", mask_file, "--reference", series, "--output", tmp_path / "p1.seg.dcm")
    assert volseg(*words)[0] == 0
    assert pydicom.dcmread(tmp_path / "p1.seg.dcm").SeriesDescription == "volseg: liver, a b/c"
    assert volseg(*words, "--series-description", "{format} by {model}")[0] == 0
    assert pydicom.dcmread(tmp_path / "p1.seg.dcm").SeriesDescription == "dicom-seg by volseg"
    code, _, err = volseg(*words, "--series-description", "{patient}")
    assert (code, "{format}, {labels} or {model}" in err) == (2, True)


def test_a_mask_in_another_storage_order_is_put_into_that_of_its_image(
    mask_file: Path, series: Path, tmp_path: Path
) -> None:
    stored = read_mask(single_source(mask_file))
    order = AxisOrder((2, 0, 1), (True, False, True))
    turned = Mask(np.ascontiguousarray(order.apply(stored.array)), stored.geometry.reordered(order))
    write_mask(turned, tmp_path / "turned.nii.gz")
    placed = export(Export(tmp_path / "turned.nii.gz", series, tmp_path / "p1.nii.gz")).mask
    np.testing.assert_array_equal(placed.array, stored.array)
    assert placed.geometry.matches(stored.geometry)


@pytest.mark.parametrize("form", ["dicom-seg", "rtstruct"])
def test_what_was_exported_is_exported_again(form: str, mask_file: Path, series: Path, tmp_path: Path) -> None:
    """A Segmentation or a Structure Set is a mask like any other."""
    marked = output_path(tmp_path, "p1", form)  # type: ignore[arg-type]
    export(Export(mask_file, series, marked, form))  # type: ignore[arg-type]
    placed = export(Export(marked, series, tmp_path / "back.nii.gz", labels=mask_file.parent / "labels.json")).mask
    np.testing.assert_array_equal(placed.array, read_mask(single_source(mask_file)).array)
    named = export(Export(marked, series, tmp_path / "named.nii.gz")).mask
    assert named.labels[0].name == "liver"


@pytest.mark.parametrize(
    "begin", ["muscle of the upper limb, anterior compartment, superficial layer, head ", "Öß" * 40]
)
@pytest.mark.parametrize("form", ["dicom-seg", "rtstruct", "dicom-sr"])
def test_long_names_that_begin_alike_stay_two_structures(
    form: Format, begin: str, mask_file: Path, series: Path, tmp_path: Path
) -> None:
    """An object has room for 64 characters of a name, or as many bytes."""
    names = [begin + "long", begin + "short"]
    entries = [{"value": value, "name": name} for value, name in zip((1, 2), names, strict=True)]
    (mask_file.parent / "labels.json").write_text(json.dumps(entries))
    made = tmp_path / f"p1{SUFFIXES[form]}"
    mask = export(Export(mask_file, series, made, form)).mask
    written = pydicom.dcmread(made)
    match form:
        case "dicom-seg":
            found = [item.SegmentLabel for item in written.SegmentSequence]
            found += [item.TrackingID for item in written.SegmentSequence]
            meanings = [item.SegmentedPropertyTypeCodeSequence[0].CodeMeaning for item in written.SegmentSequence]
            assert len(set(meanings)) == 2
        case "rtstruct":
            found = [item.ROIName for item in written.StructureSetROISequence]
        case _:
            texts = {str(element.value) for element in written.iterall() if element.keyword == "TextValue"}
            found = [text for text in texts if text.startswith(begin[:8])]
    assert len(set(found)) == 2
    assert all(len(name.encode()) <= 64 for name in found)
    if form != "dicom-sr":
        labels = tuple(Label(value, name) for value, name in zip((2, 1), names, strict=True))
        back = read_mask(single_source(made), labels, on=mask.geometry)
        assert (back.array == np.array([0, 2, 1])[mask.array]).all()


@pytest.mark.parametrize("form", ["dicom-seg", "rtstruct", "seg-nrrd"])
def test_values_and_names_alone_find_their_codes(form: Format, mask_file: Path, series: Path, tmp_path: Path) -> None:
    (mask_file.parent / "labels.json").write_text('{"1": "Left kidney", "2": "spleen"}')
    made = tmp_path / f"p1{SUFFIXES[form]}"
    export(Export(mask_file, series, made, form))
    text = made.read_bytes()
    assert b"64033007" in text  # SNOMED CT: kidney
    assert b"78961009" in text  # spleen
    assert b"99VOLSEG" not in text


def test_a_segmentation_of_slicer_keeps_names_values_and_colours(mask_file: Path, series: Path, tmp_path: Path) -> None:
    labels = [
        {"value": 1, "name": "knee, medial", "color": [1, 2, 3]},
        {"value": 2, "name": "Gewebe", "color": [250, 0, 7]},
    ]
    (mask_file.parent / "labels.json").write_text(json.dumps(labels))
    export(Export(mask_file, series, tmp_path / "a.seg.nrrd", "seg-nrrd"))
    (tmp_path / "labels.json").write_text('{"1": "not this", "2": "nor that"}')
    again = export(Export(tmp_path / "a.seg.nrrd", series, tmp_path / "b.seg.nrrd", "seg-nrrd")).mask
    assert [(label.value, label.name, label.color) for label in again.labels] == [
        (1, "knee, medial", (1, 2, 3)),
        (2, "Gewebe", (250, 0, 7)),
    ]
    assert (tmp_path / "a.seg.nrrd").read_bytes() == (tmp_path / "b.seg.nrrd").read_bytes()


def test_the_series_is_found_among_others(mask_file: Path, series: Path, tmp_path: Path) -> None:
    other, _ = make_case(1, shape=(12, 10, 8))
    write_series(other, tmp_path / "study" / "a")
    shutil.copytree(series, tmp_path / "study" / "b")
    export(Export(mask_file, tmp_path / "study", tmp_path / "p1.seg.dcm", "dicom-seg"))
    stated = pydicom.dcmread(tmp_path / "p1.seg.dcm").ReferencedSeriesSequence[0].SeriesInstanceUID
    assert stated == pydicom.dcmread(series / "0001.dcm").SeriesInstanceUID
    shutil.rmtree(tmp_path / "study" / "b")
    with pytest.raises(GeometryError, match="but the image has"):
        export(Export(mask_file, tmp_path / "study", tmp_path / "none.seg.dcm", "dicom-seg"))
    assert not (tmp_path / "none.seg.dcm").exists()


def test_requests_that_cannot_be_met(mask_file: Path, series: Path, tmp_path: Path, volseg: Run) -> None:
    image, _ = make_case(0)
    write_volume(image, tmp_path / "image.nii.gz")
    with pytest.raises(DataError, match=r"refers to DICOM images, but image\.nii\.gz is not DICOM"):
        export(Export(mask_file, tmp_path / "image.nii.gz", tmp_path / "p1.seg.dcm", "dicom-seg"))
    with pytest.raises(ConfigError, match=r"p1\.dcm does not fit --format dicom-seg") as refused:
        export(Export(mask_file, series, tmp_path / "p1.dcm", "dicom-seg"))
    assert refused.value.hint == "use a name that ends with .seg.dcm"
    for words in (("--format", "dicom"), ("--encoding", "jpeg")):
        code, _, err = volseg("export", mask_file, "--reference", series, "--output", tmp_path / "x.nii.gz", *words)
        assert code == 2
        assert "choose one of" in err
    (mask_file.parent / "labels.json").write_text("[{}]")
    code, _, err = volseg("export", mask_file, "--reference", series, "--output", tmp_path / "x.nii.gz")
    assert code == 2
    assert "labels.json is not a list of labels" in err


def test_labels_and_what_they_mean_come_back(tmp_path: Path) -> None:
    tumor = Structure(
        Code("49755003", "SCT", "Morphologically Abnormal Structure"),
        Code("108369006", "SCT", "Neoplasm"),
        region=Code("10200004", "SCT", "Liver"),
        region_modifier=Code("7771000", "SCT", "Left"),
        color=(1, 2, 3),
    )
    labels = (*LABELS, Label(3, "tumour", parts=(1, 2), structure=tumor, aliases=("Raumforderung", "SCT:1")))
    write_labels(labels, tmp_path / "labels.json")
    assert read_labels(tmp_path / "labels.json") == labels
    assert json.loads((tmp_path / "labels.json").read_text())[0]["name"] == "liver"


def test_a_batch_in_every_format_goes_on_where_it_was(trained_run: Path, tmp_path: Path, volseg: Run) -> None:
    image, _ = make_case(0)
    write_series(image, tmp_path / "in" / "dicom")
    write_volume(image, tmp_path / "in" / "nifti.nii.gz")
    words = ["predict", tmp_path / "in", "--model", trained_run, "--output", tmp_path / "out"]
    formats = [word for form in FORMATS if form not in {"dicom-seg", *OF_PICTURES} for word in ("--format", form)]
    code, _, err = volseg(*words, *formats)
    assert code == 3
    with (tmp_path / "out" / "cases.csv").open() as file:
        rows = {row["case_id"]: row for row in csv.DictReader(file)}
    assert rows["dicom"]["status"] == "segmented", err
    assert "refers to DICOM images" in rows["nifti"]["reason"]
    assert not list((tmp_path / "out").glob("nifti*"))  # no format of a case that failed
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("dicom*") if path.is_file()}
    suffixes = [suffix for form, suffix in SUFFIXES.items() if suffix and form not in OF_PICTURES]
    assert {path.name for path in made} >= {f"dicom{suffix}" for suffix in suffixes}
    volseg(*words, *formats)
    assert {path: path.stat().st_mtime_ns for path in made} == made
    volseg(*words, "--format", "nifti")
    left = {path.name for path in (tmp_path / "out").rglob("*") if "dicom" in path.parts[-1] or path.suffix == ".stl"}
    assert left == {"dicom.nii.gz"}
    assert (tmp_path / "out" / "itksnap_labels.txt").is_file()


def test_a_batch_says_which_model_made_its_objects(trained_run: Path, tmp_path: Path, volseg: Run) -> None:
    """And what is exported afterwards is the same, byte for byte; of a corrected mask it says that it is."""
    for path in write_series(make_case(0)[0], tmp_path / "in" / "p1"):
        edit(path, StudyDate="20200202", StudyTime="101500")
    run = tmp_path / "runs" / "balls & boxes"
    shutil.copytree(trained_run, run)
    words = ["predict", tmp_path / "in", "--model", run]
    assert volseg(*words, "--output", tmp_path / "dicom", "--format", "dicom-sr", "--format", "rtstruct")[0] == 0
    assert volseg(*words, "--output", tmp_path / "nifti")[0] == 0
    digest = hashlib.sha256((run / "model.pt").read_bytes()).hexdigest()[:16]
    made = pydicom.dcmread(tmp_path / "dicom" / "p1.seg.dcm")
    name = made.SegmentSequence[0].SegmentAlgorithmName
    assert name.startswith("balls _ boxes-")  # & is no safe part of a name
    assert made.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == digest
    mask = tmp_path / "nifti" / "p1.nii.gz"
    for ending in ("seg", "rtstruct", "sr"):
        output = tmp_path / "exported" / f"p1.{ending}.dcm"
        code, _, err = volseg("export", mask, "--reference", tmp_path / "in" / "p1", "--output", output)
        assert code == 0, err
        assert output.read_bytes() == (tmp_path / "dicom" / output.name).read_bytes()
    image = nib.load(mask)
    voxels = np.asarray(image.dataobj).copy()
    voxels[0, 0, 0] = 1
    nib.save(nib.Nifti1Image(voxels, image.affine, image.header), mask)
    corrected = tmp_path / "corrected.seg.dcm"
    assert volseg("export", mask, "--reference", tmp_path / "in" / "p1", "--output", corrected)[0] == 0
    kinds = [item.SegmentSequence[0].SegmentAlgorithmType for item in (made, pydicom.dcmread(corrected))]
    assert kinds == ["AUTOMATIC", "SEMIAUTOMATIC"]
    assert pydicom.dcmread(corrected).SegmentSequence[0].SegmentAlgorithmName == name


def test_a_batch_whose_words_changed_is_written_anew(trained_run: Path, tmp_path: Path, volseg: Run) -> None:
    write_series(make_case(0)[0], tmp_path / "in" / "p1")
    words = ["predict", tmp_path / "in", "--model", trained_run, "--output", tmp_path / "out"]
    dicom = [*words, "--format", "dicom-seg", "--series-description", "{model}: {labels}"]
    said = []
    for name in ("one", "one", "other"):
        code, out, err = volseg(*dicom, "--model-name", name)
        assert code == 0, err
        said.append((pydicom.dcmread(tmp_path / "out" / "p1.seg.dcm").SeriesDescription, "1 unchanged" in out))
    assert [text for text, _ in said] == ["one: label_1, label_2", "one: label_1, label_2", "other: label_1, label_2"]
    assert [unchanged for _, unchanged in said] == [False, True, False]
    nifti = [*words[:-1], tmp_path / "nifti"]
    assert volseg(*nifti, "--model-name", "one")[0] == 0
    assert "1 unchanged" in volseg(*nifti, "--model-name", "other")[1]  # a label map says nothing of it
    for wrong in (("--model-name", "a\\b"), ("--series-description", "x" * 65)):
        code, _, err = volseg(*words[:-1], tmp_path / "none", "--format", "dicom-seg", *wrong)
        assert (code, err.count("hint")) == (2, 1)
    assert not (tmp_path / "none").exists()


def test_gaps_are_bridged_for_the_network_and_left_in_the_dicom_mask(
    trained_run: Path, tmp_path: Path, volseg: Run
) -> None:
    image, _ = make_case(0)
    files = write_series(image, tmp_path / "in" / "p")
    files[7].unlink()
    words = ["predict", tmp_path / "in", "--model", trained_run, "--output", tmp_path / "out", "--format", "dicom-seg"]
    code, _, _ = volseg(*words, "--format", "nifti")
    assert code == 3  # refused
    code, _, err = volseg(*words, "--format", "nifti", "--allow-gaps")
    assert code == 0
    assert "1 of 16 slices are interpolated" in err
    assert nib.load(tmp_path / "out" / "p.nii.gz").shape[2] == 16
    positions = {
        tuple(frame.PlanePositionSequence[0].ImagePositionPatient)
        for frame in pydicom.dcmread(tmp_path / "out" / "p.seg.dcm").PerFrameFunctionalGroupsSequence
    }
    assert positions <= {tuple(pydicom.dcmread(path).ImagePositionPatient) for path in files if path.exists()}


def test_a_name_from_the_images_leads_nowhere(trained_run: Path, tmp_path: Path, volseg: Run) -> None:
    image, _ = make_case(0)
    for path in write_series(image, tmp_path / "in" / "a..b"):
        edit(path, SeriesDescription="../../escaped", PatientID="../../../escaped", PatientName="Doe^John")
    code, out, err = volseg(
        "predict", tmp_path / "in", "--model", trained_run, "--output", tmp_path / "out" / "masks", "--format", "stl"
    )
    assert code == 0, err
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"masks"}
    assert "Doe" not in out + err + "".join(path.name for path in (tmp_path / "out").rglob("*"))


def test_the_input_folder_is_no_output(trained_run: Path, tmp_path: Path, volseg: Run) -> None:
    image, mask = make_case(0)
    write_volume(image, tmp_path / "a.nii.gz")
    write_mask(mask, tmp_path / "a_seg.nii.gz")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    code, _, err = volseg("predict", tmp_path, "--model", trained_run, "--output", tmp_path)
    assert code == 2
    assert "is also the input" in err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_files_that_no_batch_made_stay(trained_run: Path, tmp_path: Path, volseg: Run) -> None:
    image, mask = make_case(0)
    write_volume(image, tmp_path / "in" / "a.nii.gz")
    write_mask(mask, tmp_path / "in" / "a_seg.nii.gz")  # skipped, and called like a mask
    write_mask(mask, tmp_path / "out" / "a_seg.nii.gz")
    assert volseg("predict", tmp_path / "in", "--model", trained_run, "--output", tmp_path / "out")[0] == 0
    assert (tmp_path / "out" / "a_seg.nii.gz").is_file()


def test_meshes_that_are_gone_are_made_again(trained_run: Path, tmp_path: Path, volseg: Run) -> None:
    write_volume(make_case(0)[0], tmp_path / "in" / "a.nii.gz")
    words = ("predict", tmp_path / "in", "--model", trained_run, "--output", tmp_path / "out", "--format", "stl")
    assert volseg(*words)[0] == 0
    shutil.rmtree(tmp_path / "out" / "a")
    assert volseg(*words)[0] == 0
    assert list((tmp_path / "out" / "a").glob("*.stl"))


def test_meshes_of_another_mask_do_not_stay_among_new_ones(mask_file: Path, series: Path, tmp_path: Path) -> None:
    export(Export(mask_file, series, tmp_path / "meshes", "stl"))
    with pytest.raises(OutputError, match="already holds meshes"):
        export(Export(mask_file, series, tmp_path / "meshes", "stl"))
    (tmp_path / "meshes" / "implant.stl").write_bytes(b"solid implant")
    written = export(Export(mask_file, series, tmp_path / "meshes", "stl", overwrite=True)).paths
    assert written == (tmp_path / "meshes",)
    assert (tmp_path / "meshes" / "implant.stl").read_bytes() == b"solid implant"


def test_of_several_series_of_one_grid_the_one_is_taken_that_would_be_segmented(
    mask_file: Path, series: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An arterial and a venous scan lie on one grid; a Segmentation says which it is about."""
    study = tmp_path / "study"
    for number, name in ((5, "a"), (2, "b")):
        write_series(make_case(0)[0], study / name)
        for path in (study / name).iterdir():
            edit(path, StudyInstanceUID="1.2.3", SeriesNumber=number)
    export(Export(mask_file, study, tmp_path / "p1.seg.dcm", "dicom-seg"))
    uids = {name: pydicom.dcmread(study / name / "0001.dcm").SeriesInstanceUID for name in "ab"}
    assert pydicom.dcmread(tmp_path / "p1.seg.dcm").ReferencedSeriesSequence[0].SeriesInstanceUID == uids["b"]
    assert "using series 2" in caplog.text
    export(Export(mask_file, study / "a", tmp_path / "of_a.seg.dcm", "dicom-seg"))
    export(Export(tmp_path / "of_a.seg.dcm", study, tmp_path / "again.seg.dcm", "dicom-seg"))
    assert pydicom.dcmread(tmp_path / "again.seg.dcm").ReferencedSeriesSequence[0].SeriesInstanceUID == uids["a"]


def test_a_series_in_doubt_is_read_aloud_where_gaps_are_allowed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last = write_series(make_case(0)[0], tmp_path)[-1]
    last.write_bytes(last.read_bytes()[:600])
    with pytest.raises(GeometryError, match=r"0016\.dcm may be one of its slices"):
        read_volume(single_source(tmp_path))
    assert read_volume(single_source(tmp_path, rules=ReadingRules(allow_gaps=True))).geometry.shape[2] == 15
    assert "may be one of its slices" in caplog.text


def test_burned_in_text_is_warned_of_before_it_is_painted(
    mask_file: Path, series: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in series.iterdir():
        edit(path, BurnedInAnnotation="YES")
    export(Export(mask_file, series, tmp_path / "p1.png", "png"))
    assert "BurnedInAnnotation is YES" in caplog.text


@pytest.mark.parametrize(
    "entry",
    [
        {"value": 1, "name": "a", "color": [999, 0, 0]},
        {"value": 1.5, "name": "a"},
        {"value": 70000, "name": "a"},
        {"value": 1, "name": None},
        {"name": "a"},
    ],
)
def test_labels_that_are_none_are_refused(entry: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps([entry]))
    with pytest.raises(DataError, match="is not a list of labels"):
        read_labels(tmp_path / "labels.json")


def test_segmentations_are_scored_like_label_maps(mask_file: Path, series: Path, tmp_path: Path, volseg: Run) -> None:
    export(Export(mask_file, series, tmp_path / "seg" / "p1.seg.dcm", "dicom-seg"))
    shutil.copy(mask_file.parent / "labels.json", tmp_path / "seg")
    shutil.copy(mask_file, tmp_path / "seg.nii.gz")
    (tmp_path / "references").mkdir()
    shutil.copy(mask_file, tmp_path / "references" / "p1.nii.gz")
    code, out, err = volseg("evaluate", tmp_path / "seg", tmp_path / "references", "--output", tmp_path / "scores")
    assert code == 0, err
    assert out.splitlines()[1].split()[:2] == ["liver", "1"]
    assert out.splitlines()[-3].split()[7] == "1"  # the mean of Dice
    (tmp_path / "seg" / "labels.json").unlink()
    words = ("--output", tmp_path / "scores")
    code, _, err = volseg("evaluate", tmp_path / "seg", tmp_path / "references", *words)
    assert code == 2
    assert "it is unknown which DICOM structure each value" in err


def test_structures_of_dicom_objects_are_scored_by_their_names(
    mask_file: Path, series: Path, tmp_path: Path, volseg: Run
) -> None:
    shutil.copytree(series, tmp_path / "right" / "p1" / "ct")
    export(Export(mask_file, series, tmp_path / "made" / "p1.seg.dcm", "dicom-seg"))
    export(Export(mask_file, series, tmp_path / "right" / "p1" / "p1.rtstruct.dcm", "rtstruct"))
    code, out, err = volseg("evaluate", tmp_path / "made", tmp_path / "right", "--output", tmp_path / "scores")
    assert code == 0, err
    assert [line.split("  ")[0] for line in out.splitlines()[1:3]] == ["liver", "a b/c"]


@pytest.mark.parametrize("form", ["dicom-seg", "rtstruct", "dicom-sr"])
def test_images_as_converters_leave_them(
    form: str, mask_file: Path, series: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """ITK writes no frame of reference, and every slice into a study of its own."""
    for number, path in enumerate(sorted(series.iterdir())):
        edit(path, lambda d: delattr(d, "FrameOfReferenceUID"), StudyInstanceUID=f"1.2.3.{number}")
    paths = [tmp_path / name / f"p1{SUFFIXES[form]}" for name in "ab"]  # type: ignore[index]
    for path in paths:
        export(Export(mask_file, series, path, form))  # type: ignore[arg-type]
    first, second = (pydicom.dcmread(path) for path in paths)
    assert first.get("FrameOfReferenceUID") == second.get("FrameOfReferenceUID")
    assert first.StudyInstanceUID == "1.2.3.0"
    assert "16 studies" in caplog.text


def test_images_of_several_spaces_have_no_common_mask(mask_file: Path, series: Path, tmp_path: Path) -> None:
    edit(series / "0003.dcm", FrameOfReferenceUID="1.2.3")
    for form in ("dicom-seg", "rtstruct"):
        with pytest.raises(GeometryError, match="2 frames of reference"):
            export(Export(mask_file, series, output_path(tmp_path, "p1", form), form))  # type: ignore[arg-type]


def test_what_is_changed_at_prediction_is_recorded(
    trained_run: Path, dataset: Path, tmp_path: Path, volseg: Run
) -> None:
    words = [
        "predict",
        dataset / "images",
        "--model",
        trained_run,
        "--output",
        tmp_path / "out",
        "--format",
        "seg-nrrd",
    ]
    assert volseg(*words, "--format", "nifti")[0] == 0
    assert "changed for prediction" not in (tmp_path / "out" / "about.json").read_text()
    changes = ("--set", "data.colors={label_1: [1, 2, 3]}", "--set", "inference.mirror_axes=[]")
    code, out, err = volseg(*words, *changes)
    assert (code, "6 new" in out) == (0, True)
    assert "case_0: removed what is no longer requested: nifti" in err
    facts = json.loads((tmp_path / "out" / "about.json").read_text())["facts"]
    assert facts["changed for prediction"].startswith("data.colors.label_1 was null, is [1, 2, 3]")
    color = sitk.ReadImage(str(tmp_path / "out" / "case_0.seg.nrrd")).GetMetaData("Segment0_Color")
    np.testing.assert_allclose([255 * float(part) for part in color.split()], [1, 2, 3], atol=0.01)


def test_interpolated_slices_are_told_in_the_table(trained_run: Path, tmp_path: Path, volseg: Run) -> None:
    paths = write_series(make_case(0)[0], tmp_path / "in" / "p1")
    sorted(paths)[len(paths) // 2].unlink()
    words = ["predict", tmp_path / "in", "--model", trained_run, "--output", tmp_path / "out", "--allow-gaps"]
    assert volseg(*words)[0] == 0
    (row,) = pd.read_csv(tmp_path / "out" / "cases.csv").to_dict("records")
    assert row["status"] == "segmented"
    assert re.fullmatch(r"1 of \d+ slices are interpolated across gaps", row["reason"])
