from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from volseg.config import LabelRule
from volseg.errors import ConfigError
from volseg.image.geometry import Geometry
from volseg.image.volume import Label, Mask
from volseg.prediction.postprocess import postprocess

LABELS = (Label(1, "liver"), Label(2, "spleen"), Label(5, "kidney"))
SPACING_MM = (1.0, 2.0, 3.5)


def make_mask(array: NDArray[np.generic], spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Mask:
    return Mask(array.astype(np.uint8), Geometry(array.shape, np.diag([*spacing_mm, 1.0])), LABELS)


def applied(mask: Mask, **rule: object) -> NDArray[np.unsignedinteger]:
    return postprocess(mask, [LabelRule(**rule)]).array


masks = st.tuples(*[st.integers(1, 9)] * 3).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 0, 1, 1, 2, 5])).map(
        lambda array: make_mask(array, SPACING_MM)
    )
)
rules = st.builds(
    LabelRule,
    label=st.sampled_from(["*", "liver", "spleen", "kidney"]),
    keep_largest=st.booleans(),
    min_voxels=st.integers(0, 4),
    min_volume_ml=st.sampled_from([0.0, 0.014]),
    fill_holes=st.booleans(),
    morphology=st.sampled_from(["none", "opening", "closing", "erosion", "dilation"]),
    radius_mm=st.sampled_from([0.0, 1.0, 2.5, 4.0]),
    connectivity=st.sampled_from([6, 18, 26]),
)


def oracle_components(inside: NDArray[np.bool_], connectivity: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Component numbers by scipy and their sizes, the background's set to 0."""
    structure = ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
    components, _ = ndimage.label(inside, structure)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    return components, sizes


def ball(radius_mm: float, spacing_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """All offsets of at most the radius, enumerated."""
    reach = [int(radius_mm // size) for size in spacing_mm]
    offsets = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij"), axis=-1)
    return ((offsets * spacing_mm) ** 2).sum(axis=-1) <= radius_mm**2 + 1e-6


def test_no_rules_copy_the_mask():
    mask = make_mask(np.eye(3)[..., None])
    result = postprocess(mask, [])
    assert np.array_equal(result.array, mask.array)
    assert not np.shares_memory(result.array, mask.array)
    assert result.geometry is mask.geometry
    assert result.labels == LABELS


@given(masks, st.lists(rules, min_size=1, max_size=3))
def test_rules_invent_no_values_and_leave_their_input_alone(mask: Mask, many: list[LabelRule]):
    before = mask.array.copy()
    result = postprocess(mask, many)
    assert np.array_equal(mask.array, before)
    assert result.array.dtype == mask.array.dtype
    assert set(np.unique(result.array)) <= {0, *np.unique(before).tolist()}


@given(masks, rules.filter(lambda rule: rule.label != "*"))
def test_a_label_takes_background_only(mask: Mask, rule: LabelRule):
    value = {"liver": 1, "spleen": 2, "kidney": 5}[rule.label]
    result = postprocess(mask, [rule]).array
    taken = (mask.array == 0) & (result == value)
    given_up = (mask.array == value) & (result == 0)
    assert np.all(taken | given_up | (result == mask.array))


@given(masks, st.sampled_from([6, 18, 26]), st.sampled_from([0.0, 0.014, 0.021]))
def test_cleaning_twice_is_cleaning_once(mask: Mask, connectivity: int, min_volume_ml: float):
    rule = LabelRule(keep_largest=True, fill_holes=True, min_volume_ml=min_volume_ml, connectivity=connectivity)
    once = postprocess(mask, [rule])
    assert np.array_equal(postprocess(once, [rule]).array, once.array)


@given(masks, st.sampled_from([6, 18, 26]))
def test_keep_largest_agrees_with_scipy(mask: Mask, connectivity: int):
    result = applied(mask, keep_largest=True, connectivity=connectivity)
    expected = np.zeros_like(mask.array)
    for value in np.unique(mask.array[mask.array > 0]):
        components, sizes = oracle_components(mask.array == value, connectivity)
        expected[components == sizes.argmax()] = value
    assert np.array_equal(result, expected)


@given(masks, st.sampled_from([6, 18, 26]), st.integers(1, 5))
def test_small_components_go_as_by_scipy(mask: Mask, connectivity: int, min_voxels: int):
    result = applied(mask, label="liver", min_voxels=min_voxels, connectivity=connectivity)
    components, sizes = oracle_components(mask.array == 1, connectivity)
    expected = np.where((mask.array == 1) & (sizes < min_voxels)[components], 0, mask.array)
    assert np.array_equal(result, expected)


@given(masks)
def test_holes_are_filled_as_by_scipy(mask: Mask):
    result = applied(mask, label="liver", fill_holes=True)
    filled = ndimage.binary_fill_holes(mask.array == 1)
    assert np.array_equal(result, np.where(filled & (mask.array == 0), 1, mask.array))


@given(masks, st.sampled_from([0.5, 1.0, 2.0, 2.3, 3.5, 4.1]))
def test_morphology_agrees_with_an_enumerated_ball(mask: Mask, radius_mm: float):
    inside = mask.array == 1
    element = ball(radius_mm, SPACING_MM)
    margin = 10
    padded = np.pad(inside, margin)
    middle = (slice(margin, -margin),) * 3
    # Outside the image: nothing to grow from, no reason to shrink, and background to a closing.
    dilated = ndimage.binary_dilation(inside, element)
    eroded = ndimage.binary_erosion(inside, element, border_value=1)
    opened = ndimage.binary_dilation(eroded, element)
    closed = ndimage.binary_erosion(ndimage.binary_dilation(padded, element), element)[middle]
    for name, expected in {"dilation": dilated, "erosion": eroded, "opening": opened, "closing": closed}.items():
        result = applied(mask, label="liver", morphology=name, radius_mm=radius_mm)
        free = inside | (mask.array == 0)
        assert np.array_equal(result == 1, expected & free), name


def test_dilation_is_in_millimetres():
    array = np.zeros((11, 11, 11))
    array[5, 5, 5] = 1
    result = applied(make_mask(array, SPACING_MM), morphology="dilation", radius_mm=3.5)
    # 3.5 mm are three voxels of 1 mm, one of 2 mm and exactly one of 3.5 mm.
    reach = [
        int(ends[-1] - ends[0]) // 2
        for ends in (np.flatnonzero(result.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    ]
    assert reach == [3, 1, 1]
    # (i, 0, 0): 7 voxels; (i, +-1, 0) with i*i + 4 <= 12.25: 5 each; (0, 0, +-1): 1 each.
    assert np.count_nonzero(result) == 7 + 2 * 5 + 2


def test_erosion_does_not_nibble_where_the_image_cuts_an_organ():
    array = np.zeros((6, 6, 6))
    array[:, :, :4] = 1  # Cut by five faces of the image, free on one.
    result = applied(make_mask(array), morphology="erosion", radius_mm=1)
    assert np.array_equal(np.flatnonzero(result.any(axis=(0, 1))), [0, 1, 2])
    assert np.count_nonzero(result) == 6 * 6 * 3


def test_closing_keeps_and_does_not_reach_the_border():
    array = np.zeros((12, 12, 12))
    array[0:4, 4:8, 4:8] = 1  # Touches the border ...
    array[6:11, 4:8, 4:8] = 1  # ... stays one voxel away from it; a gap of two between the parts.
    result = applied(make_mask(array), morphology="closing", radius_mm=2)
    assert np.all(result[array == 1] == 1)
    assert result[4:6, 5:7, 5:7].all()
    assert not result[11].any()


def test_opening_cuts_a_bridge():
    array = np.zeros((15, 9, 9))
    array[1:6, 2:7, 2:7] = 1
    array[9:14, 2:7, 2:7] = 1
    array[6:9, 4, 4] = 1
    result = applied(make_mask(array), morphology="opening", radius_mm=1)
    assert not result[7].any()  # The ball reaches one voxel into the bridge from either side.
    assert result[5, 4, 4] == result[9, 4, 4] == 1
    assert np.all(array[result == 1] == 1)


def test_erosion_may_leave_nothing():
    array = np.zeros((5, 5, 5))
    array[2, 2, 2] = 1
    assert not applied(make_mask(array), morphology="opening", radius_mm=1).any()


def test_morphology_comes_before_the_largest_component():
    array = np.zeros((40, 5, 5))
    array[1:4, 1:4, 1:4] = 1  # 27 voxels
    array[6:38, 2, 2] = 1  # A thread of 32, the largest unless the opening removes it first.
    result = applied(make_mask(array), morphology="opening", radius_mm=1, keep_largest=True)
    assert np.count_nonzero(result) == np.count_nonzero(result[1:4]) == 7


@pytest.mark.parametrize("order", ["C", "F"])
def test_ties_go_to_the_first_in_index_order(order: str):
    array = np.zeros((5, 5, 5), order=order)
    array[4, 0, 0] = array[0, 4, 0] = array[0, 0, 4] = 1  # In memory order "F" the first would be (4, 0, 0).
    result = applied(make_mask(array), keep_largest=True)
    assert np.argwhere(result).tolist() == [[0, 0, 4]]


def test_connectivity_by_faces_edges_corners():
    array = np.zeros((4, 4, 4))
    array[0, 0, 0] = array[0, 0, 1] = array[0, 1, 2] = array[1, 2, 3] = 1  # Joined by a face, an edge, a corner.
    counts = [np.count_nonzero(applied(make_mask(array), keep_largest=True, connectivity=c)) for c in (6, 18, 26)]
    assert counts == [2, 3, 4]


def test_minimum_volume_counts_millilitres():
    array = np.zeros((10, 10, 10))
    array[0:2, 0:2, 0:2] = 1  # 8 voxels of 8 mm3: 0.064 ml, exactly the limit.
    array[5:7, 5:7, 5] = 2  # 0.032 ml
    mask = make_mask(array, (2, 2, 2))
    assert np.unique(applied(mask, min_volume_ml=0.064)).tolist() == [0, 1]
    assert np.unique(applied(mask, min_volume_ml=0.032)).tolist() == [0, 1, 2]
    assert np.unique(applied(mask, min_volume_ml=0.065)).tolist() == [0]


def test_a_hole_is_filled_around_what_lies_in_it():
    array = np.zeros((7, 7, 7))
    array[1:6, 1:6, 1:6] = 1
    array[2:5, 2:5, 2:5] = 0
    array[3, 3, 3] = 2
    result = applied(make_mask(array), fill_holes=True)
    assert result[3, 3, 3] == 2
    assert np.count_nonzero(result == 1) == 5**3 - 1


def test_a_tunnel_is_no_hole_but_a_diagonal_leak_is():
    array = np.zeros((5, 5, 5))
    array[1:4, 1:4, 1:4] = 1
    array[2, 2, 2:4] = 0
    assert np.array_equal(applied(make_mask(array), fill_holes=True), array)  # Open at a face.
    array[2, 2, 3] = 1
    array[1, 1, 2] = 0  # Meets the hole along an edge only.
    assert applied(make_mask(array), fill_holes=True)[2, 2, 2] == 1


def test_a_ring_in_one_slice_has_no_hole():
    array = np.ones((3, 3, 1))
    array[1, 1, 0] = 0
    assert np.array_equal(applied(make_mask(array), fill_holes=True), array)


def test_contested_background_goes_to_the_smaller_value():
    array = np.zeros((5, 1, 1))
    array[0], array[4] = 2, 1
    result = applied(make_mask(array), morphology="dilation", radius_mm=2)
    assert result.ravel().tolist() == [2, 2, 1, 1, 1]


def test_rules_follow_each_other():
    array = np.zeros((9, 1, 1))
    array[[0, 1, 4, 8], 0, 0] = [1, 1, 1, 2]
    rules = [LabelRule(label="liver", keep_largest=True), LabelRule(label="*", min_voxels=2)]
    assert postprocess(make_mask(array), rules).array.ravel().tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 0]


def test_large_values_and_wide_types():
    array = np.zeros((4, 1, 1), dtype=np.uint32)
    array[[0, 2, 3], 0, 0] = 3_000_000_000
    mask = Mask(array, Geometry(array.shape, np.eye(4)), (Label(3_000_000_000, "far"),))
    rule = LabelRule(label="far", keep_largest=True, fill_holes=True)
    result = postprocess(mask, [rule]).array
    assert result.dtype == np.uint32
    assert result.ravel().tolist() == [0, 0, 3_000_000_000, 3_000_000_000]


def test_an_unknown_label_is_refused():
    with pytest.raises(ConfigError, match="'livr'") as caught:
        applied(make_mask(np.ones((2, 2, 2))), label="livr", keep_largest=True)
    assert "liver, spleen, kidney" in caught.value.hint


def test_a_known_label_without_voxels_is_fine():
    array = np.ones((2, 2, 2))
    result = applied(
        make_mask(array), label="spleen", keep_largest=True, fill_holes=True, morphology="erosion", radius_mm=1
    )
    assert np.array_equal(result, array)


def test_an_empty_mask_stays_empty():
    rule = {"keep_largest": True, "fill_holes": True, "morphology": "closing", "radius_mm": 2, "min_voxels": 3}
    assert not applied(make_mask(np.zeros((4, 3, 2))), **rule).any()
