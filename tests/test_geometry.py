from __future__ import annotations

from itertools import permutations, product
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import STORAGE_ORDERS
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from volseg.errors import GeometryError
from volseg.image.geometry import AxisOrder, Geometry, flip_lps_ras

#: Every way to store one array: which axis comes first, second, third, and which run backwards.
ORDERS = [AxisOrder(axes, flips) for axes in permutations(range(3)) for flips in product((False, True), repeat=3)]

axis_orders = st.sampled_from(ORDERS)
spacings_mm = st.tuples(*[st.floats(0.05, 20)] * 3)
origins_mm = st.tuples(*[st.floats(-2000, 2000)] * 3)
shapes = st.tuples(*[st.integers(1, 6)] * 3)
angles = st.one_of(st.sampled_from([0.0, 30.0, 45.0, 90.0, 135.0, 180.0]), st.floats(-180, 180))


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """About x, then y, then z."""
    total = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        turn = np.eye(3)
        one, other = (n for n in range(3) if n != axis)
        turn[one, one] = turn[other, other] = np.cos(angle)
        turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
        total = turn @ total
    return total


def make_geometry(
    degrees: tuple[float, float, float] = (20.0, -10.0, 35.0),
    *,
    shape: tuple[int, int, int] = (4, 5, 3),
    spacing_mm: tuple[float, float, float] = (0.7, 1.3, 5.0),
    origin_mm: tuple[float, float, float] = (-101.5, 33.25, 800.0),
    shear: float = 0.0,
) -> Geometry:
    affine = np.eye(4)
    tilt = np.eye(3)
    tilt[1, 2] = shear
    affine[:3, :3] = rotation(degrees) @ tilt @ np.diag(spacing_mm)
    affine[:3, 3] = origin_mm
    return Geometry(shape, affine)


geometries = st.builds(
    make_geometry,
    st.tuples(angles, angles, angles),
    shape=shapes,
    spacing_mm=spacings_mm,
    origin_mm=origins_mm,
    shear=st.floats(-0.5, 0.5),
)


# What a constructor refuses


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3, 2), (4, 0, 3), (4, -1, 3), ()])
def test_a_shape_that_no_volume_has_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="at least one voxel"):
        Geometry(shape, np.eye(4))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("affine", "reason"),
    [
        (np.eye(3), "4x4"),
        (np.diag([1, 1, np.nan, 1]), "finite"),
        (np.diag([1, np.inf, 1, 1]), "finite"),
        (np.diag([1, 1, 0, 1]), "do not span space"),
        (np.diag([1, 1, 1, 2]), "last row"),
        (np.diag([1, 1, 1, 1]) + np.eye(4, k=-3), "last row"),
        ([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "do not span space"),
        ([[1, 0, 1, 0], [0, 1, 1, 0], [0, 0, 1e-4, 0], [0, 0, 0, 1]], "do not span space"),
    ],
)
def test_an_affine_that_no_volume_has_is_refused(affine: Any, reason: str) -> None:
    with pytest.raises(GeometryError, match=reason):
        Geometry((2, 2, 2), affine)


def test_the_affine_is_a_read_only_copy() -> None:
    affine = np.eye(4)
    geometry = Geometry((2, 2, 2), affine)
    affine[0, 3] = 7
    assert geometry.affine[0, 3] == 0
    assert geometry.affine.dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        geometry.affine[0, 3] = 7


# LPS and RAS


@given(geometries)
def test_the_lps_flip_undoes_itself(geometry: Geometry) -> None:
    assert np.array_equal(flip_lps_ras(flip_lps_ras(geometry.affine)), geometry.affine)
    assert not np.array_equal(flip_lps_ras(geometry.affine), geometry.affine)


def test_lps_points_are_ras_points_with_x_and_y_negated() -> None:
    geometry = Geometry.from_lps((3, 3, 3), (10, 20, 30), [[0, 1, 0], [0, 0, -1], [1, 0, 0]], (2, 3, 4))
    # i runs to S by 2, j to L by 3 (x falls in RAS), k to A by 4 (y falls in LPS, rises in RAS).
    assert geometry.world((1, 1, 1)).tolist() == [-10 - 3, -20 + 4, 30 + 2]
    assert geometry.axis_codes == "SLA"
    assert geometry.spacing_mm == (2, 3, 4)


@given(geometries)
def test_lps_affine_builds_the_same_grid(geometry: Geometry) -> None:
    lps = geometry.lps_affine
    spacing_mm = np.asarray(geometry.spacing_mm)
    again = Geometry.from_lps(geometry.shape, lps[:3, 3], lps[:3, :3] / spacing_mm, spacing_mm)
    assert again.distance_mm(geometry) < 1e-9


# Storage orders


@given(geometries, axis_orders)
def test_an_order_keeps_every_voxel_at_its_place(geometry: Geometry, order: AxisOrder) -> None:
    index = np.stack(np.indices(geometry.shape))
    reordered = geometry.reordered(order)
    moved = order.apply(index)
    assert moved.shape[1:] == reordered.shape
    new_index = np.stack(np.indices(reordered.shape), axis=-1)
    np.testing.assert_allclose(reordered.world(new_index), geometry.world(np.moveaxis(moved, 0, -1)), atol=1e-9)
    assert {tuple(corner) for corner in reordered.corners_mm.round(6)} == {
        tuple(corner) for corner in geometry.corners_mm.round(6)
    }


@given(geometries, axis_orders)
def test_the_inverse_undoes_an_order(geometry: Geometry, order: AxisOrder) -> None:
    array = np.arange(np.prod(geometry.shape)).reshape(geometry.shape)
    assert np.array_equal(order.inverse().apply(order.apply(array)), array)
    assert np.array_equal(order.apply(order.inverse().apply(array)), array)
    channels = np.stack([array, -array])
    assert np.array_equal(order.inverse().apply(order.apply(channels)), channels)
    assert geometry.reordered(order).reordered(order.inverse()).distance_mm(geometry) < 1e-9


def test_applying_an_order_copies_nothing() -> None:
    array = np.zeros((2, 3, 4))
    assert all(np.shares_memory(order.apply(array), array) for order in ORDERS)


@settings(max_examples=40)
@given(geometries)
def test_all_48_storage_orders_of_one_anatomy_become_one(geometry: Geometry) -> None:
    anatomy = np.arange(np.prod(geometry.shape)).reshape(geometry.shape)
    canonical = geometry.to_canonical
    expected = canonical.apply(anatomy), geometry.reordered(canonical)
    for order in ORDERS:
        array, stored = order.apply(anatomy), geometry.reordered(order)
        back = stored.to_canonical
        assert np.array_equal(back.apply(array), expected[0])
        assert stored.reordered(back).spacing_mm == expected[1].spacing_mm  # to the last bit
        assert stored.reordered(back).distance_mm(expected[1]) < 1e-9


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("angle", [45.0, 135.0, -45.0])
def test_at_45_degrees_storage_does_not_decide(axis: int, angle: float) -> None:
    degrees = tuple(angle if n == axis else 0.0 for n in range(3))
    anatomy = make_geometry(degrees)  # type: ignore[arg-type]  # three angles
    canonical = anatomy.reordered(anatomy.to_canonical)
    for order in ORDERS:
        stored = anatomy.reordered(order)
        assert stored.reordered(stored.to_canonical).distance_mm(canonical) < 1e-9


@given(geometries, st.permutations(range(3)), st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
def test_spacing_does_not_depend_on_where_the_patient_looks(
    geometry: Geometry, axes: list[int], signs: tuple[float, float, float]
) -> None:
    turned = geometry.affine.copy()
    turned[:3] = turned[axes] * np.array(signs)[:, None]
    assert Geometry(geometry.shape, turned).spacing_mm == geometry.spacing_mm  # to the last bit


@given(geometries)
def test_canonical_axes_stay_as_they_are(geometry: Geometry) -> None:
    canonical = geometry.reordered(geometry.to_canonical)
    assert canonical.axis_codes == "RAS"
    assert canonical.to_canonical.axes == (0, 1, 2)
    assert canonical.to_canonical.flips == (False, False, False)


@pytest.mark.parametrize("order", ORDERS)
def test_axis_codes_of_all_storage_orders(order: AxisOrder) -> None:
    stored = Geometry((2, 3, 4), np.diag([2.0, 3.0, 4.0, 1.0])).reordered(order)
    assert stored.axis_codes == "".join(nib.aff2axcodes(stored.affine))
    assert stored.axis_codes == "".join(
        "LPI"[a] if f else "RAS"[a] for a, f in zip(order.axes, order.flips, strict=True)
    )


@given(st.tuples(angles, angles, angles), axis_orders, spacings_mm)
def test_axis_codes_are_those_of_nibabel(
    degrees: tuple[float, float, float], order: AxisOrder, spacing_mm: tuple[float, float, float]
) -> None:
    # Where an axis is within 45 degrees of a world axis there is but one answer; beyond it is a matter of taste.
    assume(np.abs(rotation(degrees)).max(axis=0).min() > np.cos(np.radians(44)))
    geometry = make_geometry(degrees, spacing_mm=spacing_mm).reordered(order)
    assert geometry.axis_codes == "".join(nib.aff2axcodes(geometry.affine))


# Numbers


def test_numbers_of_an_oblique_grid() -> None:
    geometry = make_geometry((0, 0, 90), shape=(2, 3, 4), spacing_mm=(0.5, 2, 10), origin_mm=(1, 2, 3))
    # A quarter turn about z: i runs to A, j to L.
    assert geometry.axis_codes == "ALS"
    np.testing.assert_allclose(geometry.world([[0, 0, 0], [1, 2, 3]]), [[1, 2, 3], [1 - 4, 2 + 0.5, 3 + 30]])
    np.testing.assert_allclose(geometry.spacing_mm, (0.5, 2, 10))
    np.testing.assert_allclose(geometry.voxel_volume_ml, 0.01)
    assert str(geometry) == "2x3x4 voxels of 0.5 x 2 x 10 mm, ALS"


def test_shear_lengthens_the_step_but_not_the_volume() -> None:
    upright, tilted = (make_geometry((0, 0, 0), spacing_mm=(1, 1, 3), shear=shear) for shear in (0.0, 4 / 3))
    np.testing.assert_allclose(tilted.spacing_mm, (1, 1, 5))  # 3 mm up and 4 mm to the front
    np.testing.assert_allclose(tilted.voxel_volume_ml, upright.voxel_volume_ml)
    np.testing.assert_allclose(upright.voxel_volume_ml, 0.003)


@given(geometries)
def test_direction_and_spacing_make_the_affine(geometry: Geometry) -> None:
    np.testing.assert_allclose(np.linalg.norm(geometry.direction, axis=0), 1)
    np.testing.assert_allclose(geometry.direction * geometry.spacing_mm, geometry.affine[:3, :3], atol=1e-12)


@given(geometries, spacings_mm)
def test_respaced_keeps_centre_axes_and_extent(geometry: Geometry, spacing_mm: tuple[float, float, float]) -> None:
    new = geometry.respaced(spacing_mm)
    centres = [grid.world((np.asarray(grid.shape) - 1) / 2) for grid in (geometry, new)]
    np.testing.assert_allclose(centres[0], centres[1], atol=1e-8)
    np.testing.assert_allclose(new.direction, geometry.direction, atol=1e-9)
    np.testing.assert_allclose(new.spacing_mm, spacing_mm)
    extents_mm = [np.asarray(grid.shape) * grid.spacing_mm for grid in (geometry, new)]
    tolerance_mm = np.where(np.asarray(new.shape) == 1, np.inf, np.asarray(spacing_mm) / 2 * (1 + 1e-9))
    assert (np.abs(extents_mm[0] - extents_mm[1]) <= tolerance_mm).all()


@given(geometries)
def test_respaced_to_its_own_spacing_is_the_same_grid(geometry: Geometry) -> None:
    assert geometry.respaced(geometry.spacing_mm).distance_mm(geometry) < 1e-9


def test_respaced_by_hand() -> None:
    new = Geometry((10, 1, 4), np.diag([1.0, 1.0, 2.0, 1.0])).respaced((2, 5, 1))
    assert new.shape == (5, 1, 8)
    np.testing.assert_allclose(new.world((0, 0, 0)), (0.5, 0, -0.5))


# Sameness


def test_distance_is_that_of_the_farthest_corner() -> None:
    one = Geometry((11, 1, 1), np.eye(4))
    stretched = Geometry((11, 1, 1), np.diag([1.3, 1, 1, 1]))
    np.testing.assert_allclose(one.distance_mm(stretched), 3)
    assert one.distance_mm(Geometry((11, 1, 2), np.eye(4))) == np.inf
    moved = np.eye(4)
    moved[:3, 3] = (0.0003, 0.0004, 0)
    assert one.matches(Geometry((11, 1, 1), moved))
    assert not one.matches(Geometry((11, 1, 1), moved), tolerance_mm=4e-4)
    assert not one.matches(stretched)


@pytest.mark.parametrize("spacing_mm", [(0.2, 0.2, 0.2), (0.5, 0.5, 7.5), (3, 2, 1)])
def test_the_same_place_is_a_twentieth_of_the_smallest_voxel_size(spacing_mm: tuple[float, ...]) -> None:
    affine = np.diag([*spacing_mm, 1.0])
    one, finest = Geometry((9, 8, 7), affine), min(spacing_mm)
    for share, same in ((0.049, True), (0.051, False)):
        for axis in range(3):
            moved = affine.copy()
            moved[axis, 3] = share * finest
            assert one.matches(Geometry((9, 8, 7), moved)) is same
            assert Geometry((9, 8, 7), moved).matches(one) is same
    wider = np.diag([*(np.array(spacing_mm) * 1.5), 1.0])
    assert one.matches(Geometry((9, 8, 7), wider)) is Geometry((9, 8, 7), wider).matches(one) is False


@pytest.mark.parametrize(("digits", "far_mm"), [(7, 1000), (6, 1200), (5, 250), (4, 20)])
def test_numbers_of_a_few_digits_are_the_same_grid(digits: int, far_mm: float) -> None:
    affine = np.eye(4)
    affine[:3, :3] = rotation((-6, 0, 11)) @ np.diag([0.9, 0.9, 2.5])
    affine[:3, 3] = (-far_mm + 0.1234567, far_mm - 0.7654321, far_mm - 0.4444444)
    rounded = np.vectorize(lambda number: float(f"{number:.{digits}g}"))(affine)
    assert Geometry((30, 30, 20), affine).matches(Geometry((30, 30, 20), rounded))


def test_grids_that_differ_are_told_with_their_distance() -> None:
    one = Geometry((4, 5, 6), np.diag([1.0, 1, 2, 1]))
    moved = np.diag([1.0, 1, 2, 1])
    moved[0, 3] = 0.5
    said = one.mismatch(Geometry((4, 5, 6), moved).reordered(AxisOrder((2, 1, 0), (True, False, False))), "a", "b")
    assert said.startswith("a has 4x5x6 voxels of 1 x 1 x 2 mm, RAS, but b has 6x5x4 voxels of 2 x 1 x 1 mm, IAR: ")
    assert said.endswith("different grids, up to 0.5 mm apart (0.5 voxels)")
    assert one.mismatch(Geometry((4, 5, 7), moved), "a", "b").endswith("different grids")


def test_a_part_of_a_grid_is_known_by_its_voxels() -> None:
    affine = np.eye(4)
    affine[:3, :3] = rotation((0, 20, 0)) @ np.diag([1.0, 2, 3])
    whole = Geometry((10, 11, 12), affine)

    def cut(first: tuple[float, float, float], shape: tuple[int, int, int]) -> Geometry:
        moved = affine.copy()
        moved[:3, 3] = whole.world(first)
        return Geometry(shape, moved)

    assert cut((2, 3, 4), (5, 5, 5)).first_in(whole) == (2, 3, 4)
    assert cut((-2, 3, 4), (5, 5, 5)).first_in(whole) == (-2, 3, 4)  # reaches beyond it
    assert cut((2.02, 3, 4), (5, 5, 5)).first_in(whole) == (2, 3, 4)  # rounded
    assert cut((2.5, 3, 4), (5, 5, 5)).first_in(whole) is None  # between voxels
    assert cut((10, 3, 4), (5, 5, 5)).first_in(whole) is None  # beside it
    assert Geometry((5, 5, 5), np.diag([1.0, 2, 3, 1])).first_in(whole) is None  # another direction
    assert cut((2, 3, 4), (5, 5, 5)).reordered(AxisOrder((1, 2, 0), (True, False, True))).is_part_of(whole)
    assert not cut((1, 0, 0), whole.shape).is_part_of(whole)  # moved, not cropped


def test_corners_are_in_index_order() -> None:
    corners = Geometry((2, 3, 4), np.eye(4)).corners_mm
    assert corners.tolist() == [list(corner) for corner in product((0, 1), (0, 2), (0, 3))]


@given(geometries, st.sampled_from(STORAGE_ORDERS))
def test_axes_run_where_they_are_wanted(geometry: Geometry, order: AxisOrder) -> None:
    codes = geometry.reordered(geometry.to_canonical).reordered(order).axis_codes
    towards = geometry.order_towards(codes)
    assert geometry.reordered(towards).axis_codes == codes
    array = np.arange(np.prod(geometry.shape)).reshape(geometry.shape)
    np.testing.assert_array_equal(towards.apply(array), order.apply(geometry.to_canonical.apply(array)))


@given(geometries, st.data())
def test_a_part_lies_where_it_was_cut_out(geometry: Geometry, data: st.DataObject) -> None:
    ends = [sorted(data.draw(st.tuples(*[st.integers(0, size - 1)] * 2))) for size in geometry.shape]
    box = [slice(low, high + 1) for low, high in ends]
    part = geometry.part(box)
    np.testing.assert_allclose(part.world((0, 0, 0)), geometry.world([low for low, _ in ends]), atol=1e-6)
    assert part.first_in(geometry) == tuple(low for low, _ in ends)
