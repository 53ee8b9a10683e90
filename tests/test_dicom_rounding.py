"""Series whose scanner rounded positions and direction cosines."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # the library's own short name
from conftest import rotation
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from test_dicom import edit, make_volume

from volseg.config import ReadingRules
from volseg.errors import GeometryError
from volseg.image.volume import Mask
from volseg.io import discover, read_volume, single_source, write_mask
from volseg.io.dicom import write_series
from volseg.io.dicom.frames import Frame, Plane
from volseg.io.dicom.header import Header
from volseg.io.dicom.stack import rounding_mm, stack

AXIAL = np.eye(3)


def frames(positions: NDArray[np.float64], directions: NDArray[np.float64] = AXIAL) -> list[Frame]:
    orientation = tuple(directions[:, :2].T.ravel().tolist())
    planes = [Plane((4, 3), tuple(position), orientation, (1.0, 1.0)) for position in positions.tolist()]
    return [Frame(Path(f"{n}"), 0, plane, 1.0, 0.0, Header(Dataset(), Path(f"{n}"))) for n, plane in enumerate(planes)]


def row(z_mm: Sequence[float]) -> NDArray[np.float64]:
    return np.column_stack([np.full(len(z_mm), 3.0), np.full(len(z_mm), -4.0), z_mm])


@settings(max_examples=200)
@given(
    st.integers(1, 4),
    st.floats(0.65, 9),
    st.floats(-40, 40),
    st.integers(2, 120),
    st.tuples(*[st.floats(-300, 300)] * 3),
    st.integers(0, 2),
)
def test_rounded_positions_are_an_even_row(
    decimals: int, step_mm: float, tilt: float, count: int, origin_mm: tuple[float, ...], axis: int
) -> None:
    directions = rotation(axis, tilt)
    true = np.array(origin_mm) + np.outer(np.arange(count) * step_mm, directions[:, 2])
    positions = true.round(decimals)
    for fill_gaps in (False, True):
        made = stack(frames(positions, directions), "here", fill_gaps=fill_gaps)
        assert made.geometry.shape == (4, 3, count)
        assert made.is_whole
        affine = made.geometry.lps_affine
        read = affine[:3, 3] + np.outer(np.arange(count), affine[:3, 2])
        assert np.abs(read - true).max() <= max(1.5 * 10.0**-decimals, 0.011 * max(1, step_mm))


@settings(max_examples=200)
@given(st.data(), st.sampled_from([1, 2, 3]), st.floats(0.6, 8))
def test_a_missing_slice_is_missing_however_positions_are_rounded(
    data: st.DataObject, decimals: int, step_mm: float
) -> None:
    count = data.draw(st.integers(5, 60))
    gone = data.draw(st.sets(st.integers(1, count - 2), min_size=1, max_size=max(1, count // 4)))
    kept = [k for k in range(count) if k not in gone]
    assume(np.median(np.diff(kept)) == 1)
    positions = row([round(5 + k * step_mm, decimals) for k in kept])
    with pytest.raises(GeometryError, match="mm apart"):
        stack(frames(positions), "here")
    made = stack(frames(positions), "here", fill_gaps=True)
    assert made.slices == tuple(kept)  # only what is missing is made, however its neighbours are rounded


@pytest.mark.parametrize(
    "z_mm",
    [
        [0, 1, 2.2, 3, 4],  # 0.2 mm off, where tenths explain half of that
        [0, 0.6, 1.2, 1.9, 2.7, 3.4, 4.0],  # a row that is denser at its ends
        [0, 3, 6, 10, 13],  # whole millimetres are tenths with a zero
        [0, 1, 2, 3.5, 5],
        [0, 0.625, 1.27, 1.875, 2.5],  # 0.02 mm off, where thousandths explain nothing
        [0, 0.2, 0.5, 0.7, 1.0],  # tenths are too coarse for slices of a quarter millimetre
    ],
    ids=str,
)
def test_what_rounding_cannot_explain_is_uneven(z_mm: list[float]) -> None:
    with pytest.raises(GeometryError, match=r"apart|off the even line"):
        stack(frames(row(z_mm)), "here")


def test_the_unit_of_rounding() -> None:
    assert rounding_mm(row([0, 1, 2])) == pytest.approx(0.1)
    assert rounding_mm(row([0, 1.25, 2.5])) == pytest.approx(0.01)
    assert rounding_mm(row([-1000.123, 0, 2.5])) == pytest.approx(0.001)
    assert rounding_mm(row([0, 1.2345, 2.5])) == 0
    assert rounding_mm(row([0, 1.200002, 2.5])) == pytest.approx(0.1)  # and noise
    assert rounding_mm(np.float32(row([-900.3, 1.2, 2.5])).astype(float)) == pytest.approx(0.1)


def test_noise_and_single_precision_on_tenths_do_not_matter() -> None:
    tenths = row([round(-700 + 0.625 * k, 1) for k in range(40)])
    noise = np.random.default_rng(0).choice([0, 2e-6], tenths.shape)
    for positions in (tenths + noise, tenths.astype(np.float32).astype(float)):
        for fill_gaps in (False, True):
            assert stack(frames(positions), "here", fill_gaps=fill_gaps).geometry.shape == (4, 3, 40)


def test_a_series_of_tenths_is_read_and_its_slices_keep_their_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    volume = make_volume(shape=(4, 4, 30), spacing_mm=(0.7, 0.9, 0.625))
    for k, path in enumerate(write_series(volume, tmp_path)):
        edit(path, ImagePositionPatient=["-120.5", "33.3", f"{-812.1 + 0.625 * k:.1f}"])
    for rules in (ReadingRules(), ReadingRules(allow_gaps=True)):
        (source,) = discover(tmp_path, rules=rules).sources
        read = read_volume(source)
        assert read.geometry.shape == (4, 4, 30)
        assert read.geometry.spacing_mm[2] == pytest.approx(0.625, abs=2e-3)
        assert np.array_equal(read.array, volume.array)
    assert "interpolated" not in caplog.text


# Direction cosines


@pytest.mark.parametrize("decimals", [3, 4, 6])
@pytest.mark.parametrize("angles", [(9.7, 0, 0), (12, -33, 7), (44, 44, 44)])
def test_rounded_cosines_are_axes(decimals: int, angles: tuple[float, ...], tmp_path: Path) -> None:
    directions = rotation(0, angles[0]) @ rotation(1, angles[1]) @ rotation(2, angles[2])
    volume = make_volume(directions, shape=(6, 5, 4))
    for path in write_series(volume, tmp_path / "series"):
        edit(path, ImageOrientationPatient=[f"{cosine:.{decimals}f}" for cosine in directions[:, :2].T.ravel()])
    (source,) = discover(tmp_path / "series").sources
    read = read_volume(source)
    assert np.array_equal(read.array, volume.array)
    assert read.geometry.distance_mm(volume.geometry) < 20 * 10.0**-decimals
    in_plane = read.geometry.direction[:, :2]
    np.testing.assert_allclose(in_plane.T @ in_plane, np.eye(2), atol=1e-4)
    path = tmp_path / "mask.nii.gz"
    write_mask(Mask(np.zeros(read.geometry.shape, np.uint8), read.geometry), path)
    image = sitk.ReadImage(str(path))  # ITK opens it
    corner = np.array(image.TransformIndexToPhysicalPoint([5, 4, 3])) * (-1, -1, 1)
    assert np.linalg.norm(corner - read.geometry.corners_mm[-1]) < 0.05 * min(read.geometry.spacing_mm)


def test_cosines_that_flicker_in_their_last_digit_are_one_volume(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directions = rotation(0, 9.7) @ rotation(2, 4)
    volume = make_volume(directions, shape=(6, 5, 12), spacing_mm=(0.7, 0.9, 0.8), origin_mm=(-120, 250, -900))
    rng = np.random.default_rng(0)
    for path in write_series(volume, tmp_path):
        cosines = directions[:, :2].T.ravel() + rng.choice([-4e-4, 4e-4], 6)
        edit(path, ImageOrientationPatient=[f"{cosine:.3f}" for cosine in cosines])
    for rules in (ReadingRules(), ReadingRules(allow_gaps=True)):
        (source,) = discover(tmp_path, rules=rules).sources
        read = read_volume(source)
        assert np.array_equal(read.array, volume.array)  # in their order, though each has a normal of its own
        assert read.geometry.distance_mm(volume.geometry) < 0.02
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_another_orientation_is_another_volume(tmp_path: Path) -> None:
    for number, degrees in enumerate((0, 0.5)):
        directions = rotation(0, degrees)
        paths = write_series(make_volume(directions, seed=number), tmp_path / str(number))
        for path in paths:
            edit(path, SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2")
    assert len(discover(tmp_path).sources) == 2


@pytest.mark.parametrize("cosines", [(1, 0, 0, 0.004, 1, 0), (1, 0, 0, 0, 0.99, 0), (1, 0.01, 0, 0, 1, 0)])
def test_what_is_not_orthonormal_by_rounding_is_refused(cosines: tuple[float, ...], tmp_path: Path) -> None:
    for path in write_series(make_volume(), tmp_path):
        edit(path, ImageOrientationPatient=list(cosines))
    with pytest.raises(GeometryError, match="not a pair of orthogonal unit vectors"):
        read_volume(single_source(tmp_path))
