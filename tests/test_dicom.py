from __future__ import annotations

import logging
import os
import shutil
import struct
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813  # the library's own short name
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from volseg.errors import DataError, GeometryError
from volseg.image.geometry import AxisOrder, Geometry
from volseg.image.volume import Volume
from volseg.io.dicom import is_dicom, read_series, scan_dicom, write_series
from volseg.io.dicom.scan import Scan
from volseg.io.source import SeriesSource

SHAPE = (5, 4, 6)
AXIAL = np.eye(3)
#: Columns are the LPS directions of i, j and k.
ROTATED = np.array([[2, -1, 2], [2, 2, -1], [-1, 2, 2]]) / 3
LEFT_HANDED = ROTATED * [1, 1, -1]
SAGITTAL = np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]])
#: A gantry tilted by 20 degrees: slices step along z, their columns do not run along y.
TILTED = np.array([[1, 0, 0], [0, np.cos(np.radians(20)), 0], [0, np.sin(np.radians(20)), 1]])
REVERSED_K = AxisOrder((0, 1, 2), (False, False, True))


def make_volume(
    directions: np.ndarray = AXIAL,
    *,
    shape: tuple[int, int, int] = SHAPE,
    spacing_mm: tuple[float, float, float] = (0.7, 0.9, 2.5),
    origin_mm: tuple[float, float, float] = (-120.5, 33.25, -812.125),
    seed: int = 0,
) -> Volume:
    array = np.random.default_rng(seed).integers(-1024, 3000, (1, *shape)).astype(np.float32)
    return Volume(array, Geometry.from_lps(shape, origin_mm, directions, spacing_mm))


def scanned(folder: Path) -> SeriesSource:
    scan = scan_dicom(sorted(path for path in folder.rglob("*") if path.is_file()))
    assert not scan.set_aside
    assert len(scan.series) == 1
    return scan.series[0]


def read_folder(folder: Path) -> Volume:
    return read_series(scanned(folder))


def as_read(volume: Volume) -> Volume:
    """What a reader sees: slices in the order of the normal i x j."""
    if np.linalg.det(volume.geometry.affine[:3, :3]) > 0:
        return volume
    return Volume(REVERSED_K.apply(volume.array), volume.geometry.reordered(REVERSED_K))


def edit(path: Path, change: Callable[[Dataset], Any] | None = None, **elements: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path)
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        if change is not None:
            change(dataset)
        dataset.save_as(path)


def drop(path: Path, *keywords: str) -> None:
    edit(path, lambda dataset: [delattr(dataset, keyword) for keyword in keywords])


def patch(path: Path, old: bytes, new: bytes) -> None:
    """Break a value in a way no writer would: same length, other bytes."""
    data = path.read_bytes()
    assert len(old) == len(new)
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))


# Round trips


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize(
    "directions",
    [AXIAL, ROTATED, LEFT_HANDED, SAGITTAL, TILTED, -AXIAL],
    ids=["axial", "rotated", "left", "sag", "tilt", "minus"],
)
def test_what_is_written_is_read(directions: np.ndarray, modality: str, tmp_path: Path) -> None:
    volume = make_volume(directions)
    paths = write_series(volume, tmp_path, modality=modality)
    source = scanned(tmp_path)
    volume_read = read_series(source)
    assert source.traits.modality == modality
    assert sorted(source.files) == paths
    assert volume_read.array.dtype == np.float32
    np.testing.assert_array_equal(volume_read.array, as_read(volume).array)
    assert volume_read.geometry.distance_mm(as_read(volume).geometry) < 1e-6


@settings(max_examples=12)
@given(
    angles=st.tuples(*[st.floats(-np.pi, np.pi)] * 3),
    spacing_mm=st.tuples(*[st.floats(0.05, 12)] * 3),
    origin_mm=st.tuples(*[st.floats(-2000, 2000)] * 3),
    shear=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
    flip=st.booleans(),
)
def test_any_geometry_that_dicom_can_state_round_trips(
    angles: Sequence[float], spacing_mm: Any, origin_mm: Any, shear: Sequence[float], flip: bool
) -> None:
    a, b, c = angles
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    about_y = np.array([[np.cos(c), 0, np.sin(c)], [0, 1, 0], [-np.sin(c), 0, np.cos(c)]])
    k = np.array([*shear, -1 if flip else 1])
    sheared = np.column_stack([[1, 0, 0], [0, 1, 0], k / np.linalg.norm(k)])
    volume = make_volume(
        about_z @ about_x @ about_y @ sheared, shape=(3, 2, 3), spacing_mm=spacing_mm, origin_mm=origin_mm
    )
    with tempfile.TemporaryDirectory() as folder:
        write_series(volume, Path(folder))
        volume_read = read_folder(Path(folder))
    np.testing.assert_array_equal(volume_read.array, as_read(volume).array)
    assert volume_read.geometry.distance_mm(as_read(volume).geometry) < 1e-3


def test_affine_is_the_one_of_the_standard(tmp_path: Path) -> None:
    # PS3.3 equation C.7.6.2.1-1 by hand: pixel (column 3, row 2) of slice 1 of a sagittal stack.
    write_series(make_volume(SAGITTAL, spacing_mm=(0.5, 0.75, 4.0), origin_mm=(10.0, 20.0, 30.0)), tmp_path)
    first = pydicom.dcmread(tmp_path / "0001.dcm")
    assert first.PixelSpacing == [0.75, 0.5]  # between rows, between columns
    assert first.ImageOrientationPatient == [0, 1, 0, 0, 0, -1]
    assert (first.Columns, first.Rows) == SHAPE[:2]
    geometry = read_folder(tmp_path).geometry
    # SAGITTAL is left-handed (i x j points to -x), so the slices are found in reverse: slice 1 is now number 4.
    lps = np.array([10 + 1 * 4.0, 20 + 3 * 0.5, 30 - 2 * 0.75])
    np.testing.assert_allclose(geometry.world([3, 2, SHAPE[2] - 2]), lps * [-1, -1, 1], atol=1e-9)


def test_columns_are_i_and_rows_are_j(tmp_path: Path) -> None:
    volume = make_volume()
    write_series(volume, tmp_path)
    image = pydicom.dcmread(tmp_path / "0003.dcm")
    stored = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
    assert stored[2, 4] == volume.array[0, 4, 2, 2]  # row 2, column 4
    assert read_folder(tmp_path).array[0, 4, 2, 2] == stored[2, 4]


@pytest.mark.parametrize("directions", [AXIAL, ROTATED, LEFT_HANDED])
def test_itk_reads_the_same_grid(directions: np.ndarray, tmp_path: Path) -> None:
    write_series(make_volume(directions), tmp_path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    volume = read_folder(tmp_path)
    itk_geometry = Geometry.from_lps(
        image.GetSize(), image.GetOrigin(), np.reshape(image.GetDirection(), (3, 3)), image.GetSpacing()
    )
    assert volume.geometry.distance_mm(itk_geometry) < 1e-3
    np.testing.assert_array_equal(volume.array[0], sitk.GetArrayFromImage(image).transpose(2, 1, 0))


@pytest.mark.parametrize(
    "values", [[0, 65535], [-32768, 32767], [-40000, 25535], [7, 7], [100000, 165535], [0, 1], [-0.0, 5]]
)
def test_whole_numbers_round_trip_exactly(values: list[float], tmp_path: Path) -> None:
    array = np.resize(np.float32(values), (1, 2, 2, 2))
    write_series(Volume(array, make_volume(shape=(2, 2, 2)).geometry), tmp_path)
    np.testing.assert_array_equal(read_folder(tmp_path).array, array)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (1e-7, 3e-7), (-5e6, 1e7), (0.25, 0.25), (-3e30, 2e30)])
def test_other_numbers_come_back_within_half_a_step(low: float, high: float, tmp_path: Path) -> None:
    array = np.random.default_rng(1).uniform(low, high, (1, 4, 4, 3)).astype(np.float32)
    write_series(Volume(array, make_volume(shape=(4, 4, 3)).geometry), tmp_path)
    step = (float(array.max()) - float(array.min())) / 65535
    error = np.abs(read_folder(tmp_path).array.astype(np.float64) - array)
    assert error.max() <= 0.5 * step * 1.001 + 1e-6 * np.abs(array).max()


def test_written_files_are_valid_and_anonymous(tmp_path: Path) -> None:
    for path in write_series(make_volume(ROTATED), tmp_path, modality="CT", series_description="Übersicht"):
        image = pydicom.dcmread(path)  # warnings are errors: every value is one its VR allows
        for element in image.iterall():
            if element.VR == "DS" and element.value is not None:
                parts = element.value if element.VM > 1 else [element.value]
                assert max(len(str(part)) for part in parts) <= 16
        assert image.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian
        assert image.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
        assert str(image.PatientName) == image.PatientID == "ANONYMOUS"
        assert image.SeriesDescription == "Übersicht"
        assert image.RescaleSlope == 1
    images = [pydicom.dcmread(path) for path in sorted(tmp_path.iterdir())]
    assert len({image.SOPInstanceUID for image in images}) == len(images)
    assert len({image.SeriesInstanceUID for image in images}) == 1


def test_two_writes_are_two_series(tmp_path: Path) -> None:
    for name in "ab":
        write_series(make_volume(), tmp_path / name)
    assert len(scan_dicom(tmp_path.rglob("*.dcm")).series) == 2


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    volume = make_volume()
    with pytest.raises(DataError, match="one channel"):
        write_series(Volume(np.repeat(volume.array, 2, axis=0), volume.geometry), tmp_path)
    with pytest.raises(DataError, match="not finite"):
        write_series(Volume(np.full_like(volume.array, np.nan), volume.geometry), tmp_path)
    with pytest.raises(DataError, match="'US'"):
        write_series(volume, tmp_path, modality="US")
    skewed = np.column_stack([[1, 0, 0], [0.6, 0.8, 0], [0, 0, 1]])
    with pytest.raises(GeometryError, match="not orthogonal"):
        write_series(make_volume(skewed), tmp_path)
    assert not list(tmp_path.iterdir())


# Order, splitting, accounting


def test_names_and_instance_numbers_do_not_matter(tmp_path: Path) -> None:
    volume = make_volume(ROTATED)
    paths = write_series(volume, tmp_path / "written")
    order = np.random.default_rng(3).permutation(len(paths))
    (tmp_path / "shuffled" / "deep").mkdir(parents=True)
    for path, place in zip(paths, order, strict=True):
        edit(path, InstanceNumber=int(place))
        shutil.move(path, tmp_path / "shuffled" / ("deep/x" if place == 0 else f"IM{place}"))
    source = scanned(tmp_path)
    assert source.folder == tmp_path / "shuffled"
    np.testing.assert_array_equal(read_series(source).array, volume.array)
    backwards = SeriesSource(source.folder, source.files[::-1], source.series_uid)
    np.testing.assert_array_equal(read_series(backwards).array, volume.array)


def test_files_are_listed_along_the_normal(tmp_path: Path) -> None:
    write_series(make_volume(LEFT_HANDED), tmp_path)
    assert [path.name for path in scanned(tmp_path).files] == [f"{k:04d}.dcm" for k in (6, 5, 4, 3, 2, 1)]


def test_interleaved_series_are_split(tmp_path: Path) -> None:
    volumes = [make_volume(seed=1), make_volume(ROTATED, seed=2)]
    for number, volume in enumerate(volumes, start=1):
        for path in write_series(volume, tmp_path / "in"):
            edit(path, SeriesNumber=number)
            path.rename(tmp_path / f"{path.stem}-{number}")
    scan = scan_dicom(sorted(path for path in tmp_path.iterdir() if path.is_file()))
    series, set_aside = scan.series, scan.set_aside
    assert not set_aside
    assert [source.traits.number for source in series] == [1, 2]
    for source, volume in zip(series, volumes, strict=True):
        np.testing.assert_array_equal(read_series(source).array, volume.array)


@pytest.mark.parametrize(
    "other",
    [make_volume(ROTATED), make_volume(shape=(4, 5, 6)), make_volume(spacing_mm=(0.7, 0.8, 2.5))],
    ids=["orientation", "matrix", "spacing"],
)
def test_one_series_uid_with_two_grids_is_two_sources(other: Volume, tmp_path: Path) -> None:
    for name, volume in (("a", make_volume()), ("b", other)):
        for path in write_series(volume, tmp_path / name):
            edit(path, SeriesInstanceUID="1.2.3")
    series = scan_dicom(sorted(tmp_path.rglob("*.dcm"))).series
    assert [source.series_uid for source in series] == ["1.2.3", "1.2.3"]
    assert sorted(len(source.files) for source in series) == [6, 6]
    for source in series:
        read_series(source)
    mixed = SeriesSource(tmp_path, series[0].files + series[1].files, "1.2.3")
    with pytest.raises(GeometryError, match="differ in matrix, pixel spacing or orientation"):
        read_series(mixed)


def test_orientation_noise_does_not_split(tmp_path: Path) -> None:
    paths = write_series(make_volume(), tmp_path)
    edit(paths[2], ImageOrientationPatient=["1", "0.000012", "0", "-0.000012", "1", "0"])
    assert len(scanned(tmp_path).files) == len(paths)


def test_progress_reports_every_candidate(tmp_path: Path) -> None:
    paths = [*write_series(make_volume(), tmp_path), tmp_path / "notes.txt"]
    paths[-1].write_text("not DICOM")
    calls: list[tuple[str, int, int]] = []
    scan_dicom(paths, lambda stage, done, total, note="": calls.append((stage, done, total)))
    assert calls == [("scan", 7, 7)]


# What is DICOM


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian])
def test_files_without_meta_information_are_read(syntax: str, tmp_path: Path) -> None:
    volume = make_volume()
    for path in write_series(volume, tmp_path):
        dataset = pydicom.dcmread(path)
        dataset.file_meta, dataset.preamble = FileMetaDataset(), None
        pydicom.dcmwrite(
            path, dataset, implicit_vr=syntax == uid.ImplicitVRLittleEndian, little_endian=True, force_encoding=True
        )
        assert path.read_bytes()[128:132] != b"DICM"
        assert is_dicom(path)
    np.testing.assert_array_equal(read_folder(tmp_path).array, volume.array)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"DICM" * 3,
        b"\x08\x00" * 300,
        b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100" + b"\xff" * 300,
        struct.pack("<HHL", 8, 0x16, 26) + b"1.2.840.10008.5.1.4.1.1.4\0" + struct.pack("<HHL", 8, 0x05, 4),
        b"Notes about a scan. " * 50,
        b"\x1f\x8b\x08\x00" + bytes(range(256)) * 4,
    ],
)
def test_other_files_are_passed_over(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert not is_dicom(path)
    assert scan_dicom([path]) == Scan((), (), (), ignored=1)
    assert not is_dicom(tmp_path)
    assert not is_dicom(tmp_path / "missing")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_set_aside(tmp_path: Path) -> None:
    path = write_series(make_volume(shape=(2, 2, 1)), tmp_path)[0]
    path.chmod(0)
    scan = scan_dicom([path])
    series, set_aside = scan.series, scan.set_aside
    assert not series
    assert "Permission denied" in set_aside[0].reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer"),
        ({"ImageType": ["DERIVED", "SECONDARY", "PROJECTION IMAGE"]}, "a projection"),
        ({"SOPClassUID": uid.RTDoseStorage}, "RT Dose Storage: not an image of the patient"),
        (
            {"SOPClassUID": uid.UltrasoundImageStorage, "ImagePositionPatient": None},
            "Ultrasound Image Storage: not a slice",
        ),
        ({"SamplesPerPixel": 3}, "a colour image"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "a colour image"),
        ({"Rows": None, "Columns": None}, "read"),
    ],
)
def test_what_is_no_volume_is_set_aside(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    path = write_series(make_volume(shape=(2, 2, 1)), tmp_path)[0]
    edit(path, **change)
    scan = scan_dicom([path])
    series, set_aside = scan.series, scan.set_aside
    if reason == "read":  # a matrix that is stated, but empty, is a fault of a slice
        with pytest.raises(GeometryError, match="Rows and Columns"):
            read_series(series[0])
    else:
        assert not series
        assert reason in set_aside[0].reason


def test_no_series_uid_is_set_aside(tmp_path: Path) -> None:
    path = write_series(make_volume(shape=(2, 2, 1)), tmp_path)[0]
    edit(path, SeriesInstanceUID="")
    assert "without SeriesInstanceUID" in scan_dicom([path]).set_aside[0].reason
    drop(path, "SeriesInstanceUID")
    assert "without SeriesInstanceUID" in scan_dicom([path]).set_aside[0].reason


@pytest.mark.parametrize("size", [132, 140, 300, 500, 700, 900, 1000, 1100])
def test_a_cut_header_is_accounted_for(size: int, tmp_path: Path) -> None:
    whole = write_series(make_volume(), tmp_path)[0]
    cut = tmp_path / "cut"
    cut.write_bytes(whole.read_bytes()[:size])
    scan = scan_dicom([cut])
    series, set_aside = scan.series, scan.set_aside
    assert len(series) + len(set_aside) == 1
    for source in series:
        with pytest.raises(DataError, match="cut"):
            read_series(source)
    for item in set_aside:
        assert item.reason


# Geometry that cannot be trusted


@pytest.mark.parametrize("gone", [1, 2, 3, 4])
def test_a_missing_slice_is_refused_with_the_gap(gone: int, tmp_path: Path) -> None:
    write_series(make_volume(), tmp_path)[gone].unlink()
    with pytest.raises(
        GeometryError, match=rf"(?m)slices {gone} and {gone + 1} lie 5 mm apart where the others lie 2.5 mm apart$"
    ):
        read_folder(tmp_path)


def test_one_gap_of_two_is_named(tmp_path: Path) -> None:
    write_series(make_volume(shape=(4, 4, 4)), tmp_path)[1].unlink()
    with pytest.raises(GeometryError, match=r"slices 1 and 2 lie 5 mm apart where the others lie 2.5 mm apart"):
        read_folder(tmp_path)


def test_drift_within_the_plane_is_refused(tmp_path: Path) -> None:
    paths = write_series(make_volume(origin_mm=(0, 0, 0)), tmp_path)
    for k, path in enumerate(paths):  # a bend, too small to show between neighbours
        edit(path, ImagePositionPatient=[f"{0.005 * k * k:.6f}", "0", f"{2.5 * k}"])
    with pytest.raises(GeometryError, match=r"slice [34] lies 0.03 mm off the even line"):
        read_folder(tmp_path)


def test_a_shifted_slice_is_refused(tmp_path: Path) -> None:
    paths = write_series(make_volume(origin_mm=(0, 0, 0)), tmp_path)
    edit(paths[3], ImagePositionPatient=[1, 0, 7.5])
    with pytest.raises(GeometryError, match=r"lie 2.69.* mm apart where the others lie 2.5 mm apart, .*: 2 of 5"):
        read_folder(tmp_path)


def test_rounded_positions_are_accepted(tmp_path: Path) -> None:
    paths = write_series(make_volume(spacing_mm=(1, 1, 0.625), origin_mm=(0, 0, 0)), tmp_path)
    for k, path in enumerate(paths):
        edit(path, ImagePositionPatient=["0", "0", f"{0.625 * k:.2f}"])
    assert read_folder(tmp_path).geometry.spacing_mm[2] == pytest.approx(0.625, abs=2e-3)


def test_images_side_by_side_are_refused(tmp_path: Path) -> None:
    for k, path in enumerate(write_series(make_volume(), tmp_path)):
        edit(path, ImagePositionPatient=[10 * k, 0, 0])
    with pytest.raises(GeometryError, match="side by side"):
        read_folder(tmp_path)


def test_gantry_tilt_stays_a_shear(tmp_path: Path) -> None:
    write_series(make_volume(TILTED, spacing_mm=(0.5, 0.5, 3.0)), tmp_path)
    geometry = read_folder(tmp_path).geometry
    np.testing.assert_allclose(geometry.affine[:3, 2], [0, 0, 3], atol=1e-6)
    assert geometry.direction[:, 1] @ geometry.direction[:, 2] == pytest.approx(np.sin(np.radians(20)))
    first = pydicom.dcmread(tmp_path / "0001.dcm")
    assert float(first.SpacingBetweenSlices) == pytest.approx(3 * np.cos(np.radians(20)))


def test_single_slice_takes_its_step_from_the_header(tmp_path: Path) -> None:
    path = write_series(make_volume(ROTATED, shape=(4, 4, 1)), tmp_path)[0]
    edit(path, SpacingBetweenSlices="4.5", SliceThickness="3")
    geometry = read_folder(tmp_path).geometry
    assert geometry.spacing_mm == pytest.approx((0.7, 0.9, 4.5))
    np.testing.assert_allclose(geometry.direction[:, 2] * [-1, -1, 1], ROTATED[:, 2], atol=1e-9)
    drop(path, "SpacingBetweenSlices")
    assert read_folder(tmp_path).geometry.spacing_mm[2] == pytest.approx(3)
    edit(path, SliceThickness=None)
    with pytest.raises(GeometryError, match="neither SpacingBetweenSlices nor SliceThickness"):
        read_folder(tmp_path)
    edit(path, SliceThickness="-3")
    with pytest.raises(GeometryError, match=r"SliceThickness .* must be positive"):
        read_folder(tmp_path)


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
@pytest.mark.parametrize("empty", [True, False])
def test_missing_geometry_fails_the_whole_series_by_name(keyword: str, empty: bool, tmp_path: Path) -> None:
    broken = write_series(make_volume(), tmp_path)[-1]
    if empty:
        edit(broken, **{keyword: None})
    else:
        drop(broken, keyword)
    source = scanned(tmp_path)
    assert len(source.files) == SHAPE[2]  # never a smaller volume
    with pytest.raises(GeometryError, match=rf"0006\.dcm does not state {keyword}"):
        read_series(source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"PixelSpacing": [0, 1]}, "PixelSpacing .* must be positive"),
        ({"PixelSpacing": [1, -1]}, "PixelSpacing .* must be positive"),
        ({"PixelSpacing": [1]}, "PixelSpacing .* must be 2 finite numbers, it is 1"),
        ({"ImagePositionPatient": [1, 2]}, "must be 3 finite numbers"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0.9, 0]}, "not a pair of orthogonal unit vectors"),
        ({"ImageOrientationPatient": [1, 0, 0, 0.6, 0.8, 0]}, "not a pair of orthogonal unit vectors"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "not a pair of orthogonal unit vectors"),
    ],
)
def test_impossible_geometry_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    for path in write_series(make_volume(), tmp_path):
        edit(path, **change)
    with pytest.raises(GeometryError, match=message):
        read_folder(tmp_path)


@pytest.mark.parametrize("word", [b"0.9\\abc", b"0.9\\nan", b"0.9\\inf", b"0.9\\\xff\xfe0", b"0.9,0.7"])
def test_words_where_numbers_belong_are_refused(word: bytes, tmp_path: Path) -> None:
    path = write_series(make_volume(), tmp_path)[0]
    patch(path, b"0.9\\0.7", word)
    with pytest.raises(GeometryError, match=r"PixelSpacing of .*0001\.dcm"):
        read_folder(tmp_path)


# Copies and 4D


def test_identical_copies_count_once_and_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    volume = make_volume()
    paths = write_series(volume, tmp_path)
    for path in paths[2:4]:
        shutil.copy(path, tmp_path / f"copy-{path.name}")
    with caplog.at_level(logging.WARNING, logger="volseg"):
        volume_read = read_folder(tmp_path)
    np.testing.assert_array_equal(volume_read.array, volume.array)
    assert "2 identical copies" in caplog.text


def test_time_points_are_a_4d_series(tmp_path: Path) -> None:
    for seed in range(3):
        for path in write_series(make_volume(seed=seed), tmp_path / str(seed)):
            edit(path, SeriesInstanceUID="1.2.3")
    with pytest.raises(DataError, match="a 4D series: 3 images at each of 6 positions"):
        read_folder(tmp_path)


def test_one_differing_repeat_is_refused(tmp_path: Path) -> None:
    paths = write_series(make_volume(), tmp_path)
    shutil.copy(paths[2], tmp_path / "again")
    edit(tmp_path / "again", RescaleSlope="2")  # same stored pixels, other values
    with pytest.raises(DataError, match=r"different images of the same slice \(0003.dcm, again\)"):
        read_folder(tmp_path)


# Values


def test_every_slice_has_its_own_rescale(tmp_path: Path) -> None:
    volume = make_volume()
    for k, path in enumerate(write_series(volume, tmp_path)):
        edit(path, RescaleSlope=str(0.1 * (k + 1)), RescaleIntercept=str(-k))
    k = np.arange(SHAPE[2])
    expected = (volume.array.astype(np.float64) * 0.1 * (k + 1) - k).astype(np.float32)
    np.testing.assert_allclose(read_folder(tmp_path).array, expected, rtol=1e-7)


def test_no_rescale_means_the_stored_values(tmp_path: Path) -> None:
    volume = make_volume()
    for path in write_series(volume, tmp_path):
        drop(path, "RescaleSlope", "RescaleIntercept")
    np.testing.assert_array_equal(read_folder(tmp_path).array, volume.array)


@pytest.mark.parametrize("change", [{"RescaleSlope": None}, {"RescaleSlope": "0"}, {"RescaleIntercept": None}])
def test_half_a_rescale_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    for path in write_series(make_volume(), tmp_path):
        edit(path, **change)
    with pytest.raises(DataError, match="Rescale"):
        read_folder(tmp_path)


def test_monochrome1_and_padding_stay_as_measured(tmp_path: Path) -> None:
    volume = make_volume()
    for path in write_series(volume, tmp_path):
        edit(
            path,
            lambda dataset: dataset.add_new("PixelPaddingValue", "SS", int(volume.array.min())),
            PhotometricInterpretation="MONOCHROME1",
        )
    np.testing.assert_array_equal(read_folder(tmp_path).array, volume.array)


def test_siemens_mosaic_is_refused_by_name(tmp_path: Path) -> None:
    for path in write_series(make_volume(), tmp_path):
        edit(path, ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
    with pytest.raises(DataError, match="Siemens mosaic"):
        read_folder(tmp_path)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_cut_pixels_are_refused(keep: float, tmp_path: Path) -> None:
    path = write_series(make_volume(shape=(16, 16, 2)), tmp_path)[1]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 512 + int(512 * keep)])
    with pytest.raises(DataError, match=r"0002\.dcm"):
        read_folder(tmp_path)


def test_nothing_of_pydicom_spills(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = write_series(make_volume(), tmp_path)
    for path in paths:  # pydicom warns of it, and logs it
        edit(path, SeriesInstanceUID="no UID")
    patch(paths[0], b"0.9\\0.7", b"0.9\\abc")
    caplog.clear()
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(GeometryError):
            read_folder(tmp_path)
    assert not caught
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


# Enhanced multi-frame


def item(**elements: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def write_enhanced(volume: Volume, path: Path, order: Sequence[int]) -> None:
    """The same volume as one enhanced MR file, its frames in the given order, slope k + 1 for slice k."""
    slices = write_series(volume, path.parent / "classic")
    dataset = pydicom.dcmread(slices[0])
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid.EnhancedMRImageStorage
    dataset.NumberOfFrames = len(order)
    dataset.PixelData = b"".join(pydicom.dcmread(slices[k]).PixelData for k in order)
    dataset.SharedFunctionalGroupsSequence = [
        item(
            PlaneOrientationSequence=[item(ImageOrientationPatient=dataset.ImageOrientationPatient)],
            PixelMeasuresSequence=[item(PixelSpacing=dataset.PixelSpacing, SliceThickness="2.5")],
        )
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=pydicom.dcmread(slices[k]).ImagePositionPatient)],
            PixelValueTransformationSequence=[item(RescaleSlope=k + 1, RescaleIntercept=0)],
        )
        for k in order
    ]
    for keyword in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "RescaleSlope"):
        delattr(dataset, keyword)
    del dataset.RescaleIntercept, dataset.SliceThickness, dataset.SpacingBetweenSlices
    dataset.save_as(path)
    shutil.rmtree(path.parent / "classic")


def test_enhanced_frames_are_placed_like_files(tmp_path: Path) -> None:
    volume = make_volume(ROTATED)
    write_enhanced(volume, tmp_path / "enhanced", order=[3, 0, 5, 1, 4, 2])
    volume_read = read_folder(tmp_path)
    np.testing.assert_array_equal(volume_read.array, volume.array * np.arange(1, 7, dtype=np.float32))
    assert volume_read.geometry.matches(volume.geometry)


def test_enhanced_faults_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "enhanced"
    write_enhanced(make_volume(), path, order=[0, 1, 3, 4])
    with pytest.raises(GeometryError, match="slices 2 and 3 lie 5 mm apart"):
        read_folder(tmp_path)
    write_enhanced(make_volume(), path, order=[0, 0, 1, 1])
    edit(
        path,
        lambda d: setattr(d.PerFrameFunctionalGroupsSequence[1].PixelValueTransformationSequence[0], "RescaleSlope", 9),
    )
    with pytest.raises(DataError, match=r"different images of the same slice|4D"):
        read_folder(tmp_path)
    write_enhanced(make_volume(), path, order=[0, 1, 2])
    edit(path, lambda d: delattr(d.PerFrameFunctionalGroupsSequence[1], "PlanePositionSequence"))
    with pytest.raises(GeometryError, match="does not state the PlanePositionSequence"):
        read_folder(tmp_path)
    edit(path, NumberOfFrames=5)
    with pytest.raises(DataError, match="states 5 frames, but describes 3"):
        read_folder(tmp_path)
    edit(path, InConcatenationTotalNumber=3)
    with pytest.raises(DataError, match="one of 3 parts"):
        read_folder(tmp_path)


# Real files

READ = "read"
#: What happens to each file or folder on its own: read, set aside because ..., or refused because ...
#: Objects that mark structures, which test_seg and test_rtstruct read.
SEGMENTS = "segments"
REAL = {
    "dicom/classic_4d_ge_epi": READ,
    "dicom/dicomdir_study/DICOMDIR": "aside: DICOMDIR",
    "dicom/dicomdir_study/77654033/CR1": "aside: Computed Radiography Image Storage: not a slice",
    "dicom/dicomdir_study/77654033/CR2": "aside: Computed Radiography Image Storage: not a slice",
    "dicom/dicomdir_study/77654033/CR3": "aside: Computed Radiography Image Storage: not a slice",
    "dicom/dicomdir_study/77654033/CT2": "refused: slices 1 and 2 lie 202.5 mm apart where the others lie 1.25 mm",
    "dicom/dicomdir_study/98892001/CT2N": "aside: a localizer",
    "dicom/dicomdir_study/98892001/CT5N": READ,
    "dicom/dicomdir_study/98892003/MR1": READ,
    "dicom/dicomdir_study/98892003/MR2": READ,
    "dicom/dicomdir_study/98892003/MR700": "aside: a projection",
    "dicom/enhanced_pydicom/eCT_Supplemental.dcm": READ,
    "dicom/enhanced_pydicom/emri_small.dcm": "refused: several frames without functional groups",
    "dicom/enhanced_pydicom/emri_small_RLE.dcm": "refused: several frames without functional groups",
    "dicom/enhanced_pydicom/emri_small_big_endian.dcm": "refused: several frames without functional groups",
    "dicom/enhanced_pydicom/emri_small_jpeg_2k_lossless.dcm": "refused: several frames without functional groups",
    "dicom/enhanced_pydicom/emri_small_jpeg_2k_lossless_too_short.dcm": "refused: holds no pixel data, or is truncated",
    "dicom/enhanced_pydicom/emri_small_jpeg_ls_lossless.dcm": "refused: several frames without functional groups",
    "dicom/single_files/693_J2KI.dcm": READ,
    "dicom/single_files/693_UNCI.dcm": READ,
    "dicom/single_files/CT_small.dcm": READ,
    "dicom/single_files/ExplVR_BigEnd.dcm": "aside: Ultrasound Image Storage: a colour image",
    "dicom/single_files/JPEG-lossy.dcm": "aside: Secondary Capture Image Storage: not a slice",
    "dicom/single_files/MR-SIEMENS-DICOM-WithOverlays.dcm": READ,
    "dicom/single_files/MR_small.dcm": READ,
    "dicom/single_files/MR_small_RLE.dcm": READ,
    "dicom/single_files/MR_small_bigendian.dcm": READ,
    "dicom/single_files/MR_small_expb.dcm": READ,
    "dicom/single_files/MR_small_implicit.dcm": READ,
    "dicom/single_files/MR_small_jp2klossless.dcm": READ,
    "dicom/single_files/MR_small_jpeg_ls_lossless.dcm": READ,
    "dicom/single_files/MR_truncated.dcm": "refused: 8130 vs 8192 bytes",
    "dicom/single_files/SC_rgb.dcm": "aside: a colour image",
    "dicom/single_files/bad_sequence.dcm": READ,
    "dicom/single_files/meta_missing_tsyntax.dcm": "aside: holds no image",
    "dicom/single_files/slicethickness_empty_string.dcm": "aside: a projection",
    "dicom/single_files/test-SR.dcm": "aside: Comprehensive SR Storage: holds no image",
    "dicom/transfer_syntaxes_wg04/J2KI": READ,
    "dicom/transfer_syntaxes_wg04/J2KR": READ,
    "dicom/transfer_syntaxes_wg04/JLSL": READ,
    "dicom/transfer_syntaxes_wg04/JLSN": READ,
    "dicom/transfer_syntaxes_wg04/JPLL": READ,
    "dicom/transfer_syntaxes_wg04/JPLY": READ,
    "dicom/transfer_syntaxes_wg04/REF": READ,
    "dicom/transfer_syntaxes_wg04/RLE": READ,
    "dicom_seg_rt/highdicom/ct_image.dcm": READ,
    "dicom_seg_rt/highdicom/source_ct_77654033_CT2": "refused: slices 1 and 2 lie 202.5 mm apart",
    "dicom_seg_rt/highdicom/seg_image_cr_binary.dcm": SEGMENTS,
    "dicom_seg_rt/highdicom/seg_image_ct_binary.dcm": SEGMENTS,
    "dicom_seg_rt/highdicom/seg_image_ct_binary_fractional.dcm": SEGMENTS,
    "dicom_seg_rt/highdicom/seg_image_ct_binary_overlap.dcm": SEGMENTS,
    "dicom_seg_rt/highdicom/seg_image_ct_binary_single_frame.dcm": SEGMENTS,
    "dicom_seg_rt/highdicom/seg_image_ct_true_fractional.dcm": SEGMENTS,
    "dicom_seg_rt/pydicom/liver_1frame.dcm": SEGMENTS,
    "dicom_seg_rt/pydicom/liver_deflate.dcm": SEGMENTS,
    "dicom_seg_rt/pydicom/liver_expb.dcm": SEGMENTS,
    "dicom_seg_rt/pydicom/liver_j2k.dcm": SEGMENTS,
    "dicom_seg_rt/pydicom/liver_nonbyte_aligned.dcm": SEGMENTS,
    "dicom_seg_rt/pydicom/liver_rle.dcm": SEGMENTS,
    "dicom_seg_rt/pydicom/rtdose.dcm": "aside: RT Dose Storage",
    "dicom_seg_rt/pydicom/rtdose_expb.dcm": "aside: RT Dose Storage",
    "dicom_seg_rt/pydicom/rtplan.dcm": "aside: RT Plan Storage: holds no image",
    "dicom_seg_rt/pydicom/rtstruct.dcm": SEGMENTS,
    "dicom_seg_rt/rt-utils/empty": SEGMENTS,
    "dicom_seg_rt/rt-utils/mock_data/ct_1.dcm": READ,
    "dicom_seg_rt/rt-utils/mock_data/ct_2.dcm": READ,
    "dicom_seg_rt/rt-utils/mock_data/invalid_reference_rt.dcm": SEGMENTS,
    "dicom_seg_rt/rt-utils/mock_data/non_existent_reference_rt.dcm": SEGMENTS,
    "dicom_seg_rt/rt-utils/mock_data/rt.dcm": SEGMENTS,
    "dicom_seg_rt/rt-utils/one_slice_data": "refused: neither SpacingBetweenSlices nor SliceThickness",
    "dicom_seg_rt/rt-utils/oriented_data": READ,
}


def files_of(place: Path) -> list[Path]:
    return [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())


@pytest.mark.real_data
@pytest.mark.parametrize(("place", "outcome"), REAL.items(), ids=list(REAL))
def test_real_files(place: str, outcome: str, real_data: Path) -> None:
    scan = scan_dicom(files_of(real_data / place))
    series, set_aside = scan.series, scan.set_aside
    assert bool(scan.segments) == (outcome == SEGMENTS)
    if outcome == SEGMENTS:
        return
    kind, _, reason = outcome.partition(": ")
    assert bool(set_aside) == (kind == "aside")
    assert bool(series) == (kind != "aside")
    for found in set_aside:
        assert reason in found.reason
    for source in series:
        if kind == "refused":
            with pytest.raises(DataError) as error:
                read_series(source)
            assert reason in str(error.value)
        else:
            assert_like_itk(source)


def assert_like_itk(source: SeriesSource) -> None:
    """ITK stacks files in the given order, too; a multi-frame file it may hold in the reverse of ours."""
    volume = read_series(source)
    image = sitk.ReadImage([str(path) for path in source.files] if len(source.files) > 1 else str(source.files[0]))
    expected = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    reverse = volume.geometry.distance_mm(itk_grid(image)) > 1e-3 and image.GetSize()[2] > 1
    seen = volume if not reverse else Volume(REVERSED_K.apply(volume.array), volume.geometry.reordered(REVERSED_K))
    header = pydicom.dcmread(source.files[0], stop_before_pixels=True)
    tolerance = 2 if header.file_meta.TransferSyntaxUID == uid.JPEGExtended12Bit else 1e-6
    np.testing.assert_allclose(seen.array[0], expected, atol=tolerance)
    assert seen.geometry.distance_mm(itk_grid(image)) < 2e-3


def itk_grid(image: sitk.Image) -> Geometry:
    return Geometry.from_lps(
        image.GetSize(), image.GetOrigin(), np.reshape(image.GetDirection(), (3, 3)), image.GetSpacing()
    )


@pytest.mark.real_data
def test_every_dicom_file_is_accounted_for_once(real_data: Path) -> None:
    files = [path for folder in ("dicom", "dicom_seg_rt") for path in files_of(real_data / folder)]
    scan = scan_dicom(files)
    series, set_aside = scan.series, scan.set_aside
    found = [*(path for source in series for path in source.files), *(source.path for source in scan.segments)]
    seen = Counter([*found, *(item.path for item in set_aside)])
    assert set(seen.values()) == {1}
    assert set(files) - set(seen) == {real_data / "dicom_seg_rt/rt-utils/oriented_data/info.txt"}
    assert all(found.reason for found in set_aside)
    assert [found.path for found in set_aside] == sorted(found.path for found in set_aside)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("sample", "mean_error"),
    [
        ("J2KR/CT2", 0),
        ("J2KR/MR1", 0),
        ("JLSL/CT2", 0),
        ("JLSL/MR1", 0),
        ("JPLL/CT2", 0),
        ("JPLL/MR1", 0),
        ("RLE/CT2", 0),
        ("RLE/MR1", 0),
        ("JLSN/CT2", 3),
        ("JLSN/MR1", 3),
        ("J2KI/CT2", 40),
        ("J2KI/MR1", 40),
        ("JPLY/MR1", 40),
    ],
)
def test_compressed_equals_uncompressed(sample: str, mean_error: float, real_data: Path) -> None:
    folder = real_data / "dicom/transfer_syntaxes_wg04"
    syntax, name = sample.split("/")
    path = folder / syntax / f"{name}_{syntax}"
    reference, compressed = (read_series(scan_dicom([file]).series[0]) for file in (folder / f"REF/{name}_UNC", path))
    error = np.abs(reference.array - compressed.array).mean()
    assert error <= mean_error
    assert (error > 0) == (mean_error > 0)
    assert compressed.geometry.matches(reference.geometry)


@pytest.mark.real_data
@pytest.mark.parametrize("syntax", ["J2KI", "J2KR", "JLSL", "JLSN", "JPLL", "JPLY", "RLE"])
@pytest.mark.parametrize("inside", [True, False], ids=["stream cut", "file cut"])
def test_cut_compressed_pixels_are_refused(
    syntax: str, inside: bool, real_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cut"
    data = (real_data / f"dicom/transfer_syntaxes_wg04/{syntax}/MR1_{syntax}").read_bytes()
    if inside:
        path.write_bytes(data)
        dataset = pydicom.dcmread(path)
        frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
        dataset.PixelData = pydicom.encaps.encapsulate([frame[: len(frame) // 3 * 2]])
        dataset.save_as(path)
    else:
        path.write_bytes(data[: len(data) // 3 * 2])
    with pytest.raises(DataError, match=r"cut\b"):
        read_folder(tmp_path)
    assert capfd.readouterr() == ("", "")
