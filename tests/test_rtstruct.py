from __future__ import annotations

import logging
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813  # the library's own short name
from conftest import rotation
from pydicom import uid
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from volseg.config import ReadingRules
from volseg.errors import DataError, GeometryError
from volseg.exporting.description import Description, ModelIdentity
from volseg.exporting.rtstruct import write_rtstruct
from volseg.exporting.uids import derived_uid
from volseg.image.contours import signed_area
from volseg.image.geometry import Geometry
from volseg.image.terminology import Code, Structure
from volseg.image.volume import Label, Mask, Volume
from volseg.io import SegmentsSource, SeriesSource, discover, single_source
from volseg.io.dicom import read_instances, write_series
from volseg.io.dicom.rtstruct import read_rtstruct
from volseg.io.segments import Segment
from volseg.version import __version__

SHAPE = (14, 12, 7)
SPACING_MM = (0.7, 0.9, 2.5)
SCT = "SCT"
KIDNEY = Structure(
    Code("123037004", SCT, "Anatomical Structure"),
    Code("64033007", SCT, "Kidney"),
    modifier=Code("7771000", SCT, "Left"),
    color=(185, 102, 83),
)
LABELS = (Label(1, "kidney_left", structure=KIDNEY), Label(2, "islands", color=(1, 2, 3)), Label(5, "nowhere"))

#: Columns are the LPS directions of i, j and k.
AXIAL = np.eye(3)
CORONAL = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
SAGITTAL = np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]])
OBLIQUE = rotation(0, 20) @ rotation(1, -35) @ rotation(2, 50)
TILTED = np.array([[1, 0, 0], [0, np.cos(np.radians(20)), 0], [0, np.sin(np.radians(20)), 1]])
DIRECTIONS = {
    "axial": AXIAL,
    "prone": rotation(2, 180),
    "decubitus": rotation(2, 90),
    "feet first": np.diag([-1, 1, -1]),
    "reversed slices": np.diag([1, 1, -1]),
    "mirrored": np.diag([-1, 1, 1]),
    "coronal": CORONAL,
    "sagittal": SAGITTAL,
    "oblique": OBLIQUE,
    "oblique left-handed": OBLIQUE * [1, 1, -1],
    "tilted": TILTED,
    "tilted oblique": OBLIQUE @ TILTED,
}


def make_series(folder: Path, directions: np.ndarray = AXIAL, **options: Any) -> SeriesSource:
    values = np.random.default_rng(0).integers(-1000, 1000, (1, *SHAPE)).astype(np.float32)
    geometry = Geometry.from_lps(SHAPE, (-120.5, 33.25, -812.125), directions, SPACING_MM)
    write_series(Volume(values, geometry), folder, **options)
    source = single_source(folder)
    assert isinstance(source, SeriesSource)
    return source


def make_mask(source: SeriesSource, labels: tuple[Label, ...] = LABELS) -> Mask:
    """Nothing in it is symmetric: a block with a hole that holds an island, a staircase, and single voxels."""
    array = np.zeros(SHAPE, np.uint8)
    array[1:9, 1:8, 1:6] = 1
    array[3:7, 2:7, 2:5] = 0
    array[4:6, 4, 3] = 1
    array[2, 2, 4] = 0
    array[10, 1:5, 2] = array[11, 4:9, 2] = 1
    array[0, 0, 0] = array[13, 11, 6] = array[12, 2, 3] = array[11, 3, 3] = 2
    return Mask(array, read_instances(source).geometry, labels)


def filled(path: Path, geometry: Geometry) -> Iterator[tuple[Segment, np.ndarray]]:
    """All ROIs, as if each were wanted."""
    return ((marked.segment, marked.voxels()) for marked in read_rtstruct(path, geometry))


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def edit(path: Path, change: Callable[[Dataset], Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path)
        change(dataset)
        dataset.save_as(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An axial series in `ct`, and its structure set."""
    folder = tmp_path_factory.mktemp("axial")
    source = make_series(folder / "ct", modality="CT")
    write_rtstruct(make_mask(source), read_instances(source), folder / "rt.dcm")
    return folder


@pytest.fixture
def structure_set(folder: Path, tmp_path: Path) -> Path:
    """A copy of the structure set, to be changed."""
    return Path(shutil.copy(folder / "rt.dcm", tmp_path))


@pytest.fixture(scope="module")
def geometry(folder: Path) -> Geometry:
    return series_of(folder / "ct").geometry


def series_of(folder: Path) -> Any:
    source = single_source(folder)
    assert isinstance(source, SeriesSource)
    return read_instances(source)


# Written and read


@pytest.mark.parametrize("directions", DIRECTIONS.values(), ids=DIRECTIONS)
def test_a_mask_comes_back_from_any_acquisition(directions: np.ndarray, tmp_path: Path) -> None:
    source = make_series(tmp_path / "series", directions)
    mask = make_mask(source)
    write_rtstruct(mask, read_instances(source), tmp_path / "rt.dcm")
    rois = list(filled(tmp_path / "rt.dcm", mask.geometry))
    assert [(segment.number, segment.name) for segment, _ in rois] == [(label.value, label.name) for label in LABELS]
    for segment, array in rois:
        np.testing.assert_array_equal(array, mask.array == segment.number)


@pytest.mark.parametrize("directions", DIRECTIONS.values(), ids=DIRECTIONS)
def test_contours_lie_in_the_planes_of_their_images(directions: np.ndarray, tmp_path: Path) -> None:
    source = make_series(tmp_path / "series", directions)
    mask = make_mask(source)
    write_rtstruct(mask, read_instances(source), tmp_path / "rt.dcm")
    images = {image.SOPInstanceUID: image for image in map(pydicom.dcmread, source.files)}
    to_index = np.linalg.inv(mask.geometry.lps_affine)
    items = pydicom.dcmread(tmp_path / "rt.dcm").ROIContourSequence
    assert [item.ReferencedROINumber for item in items] == [label.value for label in LABELS]
    for item in items:
        voxels = np.zeros(SHAPE[2])
        for contour in item.get("ContourSequence", []):
            image = images[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            points = np.reshape(contour.ContourData, (-1, 3)).astype(float)
            orientation = np.reshape(image.ImageOrientationPatient, (2, 3)).astype(float)
            away_mm = (points - np.array(image.ImagePositionPatient, float)) @ np.cross(*orientation)
            assert np.abs(away_mm).max() < 2e-5
            # On the edges of voxels, and around exactly as many as the slice has.
            index = points @ to_index[:3, :3].T + to_index[:3, 3]
            assert np.abs(index[:, :2] % 1 - 0.5).max() < 1e-4
            voxels[round(index[0, 2])] += abs(signed_area(index[:, :2]))
            assert contour.NumberOfContourPoints == len(points) >= 4
        expected = (mask.array == item.ReferencedROINumber).sum(axis=(0, 1))
        np.testing.assert_allclose(voxels, expected, atol=1e-2)


def test_frames_of_an_enhanced_file_are_named(tmp_path: Path) -> None:
    order = [3, 0, 5, 1, 6, 4, 2]
    write_enhanced(make_series(tmp_path / "classic", OBLIQUE), tmp_path / "enhanced" / "file", order)
    source = single_source(tmp_path / "enhanced")
    assert isinstance(source, SeriesSource)
    mask = make_mask(source)
    write_rtstruct(mask, read_instances(source), tmp_path / "rt.dcm")
    for segment, array in filled(tmp_path / "rt.dcm", mask.geometry):
        np.testing.assert_array_equal(array, mask.array == segment.number)
    contour = pydicom.dcmread(tmp_path / "rt.dcm").ROIContourSequence[1].ContourSequence[0]
    assert contour.ContourImageSequence[0].ReferencedFrameNumber == order.index(0) + 1  # the voxel (0, 0, 0)


def write_enhanced(source: SeriesSource, path: Path, order: list[int]) -> None:
    slices = [pydicom.dcmread(sorted(source.files)[k]) for k in order]
    dataset = slices[0]
    frames = [(image.ImagePositionPatient, image.PixelData) for image in slices]
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid.EnhancedMRImageStorage
    dataset.NumberOfFrames = len(order)
    dataset.PixelData = b"".join(pixels for _, pixels in frames)
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = dataset.ImageOrientationPatient
    measures.PixelSpacing, measures.SliceThickness = dataset.PixelSpacing, "2.5"
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = [Dataset() for _ in frames]
    for group, (position, _) in zip(dataset.PerFrameFunctionalGroupsSequence, frames, strict=True):
        group.PlanePositionSequence = [Dataset()]
        group.PlanePositionSequence[0].ImagePositionPatient = position
    for keyword in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "SpacingBetweenSlices"):
        delattr(dataset, keyword)
    path.parent.mkdir()
    dataset.save_as(path)


def test_a_bridged_gap_has_no_contours(tmp_path: Path) -> None:
    source = make_series(tmp_path / "series", OBLIQUE)
    sorted(source.files)[3].unlink()
    bridged = single_source(tmp_path / "series", rules=ReadingRules(allow_gaps=True))
    assert isinstance(bridged, SeriesSource)
    mask = make_mask(bridged)
    assert mask.array[:, :, 3].any()
    write_rtstruct(mask, read_instances(bridged), tmp_path / "rt.dcm")
    for segment, array in filled(tmp_path / "rt.dcm", mask.geometry):
        assert not array[:, :, 3].any()
        np.testing.assert_array_equal(np.delete(array, 3, axis=2), np.delete(mask.array == segment.number, 3, axis=2))


def marks_of(path: Path) -> SegmentsSource:
    (source,) = discover(path).segments
    return source


def test_what_is_stated_of_an_roi(folder: Path, geometry: Geometry) -> None:
    kidney, islands, nowhere = (segment for segment, _ in filled(folder / "rt.dcm", geometry))
    assert (kidney.type, kidney.modifier, kidney.color) == (KIDNEY.type, KIDNEY.modifier, KIDNEY.color)
    assert (islands.type, islands.modifier, islands.color) == (None, None, (1, 2, 3))
    assert nowhere.color is not None
    observation = pydicom.dcmread(folder / "rt.dcm").RTROIObservationsSequence[0]
    assert observation.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "123037004"


def test_the_series_is_referred_to_completely(folder: Path) -> None:
    images = [pydicom.dcmread(path) for path in sorted((folder / "ct").iterdir())]
    dataset = pydicom.dcmread(folder / "rt.dcm")
    marks = marks_of(folder / "rt.dcm")
    assert marks.series_uids == (images[0].SeriesInstanceUID,)
    assert marks.spaces == (images[0].FrameOfReferenceUID,)
    study = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    assert study.ReferencedSOPInstanceUID == dataset.StudyInstanceUID == images[0].StudyInstanceUID
    listed = study.RTReferencedSeriesSequence[0].ContourImageSequence
    assert [item.ReferencedSOPInstanceUID for item in listed] == [image.SOPInstanceUID for image in images]
    assert {item.ReferencedSOPClassUID for item in listed} == {uid.CTImageStorage}


def test_the_same_result_is_the_same_object(tmp_path: Path) -> None:
    source = make_series(tmp_path / "series")
    mask = make_mask(source)
    other = Mask(np.where(mask.array == 2, 5, mask.array).astype(np.uint8), mask.geometry, mask.labels)
    renamed = Mask(mask.array, mask.geometry, (Label(1, "other"), *LABELS[1:]))
    for number, each in enumerate([mask, mask, other, renamed]):
        write_rtstruct(each, read_instances(source), tmp_path / f"{number}.dcm")
    assert (tmp_path / "0.dcm").read_bytes() == (tmp_path / "1.dcm").read_bytes()
    uids = [pydicom.dcmread(tmp_path / f"{number}.dcm").SOPInstanceUID for number in range(4)]
    assert len(set(uids)) == 3


def test_it_says_which_model_and_which_software_made_it(tmp_path: Path) -> None:
    source, model = make_series(tmp_path / "series"), ModelIdentity("liver tumours", ("0123456789abcdef",))
    path = tmp_path / "rt.dcm"
    write_rtstruct(make_mask(source), read_instances(source), path, Description("Auto {model}", model))
    made = pydicom.dcmread(path)
    assert made.SeriesDescription == "Auto liver tumours"
    assert (made.Manufacturer, made.ManufacturerModelName, made.SoftwareVersions) == ("volseg", "volseg", __version__)
    (equipment,) = made.ContributingEquipmentSequence
    assert (equipment.ManufacturerModelName, equipment.SoftwareVersions) == ("liver tumours", "0123456789abcdef")
    for roi in made.StructureSetROISequence:
        (algorithm,) = roi.ROIDerivationAlgorithmIdentificationSequence
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("liver tumours", "0123456789abcdef")
    write_rtstruct(make_mask(source), read_instances(source), tmp_path / "other.dcm")
    assert pydicom.dcmread(tmp_path / "other.dcm").SOPInstanceUID != made.SOPInstanceUID


def test_derived_uids_tell_their_parts_apart() -> None:
    assert derived_uid("ab", "c") == derived_uid(b"ab", b"c") != derived_uid("a", "bc")
    assert derived_uid("ab", "c") != derived_uid("c", "ab") != derived_uid("cab")
    assert uid.UID(derived_uid("ab")).is_valid
    assert derived_uid("ab").startswith("2.25.")


def test_of_the_patient_it_says_what_the_standard_needs(tmp_path: Path) -> None:
    source = make_series(tmp_path / "series")
    stated = {
        "PatientName": "Größe^Anna", "PatientID": "4711", "PatientBirthDate": "19700101", "PatientSex": "F",
        "StudyDate": "20200202", "StudyTime": "1010", "StudyID": "7", "AccessionNumber": "A1",
        "ReferringPhysicianName": "Doe^Jane",
    }  # fmt: skip
    kept_back = {"PatientAddress": "Secret Street", "PatientAge": "050Y", "InstitutionName": "Secret Hospital"}
    for path in source.files:
        edit(
            path,
            lambda d: [
                d.__setattr__(k, v) for k, v in ({"SpecificCharacterSet": "ISO_IR 100"} | stated | kept_back).items()
            ],
        )
    write_rtstruct(make_mask(source), read_instances(source), tmp_path / "rt.dcm")
    dataset = pydicom.dcmread(tmp_path / "rt.dcm")
    assert {keyword: str(dataset[keyword].value) for keyword in stated} == stated
    assert dataset.SpecificCharacterSet == "ISO_IR 192"
    assert not set(kept_back) & set(dataset.dir())
    assert b"Secret" not in (tmp_path / "rt.dcm").read_bytes()


def test_names_in_any_language(tmp_path: Path) -> None:
    source = make_series(tmp_path / "series")
    for path in source.files:
        edit(path, lambda d: [setattr(d, "SpecificCharacterSet", "ISO_IR 100"), setattr(d, "PatientName", "Größe")])
    labels = (Label(1, "肝臓"), Label(2, "печень"))
    write_rtstruct(make_mask(source, labels), read_instances(source), tmp_path / "rt.dcm")
    assert marks_of(tmp_path / "rt.dcm").names == ("肝臓", "печень")
    assert pydicom.dcmread(tmp_path / "rt.dcm").PatientName == "Größe"


def test_decimal_strings_are_short_and_exact(tmp_path: Path) -> None:
    directions = rotation(0, 1.2345678) @ rotation(1, -12.3456789) @ rotation(2, 33.333333)
    array = np.zeros((1, *SHAPE), np.float32)
    geometry = Geometry.from_lps(SHAPE, (-1234.5678901, 999.999999, 1e-7), directions, (0.123456789, 0.5, 3.3333333))
    write_series(Volume(array, geometry), tmp_path / "series")
    source = single_source(tmp_path / "series")
    assert isinstance(source, SeriesSource)
    mask = make_mask(source)
    write_rtstruct(mask, read_instances(source), tmp_path / "rt.dcm")
    for contour in pydicom.dcmread(tmp_path / "rt.dcm").ROIContourSequence[0].ContourSequence:
        texts = contour.get_item("ContourData").value.decode().split("\\")
        assert max(len(text) for text in texts) <= 16
        index = np.array(texts, float).reshape(-1, 3) @ np.linalg.inv(mask.geometry.lps_affine)[:3, :3].T
        index += np.linalg.inv(mask.geometry.lps_affine)[:3, 3]
        nearest = np.column_stack([np.floor(index[:, :2]) + 0.5, np.rint(index[:, 2])])
        moved_mm = (nearest - index) @ mask.geometry.lps_affine[:3, :3].T
        assert np.linalg.norm(moved_mm, axis=1).max() < 1e-4


# Refused to be written


def test_a_mask_of_another_grid_is_refused(tmp_path: Path) -> None:
    source = make_series(tmp_path / "series")
    moved = make_mask(source).geometry.affine.copy()
    moved[0, 3] += 0.5
    elsewhere = Mask(np.zeros(SHAPE, np.uint8), Geometry(SHAPE, moved), LABELS)
    with pytest.raises(GeometryError, match="but the series in"):
        write_rtstruct(elsewhere, read_instances(source), tmp_path / "rt.dcm")
    assert not (tmp_path / "rt.dcm").exists()


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ((), "a mask without labels"),
        ((Label(1, "one"),), "voxels of value 2, which has no label"),
        ((Label(1, "one"), Label(2, "two"), Label(2, "also two")), "have the same value"),
    ],
)
def test_labels_that_cannot_be_stated_are_refused(labels: tuple[Label, ...], reason: str, tmp_path: Path) -> None:
    source = make_series(tmp_path / "series")
    with pytest.raises(DataError, match=reason):
        write_rtstruct(make_mask(source, labels), read_instances(source), tmp_path / "rt.dcm")


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SOPInstanceUID"])
def test_a_series_without_identity_is_refused(keyword: str, tmp_path: Path) -> None:
    source = make_series(tmp_path / "series")
    mask = make_mask(source)
    for path in source.files:
        edit(path, lambda d: delattr(d, keyword))
    with pytest.raises(DataError, match=keyword):
        write_rtstruct(mask, read_instances(source), tmp_path / "rt.dcm")


# Read


def square(low: float, high: float, z: float = -807.125) -> list[float]:
    """A square in the third slice of the axial series, between two voxel indices."""
    corners = [(low, low), (high, low), (high, high), (low, high)]
    return [x for i, j in corners for x in (-120.5 + 0.7 * i, 33.25 + 0.9 * j, z)]


def replace_contours(path: Path, *contours: list[Any], type_: str = "CLOSED_PLANAR") -> None:
    def change(dataset: Dataset) -> None:
        template = dataset.ROIContourSequence[0].ContourSequence[0]
        sequence = []
        for numbers in contours:
            contour = Dataset()
            contour.update(template)
            contour.ContourGeometricType, contour.NumberOfContourPoints = type_, len(numbers) // 3
            text = "\\".join(str(number)[:16] for number in numbers)
            contour[0x30060050] = DataElement(0x30060050, "DS", text, already_converted=True)
            sequence.append(contour)
        dataset.ROIContourSequence[0].ContourSequence = sequence

    edit(path, change)


@pytest.mark.parametrize("type_", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"])
def test_contours_within_contours_are_holes_and_islands(structure_set: Path, geometry: Geometry, type_: str) -> None:
    replace_contours(structure_set, square(2.5, 5.5), square(0.5, 9.5), square(1.5, 7.5), type_=type_)
    _, array = next(filled(structure_set, geometry))
    expected = np.zeros(SHAPE, bool)
    expected[1:10, 1:10, 2] = True
    expected[2:8, 2:8, 2] = False
    expected[3:6, 3:6, 2] = True
    np.testing.assert_array_equal(array, expected)


def test_contours_that_overlap_in_part_are_refused_unless_stated_as_xor(
    structure_set: Path, geometry: Geometry
) -> None:
    contours = square(0.5, 4.5), square(2.5, 7.5)
    replace_contours(structure_set, *contours)
    with pytest.raises(
        DataError, match=r"contour 1 of ROI 'kidney_left' .* overlaps another contour of its slice in part"
    ):
        next(filled(structure_set, geometry))
    replace_contours(structure_set, *contours, type_="CLOSEDPLANAR_XOR")
    _, array = next(filled(structure_set, geometry))
    assert array.sum() == 16 + 25 - 2 * 4


def test_a_contour_that_is_repeated_counts_once(
    structure_set: Path, geometry: Geometry, caplog: pytest.LogCaptureFixture
) -> None:
    replace_contours(structure_set, square(0.5, 4.5), square(0.5, 4.5))
    _, array = next(filled(structure_set, geometry))
    assert array.sum() == 16
    assert "1 copies of contours left out" in caplog.text


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        (square(1, 4)[:6], r"not a polygon: it has 6 coordinates"),
        (square(1, 4)[:11], r"not a polygon: it has 11 coordinates"),
        ([], r"not a polygon: it has 0 coordinates"),
        (["x", *square(1, 4)[1:]], r"does not consist of decimal numbers"),
        (["nan", *square(1, 4)[1:]], r"does not consist of decimal numbers"),
        (["-12_0.5", *square(1, 4)[1:]], r"does not consist of decimal numbers"),
        (["1e999", *square(1, 4)[1:]], r"outside the grid"),
        (["1,5", *square(1, 4)[1:]], r"does not consist of decimal numbers"),
        (square(1, 4, -806.8), r"lies in no slice: it is up to 0.13 slices away from the nearest, number 2"),
        ([*square(1, 4)[:11], -804.625], r"lies in no slice: it is up to 1.00 slices away from the nearest, number 2"),
        (square(1, 4, -820), r"reaches voxel \(1.0, 1.0, -3.1\), outside the grid"),
        (square(15.2, 17.2), r"reaches voxel \(15.2, 15.2, 2.0\), outside the grid"),
        (["1e300", *square(1, 4)[1:]], r"outside the grid"),
    ],
)
def test_contours_that_are_none_are_refused(
    structure_set: Path, geometry: Geometry, numbers: list[Any], reason: str
) -> None:
    replace_contours(structure_set, numbers)
    with pytest.raises(DataError, match=rf"contour 1 of ROI 'kidney_left' .*{reason}"):
        next(filled(structure_set, geometry))


def test_a_little_beside_a_slice_is_in_it(structure_set: Path, geometry: Geometry) -> None:
    replace_contours(structure_set, square(0.5, 4.5, -807.125 + 0.2))
    _, array = next(filled(structure_set, geometry))
    assert array[:, :, 2].sum() == array.sum() == 16


def test_contours_through_centres_are_filled_the_same_whatever_the_rounding(
    structure_set: Path, geometry: Geometry
) -> None:
    for shift in (-1e-5, 0.0, 1e-5):
        replace_contours(structure_set, square(1 + shift, 4 + shift))
        _, array = next(filled(structure_set, geometry))
        assert np.argwhere(array.any(axis=2)).tolist() == [[i, j] for i in (1, 2, 3) for j in (1, 2, 3)]


def test_points_alone_mark_nothing_aloud(
    structure_set: Path, geometry: Geometry, caplog: pytest.LogCaptureFixture
) -> None:
    replace_contours(structure_set, square(1, 4)[:3], square(1, 4)[3:6], type_="POINT")
    with caplog.at_level(logging.WARNING, "volseg"):
        _, array = next(filled(structure_set, geometry))
    assert not array.any()
    assert "2 points or open lines left out" in caplog.text


@pytest.mark.parametrize("type_", ["OPEN_PLANAR", "OPEN_NONPLANAR"])
def test_a_structure_of_open_lines_alone_is_no_area(structure_set: Path, geometry: Geometry, type_: str) -> None:
    """Some programs call every contour so: to take them for nothing would lose the organ."""
    replace_contours(structure_set, square(1, 4), type_=type_)
    with pytest.raises(DataError, match=r"ROI 'kidney_left' .* consists of open lines"):
        next(filled(structure_set, geometry))


def first_contour(dataset: Dataset) -> Dataset:
    return dataset.ROIContourSequence[0].ContourSequence[0]


def first_code(dataset: Dataset) -> Dataset:
    return dataset.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence[0]


DAMAGE: dict[str, Callable[[Dataset], Any]] = {
    "is not an RT Structure Set": lambda d: setattr(d, "SOPClassUID", uid.RTPlanStorage),
    "several ROIs of the same number": lambda d: setattr(d.StructureSetROISequence[1], "ROINumber", 1),
    "contours of an ROI 9, which it does not list": lambda d: setattr(
        d.ROIContourSequence[0], "ReferencedROINumber", 9
    ),
    "has several lists of contours": lambda d: d.ROIContourSequence.append(d.ROIContourSequence[0]),
    "an ROI without ROINumber": lambda d: delattr(d.StructureSetROISequence[1], "ROINumber"),
    "of the type 'CIRCLE'": lambda d: setattr(first_contour(d), "ContourGeometricType", "CIRCLE"),
    "states 77 points, but has": lambda d: setattr(first_contour(d), "NumberOfContourPoints", 77),
    "structures and draws none": lambda d: delattr(d, "ROIContourSequence"),
}


@pytest.mark.parametrize("reason", DAMAGE)
def test_damaged_structure_sets_are_refused(structure_set: Path, geometry: Geometry, reason: str) -> None:
    edit(structure_set, DAMAGE[reason])
    with pytest.raises(DataError, match=reason):
        list(filled(structure_set, geometry))


def test_a_code_that_is_none_does_not_cost_the_structure(structure_set: Path, geometry: Geometry) -> None:
    edit(structure_set, lambda d: setattr(first_code(d), "CodeMeaning", ""))
    segment, array = next(filled(structure_set, geometry))
    assert (segment.name, segment.type) == ("kidney_left", None)
    assert array.any()


def test_structures_of_another_frame_of_reference_cost_only_themselves(structure_set: Path, geometry: Geometry) -> None:
    edit(structure_set, lambda d: setattr(d.StructureSetROISequence[1], "ReferencedFrameOfReferenceUID", "1.2.3"))
    (marks,) = discover(structure_set).segments
    assert marks.spaces[1:] == ("1.2.3",)
    first, second, *_ = read_rtstruct(structure_set, geometry, marks.spaces[0])
    assert first.voxels().any()
    with pytest.raises(DataError, match="lies in another frame of reference"):
        second.voxels()
    for marked in read_rtstruct(structure_set, geometry):  # on images that do not say which of the two is theirs
        with pytest.raises(DataError, match="if they state theirs"):
            marked.voxels()


def test_bytes_that_are_changed_never_crash(folder: Path, tmp_path: Path, geometry: Geometry) -> None:
    whole = (folder / "rt.dcm").read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "rt.dcm"
    outcomes = set()
    for _ in range(150):
        changed = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            changed[place] = rng.integers(256)
        path.write_bytes(changed[: rng.integers(len(whole))] if rng.random() < 0.2 else changed)
        try:
            outcomes.update(type(segment).__name__ for segment, _ in filled(path, geometry))
            discover(path)
        except DataError as error:
            outcomes.add(type(error).__name__)
    assert outcomes >= {"Segment", "DataError"}


# Judges


@pytest.mark.parametrize("directions", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_dciodvfy_finds_no_error(directions: np.ndarray, tmp_path: Path) -> None:
    command = tool("dciodvfy")
    source = make_series(tmp_path / "series", directions, modality="CT")
    write_rtstruct(make_mask(source, (*LABELS, Label(9, "größer"))), read_instances(source), tmp_path / "rt.dcm")
    report = subprocess.run(
        [command, "-new", tmp_path / "rt.dcm"], capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    lines = (report.stdout + report.stderr).splitlines()
    assert "RTStructureSet" in lines
    assert not [line for line in lines if line.startswith("Error")]


#: Contours that run along z it takes for axial ones, and a tilted gantry it reads as straight.
PLASTIMATCH_CAN = [name for name in DIRECTIONS if name not in {"coronal", "sagittal", "tilted", "tilted oblique"}]


@pytest.mark.parametrize("name", PLASTIMATCH_CAN)
def test_plastimatch_fills_the_same_voxels(name: str, tmp_path: Path) -> None:
    command = tool("plastimatch")
    source = make_series(tmp_path / "ct", DIRECTIONS[name], modality="CT")
    mask = make_mask(source)
    write_rtstruct(mask, read_instances(source), tmp_path / "rt.dcm")
    options = ["--input", tmp_path / "rt.dcm", "--referenced-ct", tmp_path / "ct", "--prefix-format", "nrrd"]
    subprocess.run([command, "convert", *options, "--output-prefix", tmp_path / "out"], capture_output=True, check=True)
    affine = mask.geometry.lps_affine
    for label in LABELS[:2]:
        image = sitk.ReadImage(str(tmp_path / "out" / f"{label.name}.nrrd"))
        places = [
            image.TransformIndexToPhysicalPoint(each[::-1].tolist())
            for each in np.argwhere(sitk.GetArrayFromImage(image))
        ]
        expected = np.argwhere(mask.array == label.value) @ affine[:3, :3].T + affine[:3, 3]
        assert np.linalg.norm(np.mean(places, axis=0) - expected.mean(axis=0)) < 0.01
        index = np.rint((places - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T).astype(int)
        assert sorted(map(tuple, index.tolist())) == list(zip(*np.nonzero(mask.array == label.value), strict=True))


# Real files


@pytest.fixture
def real_sets(real_data: Path) -> Path:
    return real_data / "dicom_seg_rt"


def by_hand(path: Path, z: float, number: int) -> float:
    """The area in mm^2 of an ROI's only contour in an axial plane."""
    areas = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (item,) = [
            item for item in pydicom.dcmread(path, force=True).ROIContourSequence if item.ReferencedROINumber == number
        ]
        for contour in item.ContourSequence:
            points = np.reshape(contour.ContourData, (-1, 3)).astype(float)
            if points[0, 2] == z:
                areas.append(abs(signed_area(points[:, :2])))
    assert len(areas) == 1
    return areas[0]


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["mock_data/invalid_reference_rt.dcm", "empty/dummy_rt.dcm"])
def test_clinical_contours_keep_their_area(real_sets: Path, name: str) -> None:
    path = real_sets / "rt-utils" / name
    grid = Geometry.from_lps((512, 512, 3), (-125, -125, 60), np.eye(3), (0.488281, 0.488281, 5))
    rois = list(filled(path, grid))
    assert [segment.name for segment, _ in rois] == ["ROI-1", "ROI-2", "ROI-3", "ROI-4"]
    for segment, array in rois:
        for k in range(3):
            area = array[:, :, k].sum() * 0.488281**2
            assert area == pytest.approx(by_hand(path, 60 + 5 * k, segment.number), rel=0.02)


@pytest.mark.real_data
def test_real_references(real_sets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mock = real_sets / "rt-utils" / "mock_data"
    for name in ("ct_1.dcm", "ct_2.dcm"):
        shutil.copy(mock / name, tmp_path)
    images = series_of(tmp_path)
    header = images.header_of(images.frames[0])
    ((segment, array),) = filled(mock / "rt.dcm", images.geometry)
    assert segment.name == "ROI-1"
    assert array.any(axis=(0, 1)).tolist() == [True, False]
    assert marks_of(mock / "rt.dcm").series_uids == (header.text("SeriesInstanceUID"),)
    # Drawn on other images than these two: a third slice, another frame of reference, or nobody knows.
    assert header.text("FrameOfReferenceUID") not in marks_of(mock / "rt.dcm").spaces
    assert marks_of(mock / "non_existent_reference_rt.dcm").series_uids == ()
    _, array = next(filled(mock / "invalid_reference_rt.dcm", images.geometry))
    assert "ROI 'ROI-1'" in caplog.text
    assert "reaches beyond the image" in caplog.text
    assert array.any()


@pytest.mark.real_data
def test_a_real_set_without_file_meta_information(real_sets: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = real_sets / "pydicom" / "rtstruct.dcm"
    assert marks_of(path).names == ("patient", "Isocenter 1", "Isocenter 2")
    grid = Geometry.from_lps((600, 600, 30), (-300, -300, -300), np.eye(3), (1, 1, 10))
    (segment, array), *points = filled(path, grid)
    assert segment.name == "patient"
    assert [bool(where.any()) for _, where in points] == [False, False]
    assert np.flatnonzero(array.any(axis=(0, 1))).tolist() == [10, 11, 12]
    assert array[:, :, 10].sum() == pytest.approx(by_hand(path, -200, 1), rel=0.01)
    assert "'Isocenter 1'" in caplog.text
    with pytest.raises(DataError, match="not an RT Structure Set"):
        next(filled(real_sets / "pydicom" / "rtplan.dcm", grid))
