from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813  # the library's own short name
from conftest import STORAGE_ORDERS, rotation
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from test_dicom import edit

from volseg.config import ReadingRules
from volseg.errors import DataError, GeometryError
from volseg.exporting import Encoding, write
from volseg.exporting.description import USUAL, Description, ModelIdentity
from volseg.exporting.seg import seg_uids, write_seg
from volseg.image.geometry import Geometry
from volseg.image.terminology import Code, Structure, default_color
from volseg.image.volume import Label, Mask, Volume
from volseg.io import SeriesSource, discover, single_source
from volseg.io.dicom import read_instances, write_series
from volseg.io.dicom.seg import read_seg
from volseg.version import __version__

SHAPE = (13, 11, 7)
SPACING_MM = (0.7, 0.9, 2.5)
AXIAL = np.eye(3)
SAGITTAL = np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]])
CORONAL = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
TILTED = np.array([[1, 0, 0], [0, np.cos(0.35), 0], [0, np.sin(0.35), 1]])
#: Columns are the LPS directions of i, j and k: what scanners make of patients on their back, front and side.
GEOMETRIES = {
    "supine": AXIAL,
    "prone": np.diag([-1, -1, 1]),
    "decubitus": np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]),
    "reversed": AXIAL * [1, 1, -1],
    "sagittal": SAGITTAL,
    "coronal": CORONAL,
    "oblique": rotation(2, 25) @ rotation(0, -40) @ rotation(1, 12),
    "tilted": TILTED,
    "tilted prone": np.diag([-1, -1, 1]) @ TILTED * [1, 1, -1],
    "oblique sagittal": rotation(0, 17) @ rotation(2, -9) @ SAGITTAL,
}
ENCODINGS: tuple[Encoding, ...] = ("binary", "labelmap")
SCT_LIVER = Code("10200004", "SCT", "Liver")


def make_series(folder: Path, directions: NDArray[Any] = AXIAL, shape: tuple[int, int, int] = SHAPE) -> SeriesSource:
    geometry = Geometry.from_lps(shape, (-120.5, 33.25, -812.125), directions, SPACING_MM)
    write_series(Volume(np.zeros((1, *shape), np.float32), geometry), folder, modality="CT")
    return series_in(folder)


def series_in(folder: Path) -> SeriesSource:
    source = single_source(folder)
    assert isinstance(source, SeriesSource)
    return source


def make_mask(source: SeriesSource, values: Sequence[int] = (1, 2, 3), seed: int = 0) -> Mask:
    """Random voxels of every value, on a lopsided part of the grid, the last slice and the first left empty."""
    geometry = read_instances(source).geometry
    rng = np.random.default_rng(seed)
    array = rng.choice([0, *values], geometry.shape).astype(np.uint16)
    array[:, :, [0, -1]] = 0
    array[: geometry.shape[0] // 3] = 0
    return Mask(array, geometry, tuple(Label(value, f"label {value}") for value in values))


def read_all(path: Path, geometry: Geometry) -> dict[str, NDArray[np.bool_]]:
    return {marked.segment.name: marked.voxels() for marked in read_seg(path, geometry)}


def assert_reads_back(path: Path, mask: Mask) -> None:
    found = read_all(path, mask.geometry)
    assert list(found) == [label.name for label in mask.labels]
    for label in mask.labels:
        np.testing.assert_array_equal(found[label.name], mask.array == label.value)


def change(path: Path, edit: Callable[[Dataset], Any]) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path)
        edit(dataset)
        dataset.save_as(path)
    return path


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


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SeriesSource:
    return make_series(tmp_path_factory.mktemp("series"))


# What is written is read, by us and by others


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_masks_lie_on_their_images(name: str, encoding: Encoding, tmp_path: Path) -> None:
    source = make_series(tmp_path / "series", GEOMETRIES[name])
    mask = make_mask(source)
    path = tmp_path / "mask.dcm"
    write_seg(mask, read_instances(source), path, encoding)
    assert_reads_back(path, mask)
    assert_lies_right_in_pydicom(path, mask)
    if encoding == "binary":
        assert dciodvfy_errors(path) == []
    if "tilted" not in name:  # ITK has no sheared images, and dcmqi drops the shear
        assert_dcmqi_agrees(path, mask, encoding, tmp_path / "dcmqi")


def assert_lies_right_in_pydicom(path: Path, mask: Mask) -> None:
    """By PS3.3 equation C.7.6.2.1-1 each marked pixel is a marked voxel, and its frame lies on the image it names."""
    dataset = pydicom.dcmread(path)
    stored = dataset.pixel_array
    shared = dataset.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
    row_mm, column_mm = (float(size) for size in shared.PixelMeasuresSequence[0].PixelSpacing)
    images = {header.SOPInstanceUID: header for header in map(pydicom.dcmread, (path.parent / "series").iterdir())}
    found: dict[int, list[NDArray[Any]]] = {}
    for frame, groups in zip(stored, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        position = groups.PlanePositionSequence[0].ImagePositionPatient
        (image,) = groups.DerivationImageSequence[0].SourceImageSequence
        assert position == images[image.ReferencedSOPInstanceUID].ImagePositionPatient
        rows, columns = np.nonzero(frame)
        lps = position + np.outer(columns * column_mm, cosines[:3]) + np.outer(rows * row_mm, cosines[3:])
        values = frame[rows, columns]
        if "SegmentIdentificationSequence" in groups:
            values = values * groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for value in np.unique(values):
            found.setdefault(int(value), []).append(lps[values == value])
    assert sorted(found) == [label.value for label in mask.labels]
    for value, points in found.items():
        expected = mask.geometry.world(np.argwhere(mask.array == value)) * [-1, -1, 1]
        assert by_place(np.concatenate(points)) == pytest.approx(by_place(expected), abs=1e-4)


def by_place(points: NDArray[Any]) -> NDArray[Any]:
    return points[np.lexsort(points.round(2).T)]


def assert_dcmqi_agrees(path: Path, mask: Mask, encoding: Encoding, folder: Path) -> None:
    """Every marked voxel of every NRRD that dcmqi makes is a marked voxel of ours, at the same place."""
    folder.mkdir()
    command = [tool("segimage2itkimage"), "--inputDICOM", path, "--outputDirectory", folder, "--outputType", "nrrd"]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    images = [sitk.ReadImage(file) for file in sorted(folder.glob("*.nrrd"))]
    assert len(images) == (len(mask.labels) if encoding == "binary" else 1)
    found = np.zeros(mask.geometry.shape, np.uint16)
    for image in images:
        array = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
        steps = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        index = np.argwhere(array)
        lps = index @ steps.T + image.GetOrigin()
        exact = (lps * [-1, -1, 1] - mask.geometry.affine[:3, 3]) @ np.linalg.inv(mask.geometry.affine[:3, :3]).T
        assert np.abs((exact - exact.round()) * mask.geometry.spacing_mm).max() < 0.01
        found[tuple(exact.round().astype(int).T)] = array[tuple(index.T)]
    np.testing.assert_array_equal(found, mask.array)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_highdicom_finds_the_mask_of_each_image(source: SeriesSource, encoding: Encoding, tmp_path: Path) -> None:
    mask = make_mask(source)
    write_seg(mask, read_instances(source), tmp_path / "mask.dcm", encoding)
    seg = hd.seg.segread(tmp_path / "mask.dcm")
    instances = read_instances(source)
    uids = [str(instances.header_of(frame).dataset.SOPInstanceUID) for frame in instances.frames]
    pixels = seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
    np.testing.assert_array_equal(pixels, mask.array.transpose(2, 1, 0))
    with pydicom.config.disable_value_validation():
        volume = seg.get_volume(combine_segments=True)
    assert np.count_nonzero(volume.array) == np.count_nonzero(mask.array)


# Multi-frame images


def write_enhanced(geometry: Geometry, path: Path, order: Sequence[int]) -> None:
    """An enhanced CT image of zeros, its frames in the given order of k."""
    affine = geometry.lps_affine
    directions = affine[:3, :3] / geometry.spacing_mm
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.Modality = uid.EnhancedCTImageStorage, "CT"
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(dataset, keyword, uid.generate_uid())
    dataset.PatientID = "7"
    dataset.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    dataset.Columns, dataset.Rows, dataset.NumberOfFrames = geometry.shape[0], geometry.shape[1], len(order)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = directions[:, :2].T.ravel().round(8).tolist()
    measures.PixelSpacing, measures.SliceThickness = [geometry.spacing_mm[1], geometry.spacing_mm[0]], 2
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = []
    for k in order:
        groups, position = Dataset(), Dataset()
        position.ImagePositionPatient = (affine[:3, 3] + k * affine[:3, 2]).round(6).tolist()
        groups.PlanePositionSequence = [position]
        dataset.PerFrameFunctionalGroupsSequence.append(groups)
    dataset.PixelData = bytes(2 * int(np.prod(geometry.shape)))
    dataset.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_frames_of_a_multi_frame_image_are_referred_to_by_number(encoding: Encoding, tmp_path: Path) -> None:
    order = [3, 0, 6, 5, 1, 4, 2]
    (tmp_path / "series").mkdir()
    geometry = Geometry.from_lps(SHAPE, (-20, 33.25, -81), GEOMETRIES["oblique"].round(6), SPACING_MM)
    write_enhanced(geometry, tmp_path / "series" / "enhanced", order)
    source = series_in(tmp_path / "series")
    mask = make_mask(source)
    path = tmp_path / "mask.dcm"
    write_seg(mask, read_instances(source), path, encoding)
    assert_reads_back(path, mask)
    assert_dcmqi_agrees(path, mask, encoding, tmp_path / "dcmqi")
    dataset = pydicom.dcmread(path)
    image = pydicom.dcmread(tmp_path / "series" / "enhanced")
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        (item,) = groups.DerivationImageSequence[0].SourceImageSequence
        assert (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) == (image.SOPClassUID, image.SOPInstanceUID)
        stored = image.PerFrameFunctionalGroupsSequence[item.ReferencedFrameNumber - 1]
        assert (
            stored.PlanePositionSequence[0].ImagePositionPatient == groups.PlanePositionSequence[0].ImagePositionPatient
        )
    (reference,) = dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert reference.ReferencedSOPInstanceUID == image.SOPInstanceUID
    if encoding == "binary":
        assert dciodvfy_errors(path) == []


def test_slices_that_no_image_shows_have_no_frame(tmp_path: Path) -> None:
    make_series(tmp_path / "series")
    for name in ("0003.dcm", "0006.dcm"):
        (tmp_path / "series" / name).unlink()
    source = single_source(tmp_path / "series", rules=ReadingRules(allow_gaps=True))
    assert isinstance(source, SeriesSource)
    mask = make_mask(source)
    assert mask.geometry.shape == SHAPE
    write_seg(mask, read_instances(source), tmp_path / "mask.dcm")
    expected = mask.array.copy()
    expected[:, :, [2, 5]] = 0
    assert_reads_back(tmp_path / "mask.dcm", Mask(expected, mask.geometry, mask.labels))


# Segments


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_nothing_found_is_a_valid_object(source: SeriesSource, encoding: Encoding, tmp_path: Path) -> None:
    path = tmp_path / "mask.dcm"
    mask = make_mask(source)
    write_seg(Mask(np.zeros_like(mask.array), mask.geometry, mask.labels), read_instances(source), path, encoding)
    assert [voxels.sum() for voxels in read_all(path, mask.geometry).values()] == [0, 0, 0]
    assert not hd.seg.segread(path).get_volume(combine_segments=True).array.any()
    if encoding == "binary":
        assert dciodvfy_errors(path) == []


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_empty_segment_is_described(source: SeriesSource, encoding: Encoding, tmp_path: Path) -> None:
    mask = make_mask(source)
    mask = Mask(np.where(mask.array == 2, 0, mask.array).astype(np.uint8), mask.geometry, mask.labels)
    write_seg(mask, read_instances(source), tmp_path / "mask.dcm", encoding)
    assert_reads_back(tmp_path / "mask.dcm", mask)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_numbers_are_consecutive_where_values_are_not(source: SeriesSource, encoding: Encoding, tmp_path: Path) -> None:
    mask = make_mask(source, values=(300, 7, 40))
    write_seg(mask, read_instances(source), tmp_path / "mask.dcm", encoding)
    segments = [marked.segment for marked in read_seg(tmp_path / "mask.dcm", mask.geometry)]
    assert [(segment.number, segment.name) for segment in segments] == [
        (1, "label 7"),
        (2, "label 40"),
        (3, "label 300"),
    ]
    found = read_all(tmp_path / "mask.dcm", mask.geometry)
    assert all(np.array_equal(found[label.name], mask.array == label.value) for label in mask.labels)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_more_than_255_segments(source: SeriesSource, encoding: Encoding, tmp_path: Path) -> None:
    mask = make_mask(source, values=range(1, 301))
    write_seg(mask, read_instances(source), tmp_path / "mask.dcm", encoding)
    assert_reads_back(tmp_path / "mask.dcm", mask)
    assert pydicom.dcmread(tmp_path / "mask.dcm").BitsAllocated == (1 if encoding == "binary" else 16)


@pytest.mark.parametrize("shape", [(12, 11, 5), (13, 11, 5), (1, 1, 3), (64, 48, 4)])
@pytest.mark.parametrize("count", [3, 300])
def test_label_maps_of_every_size_are_compressed(shape: tuple[int, int, int], count: int, tmp_path: Path) -> None:
    # GDCM's RLE encoder ends the process where the number of pixels is odd.
    source = make_series(tmp_path / "series", shape=shape)
    mask = make_mask(source, values=range(1, count + 1))
    write_seg(mask, read_instances(source), tmp_path / "mask.dcm", "labelmap")
    assert_reads_back(tmp_path / "mask.dcm", mask)
    assert pydicom.dcmread(tmp_path / "mask.dcm").file_meta.TransferSyntaxUID == uid.RLELossless


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_labels_mean_is_kept(source: SeriesSource, encoding: Encoding, tmp_path: Path) -> None:
    organ = Code("123037004", "SCT", "Anatomical Structure")
    abnormal = Code("49755003", "SCT", "Morphologically Altered Structure")
    left, kidney = Code("7771000", "SCT", "Left"), Code("64033007", "SCT", "Kidney")
    neoplasm = Code("108369006", "SCT", "Neoplasm")
    labels = (
        Label(1, "Leber\\λ 肝臓 " + "ü" * 80, (10, 200, 30), structure=Structure(organ, SCT_LIVER)),
        Label(2, "Niere", structure=Structure(organ, kidney, left, color=(200, 90, 70))),
        Label(3, "Tumor", structure=Structure(abnormal, neoplasm, region=kidney, region_modifier=left)),
        Label(4, "mine"),
    )
    mask = Mask(make_mask(source, values=(1, 2, 3, 4)).array, read_instances(source).geometry, labels)
    write_seg(mask, read_instances(source), tmp_path / "mask.dcm", encoding)
    liver, niere, tumor, mine = (marked.segment for marked in read_seg(tmp_path / "mask.dcm", mask.geometry))
    assert liver.name.startswith("Leber/λ 肝臓 " + "ü" * 19 + "~")  # and a hash, so that no other name becomes this one
    assert len(liver.name.encode()) <= 64
    assert (liver.type, liver.modifier) == (SCT_LIVER, None)
    assert (niere.type, niere.modifier) == (kidney, left)
    assert (tumor.type, tumor.modifier) == (neoplasm, None)
    assert mine.type is not None
    assert (mine.type.scheme, mine.type.meaning) == ("99VOLSEG", "mine")
    expected = [(10, 200, 30), (200, 90, 70), default_color(3), default_color(4)]
    for segment, color in zip((liver, niere, tumor, mine), expected, strict=True):
        assert segment.color == pytest.approx(color, abs=1)
    described = next(item for item in pydicom.dcmread(tmp_path / "mask.dcm").SegmentSequence if item.SegmentNumber == 3)
    region = described.AnatomicRegionSequence[0]
    assert (region.CodeValue, region.AnatomicRegionModifierSequence[0].CodeValue) == (kidney.value, left.value)
    assert described.SegmentedPropertyCategoryCodeSequence[0].CodeValue == abnormal.value
    assert (described.SegmentAlgorithmType, described.SegmentAlgorithmName) == ("AUTOMATIC", "volseg")
    if encoding == "binary":
        assert dciodvfy_errors(tmp_path / "mask.dcm") == []


# What is said of patient and study


def test_what_is_copied_is_what_the_standard_asks_for(tmp_path: Path) -> None:
    source = make_series(tmp_path / "series")

    def identify(dataset: Dataset) -> None:
        dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.PatientName, dataset.PatientID, dataset.PatientSex = "Müller^Änne", "ID 7", "F"
        dataset.PatientBirthDate, dataset.StudyDate, dataset.StudyTime = "19500229", "20200102", "1230"
        dataset.PatientComments, dataset.PatientAddress, dataset.OperatorsName = "SECRET", "SECRET", "SECRET^A"
        dataset.InstitutionName, dataset.PatientAge = "SECRET", "070Y"

    for file in source.files:
        change(Path(str(file)), identify)
    source = series_in(tmp_path / "series")
    write_seg(make_mask(source), read_instances(source), tmp_path / "mask.dcm")
    image, dataset = pydicom.dcmread(tmp_path / "series" / "0001.dcm"), pydicom.dcmread(tmp_path / "mask.dcm")
    for keyword in ("PatientName", "PatientID", "PatientSex", "StudyDate", "StudyTime", "StudyInstanceUID"):
        assert dataset[keyword].value == image[keyword].value
    (marks,) = discover(tmp_path / "mask.dcm").segments
    assert dataset.FrameOfReferenceUID == image.FrameOfReferenceUID == marks.spaces[0]
    assert dataset.PatientBirthDate == ""  # 1950 had no 29th of February
    assert marks.series_uids == (image.SeriesInstanceUID,)
    assert b"SECRET" not in (tmp_path / "mask.dcm").read_bytes()
    assert "PatientAge" not in dataset
    assert dciodvfy_errors(tmp_path / "mask.dcm") == []


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SOPClassUID"])
def test_images_without_what_must_be_copied_are_refused(keyword: str, tmp_path: Path) -> None:
    source = make_series(tmp_path / "series")
    mask = make_mask(source)
    for file in source.files:
        change(Path(str(file)), lambda dataset: delattr(dataset, keyword))
    with pytest.raises(DataError, match=f"0001.dcm does not state {keyword}"):
        write_seg(mask, read_instances(source), tmp_path / "mask.dcm")
    assert not (tmp_path / "mask.dcm").exists()


def test_text_in_the_images_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = make_series(tmp_path / "series")
    mask = make_mask(source)
    with caplog.at_level(logging.WARNING, logger="volseg"):
        write(mask, source, tmp_path / "mask.dcm", "dicom-seg")
        assert not caplog.records
        change(tmp_path / "series" / "0003.dcm", lambda dataset: setattr(dataset, "BurnedInAnnotation", "YES"))
        write(mask, source, tmp_path / "mask.dcm", "dicom-seg")
    assert ["BurnedInAnnotation is YES" in record.message for record in caplog.records] == [True]


def test_the_same_result_is_the_same_object(source: SeriesSource, tmp_path: Path) -> None:
    def written(mask: Mask, encoding: Encoding = "binary", description: Description = USUAL) -> Dataset:
        write_seg(mask, read_instances(source), tmp_path / "mask.dcm", encoding, description)
        return pydicom.dcmread(tmp_path / "mask.dcm")

    for path in source.files:
        edit(path, StudyDate="20200202", StudyTime="101500")
    mask = make_mask(source)
    first = written(mask)
    uids = seg_uids(mask, read_instances(source), "binary", USUAL)
    assert (first.SeriesInstanceUID, first.SOPInstanceUID) == (uids.series, uids.instance)
    assert written(Mask(mask.array.astype(np.uint32), mask.geometry, mask.labels)) == first
    others = [written(make_mask(source, seed=1)), written(mask, "labelmap")]
    models = [ModelIdentity(name, (digest * 16,)) for name, digest in (("a", "0"), ("b", "0"), ("a", "1"))]
    others += [written(mask, description=Description(model=model)) for model in models]  # whoever made equal voxels
    others.append(written(mask, description=Description("Leber")))
    assert len({first.SOPInstanceUID, *(other.SOPInstanceUID for other in others)}) == 7
    assert written(mask, description=Description(model=models[0])) == others[2]


MODEL = ModelIdentity("liver tumours", ("0123456789abcdef",))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_it_says_which_model_and_which_software_made_it(
    source: SeriesSource, encoding: Encoding, tmp_path: Path
) -> None:
    path = tmp_path / "mask.dcm"
    write_seg(make_mask(source), read_instances(source), path, encoding, Description("Größe: {labels}", MODEL))
    made = hd.seg.segread(path)
    assert made.SeriesDescription.startswith("Größe: ")
    assert made.SpecificCharacterSet == "ISO_IR 192"
    assert (made.Manufacturer, made.ManufacturerModelName, made.SoftwareVersions) == ("volseg", "volseg", __version__)
    model, *others = made.ContributingEquipmentSequence
    assert (model.ManufacturerModelName, model.SoftwareVersions) == ("liver tumours", "0123456789abcdef")
    assert [item.Manufacturer for item in others] == ["Highdicom open-source contributors"]
    for number in made.segment_numbers:
        segment = made.get_segment_description(number)
        assert (segment.algorithm_type.value, segment.SegmentAlgorithmName) == ("AUTOMATIC", "liver tumours")
        algorithm = segment.algorithm_identification
        assert (algorithm.name, algorithm.version, algorithm.source) == ("liver tumours", "0123456789abcdef", "volseg")
        assert algorithm.parameters == {"volseg": __version__, "model 1": "0123456789abcdef"}
    if encoding == "binary":  # the validator does not know label maps
        assert dciodvfy_errors(path) == []


def test_without_a_model_it_says_the_software_alone(source: SeriesSource, tmp_path: Path) -> None:
    write_seg(make_mask(source), read_instances(source), tmp_path / "mask.dcm")
    made = hd.seg.segread(tmp_path / "mask.dcm")
    algorithm = made.get_segment_description(1).algorithm_identification
    assert (algorithm.name, algorithm.version, algorithm.parameters) == ("volseg", __version__, None)
    assert [item.Manufacturer for item in made.ContributingEquipmentSequence] == ["Highdicom open-source contributors"]


# Masks that cannot be written


def test_masks_that_do_not_fit_are_refused(source: SeriesSource, tmp_path: Path) -> None:
    mask = make_mask(source)
    moved = mask.geometry.affine.copy()
    moved[0, 3] += 1
    path = tmp_path / "mask.dcm"
    with pytest.raises(GeometryError, match="the mask has 13x11x7"):
        write_seg(Mask(mask.array, Geometry(SHAPE, moved), mask.labels), read_instances(source), path)
    with pytest.raises(DataError, match="value 3, which has no label"):
        write_seg(Mask(mask.array, mask.geometry, mask.labels[:2]), read_instances(source), path)
    with pytest.raises(DataError, match="without labels"):
        write_seg(Mask(mask.array, mask.geometry), read_instances(source), path)
    with pytest.raises(DataError, match="two labels"):
        write_seg(Mask(mask.array, mask.geometry, (*mask.labels, mask.labels[0])), read_instances(source), path)
    assert not path.exists()


# Reading what others write


def others_seg(source: SeriesSource, pixels: NDArray[Any], path: Path, **options: Any) -> None:
    """A SEG as highdicom's documentation makes it: (K, J, I, segments)."""
    headers = [pydicom.dcmread(file) for file in map(str, source.files)]
    headers.sort(key=lambda header: header.ImagePositionPatient[2])
    algorithm = hd.AlgorithmIdentificationSequence("other", hd.sr.CodedConcept("123110", "DCM", "AI"), "1")
    code = hd.sr.CodedConcept("10200004", "SCT", "Liver")
    segments = [
        hd.seg.SegmentDescription(n + 1, f"label {n + 1}", code, code, "AUTOMATIC", algorithm)
        for n in range(pixels.shape[-1])
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hd.seg.Segmentation(
            headers,
            pixels,
            options.pop("segmentation_type", "BINARY"),
            segments,
            hd.UID(),
            1,
            hd.UID(),
            1,
            "other",
            "other",
            "1",
            "1",
            **options,
        ).save_as(path)


def test_overlapping_segments_are_each_whole(source: SeriesSource, tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).random((*SHAPE[::-1], 2)) > 0.4
    others_seg(source, pixels, tmp_path / "mask.dcm")
    found = read_all(tmp_path / "mask.dcm", read_instances(source).geometry)
    np.testing.assert_array_equal(found["label 1"], pixels[..., 0].T)
    np.testing.assert_array_equal(found["label 2"], pixels[..., 1].T)


@pytest.mark.parametrize("largest", [255, 100, 1])
def test_half_of_the_maximum_is_inside(source: SeriesSource, largest: int, tmp_path: Path) -> None:
    stored = np.random.default_rng(3).integers(0, largest + 1, (*SHAPE[::-1], 1))
    others_seg(
        source,
        stored / largest,
        tmp_path / "mask.dcm",
        segmentation_type="FRACTIONAL",
        max_fractional_value=largest,
    )
    found = read_all(tmp_path / "mask.dcm", read_instances(source).geometry)
    np.testing.assert_array_equal(found["label 1"], largest / 2 <= stored[..., 0].T)


@pytest.mark.parametrize(
    "syntax",
    [
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.JPEG2000Lossless,
    ],
    ids=lambda syntax: syntax.name,
)
def test_transfer_syntaxes(syntax: uid.UID, tmp_path: Path) -> None:
    source = make_series(tmp_path / "series", shape=(33, 35, 4))  # 1155 pixels a frame: no whole bytes
    pixels = np.random.default_rng(5).random((4, 35, 33, 2)) > 0.7
    path = tmp_path / "mask.dcm"
    if syntax == uid.JPEG2000Lossless:
        others_seg(source, pixels, path, transfer_syntax_uid=syntax)
    else:
        others_seg(source, pixels, path)
        change(path, lambda dataset: setattr(dataset.file_meta, "TransferSyntaxUID", syntax))
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    found = read_all(path, read_instances(source).geometry)
    np.testing.assert_array_equal(found["label 1"], pixels[..., 0].T)
    np.testing.assert_array_equal(found["label 2"], pixels[..., 1].T)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_grids_with_other_axes_are_filled_the_same(source: SeriesSource, encoding: Encoding, tmp_path: Path) -> None:
    mask = make_mask(source)
    write_seg(mask, read_instances(source), tmp_path / "mask.dcm", encoding)
    for order in STORAGE_ORDERS:
        found = read_all(tmp_path / "mask.dcm", mask.geometry.reordered(order))
        for label in mask.labels:
            np.testing.assert_array_equal(found[label.name], order.apply(mask.array) == label.value)


def test_the_order_of_frames_does_not_matter(source: SeriesSource, tmp_path: Path) -> None:
    mask = make_mask(source)
    write_seg(mask, read_instances(source), tmp_path / "mask.dcm", "labelmap")

    def shuffle(dataset: Dataset) -> None:
        order = np.random.default_rng(0).permutation(dataset.NumberOfFrames)
        frames = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=dataset.NumberOfFrames))
        dataset.PixelData = pydicom.encaps.encapsulate([frames[n] for n in order])
        groups = list(dataset.PerFrameFunctionalGroupsSequence)
        dataset.PerFrameFunctionalGroupsSequence = [groups[n] for n in order]

    assert_reads_back(change(tmp_path / "mask.dcm", shuffle), mask)


def test_a_part_of_the_image_is_filled(source: SeriesSource, tmp_path: Path) -> None:
    """A grid that lacks a border where nothing is marked, and one that lacks a marked voxel."""
    mask = make_mask(source)
    write_seg(mask, read_instances(source), tmp_path / "mask.dcm")
    first = np.argwhere(mask.array).min(axis=0)
    found = read_all(tmp_path / "mask.dcm", cropped(mask.geometry, first))
    assert first.min() > 0 or first[0] > 0
    np.testing.assert_array_equal(found["label 2"], mask.array[first[0] :, first[1] :, first[2] :] == 2)
    with pytest.raises(GeometryError, match="voxels outside the image"):
        read_all(tmp_path / "mask.dcm", cropped(mask.geometry, first + np.array([1, 0, 0])))


def cropped(geometry: Geometry, first: NDArray[Any]) -> Geometry:
    affine = geometry.affine.copy()
    affine[:3, 3] = geometry.world(first)
    return Geometry(tuple((np.array(geometry.shape) - first).tolist()), affine)


@pytest.mark.parametrize(
    ("change_grid", "message"),
    [
        (lambda affine: affine @ moved(0.5, 0, 0), "0.5 voxels off the grid"),
        (lambda affine: affine @ moved(0, 0, 0.06), "0.06 voxels off the grid"),
        (lambda affine: affine @ np.diag([2.0, 1, 1, 1]), "other pixel axes"),
        (lambda affine: affine @ np.diag([1.01, 1, 1, 1]), "voxels off the grid"),
        (lambda affine: affine @ np.diag([1, 1, 2.0, 1]), "0.5 voxels off the grid"),
        (lambda affine: turned(affine, 45), "other pixel axes"),
        (lambda affine: turned(affine, 1), "voxels off the grid"),
    ],
)
def test_grids_between_the_voxels_are_refused(
    change_grid: Callable[[NDArray[Any]], NDArray[Any]], message: str, source: SeriesSource, tmp_path: Path
) -> None:
    mask = make_mask(source)
    write_seg(mask, read_instances(source), tmp_path / "mask.dcm")
    with pytest.raises(GeometryError, match=message):
        read_all(tmp_path / "mask.dcm", Geometry(SHAPE, change_grid(mask.geometry.affine)))


def moved(*voxels: float) -> NDArray[Any]:
    matrix = np.eye(4)
    matrix[:3, 3] = voxels
    return matrix


def turned(affine: NDArray[Any], degrees: float) -> NDArray[Any]:
    turn = np.eye(4)
    turn[:3, :3] = rotation(2, degrees)
    return turn @ affine


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda d: setattr(d, "PixelData", d.PixelData[:40]), DataError, "holds 40 bytes of pixels"),
        (lambda d: delattr(d, "PixelData"), DataError, "cannot be decoded"),
        (lambda d: delattr(d, "SegmentSequence"), DataError, "not a DICOM Segmentation"),
        (lambda d: delattr(d.SegmentSequence[1], "SegmentNumber"), DataError, "without SegmentNumber"),
        (lambda d: setattr(d.SegmentSequence[1], "SegmentNumber", 1), DataError, "with the same number"),
        (lambda d: setattr(d.SegmentSequence[1], "SegmentNumber", 9), DataError, "does not describe segment 2"),
        (lambda d: setattr(d, "NumberOfFrames", 3), DataError, "states 3 frames, but describes 15"),
        (lambda d: delattr(d, "Rows"), DataError, "Rows and Columns"),
        (
            lambda d: delattr(d, "PerFrameFunctionalGroupsSequence"),
            GeometryError,
            "does not state where its frames lie in the patient",
        ),
        (
            lambda d: delattr(d, "SharedFunctionalGroupsSequence"),
            GeometryError,
            "does not state where its frames lie in the patient",
        ),
        (
            lambda d: delattr(d.PerFrameFunctionalGroupsSequence[2], "SegmentIdentificationSequence"),
            DataError,
            "which segment its frame 3 shows",
        ),
        (lambda d: setattr(d, "SegmentationType", "FRACTIONAL"), DataError, "MaximumFractionalValue"),
    ],
)
def test_damaged_files_are_refused_by_name(
    damage: Callable[[Dataset], Any], error: type[Exception], message: str, source: SeriesSource, tmp_path: Path
) -> None:
    mask = make_mask(source)
    write_seg(mask, read_instances(source), tmp_path / "broken.dcm")
    change(tmp_path / "broken.dcm", damage)
    with pytest.raises(error, match=message) as caught:
        read_all(tmp_path / "broken.dcm", mask.geometry)
    assert "broken.dcm" in str(caught.value)


def test_truncated_files_are_refused_by_name(source: SeriesSource, tmp_path: Path) -> None:
    mask = make_mask(source)
    write_seg(mask, read_instances(source), tmp_path / "whole.dcm")
    content = (tmp_path / "whole.dcm").read_bytes()
    for size in range(0, len(content) - 1, len(content) // 37):
        (tmp_path / "broken.dcm").write_bytes(content[:size])
        with pytest.raises(DataError, match=r"broken\.dcm"):
            read_all(tmp_path / "broken.dcm", mask.geometry)


# Real files


#: Files of others, what they lie on (a file or folder with the image, or nothing: then on themselves), and the number
#: of voxels of each segment or the reason why there are none.
REAL = {
    "highdicom/seg_image_ct_binary.dcm": [127 + 256 + 255],
    "highdicom/seg_image_ct_binary_fractional.dcm": [638],
    "highdicom/seg_image_ct_binary_overlap.dcm": [64, 16],
    "highdicom/seg_image_ct_binary_single_frame.dcm": [1832],
    "highdicom/seg_image_ct_true_fractional.dcm": [638],
    "highdicom/seg_image_cr_binary.dcm": "does not state where its frames lie in the patient",
    "pydicom/liver_1frame.dcm": "states no frames, but describes 3",
    "pydicom/liver_deflate.dcm": "is not supported",
    "pydicom/liver_expb.dcm": [107098],
    "pydicom/liver_j2k.dcm": [107098],
    "pydicom/liver_nonbyte_aligned.dcm": [107098],
    "pydicom/liver_rle.dcm": "RLE encoded pixel data with 1 bits",
}


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL)
def test_files_of_others(name: str, real_data: Path) -> None:
    path = real_data / "dicom_seg_rt" / name
    expected = REAL[name]
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            read_all(path, own_grid(path))
        return
    found = [(marked.segment, marked.voxels()) for marked in read_seg(path, own_grid(path))]
    assert [int(voxels.sum()) for _, voxels in found] == expected
    dataset = pydicom.dcmread(path)
    most = int(dataset.get("MaximumFractionalValue", 1))
    inside = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns) >= most / 2
    if len(found) == 1:  # the frames of a segment, in the order of their position
        np.testing.assert_array_equal(found[0][1].transpose(2, 1, 0), inside)


def own_grid(path: Path) -> Geometry:
    """The smallest grid that holds all frames of a file, by its own words; anything for one without any."""
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        return Geometry((1, 1, 1), np.eye(4))
    shared = dataset.SharedFunctionalGroupsSequence[0]
    groups = dataset.PerFrameFunctionalGroupsSequence
    if "PlaneOrientationSequence" not in shared:
        return Geometry((1, 1, 1), np.eye(4))
    positions = np.array([item.PlanePositionSequence[0].ImagePositionPatient for item in groups], dtype=float)
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
    step_j, step_i = (float(size) for size in shared.PixelMeasuresSequence[0].PixelSpacing)
    z = np.unique(positions[:, 2])
    step_k = float(np.diff(z).min()) if len(z) > 1 else 1.0
    shape = (dataset.Columns, dataset.Rows, round((z[-1] - z[0]) / step_k) + 1)
    direction = np.column_stack([cosines[:3], cosines[3:], [0, 0, 1]])
    return Geometry.from_lps(shape, (*positions[0, :2], z[0]), direction, (step_i, step_j, step_k))


@pytest.mark.real_data
def test_segments_of_others_lie_on_their_image(real_data: Path) -> None:
    folder = real_data / "dicom_seg_rt" / "highdicom"
    source = series_in(folder / "ct_image.dcm")
    geometry = read_instances(source).geometry
    path = folder / "seg_image_ct_binary_single_frame.dcm"
    assert discover(path).segments[0].series_uids == (source.series_uid,)
    (voxels,) = read_all(path, geometry).values()
    np.testing.assert_array_equal(voxels[..., 0].T, pydicom.dcmread(path).pixel_array)
