from __future__ import annotations

import json
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from conftest import rotation
from numpy.typing import NDArray

from volseg.errors import DataError, GeometryError
from volseg.exporting import Encoding
from volseg.exporting.description import Description, ModelIdentity
from volseg.exporting.seg import write_seg
from volseg.exporting.sr import diameter_mm, volume_ml, write_sr
from volseg.image.geometry import Geometry
from volseg.image.terminology import Code, Structure
from volseg.image.volume import Label, Mask, Volume
from volseg.io import SeriesSource, single_source
from volseg.io.dicom import read_instances, write_series
from volseg.version import __version__

ORGAN = Code("123037004", "SCT", "Anatomical Structure")
ABNORMAL = Code("49755003", "SCT", "Morphologically Altered Structure")
LIVER, KIDNEY = Code("10200004", "SCT", "Liver"), Code("64033007", "SCT", "Kidney")
NEOPLASM, LEFT = Code("108369006", "SCT", "Neoplasm"), Code("7771000", "SCT", "Left")
LABELS = (
    Label(2, "Leber", structure=Structure(ORGAN, LIVER)),
    Label(3, "Niere", structure=Structure(ORGAN, KIDNEY, LEFT)),
    Label(5, "Tumor", structure=Structure(ABNORMAL, NEOPLASM, region=KIDNEY, region_modifier=LEFT)),
    Label(9, "mine"),
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SeriesSource:
    folder = tmp_path_factory.mktemp("series")
    geometry = Geometry.from_lps((20, 18, 10), (-9, 8, 7), rotation(0, 20) @ rotation(2, 5), (0.7, 0.9, 2.5))
    write_series(Volume(np.zeros((1, 20, 18, 10), np.float32), geometry), folder, modality="CT")
    found = single_source(folder)
    assert isinstance(found, SeriesSource)
    return found


def make_mask(source: SeriesSource) -> Mask:
    """A box of 4 x 5 x 2 voxels of the liver, a voxel of the kidney, two far apart of the tumour, nothing of mine."""
    geometry = read_instances(source).geometry
    array = np.zeros(geometry.shape, np.uint8)
    array[2:6, 3:8, 4:6] = 2
    array[10, 10, 2] = 3
    array[0, 17, 0] = array[19, 0, 9] = 5
    return Mask(array, geometry, LABELS)


#: Volume in ml and diameter in mm, by hand: voxels of 0.7 x 0.9 x 2.5 mm, diagonals of boxes, as they are stated.
EXPECTED = {
    "Leber": ("0.063", "7.3"),  # 40 voxels; the root of 2.8^2 + 4.5^2 + 5^2 is 7.289
    "Niere": ("0.001575", "2.7"),  # a voxel; the root of 0.7^2 + 0.9^2 + 2.5^2 is 2.748
    "Tumor": ("0.00315", "32.9"),  # two voxels; the root of 14^2 + 16.2^2 + 25^2 is 32.916
    "mine": ("0", None),
}


def tool(name: str) -> str:
    path = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def dciodvfy_errors(path: Path) -> list[str]:
    result = subprocess.run(
        [tool("dciodvfy"), path], capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    return [line for line in (result.stdout + result.stderr).splitlines() if line.startswith(("Error", "Abort"))]


# Measurements


def all_corners(mask: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    return np.concatenate(
        [geometry.world(np.argwhere(mask) + shift) for shift in product((-0.5, 0.5), repeat=3)],
    )


@pytest.mark.parametrize("chance", [0.003, 0.05, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_diameter_is_the_largest_distance_of_any_two_corners(chance: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((9, 7, 8)) < chance
    mask[tuple(rng.integers(0, [9, 7, 8]))] = True
    affine = np.eye(4)
    affine[:3, :3] = rng.normal(size=(3, 3))  # oblique, sheared and of either hand
    geometry = Geometry(mask.shape, affine)
    corners = all_corners(mask, geometry)
    expected = max(np.linalg.norm(corners - corner, axis=1).max() for corner in corners)
    assert diameter_mm(mask, geometry) == pytest.approx(expected, rel=1e-12)


def test_diameter_of_a_ball_of_many_corners() -> None:
    size = 61
    mask = ((np.indices((size, size, size)) - size // 2) ** 2).sum(axis=0) <= 30**2
    geometry = Geometry(mask.shape, np.eye(4))
    # Each ball voxel is mirrored in the centre, so the furthest corner is half a diameter away.
    expected = 2 * np.linalg.norm(all_corners(mask, geometry) - 30, axis=1).max()
    assert diameter_mm(mask, geometry) == pytest.approx(expected, rel=1e-12)


def test_volume_takes_shear_into_account() -> None:
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[1, 2] = 5  # slices that are shifted against each other are no further apart
    mask = np.zeros((4, 4, 4), bool)
    mask[1:3, 0, :] = True
    assert volume_ml(mask, Geometry((4, 4, 4), affine)) == pytest.approx(8 * 24 / 1000)


# The report


@pytest.mark.parametrize("encoding", ["binary", "labelmap"])
def test_others_read_the_numbers(source: SeriesSource, encoding: Encoding, tmp_path: Path) -> None:
    mask = make_mask(source)
    write_sr(mask, read_instances(source), tmp_path / "report.dcm", encoding)
    write_seg(mask, read_instances(source), tmp_path / "mask.dcm", encoding)
    command = [
        tool("tid1500reader"),
        "--inputDICOM",
        tmp_path / "report.dcm",
        "--outputMetadata",
        tmp_path / "out.json",
    ]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    groups = json.loads((tmp_path / "out.json").read_text())["Measurements"]
    segmentation = pydicom.dcmread(tmp_path / "mask.dcm")
    described = {item.SegmentLabel: item for item in segmentation.SegmentSequence}
    assert [group["TrackingIdentifier"] for group in groups] == list(EXPECTED)
    for group in groups:
        segment = described[group["TrackingIdentifier"]]
        assert group["segmentationSOPInstanceUID"] == segmentation.SOPInstanceUID
        assert group["ReferencedSegment"] == segment.SegmentNumber
        assert group["TrackingUniqueIdentifier"] == segment.TrackingUID
        assert group["SourceSeriesForImageSegmentation"] == source.series_uid
        measured = {item["quantity"]["CodeValue"]: item for item in group["measurementItems"]}
        volume, diameter = EXPECTED[group["TrackingIdentifier"]]
        assert measured["118565006"]["value"] == volume
        assert measured["118565006"]["units"]["CodeValue"] == "mL"
        assert ("L0JK" in measured) == (diameter is not None)
        if diameter is not None:
            assert measured["L0JK"]["value"] == diameter
            assert measured["L0JK"]["units"]["CodeValue"] == "mm"


def test_others_read_what_was_measured(source: SeriesSource, tmp_path: Path) -> None:
    write_sr(make_mask(source), read_instances(source), tmp_path / "report.dcm")
    report = hd.sr.srread(tmp_path / "report.dcm")
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert [group.finding_type.value for group in groups] == [LIVER.value, KIDNEY.value, NEOPLASM.value, "mine"]
    assert [group.finding_category.value for group in groups[:3]] == [ORGAN.value, ORGAN.value, ABNORMAL.value]
    sites = [[(site.value.value, site.laterality.value) for site in group.finding_sites] for group in groups]
    assert sites == [[], [(KIDNEY.value, LEFT.value)], [(KIDNEY.value, LEFT.value)], []]
    (observer,) = report.content.get_observer_contexts()
    assert observer.observer_identifying_attributes.name == "volseg"
    assert dciodvfy_errors(tmp_path / "report.dcm") == []


@pytest.mark.parametrize(
    ("size_mm", "volume", "diameter"),
    [
        ((123.4, 98.7, 101.1), "1231", "187.6"),  # 1231.36 ml; 187.591 mm from corner to corner
        ((10.0, 10.0, 10.0), "1", "17.3"),
        ((0.02, 0.02, 0.03), "1.2e-08", "0.041"),  # under a microscope
    ],
)
def test_numbers_are_rounded_to_what_they_can_mean(
    size_mm: tuple[float, float, float], volume: str, diameter: str, tmp_path: Path
) -> None:
    geometry = Geometry.from_lps((2, 2, 2), (0, 0, 0), np.eye(3), size_mm)
    write_series(Volume(np.zeros((1, 2, 2, 2), np.float32), geometry), tmp_path / "series", modality="CT")
    source = single_source(tmp_path / "series")
    assert isinstance(source, SeriesSource)
    instances = read_instances(source)
    array = np.zeros((2, 2, 2), np.uint8)
    array[0, 0, 0] = 1
    write_sr(Mask(array, instances.geometry, (Label(1, "voxel"),)), instances, tmp_path / "report.dcm")
    values = [str(item.NumericValue) for item in every(pydicom.dcmread(tmp_path / "report.dcm"), "NumericValue")]
    assert values == [volume, diameter]
    assert not every(pydicom.dcmread(tmp_path / "report.dcm"), "FloatingPointValue")


def every(dataset: pydicom.Dataset, keyword: str) -> list[pydicom.Dataset]:
    """The items of a report that state an element."""
    found = [dataset] if keyword in dataset else []
    sequences = (element.value for element in dataset if element.VR == "SQ")
    return found + [item for sequence in sequences for below in sequence for item in every(below, keyword)]


MODEL = ModelIdentity("liver tumours", ("0123456789abcdef", "fedcba9876543210"))


def test_a_report_says_which_model_measured(source: SeriesSource, tmp_path: Path) -> None:
    path = tmp_path / "report.dcm"
    write_sr(make_mask(source), read_instances(source), path, description=Description("{model} ({format})", MODEL))
    report = hd.sr.srread(path)
    assert report.SeriesDescription == "liver tumours (dicom-sr)"
    assert (report.ManufacturerModelName, report.SoftwareVersions) == ("volseg", __version__)
    equipment = report.ContributingEquipmentSequence[0]
    assert (equipment.ManufacturerModelName, equipment.SoftwareVersions) == ("liver tumours", MODEL.version)
    said = {
        (item.ConceptNameCodeSequence[0].CodeMeaning, item.get("TextValue"))
        for item in every(report, "ConceptNameCodeSequence")
    }
    assert said >= {
        ("Algorithm Name", "liver tumours"),
        ("Algorithm Version", MODEL.version),
        ("Algorithm Parameters", f"volseg={__version__}"),
        ("Algorithm Parameters", "model 1=0123456789abcdef"),
        ("Algorithm Parameters", "model 2=fedcba9876543210"),
    }
    assert dciodvfy_errors(path) == []
    printed = subprocess.run([tool("dsrdump"), path], capture_output=True, encoding="utf-8", check=False)
    assert printed.returncode == 0, printed.stderr
    assert '="liver tumours"' in printed.stdout
    assert '"7.3"' in printed.stdout


def test_nothing_found_is_a_valid_report(source: SeriesSource, tmp_path: Path) -> None:
    mask = make_mask(source)
    write_sr(Mask(np.zeros_like(mask.array), mask.geometry, LABELS), read_instances(source), tmp_path / "report.dcm")
    groups = hd.sr.srread(tmp_path / "report.dcm").content.get_volumetric_roi_measurement_groups()
    assert [[item.value for item in group.get_measurements()] for group in groups] == [[0.0]] * 4
    assert dciodvfy_errors(tmp_path / "report.dcm") == []


def test_the_same_report_is_the_same_object(source: SeriesSource, tmp_path: Path) -> None:
    mask = make_mask(source)
    uids = []
    for encoding in ("binary", "binary", "labelmap"):
        write_sr(mask, read_instances(source), tmp_path / "report.dcm", encoding)
        uids.append(pydicom.dcmread(tmp_path / "report.dcm").SOPInstanceUID)
    assert uids[0] == uids[1] != uids[2]


def test_masks_that_do_not_fit_are_refused(source: SeriesSource, tmp_path: Path) -> None:
    mask = make_mask(source)
    other = Geometry(mask.geometry.shape, np.eye(4))
    with pytest.raises(GeometryError, match="the mask has"):
        write_sr(Mask(mask.array, other, LABELS), read_instances(source), tmp_path / "report.dcm")
    with pytest.raises(DataError, match="without labels"):
        write_sr(Mask(mask.array, mask.geometry), read_instances(source), tmp_path / "report.dcm")
    assert not (tmp_path / "report.dcm").exists()
