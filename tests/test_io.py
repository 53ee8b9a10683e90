from __future__ import annotations

import errno
import gzip
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # the library's own short name
from hypothesis import given, settings
from hypothesis import strategies as st

from volseg.errors import ConfigError, DataError, GeometryError, OutputError
from volseg.image.geometry import AxisOrder, Geometry
from volseg.image.volume import Mask, Volume
from volseg.io import (
    FileSource,
    SeriesSource,
    discover,
    frame_count,
    image_suffix,
    read_mask,
    read_volume,
    single_source,
    write_mask,
    write_volume,
)
from volseg.io.dicom import write_series
from volseg.io.disk_errors import output_error
from volseg.io.files import atomic_path, make_folder, remove_leftovers, write_text
from volseg.io.written import TEMPORARY_PREFIX

SHAPE = (4, 5, 3)
#: Columns are directions: no two of them lie along world axes, and i x j = k.
OBLIQUE = np.array([[2, -1, 2], [2, 2, -1], [-1, 2, 2]]) / 3
ORDERS = [AxisOrder(axes, flips) for axes in permutations(range(3)) for flips in product((False, True), repeat=3)]
WRITABLE = [".nii", ".nii.gz", ".nrrd", ".mha"]


def make_geometry(
    direction: np.ndarray = OBLIQUE,
    *,
    shape: tuple[int, int, int] = SHAPE,
    spacing_mm: tuple[float, float, float] = (0.5, 0.8, 5.0),
    origin_mm: tuple[float, float, float] = (-61.5, 20.25, 310.0),
) -> Geometry:
    affine = np.eye(4)
    affine[:3, :3] = direction * np.asarray(spacing_mm)
    affine[:3, 3] = origin_mm
    return Geometry(shape, affine)


def make_volume(geometry: Geometry | None = None, channels: int = 1) -> Volume:
    geometry = geometry or make_geometry()
    array = np.random.default_rng(0).normal(100, 50, (channels, *geometry.shape)).astype(np.float32)
    return Volume(array, geometry)


def make_mask(geometry: Geometry | None = None) -> Mask:
    geometry = geometry or make_geometry()
    return Mask(np.random.default_rng(0).integers(0, 4, geometry.shape).astype(np.uint8), geometry)


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None, **header: object) -> FileSource:
    """Save with both orientations set, then with header fields as given."""
    affine = make_geometry().affine if affine is None else affine
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    for field, value in header.items():
        image.header[field] = value
    nib.save(image, path)
    return FileSource(path)


def overwrite(path: Path, offset: int, what: bytes) -> None:
    """Change bytes of a header that no writer would write."""
    packed = path.suffix == ".gz"
    data = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    data[offset : offset + len(what)] = what
    path.write_bytes(gzip.compress(data) if packed else data)


def refused(read: Callable[[], object], path: Path) -> DataError:
    """A read that must fail with our own exception, one line that names the file."""
    with pytest.raises(DataError) as caught:
        read()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


# Reading NIfTI


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4", ">f4", ">f8", "<u2", "i1", "<i4", ">u4"])
def test_nifti_of_any_kind_gives_its_values(kind: type, suffix: str, dtype: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 100, SHAPE)
    path = tmp_path / f"image{suffix}"
    header = kind.header_class(endianness=dtype[0] if dtype[0] in "<>" else "<")  # type: ignore[attr-defined]
    image = kind(values.astype(dtype), make_geometry().affine, header)
    image.set_data_dtype(dtype)
    nib.save(image, path)
    volume = read_volume(FileSource(path))
    assert volume.array.dtype == np.float32
    assert volume.array.dtype.isnative
    assert np.array_equal(volume.array[0], values)
    assert volume.geometry.distance_mm(make_geometry()) < 1e-4
    assert np.array_equal(read_mask(FileSource(path)).array, values)


def test_scaling_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "scaled.nii"
    array = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)
    save_nifti(path, array)
    overwrite(path, 112, struct.pack("<ff", 2.5, -1024))  # scl_slope and scl_inter
    assert np.array_equal(read_volume(FileSource(path)).array[0], array * 2.5 - 1024)


def test_a_header_and_its_voxels_apart(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 9, SHAPE).astype(np.int16)
    nib.save(nib.Nifti1Pair(array, make_geometry().affine), tmp_path / "image.hdr")
    source = FileSource(tmp_path / "image.hdr")
    assert np.array_equal(read_volume(source).array[0], array)
    assert source.files == (tmp_path / "image.hdr", tmp_path / "image.img")
    (tmp_path / "image.img").unlink()
    assert "image.img does not exist" in str(refused(lambda: read_volume(source), source.path))


def test_which_orientation_of_nifti_counts(tmp_path: Path) -> None:
    sform, qform = make_geometry().affine, make_geometry(np.diag([-1.0, -1.0, 1.0])).affine
    image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), None)

    def read(sform_code: int, qform_code: int) -> np.ndarray:
        image.set_sform(sform, sform_code)
        image.set_qform(qform, qform_code)
        nib.save(image, tmp_path / "image.nii")
        return read_volume(FileSource(tmp_path / "image.nii")).geometry.affine

    np.testing.assert_allclose(read(2, 0), sform, atol=1e-4)
    np.testing.assert_allclose(read(0, 1), qform, atol=1e-4)
    np.testing.assert_allclose(read(4, 2), sform, atol=1e-4)
    error = refused(lambda: read(0, 0), tmp_path / "image.nii")
    assert isinstance(error, GeometryError)
    assert "both 0" in str(error)


@pytest.mark.parametrize(
    ("srow_z", "reason"),
    [((0, 0, 0, 0), "do not span space"), ((0, 0, np.nan, 0), "finite"), ((0, 0, 1, np.inf), "finite")],
)
def test_a_broken_sform_is_named(srow_z: tuple[float, ...], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.nii"
    save_nifti(path, np.ones(SHAPE, np.int16), np.eye(4))
    overwrite(path, 312, struct.pack("<4f", *srow_z))
    error = refused(lambda: read_volume(FileSource(path)), path)
    assert isinstance(error, GeometryError)
    assert reason in str(error)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("size_mm", [0.0, -1.0, np.nan, np.inf])
def test_a_broken_qform_is_named(size_mm: float, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"broken{suffix}"
    image = nib.Nifti1Image(np.ones(SHAPE, np.int16), np.eye(4))
    image.set_sform(None, 0)
    image.set_qform(np.eye(4), 1)
    nib.save(image, path)
    assert read_volume(FileSource(path)).geometry.matches(Geometry(SHAPE, np.eye(4)))
    overwrite(path, 80, struct.pack("<f", size_mm))  # nibabel takes 1 for 0 and drops the sign
    assert isinstance(refused(lambda: read_volume(FileSource(path)), path), GeometryError)


@pytest.mark.parametrize(("code", "unit"), [(1, "metres"), (3, "micrometres"), (8 | 3, "micrometres")])
def test_other_units_than_mm_are_refused(code: int, unit: str, tmp_path: Path) -> None:
    path = tmp_path / "image.nii"
    source = save_nifti(path, np.ones(SHAPE, np.int16), xyzt_units=code)
    error = refused(lambda: read_volume(source), path)
    assert isinstance(error, GeometryError)
    assert unit in str(error)


@pytest.mark.parametrize("code", [0, 2, 8 | 2, 0b11111000 | 2])
def test_mm_and_no_unit_are_mm(code: int, tmp_path: Path) -> None:
    source = save_nifti(tmp_path / "image.nii", np.ones(SHAPE, np.int16), xyzt_units=code)
    assert read_volume(source).geometry.matches(make_geometry())


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((4, 5, 3, 1), (4, 5, 3)), ((4, 5, 3, 1, 1), (4, 5, 3)), ((4, 5), (4, 5, 1)), ((4, 5, 1), (4, 5, 1))],
)
def test_axes_of_one_voxel_do_not_matter(
    shape: tuple[int, ...], expected: tuple[int, int, int], tmp_path: Path
) -> None:
    array = np.arange(np.prod(shape)).reshape(shape).astype(np.int16)
    volume = read_volume(save_nifti(tmp_path / "image.nii", array))
    assert volume.array.shape == (1, *expected)
    assert np.array_equal(volume.array.ravel(), array.ravel())


@pytest.mark.parametrize("shape", [(4, 5, 3, 2), (4, 5, 3, 1, 2)])
def test_4d_is_read_by_frame_only(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "image.nii.gz"
    array = np.arange(np.prod(shape)).reshape(shape).astype(np.int16)
    save_nifti(path, array)
    assert frame_count(path) == 2
    assert "is 4D: it holds 2 volumes" in str(refused(lambda: read_volume(FileSource(path)), path))
    for frame in (0, 1):
        assert np.array_equal(read_volume(FileSource(path, frame)).array[0], array[..., frame].reshape(SHAPE))
    assert "but no number 2" in str(refused(lambda: read_volume(FileSource(path, 2)), path))


def test_colours_and_complex_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.nii"
    colours = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    save_nifti(path, colours)
    assert "not one number each" in str(refused(lambda: read_volume(FileSource(path)), path))
    save_nifti(path, np.zeros(SHAPE, np.complex64))
    assert "not one number each" in str(refused(lambda: read_volume(FileSource(path)), path))


def test_analyze_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.hdr"
    nib.save(nib.AnalyzeImage(np.zeros(SHAPE, np.int16), np.eye(4)), path)
    error = refused(lambda: read_volume(FileSource(path)), path)
    assert isinstance(error, GeometryError)
    assert "Analyze" in str(error)


def test_a_line_of_voxels_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "image.nii"
    save_nifti(path, np.zeros((7,), np.int16))
    assert "not an image" in str(refused(lambda: read_volume(FileSource(path)), path))


def test_values_beyond_float32_become_infinite(tmp_path: Path) -> None:
    source = save_nifti(tmp_path / "image.nii", np.full(SHAPE, -1e300))
    assert (read_volume(source).array == -np.inf).all()


# Label maps


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint64, np.int8])
def test_whole_numbers_of_any_type_are_labels(dtype: type, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 100, SHAPE)
    path = tmp_path / "labels.nii.gz"
    nib.save(nib.Nifti1Image(values.astype(dtype), make_geometry().affine, dtype=dtype), path)
    mask = read_mask(FileSource(path))
    assert mask.array.dtype == np.uint8
    assert np.array_equal(mask.array, values)


@pytest.mark.parametrize(("largest", "dtype"), [(255, np.uint8), (256, np.uint16), (65535, np.uint16)])
def test_labels_are_stored_as_small_as_they_fit(largest: int, dtype: type, tmp_path: Path) -> None:
    array = np.zeros(SHAPE, np.int32)
    array[1, 2, 1] = largest
    mask = read_mask(save_nifti(tmp_path / "labels.nii", array))
    assert mask.array.dtype == dtype
    assert mask.array[1, 2, 1] == largest


def test_labels_that_were_stored_scaled_are_whole_again(tmp_path: Path) -> None:
    # nibabel fits floats into integers by a slope of 1/255 in float32: a 1 comes back as 1.00000006.
    values = np.random.default_rng(0).integers(0, 2, SHAPE)
    path = tmp_path / "labels.nii.gz"
    image = nib.Nifti1Image(values.astype(float), make_geometry().affine)
    image.set_data_dtype(np.uint8)
    nib.save(image, path)
    assert nib.load(path).get_fdata().max() != 1
    assert np.array_equal(read_mask(FileSource(path)).array, values)


def scaled(path: Path, values: np.ndarray, slope: float, dtype: type = np.uint16, inter: float = 0.0) -> FileSource:
    """Labels as the nearest of the integers that a slope makes of them."""
    stored = np.rint((values - inter) / slope).astype(dtype)
    image = nib.Nifti1Image(stored, make_geometry().affine)
    image.header.set_slope_inter(slope, inter)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return FileSource(path)


@pytest.mark.parametrize("slope", [1 / 255, 0.0039, 0.01, 0.07, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("inter", [0.0, -1.0])
def test_labels_of_a_scaled_type_are_rounded_by_half_a_step(slope: float, inter: float, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 9, SHAPE)
    assert np.array_equal(read_mask(scaled(tmp_path / "a.nii.gz", values, slope, inter=inter)).array, values)


def test_what_lies_between_labels_is_no_label_however_it_is_scaled(tmp_path: Path) -> None:
    values = np.zeros(SHAPE)
    values[0, 0] = 0.25, 0.5, 0.75
    for slope in (0.0039, 0.05, 0.25):
        source = scaled(tmp_path / "a.nii.gz", values, slope)
        assert "not a label map" in str(refused(lambda source=source: read_mask(source), source.path))  # type: ignore[misc]
    image = scaled(tmp_path / "b.nii.gz", np.arange(60).reshape(SHAPE) * 2.5, 2.5)  # steps too wide for labels
    assert "not a label map" in str(refused(lambda: read_mask(image), image.path))
    path = tmp_path / "c.nii.gz"
    array = np.zeros(SHAPE, np.float32)
    array[0, 0, 0] = 0.998  # in a type that could have held a 1
    assert "not a label map" in str(refused(lambda: read_mask(save_nifti(path, array)), path))


def test_labels_just_below_whole_numbers_are_rounded_not_cut(tmp_path: Path) -> None:
    array = np.nextafter(np.arange(60, dtype=np.float32).reshape(SHAPE), np.float32(-1))
    assert array[0, 0, 1] < 1
    assert np.array_equal(read_mask(save_nifti(tmp_path / "labels.nii", array)).array.ravel(), np.arange(60))


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.5, 2.01, 1e300])
def test_what_is_no_whole_number_is_no_label(value: float, tmp_path: Path) -> None:
    path = tmp_path / "labels.nii"
    array = np.zeros(SHAPE, np.float64)
    array[0, 0, 1] = value
    assert "not a label map" in str(refused(lambda: read_mask(save_nifti(path, array)), path))


@pytest.mark.parametrize("value", [-1, 65536, 2**40, -(2**40)])
def test_values_beyond_what_a_mask_holds_are_refused(value: int, tmp_path: Path) -> None:
    path = tmp_path / "labels.nii"
    array = np.zeros(SHAPE, np.int64)
    array[0, 0, 1] = value
    image = nib.Nifti1Image(array, make_geometry().affine, dtype=np.int64)
    nib.save(image, path)
    message = str(refused(lambda: read_mask(FileSource(path)), path))
    assert str(value) in message
    assert "allowed are 0 to 65535" in message


# Writing


def physical_point(image: sitk.Image, index: tuple[int, ...]) -> np.ndarray:
    """RAS+ mm by SimpleITK."""
    return np.array(image.TransformIndexToPhysicalPoint([int(n) for n in index])) * [-1, -1, 1]


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: Geometry((2, 2, 2), np.eye(4)).reordered(order).axis_codes)
def test_a_mask_lies_where_its_image_lies(suffix: str, order: AxisOrder, tmp_path: Path) -> None:
    geometry = make_geometry().reordered(order)
    array = np.zeros(geometry.shape, np.uint8)
    voxel = (1, 2, 1)
    array[voxel] = 3
    path = tmp_path / f"mask{suffix}"
    write_mask(Mask(array, geometry), path)

    again = read_mask(FileSource(path))
    assert again.geometry.shape == geometry.shape
    assert again.geometry.distance_mm(geometry) < 1e-4
    assert np.array_equal(again.array, array)

    image = sitk.ReadImage(str(path))
    assert image.GetPixelIDTypeAsString() == "8-bit unsigned integer"
    assert image.GetPixel(*voxel) == 3
    np.testing.assert_allclose(physical_point(image, voxel), geometry.world(voxel), atol=1e-3)
    np.testing.assert_allclose(
        physical_point(image, tuple(n - 1 for n in geometry.shape)), geometry.corners_mm[-1], atol=1e-3
    )


@pytest.mark.parametrize("order", ORDERS[::5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_both_orientations_of_a_written_nifti_agree(order: AxisOrder, dtype: type, tmp_path: Path) -> None:
    geometry = make_geometry().reordered(order)
    path = tmp_path / "mask.nii.gz"
    write_mask(Mask(np.full(geometry.shape, 7, dtype), geometry), path)
    header = nib.load(path).header
    (sform, sform_code), (qform, qform_code) = header.get_sform(coded=True), header.get_qform(coded=True)
    assert sform_code == qform_code == 1
    np.testing.assert_allclose(sform, qform, atol=1e-4)
    np.testing.assert_allclose(sform, geometry.affine, atol=1e-4)
    assert header.get_data_dtype() == dtype
    assert header.get_xyzt_units()[0] == "mm"
    assert header.get_intent()[0] == "label"
    assert np.isnan(header["scl_slope"])  # not scaled


def test_a_sheared_mask_claims_no_quaternion(tmp_path: Path) -> None:
    affine = make_geometry().affine.copy()
    affine[:3, 2] += affine[:3, 1]
    geometry = Geometry(SHAPE, affine)
    path = tmp_path / "mask.nii.gz"
    write_mask(make_mask(geometry), path)
    header = nib.load(path).header
    assert header.get_qform(coded=True)[1] == 0
    np.testing.assert_allclose(header.get_sform(), affine, atol=1e-4)
    assert read_mask(FileSource(path)).geometry.distance_mm(geometry) < 1e-4


@settings(max_examples=25)
@given(
    spacing_mm=st.tuples(*[st.floats(0.05, 12)] * 3),
    origin_mm=st.tuples(*[st.floats(-900, 900)] * 3),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    order=st.sampled_from(ORDERS),
    suffix=st.sampled_from(WRITABLE),
    channels=st.integers(1, 3),
)
def test_what_is_written_is_read(
    spacing_mm: tuple[float, float, float],
    origin_mm: tuple[float, float, float],
    shape: tuple[int, int, int],
    order: AxisOrder,
    suffix: str,
    channels: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    grid = make_geometry(shape=shape, spacing_mm=spacing_mm, origin_mm=origin_mm).reordered(order)
    volume = make_volume(grid, channels)
    path = tmp_path_factory.mktemp("io") / f"image{suffix}"
    write_volume(volume, path)
    assert frame_count(path) == channels
    for channel in range(channels):
        again = read_volume(FileSource(path, channel))
        assert np.array_equal(again.array[0], volume.array[channel])
        assert again.geometry.distance_mm(grid) < 1e-4


def test_nothing_else_can_be_written(tmp_path: Path) -> None:
    for name in ("mask.jpg", "mask.bmp", "mask", "mask.nhdr", "mask.hdr", "mask.dcm", "mask.gz"):
        with pytest.raises(ConfigError, match="its suffix is not that of a known format"):
            write_mask(make_mask(), tmp_path / name)
        with pytest.raises(ConfigError, match="its suffix is not that of a known format"):
            write_volume(make_volume(), tmp_path / name)
    assert not list(tmp_path.iterdir())


# Reading NRRD and MetaImage

NRRD = """NRRD0004
type: uchar
dimension: 3
space: left-posterior-superior
sizes: 4 5 3
space directions: (0,2,0) (0,0,3) (4,0,0)
space origin: (10,20,30)
encoding: raw

"""
META = """ObjectType = Image
NDims = 3
BinaryData = True
TransformMatrix = 0 1 0 0 0 1 1 0 0
Offset = 10 20 30
ElementSpacing = 2 3 4
DimSize = 4 5 3
ElementType = MET_UCHAR
ElementDataFile = LOCAL
"""
VALUES = bytes(range(60))


def save_text(path: Path, header: str, voxels: bytes = VALUES) -> FileSource:
    path.write_bytes(header.encode() + voxels)
    return FileSource(path)


@pytest.mark.parametrize(("name", "header"), [("a.nrrd", NRRD), ("A.NRRD", NRRD), ("a.mha", META), ("A.MHA", META)])
def test_a_header_written_by_hand(name: str, header: str, tmp_path: Path) -> None:
    volume = read_volume(save_text(tmp_path / name, header))
    assert volume.geometry.axis_codes == "PSL"
    assert volume.geometry.spacing_mm == (2, 3, 4)
    # i falls by 2 along RAS y, j rises by 3 along z, k falls by 4 along RAS x.
    assert volume.geometry.world((1, 1, 1)).tolist() == [-10 - 4, -20 - 2, 30 + 3]
    assert np.array_equal(volume.array[0].ravel(order="F"), np.arange(60))


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (-1, -1, 1)),
        ("LPS", (-1, -1, 1)),
        ("right-anterior-superior", (1, 1, 1)),
        ("RAS", (1, 1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
        ("LAS", (-1, 1, 1)),
    ],
)
def test_spaces_of_nrrd(space: str, signs: tuple[int, int, int], tmp_path: Path) -> None:
    header = NRRD.replace("left-posterior-superior", space)
    geometry = read_volume(save_text(tmp_path / "image.nrrd", header)).geometry
    assert geometry.world((0, 0, 0)).tolist() == (np.array([10, 20, 30]) * signs).tolist()
    assert geometry.world((1, 0, 0)).tolist() == (np.array([10, 22, 30]) * signs).tolist()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("space: left-posterior-superior\n", "", "not in a patient space"),
        ("space: left-posterior-superior\n", "space dimension: 3\n", "not in a patient space"),
        ("left-posterior-superior", "scanner-xyz", "'scanner-xyz'"),
        ("left-posterior-superior", "right-posterior-superior", "'right-posterior-superior'"),
        ("space directions: (0,2,0) (0,0,3) (4,0,0)\n", "spacings: 2 3 4\n", "no 'space directions'"),
        ("space origin: (10,20,30)\n", "", "no 'space origin'"),
        ("(4,0,0)", "none", "'space directions' is"),
        ("(4,0,0)", "(nan,nan,nan)", "'space directions' is"),
        ("(10,20,30)", "(nan,nan,nan)", "'space origin' is"),
        ("(4,0,0)", "(0,2,0)", ""),
        ("(4,0,0)", "(0,0,0)", ""),
        ("encoding", 'space units: "um" "um" "um"\nencoding', "in um"),
    ],
)
def test_a_nrrd_that_does_not_say_where_it_lies_is_refused(old: str, new: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "image.nrrd"
    assert old in NRRD
    source = save_text(path, NRRD.replace(old, new))
    assert reason in str(refused(lambda: read_volume(source), path))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("ElementSpacing = 2 3 4\n", "", "no 'ElementSpacing'"),
        ("TransformMatrix = 0 1 0 0 0 1 1 0 0\n", "", "no 'TransformMatrix'"),
        ("Offset = 10 20 30\n", "", "no 'Offset'"),
        ("Offset", "offset", "no 'Offset'"),  # ITK passes over it, and would put the origin at 0
        ("ElementSpacing", "ELEMENTSPACING", "no 'ElementSpacing'"),
        ("2 3 4", "2 0 4", ""),
        ("0 1 0 0 0 1 1 0 0", "0 1 0 0 1 0 1 0 0", ""),
    ],
)
def test_a_metaimage_that_does_not_say_where_it_lies_is_refused(
    old: str, new: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "image.mha"
    assert old in META
    source = save_text(path, META.replace(old, new))
    assert reason in str(refused(lambda: read_volume(source), path))


@pytest.mark.parametrize(
    ("line", "contradicts"),
    [
        ("Position = 9 9 9", True),
        ("Origin = 1 2 3", True),
        ("Orientation = 0 1 0 1 0 0 0 0 1", True),
        ("Rotation = 0 1 0 1 0 0 0 0 1", True),
        ("ElementSpacing = 1 1 9", True),
        ("Offset = 7 7 7", True),
        ("ElementSize = 1 1 9", False),  # as thick as they are apart is not what slices must be
        ("AnatomicalOrientation = RAI", False),
    ],
)
def test_a_metaimage_that_states_a_position_twice_is_refused(line: str, contradicts: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.mha"
    source = save_text(path, META.replace("ElementDataFile", f"{line}\nElementDataFile"))
    if contradicts:
        error = refused(lambda: read_volume(source), path)
        assert f"but {line.split(maxsplit=1)[0]!r} is {line.split('= ')[1]!r}" in str(error)
    else:
        assert read_volume(source).geometry.spacing_mm == (2, 3, 4)
    twice = META.replace("ElementDataFile", "Position = 10  20 30\nElementDataFile")  # alike
    assert read_volume(save_text(path, twice)).geometry.world((0, 0, 0)).tolist() == [-10, -20, 30]


def test_a_nrrd_of_spacings_and_directions_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    source = save_text(path, NRRD.replace("encoding", "spacings: 2 2 9\nencoding"))
    assert "has a direction vector" in str(refused(lambda: read_volume(source), path))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Offset", "Origin"),
        ("Offset", "Position"),
        ("TransformMatrix", "Rotation"),
        ("TransformMatrix", "Orientation"),
        ("ElementSpacing", "ElementSize"),
    ],
)
def test_other_names_of_metaimage_fields_mean_the_same(old: str, new: str, tmp_path: Path) -> None:
    one, other = (
        read_volume(save_text(tmp_path / f"{n}.mha", header)).geometry
        for n, header in enumerate((META, META.replace(old, new)))
    )
    assert one.distance_mm(other) == 0


def test_mm_and_other_words_for_spaces_and_fields_of_nrrd(tmp_path: Path) -> None:
    header = NRRD.replace("space directions", "Space Directions").replace(
        "encoding", 'space units: "mm" "mm" "mm"\nencoding'
    )
    assert read_volume(save_text(tmp_path / "image.nrrd", header)).geometry.spacing_mm == (2, 3, 4)


def test_components_first_or_last_are_frames(tmp_path: Path) -> None:
    voxels = np.arange(120, dtype=np.uint8)
    last = NRRD.replace("dimension: 3", "dimension: 4").replace("sizes: 4 5 3", "sizes: 4 5 3 2")
    last = last.replace("(4,0,0)", "(4,0,0) none\nkinds: domain domain domain list")
    first = NRRD.replace("dimension: 3", "dimension: 4").replace("sizes: 4 5 3", "sizes: 2 4 5 3")
    first = first.replace("(0,2,0)", "none (0,2,0)").replace("encoding", "kinds: list domain domain domain\nencoding")
    for name, header, expected in (
        ("last.nrrd", last, voxels.reshape((*SHAPE, 2), order="F")[..., 1]),
        ("first.nrrd", first, voxels.reshape((2, *SHAPE), order="F")[1]),
    ):
        path = tmp_path / name
        save_text(path, header, voxels.tobytes())
        assert frame_count(path) == 2
        assert "is 4D: it holds 2 volumes" in str(refused(lambda path=path: read_volume(FileSource(path)), path))
        volume = read_volume(FileSource(path, 1))
        assert np.array_equal(volume.array[0], expected)
        assert volume.geometry.spacing_mm == (2, 3, 4)


@pytest.mark.parametrize("suffix", [".nhdr", ".mhd"])
def test_voxels_in_a_file_of_their_own(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image{suffix}"
    image = sitk.GetImageFromArray(np.arange(60, dtype=np.uint8).reshape(3, 5, 4))
    image.SetSpacing((2, 3, 4))
    sitk.WriteImage(image, str(path))
    assert np.array_equal(read_volume(FileSource(path)).array[0].ravel(order="F"), np.arange(60))
    raw = tmp_path / "image.raw"
    assert FileSource(path).files == (path, raw)
    assert discover(tmp_path).sources == (FileSource(path),)
    raw.unlink()
    refused(lambda: read_volume(FileSource(path)), path)


def test_two_dimensions_are_no_volume_in_itk_formats(tmp_path: Path) -> None:
    path = tmp_path / "flat.mha"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4), np.uint8)), str(path))
    assert "2 spatial axes" in str(refused(lambda: read_volume(FileSource(path)), path))


# Damage


def damaged_files(folder: Path) -> Iterator[Path]:
    for suffix in WRITABLE:
        whole = folder / f"whole{suffix}"
        write_volume(make_volume(make_geometry(shape=(12, 12, 12))), whole)
        data = whole.read_bytes()
        for percent in (2, 30, 70, 99):
            cut = folder / f"cut_{percent}{suffix}"
            cut.write_bytes(data[: len(data) * percent // 100])
            yield cut
        text = folder / f"text{suffix}"
        text.write_text("This is no image.\n" * 40)
        yield text
        empty = folder / f"empty{suffix}"
        empty.touch()
        yield empty
    packed = (folder / "whole.nii.gz").read_bytes()
    for name, data in {
        "garbled.nii.gz": packed[: len(packed) // 2] + b"\xff" * (len(packed) - len(packed) // 2),
        "flipped_bit.nii.gz": packed[:-3] + bytes([packed[-3] ^ 1]) + packed[-2:],  # of the length after the checksum
    }.items():
        (folder / name).write_bytes(data)
        yield folder / name
    (folder / "link.nii").symlink_to(folder / "gone.nii")
    yield from (folder, folder / "missing.nii", folder / "link.nii")


def test_damaged_files_are_refused_by_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    seen = 0
    for path in damaged_files(tmp_path):
        for read in (read_volume, read_mask):
            refused(partial(read, FileSource(path)), path)
            seen += 1
    assert seen == 2 * (4 * 6 + 5)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_random_damage_is_refused_or_read_but_nothing_else(
    suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / f"image{suffix}"
    write_mask(make_mask(), path)
    whole = path.read_bytes()
    plain = gzip.decompress(whole) if suffix == ".nii.gz" else whole
    refusals = 0
    for _ in range(150):
        data = bytearray(plain)
        for place in rng.integers(0, min(len(data), 400), rng.integers(1, 5)):
            data[place] = rng.integers(0, 256)
        path.write_bytes(gzip.compress(data, 1) if suffix == ".nii.gz" else data)
        try:
            read_volume(FileSource(path))
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017  # that nothing else is raised is what this tests
            refusals += 1
    assert 0 < refusals < 150


def test_more_voxels_than_memory_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.nii.gz"
    save_nifti(path, np.zeros(SHAPE, np.float64))
    overwrite(path, 40, struct.pack("<8h", 3, 32767, 32767, 32767, 1, 1, 1, 1))
    refused(lambda: read_volume(FileSource(path)), path)


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.bin"
    path.write_bytes(b"x")
    assert ".nii.gz" in refused(lambda: read_volume(FileSource(path)), path).hint


# Files that appear whole or not at all


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.name.startswith(TEMPORARY_PREFIX)]


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "mask.nii.gz"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert not leftovers(tmp_path)


def test_who_reads_the_old_file_reads_it_to_its_end(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with (tmp_path / "a.txt").open() as reader:
        write_text(tmp_path / "a.txt", "new")
        assert reader.read() == "old"  # the new one took its place, it was not written over
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError("defect"), KeyboardInterrupt(), DataError("input")])
def test_a_failed_write_leaves_what_was_there(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "mask.nii.gz"
    path.write_text("old")

    def write() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["mask.nii.gz"]


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EACCES, "you can write to"),
        (errno.EROFS, "you can write to"),
        (errno.ENOTDIR, "a file stands where a folder is needed"),
        (errno.EIO, "another --output"),
    ],
)
def test_an_error_of_the_disk_is_explained(code: int, hint: str, tmp_path: Path) -> None:
    path = tmp_path / "mask.nii.gz"

    def write() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise OSError(code, os.strerror(code))

    with pytest.raises(OutputError, match=f"cannot write {path}: {os.strerror(code)}") as caught:
        write()
    assert hint in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_an_error_in_the_words_of_a_library_is_explained() -> None:
    wrapped = OSError("With tag (7FE0,0010) got exception\nTraceback ...")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    error = output_error(Path("x.dcm"), wrapped)
    assert str(error) == "cannot write x.dcm: No space left on device"
    assert "free some space" in error.hint


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # nibabel leaves a file to be closed
@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize("size", [66000, 100000])
def test_a_full_disk_leaves_no_file(suffix: str, size: int, tiny_disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # Of 66000 bytes all but the last fit: ITK only meets the end of the disk when it closes the file, and says nothing.
    geometry = make_geometry(shape=(size // 100, 10, 10))
    mask = Mask(np.random.default_rng(0).integers(0, 256, geometry.shape).astype(np.uint8), geometry)
    with pytest.raises(OutputError, match="cannot write"):
        write_mask(mask, tiny_disk / f"mask{suffix}")
    assert not list(tiny_disk.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_device_that_is_always_full(tmp_path: Path) -> None:
    path = tmp_path / "mask.nii.gz"

    def write() -> None:
        with atomic_path(path) as temporary:
            temporary.symlink_to("/dev/full")
            temporary.write_text("x")

    with pytest.raises(OutputError, match="No space left on device"):
        write()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", WRITABLE)
def test_a_file_where_a_folder_is_needed(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file" / f"mask{suffix}", tmp_path / "file" / "deeper" / f"mask{suffix}"):
        with pytest.raises(OutputError) as caught:
            write_mask(make_mask(), path)
        assert str(path) in str(caught.value)
        assert "a file stands where a folder is needed" in caught.value.hint
    with pytest.raises(OutputError):
        make_folder(tmp_path / "file")
    with pytest.raises(OutputError):
        make_folder(tmp_path / "file" / "deeper")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_where_the_file_belongs(tmp_path: Path) -> None:
    path = tmp_path / "mask.nii.gz"
    path.mkdir()
    with pytest.raises(OutputError, match=f"cannot write {path}"):
        write_mask(make_mask(), path)
    assert not leftovers(tmp_path)


def test_text_is_written_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "deep" / "a.txt", "größer\n")
    assert (tmp_path / "deep" / "a.txt").read_bytes() == "größer\n".encode()


def test_making_a_folder_leaves_no_trace(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert not list((tmp_path / "a" / "b").iterdir())


def test_a_killed_process_leaves_only_what_is_removed_later(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from volseg.io.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "out" / "case" / "mask.nii.gz"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "keep.txt").write_text("mine")
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert not path.exists()
    assert len(leftovers(tmp_path)) == 1
    assert discover(tmp_path).sources == ()  # it ends in .nii.gz, but is hidden
    remove_leftovers(tmp_path / "out")
    assert not leftovers(tmp_path)
    assert (tmp_path / "out" / "keep.txt").read_text() == "mine"
    assert path.parent.is_dir()


# Finding


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.nii.gz", ".nii.gz"),
        ("a.NII.GZ", ".nii.gz"),
        ("a.b.nii", ".nii"),
        ("a.hdr", ".hdr"),
        ("a.Nrrd", ".nrrd"),
        ("a.mhd", ".mhd"),
        ("a.gz", ""),
        ("a.img", ""),
        ("nii", ""),
        ("a.nii.txt", ""),
    ],
)
def test_image_suffixes(name: str, suffix: str) -> None:
    assert image_suffix(Path(name)) == suffix


@pytest.mark.parametrize("name", ["A.Nii", "a.nII", "A.NII", "a.Nii.Gz", "a.NRRD", "a.Nrrd", "a.Mha"])
def test_suffixes_count_in_any_letter_case(name: str, tmp_path: Path) -> None:
    volume, mask = make_volume(), make_mask()
    write_volume(volume, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == [name]
    assert discover(tmp_path).sources == (FileSource(tmp_path / name),)
    assert np.array_equal(read_volume(FileSource(tmp_path / name)).array, volume.array)
    write_mask(mask, tmp_path / name)
    assert np.array_equal(read_mask(FileSource(tmp_path / name)).array, mask.array)


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
@pytest.mark.parametrize(("header", "voxels"), [("A.HDR", "A.IMG"), ("a.Hdr", "a.Img"), ("a.hdr", "a.IMG")])
def test_a_header_finds_its_voxels_in_any_letter_case(header: str, voxels: str, kind: type, tmp_path: Path) -> None:
    image = kind(np.arange(60, dtype=np.int16).reshape(SHAPE), make_geometry().affine)
    nib.save(image, tmp_path / "saved.hdr")
    (tmp_path / "saved.hdr").rename(tmp_path / header)
    (tmp_path / "saved.img").rename(tmp_path / voxels)
    source = FileSource(tmp_path / header)
    assert source.files == (tmp_path / header, tmp_path / voxels)
    found = discover(tmp_path)
    assert (found.sources, found.ignored) == ((source,), 0)
    assert frame_count(source.path) == 1
    assert np.array_equal(read_volume(source).array[0].ravel(), np.arange(60))
    (tmp_path / voxels).unlink()
    assert "does not exist; put it beside the image" in refused(lambda: read_volume(source), source.path).explanation


def test_everything_in_a_tree_is_found_or_counted(tmp_path: Path) -> None:
    write_volume(make_volume(), tmp_path / "b" / "image.nii.gz")
    write_volume(make_volume(), tmp_path / "a.nrrd")
    nib.save(nib.Nifti1Pair(np.zeros(SHAPE, np.int16), np.eye(4)), tmp_path / "pair.hdr")
    write_series(make_volume(), tmp_path / "b" / "series")
    (tmp_path / "b" / "notes.txt").write_text("x")
    (tmp_path / "lonely.img").write_bytes(b"x")
    for hidden in (".hidden.nii.gz", "._a.nrrd", ".git/image.nii.gz", "b/.DS_Store"):
        path = tmp_path / hidden
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    found = discover(tmp_path)
    assert [str(source.place.relative_to(tmp_path)) for source in found.sources] == [
        "a.nrrd",
        "b/image.nii.gz",
        "b/series",
        "pair.hdr",
    ]
    assert found.set_aside == ()
    assert found.ignored == 2  # the notes, and voxels without a header
    series = found.sources[2]
    assert isinstance(series, SeriesSource)
    assert len(series.files) == 3
    assert read_volume(series).geometry.distance_mm(make_geometry()) < 1e-3


def test_a_single_file_is_found(tmp_path: Path) -> None:
    write_volume(make_volume(), tmp_path / "a.mha")
    assert discover(tmp_path / "a.mha").sources == (FileSource(tmp_path / "a.mha"),)
    slices = write_series(make_volume(), tmp_path / "series")
    assert [source.files for source in discover(slices[1]).sources] == [(slices[1],)]


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nowhere"
    assert "does not exist" in str(refused(lambda: discover(path), path))
    assert discover(tmp_path).sources == ()


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    write_volume(make_volume(), tmp_path / "archive" / "anna" / "image.nii.gz")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "anna").symlink_to(tmp_path / "archive" / "anna")
    (tmp_path / "archive" / "anna" / "loop").symlink_to(tree)
    assert [source.place for source in discover(tree).sources] == [tree / "anna" / "image.nii.gz"]


def test_a_closed_folder_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_volume(make_volume(), tmp_path / "open" / "image.nii.gz")
    closed = tmp_path / "closed"
    closed.mkdir()
    listed = os.scandir

    def scandir(path: str) -> object:  # root may look into every folder, so the refusal has to be played
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = discover(tmp_path)
    assert len(found.sources) == 1
    assert [(item.path, item.reason) for item in found.set_aside] == [
        (closed, "cannot look into the folder: Permission denied; give yourself read permission")
    ]


def test_a_single_source_is_single(tmp_path: Path) -> None:
    write_volume(make_volume(), tmp_path / "one" / "a.nii")
    assert single_source(tmp_path / "one") == FileSource(tmp_path / "one" / "a.nii")
    write_volume(make_volume(), tmp_path / "one" / "b.nii")
    assert "holds 2 volumes" in str(refused(lambda: single_source(tmp_path / "one"), tmp_path / "one"))
    (tmp_path / "none").mkdir()
    assert "holds 0 volumes" in str(refused(lambda: single_source(tmp_path / "none"), tmp_path / "none"))


# Real images

#: What cannot be read of the real files, and why.
REFUSED = {
    "example4d.nii.gz": "is 4D: it holds 2 volumes",
    "example_nifti2.nii.gz": "is 4D: it holds 2 volumes",
    "nifti1.hdr": "nifti1.img does not exist",
}


@pytest.mark.real_data
@pytest.mark.parametrize("folder", ["nifti_odd", "spine", "abdomen", "nrrd", "hippocampus_odd"])
def test_real_files_are_read_or_refused_with_the_truth(folder: str, real_data: Path) -> None:
    sources = discover(real_data / folder).sources
    assert sources
    for source in sources:
        if reason := REFUSED.get(source.place.name):
            assert reason in str(refused(lambda source=source: read_volume(source), source.place))
            continue
        volume = read_volume(source)
        if source.place.suffix == ".nrrd":
            image = sitk.ReadImage(str(source.place))
            corner = tuple(n - 1 for n in image.GetSize())
            assert np.array_equal(volume.array[0], sitk.GetArrayFromImage(image).T)
            np.testing.assert_allclose(volume.geometry.world(corner), physical_point(image, corner), atol=1e-4)
        else:
            image = nib.load(source.place)
            assert volume.geometry.shape == image.shape[:3]
            np.testing.assert_array_equal(volume.array[0], image.get_fdata(dtype=np.float32))
            np.testing.assert_array_equal(volume.geometry.affine, image.header.get_best_affine())


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("nifti_odd/int64_seg_t2s.nii.gz", {0, 1}),
        ("nifti_odd/anatomical_label.nii.gz", {0, 1}),
        ("spine/t2/t2_seg-manual.nii.gz", {0, 1}),
        ("spine/t2s/t2s_gmseg_manual.nii.gz", {0, 1}),
        ("nrrd/brain1_label.nrrd", {0, 1}),
        ("hippocampus/labels/hippocampus_003.nii.gz", {0, 1, 2}),  # float32
    ],
)
def test_real_label_maps(name: str, values: set[int], real_data: Path) -> None:
    mask = read_mask(FileSource(real_data / name))
    assert mask.array.dtype == np.uint8
    assert set(np.unique(mask.array).tolist()) == values


@pytest.mark.real_data
@pytest.mark.parametrize("frame", [0, 1])
def test_frames_of_a_real_4d_file(frame: int, real_data: Path) -> None:
    path = real_data / "nifti_odd" / "example4d.nii.gz"
    expected = nib.load(path).get_fdata(dtype=np.float32)[..., frame]
    np.testing.assert_array_equal(read_volume(FileSource(path, frame)).array[0], expected)


@pytest.mark.real_data
def test_a_mask_for_a_real_oblique_scan_lies_on_it(real_data: Path, tmp_path: Path) -> None:
    for name in ("spine/t2s/t2s.nii.gz", "spine/t2/t2.nii.gz", "nifti_odd/CT_pitch.nii.gz"):
        source = nib.load(real_data / name)
        geometry = read_volume(FileSource(real_data / name)).geometry
        write_mask(Mask(np.zeros(geometry.shape, np.uint8), geometry), tmp_path / "mask.nii.gz")
        mask = nib.load(tmp_path / "mask.nii.gz")
        assert mask.shape == source.shape
        np.testing.assert_allclose(mask.affine, source.affine, atol=1e-5)


def test_a_short_write_without_a_code_is_a_full_disk_if_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """numpy: "71136 requested and 44928 written", and no errno."""
    short = OSError("71136 requested and 44928 written")
    assert "44928 written" in str(output_error(tmp_path / "a.npy", short))
    usage = shutil.disk_usage(tmp_path)._replace(free=5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    error = output_error(tmp_path / "a.npy", short)
    assert "No space left on device" in str(error)
    assert "free some space" in error.hint


# What is loaded


HEAVY = ("SimpleITK", "highdicom", "pandas", "torch", "skimage", "scipy")
#: Scipy and pydicom are loaded by nibabel itself.
BESIDE_NIBABEL = ("SimpleITK", "highdicom", "pandas", "torch", "skimage")


@pytest.mark.parametrize(
    ("work", "unneeded"),
    [
        ("import volseg.io, volseg.exporting, volseg.cases", (*HEAVY, "nibabel", "pydicom")),
        ("from volseg.io import discover; assert discover(folder).sources", (*HEAVY, "nibabel", "pydicom")),
        ("from volseg.io import FileSource, read_volume; read_volume(FileSource(image))", BESIDE_NIBABEL),
        ("from volseg.io import read_volume, single_source; read_volume(single_source(series))", (*HEAVY, "nibabel")),
    ],
)
def test_no_library_is_loaded_before_it_is_needed(work: str, unneeded: tuple[str, ...], tmp_path: Path) -> None:
    volume = Volume(np.zeros((1, 4, 3, 2), np.float32), Geometry((4, 3, 2), np.eye(4)))
    write_volume(volume, tmp_path / "images" / "a.nii.gz")
    (tmp_path / "images" / "dataset.json").write_text("{}")
    write_series(volume, tmp_path / "series")
    code = f"""
import sys
from pathlib import Path
folder, image, series = map(Path, sys.argv[1:])
{work}
print([name for name in {unneeded} if name in sys.modules])
"""
    paths = [tmp_path / "images", tmp_path / "images" / "a.nii.gz", tmp_path / "series"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
