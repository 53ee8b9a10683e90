from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volseg.cases import (
    Case,
    Dataset,
    find_dataset,
    find_inputs,
    find_references,
    make_splits,
    read_images,
    read_reference,
    read_splits,
    write_splits,
)
from volseg.cases.case import names_a_reference, stem
from volseg.cases.channel_names import match_channels
from volseg.errors import ConfigError, DataError, GeometryError
from volseg.image.geometry import AxisOrder, Geometry
from volseg.image.volume import Label, Mask, Volume
from volseg.io import FileSource, SeriesSource, Source, discover, stated_modality, write_mask, write_volume
from volseg.io.dicom import write_series
from volseg.io.source import MasksSource

SHAPE = (4, 3, 2)
GRID = Geometry(SHAPE, np.diag([1.0, 2.0, 3.0, 1.0]))


def save_image(path: Path, *, channels: int = 1, geometry: Geometry = GRID, seed: int = 0) -> Path:
    array = np.random.default_rng(seed).normal(size=(channels, *geometry.shape)).astype(np.float32)
    write_volume(Volume(array, geometry), path)
    return path


def save_mask(path: Path, *, value: int = 1, geometry: Geometry = GRID) -> Path:
    array = np.zeros(geometry.shape, np.uint16 if value > 255 else np.uint8)
    array[1, 1, 1] = value
    write_mask(Mask(array, geometry), path)
    return path


def save_series(folder: Path) -> Path:
    array = np.arange(np.prod(SHAPE)).reshape(1, *SHAPE).astype(np.float32)
    write_series(Volume(array, GRID), folder)
    return folder


def save_json(folder: Path, **content: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content))


def ids(dataset: Dataset) -> list[str]:
    return [case.case_id for case in dataset.cases]


def reasons(dataset: Dataset, root: Path) -> dict[str, str]:
    return {str(item.path.relative_to(root)): item.reason for item in dataset.set_aside}


def accounted(dataset: Dataset) -> Counter[Path]:
    """How often each place is in a case or set aside; the channels of one 4D file count once."""
    used = [{place for source in _sources(case) for place in _places(source)} for case in dataset.cases]
    return Counter([place for places in used for place in places] + [item.path for item in dataset.set_aside])


def _sources(case: Case) -> list[Source]:
    return [*case.images.values(), *([case.reference] if case.reference else [])]


def _places(source: Source) -> list[Path]:
    """A folder with a file per structure stands for its files."""
    return [each.place for each in source.each] if isinstance(source, MasksSource) else [source.place]


def found_in(*folders: Path) -> set[Path]:
    return {source.place for folder in folders for source in discover(folder).sources}


# Medical Segmentation Decathlon


def make_decathlon(root: Path, *, channels: int = 1) -> None:
    for name in ("task_001", "task_003"):
        save_image(root / "imagesTr" / f"{name}.nii.gz", channels=channels)
        save_mask(root / "labelsTr" / f"{name}.nii.gz")
    save_image(root / "imagesTs" / "task_002.nii.gz", channels=channels)
    save_json(
        root,
        modality={str(n): f"MRI {n}" for n in range(channels)} if channels > 1 else {"0": "MRI"},
        labels={"0": "background", "1": "Anterior", "2": "Posterior"},
        training=[
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
            for name in ("task_003", "task_001")
        ],
        test=["./imagesTs/task_002.nii.gz"],
    )


def test_decathlon(tmp_path: Path) -> None:
    make_decathlon(tmp_path)
    dataset = find_dataset(tmp_path)
    assert dataset.layout == "Medical Segmentation Decathlon"
    assert ids(dataset) == ["task_001", "task_003"]
    assert dataset.labels == {"Anterior": 1, "Posterior": 2}
    assert dataset.channels == ("mri",)
    assert reasons(dataset, tmp_path) == {"imagesTs/task_002.nii.gz": "an image for testing"}
    assert dataset.cases[0].images == {"mri": FileSource(tmp_path / "imagesTr" / "task_001.nii.gz")}
    assert dataset.cases[0].reference == FileSource(tmp_path / "labelsTr" / "task_001.nii.gz")


def test_channels_of_the_decathlon_are_frames(tmp_path: Path) -> None:
    make_decathlon(tmp_path, channels=3)
    dataset = find_dataset(tmp_path)
    assert dataset.channels == ("mri_0", "mri_1", "mri_2")
    image = read_images(dataset.cases[0], dataset.channels)
    assert image.array.shape == (3, *SHAPE)
    backwards = read_images(dataset.cases[0], dataset.channels[::-1])
    assert np.array_equal(backwards.array, image.array[::-1])
    assert ids(find_inputs(tmp_path, dataset.channels)) == ["task_002"]


def test_what_the_decathlon_does_not_list_is_set_aside(tmp_path: Path) -> None:
    make_decathlon(tmp_path)
    save_image(tmp_path / "imagesTr" / "extra.nii.gz")
    (tmp_path / "imagesTr" / "._task_001.nii.gz").write_bytes(b"x")
    (tmp_path / "labelsTr" / "task_003.nii.gz").unlink()
    dataset = find_dataset(tmp_path)
    assert ids(dataset) == ["task_001"]
    assert reasons(dataset, tmp_path) == {
        "imagesTr/extra.nii.gz": "not listed in dataset.json",
        "imagesTr/task_003.nii.gz": "its reference task_003.nii.gz does not exist; correct its path in the list",
        "imagesTs/task_002.nii.gz": "an image for testing",
    }


def test_more_than_ten_channels_are_in_order_of_their_number(tmp_path: Path) -> None:
    make_decathlon(tmp_path, channels=12)
    assert find_dataset(tmp_path).channels == tuple(f"mri_{n}" for n in range(12))


# nnU-Net


def make_nnunet(root: Path, **content: Any) -> None:
    for name in ("brats_1", "brats_2"):
        for channel in range(2):
            save_image(root / "imagesTr" / f"{name}_{channel:04d}.nii.gz", seed=channel)
        save_mask(root / "labelsTr" / f"{name}.nii.gz")
    save_json(
        root,
        **{
            "channel_names": {"0": "FLAIR", "1": "T1 post"},
            "labels": {"background": 0, "whole": [1, 2], "core": [2]},
            "file_ending": ".nii.gz",
            **content,
        },
    )


def test_nnunet(tmp_path: Path) -> None:
    make_nnunet(tmp_path)
    dataset = find_dataset(tmp_path)
    assert dataset.layout == "nnU-Net"
    assert ids(dataset) == ["brats_1", "brats_2"]
    assert dataset.channels == ("flair", "t1_post")
    assert dataset.labels == {"label_1": 1, "label_2": 2}
    assert dataset.regions == {"whole": (1, 2), "core": (2,)}
    assert dataset.cases[1].images["t1_post"].place.name == "brats_2_0001.nii.gz"
    assert not dataset.set_aside
    assert ids(find_inputs(tmp_path, dataset.channels)) == ["brats_1", "brats_2"]


def test_labels_of_nnunet_are_name_to_value(tmp_path: Path) -> None:
    make_nnunet(tmp_path, labels={"background": 0, "liver": 1, "tumour": 2})
    assert find_dataset(tmp_path).labels == {"liver": 1, "tumour": 2}


def test_the_label_to_ignore_of_nnunet_is_one_of_the_labels(tmp_path: Path) -> None:
    make_nnunet(tmp_path, labels={"background": 0, "liver": 1, "ignore": 2})
    assert find_dataset(tmp_path).labels == {"liver": 1, "ignore": 2}


def test_a_missing_channel_sets_the_case_aside(tmp_path: Path) -> None:
    make_nnunet(tmp_path)
    (tmp_path / "imagesTr" / "brats_1_0001.nii.gz").unlink()
    dataset = find_dataset(tmp_path)
    assert ids(dataset) == ["brats_2"]
    assert reasons(dataset, tmp_path) == {
        "imagesTr/brats_1_0000.nii.gz": "channel t1_post of case brats_1 is missing",
        "labelsTr/brats_1.nii.gz": "channel t1_post of case brats_1 is missing",
    }


def test_a_stray_file_does_not_stop_numbered_ones(tmp_path: Path) -> None:
    make_nnunet(tmp_path)
    save_image(tmp_path / "imagesTr" / "atlas.nii.gz")
    dataset = find_dataset(tmp_path)
    assert ids(dataset) == ["brats_1", "brats_2"]
    assert set(reasons(dataset, tmp_path)) == {"imagesTr/atlas.nii.gz"}
    assert "an image without a label" in reasons(dataset, tmp_path)["imagesTr/atlas.nii.gz"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": ["liver"]}, "labels must be an object"),
        ({"labels": {"liver": "one"}}, "label 'liver' has value 'one'"),
        ({"labels": {"liver": -1}}, "label 'liver' has value -1"),
        ({"labels": {"liver": 1.5}}, "label 'liver' has value 1.5"),
        ({"labels": {"liver": None}}, "label 'liver' has value None"),
        ({"labels": {"whole": [1, "x"]}}, "label 'whole' has value"),
        ({"labels": {"whole": [1, [2]]}}, "label 'whole' has value"),
        ({"labels": {"whole": []}}, "label 'whole' has value"),
        ({"labels": {"²": "x"}}, "label '²' has value 'x'"),
        ({"channel_names": ["t1", "t2"]}, "channels must be an object"),
        ({"training": [{"image": "a.nii"}]}, "has no 'label'"),
        ({"training": [{"image": 3, "label": "b"}]}, "has no 'image'"),
    ],
)
def test_a_dataset_json_that_says_nonsense_is_refused(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    make_nnunet(tmp_path, **content)
    with pytest.raises(DataError, match=message.replace("[", r"\[")):
        find_dataset(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '"x"', "\xff", "nonsense", '{"labels": '])
def test_a_broken_dataset_json_is_refused_by_name(text: str, tmp_path: Path) -> None:
    make_nnunet(tmp_path)
    (tmp_path / "dataset.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"dataset\.json"):
        find_dataset(tmp_path)


def test_a_dataset_json_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    make_nnunet(tmp_path)
    path = tmp_path / "dataset.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert ids(find_dataset(tmp_path)) == ["brats_1", "brats_2"]


def test_a_dataset_json_alone_is_refused(tmp_path: Path) -> None:
    save_json(tmp_path, labels={"liver": 1})
    with pytest.raises(DataError, match="no imagesTr/ and labelsTr/"):
        find_dataset(tmp_path)


# images/ and labels/ with equal names


def test_equal_names_in_mixed_formats(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "anna.nii.gz")
    save_image(tmp_path / "images" / "ben.nrrd")
    save_series(tmp_path / "images" / "carl")
    save_image(tmp_path / "images" / "dora.mha")
    for name in ("anna.nrrd", "ben.nii.gz", "carl.nii.gz", "dora.nii"):
        save_mask(tmp_path / "labels" / name)
    dataset = find_dataset(tmp_path)
    assert ids(dataset) == ["anna", "ben", "carl", "dora"]
    assert dataset.channels == ("image",)
    assert isinstance(dataset.cases[2].images["image"], SeriesSource)
    for case in dataset.cases:
        image = read_images(case, dataset.channels)
        mask = read_reference(case, image, [Label(1, "one")])
        assert np.argwhere(mask.array).tolist() == [[1, 1, 1]]
        assert mask.geometry is image.geometry
    save_mask(tmp_path / "m.nii.gz", geometry=GRID.reordered(AxisOrder((1, 2, 0), (True, False, False))))
    assert read_reference(case, image, []).geometry is image.geometry  # the same voxels in another storage order


def test_what_has_no_partner_is_set_aside(tmp_path: Path) -> None:
    for name in ("anna", "ben"):
        save_image(tmp_path / "images" / f"{name}.nii.gz")
    for name in ("anna", "carl"):
        save_mask(tmp_path / "labels" / f"{name}.nii.gz")
    dataset = find_dataset(tmp_path)
    assert ids(dataset) == ["anna"]
    assert reasons(dataset, tmp_path) == {
        "images/ben.nii.gz": "an image without a label: no ben in labels/",
        "labels/carl.nii.gz": "a label without an image: no carl in images/",
    }


def test_numbers_of_cases_are_no_channels(tmp_path: Path) -> None:
    for number in range(3):
        save_image(tmp_path / "images" / f"scan_{number:04d}.nii.gz")
        save_mask(tmp_path / "labels" / f"scan_{number:04d}.nii.gz")
    dataset = find_dataset(tmp_path)
    assert ids(dataset) == ["scan_0000", "scan_0001", "scan_0002"]
    assert dataset.channels == ("image",)


def test_numbered_channels_without_names(tmp_path: Path) -> None:
    for channel in range(3):
        save_image(tmp_path / "images" / f"anna_{channel:04d}.nii.gz")
    save_mask(tmp_path / "labels" / "anna.nii.gz")
    dataset = find_dataset(tmp_path)
    assert dataset.channels == ("channel_0", "channel_1", "channel_2")
    assert ids(dataset) == ["anna"]


# One folder per case


def test_a_folder_per_case_with_channels(tmp_path: Path) -> None:
    for name in ("BraTS_001", "BraTS_002"):
        for channel in ("flair", "t1", "t1ce"):
            save_image(tmp_path / name / f"{name}_{channel}.nii.gz")
        save_mask(tmp_path / name / f"{name}_seg.nii.gz")
    save_image(tmp_path / "ben" / "flair.nii.gz")
    save_image(tmp_path / "ben" / "ben-t1ce.nrrd")
    save_series(tmp_path / "ben" / "t1")
    save_mask(tmp_path / "ben" / "mask.nrrd")
    dataset = find_dataset(tmp_path)
    assert dataset.layout == "one folder per case"
    assert dataset.channels == ("flair", "t1", "t1ce")
    assert ids(dataset) == ["BraTS_001", "BraTS_002", "ben"]
    assert isinstance(dataset.cases[2].images["t1"], SeriesSource)
    assert dataset.cases[2].reference == FileSource(tmp_path / "ben" / "mask.nrrd")
    assert not dataset.set_aside


def test_with_one_image_per_case_its_name_does_not_matter(tmp_path: Path) -> None:
    save_image(tmp_path / "anna" / "whatever.nii.gz")
    save_mask(tmp_path / "anna" / "seg.nii.gz")
    save_series(tmp_path / "ben" / "2024-03-01" / "CT")
    save_mask(tmp_path / "ben" / "2024-03-01" / "label.nii.gz")
    dataset = find_dataset(tmp_path)
    assert ids(dataset) == ["anna", "ben"]
    assert dataset.channels == ("image",)


def test_odd_case_folders_are_set_aside_with_the_reason(tmp_path: Path) -> None:
    for name in ("anna", "ben", "carl", "dora", "emil", "fred"):
        save_image(tmp_path / name / "t1.nii.gz")
        save_image(tmp_path / name / "t2.nii.gz")
        save_mask(tmp_path / name / "seg.nii.gz")
    save_mask(tmp_path / "ben" / "ben_mask.nii.gz")
    (tmp_path / "carl" / "t2.nii.gz").unlink()
    (tmp_path / "dora" / "seg.nii.gz").unlink()
    (tmp_path / "emil" / "t1.nii.gz").unlink()
    (tmp_path / "emil" / "t2.nii.gz").unlink()
    save_image(tmp_path / "fred" / "fred_t1.nii.gz")
    save_image(tmp_path / "loose.nii.gz")
    shutil.copy(save_series(tmp_path / ".hidden") / "0001.dcm", tmp_path / "IM0001")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("x")
    dataset = find_dataset(tmp_path)
    assert ids(dataset) == ["anna"]
    said = reasons(dataset, tmp_path)
    assert "2 references" in said["ben/seg.nii.gz"]
    assert "2 references" in said["ben/ben_mask.nii.gz"]
    assert "has channels t1, most cases have t1, t2" in said["carl/t1.nii.gz"]
    assert "an image without a label in case dora" in said["dora/t1.nii.gz"]
    assert "a label without an image in case emil" in said["emil/seg.nii.gz"]
    assert "most cases have t1, t2" in said["fred/fred_t1.nii.gz"]  # it is a second t1: none may vanish
    assert "beside the case folders" in said["loose.nii.gz"]
    assert "beside the case folders" in said["IM0001"]
    counts = accounted(dataset)
    assert set(counts) == found_in(tmp_path) - {tmp_path} | {tmp_path / "IM0001"}
    assert set(counts.values()) == {1}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("seg", True),
        ("anna_seg", True),
        ("anna-Segmentation", True),
        ("labels", True),
        ("t2_seg-manual", True),
        ("anna mask", True),
        ("case.reference", True),
        ("gt", True),
        ("segment", False),
        ("unlabelled", False),
        ("mask_of_anna", False),
        ("t1", False),
        ("weight", False),
        ("bigt", False),
    ],
)
def test_names_that_say_reference(name: str, expected: bool) -> None:
    assert names_a_reference(name) is expected


# Manifests


def write_manifest(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_manifest(tmp_path: Path) -> None:
    save_image(tmp_path / "scans" / "anna_t1.nii.gz")
    save_image(tmp_path / "scans" / "anna_t2.nii.gz")
    save_image(tmp_path / "scans" / "ben_t1.nii.gz")
    save_series(tmp_path / "scans" / "ben_t2")
    save_mask(tmp_path / "anna.nii.gz")
    path = write_manifest(
        tmp_path / "cases.csv",
        "\ufeffcase_id, T1 ,t2,reference,\r\n"
        "anna,scans/anna_t1.nii.gz, scans/anna_t2.nii.gz ,anna.nii.gz,\r\n"
        f"ben,scans/ben_t1.nii.gz,scans/ben_t2/,{tmp_path / 'anna.nii.gz'}\r\n",
    )
    dataset = find_dataset(path)
    assert dataset.channels == ("T1", "t2")
    assert ids(dataset) == ["anna", "ben"]
    assert isinstance(dataset.cases[1].images["t2"], SeriesSource)
    assert dataset.cases[1].reference == FileSource(tmp_path / "anna.nii.gz")
    assert find_references(path) == {name: FileSource(tmp_path / "anna.nii.gz") for name in ("anna", "ben")}


def test_rows_that_cannot_be_used_are_set_aside(tmp_path: Path) -> None:
    save_image(tmp_path / "image.nii.gz")
    save_mask(tmp_path / "mask.nii.gz")
    (tmp_path / "empty").mkdir()
    path = write_manifest(
        tmp_path / "cases.csv",
        "case_id,image,reference\n"
        "good,image.nii.gz,mask.nii.gz\n"
        "gone,nowhere.nii.gz,mask.nii.gz\n"
        "blank,,mask.nii.gz\n"
        "hollow,empty,mask.nii.gz\n"
        "short\n"
        "unlabelled,image.nii.gz,\n",
    )
    dataset = find_dataset(path)
    assert ids(dataset) == ["good"]
    said = [item.reason for item in dataset.set_aside]
    assert len(said) == 5
    assert "nowhere.nii.gz does not exist" in said[0]
    assert "leaves a path empty" in said[1]
    assert "holds 0 volumes" in said[2]
    assert "leaves a path empty" in said[3]
    assert "the manifest gives case unlabelled no reference" in said[4]
    assert ids(find_inputs(path, ("image",))) == ["good", "unlabelled"]  # no reference is needed there


@pytest.mark.parametrize("case_id", ["../x", "a/b", "", ".", "..", "-x", "a\\b", "CON", "x.", ".hidden"])
def test_unsafe_case_ids_are_refused(case_id: str, tmp_path: Path) -> None:
    save_image(tmp_path / "a.nii.gz")
    path = write_manifest(tmp_path / "cases.csv", f"case_id,image,reference\n{case_id},a.nii.gz,a.nii.gz\n")
    with pytest.raises(DataError, match="cannot be a file name"):
        find_dataset(path)


@pytest.mark.parametrize("first", ["a.nii.gz", "gone.nii.gz"])
def test_a_case_listed_twice_is_refused(first: str, tmp_path: Path) -> None:
    save_image(tmp_path / "a.nii.gz")
    text = f"case_id,image,reference\nanna,{first},a.nii.gz\nanna,a.nii.gz,a.nii.gz\n"
    with pytest.raises(DataError, match="lists case 'anna' twice"):
        find_dataset(write_manifest(tmp_path / "cases.csv", text))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a manifest"),
        (b"a;b;c\n1;2;3\n", "its columns are a, b, c"),
        (b"image,reference\na,b\n", "is not a manifest"),
        (b"case_id,reference\na,b\n", "is not a manifest"),
        (b"case_id,image,image,reference\na,b,c,d\n", "is not a manifest"),
        (b'case_id,image\na,"b\n', "cannot be read as CSV"),
        (b"case_id,image,reference\n", "holds no labelled case"),
    ],
)
def test_a_csv_that_is_no_manifest_is_refused_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        find_dataset(path)
    assert str(path) in str(caught.value)


# No data set


def test_what_holds_no_labelled_case_is_refused_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        find_dataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no labelled case: it has no images"):
        find_dataset(tmp_path)
    with pytest.raises(DataError, match="is a single file"):
        find_dataset(save_image(tmp_path / "one.nii.gz"))
    save_image(tmp_path / "anna" / "t1.nii.gz")
    with pytest.raises(DataError, match=r"an image without a label in case anna \(1 files\)"):
        find_dataset(tmp_path)
    (tmp_path / "empty").mkdir()
    assert find_inputs(tmp_path / "empty", ("image",)).cases == ()
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match="holds no image"):
        find_inputs(tmp_path / "notes.txt", ("image",))


# Inputs


def test_a_single_file_is_a_case_whatever_its_name(tmp_path: Path) -> None:
    dataset = find_inputs(save_image(tmp_path / "my seg.nii.gz"), ("image",))
    assert ids(dataset) == ["my seg"]


def test_a_single_dicom_file_is_a_case(tmp_path: Path) -> None:
    dataset = find_inputs(save_series(tmp_path / "series") / "0001.dcm", ("image",))
    assert len(dataset.cases) == 1
    assert dataset.cases[0].images["image"].files == (tmp_path / "series" / "0001.dcm",)


def test_a_dicom_folder_is_a_case(tmp_path: Path) -> None:
    save_series(tmp_path / "exam")
    assert ids(find_inputs(tmp_path / "exam", ("image",))) == ["exam"]


def test_a_tree_of_patients(tmp_path: Path) -> None:
    save_series(tmp_path / "anna" / "2024-03-01" / "CT")
    save_image(tmp_path / "ben" / "scan.nii.gz")
    save_image(tmp_path / "ben" / "x" / "scan.nii.gz")
    save_mask(tmp_path / "ben" / "scan_seg.nii.gz")
    (tmp_path / "ben" / "notes.txt").write_text("x")
    dataset = find_inputs(tmp_path, ("image",))
    assert ids(dataset) == ["anna_2024-03-01_CT", "ben_scan", "ben_x_scan"]
    assert reasons(dataset, tmp_path) == {
        "ben/scan_seg.nii.gz": "its name says that it is a mask, not an image; name the file itself to segment it"
    }


def test_channels_are_known_by_name(tmp_path: Path) -> None:
    for folder in ("anna", "site/ben"):
        save_image(tmp_path / folder / "x_FLAIR.nii.gz")
        save_series(tmp_path / folder / "T1")
        save_image(tmp_path / folder / "post-t1.nrrd")
    channels = ("flair", "T1", "post-t1")
    dataset = find_inputs(tmp_path, channels)
    assert ids(dataset) == ["anna", "site_ben"]
    for case in dataset.cases:
        assert tuple(case.images) == channels
        assert case.images["flair"].place.name == "x_FLAIR.nii.gz"
        assert case.images["post-t1"].place.name == "post-t1.nrrd"


def test_equal_folder_names_do_not_mix_patients(tmp_path: Path) -> None:
    for patient in ("anna", "ben"):
        for channel in ("t1", "t2"):
            save_image(tmp_path / patient / "2024" / f"{channel}.nii.gz")
    dataset = find_inputs(tmp_path, ("t1", "t2"))
    assert ids(dataset) == ["anna_2024", "ben_2024"]
    for case in dataset.cases:
        assert len({source.place.parent for source in case.images.values()}) == 1


def test_the_folder_itself_may_be_the_case(tmp_path: Path) -> None:
    for channel in ("t1", "t2"):
        save_image(tmp_path / "anna" / f"{channel}.nii.gz")
    assert ids(find_inputs(tmp_path / "anna", ("t1", "t2"))) == ["anna"]
    dataset = find_inputs(tmp_path / "anna" / "t1.nii.gz", ("t1", "t2"))
    assert dataset.cases == ()
    assert "needs channel t2 as well" in dataset.set_aside[0].reason


def test_a_channel_that_is_there_twice_is_not_chosen(tmp_path: Path) -> None:
    for name in ("t1", "anna_t1", "t2"):
        save_image(tmp_path / "anna" / f"{name}.nii.gz")
    dataset = find_inputs(tmp_path, ("t1", "t2"))
    assert dataset.cases == ()
    assert Counter(item.reason for item in dataset.set_aside) == {
        "its folder has channel t1 more than once, which is ambiguous": 3
    }


def test_a_missing_channel_is_named(tmp_path: Path) -> None:
    save_image(tmp_path / "anna" / "t1.nii.gz")
    save_image(tmp_path / "anna" / "scout.nii.gz")
    dataset = find_inputs(tmp_path, ("t1", "t2", "flair"))
    assert dataset.cases == ()
    said = reasons(dataset, tmp_path)
    assert said["anna/t1.nii.gz"] == "the model needs channel t2, flair as well, which is missing"
    assert said["anna/scout.nii.gz"] == "its name is not one of the channels t1, t2, flair"


def test_numbered_files_are_the_channels_in_order(tmp_path: Path) -> None:
    for case in ("anna", "ben"):
        for channel in range(2):
            save_image(tmp_path / f"{case}_{channel:04d}.nii.gz")
    save_image(tmp_path / "stray.nii.gz")
    dataset = find_inputs(tmp_path, ("flair", "t1"))
    assert ids(dataset) == ["anna", "ben"]
    assert dataset.cases[0].images["t1"].place.name == "anna_0001.nii.gz"
    assert set(reasons(dataset, tmp_path)) == {"stray.nii.gz"}


def test_numbers_beyond_the_channels_of_the_model_are_refused(tmp_path: Path) -> None:
    for channel in range(3):
        save_image(tmp_path / f"anna_{channel:04d}.nii.gz")
    dataset = find_inputs(tmp_path, ("t1", "t2"))
    assert dataset.cases == ()
    (reason,) = {item.reason for item in dataset.set_aside}
    assert reason.startswith("files are numbered like 3 channels, the model has 2; ")
    assert "manifest" in reason


def test_for_one_channel_numbers_beside_other_names_are_those_of_cases(tmp_path: Path) -> None:
    for name in ("scan_0000", "scan_0001", "anna"):
        save_image(tmp_path / f"{name}.nii.gz")
    assert ids(find_inputs(tmp_path, ("image",))) == ["anna", "scan_0000", "scan_0001"]


def test_4d_files_are_cases_of_several_channels(tmp_path: Path) -> None:
    save_image(tmp_path / "anna.nii.gz", channels=2)
    save_image(tmp_path / "ben.nii.gz", channels=2)
    save_image(tmp_path / "flat.nii.gz")
    (tmp_path / "damaged.nii.gz").write_bytes(b"x")
    dataset = find_inputs(tmp_path, ("t1", "t2"))
    assert ids(dataset) == ["anna", "ben", "damaged"]  # it fails by its name, and stops no other
    assert read_images(dataset.cases[0], ("t1", "t2")).array.shape == (2, *SHAPE)
    assert set(reasons(dataset, tmp_path)) == {"flat.nii.gz"}
    with pytest.raises(DataError, match=r"damaged\.nii\.gz"):
        read_images(dataset.cases[2], ("t1", "t2"))


@pytest.mark.parametrize(
    "folders", [("images", "labels"), ("images",), ("imagesTr", "labelsTr"), ("imagesTs", "imagesTr")]
)
def test_of_a_data_set_the_images_are_segmented(folders: Sequence[str], tmp_path: Path) -> None:
    for folder in folders:
        save_image(tmp_path / folder / "anna.nii.gz")
    dataset = find_inputs(tmp_path, ("image",))
    assert ids(dataset) == ["anna"]
    assert dataset.cases[0].images["image"].place.parent.name == folders[0]


def test_a_patient_called_images_hides_no_other(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "a.nii.gz")
    save_image(tmp_path / "anna" / "a.nii.gz")
    assert ids(find_inputs(tmp_path, ("image",))) == ["anna_a", "images_a"]


def test_a_manifest_names_channels_as_it_likes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_image(tmp_path / f"{name}.nii.gz")
    path = write_manifest(tmp_path / "cases.csv", "case_id,t2,t1\nanna,a.nii.gz,b.nii.gz\n")
    assert find_inputs(path, ("t1", "t2")).cases[0].images["t1"].place.name == "b.nii.gz"
    for channels in (("t1",), ("t1", "flair"), ("t1", "t2", "flair"), ("flair", "dwi")):  # no case for guessing
        with pytest.raises(DataError, match="the manifest has channels t2, t1, the model needs"):
            find_inputs(path, channels)


@pytest.mark.parametrize(
    ("stated", "wanted", "expected"),
    [
        (("T2", "T1"), ("t1", "t2"), {"T2": "t2", "T1": "t1"}),
        (("T2w", "T1-weighted"), ("t1", "t2"), {"T2w": "t2", "T1-weighted": "t1"}),
        (("FLAIR", "T1Gd"), ("t1ce", "t2_flair"), {"FLAIR": "t2_flair", "T1Gd": "t1ce"}),
        (("image", "image_2"), ("t1", "t2"), {"image": "t1", "image_2": "t2"}),
        (("T1", "T2"), ("channel_0", "channel_1"), {"T1": "channel_0", "T2": "channel_1"}),
        (("mri",), ("t1",), {"mri": "t1"}),
        (("t1", "flair"), ("t1", "t2"), {}),
        (("image", "flair"), ("t1", "t2"), {}),
        (("t1", "T1w"), ("t1", "t2"), {}),
        (("dwi", "adc"), ("t1", "t2"), {}),
        (("t1",), ("t1", "t2"), {}),
    ],
)
def test_channels_are_matched_by_name_and_by_order_only_without(
    stated: tuple[str, ...], wanted: tuple[str, ...], expected: dict[str, str]
) -> None:
    assert match_channels(stated, wanted) == expected


@pytest.mark.parametrize("folders", ["imagesTr labelsTr", "imagesTr imagesTs labelsTr", "imagesTs", "."])
@pytest.mark.parametrize("named", [False, True], ids=["the data set", "its folder of images"])
def test_numbered_channels_are_what_dataset_json_says(folders: str, named: bool, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "T2", "1": "T1"}, "labels": {"a": 1}}')
    for folder in folders.split():
        for name in ("anna", "anna_0000", "anna_0001"):
            if ("labels" in folder) == (name == "anna"):
                save_image(tmp_path / folder / f"{name}.nii.gz")
    path = tmp_path / folders.split()[-2 if "labels" in folders else 0] if named else tmp_path
    (case,) = find_inputs(path, ("t1", "t2")).cases
    assert [case.images[name].place.name for name in ("t1", "t2")] == ["anna_0001.nii.gz", "anna_0000.nii.gz"]
    assert stated_modality(case.images["t1"]) == "MR"
    with pytest.raises(DataError, match=r"dataset\.json has channels t2, t1, the model needs t1, flair"):
        find_inputs(path, ("t1", "flair"))


def test_what_lists_an_image_may_say_its_modality(tmp_path: Path) -> None:
    save_image(tmp_path / "bids" / "sub-1" / "anat" / "sub-1_T1w.nii.gz")
    (tmp_path / "bids" / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    write_manifest(tmp_path / "cases.csv", "case_id,mri\na,bids/sub-1/anat/sub-1_T1w.nii.gz\n")
    write_manifest(tmp_path / "plain.csv", "case_id,image\na,bids/sub-1/anat/sub-1_T1w.nii.gz\n")
    stated = [
        stated_modality(find_inputs(tmp_path / name, ("ct",)).cases[0].images["ct"])
        for name in ("bids", "cases.csv", "plain.csv")
    ]
    assert stated == ["MR", "MR", ""]


def test_volumes_of_a_4d_file_are_what_dataset_json_says(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"modality": {"0": "T2", "1": "T1"}, "labels": {"1": "a"}}')
    save_image(tmp_path / "imagesTs" / "anna.nii.gz", channels=2)
    (case,) = find_inputs(tmp_path, ("t1", "t2")).cases
    assert [source.frame for source in (case.images["t1"], case.images["t2"])] == [1, 0]  # type: ignore[union-attr]


def test_a_data_set_is_found_again_as_input(tmp_path: Path) -> None:
    for case in ("anna", "ben"):
        for channel in ("T1", "Flair"):
            save_image(tmp_path / case / f"{case}_{channel}.nii.gz")
        save_mask(tmp_path / case / "seg.nii.gz")
    trained = find_dataset(tmp_path)
    again = find_inputs(tmp_path, trained.channels)
    assert [(case.case_id, case.images) for case in again.cases] == [
        (case.case_id, case.images) for case in trained.cases
    ]


PARTS = st.sampled_from(
    ["anna", "ben", "images", "x_0000", "x_0001", "y_0000", "t1", "t2", "a_t1", "seg", "a b", "a_b"]
)
TREES = st.lists(
    st.tuples(st.lists(PARTS, max_size=2), PARTS, st.sampled_from([".nii", ".nrrd", "/series", "(4D).nii"])), max_size=9
)


@pytest.fixture(scope="module")
def blanks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of each kind, to be copied."""
    folder = tmp_path_factory.mktemp("blanks")
    return {
        ".nii": save_image(folder / "a.nii"),
        ".nrrd": save_image(folder / "a.nrrd"),
        "(4D).nii": save_image(folder / "b.nii", channels=2),
    }


def grow(root: Path, tree: list[tuple[list[str], str, str]], blanks: dict[str, Path]) -> None:
    for folders, name, kind in tree:
        path = root.joinpath(*folders, name + kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "/series":
            shutil.rmtree(path.parent / f"{name}.d", ignore_errors=True)
            save_series(path.parent / f"{name}.d")  # a new one: copies of a series are one series
        else:
            shutil.copy(blanks[kind], path)


@settings(max_examples=30)
@given(tree=TREES, channels=st.sampled_from([("image",), ("t1", "t2"), ("x", "y", "z")]))
def test_every_image_of_a_tree_is_in_a_case_or_set_aside_once(
    tree: list[tuple[list[str], str, str]],
    channels: tuple[str, ...],
    blanks: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = tmp_path_factory.mktemp("tree")
    grow(root, tree, blanks)
    if not found_in(root):
        return
    dataset = find_inputs(root, channels)
    counts = accounted(dataset)
    expected = Counter(source.place for source in discover(root).sources)
    assert counts == expected
    assert len(set(ids(dataset))) == len(dataset.cases)
    for case in dataset.cases:
        assert tuple(case.images) == channels


@settings(max_examples=30)
@given(tree=TREES)
def test_every_file_of_case_folders_is_in_a_case_or_set_aside_once(
    tree: list[tuple[list[str], str, str]], blanks: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("tree")
    grow(root, tree, blanks)
    for case in ("anna", "good"):  # so that there is something to train on
        grow(root / case, [([], "t1", ".nrrd")], blanks)
    grow(root / "good", [([], "seg", ".nrrd")], blanks)
    try:
        dataset = find_dataset(root)
    except DataError as error:
        assert "holds no labelled case" in str(error)  # noqa: PT017  # other trees have no good case
        return
    assert accounted(dataset) == Counter(source.place for source in discover(root).sources)


# References


def test_references_of_any_layout(tmp_path: Path) -> None:
    for name in ("anna", "ben"):
        save_mask(tmp_path / "masks" / f"{name}.nii.gz")
        save_image(tmp_path / "pairs" / "images" / f"{name}.nii.gz")
        save_mask(tmp_path / "pairs" / "labels" / f"{name}.nii.gz")
        save_image(tmp_path / "folders" / name / "t1.nii.gz")
        save_mask(tmp_path / "folders" / name / "seg.nii.gz")
    make_decathlon(tmp_path / "decathlon")
    assert sorted(find_references(tmp_path / "masks")) == ["anna", "ben"]
    assert sorted(find_references(tmp_path / "pairs")) == ["anna", "ben"]
    assert find_references(tmp_path / "folders")["ben"] == FileSource(tmp_path / "folders" / "ben" / "seg.nii.gz")
    assert sorted(find_references(tmp_path / "folders")) == ["anna", "ben"]
    assert sorted(find_references(tmp_path / "decathlon")) == ["task_001", "task_003"]
    assert sorted(find_references(tmp_path / "masks" / "anna.nii.gz")) == ["anna"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no reference"):
        find_references(tmp_path / "empty")


# Names


@pytest.mark.parametrize(
    ("name", "expected"), [("a.nii.gz", "a"), ("a.b.nrrd", "a.b"), ("A.NII.GZ", "A"), ("folder.d", "folder.d")]
)
def test_stems(name: str, expected: str) -> None:
    assert stem(Path("x") / name) == expected


def test_a_case_needs_an_image() -> None:
    with pytest.raises(DataError, match="case anna has no image"):
        Case("anna", {})


# Reading


def make_case(folder: Path, *, mask: Path | None = None, **images: Path) -> Case:
    return Case("anna", {name: FileSource(path) for name, path in images.items()}, FileSource(mask) if mask else None)


def moved_by(*offset_mm: float) -> Geometry:
    affine = GRID.affine.copy()
    affine[:3, 3] += offset_mm
    return Geometry(SHAPE, affine)


def test_channels_are_stacked_in_the_order_asked_for(tmp_path: Path) -> None:
    case = make_case(tmp_path, t1=save_image(tmp_path / "a.nii.gz", seed=1), t2=save_image(tmp_path / "b.nrrd", seed=2))
    image = read_images(case, ("t2", "t1"))
    assert image.array.shape == (2, *SHAPE)
    assert image.array.dtype == np.float32
    assert np.array_equal(image.array[0], np.random.default_rng(2).normal(size=SHAPE).astype(np.float32))
    with pytest.raises(DataError, match="case anna has no channel 'flair', it has t1, t2"):
        read_images(case, ("flair",))


def test_channels_on_other_grids_are_refused_by_name_and_distance(tmp_path: Path) -> None:
    save_image(tmp_path / "a.nii.gz")
    save_image(tmp_path / "b.nii.gz", geometry=moved_by(3, 0, -4))
    case = make_case(tmp_path, t1=tmp_path / "a.nii.gz", t2=tmp_path / "b.nii.gz")
    with pytest.raises(GeometryError, match=r"case anna: channel t2 has .* but t1 has .*: .* 5 mm apart \(5 vox"):
        read_images(case, ("t1", "t2"))
    save_image(tmp_path / "b.nii.gz", geometry=Geometry((4, 3, 5), GRID.affine))
    with pytest.raises(GeometryError, match=r"case anna: channel t2 has 4x3x5 voxels .* t1 has 4x3x2 voxels"):
        read_images(case, ("t1", "t2"))


@pytest.mark.parametrize(
    ("values", "message"),
    [(7.0, r"the same value everywhere \(7\)"), (np.nan, "no finite voxel"), (np.inf, "no finite")],
)
def test_an_empty_channel_is_refused(values: float, message: str, tmp_path: Path) -> None:
    write_volume(Volume(np.full((1, *SHAPE), values, np.float32), GRID), tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match=f"case anna: .*a.nii.gz is empty: it has {message}"):
        read_images(make_case(tmp_path, image=tmp_path / "a.nii.gz"), ("image",))


def test_what_is_not_finite_does_not_hide_a_constant(tmp_path: Path) -> None:
    array = np.full((1, *SHAPE), 3, np.float32)
    array[0, 0, 0, 0] = np.nan
    write_volume(Volume(array, GRID), tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match=r"same value everywhere \(3\)"):
        read_images(make_case(tmp_path, image=tmp_path / "a.nii.gz"), ("image",))
    array[0, 1, 0, 0] = 4
    write_volume(Volume(array, GRID), tmp_path / "a.nii.gz")
    assert np.isnan(read_images(make_case(tmp_path, image=tmp_path / "a.nii.gz"), ("image",)).array).sum() == 1


def test_a_reference_on_another_grid_is_refused_by_name_and_distance(tmp_path: Path) -> None:
    save_image(tmp_path / "a.nii.gz")
    case = make_case(tmp_path, image=tmp_path / "a.nii.gz", mask=tmp_path / "m.nii.gz")
    image = read_images(case, ("image",))
    save_mask(tmp_path / "m.nii.gz", geometry=moved_by(0, 0, 2))
    with pytest.raises(GeometryError, match=r"case anna: reference and image: the mask has .* 2 mm apart \(2 voxels\)"):
        read_reference(case, image, [])
    save_mask(tmp_path / "m.nii.gz", geometry=Geometry((3, 4, 2), np.diag([1.1, 2, 3, 1])))
    with pytest.raises(GeometryError, match=r"the mask has 3x4x2 voxels .* the image has 4x3x2 voxels"):
        read_reference(case, image, [])
    save_mask(tmp_path / "m.nii.gz", geometry=moved_by(0, 0, 0.03))  # 3 % of a voxel
    mask = read_reference(case, image, [Label(1, "one")])
    assert mask.geometry is image.geometry
    save_mask(tmp_path / "m.nii.gz", geometry=GRID.reordered(AxisOrder((1, 2, 0), (True, False, False))))
    assert read_reference(case, image, []).geometry is image.geometry  # the same voxels in another storage order
    assert mask.labels == (Label(1, "one"),)


def test_a_reference_of_a_part_of_its_image_is_placed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    case = make_case(tmp_path, image=save_image(tmp_path / "a.nii.gz"), mask=tmp_path / "m.nii.gz")
    image = read_images(case, ("image",))
    save_mask(tmp_path / "m.nii.gz", geometry=Geometry((3, 2, 2), moved_by(1, 2, 0).affine))
    mask = read_reference(case, image, [Label(1, "one")])
    assert mask.geometry is image.geometry
    assert np.argwhere(mask.array).tolist() == [[2, 2, 1]]
    assert "case anna: the reference (3x2x2 voxels" in caplog.text


def test_a_value_without_a_label_is_refused_by_case_and_value(tmp_path: Path) -> None:
    case = make_case(
        tmp_path, image=save_image(tmp_path / "a.nii.gz"), mask=save_mask(tmp_path / "m.nii.gz", value=300)
    )
    image = read_images(case, ("image",))
    with pytest.raises(
        ConfigError, match=r"case anna: the reference holds label value 300, which data\.labels"
    ) as caught:
        read_reference(case, image, [Label(1, "one")])
    assert caught.value.hint
    assert read_reference(case, image, []).array.max() == 300
    assert read_reference(case, image, [Label(300, "x")]).array.max() == 300
    with pytest.raises(DataError, match="case anna has no reference"):
        read_reference(make_case(tmp_path, image=tmp_path / "a.nii.gz"), image, [])


def test_many_values_are_not_all_listed(tmp_path: Path) -> None:
    geometry = Geometry((30, 1, 1), np.eye(4))
    write_mask(Mask(np.arange(30, dtype=np.uint8).reshape(30, 1, 1), geometry), tmp_path / "m.nii.gz")
    save_image(tmp_path / "a.nii.gz", geometry=geometry)
    case = make_case(tmp_path, image=tmp_path / "a.nii.gz", mask=tmp_path / "m.nii.gz")
    with pytest.raises(ConfigError, match=r"label values 2, 3, 4, 5, 6, 7, 8, 9 \.\.\., which"):
        read_reference(case, read_images(case, ("image",)), [Label(1, "one")])


def test_an_image_as_reference_is_refused(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.nii.gz")
    case = make_case(tmp_path, image=path, mask=path)
    with pytest.raises(DataError, match="is not a label map"):
        read_reference(case, read_images(case, ("image",)), [])


# Splits

case_ids = st.lists(st.text("abc123", min_size=1, max_size=4), min_size=2, max_size=30, unique=True)


@given(case_ids, st.integers(2, 7), st.integers(0, 5))
def test_every_case_is_held_out_once(names: list[str], folds: int, seed: int) -> None:
    splits = make_splits(names, folds, 0.0, seed)
    assert len(splits) == min(folds, len(names))
    assert sorted(name for split in splits for name in split.val) == sorted(names)
    for split in splits:
        assert sorted(split.train + split.val) == sorted(names)
        assert split.train
        assert split.val
    sizes = [len(split.val) for split in splits]
    assert max(sizes) - min(sizes) <= 1


@given(case_ids, st.randoms(), st.floats(0, 0.99), st.integers(0, 5))
def test_splits_do_not_depend_on_order(names: list[str], random: Any, holdout: float, seed: int) -> None:
    shuffled = list(names)
    random.shuffle(shuffled)
    assert make_splits(names, 5, holdout, seed) == make_splits(shuffled, 5, holdout, seed)


def test_splits_depend_on_the_seed() -> None:
    names = [f"case_{n}" for n in range(20)]
    assert len({make_splits(names, 5, 0.0, seed) for seed in range(10)}) == 10


@pytest.mark.parametrize(
    ("count", "holdout", "expected"), [(10, 0.2, 2), (10, 0.01, 1), (2, 0.99, 1), (10, 0.99, 9), (5, 0.5, 2)]
)
def test_a_share_is_held_out(count: int, holdout: float, expected: int) -> None:
    (split,) = make_splits([str(n) for n in range(count)], 5, holdout, 0)
    assert len(split.val) == expected
    assert len(split.train) == count - expected
    assert not set(split.val) & set(split.train)


@pytest.mark.parametrize("names", [[], ["only"]])
def test_one_case_cannot_be_split(names: list[str]) -> None:
    with pytest.raises(DataError, match=f"{len(names)} usable case"):
        make_splits(names, 5, 0.0, 0)


def test_splits_are_read_as_they_were_written(tmp_path: Path) -> None:
    splits = make_splits([f"case_{n}" for n in range(7)], 3, 0.0, 0)
    write_splits(splits, tmp_path / "splits.json")
    assert read_splits(tmp_path / "splits.json") == splits
    assert json.loads((tmp_path / "splits.json").read_text())[0].keys() == {"train", "val"}


@pytest.mark.parametrize("text", ["", "{}x", "[1]", '[{"train": []}]', "3", '{"train": [], "val": []}', "[[1, 2]]"])
def test_a_file_that_holds_no_splits_is_refused_by_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    path.write_text(text)
    with pytest.raises(DataError, match=f"{path} is not a list of splits"):
        read_splits(path)
    with pytest.raises(DataError, match="is not a list of splits"):
        read_splits(tmp_path / "gone.json")


# Real data


@pytest.mark.real_data
def test_the_real_hippocampi_are_found(real_data: Path) -> None:
    dataset = find_dataset(real_data / "hippocampus")
    assert len(dataset.cases) == 208
    assert not dataset.set_aside
    case = dataset.cases[0]
    image = read_images(case, dataset.channels)
    mask = read_reference(case, image, [Label(1, "anterior"), Label(2, "posterior")])
    assert set(np.unique(mask.array)) == {0, 1, 2}


@pytest.mark.real_data
def test_real_images_and_labels_without_partners(real_data: Path) -> None:
    with pytest.raises(DataError, match="holds no labelled case") as caught:
        find_dataset(real_data / "hippocampus_odd")
    assert "an image without a label: no hippocampus_118" in str(caught.value)
    assert "a label without an image: no hippocampus_010" in str(caught.value)


@pytest.mark.real_data
@pytest.mark.parametrize("folder", ["spine", "abdomen", "nifti_odd", "dicom", "dicom_seg_rt"])
def test_every_real_file_is_in_a_case_or_set_aside(folder: str, real_data: Path) -> None:
    discovery = discover(real_data / folder)
    dataset = find_inputs(real_data / folder, ("image",))
    places = [source.place for source in discovery.sources] + [item.path for item in discovery.set_aside]
    places += [source.path for source in discovery.segments]
    assert accounted(dataset) == Counter(places)
