from __future__ import annotations

import cc3d
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from volseg.image.contours import fill, signed_area, trace, with_keyholes

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))


def windings(polygon: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """By definition, one edge and one voxel after the other: crossings of a ray towards +i, and turns around."""
    crossings, turns = np.zeros(shape, int), np.zeros(shape, int)
    for (i0, j0), (i1, j1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        for i, j in np.ndindex(shape):
            if (j0 <= j) != (j1 <= j) and i0 + (j - j0) * (i1 - i0) / (j1 - j0) > i:
                crossings[i, j] += 1
                turns[i, j] += 1 if j1 > j0 else -1
    return crossings, turns


def channel_points(polygon: np.ndarray) -> np.ndarray:
    """Points every half voxel along all edges."""
    after = np.roll(polygon, -1, axis=0)
    return np.concatenate(
        [np.linspace(a, b, int(2 * np.abs(b - a).max()) + 1) for a, b in zip(polygon, after, strict=True)]
    )


def nested(size: int) -> np.ndarray:
    """A square in a hole in a square in a hole ..."""
    i, j = np.indices((size, size))
    return np.minimum(np.minimum(i, j), size - 1 - np.maximum(i, j)) % 2 == 0


CHECKERBOARD = np.indices((7, 8)).sum(axis=0) % 2 == 0
SHAPES = {
    "checkerboard": CHECKERBOARD,
    "other checkerboard": ~CHECKERBOARD,
    "nested": nested(11),
    "full": np.ones((4, 6), bool),
    "one voxel": np.ones((1, 1), bool),
    "diagonal holes": ~np.eye(7, dtype=bool),
    "grid": np.indices((9, 9)).max(axis=0) % 2 * np.indices((9, 9)).min(axis=0) % 2 == 0,
}


def test_one_voxel_is_a_square_around_its_centre() -> None:
    mask = np.zeros((5, 6), bool)
    mask[3, 2] = True
    (ring,) = trace(mask)
    assert ring.tolist() == [[2.5, 1.5], [3.5, 1.5], [3.5, 2.5], [2.5, 2.5]]
    assert signed_area(ring) == 1


def test_a_ring_is_an_outer_boundary_and_a_hole() -> None:
    mask = np.ones((3, 3), bool)
    mask[1, 1] = False
    outer, hole = trace(mask)
    assert outer.tolist() == [[-0.5, -0.5], [2.5, -0.5], [2.5, 2.5], [-0.5, 2.5]]
    assert hole.tolist() == [[0.5, 0.5], [0.5, 1.5], [1.5, 1.5], [1.5, 0.5]]
    (polygon,) = with_keyholes([outer, hole])
    there_and_back = [[-0.5, 0.5], [0.5, 0.5], [0.5, 1.5], [1.5, 1.5], [1.5, 0.5], [0.5, 0.5], [-0.5, 0.5]]
    assert polygon.tolist() == [[-0.5, -0.5], [2.5, -0.5], [2.5, 2.5], [-0.5, 2.5], *there_and_back]


def test_nothing_has_no_boundary() -> None:
    assert trace(np.zeros((4, 5), bool)) == []
    assert with_keyholes([]) == []
    assert not fill([], (4, 5)).any()


@pytest.mark.parametrize("mask", SHAPES.values(), ids=SHAPES)
def test_known_shapes_come_back(mask: np.ndarray) -> None:
    check(mask)


@given(mask=MASKS)
def test_any_mask_comes_back(mask: np.ndarray) -> None:
    check(mask)


def check(mask: np.ndarray) -> None:
    rings = trace(mask)
    polygons = with_keyholes(rings)
    np.testing.assert_array_equal(fill(rings, mask.shape), mask)
    np.testing.assert_array_equal(fill(polygons, mask.shape), mask)
    # One polygon per area, whose voxels touch along edges; each is right by both rules of what is inside.
    areas = cc3d.connected_components(mask[:, :, np.newaxis], connectivity=6)[:, :, 0]
    covered = np.zeros(mask.shape, int)
    for polygon in polygons:
        crossings, turns = windings(polygon, mask.shape)
        (area,) = np.unique(areas[crossings % 2 == 1])
        np.testing.assert_array_equal(crossings % 2 == 1, areas == area)
        np.testing.assert_array_equal(turns, areas == area)
        assert signed_area(polygon) == (areas == area).sum()
        covered += turns
    np.testing.assert_array_equal(covered, mask)
    assert len(polygons) == areas.max()


@given(mask=MASKS)
def test_polygons_run_along_edges_of_voxels(mask: np.ndarray) -> None:
    rings = trace(mask)
    for ring in rings:
        steps = np.roll(ring, -1, axis=0) - ring
        assert len(ring) >= 4
        assert ((steps != 0).sum(axis=1) == 1).all()
        assert ((steps[:, 0] == 0) != (np.roll(steps, 1, axis=0)[:, 0] == 0)).all()  # it turns at every corner
    for polygon in with_keyholes(rings):
        assert (polygon % 1 == 0.5).all()
        assert (polygon != np.roll(polygon, 1, axis=0)).any(axis=1).all()
        # A channel stays within its area: none of its points is outside all voxels of the mask.
        points = channel_points(polygon)
        beside = np.stack(
            [np.floor(points + shift) for shift in ([0.01, 0.01], [0.99, 0.01], [0.01, 0.99], [0.99, 0.99])]
        )
        i, j = np.moveaxis(beside.astype(int), -1, 0)
        within = (i >= 0) & (j >= 0) & (i < mask.shape[0]) & (j < mask.shape[1])
        assert (within & mask[np.where(within, i, 0), np.where(within, j, 0)]).any(axis=0).all()


@given(
    corners=st.lists(st.tuples(st.integers(-6, 30), st.integers(-6, 30)), min_size=3, max_size=8),
    shape=st.tuples(st.integers(1, 7), st.integers(1, 7)),
)
def test_any_polygon_is_filled_by_definition(corners: list[tuple[int, int]], shape: tuple[int, int]) -> None:
    polygon = np.array(corners) / 4 + [0.03, 0.07]  # no centre lies on an edge along i or j
    crossings, _ = windings(polygon, shape)
    on_edge = np.zeros(shape, bool)
    for (i0, j0), (i1, j1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        i, j = np.indices(shape)
        on_edge |= np.abs((i - i0) * (j1 - j0) - (j - j0) * (i1 - i0)) < 1e-9
    np.testing.assert_array_equal(fill([polygon], shape)[~on_edge], (crossings % 2 == 1)[~on_edge])


@given(cut=st.tuples(*[st.integers(0, 8)] * 4))
def test_centres_on_a_shared_edge_belong_to_one_side(cut: tuple[int, int, int, int]) -> None:
    square = np.array([[-1.0, -1], [9, -1], [9, 9], [-1, 9]])
    a, b = np.array([-1.0, cut[0]]), np.array([9.0, cut[1]])
    middle = np.array([cut[2], cut[3]], float)
    below = np.array([square[0], square[1], b, middle, a])
    above = np.array([a, middle, b, square[2], square[3]])
    assert (fill([below], (9, 9)) ^ fill([above], (9, 9))).all()


def test_a_polygon_through_centres_is_filled_half_open() -> None:
    filled = fill([np.array([[1.0, 1], [4, 1], [4, 3], [1, 3]])], (6, 6))
    assert np.argwhere(filled).tolist() == [[i, j] for i in (1, 2, 3) for j in (1, 2)]


def test_polygons_in_polygons_are_holes_and_islands() -> None:
    squares = [np.array([[a, a], [b, a], [b, b], [a, b]]) - 0.5 for a, b in [(0, 9), (1, 8), (3, 6)]]
    expected = np.zeros((10, 10), bool)
    expected[:9, :9] = True
    expected[1:8, 1:8] = False
    expected[3:6, 3:6] = True
    np.testing.assert_array_equal(fill(squares, (10, 10)), expected)


def test_what_lies_outside_is_left_out() -> None:
    filled = fill([np.array([[-1e9, -50], [2.5, -50], [2.5, 1e9], [-1e9, 1e9]])], (5, 4))
    np.testing.assert_array_equal(filled, np.arange(5)[:, np.newaxis] <= 2 + np.zeros((1, 4)))
