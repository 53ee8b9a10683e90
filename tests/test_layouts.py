"""Layouts of data as people have them: how training, prediction and evaluation understand each."""

from __future__ import annotations

import codecs
import json
import logging
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, make_case, train_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

import volseg
from volseg.cases import (
    Case,
    Dataset,
    Split,
    annotated_labels,
    check_others,
    choose_splits,
    find_dataset,
    find_inputs,
    find_references,
    make_splits,
    read_images,
    read_reference,
    read_splits,
)
from volseg.cases.layouts.names import KEEP_ONE, says_reference
from volseg.config import TrainingConfig, merge
from volseg.errors import ConfigError, DataError, GeometryError
from volseg.image.geometry import AxisOrder, Geometry
from volseg.image.volume import Label, Mask, Volume
from volseg.io import FileSource, MasksSource, discover, read_mask, write_mask, write_volume
from volseg.io.dicom.write import write_series

SHAPE = (5, 4, 3)
GRID = Geometry(SHAPE, np.diag([1.0, 1.5, 2.0, 1.0]))


def image(path: Path, geometry: Geometry = GRID, channels: int = 1) -> Path:
    array = np.random.default_rng(len(path.name)).normal(size=(channels, *geometry.shape)).astype(np.float32)
    write_volume(Volume(array, geometry), path)
    return path


def mask(path: Path, *values: int, geometry: Geometry = GRID) -> Path:
    """A mask with one voxel of each value, along the first axis."""
    array = np.zeros(geometry.shape, np.uint8)
    array[: len(values), 0, 0] = values
    write_mask(Mask(array, geometry), path)
    return path


def box(path: Path, low: ArrayLike, high: ArrayLike, value: int = 1, geometry: Geometry = GRID) -> Path:
    """A binary mask of a box of voxels."""
    array = np.zeros(geometry.shape, np.uint8)
    array[tuple(slice(*ends) for ends in zip(np.ravel(low), np.ravel(high), strict=True))] = value
    write_mask(Mask(array, geometry), path)
    return path


def ids(dataset: Dataset) -> list[str]:
    return [case.case_id for case in dataset.cases]


def pairs(dataset: Dataset, root: Path) -> dict[str, tuple[str, ...]]:
    """Case id -> its images and its reference, below the root."""
    return {
        case.case_id: tuple(
            str(source.place.relative_to(root))
            for source in (*case.images.values(), *([case.reference] if case.reference else []))
        )
        for case in dataset.cases
    }


def reasons(dataset: Dataset, root: Path) -> dict[str, str]:
    return {str(item.path.relative_to(root)): item.reason for item in dataset.set_aside}


def all_accounted(dataset: Dataset, root: Path) -> bool:
    """Whether every image file is in one case or set aside, once."""
    used = Counter(path for case in dataset.cases for source in case.images.values() for path in set(source.files))
    used += Counter(path for case in dataset.cases if case.reference for path in case.reference.files)
    used += Counter(item.path for item in dataset.set_aside)
    return used == Counter(source.place for source in discover(root).sources)


# One binary mask per structure


def organs(root: Path, case: str, *names: str, folder: str = "segmentations") -> None:
    image(root / case / "ct.nii.gz")
    for place, name in enumerate(names):
        box(root / case / folder / f"{name}.nii.gz", (place, 0, 0), (place + 1, 2, 2))


@pytest.mark.parametrize("folder", ["segmentations", "Masks", "labels", "segs", "organs", "."])
def test_a_mask_per_organ(folder: str, tmp_path: Path) -> None:
    for case in ("s0004", "s0011"):
        organs(tmp_path, case, "spleen", "aorta", folder=folder)
    dataset = find_dataset(tmp_path)
    assert dataset.layout == "one binary mask per structure"
    assert ids(dataset) == ["s0004", "s0011"]
    assert dataset.labels == {"aorta": 1, "spleen": 2}
    assert dataset.channels == ("image",)
    case = dataset.cases[0]
    assert case.annotated is None
    reference = read_reference(case, read_images(case, ("image",)), [Label(7, "aorta"), Label(300, "spleen")])
    assert reference.array[:, 0, 0].tolist() == [300, 7, 0, 0, 0]
    assert all_accounted(dataset, tmp_path)

    segmented = find_inputs(tmp_path, ("image",))
    assert ids(segmented) == ["s0004_ct", "s0011_ct"]
    assert all_accounted(segmented, tmp_path)
    assert ids(find_inputs(tmp_path / "s0004", ("image",))) == ["ct"]

    wanted = find_references(tmp_path)
    assert sorted(wanted) == ["s0004", "s0011"]
    assert read_mask(wanted["s0011"], [Label(2, "spleen")]).array.max() == 2


def test_masks_of_organs_without_images_are_references(tmp_path: Path) -> None:
    for case in ("a", "b"):
        organs(tmp_path / "flat", case, "liver", "left kidney", folder=".")
        organs(tmp_path / "deep", case, "liver", "left kidney")
    for path in [*tmp_path.rglob("ct.nii.gz")]:
        path.unlink()
    for root in (tmp_path / "flat", tmp_path / "deep"):
        found = find_references(root)
        assert {name: source.names for name, source in found.items() if isinstance(source, MasksSource)} == {
            "a": ("left kidney", "liver"),
            "b": ("left kidney", "liver"),
        }
        kidney = read_mask(found["a"], [Label(4, "kidney_left")])  # the same structure under another name
        assert kidney.array[:, 0, 0].tolist() == [0, 4, 0, 0, 0]


def test_the_name_of_the_case_or_the_image_is_no_part_of_that_of_an_organ(tmp_path: Path) -> None:
    for case in ("p1", "p2"):
        image(tmp_path / case / f"{case}_ct.nii.gz")
        mask(tmp_path / case / f"{case}_liver_seg.nii.gz", 1)
        mask(tmp_path / case / f"{case}_ct_duodenum_mask.nii.gz", 1)
    assert find_dataset(tmp_path).labels == {"duodenum": 1, "liver": 2}


def test_an_organ_without_a_file_is_not_annotated(tmp_path: Path) -> None:
    organs(tmp_path, "a", "liver", "my_lesion")
    organs(tmp_path, "b", "Liver")
    organs(tmp_path, "c", "liver", "my_lesion", "spleen")
    dataset = find_dataset(tmp_path)
    assert dataset.labels == {"Liver": 1, "my_lesion": 2, "spleen": 3}
    assert [case.annotated for case in dataset.cases] == [{"Liver", "my_lesion"}, {"Liver"}, None]
    assert "2 cases have no file for some structures" in dataset.remarks[0]


def test_the_smaller_of_two_organs_that_overlap_is_seen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    organs(tmp_path, "a")
    box(tmp_path / "a" / "segmentations" / "zygote.nii.gz", (0, 0, 0), (4, 4, 3))
    box(tmp_path / "a" / "segmentations" / "lesion.nii.gz", (1, 1, 0), (2, 2, 1), value=255)
    (case,) = find_dataset(tmp_path).cases
    with caplog.at_level(logging.WARNING):
        array = read_reference(case, read_images(case, ("image",)), [Label(1, "lesion"), Label(2, "zygote")]).array
    assert np.bincount(array.ravel()).tolist() == [12, 1, 47]
    assert "1 voxels are marked more than once; the smaller structure is used" in caplog.text


def test_masks_that_are_none_or_lie_elsewhere_are_refused_by_name(tmp_path: Path) -> None:
    organs(tmp_path, "a", "liver", "spleen")
    (case,) = find_dataset(tmp_path).cases
    picture, labels = read_images(case, ("image",)), [Label(1, "liver"), Label(2, "spleen")]
    spleen = tmp_path / "a" / "segmentations" / "spleen.nii.gz"
    mask(spleen, 1, 2, 4)
    with pytest.raises(DataError, match=r"spleen\.nii\.gz is not a mask of one structure: it holds the values 1, 2, 4"):
        read_reference(case, picture, labels)
    assert read_reference(case, picture, labels[:1]).array.max() == 1  # what is not wanted is not read
    box(spleen, (0, 0, 0), (1, 1, 1), geometry=Geometry(SHAPE, np.diag([1.0, 1.5, 2.5, 1.0])))
    with pytest.raises(GeometryError, match=r"spleen\.nii\.gz lies on a different grid than the masks beside it"):
        read_reference(case, picture, labels)
    box(spleen, (0, 0, 0), (1, 1, 1), geometry=GRID.reordered(AxisOrder((2, 0, 1), (True, False, False))))
    assert set(np.unique(read_reference(case, picture, labels).array)) == {0, 1, 2}
    with pytest.raises(DataError, match="is named after a label: there are liver, spleen") as caught:
        read_reference(case, picture, [Label(1, "heart")])
    assert "data.segments" in caught.value.hint


def test_a_case_without_image_or_with_a_label_map_beside_its_masks_is_set_aside(tmp_path: Path) -> None:
    for case in ("a", "b", "c", "d"):
        organs(tmp_path, case, "liver", "spleen")
    (tmp_path / "b" / "ct.nii.gz").unlink()
    mask(tmp_path / "c" / "seg.nii.gz", 1, 2)
    image(tmp_path / "e" / "ct.nii.gz")
    dataset = find_dataset(tmp_path)
    assert ids(dataset) == ["a", "d"]
    said = reasons(dataset, tmp_path)
    assert said["b/segmentations/liver.nii.gz"] == "a label without an image in case b"
    assert said["c/seg.nii.gz"] == f"case c has 2 references: {KEEP_ONE}"
    assert said["e/ct.nii.gz"] == "it is not in a folder with a mask per structure"
    assert all_accounted(dataset, tmp_path)


def test_one_label_map_per_image_is_no_mask_per_organ(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        image(tmp_path / "site" / f"{name}.nii.gz")
        mask(tmp_path / "site" / "labels" / f"{name}.nii.gz", 1, 2)
        image(tmp_path / "other" / "scans" / f"{name}.nii.gz")
        mask(tmp_path / "other" / "masks" / f"{name}.nii.gz", 1, 2)
    with pytest.raises(DataError, match="holds no labelled case"):
        find_dataset(tmp_path)


def test_several_channels_of_a_case_with_masks(tmp_path: Path) -> None:
    for case in ("a", "b"):
        organs(tmp_path, case, "prostate", "lesion")
        (tmp_path / case / "ct.nii.gz").unlink()
        for channel in ("t2", "adc"):
            image(tmp_path / case / f"{case}_{channel}.nii.gz")
    dataset = find_dataset(tmp_path)
    assert dataset.channels == ("adc", "t2")
    assert ids(dataset) == ["a", "b"]
    assert ids(find_inputs(tmp_path, ("t2", "adc"))) == ["a", "b"]


# Side by side


@pytest.mark.parametrize("ending", ["_seg", "-label", "_mask", "_segmentation", ".labels", "_gt", "_seg_manual"])
def test_references_beside_their_images(ending: str, tmp_path: Path) -> None:
    for name in ("p1", "p2", "p10"):
        image(tmp_path / f"{name}.nii.gz")
        mask(tmp_path / f"{name}{ending}.nrrd", 1)
    dataset = find_dataset(tmp_path)
    assert dataset.layout == "images and references side by side"
    assert pairs(dataset, tmp_path) == {
        name: (f"{name}.nii.gz", f"{name}{ending}.nrrd") for name in ("p1", "p2", "p10")
    }
    assert dataset.remarks == ()
    assert ids(find_inputs(tmp_path, ("image",))) == ["p1", "p10", "p2"]
    found = find_references(tmp_path)
    assert {name: source.place.name for name, source in found.items()} == {
        name: f"{name}{ending}.nrrd" for name in ("p1", "p2", "p10")
    }


def test_a_label_map_of_slicer_beside_its_image(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        image(tmp_path / f"{name}.nrrd")
        mask(tmp_path / "made.nrrd", 1).rename(tmp_path / f"{name}.seg.nrrd")
    assert pairs(find_dataset(tmp_path), tmp_path) == {
        name: (f"{name}.nrrd", f"{name}.seg.nrrd") for name in ("p1", "p2")
    }
    assert [case.images["image"].place.name for case in find_inputs(tmp_path, ("image",)).cases] == [
        "p1.nrrd",
        "p2.nrrd",
    ]
    assert sorted(find_references(tmp_path)) == ["p1", "p2"]


def test_several_channels_side_by_side(tmp_path: Path) -> None:
    for case in ("site_a/p1", "site_a/p2", "site_b/p1"):
        for channel in ("t1", "t2"):
            image(tmp_path / f"{case}_{channel}.nii.gz")
        mask(tmp_path / f"{case}_seg.nii.gz", 1)
    dataset = find_dataset(tmp_path)
    assert dataset.channels == ("t1", "t2")
    assert ids(dataset) == ["site_a_p1", "site_a_p2", "site_b_p1"]
    for case in dataset.cases:
        assert {source.place.parent for source in case.images.values()} == {
            case.reference and case.reference.place.parent
        }
    assert sorted(find_references(tmp_path)) == ids(dataset)


def test_of_images_side_by_side_only_what_is_clear_is_used(tmp_path: Path) -> None:
    for name in ("p1", "p2", "p3", "p4_ct", "p3_b"):
        image(tmp_path / f"{name}.nii.gz")
    for name in ("p1", "p2", "p3", "p4", "p5"):
        mask(tmp_path / f"{name}_seg.nii.gz", 1)
    mask(tmp_path / "p2_mask.nii.gz", 1)
    dataset = find_dataset(tmp_path)
    assert ids(dataset) == ["p1", "p3"]
    said = reasons(dataset, tmp_path)
    assert "2 references are named p2" in said["p2_mask.nii.gz"] == said["p2.nii.gz"] == said["p2_seg.nii.gz"]
    assert said["p3_b.nii.gz"] == "an image without a label: no p3_b_seg.nii.gz beside it"
    assert said["p4_seg.nii.gz"] == "a label without an image: no p4 beside it"
    assert all_accounted(dataset, tmp_path)


def test_what_all_images_are_called_beside_their_reference_is_said(tmp_path: Path) -> None:
    for name in ("p1", "p2", "p3", "p3_b"):
        image(tmp_path / f"{name}_ct.nii.gz")
    for name in ("p1", "p2", "p3"):
        mask(tmp_path / f"{name}_seg.nii.gz", 1)
    dataset = find_dataset(tmp_path)
    assert pairs(dataset, tmp_path) == {
        f"{name}_ct": (f"{name}_ct.nii.gz", f"{name}_seg.nii.gz") for name in ("p1", "p2")
    }
    assert dataset.remarks == (
        "2 images are paired with a reference of another name: p1_ct with p1_seg, p2_ct with p2_seg",
    )
    assert "the images of p3 are p3_b_ct, p3_ct" in reasons(dataset, tmp_path)["p3_ct.nii.gz"]
    assert all_accounted(dataset, tmp_path)
    assert ids(find_inputs(tmp_path, ("image",))) == ["p1_ct", "p2_ct", "p3_b_ct", "p3_ct"]


def test_an_odd_pair_beside_case_folders_does_not_rename_them(tmp_path: Path) -> None:
    for case in ("anna", "ben"):
        image(tmp_path / case / f"{case}_t1.nii.gz")
        mask(tmp_path / case / f"{case}_seg.nii.gz", 1)
    image(tmp_path / "atlas.nii.gz")
    mask(tmp_path / "atlas_seg.nii.gz", 1)
    dataset = find_dataset(tmp_path)
    assert dataset.layout == "one folder per case"
    assert ids(dataset) == ["anna", "ben"]


# A folder of images and one of references


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("Images", "Labels"),
        ("IMAGES", "MASKS"),
        ("img", "seg"),
        ("imgs", "gt"),
        ("scans", "Segmentations"),
        ("CT", "annotations"),
        ("raw", "ground truth"),
        ("volumes", "ground-truth"),
        ("imagesTr", "labelsTr"),
    ],
)
def test_folders_of_images_and_references_by_any_usual_name(images: str, labels: str, tmp_path: Path) -> None:
    for name in ("b", "a"):
        image(tmp_path / images / f"{name}.nii.gz")
        mask(tmp_path / labels / f"{name}.nii.gz", 1)
    dataset = find_dataset(tmp_path)
    assert pairs(dataset, tmp_path) == {
        name: (f"{images}/{name}.nii.gz", f"{labels}/{name}.nii.gz") for name in ("a", "b")
    }
    assert ids(find_inputs(tmp_path, ("image",))) == ["a", "b"]
    assert {name: source.place.parent.name for name, source in find_references(tmp_path).items()} == dict.fromkeys(
        ("a", "b"), labels
    )


def test_folders_that_may_be_channels_are_not_chosen_between(tmp_path: Path) -> None:
    for folder in ("ct", "mr", "seg"):
        image(tmp_path / folder / "a.nii.gz")
    with pytest.raises(DataError, match="holds no labelled case"):
        find_dataset(tmp_path)


PAIRS: Mapping[str, tuple[list[str], list[str], dict[str, str]]] = {
    "the reference says so": (["p1", "p2"], ["p1_seg", "p2_seg"], {"p1": "p1_seg", "p2": "p2_seg"}),
    "both say what they are": (["p1_ct", "p2_ct"], ["p1_seg", "p2_seg"], {"p1_ct": "p1_seg", "p2_ct": "p2_seg"}),
    "the image is longer": (["p1_ct", "p2_ct"], ["p1", "p2"], {"p1_ct": "p1", "p2_ct": "p2"}),
    "numbers are no endings": (["p1", "p1_2"], ["p1_seg", "p1_2_seg"], {"p1": "p1_seg", "p1_2": "p1_2_seg"}),
    "a number is that of a case": (
        ["s_0000", "s_0001"],
        ["s_0000-label", "s_0001-label"],
        {"s_0000": "s_0000-label", "s_0001": "s_0001-label"},
    ),
    "channel 0": (["s_0000", "t_0000"], ["s_mask", "t_mask"], {"s": "s_mask", "t": "t_mask"}),
    "an image without a label": (["p1", "p2"], ["p1_seg"], {"p1": "p1_seg"}),
    "another patient's name is longer": (["p1", "p2_b"], ["p1", "p2"], {"p1": "p1"}),
    "an exact name comes first": (["p1", "p2"], ["p1", "p2", "p2_seg"], {"p1": "p1", "p2": "p2"}),
    "two references": (["p1", "p2"], ["p1_seg", "p2_seg", "p2_mask"], {"p1": "p1_seg"}),
    "two images": (["p1_ct", "p2_ct", "p2_mr"], ["p1_seg", "p2_seg"], {"p1_ct": "p1_seg"}),
}


@pytest.mark.parametrize(("images", "labels", "expected"), PAIRS.values(), ids=PAIRS)
def test_names_that_differ_by_what_they_are(
    images: list[str], labels: list[str], expected: Mapping[str, str], tmp_path: Path
) -> None:
    for name in images:
        image(tmp_path / "images" / f"{name}.nii.gz")
    for name in labels:
        mask(tmp_path / "labels" / f"{name}.nii.gz", 1)
    dataset = find_dataset(tmp_path)
    assert {
        case.case_id: case.reference.place.name.removesuffix(".nii.gz") for case in dataset.cases if case.reference
    } == expected
    assert all_accounted(dataset, tmp_path)
    assert bool(dataset.remarks) is any("ct" in name for name in expected)


# Numbers: of channels or of cases

NUMBERS: Mapping[str, tuple[list[str], list[str]]] = {
    "cases from 0": (["p_0000", "p_0001", "p_0002"], ["p_0000", "p_0001", "p_0002"]),
    "cases with a gap": (["p_0000", "p_0007"], ["p_0000", "p_0007"]),
    "cases from 1": (["p_0001", "p_0002"], ["p_0001", "p_0002"]),
    "cases of two kinds": (["p_0000", "p_0001", "q_0000"], ["p_0000", "p_0001", "q_0000"]),
    "the one channel": (["p_0000", "q_0000"], ["p", "q"]),
    "two channels": (["p_0000", "p_0001", "q_0000", "q_0001"], []),
}


@pytest.mark.parametrize(("names", "expected"), NUMBERS.values(), ids=NUMBERS)
def test_numbers_for_a_model_of_one_channel(names: list[str], expected: list[str], tmp_path: Path) -> None:
    for name in names:
        image(tmp_path / f"{name}.nii.gz")
    dataset = find_inputs(tmp_path, ("image",))
    assert ids(dataset) == expected
    assert bool(dataset.remarks) is (expected == names and "p_0000" in names)
    assert all_accounted(dataset, tmp_path)
    if not expected:
        assert all("numbered like 2 channels, the model has 1; if" in item.reason for item in dataset.set_aside)


def test_numbers_for_a_model_of_two_channels_are_channels(tmp_path: Path) -> None:
    for name in ("p_0000", "p_0001", "q_0000"):
        image(tmp_path / f"{name}.nii.gz")
    dataset = find_inputs(tmp_path, ("t1", "t2"))
    assert ids(dataset) == ["p"]
    assert "needs channel t2" in reasons(dataset, tmp_path)["q_0000.nii.gz"]


def test_several_cases_of_several_channels_in_a_folder(tmp_path: Path) -> None:
    for name in ("p1_t1", "p1_t2", "p2_t1", "p2_t2", "p3_t2"):
        image(tmp_path / "clinic" / f"{name}.nii.gz")
    dataset = find_inputs(tmp_path, ("t1", "t2"))
    assert pairs(dataset, tmp_path) == {
        f"clinic_{case}": (f"clinic/{case}_t1.nii.gz", f"clinic/{case}_t2.nii.gz") for case in ("p1", "p2")
    }
    assert "needs channel t1" in reasons(dataset, tmp_path)["clinic/p3_t2.nii.gz"]


def test_files_numbered_otherwise_than_dataset_json_says_are_refused(tmp_path: Path) -> None:
    for name in ("p_0000", "p_0001"):
        image(tmp_path / "imagesTr" / f"{name}.nii.gz")
    mask(tmp_path / "labelsTr" / "p.nii.gz", 1)
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": {"a": 1}}))
    with pytest.raises(DataError, match=r"numbered as 2 channels, dataset\.json states 1") as caught:
        find_dataset(tmp_path)
    assert "channel_names" in caught.value.hint


# Lists of MONAI


def datalist(path: Path, **content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def scans(root: Path, *cases: str, channels: tuple[str, ...] = ("t1", "t2")) -> list[dict[str, object]]:
    """Write images and references of cases, and say where they are."""
    for case in cases:
        for channel in channels:
            image(root / "scans" / case / f"{case}_{channel}.nii.gz")
        mask(root / "marks" / f"{case}.nii.gz", 1)
    return [
        {"image": [f"scans/{case}/{case}_{channel}.nii.gz" for channel in channels], "label": f"marks/{case}.nii.gz"}
        for case in cases
    ]


@pytest.mark.parametrize("name", ["dataset.json", "folds.json"])
def test_a_list_with_a_file_per_channel(name: str, tmp_path: Path) -> None:
    entries = scans(tmp_path, "b", "a")
    path = datalist(tmp_path / name, training=entries, testing=["scans/c.nii.gz"], labels={"0": "background", "1": "x"})
    shown = tmp_path if name == "dataset.json" else path
    dataset = find_dataset(shown)
    assert dataset.channels == ("channel_0", "channel_1")
    assert dataset.labels == {"x": 1}
    assert pairs(dataset, tmp_path) == {
        f"{case}_{case}": (f"scans/{case}/{case}_t1.nii.gz", f"scans/{case}/{case}_t2.nii.gz", f"marks/{case}.nii.gz")
        for case in ("a", "b")
    }
    assert dataset.splits == ()
    assert sorted(find_references(shown)) == ["a_a", "b_b"]


def test_what_a_list_says_is_segmented(tmp_path: Path) -> None:
    entries = scans(tmp_path, "a", "b")
    path = datalist(tmp_path / "list.json", training=entries)
    dataset = find_inputs(path, ("t1", "t2"))
    assert pairs(dataset, tmp_path) == {
        f"{case}_{case}": (f"scans/{case}/{case}_t1.nii.gz", f"scans/{case}/{case}_t2.nii.gz") for case in ("a", "b")
    }
    image(tmp_path / "new" / "c_t1.nii.gz")
    image(tmp_path / "new" / "c_t2.nii.gz")
    datalist(path, training=entries, testing=[{"image": ["new/c_t1.nii.gz", "new/c_t2.nii.gz"]}])
    assert ids(find_inputs(path, ("t1", "t2"))) == ["new_c"]
    with pytest.raises(DataError, match="has channels channel_0, channel_1, the model needs t1"):
        find_inputs(path, ("t1",))
    datalist(path, training=entries, test=["new/c_t1.nii.gz", "gone.nii.gz"])
    single = find_inputs(path, ("t1",))
    assert ids(single) == ["new_c_t1"]
    assert "gone.nii.gz does not exist" in single.set_aside[0].reason


def test_a_list_may_state_the_split(tmp_path: Path) -> None:
    entries = scans(tmp_path, "a", "b", "c", "d", channels=("ct",))
    path = datalist(tmp_path / "list.json", training=entries[:3], validation=entries[3:])
    dataset = find_dataset(path)
    assert ids(dataset) == ["a_a_ct", "b_b_ct", "c_c_ct", "d_d_ct"]
    assert dataset.splits == (Split(("a_a_ct", "b_b_ct", "c_c_ct"), ("d_d_ct",)),)
    assert "training.split=dealt" in dataset.remarks[0]

    datalist(path, training=[{**entry, "fold": number % 2} for number, entry in enumerate(entries)])
    dataset = find_dataset(path)
    assert [split.val for split in dataset.splits] == [("a_a_ct", "c_c_ct"), ("b_b_ct", "d_d_ct")]
    everything = [case.case_id for case in dataset.cases]
    assert choose_splits(everything, dataset.splits, TrainingConfig()) == dataset.splits
    for other in (TrainingConfig(split="dealt"), TrainingConfig(holdout=0.5)):
        dealt = make_splits(everything, other.folds, other.holdout, other.seed)
        assert choose_splits(everything, dataset.splits, other) == dealt

    datalist(path, training=[*({**entry, "fold": 0} for entry in entries[:2]), *entries[2:]])
    dataset = find_dataset(path)
    assert dataset.splits == ()
    assert "some entries state a 'fold'" in dataset.remarks[0]


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_lists_go_by_any_of_their_usual_names(validation: str, tmp_path: Path) -> None:
    entries = scans(tmp_path, "a", "b", "c", "d", channels=("ct",))
    image(tmp_path / "new.nii.gz")
    lists = {"train": entries[:2], "training": entries[2:3], validation: entries[3:], "test": ["new.nii.gz"]}
    path = datalist(tmp_path / "list.json", **lists)
    dataset = find_dataset(path)
    assert dataset.splits == (Split(("a_a_ct", "b_b_ct", "c_c_ct"), ("d_d_ct",)),)
    assert [(item.path.name, item.reason) for item in dataset.set_aside] == [("new.nii.gz", "an image for testing")]
    assert ids(find_inputs(path, ("ct",))) == ["new"]


def test_cases_in_a_list_of_another_name_do_not_vanish(tmp_path: Path) -> None:
    entries = scans(tmp_path, "a", "b", "c", channels=("ct",))
    more = {
        "holdout": entries[2:],
        "unseen": ["new.nii.gz"],
        "tags": ["ct", "abdomen"],
        "val": 0.2,
        "license": {"a": 1},
    }
    path = datalist(tmp_path / "list.json", training=entries[:2], **more)
    for dataset in (find_dataset(path), find_inputs(path, ("ct",))):
        assert ids(dataset) == ["a_a_ct", "b_b_ct"]
        said = reasons(dataset, tmp_path)
        assert set(said) == {"scans/c/c_ct.nii.gz", "new.nii.gz"}
        assert "listed under 'holdout' in list.json; name that list training, " in said["scans/c/c_ct.nii.gz"]


def test_files_that_nnunet_lists_by_case_are_its_cases(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        image(tmp_path / "imagesTr" / f"{name}_0000.nii.gz")
        mask(tmp_path / "labelsTr" / f"{name}.nii.gz", 1)
    far = image(tmp_path / "far" / "x.nii.gz")
    listed = {
        "a": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"},
        "far_1": {"images": [str(far)], "label": "labelsTr/b.nii.gz"},
        "no_label": {"images": ["imagesTr/b_0000.nii.gz"]},
        "nothing": None,
    }
    datalist(tmp_path / "dataset.json", channel_names={"0": "CT"}, labels={"background": 0, "x": 1}, dataset=listed)
    dataset = find_dataset(tmp_path)
    assert pairs(dataset, tmp_path) == {
        "a": ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"),
        "far_1": ("far/x.nii.gz", "labelsTr/b.nii.gz"),
    }
    said = reasons(dataset, tmp_path)
    assert "not listed in dataset.json" in said["imagesTr/c_0000.nii.gz"]
    assert "has no 'label'" in said["imagesTr/b_0000.nii.gz"]
    assert "has no 'image'" in said["dataset.json"]
    # A description of the data set under that key is no list.
    datalist(tmp_path / "dataset.json", labels={"background": 0, "x": 1}, dataset={"name": "liver"})
    assert ids(find_dataset(tmp_path)) == ["a", "b", "c"]


def test_names_in_a_dataset_json_belong_to_any_folders_of_images_and_labels(tmp_path: Path) -> None:
    for name in ("a", "b"):
        image(tmp_path / "images" / f"{name}.nii.gz")
        mask(tmp_path / "labels" / f"{name}.nii.gz", 1)
    datalist(tmp_path / "dataset.json", channel_names={"0": "CT"}, labels={"background": 0, "liver": 1})
    dataset = find_dataset(tmp_path)
    assert (ids(dataset), dataset.channels, dataset.labels) == (["a", "b"], ("ct",), {"liver": 1})
    assert ids(find_inputs(tmp_path, ("ct",))) == ["a", "b"]


def test_entries_that_cannot_be_used_do_not_stop_the_others(tmp_path: Path) -> None:
    good, short, unlabelled, gone, twice = scans(tmp_path, "good", "short", "unlabelled", "gone", "other")
    short["image"] = "scans/short/short_t1.nii.gz"
    del unlabelled["label"]
    gone["label"] = "marks/nowhere.nii.gz"
    missing = {"image": ["scans/no_t1.nii.gz", "scans/no_t2.nii.gz"], "label": "marks/good.nii.gz"}
    odd = [3, {"label": "x"}, {"image": []}, {"image": "scans/a.nii.gz", "label": ["a", "b"]}]
    path = datalist(
        tmp_path / "list.json", training=[good, short, unlabelled, gone, missing, twice, *odd], validation=[twice]
    )
    dataset = find_dataset(path)
    assert ids(dataset) == ["good_good", "other_other"]
    said = reasons(dataset, tmp_path)
    assert "it lists 1 files, most cases list 2" in said["scans/short/short_t1.nii.gz"]
    assert "its entry has no 'label'" in said["scans/unlabelled/unlabelled_t2.nii.gz"]
    assert "its reference nowhere.nii.gz does not exist" in said["scans/gone/gone_t1.nii.gz"]
    assert "no_t1.nii.gz does not exist" in said["scans/no_t1.nii.gz"]
    about_the_list = [item.reason for item in dataset.set_aside if item.path == path]
    assert [reason.split(" ")[1] for reason in about_the_list if reason.startswith("entry")] == ["7", "8", "9", "10"]
    assert any("is listed twice" in reason for reason in about_the_list)


def test_paths_of_a_list_are_absolute_or_relative_to_it(tmp_path: Path) -> None:
    (entry,) = scans(tmp_path / "far" / "imagesTr", "x", channels=("ct",))
    entry = {
        "image": str(tmp_path / "far" / "imagesTr" / "scans" / "x" / "x_ct.nii.gz"),
        "label": str(tmp_path / "far" / "imagesTr" / "marks" / "x.nii.gz"),
    }
    near = image(tmp_path / "lists" / "sub" / "y.nii.gz")
    mask(tmp_path / "y_seg.nii.gz", 1)
    windows = {"image": "sub\\y.nii.gz", "label": "..\\y_seg.nii.gz"}
    dataset = find_dataset(datalist(tmp_path / "lists" / "list.json", training=[entry, windows]))
    assert ids(dataset) == ["sub_y", "x_x_ct"]
    assert dataset.cases[0].images["image"].place == near


@pytest.mark.parametrize("content", [{}, {"training": []}, {"training": ["a", "b"]}, {"training": {"image": "a"}}])
def test_a_json_that_lists_no_cases_is_refused_by_name(content: dict[str, object], tmp_path: Path) -> None:
    path = datalist(tmp_path / "some.json", **content)
    with pytest.raises(DataError, match=r"some\.json lists no cases"):
        find_dataset(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_is_read_in_any_unicode_encoding(encoding: str, tmp_path: Path) -> None:
    image(tmp_path / "imagesTr" / "p.nii.gz")
    mask(tmp_path / "labelsTr" / "p.nii.gz", 1)
    (tmp_path / "dataset.json").write_bytes('{"labels": {"Großhirn": 1}}'.encode(encoding))
    assert find_dataset(tmp_path).labels == {"Großhirn": 1}


@pytest.mark.parametrize(
    "content",
    ['{"labels": {"Größe": 1}}'.encode("latin-1"), b'{"labels": {"a": 1},}', b"", b"null", b'["a"]', b"\xff\xfe\x00"],
)
def test_a_dataset_json_that_is_none_is_refused_with_the_form_it_has(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "labelsTr").mkdir()
    (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(DataError, match=r"dataset\.json is not a JSON object: ") as caught:
        find_dataset(tmp_path)
    assert '"labels": {"background": 0, "liver": 1}' in caught.value.hint
    assert "codec" not in str(caught.value)


def test_training_holds_out_what_the_list_says(tmp_path: Path) -> None:
    source = tmp_path / "data"
    entries = []
    for seed in range(4):
        scan, marks = make_case(seed)
        write_volume(scan, source / f"c{seed}.nii.gz")
        write_mask(marks, source / f"c{seed}_seg.nii.gz")
        entries.append({"image": f"c{seed}.nii.gz", "label": f"c{seed}_seg.nii.gz"})
    path = datalist(source / "list.json", training=entries[1:], validation=entries[:1])
    config = merge(TINY, {"training": {"epochs": 1, "steps_per_epoch": 1, "fold": "all"}})
    run = train_folder(path, tmp_path / "run", config)
    assert run.splits == (Split(("c1", "c2", "c3"), ("c0",)),)
    assert run.validation.case_ids == ("c0",)

    damaged = source / "c2.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-200])
    run = train_folder(path, tmp_path / "without", config)
    assert run.splits == (Split(("c1", "c3"), ("c0",)),)
    assert read_splits(tmp_path / "without" / "splits.json") == run.splits, "it says which cases taught"


# BIDS


def bids(root: Path, *subjects: str, suffixes: tuple[str, ...] = ("T1w",)) -> None:
    """A data set whose subjects may have sessions ("01/ses-a")."""
    (root / "derivatives").mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text("{}")
    for subject in subjects:
        for suffix in suffixes:
            image(root / bids_path(subject, suffix))


def bids_path(subject: str, suffix: str, pipeline: str = "") -> Path:
    folders = f"sub-{subject}".split("/")
    return Path(pipeline, *folders, "anat", f"{'_'.join([*folders, suffix])}.nii.gz")


def test_bids(tmp_path: Path) -> None:
    bids(tmp_path, "01", "02/ses-a", "02/ses-b", suffixes=("T1w", "FLAIR"))
    for subject in ("01", "02/ses-a", "02/ses-b"):
        mask(tmp_path / bids_path(subject, "space-orig_desc-hand_dseg", "derivatives/manual"), 1, 2)
        mask(tmp_path / bids_path(subject, "space-MNI152NLin6Asym_dseg", "derivatives/manual"), 1, 2)
        mask(tmp_path / bids_path(subject, "desc-brain_mask", "derivatives/manual"), 1)
        image(tmp_path / bids_path(subject, "label-GM_probseg", "derivatives/manual"))
        image(tmp_path / bids_path(subject, "desc-preproc_T1w", "derivatives/prep"))
    image(tmp_path / "sub-01" / "func" / "sub-01_task-rest_bold.nii.gz")
    (tmp_path / "derivatives" / "manual" / "dseg.tsv").write_text("index\tname\n0\tbackground\n2\tcyst\n1\tpons\n")
    dataset = find_dataset(tmp_path)
    assert dataset.layout == "BIDS"
    assert dataset.channels == ("FLAIR", "T1w")
    assert dataset.labels == {"pons": 1, "cyst": 2}
    assert ids(dataset) == ["sub-01_anat", "sub-02_ses-a_anat", "sub-02_ses-b_anat"]
    for case in dataset.cases:
        places = [source.place for source in (*case.images.values(), *([case.reference] if case.reference else []))]
        assert (
            len({tuple(part for part in path.name.split("_") if part[:4] in ("sub-", "ses-")) for path in places}) == 1
        )
        assert places[-1].name.endswith("desc-hand_dseg.nii.gz")
    said = reasons(dataset, tmp_path)
    assert (
        "in the space MNI152NLin6Asym" in said[str(bids_path("01", "space-MNI152NLin6Asym_dseg", "derivatives/manual"))]
    )
    assert said[str(bids_path("01", "label-GM_probseg", "derivatives/manual"))] == "probabilities, not a label map"
    assert all_accounted(dataset, tmp_path)

    segmented = find_inputs(tmp_path, ("T1w", "FLAIR"))
    assert ids(segmented) == ids(dataset)
    assert all_accounted(segmented, tmp_path)
    assert sorted(find_references(tmp_path)) == ids(dataset)
    one = find_inputs(tmp_path, ("image",))
    assert len(one.cases) == 6
    assert all(
        case.images["image"].place.is_relative_to(tmp_path / f"sub-0{n}") for case in one.cases for n in case.case_id[5]
    )


def test_cases_of_bids_are_called_alike_in_training_and_prediction(tmp_path: Path) -> None:
    bids(tmp_path, "01")
    for run in ("run-1", "run-2"):
        image(tmp_path / bids_path("02", f"{run}_T1w"))
        mask(tmp_path / bids_path("02", f"{run}_T1w_seg", "derivatives/labels"), 1)
    mask(tmp_path / bids_path("01", "T1w_seg", "derivatives/labels"), 1)
    dataset = find_dataset(tmp_path)
    assert dataset.channels == ("T1w",)
    assert ids(dataset) == ["sub-01_anat_sub-01_T1w", "sub-02_anat_sub-02_run-1_T1w", "sub-02_anat_sub-02_run-2_T1w"]
    assert ids(find_inputs(tmp_path, ("T1w",))) == ids(dataset)


def test_kinds_of_label_maps_that_compete_are_listed(tmp_path: Path) -> None:
    bids(tmp_path, "01", "02")
    for subject in ("01", "02"):
        mask(tmp_path / bids_path(subject, "desc-aseg_dseg", "derivatives/freesurfer"), 1)
        mask(tmp_path / bids_path(subject, "dseg", "derivatives/manual"), 1)
    with pytest.raises(DataError, match="it is not stated which to use") as caught:
        find_dataset(tmp_path)
    assert "derivatives/freesurfer/*_desc-aseg_dseg (2); derivatives/manual/*_dseg (2)" in str(caught.value)
    assert "case_id,image,reference" in caught.value.hint


def test_masks_of_structures_in_bids(tmp_path: Path) -> None:
    bids(tmp_path, "01", "02")
    for subject in ("01", "02"):
        for structure in ("spleen", "lesion"):
            mask(tmp_path / bids_path(subject, f"label-{structure}_mask", "derivatives/x"), 1)
    (tmp_path / bids_path("02", "label-lesion_mask", "derivatives/x")).unlink()
    dataset = find_dataset(tmp_path)
    assert dataset.labels == {"lesion": 1, "spleen": 2}
    assert [case.annotated for case in dataset.cases] == [None, {"spleen"}]
    assert all_accounted(dataset, tmp_path)


def test_what_of_bids_is_unclear_is_set_aside(tmp_path: Path) -> None:
    bids(tmp_path, "01", "02", "03", "04", "06")
    image(tmp_path / bids_path("02", "acq-hires_T1w"))
    image(tmp_path / bids_path("03", "T2w"))
    (tmp_path / bids_path("03", "T1w")).unlink()
    for subject in ("01", "02", "03", "05", "06"):
        mask(tmp_path / bids_path(subject, "dseg", "derivatives"), 1)
    dataset = find_dataset(tmp_path)
    assert ids(dataset) == ["sub-01_anat_sub-01_T1w", "sub-06_anat_sub-06_T1w"]
    said = reasons(dataset, tmp_path)
    assert "several images share its entities" in said["derivatives/sub-02/anat/sub-02_dseg.nii.gz"]
    assert "T1w is missing, which most cases have" in said["derivatives/sub-03/anat/sub-03_dseg.nii.gz"]
    assert "a label without an image" in said["derivatives/sub-05/anat/sub-05_dseg.nii.gz"]
    assert "an image without a label" in said["sub-04/anat/sub-04_T1w.nii.gz"]
    assert all_accounted(dataset, tmp_path)


def test_tables_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    bids(tmp_path, "01", "02")
    for subject, name in (("01", "cyst"), ("02", "pons")):
        path = mask(tmp_path / bids_path(subject, "dseg", "derivatives"), 1)
        path.with_name(path.name.replace(".nii.gz", ".tsv")).write_text(f"index\tname\n1\t{name}\n")
    with pytest.raises(DataError, match="calls the value 1 'pons'"):
        find_dataset(tmp_path)


# Manifests as spreadsheets write them


def listed(root: Path) -> list[list[str]]:
    """Two cases of one image, as rows of a manifest with its head."""
    for case in ("p1", "p2"):
        image(root / "scans" / case / "t1.nii.gz")
        mask(root / "marks" / f"{case}.nii.gz", 1)
    rows = [[case, f"scans/{case}/t1.nii.gz", f"marks/{case}.nii.gz"] for case in ("p1", "p2")]
    return [["case_id", "image", "reference"], *rows]


def table(rows: Sequence[Sequence[str]], separator: str = ",", end: str = "\n") -> str:
    return end.join(separator.join(row) for row in rows) + end


MANIFESTS: Mapping[str, Callable[[list[list[str]], Path], bytes]] = {
    "semicolons": lambda rows, _: table(rows, ";").encode(),
    "tabs": lambda rows, _: table(rows, "\t").encode(),
    "bars": lambda rows, _: table(rows, " | ").encode(),
    "blanks after commas": lambda rows, _: table(rows, ", ").encode(),
    "quotes after blanks": lambda rows, _: table([[f'"{cell}"' for cell in row] for row in rows], ",  ").encode(),
    "what Excel says of itself": lambda rows, _: ("sep=;\r\n" + table(rows, ";", "\r\n")).encode("utf-8-sig"),
    "UTF-16": lambda rows, _: table(rows, "\t").encode("utf-16"),
    "UTF-16 big endian": lambda rows, _: codecs.BOM_UTF16_BE + table(rows).encode("utf-16-be"),
    "UTF-16 without a mark": lambda rows, _: table(rows, end="\r\n").encode("utf-16-le"),
    "line ends of old": lambda rows, _: table(rows, end="\r").encode(),
    "empty lines and cells": lambda rows, _: ("\n" + table(rows, end="\n\n") + ",,\n;\n,,,,\n").encode(),
    "empty columns": lambda rows, _: table([[*row, "", ""] for row in rows]).encode(),
    "backslashes": lambda rows, _: table(rows).replace("/", "\\").encode(),
    "absolute paths": lambda rows, root: table(
        [rows[0], *([row[0], *(str(root / path) for path in row[1:])] for row in rows[1:])]
    ).encode(),
    "upper case": lambda rows, _: table([["CASE ID", "Image", "REFERENCE"], *rows[1:]]).encode(),
    "other words": lambda rows, _: table([["Subject", "image", "Segmentation"], *rows[1:]]).encode(),
    "other words still": lambda rows, _: table(
        [["mask", "patient_id", "image"], *([row[2], *row[:2]] for row in rows[1:])]
    ).encode(),
    "what nobody looked for": lambda rows, _: table(
        [[*rows[0], "annotated"], *([*row, ""] for row in rows[1:])], ";"
    ).encode(),
}


@pytest.mark.parametrize("written", MANIFESTS.values(), ids=MANIFESTS)
def test_manifests_of_any_program(written: Callable[[list[list[str]], Path], bytes], tmp_path: Path) -> None:
    rows = listed(tmp_path)
    path = tmp_path / "cases.csv"
    path.write_bytes(written(rows, tmp_path))
    dataset = find_dataset(path)
    assert dataset.channels == ("image",)
    assert pairs(dataset, tmp_path) == {row[0]: tuple(row[1:]) for row in rows[1:]}
    assert ids(find_inputs(path, ("image",))) == ["p1", "p2"]
    assert sorted(find_references(path)) == ["p1", "p2"]


def test_a_manifest_in_latin_1_finds_its_files(tmp_path: Path) -> None:
    image(tmp_path / "Köpfe" / "a.nii.gz")
    mask(tmp_path / "Köpfe" / "b.nii.gz", 1)
    path = tmp_path / "cases.tsv"
    path.write_bytes("id\timage\tlabel\na\tKöpfe/a.nii.gz\tKöpfe/b.nii.gz\n".encode("latin-1"))
    assert ids(find_dataset(path)) == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case_id,image,label,mask\n", "the columns label, mask may all be the reference"),
        ("patient,subject,image\n", "the columns subject, patient may all be the case_id|the columns patient, subject"),
        ("case_id,image,reference,age\np1,scans/p1/t1.nii.gz,marks/p1.nii.gz,61\n", "no cell of 'age' names a file"),
        ("p1,scans/p1/t1.nii.gz,marks/p1.nii.gz\n", "is not a manifest: its columns are p1, scans"),
    ],
)
def test_a_manifest_that_may_mean_two_things_is_refused(text: str, message: str, tmp_path: Path) -> None:
    listed(tmp_path)
    path = tmp_path / "cases.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        find_dataset(path)
    assert "case_id" in caught.value.hint


def test_rows_are_set_aside_by_their_line_and_stop_no_other(tmp_path: Path) -> None:
    listed(tmp_path)
    good = "scans/p1/t1.nii.gz,marks/p1.nii.gz"
    lines = [
        "case_id,image,reference",
        f"p1,{good}",
        f"twice,{good}",
        f"p 2/../x,{good}",
        f"twice,{good}",
        f",{good}",
        f"more,{good},surplus",
    ]
    path = tmp_path / "cases.csv"
    path.write_text("\n".join(lines))
    dataset = find_dataset(path)
    assert ids(dataset) == ["p1"]
    said = [item.reason for item in dataset.set_aside]
    assert [reason.split(":")[0] for reason in said] == ["line 3", "line 4", "line 5", "line 6", "line 7"]
    assert ["lists case 'twice' twice" in reason for reason in said] == [True, False, True, False, False]
    assert "begin with a letter" in said[1]
    assert "more cells than there are columns: surplus" in said[4]


# Some of the labels


def test_what_no_label_has_may_be_background(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.nii.gz")
    mask(tmp_path / "labels" / "a.nii.gz", 1, 2, 7)
    (case,) = find_dataset(tmp_path).cases
    picture = read_images(case, ("image",))
    with pytest.raises(ConfigError, match="holds label values 1, 7") as caught:
        read_reference(case, picture, [Label(2, "x")])
    assert "data.others=background" in caught.value.hint
    array = read_reference(case, picture, [Label(2, "x"), Label(7, "ignore")], "background").array
    assert array[:, 0, 0].tolist() == [0, 2, 7, 0, 0]
    assert array.flags.c_contiguous


def test_what_nobody_looked_at_is_never_background() -> None:
    dataset = Dataset("any", (), ("image",), {"x": 1, "y": 2, "ignore": 3})
    with pytest.raises(ConfigError, match="of the value 3 are not annotated") as caught:
        check_others(dataset, {"x": 1}, "background")
    assert caught.value.hint == "add ignore: 3 to data.labels"
    check_others(dataset, {"x": 1, "unknown": 3}, "background")
    check_others(dataset, {"x": 1}, "refuse")


@pytest.fixture(scope="module")
def one_label_run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one of the two labels of a data set."""
    run = tmp_path_factory.mktemp("runs") / "boxes"
    tree = merge(TINY, {"data": {"labels": {"box": 2}, "others": "background"}, "training": {"epochs": 1}})
    train_folder(dataset, run, tree)
    return run


def test_some_labels_are_learned_segmented_and_scored(one_label_run: Path, dataset: Path, tmp_path: Path) -> None:
    splits = read_splits(one_label_run / "splits.json")
    assert len(splits[0].train) + len(splits[0].val) == 6
    model = volseg.load(one_label_run)
    assert [label.value for label in model.labels] == [2]
    model.predict_folder(dataset, tmp_path / "masks")
    assert json.loads((tmp_path / "masks" / "labels.json").read_text())["others"] == "background"
    scores = volseg.evaluate(tmp_path / "masks", dataset, tmp_path / "scores")
    assert not scores.failures
    assert set(scores.metrics["label"]) == {"box"}


def test_references_hold_other_values_only_where_the_model_says_so(dataset: Path, tmp_path: Path) -> None:
    _, marks = make_case(0)
    for seed in range(6):
        write_mask(Mask(marks.array * (marks.array == 2), marks.geometry), tmp_path / f"case_{seed}.nii.gz")
    (tmp_path / "labels.json").write_text('[{"value": 2, "name": "box"}]')
    assert len(volseg.evaluate(tmp_path, dataset).failures) == 6
    (tmp_path / "labels.json").write_text('{"labels": [{"value": 2, "name": "box"}], "others": "no"}')
    with pytest.raises(DataError, match="others is 'no'"):
        volseg.evaluate(tmp_path, dataset)


def test_masks_per_structure_are_learned_and_scored_by_name(tmp_path: Path) -> None:
    for seed in range(4):
        scan, marks = make_case(seed)
        folder = tmp_path / "data" / f"s{seed}"
        write_volume(scan, folder / "ct.nii.gz")
        for value, name in ((1, "spleen"), (2, "liver"), (1, "aorta")):
            write_mask(Mask(marks.array * (marks.array == value), marks.geometry), folder / "masks" / f"{name}.nii.gz")
    (tmp_path / "data" / "s2" / "masks" / "spleen.nii.gz").unlink()
    tree = merge(TINY, {"data": {"labels": {"liver": 5, "spleen": 3}}, "training": {"epochs": 1}})
    train_folder(tmp_path / "data", tmp_path / "run", tree)
    volseg.load(tmp_path / "run").predict_folder(tmp_path / "data", tmp_path / "masks")
    scores = volseg.evaluate(tmp_path / "masks", tmp_path / "data")
    assert not scores.failures
    scored = set(zip(scores.metrics["case_id"], scores.metrics["label"], strict=True))
    assert scored == {(f"s{seed}", label) for seed in range(4) for label in ("liver", "spleen")} - {("s2", "spleen")}


def test_masks_per_structure_are_predictions_too(tmp_path: Path) -> None:
    for case in ("s1", "s2"):
        organs(tmp_path / "wanted", case, "liver", "spleen")
        organs(tmp_path / "made", case, "liver", "spleen", folder=".")
        (tmp_path / "made" / case / "ct.nii.gz").unlink()
    box(tmp_path / "made" / "s2" / "spleen.nii.gz", (3, 0, 0), (4, 1, 1))
    metrics = volseg.evaluate(tmp_path / "made", tmp_path / "wanted").metrics
    dice = {(row.case_id, row.label): row.dice for row in metrics.itertuples()}
    assert dice[("s1", "liver")] == dice[("s1", "spleen")] == dice[("s2", "liver")] == 1
    assert dice[("s2", "spleen")] == 0


# What is no labelled data set


def refusal(root: Path) -> tuple[str, str]:
    with pytest.raises(DataError, match="holds no labelled case") as caught:
        find_dataset(root)
    return str(caught.value), caught.value.hint


def test_a_refusal_says_what_is_there_and_what_is_nearest(tmp_path: Path) -> None:
    message, hint = refusal(tmp_path)
    assert "no image files by name" in message
    assert "images/p1.nii.gz and labels/p1.nii.gz" in hint
    image(tmp_path / "brain_a.nii.gz")
    message, hint = refusal(tmp_path)
    assert "1 image files, none of them" in message
    assert "images/brain_a.nii.gz and labels/brain_a.nii.gz" in hint
    mask(tmp_path / "other_seg.nii.gz", 1)
    message, hint = refusal(tmp_path)
    assert "2 image files, 1 of them" in message
    assert "brain_a.nii.gz and brain_a_seg.nii.gz side by side" in hint
    assert "docs/data.md" in hint


def test_a_part_that_is_a_data_set_is_named(tmp_path: Path) -> None:
    for part in ("test", "train"):
        image(tmp_path / part / "images" / "a.nii.gz")
        mask(tmp_path / part / "labels" / "a.nii.gz", 1)
    assert "give test itself" in refusal(tmp_path)[1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mine.csv", "id;image;mask\na;x.nii.gz;y.nii.gz\n"),
        ("mine.json", '{"training": [{"image": "x.nii.gz", "label": "y.nii.gz"}]}'),
    ],
)
def test_a_list_beside_the_images_is_named(name: str, text: str, tmp_path: Path) -> None:
    image(tmp_path / "x.nii.gz")
    mask(tmp_path / "y.nii.gz", 1)
    (tmp_path / name).write_text(text)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "numbers.csv").write_text("a,b\n1,2\n")
    (tmp_path / "validation.csv").write_text("case_id,label,dice\nx,liver,0.9\n")
    assert f"give {name} itself:" in refusal(tmp_path)[1]
    assert len(find_dataset(tmp_path / name).cases) == 1


# Whoever follows a hint gets a data set


def wrapped(root: Path, case: str) -> None:
    image(root / "data" / case / "img.nii.gz")
    mask(root / "data" / case / "seg.nii.gz", 1)
    (root / "__MACOSX").mkdir(exist_ok=True)


def wrapped_twice(root: Path, case: str) -> None:
    wrapped(root / "deep", case)
    shutil.rmtree(root / "deep" / "__MACOSX")


def sites(root: Path, case: str) -> None:
    image(root / f"site_{int(case[1:]) % 2}" / case / "img.nii.gz")
    mask(root / f"site_{int(case[1:]) % 2}" / case / "seg.nii.gz", 1)


def visits(root: Path, case: str) -> None:
    for visit in ("first", "second"):
        image(root / case / visit / "img.nii.gz")
        mask(root / case / visit / "seg.nii.gz", 1)


def structures_in_folders_of_cases(root: Path, case: str) -> None:
    image(root / "images" / f"{case}.nii.gz")
    for name in ("liver", "spleen"):
        mask(root / "labels" / case / f"{name}.nii.gz", 1)


def cases_in_folders_of_structures(root: Path, case: str) -> None:
    image(root / "images" / f"{case}.nrrd")
    for name in ("liver", "spleen"):
        mask(root / "labels" / name / f"{case}.nrrd", 1)


def structures_side_by_side(root: Path, case: str) -> None:
    image(root / f"{case}.nii.gz")
    for name in ("liver", "spleen"):
        mask(root / f"{case}_{name}_seg.nii.gz", 1)


def bids_without_labels(root: Path, case: str) -> None:
    bids(root, case)
    image(root / bids_path(case, "acq-hires_T1w"))
    image(root / bids_path(case, "FLAIR"))


def bids_in_another_space(root: Path, case: str) -> None:
    bids(root, case)
    mask(root / bids_path(case, "space-MNI152NLin6Asym_dseg", "derivatives/seg"), 1)


def images_to_test(root: Path, case: str) -> None:
    image(root / f"{case}.nii.gz")
    (root / "dicom").mkdir(exist_ok=True)


def unknown_endings(root: Path, case: str) -> None:
    image(root / f"{case}.nii.gz")
    mask(root / f"{case}_contour.nii.gz", 1)


def double_endings(root: Path, case: str) -> None:
    image(root / f"{case}.nii.gz")
    mask(root / f"{case}-segmentation-label.nii.gz", 1)


def names_apart(root: Path, case: str) -> None:
    image(root / "Scans" / f"{case}.mha")
    mask(root / "Masks" / f"drawn{case}.nii.gz", 1)


def nnunet_with_names_apart(root: Path, case: str) -> None:
    image(root / "imagesTr" / f"{case}_0000.nii.gz")
    mask(root / "labelsTr" / f"drawn{case}.nii.gz", 1)
    datalist(root / "dataset.json", channel_names={"0": "MR"}, labels={"background": 0, "a": 1})


def folders_without_masks(root: Path, case: str) -> None:
    image(root / case / "ct.nii")


def masks_alone(root: Path, case: str) -> None:
    mask(root / f"{case}_seg.nii.gz", 1)


@pytest.mark.parametrize("made", [wrapped, wrapped_twice, sites, visits])
def test_a_part_that_a_hint_names_is_a_data_set(made: Callable[[Path, str], None], tmp_path: Path) -> None:
    for n in range(4):
        made(tmp_path, f"c{n}")
    hint = refusal(tmp_path)[1]
    part = re.match(r"give (\S+?) itself", hint)
    assert part, hint
    assert len(find_dataset(tmp_path / part[1]).cases) >= 2


@pytest.mark.parametrize(
    "made",
    [
        structures_in_folders_of_cases,
        cases_in_folders_of_structures,
        structures_side_by_side,
        bids_without_labels,
        bids_in_another_space,
        images_to_test,
        unknown_endings,
        double_endings,
        names_apart,
        nnunet_with_names_apart,
        folders_without_masks,
        masks_alone,
    ],
)
def test_a_layout_that_a_hint_names_is_one(made: Callable[[Path, str], None], tmp_path: Path) -> None:
    for n in range(3):
        made(tmp_path / "data", f"c{n}")
    hint = refusal(tmp_path / "data")[1]
    found = re.match(r"the nearest layout is (\S+) and (\S+?)[ ,;]", hint)
    assert found, hint
    scan, reference = (tmp_path / "made" / name for name in found.groups())
    there = [path for path in (tmp_path / "data").rglob("*") if path.name == scan.name]
    assert there or made is masks_alone, "it names a file that is there"
    image(scan)
    mask(reference, 1)
    if "sub-" in scan.name:
        bids(tmp_path / "made")
    assert len(find_dataset(tmp_path / "made").cases) == 1


def test_files_that_are_moved_as_a_hint_says_are_a_data_set(tmp_path: Path) -> None:
    for n in range(2):
        structures_in_folders_of_cases(tmp_path, f"c{n}")
    assert "c0/segmentations/liver.nii.gz" in refusal(tmp_path)[1]
    for n in range(2):
        (tmp_path / f"c{n}").mkdir()
        (tmp_path / "images" / f"c{n}.nii.gz").rename(tmp_path / f"c{n}" / f"c{n}.nii.gz")
        (tmp_path / "labels" / f"c{n}").rename(tmp_path / f"c{n}" / "segmentations")
    assert ids(find_dataset(tmp_path)) == ["c0", "c1"]


def test_bids_without_anatomy_is_refused_like_any_other(tmp_path: Path) -> None:
    bids(tmp_path)
    image(tmp_path / "sub-01" / "func" / "sub-01_task-rest_bold.nii.gz")
    assert "the nearest layout" in refusal(tmp_path)[1]


def test_a_folder_of_results_is_no_case(trained_run: Path) -> None:
    message, hint = refusal(trained_run)
    assert "no image files by name" in message
    assert "itself" not in hint
    assert "images/p1.nii.gz and labels/p1.nii.gz" in hint


def test_folders_of_series_without_references_are_cases(tmp_path: Path) -> None:
    for n in range(2):
        write_series(make_case(n)[0], tmp_path / f"c{n}" / "series")
    assert "c0/ with the images of a case and c0/seg.nii.gz" in refusal(tmp_path)[1]
    mask(tmp_path / "c0" / "seg.nii.gz", 1)
    assert ids(find_dataset(tmp_path)) == ["c0"]


def test_masks_per_structure_are_pointed_to_their_layout(tmp_path: Path) -> None:
    for made in (structures_in_folders_of_cases, cases_in_folders_of_structures, structures_side_by_side):
        for case in ("c0", "c1"):
            made(tmp_path / made.__name__, case)
        message, hint = refusal(tmp_path / made.__name__)
        assert "c0/segmentations/liver." in hint
        assert "6 image files, 4 of them" in message


@pytest.mark.parametrize("keys", [("t1", "label"), ("img", "mask"), ("Image", "Label"), ("image", "mask")])
def test_a_list_with_other_keys_says_which_it_needs(keys: tuple[str, str], tmp_path: Path) -> None:
    (entry,) = scans(tmp_path, "a", channels=("ct",))
    entry = {"image": "scans/a/a_ct.nii.gz", "label": entry["label"]}
    wrong = {keys[0]: entry["image"], keys[1]: entry["label"]}
    path = datalist(tmp_path / "dataset.json", training=[wrong])
    for given_path in (tmp_path, path):
        _, hint = refusal(given_path)
        assert "itself" not in hint
        assert "needs the keys image and label" in hint
    datalist(path, cases=[entry])
    for given_path in (tmp_path, path):
        with pytest.raises(DataError) as caught:
            find_dataset(given_path)
        assert "needs the keys image and label" in caught.value.hint
    datalist(path, training=[entry])
    assert len(find_dataset(tmp_path).cases) == 1


def test_of_two_references_one_is_to_be_kept(tmp_path: Path) -> None:
    for n in range(2):
        image(tmp_path / f"c{n}" / "ct.nii.gz")
        for name in ("seg", "mask"):
            mask(tmp_path / f"c{n}" / f"{name}.nii.gz", 1)
    message, hint = refusal(tmp_path)
    assert "case c0 has 2 references: keep one" in message
    assert "keep one reference of each case" in hint
    (tmp_path / "c0" / "mask.nii.gz").unlink()
    assert ids(find_dataset(tmp_path)) == ["c0"]


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    organs(tmp_path / "packed", "s1", "liver", "spleen")
    (tmp_path / "data").mkdir()
    shutil.make_archive(str(tmp_path / "data" / "all"), "zip", tmp_path / "packed")
    message, hint = refusal(tmp_path / "data")
    assert "only DICOM is read from an archive" in message
    assert hint.startswith("unpack all.zip")
    shutil.unpack_archive(tmp_path / "data" / "all.zip", tmp_path / "data" / "all")
    assert len(find_dataset(tmp_path / "data" / "all").cases) == 1


def test_a_label_map_that_is_called_a_mask_of_one_structure_is_to_be_renamed(tmp_path: Path) -> None:
    bids(tmp_path, "01")
    path = mask(tmp_path / bids_path("01", "label-liver_mask", "derivatives/x"), 1, 2)
    (case,) = find_dataset(tmp_path).cases
    with pytest.raises(DataError, match="not a mask of one structure") as caught:
        read_reference(case, read_images(case, ("T1w",)), [])
    assert "..._dseg in BIDS" in caught.value.hint
    path.rename(path.with_name("sub-01_dseg.nii.gz"))
    (case,) = find_dataset(tmp_path).cases
    assert read_reference(case, read_images(case, ("T1w",)), []).array.max() == 2


def test_layers_that_nothing_names_are_no_reference(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.nrrd")
    image(tmp_path / "labels" / "a.seg.nrrd", channels=2)
    (case,) = find_dataset(tmp_path).cases
    with pytest.raises(DataError, match="it holds 2 volumes") as caught:
        read_reference(case, read_images(case, ("image",)), [])
    assert "segments" in caught.value.hint
    assert "channels" not in caught.value.hint


def test_a_batch_of_which_nothing_can_be_segmented_ends_well(trained_run: Path, tmp_path: Path) -> None:
    for name in ("p_0000", "p_0001", "q_0000", "q_0001"):
        image(tmp_path / "in" / f"{name}.nii.gz")
    volseg.load(trained_run).predict_folder(tmp_path / "in", tmp_path / "out")
    rows = (tmp_path / "out" / "cases.csv").read_text().splitlines()
    assert len(rows) == 5
    assert all("skipped" in row for row in rows[1:])


# Whatever lies beside a layout


def bids_places(number: int) -> list[tuple[str, str]]:
    """Where the image and the label map of a subject lie, and their suffixes."""
    place = f"sub-0{number}/anat/sub-0{number}"
    return [(place, "T1w"), (f"derivatives/x/{place}", "dseg")]


NAMES = st.sampled_from(
    ["p1", "p9", "Masks", "segmentations", "liver", "cyst", "p1_seg", "p9_seg", "p1_ct", "seg", "p1_t2", "ct", "scans"]
)
IDS = st.sampled_from(
    ["sub-01", "sub-01_T2w", "sub-01_dseg", "derivatives", "p_0000", "p_0001", "gt", "s1", "s1_liver"]
)
TREES = st.lists(
    st.tuples(st.lists(NAMES | IDS, max_size=3), NAMES | IDS, st.sampled_from([".nii", ".nrrd", ".seg.nrrd"])),
    max_size=8,
)
LAYOUTS: Mapping[str, Sequence[str]] = {
    "one binary mask per structure": [f"s{n}/{file}" for n in (1, 2, 3) for file in ("ct", "labels/liver")],
    "images and references side by side": [f"p{n}{end}" for n in (1, 2, 3) for end in ("", "_seg")],
    "one folder per case": [f"{case}/{file}" for case in ("a", "b", "c") for file in ("t1", "seg")],
    "BIDS": [f"{place}_{end}" for n in (1, 2, 3) for place, end in bids_places(n)],
}


@settings(max_examples=60)
@given(layout=st.sampled_from(sorted(LAYOUTS)), tree=TREES)
def test_every_file_beside_a_layout_is_used_once_or_set_aside(
    layout: str, tree: list[tuple[list[str], str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for name in LAYOUTS[layout]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.nii.gz").touch()
    for folders, name, kind in tree:
        path = root.joinpath(*folders, name + kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    try:
        dataset = find_dataset(root)
    except DataError as error:
        assert "holds no labelled case" in str(error) or "several kinds of label maps" in str(error)  # noqa: PT017
        return
    assert all_accounted(dataset, root)
    assert dataset.layout == layout or tree
    for case in dataset.cases:
        assert not any(says_reference(source.place) for source in case.images.values())


def test_a_segmentation_of_another_program_is_no_image_of_bids(tmp_path: Path) -> None:
    for name in ("sub-01/sub-01.seg.nrrd", "sub-01/sub-01_T1w.nii", "derivatives/sub-01_dseg.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    dataset = find_dataset(tmp_path)
    (case,) = dataset.cases
    assert case.image.place.name == "sub-01_T1w.nii"
    assert [item.path.name for item in dataset.set_aside] == ["sub-01.seg.nrrd"]


def test_two_cases_of_one_image_do_not_test_each_other(tmp_path: Path) -> None:
    for name in ("a", "b"):
        image(tmp_path / f"{name}.nrrd")
        mask(tmp_path / f"{name}_seg.nrrd", 1)
    rows = ["case_id,image,reference", "p1,a.nrrd,a_seg.nrrd", "p2,b.nrrd,b_seg.nrrd", "again,a.nrrd,b_seg.nrrd"]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    dataset = find_dataset(tmp_path / "list.csv")
    assert [case.case_id for case in dataset.cases] == ["p1", "p2"]
    assert "shares an image with another case" in dataset.set_aside[0].reason


def test_an_image_among_the_references_is_no_label_map(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "data")
    scan, _ = make_case(2)
    noise = np.random.default_rng(0).integers(0, 900, scan.geometry.shape).astype(np.float32)
    path = tmp_path / "data" / "labels" / "case_2.nii.gz"
    path.unlink()
    write_volume(type(scan)(noise[np.newaxis], scan.geometry), path)
    plan = volseg.plan(tmp_path / "data")
    assert list(plan.config.data.labels.values()) == [1, 2]


def test_what_is_annotated_is_checked_before_training(dataset: Path, tmp_path: Path) -> None:
    rows = ["case_id,image,reference,annotated"]
    for n in range(5):
        image, reference = sorted(dataset.glob(f"*/case_{n}*"))
        rows.append(f"case_{n},{image},{reference},{'spleen' if n == 3 else ''}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    inspection = volseg.inspect(tmp_path / "list.csv", changes={"data.labels": {"ball": 1, "box": 2}})
    assert inspection.readiness is not None
    assert inspection.readiness.usable == 0
    assert [one.case.case_id for one in inspection.readiness.cases if one.refusal] == ["case_3"]
    with pytest.raises(ConfigError, match="case_3: annotated names spleen"):
        volseg.plan(tmp_path / "list.csv")


@pytest.mark.parametrize("spelling", ["Liver", "LIVER", "Leber"])
def test_what_is_annotated_may_be_spelled_as_names_are_elsewhere(spelling: str, tmp_path: Path) -> None:
    path = mask(tmp_path / "seg.nii.gz", 1)
    labels = (Label(1, "liver", aliases=("Leber",)), Label(2, "left_kidney"))
    case = Case("p", {"image": FileSource(path)}, FileSource(path), annotated=frozenset({spelling, "Left kidney"}))
    assert annotated_labels(case, labels, {1, 2}) == {"liver", "left_kidney"}
    with pytest.raises(ConfigError, match=r"annotated names Milz; data\.labels lists liver, left_kidney"):
        annotated_labels(replace(case, annotated=frozenset({"Milz"})), labels, {1})


def test_one_structure_may_be_spelled_in_several_ways(tmp_path: Path) -> None:
    for n, name in enumerate(("kidney_left", "Kidney-Left", "left kidney")):
        image(tmp_path / f"s{n}" / "ct.nii.gz")
        mask(tmp_path / f"s{n}" / "segmentations" / f"{name}.nii.gz", 1)
        mask(tmp_path / f"s{n}" / "segmentations" / "liver.nii.gz", 1)
    dataset = find_dataset(tmp_path)
    assert len(dataset.labels) == 2
    assert dataset.remarks == ()


def test_a_list_may_name_a_folder_with_a_mask_per_structure(tmp_path: Path) -> None:
    rows = ["case_id,image,reference"]
    for n in range(3):
        image(tmp_path / "scans" / f"s{n}.nii.gz")
        for name in ("liver", "spleen"):
            mask(tmp_path / "drawn" / f"s{n}" / f"s{n}_{name}.nii.gz", 1)
        rows.append(f"s{n},scans/s{n}.nii.gz,drawn/s{n}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    training = [{"image": f"scans/s{n}.nii.gz", "label": f"drawn/s{n}"} for n in range(3)]
    (tmp_path / "list.json").write_text(json.dumps({"training": training}))
    for name in ("list.csv", "list.json"):
        dataset = find_dataset(tmp_path / name)
        assert list(dataset.labels) == ["liver", "spleen"]
        assert len(dataset.cases) == 3
