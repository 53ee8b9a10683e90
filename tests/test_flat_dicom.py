"""DICOM images of one plane: radiographs and photographs, which are pictures with pixels of a size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

import volseg
from volseg.cases import find_dataset, read_images, read_reference
from volseg.config import ReadingRules
from volseg.errors import GeometryError
from volseg.io import FileSource, discover, read_shown, read_volume

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 4096, (30, 40), dtype=np.uint16)


def written(path: Path, pixels: NDArray[np.integer], **elements: Any) -> Path:
    """A file of one plane: by default a digital radiograph of 12 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = elements.pop("SOPClassUID", DigitalXRayImageStorageForPresentation)
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.Modality = elements.pop("Modality", "DX")
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = elements.pop(
        "PhotometricInterpretation", "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    )
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored = 12 if pixels.dtype == np.uint16 else 8
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    dataset.PixelData = pixels.tobytes()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def alone(folder: Path) -> FileSource:
    (source,) = discover(folder).sources
    assert isinstance(source, FileSource)
    return source


def test_a_radiograph_is_a_picture_whose_pixels_have_a_size(tmp_path: Path) -> None:
    written(tmp_path / "a.dcm", DEEP, ImagerPixelSpacing=[0.2, 0.1])
    source = alone(tmp_path)
    volume = read_volume(source)
    assert source.modality == "DX"
    assert np.array_equal(volume.array[0, ..., 0].T, DEEP)
    assert volume.geometry.unit == "mm"
    assert volume.geometry.spacing_mm[:2] == (0.1, 0.2)  # rows are 0.2 mm apart, columns 0.1


def test_a_calibrated_spacing_goes_before_that_of_the_detector(tmp_path: Path) -> None:
    written(tmp_path / "a.dcm", DEEP, PixelSpacing=[0.3, 0.3], ImagerPixelSpacing=[0.4, 0.4])
    assert read_volume(alone(tmp_path)).geometry.spacing_mm[:2] == (0.3, 0.3)


def region(delta_cm: float, **changes: Any) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    dataset.RegionSpatialFormat = 1
    dataset.PhysicalUnitsXDirection = dataset.PhysicalUnitsYDirection = 3
    dataset.PhysicalDeltaX, dataset.PhysicalDeltaY = delta_cm, -2 * delta_cm
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return dataset


def test_ultrasound_states_its_size_by_regions(tmp_path: Path) -> None:
    curve = region(0.5, RegionSpatialFormat=3)
    written(tmp_path / "a.dcm", DEEP, Modality="US", SequenceOfUltrasoundRegions=[region(0.02), curve, region(0.02)])
    assert read_volume(alone(tmp_path)).geometry.spacing_mm[:2] == pytest.approx((0.2, 0.4))


def test_regions_of_two_depths_have_no_size_together(tmp_path: Path) -> None:
    written(tmp_path / "a.dcm", DEEP, Modality="US", SequenceOfUltrasoundRegions=[region(0.02), region(0.03)])
    assert read_volume(alone(tmp_path)).geometry.unit == "px"


def test_a_size_that_is_to_be_stated_and_is_not_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "a.dcm", DEEP)
    (source,) = discover(tmp_path, rules=ReadingRules(pixel_mm="stated")).sources
    with pytest.raises(GeometryError, match="states no pixel spacing"):
        read_volume(source)


def test_without_a_spacing_it_is_in_pixels(tmp_path: Path) -> None:
    written(tmp_path / "a", DEEP)
    assert str(read_volume(alone(tmp_path)).geometry) == "40x30 pixels"


def test_the_larger_the_brighter_whatever_is_white(tmp_path: Path) -> None:
    written(tmp_path / "a.dcm", DEEP, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(read_volume(alone(tmp_path)).array[0, ..., 0].T, 4095 - DEEP.astype(int))


def test_a_photograph_has_three_channels(tmp_path: Path) -> None:
    colors = RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    written(tmp_path / "a.dcm", colors, SOPClassUID=SecondaryCaptureImageStorage, Modality="XC")
    assert np.array_equal(read_shown(alone(tmp_path)).array[..., 0].transpose(2, 1, 0), colors)


def test_beside_volumes_it_is_set_aside_as_ever(tmp_path: Path) -> None:
    written(tmp_path / "scout.dcm", DEEP)
    for number in range(3):
        written(
            tmp_path / f"ct{number}.dcm",
            DEEP,
            SOPClassUID=CTImageStorage,
            Modality="CT",
            SeriesInstanceUID="1.2.3",
            PixelSpacing=[1, 1],
            ImagePositionPatient=[0, 0, number],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        )
    found = discover(tmp_path)
    assert len(found.sources) == 1
    assert [item.path.name for item in found.set_aside] == ["scout.dcm"]


def test_a_clip_is_no_picture(tmp_path: Path) -> None:
    frames = RNG.integers(0, 256, (4, 30, 40), dtype=np.uint8)
    path = written(tmp_path / "a.dcm", frames[0], Modality="US")
    dataset = pydicom.dcmread(path)
    dataset.NumberOfFrames, dataset.PixelData = 4, frames.tobytes()
    dataset.save_as(path)
    found = discover(tmp_path)
    assert not found.sources
    assert "no ImagePositionPatient" in found.set_aside[0].reason


def test_drawings_as_png_teach_on_radiographs(tmp_path: Path) -> None:
    for number in range(2):
        written(tmp_path / "images" / f"p{number}.dcm", DEEP, ImagerPixelSpacing=[0.2, 0.1])
        (tmp_path / "labels").mkdir(exist_ok=True)
        Image.fromarray(((DEEP > 2000) * 255).astype(np.uint8)).save(tmp_path / "labels" / f"p{number}.png")
    dataset = find_dataset(tmp_path)
    assert [case.case_id for case in dataset.cases] == ["p0", "p1"]
    image = read_images(dataset.cases[0], dataset.channels)
    reference = read_reference(dataset.cases[0], image, ())
    assert reference.geometry.matches(image.geometry)
    assert np.array_equal(reference.array[..., 0].T, DEEP > 2000)
    plan = volseg.plan(tmp_path, changes={"data.labels.bone": 1})
    assert plan.config.data.modality == ("DX",)
    assert plan.config.data.unit == "mm"


@pytest.mark.real_data
def test_real_radiographs_are_read(real_data: Path) -> None:
    sources = discover(real_data / "dicom" / "dicomdir_study" / "77654033" / "CR1").sources
    assert [read_shown(source).geometry.shape for source in sources] == [(16, 16, 1)]


def test_areas_of_a_radiograph_are_those_of_its_pixels(tmp_path: Path) -> None:
    """Its mask in PNG states their size; however references were read, a mask of volseg's holds values of labels."""
    for number in range(4):
        written(tmp_path / "images" / f"p{number}.dcm", DEEP, ImagerPixelSpacing=[0.2, 0.1])
        (tmp_path / "labels").mkdir(exist_ok=True)
        Image.fromarray(((DEEP > 2000) * 255).astype(np.uint8)).save(tmp_path / "labels" / f"p{number}.png")
    network = {"network.name": "unet", "network.channels": [4, 8], "network.strides": [[1, 2, 2]]}
    changes = {"data.labels.bone": 2, "data.threshold": 0.5, "patches.size": [1, 16, 16], **network}
    volseg.train(tmp_path, tmp_path / "run", changes={**changes, "training.steps_per_epoch": 2}, epochs=1)
    model = volseg.load(tmp_path / "run")
    batch = model.predict_folder(tmp_path / "images", tmp_path / "masks", formats=["png", "nifti"], report=True)
    marked = int((np.asarray(Image.open(tmp_path / "masks" / "p0.png")) == 2).sum())
    mask = batch["p0"].mask
    assert mask.geometry.spacing_mm == (0.1, 0.2, 1.0)
    assert int((mask.array == 2).sum()) == marked
    review = pd.read_csv(tmp_path / "masks" / "review.csv").set_index("case_id")
    assert review.loc["p0", "predicted_ml"] == pytest.approx(marked * 0.1 * 0.2 * 1.0 / 1000)
    assert not review["reason"].astype(str).str.contains("not reviewed").any()
