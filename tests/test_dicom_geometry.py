"""Where voxels lie: over gaps, in mosaics, and as other programs say of the same files."""

from __future__ import annotations

import gzip
import logging
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import STORAGE_ORDERS
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from test_dicom import AXIAL, TILTED, drop, edit, make_volume, write_enhanced

from volseg.config import ReadingRules
from volseg.errors import DataError, GeometryError
from volseg.exporting.rtstruct import write_rtstruct
from volseg.exporting.seg import write_seg
from volseg.image.geometry import Geometry
from volseg.image.volume import Label, Mask, Volume
from volseg.io import discover, read_mask, read_volume, single_source
from volseg.io.dicom import read_instances, read_series, scan_dicom, write_series
from volseg.io.dicom.frames import Frame, Plane
from volseg.io.dicom.header import Header
from volseg.io.dicom.stack import stack
from volseg.io.source import SegmentsSource, SeriesSource

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # nibabel calls all of its DICOM readers experimental
    from nibabel.nicom.dicomwrappers import wrapper_from_file

NIBABEL_DATA = Path(nib.__file__).parent / "nicom" / "tests" / "data"


def ramp(z_mm: NDArray[np.float64], shape: tuple[int, int] = (4, 3)) -> Volume:
    """Slices at some heights whose values are these heights, times 100."""
    array = np.broadcast_to(100 * z_mm, (1, *shape, len(z_mm))).astype(np.float32)
    return Volume(array, Geometry.from_lps((*shape, len(z_mm)), (5, 6, 0), AXIAL, (0.7, 0.9, 1)))


def write_ramp(folder: Path, z_mm: Sequence[float]) -> None:
    for path, z in zip(write_series(ramp(np.array(z_mm)), folder), z_mm, strict=True):
        edit(path, ImagePositionPatient=["5", "6", f"{z:.6g}"])


def gapped(folder: Path) -> SeriesSource:
    (source,) = scan_dicom(sorted(folder.iterdir()), fill_gaps=True).series
    return source


# Gaps


@pytest.mark.parametrize("gone", [[1], [2, 3], [1, 4]], ids=str)
def test_missing_slices_are_made_from_their_neighbours(gone: list[int], tmp_path: Path) -> None:
    volume = make_volume(shape=(4, 3, 6))
    paths = write_series(volume, tmp_path)
    for k in gone:
        paths[k].unlink()
    source = gapped(tmp_path)
    read = read_series(source)
    assert read.geometry.matches(volume.geometry)
    kept = [k for k in range(6) if k not in gone]
    np.testing.assert_array_equal(read.array[..., kept], volume.array[..., kept])
    assert read_instances(source).slices == tuple(kept)
    by_hand = {
        (1,): {1: (0, 2, 0.5)},
        (2, 3): {2: (1, 4, 1 / 3), 3: (1, 4, 2 / 3)},
        (1, 4): {1: (0, 2, 0.5), 4: (3, 5, 0.5)},
    }[tuple(gone)]
    for k, (before, after, share) in by_hand.items():
        expected = volume.array[..., before] * (1 - share) + volume.array[..., after] * share
        np.testing.assert_allclose(read.array[..., k], expected, rtol=1e-5, atol=1e-3)


def test_gaps_are_refused_unless_allowed(tmp_path: Path) -> None:
    write_ramp(tmp_path, [0, 2, 6, 8])
    with pytest.raises(GeometryError, match="slices 2 and 3 lie 4 mm apart where the others lie 2 mm apart"):
        read_volume(single_source(tmp_path))
    assert read_volume(single_source(tmp_path, rules=ReadingRules(allow_gaps=True))).geometry.shape == (4, 3, 5)
    (source,) = discover(tmp_path, rules=ReadingRules(allow_gaps=True)).sources
    assert read_volume(source).geometry.shape == (4, 3, 5)


def test_an_even_series_is_the_same_with_gaps_allowed(tmp_path: Path) -> None:
    volume = make_volume(TILTED, shape=(4, 3, 6))
    write_series(volume, tmp_path)
    read = read_series(gapped(tmp_path))
    np.testing.assert_array_equal(read.array, volume.array)
    assert read.geometry.matches(volume.geometry)


def test_a_gap_in_a_tilted_series_stays_tilted(tmp_path: Path) -> None:
    volume = make_volume(TILTED, shape=(4, 3, 6))
    write_series(volume, tmp_path)[3].unlink()
    assert read_series(gapped(tmp_path)).geometry.matches(volume.geometry)


@pytest.mark.parametrize(
    "z_mm",
    [[0, 1, 2.5, 3.5], [0, 3, 5, 8], [0, 2, 4, 6, 11, 16], [0, 1.3, 2, 4.1], [0, 1, 2, 3.7]],
    ids=str,
)
def test_values_lie_where_they_were_measured(z_mm: list[float], tmp_path: Path) -> None:
    """Of an image whose values are heights every voxel must be its own height, however uneven the slices are."""
    write_ramp(tmp_path, z_mm)
    read = read_series(gapped(tmp_path))
    shape = read.geometry.shape
    heights = read.geometry.world(np.stack([np.zeros(shape[2]), np.zeros(shape[2]), np.arange(shape[2])], axis=-1))[
        :, 2
    ]
    assert heights[0] == pytest.approx(0)
    assert heights[-1] == pytest.approx(z_mm[-1])
    np.testing.assert_allclose(read.array[0, 1, 1] / 100, heights, atol=0.01)


def planes(z_mm: Sequence[float]) -> list[Frame]:
    places = [Plane((4, 3), (0.0, 0.0, z), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (1.0, 1.0)) for z in z_mm]
    return [Frame(Path(str(n)), 0, place, 1.0, 0.0, Header(Dataset(), Path(str(n)))) for n, place in enumerate(places)]


@settings(max_examples=300)
@given(st.lists(st.integers(100, 400), min_size=1, max_size=8))
def test_no_two_images_share_a_slice(gaps: list[int]) -> None:
    """Every image is seen in the mask, at most half a step away."""
    z_mm = np.concatenate([[0], np.cumsum(gaps)]) / 100
    made = stack(planes(z_mm.tolist()), "here", fill_gaps=True)
    assert len(set(made.slices)) == len(z_mm)
    heights = made.geometry.affine[2, 3] + made.geometry.affine[2, 2] * np.array(made.slices)
    assert np.abs(heights - z_mm).max() <= made.geometry.spacing_mm[2] / 2 + 1e-6


def test_two_images_do_not_share_a_slice_by_rounding() -> None:
    """The step is a little more than the smallest gap, within its tolerance; 1.5034 / 1.00225 rounds up to 2."""
    made = stack(planes([0, 1.5034, 2.5034, 4.009]), "here", fill_gaps=True)
    assert len(set(made.slices)) == 4


def test_several_scans_in_one_series_are_not_bridged(tmp_path: Path) -> None:
    write_ramp(tmp_path, [0, 0.1, 0.2, 900])
    with pytest.raises(GeometryError, match="too uneven to interpolate"):
        read_series(gapped(tmp_path))


def test_a_bend_is_not_bridged(tmp_path: Path) -> None:
    write_ramp(tmp_path, [0, 2, 4, 8])
    edit(tmp_path / "0002.dcm", ImagePositionPatient=[6, 6, 2])
    with pytest.raises(GeometryError):
        read_series(gapped(tmp_path))


def test_what_was_doubted_is_read_with_gaps_allowed(tmp_path: Path) -> None:
    volume = make_volume(shape=(4, 3, 5))
    drop(write_series(volume, tmp_path)[-1], "Rows")
    strict, lenient = (scan_dicom(sorted(tmp_path.iterdir()), fill_gaps=fill).series[0] for fill in (False, True))
    with pytest.raises(GeometryError, match=r"0005\.dcm may be one of its slices"):
        read_series(strict)
    np.testing.assert_array_equal(read_series(lenient).array, volume.array[..., :4])


def test_gaps_in_an_enhanced_file_are_bridged(tmp_path: Path) -> None:
    volume = make_volume(shape=(4, 3, 6))
    write_enhanced(volume, tmp_path / "enhanced", order=[5, 0, 1, 3])
    source = gapped(tmp_path)
    read = read_series(source)
    assert read.geometry.matches(volume.geometry)
    np.testing.assert_array_equal(read.array[..., [0, 1, 3, 5]], volume.array[..., [0, 1, 3, 5]] * [1, 2, 4, 6])
    assert [frame.index for frame in read_instances(source).frames] == [1, 2, 3, 0]
    assert read_instances(source).slices == (0, 1, 3, 5)


def test_bridging_is_said_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_ramp(tmp_path, [0, 2, 6, 8])
    with caplog.at_level(logging.WARNING, logger="volseg"):
        read_series(gapped(tmp_path))
    assert "1 of 5 slices are interpolated across gaps" in caplog.text


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_a_mask_goes_back_to_the_slices_there_are(kind: str, tmp_path: Path) -> None:
    volume = make_volume(shape=(9, 8, 6))
    paths = write_series(volume, tmp_path / "images")
    paths[2].unlink()
    source = gapped(tmp_path / "images")
    array = np.zeros((9, 8, 6), np.uint8)
    array[2:6, 3:7, 1:5] = 1
    mask = Mask(array, read_instances(source).geometry, (Label(1, "liver"),))
    path = tmp_path / f"mask.{kind}.dcm"
    {"seg": write_seg, "rtstruct": write_rtstruct}[kind](mask, read_instances(source), path)
    segments = discover(path).segments[0]
    assert isinstance(segments, SegmentsSource)
    read = read_mask(segments, mask.labels, on=mask.geometry)
    array[:, :, 2] = 0  # no image shows it
    np.testing.assert_array_equal(read.array, array)


# Siemens mosaics


def unpacked(name: str, folder: Path, seed: int = 0) -> Path:
    """A file of nibabel with noise for pixels, which are zeros there."""
    path = folder / name.removesuffix(".gz")
    path.write_bytes(gzip.decompress((NIBABEL_DATA / name).read_bytes()))

    def fill(dataset: Dataset) -> None:
        count = len(dataset.PixelData) // 2
        dataset.PixelData = np.random.default_rng(seed).integers(0, 4096, count).astype("<u2").tobytes()

    edit(path, fill)
    return path


def by_nibabel(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Voxels and the RAS affine; nibabel's own is in DICOM's axes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapper = wrapper_from_file(path)
        return np.atleast_3d(wrapper.get_data()), np.diag([-1.0, -1, 1, 1]) @ wrapper.affine


def placed_alike(ours: Volume, array: NDArray[Any], affine: NDArray[Any]) -> bool:
    """Whether some storage order of our voxels is the other array on the other affine."""
    for order in STORAGE_ORDERS:
        geometry = ours.geometry.reordered(order)
        if geometry.shape == array.shape and geometry.distance_mm(Geometry(array.shape, affine)) < 1e-3:
            return np.allclose(order.apply(ours.array[0]), array, rtol=1e-5, atol=1e-3)
    return False


@pytest.mark.parametrize("name", ["siemens_dwi_0.dcm.gz", "siemens_dwi_1000.dcm.gz"])
def test_mosaics_are_read_as_nibabel_and_dcm2niix_read_them(name: str, tmp_path: Path) -> None:
    path = unpacked(name, tmp_path)
    volume = read_volume(single_source(path))
    assert volume.geometry.shape == (128, 128, 48)
    assert placed_alike(volume, *by_nibabel(path))
    (image,) = converted([path], tmp_path / "out")
    assert placed_alike(volume, np.asarray(image.dataobj), image.affine)


def test_a_multi_frame_file_of_philips_is_read_as_dcm2niix_reads_it(tmp_path: Path) -> None:
    path = unpacked("philips_mprage.dcm.gz", tmp_path)
    volume = read_volume(single_source(path))
    (image,) = converted([path], tmp_path / "out")
    assert placed_alike(volume, np.asarray(image.dataobj), image.affine)


def test_mosaics_may_be_packed() -> None:
    path = NIBABEL_DATA / "siemens_dwi_0.dcm.gz"
    assert read_volume(single_source(path)).geometry.shape == (128, 128, 48)


def test_several_mosaics_are_several_volumes(tmp_path: Path) -> None:
    for seed, name in enumerate(("siemens_dwi_0.dcm.gz", "siemens_dwi_1000.dcm.gz")):
        edit(unpacked(name, tmp_path, seed), SeriesInstanceUID="1.2.3")
    sources = discover(tmp_path).sources
    assert len(sources) == 2
    first, second = (read_volume(source) for source in sources)
    assert first.geometry.shape == second.geometry.shape == (128, 128, 48)
    assert not np.array_equal(first.array, second.array)


@pytest.mark.parametrize("size", [0, 40, 400])
def test_a_mosaic_with_a_broken_private_header_is_refused(size: int, tmp_path: Path) -> None:
    path = unpacked("siemens_dwi_0.dcm.gz", tmp_path)
    edit(path, lambda dataset: setattr(dataset[0x0029, 0x1010], "value", dataset[0x0029, 0x1010].value[:size]))
    (source,) = discover(tmp_path).sources
    with pytest.raises(DataError, match="mosaic"):
        read_volume(source)


def test_a_mosaic_of_another_size_is_refused(tmp_path: Path) -> None:
    path = unpacked("siemens_dwi_0.dcm.gz", tmp_path)
    edit(path, lambda dataset: setattr(dataset, "Columns", 895))
    (source,) = discover(tmp_path).sources
    with pytest.raises(DataError):
        read_volume(source)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("0.dcm", "states 48 slices, which do not tile its (256, 256) pixels"),
        ("1.dcm", "states 48 slices, which do not tile its (256, 256) pixels"),
        ("csa_slice_norm.dcm", "holds no pixel data"),
    ],
)
def test_other_files_of_nibabel_are_refused(name: str, reason: str) -> None:
    (source,) = discover(NIBABEL_DATA / name).sources
    with pytest.raises(DataError, match=re.escape(reason)):
        read_volume(source)


def test_an_object_of_nibabel_that_says_nothing_of_its_series_is_set_aside() -> None:
    found = discover(NIBABEL_DATA / "decimal_rescale.dcm")
    assert found.sources == ()
    assert ["without SeriesInstanceUID" in item.reason for item in found.set_aside] == [True]


# What dcm2niix says


def converted(files: Sequence[Path], folder: Path) -> list[Any]:
    if shutil.which("dcm2niix") is None:
        pytest.skip("dcm2niix is not installed")
    (folder / "in").mkdir(parents=True)
    for n, path in enumerate(files):
        shutil.copy(path, folder / "in" / f"{n:04d}.dcm")
    subprocess.run(
        [
            "dcm2niix",
            "-b",
            "y",
            "-z",
            "n",
            "-m",
            "n",
            "-p",
            "n",
            "-f",
            "%s_%d_%e",
            "-o",
            str(folder),
            str(folder / "in"),
        ],
        check=False,  # it fails where it knows no decoder
        capture_output=True,
        timeout=60,
    )
    return [nib.load(path) for path in sorted(folder.glob("*.nii")) if "_Tilt" not in path.name]


def real_series(root: Path) -> Iterator[SeriesSource]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    yield from scan_dicom(files).series


@pytest.mark.real_data
@pytest.mark.parametrize(
    "place",
    [
        "dicom/classic_4d_ge_epi",
        "dicom/dicomdir_study/98892001",
        "dicom/dicomdir_study/98892003",
        "dicom/enhanced_pydicom",
        "dicom_seg_rt/rt-utils/oriented_data",
        "dicom_seg_rt/rt-utils/mock_data",
        "dicom/transfer_syntaxes_wg04/REF",
        "dicom/transfer_syntaxes_wg04/RLE",
        "dicom/single_files",
    ],
)
def test_real_series_lie_where_dcm2niix_says(place: str, real_data: Path, tmp_path: Path) -> None:
    compared = 0
    for n, source in enumerate(real_series(real_data / place)):
        try:
            volume = read_series(source)
        except DataError:
            continue
        images = converted(source.files, tmp_path / str(n))
        if not images:
            continue  # dcm2niix does not read it
        alike = [in_plane_alike(volume, image) for image in images]
        assert any(alike), (source, [image.affine for image in images], volume.geometry.affine)
        compared += 1
    assert compared


def in_plane_alike(volume: Volume, image: Any) -> bool:
    """All voxels where they are; the step of a single slice is left out."""
    array, affine = np.asanyarray(image.dataobj), np.array(image.affine)
    if array.ndim > 3:
        array = array[..., 0]
    if array.ndim == 2:
        array = array[..., np.newaxis]
    if volume.geometry.shape[2] == 1 and array.shape[2:] == (1,):
        step = volume.geometry.affine[:3, 2]
        affine[:3, 2] = step * np.sign(step @ affine[:3, 2])
    return placed_alike(volume, array, affine)


def test_oblique_series_lie_where_dcm2niix_says(tmp_path: Path) -> None:
    turn = np.array([[2, -1, 2], [2, 2, -1], [-1, 2, 2]]) / 3
    for name, directions in {"oblique": turn, "flipped": turn * [1, 1, -1]}.items():
        volume = make_volume(directions, shape=(24, 20, 8))
        paths = write_series(volume, tmp_path / name)
        for path in paths:
            edit(path, PatientPosition="HFS", StudyDate="20240101", StudyTime="101010")
        (image,) = converted(paths, tmp_path / f"{name}_out")
        assert placed_alike(read_volume(single_source(tmp_path / name)), np.asarray(image.dataobj), image.affine)
