"""Data sets of pictures as they are published: what belongs together by patterns of paths, or by words in names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from conftest import make_case
from PIL import Image

import volseg
from volseg.cases import Dataset, find_dataset, find_inputs, find_references
from volseg.config import PartialConfig
from volseg.config.partial import PartialData
from volseg.errors import ConfigError, DataError
from volseg.io import write_mask
from volseg.io.dicom.write import write_series

EYES = ("21", "22", "23")


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (24, 20, 3)).astype(np.uint8)).save(path)
    return path


def mask(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = np.zeros((24, 20), np.uint8)
    drawn[4:12, 5:15] = 255
    Image.fromarray(drawn).save(path)
    return path


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """Folders and names as of the Digital Retinal Images for Vessel Extraction."""
    root = tmp_path / "drive"
    for eye in EYES:
        picture(root / "images" / f"{eye}_training.tif", int(eye))
        mask(root / "1st_manual" / f"{eye}_manual1.gif")
        mask(root / "2nd_manual" / f"{eye}_manual2.gif")
        mask(root / "mask" / f"{eye}_training_mask.gif")
    return root


FIRST = {"images": "images/*_training.tif", "references": "1st_manual/*_manual1.gif"}


def found(root: Path, **rules: str) -> Dataset:
    return find_dataset(root, PartialData.model_validate(rules))


def pairs(dataset: Dataset, root: Path) -> dict[str, tuple[str, str]]:
    return {
        case.case_id: (str(case.image.place.relative_to(root)), str(case.reference.place.relative_to(root)))
        for case in dataset.cases
        if case.reference is not None
    }


def test_patterns_say_what_belongs_together(drive: Path) -> None:
    dataset = found(drive, **FIRST, roi="mask")
    assert pairs(dataset, drive) == {
        f"{eye}_training": (f"images/{eye}_training.tif", f"1st_manual/{eye}_manual1.gif") for eye in EYES
    }
    assert dataset.channels == ("red", "green", "blue")
    assert all(case.region and case.region.place.name == f"{case.case_id}_mask.gif" for case in dataset.cases)
    unused = {str(item.path.relative_to(drive)) for item in dataset.set_aside}
    assert unused == {f"2nd_manual/{eye}_manual2.gif" for eye in EYES}
    # A case is called as its image, as `predict` calls it that is given the folder of images.
    assert {case.case_id for case in find_inputs(drive / "images", ("image",)).cases} == set(pairs(dataset, drive))


def test_patterns_hold_for_references_alone(drive: Path) -> None:
    rules = PartialData.model_validate({**FIRST, "references": "2nd_manual/*_manual2.gif"})
    references = find_references(drive, rules)
    assert {case_id: source.place.name for case_id, source in references.items()} == {
        f"{eye}_training": f"{eye}_manual2.gif" for eye in EYES
    }


@pytest.mark.parametrize(
    ("images", "references", "files", "expected"),
    [
        pytest.param(
            "*/images/*.png",
            "*/masks/*_m.png",
            {"train/images/1.png": "train/masks/1_m.png", "val/images/1.png": "val/masks/1_m.png"},
            {"train_images_1", "val_images_1"},
            id="several-stars",
        ),
        pytest.param("Slide_*/*", "GT_*/*", {"Slide_01/01_1.png": "GT_01/01_1.bmp"}, {"Slide_01_01_1"}, id="no-suffix"),
        pytest.param("Image_*.jpg", "Image_*_1stHO.png", {"Image_1.jpg": "Image_1_1stHO.png"}, {"Image_1"}, id="flat"),
        pytest.param("train/*.png", "trainannot/*.png", {"train/a.png": "trainannot/a.png"}, {"a"}, id="folders"),
    ],
)  # fmt: skip
def test_patterns_of_several_parts(
    images: str, references: str, files: Mapping[str, str], expected: set[str], tmp_path: Path
) -> None:
    for number, (image, reference) in enumerate(files.items()):
        picture(tmp_path / image, number)
        mask(tmp_path / reference)
    dataset = found(tmp_path, images=images, references=references)
    assert {case.case_id for case in dataset.cases} == expected
    assert set(pairs(dataset, tmp_path).values()) == set(files.items())
    assert not dataset.set_aside


def test_what_has_no_partner_or_two_is_set_aside(drive: Path) -> None:
    (drive / "1st_manual" / "21_manual1.gif").unlink()
    (drive / "images" / "22_training.tif").unlink()
    picture(drive / "images" / "23_training.png")
    picture(drive / "images" / "24_training.tif")
    mask(drive / "1st_manual" / "24_manual1.gif")
    dataset = found(drive, images="images/*_training", references="1st_manual/*_manual1")
    assert [case.case_id for case in dataset.cases] == ["24_training"]
    reasons = {item.path.name: item.reason for item in dataset.set_aside if item.is_fault}
    several = "2 files match: images/23_training.png, images/23_training.tif"
    assert reasons == {
        "21_training.tif": "an image without a label: there is no 1st_manual/21_manual1",
        "22_manual1.gif": "a label without an image: there is no images/22_training",
        "23_training.png": several,
        "23_training.tif": several,
        "23_manual1.gif": several,
    }


def test_a_pattern_that_fits_nothing_is_named(drive: Path) -> None:
    with pytest.raises(DataError, match=r"there is no images/\*_test.tif in .*drive"):
        found(drive, images="images/*_test.tif", references=FIRST["references"])


@pytest.mark.parametrize(
    "changes",
    [
        {"images": "images/*.png"},
        {"images": "images/*.png", "references": "masks/*/*.png"},
        {"images": "/images/*.png", "references": "masks/*.png"},
        {"images": "../images/*.png", "references": "masks/*.png"},
        {"images": "images/**.png", "references": "masks/*.png"},
        {"images": "images/a.png", "references": "masks/a.png"},
    ],
)
def test_patterns_that_mean_nothing_are_refused(changes: Mapping[str, str]) -> None:
    with pytest.raises(ConfigError):
        PartialConfig.of({"data": dict(changes)})


def test_a_data_set_as_it_is_published_trains(drive: Path, tmp_path: Path) -> None:
    """The patterns of training are no concern of prediction, and its masks are judged by any observer."""
    volseg.train(
        drive,
        output=tmp_path / "run",
        changes={
            **{f"data.{key}": value for key, value in FIRST.items()},
            "data.roi": "mask",
            "data.labels.vessel": 1,
            "network.name": "unet",
            "network.channels": [4, 8],
            "network.strides": [[1, 2, 2]],
            "patches.size": [1, 16, 16],
            "training.batch_size": 2,
        },
        epochs=1,
    )
    volseg.load(tmp_path / "run").predict_folder(drive / "images", tmp_path / "masks")
    assert {path.stem for path in (tmp_path / "masks").glob("*.png")} == {f"{eye}_training" for eye in EYES}
    by_folder = volseg.evaluate(tmp_path / "masks", drive / "1st_manual")
    second = {**FIRST, "references": "2nd_manual/*_manual2.gif"}
    changes = {f"data.{key}": value for key, value in second.items()}
    by_pattern = volseg.evaluate(tmp_path / "masks", drive, changes=changes)
    assert set(by_folder.metrics["case_id"]) == {f"{eye}_manual1" for eye in EYES}
    assert set(by_pattern.metrics["case_id"]) == {f"{eye}_training" for eye in EYES}


@pytest.mark.parametrize(
    ("images", "references"),
    [
        ("Original/{}.tif", "Ground Truth/{}.tif"),
        ("CXR_png/MCUCXR_{}_0.png", "masks/MCUCXR_{}_0_mask.png"),
        ("train/{}_01.jpg", "train_masks/{}_01_mask.gif"),
        ("ISIC2018_Task1-2_Training_Input/ISIC_{}.jpg", "ISIC2018_Task1_Training_GroundTruth/ISIC_{}_segmentation.png"),
        ("tissue images/h_{}.png", "mask binary/h_{}.png"),
        ("images/g{}.jpg", "gts/g{}.bmp"),
        ("training_set/{}_HC.png", "training_set/{}_HC_Annotation.png"),
        ("train_{}.bmp", "train_{}_anno.bmp"),
    ],
)
def test_published_names_of_folders_and_files(images: str, references: str, tmp_path: Path) -> None:
    for number in "1234":
        picture(tmp_path / images.format(number), int(number))
        mask(tmp_path / references.format(number))
    dataset = found(tmp_path)
    assert set(pairs(dataset, tmp_path).values()) == {
        (images.format(number), references.format(number)) for number in "1234"
    }


def test_a_folder_of_fields_of_view_is_no_reference(drive: Path) -> None:
    for path in (drive / "2nd_manual").iterdir():
        path.unlink()
    dataset = found(drive, roi="mask")
    assert pairs(dataset, drive) == pairs(found(drive, **FIRST), drive)


def test_a_word_for_a_person_is_no_part_of_a_name(tmp_path: Path) -> None:
    picture(tmp_path / "p1.png")
    mask(tmp_path / "p1_seg_manual.png")
    assert set(pairs(found(tmp_path), tmp_path)) == {"p1"}


def test_patterns_hold_for_volumes_and_series(tmp_path: Path) -> None:
    for number, name in enumerate(("anna", "ben")):
        image, reference = make_case(number)
        write_series(image, tmp_path / name / "scan 1")
        write_mask(reference, tmp_path / name / "drawn" / "liver.nii.gz")
    dataset = found(tmp_path, images="*/scan 1", references="*/drawn/liver.nii.gz")
    assert pairs(dataset, tmp_path) == {
        f"{name}_scan 1": (f"{name}/scan 1", f"{name}/drawn/liver.nii.gz") for name in ("anna", "ben")
    }
    assert not dataset.set_aside
