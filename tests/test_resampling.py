from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # the library's own short name
import torch
from conftest import resample_linear
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates, zoom

from volseg.image.box import Box
from volseg.image.geometry import Geometry
from volseg.image.resampled import ResampledVolume, ResampledWithLabels, Resampling
from volseg.image.resampling import coarse_axis, interpolate_axis, resample_nearest, sample_positions

shapes = st.tuples(*[st.integers(1, 7)] * 3)
spacings_mm = st.tuples(*[st.floats(0.4, 4)] * 3)


def resampled(array: torch.Tensor, grid: Geometry, new_spacing_mm: tuple[float, float, float]) -> torch.Tensor:
    return resample_linear(array, grid.spacing_mm, grid.respaced(new_spacing_mm).shape, new_spacing_mm)


def grid_of(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Geometry:
    return Geometry(shape, np.diag([*spacing_mm, 1.0]))


def test_positions_by_hand() -> None:
    # Both grids have their centre in one place: 4 voxels of 1 mm and 2 of 2 mm.
    assert sample_positions(4, 1.0, 2, 2.0).tolist() == [0.5, 2.5]
    assert sample_positions(2, 2.0, 4, 1.0).tolist() == [0.0, 0.25, 0.75, 1.0]  # -0.25 and 1.25 are beyond the centres
    assert sample_positions(1, 5.0, 3, 1.0).tolist() == [0.0, 0.0, 0.0]


@given(shapes, spacings_mm, spacings_mm)
def test_positions_are_where_the_new_grid_lies(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], new_spacing_mm: tuple[float, float, float]
) -> None:
    grid = grid_of(shape, spacing_mm)
    new = grid.respaced(new_spacing_mm)
    for axis in range(3):
        index = np.zeros((new.shape[axis], 3))
        index[:, axis] = np.arange(new.shape[axis])
        expected = (new.world(index)[:, axis] / spacing_mm[axis]).clip(0, shape[axis] - 1)
        positions = sample_positions(shape[axis], spacing_mm[axis], new.shape[axis], new_spacing_mm[axis])
        if np.abs(expected - np.rint(expected)).max() < 0.02:  # voxels at their places but for rounding are copied
            expected = np.rint(expected)
        np.testing.assert_allclose(positions, expected, atol=1e-9)


@given(shapes, spacings_mm, spacings_mm, st.integers(0, 99))
def test_linear_is_that_of_scipy(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    new_spacing_mm: tuple[float, float, float],
    seed: int,
) -> None:
    array = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, *shape)))
    grid = grid_of(shape, spacing_mm)
    result = resampled(array, grid, new_spacing_mm)
    new = grid.respaced(new_spacing_mm)
    places = (new.world(np.stack(np.indices(new.shape), -1)) / spacing_mm).clip(0, np.array(shape) - 1)
    for axis in range(3):  # an axis whose voxels are at their places but for rounding is copied
        if np.abs(places[..., axis] - np.rint(places[..., axis])).max() < 0.02:
            places[..., axis] = np.rint(places[..., axis])
    for channel in range(2):
        expected = map_coordinates(array[channel].numpy(), np.moveaxis(places, -1, 0), order=1, mode="nearest")
        np.testing.assert_allclose(result[channel].numpy(), expected, atol=1e-6)


def test_linear_is_that_of_simpleitk_on_an_oblique_grid() -> None:
    array = np.random.default_rng(0).normal(size=(9, 8, 7)).astype(np.float32)
    turn = np.array([[2, -1, 2], [2, 2, -1], [-1, 2, 2]]) / 3
    grid = Geometry.from_lps((9, 8, 7), (-5, 10, 3), turn, (0.8, 1.1, 2.5))
    new_spacing_mm = (1.0, 1.0, 1.0)
    new = grid.respaced(new_spacing_mm)
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(grid.lps_affine[:3, 3].tolist())
    image.SetDirection(turn.ravel().tolist())
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(new.shape)
    resampler.SetOutputSpacing(new_spacing_mm)
    resampler.SetOutputOrigin(new.lps_affine[:3, 3].tolist())
    resampler.SetOutputDirection(turn.ravel().tolist())
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.UseNearestNeighborExtrapolatorOn()
    expected = sitk.GetArrayFromImage(resampler.Execute(image)).transpose(2, 1, 0)
    result = resampled(torch.from_numpy(array[None]), grid, new_spacing_mm)[0].numpy()
    # Beyond the outermost centres ITK takes the nearest voxel of all axes at once; compare where both interpolate.
    inner = (slice(1, -1), slice(1, -1), slice(2, -2))
    np.testing.assert_allclose(result[inner], expected[inner], atol=1e-5)


@given(shapes, spacings_mm, spacings_mm)
def test_a_constant_stays_and_a_ramp_stays_a_ramp(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], new_spacing_mm: tuple[float, float, float]
) -> None:
    grid = grid_of(shape, spacing_mm)
    new = grid.respaced(new_spacing_mm)
    assert (resampled(torch.full((1, *shape), 3.25), grid, new_spacing_mm) == 3.25).all()
    x_mm = torch.from_numpy(grid.world(np.stack(np.indices(shape), -1))[..., 0])[None]
    expected_mm = new.world(np.stack(np.indices(new.shape), -1))[..., 0].clip(0, (shape[0] - 1) * spacing_mm[0])
    rounding_mm = 0.02 * spacing_mm[0]
    np.testing.assert_allclose(resampled(x_mm, grid, new_spacing_mm)[0].numpy(), expected_mm, atol=rounding_mm + 1e-6)


@given(shapes, spacings_mm, spacings_mm)
def test_nearest_takes_the_nearest_voxel(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], new_spacing_mm: tuple[float, float, float]
) -> None:
    index = torch.from_numpy(np.stack(np.indices(shape)))  # the value of a voxel is its place
    grid = grid_of(shape, spacing_mm)
    new = grid.respaced(new_spacing_mm)
    taken = resample_nearest(index, grid.spacing_mm, new.shape, new_spacing_mm)
    assert taken.dtype == index.dtype
    assert taken.shape == (3, *new.shape)
    wanted = (new.world(np.stack(np.indices(new.shape), -1)) / spacing_mm).clip(0, np.asarray(shape) - 1)
    assert np.abs(np.moveaxis(taken.numpy(), 0, -1) - wanted).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("resample", [resample_linear, resample_nearest])
def test_the_same_spacing_changes_no_bit(resample: object) -> None:
    array = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 5, 6, 1)).astype(np.float32))
    array[0, 2, 2, 0] = torch.inf  # stays where it is: zero weights must not spread it
    result = resample(array, (0.7, 1.1, 3.0), (5, 6, 1), (0.7, 1.1, 3.0))  # type: ignore[operator]
    assert torch.equal(result, array)


def test_a_voxel_size_rounded_to_four_digits_moves_nothing() -> None:
    """0.78125 mm is 0.7812 mm in a plan; 512 voxels are the same 512 voxels."""
    assert (sample_positions(512, 0.78125, 512, 0.7812) == np.arange(512)).all()
    assert (sample_positions(512, 0.78125, 512, 0.78) != np.arange(512)).any()


def test_the_input_is_not_changed() -> None:
    array = torch.arange(24.0).reshape(1, 2, 3, 4)
    before = array.clone()
    resample_linear(array, (1, 1, 1), (3, 4, 6), (0.7, 0.7, 0.7))
    assert torch.equal(array, before)


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([0.0, 1.0, 2.0], [10.0, 20.0, 40.0]),
        ([0.0, 0.0, 1.0], [10.0, 10.0, 20.0]),  # as many as there are, whole, and yet not the same
        ([1.0, 0.0], [20.0, 10.0]),
        ([2.0], [40.0]),
        ([0.25, 1.5], [12.5, 30.0]),
    ],
)
def test_interpolation_by_hand(positions: list[float], expected: list[float]) -> None:
    array = torch.tensor([10.0, 20.0, 40.0]).reshape(1, 3, 1)
    assert interpolate_axis(array, 1, np.array(positions)).flatten().tolist() == expected


def test_a_single_voxel_is_spread() -> None:
    array = torch.tensor([7.0]).reshape(1, 1, 1, 1)
    assert (resample_linear(array, (5, 5, 5), (5, 5, 5), (1, 1, 1)) == 7).all()
    assert (resample_nearest(array, (5, 5, 5), (5, 5, 5), (1, 1, 1)) == 7).all()


# Splines


@given(
    st.tuples(*[st.integers(1, 12)] * 3),
    st.tuples(*[st.integers(1, 20)] * 3),
    st.integers(0, 99),
)
def test_splines_are_those_of_scipy(shape: tuple[int, int, int], new: tuple[int, int, int], seed: int) -> None:
    """As scikit-image resizes with them: SciPy's zoom from edge to edge, and nothing beyond the range of the voxels."""
    array = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    way = Resampling.towards(
        grid_of(shape, (1, 1, 1)), tuple(o / n for o, n in zip(shape, new, strict=True)), "extent", "cubic"
    )  # type: ignore[arg-type]
    assert way.new_shape == new
    found = ResampledVolume(array, way).read(Box.whole(new)).numpy()
    for ours, channel in zip(found, array, strict=True):
        factors = [many / few for many, few in zip(new, shape, strict=True)]
        theirs = zoom(channel.astype(np.float64), factors, order=3, mode="nearest", grid_mode=True)
        np.testing.assert_allclose(ours, theirs.clip(channel.min(), channel.max()), atol=2e-5)


def test_along_a_coarse_axis_planes_are_copied() -> None:
    """Each plane is resized by itself, and the nearest taken: nothing of its neighbours is in it."""
    rng = np.random.default_rng(0)
    array = rng.normal(size=(1, 14, 12, 5)).astype(np.float32)
    array[..., 3] *= 100  # would ring into its neighbours
    way = Resampling.towards(grid_of((14, 12, 5), (1, 1, 5)), (1.4, 0.8, 3.1), "extent", "cubic", "nearest")
    assert (way.nearest, way.new_shape) == (2, (10, 15, 8))
    found = ResampledVolume(array, way).read(Box.whole(way.new_shape))[0].numpy()
    planes = [
        zoom(plane.astype(float), (10 / 14, 15 / 12), order=3, mode="nearest", grid_mode=True)
        for plane in array[0].T.swapaxes(1, 2)
    ]
    for n, plane in enumerate(np.moveaxis(found, -1, 0)):
        source = int(np.floor((n + 0.5) * 5 / 8))
        wanted = planes[source].clip(array[0, ..., source].min(), array[0, ..., source].max())
        np.testing.assert_allclose(plane, wanted, atol=1e-4 * np.abs(wanted).max())


def test_a_part_may_end_just_before_a_voxel() -> None:
    """Position 8.999999999999998: shifted to the part, it must not become 9."""
    array = np.random.default_rng(1).normal(size=(1, 23, 2, 2)).astype(np.float32)
    volume = ResampledVolume(
        array, Resampling.towards(grid_of((23, 2, 2), (1, 1, 2)), (0.4000000000000001, 1.0, 1.0), "spacing", "cubic")
    )
    whole = volume.read(Box.whole(volume.shape))
    for end in range(1, volume.shape[0] + 1):
        part = Box(slice(0, end), slice(0, 1), slice(0, 1))
        assert torch.equal(volume.read(part), whole[:, *part]), end


@given(st.tuples(*[st.integers(2, 40)] * 3), spacings_mm, st.sampled_from(["linear", "cubic"]), st.data())
def test_a_part_is_a_part_of_the_whole(
    shape: tuple[int, int, int], new_mm: tuple[float, float, float], interpolation: str, data: st.DataObject
) -> None:
    array = np.random.default_rng(1).normal(size=(1, *shape)).astype(np.float32)
    volume = ResampledVolume(array, Resampling.towards(grid_of(shape, (1, 1, 2)), new_mm, "spacing", interpolation))  # type: ignore[arg-type]
    ends = [sorted(data.draw(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)))) for size in volume.shape]
    box = Box(*(slice(low, high + 1) for low, high in ends))
    whole = volume.read(Box.whole(volume.shape))
    assert torch.equal(volume.read(box), whole[:, *box])


@given(st.tuples(*[st.integers(2, 9)] * 3), st.tuples(*[st.integers(1, 14)] * 3), st.integers(0, 99))
def test_labels_go_where_they_take_most(shape: tuple[int, int, int], new: tuple[int, int, int], seed: int) -> None:
    """By SciPy's own interpolation of each value; where two are equal, the nearest."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-1, 3, shape)
    i, j, k = (old / many for old, many in zip(shape, new, strict=True))
    way = Resampling.towards(grid_of(shape, (1, 1, 1)), (i, j, k), "extent", "cubic")
    image = rng.normal(size=(1, *shape)).astype(np.float32)
    found = ResampledWithLabels(image, way, values, (1, 2)).read(Box.whole(new)).numpy()
    factors = [many / few for many, few in zip(new, shape, strict=True)]
    present = np.unique(values)
    shares = [
        zoom((values == value).astype(float), factors, order=1, mode="nearest", grid_mode=True) for value in present
    ]
    winner = present[np.argmax(shares, axis=0)]
    clear = np.sort(shares, axis=0)[-1] - (np.sort(shares, axis=0)[-2] if len(present) > 1 else 0) > 1e-9
    for label, ours in zip((1, 2), found[1:], strict=True):
        np.testing.assert_array_equal(ours[clear], (winner == label)[clear])
    np.testing.assert_array_equal(found[:1], ResampledVolume(image, way).read(Box.whole(new)).numpy())
    assert set(np.unique(found[1:])) <= {0.0, 1.0}


def test_labels_lie_where_the_image_lies_on_a_grid_that_does_not_fill_the_volume() -> None:
    """Five voxels of 1 mm, seen in two of 3 mm: at 0.5 and 3.5; two that fill the volume lie at 0.75 and 3.25."""
    values = np.array([0, 0, 0, 1, 2]).reshape(5, 1, 1)
    way = Resampling.towards(grid_of((5, 1, 1), (1, 1, 1)), (3.0, 1.0, 1.0))
    assert way.positions[0].tolist() == [0.5, 3.5]
    found = ResampledWithLabels(values[np.newaxis].astype(np.float32), way, values, (1, 2)).read(Box.whole((2, 1, 1)))
    assert found[:, :, 0, 0].tolist() == [
        [0.0, 1.5],
        [0.0, 0.0],
        [0.0, 1.0],
    ]  # of two that are equal the nearest, above


@pytest.mark.parametrize(
    ("spacings_mm", "expected"),
    [
        ([(1, 1, 3)], None),  # not more than three times
        ([(1, 1, 3.1)], 2),
        ([(4, 1, 1)], 0),
        ([(4, 4, 1)], None),  # two
        ([(4, 4, 1), (1, 1, 5)], None),  # the first decides
        ([(1, 1, 1), (1, 5, 1)], 1),
    ],
)
def test_an_axis_is_coarse_by_itself(spacings_mm: list[tuple[float, float, float]], expected: int | None) -> None:
    assert coarse_axis(*spacings_mm) == expected


@given(shapes, spacings_mm, spacings_mm)
def test_a_grid_that_is_fitted_has_the_same_extent(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], wanted_mm: tuple[float, float, float]
) -> None:
    grid = grid_of(shape, spacing_mm)
    fitted = grid.refitted(wanted_mm)
    np.testing.assert_allclose(np.multiply(fitted.shape, fitted.spacing_mm), np.multiply(shape, spacing_mm))
    np.testing.assert_allclose(fitted.corners_mm.mean(axis=0), grid.corners_mm.mean(axis=0), atol=1e-9)
