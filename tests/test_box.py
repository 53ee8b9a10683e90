from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from volseg.image.box import Box

SHAPE = (7, 5, 6)
MASKS = arrays(bool, array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6))
OFFSETS = st.tuples(*[st.integers(-9, 9)] * 3)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """Boxes within a grid, some without a voxel."""
    sides = (sorted((draw(st.integers(0, size)), draw(st.integers(0, size)))) for size in SHAPE)
    return Box(*(slice(start, stop) for start, stop in sides))


def filled_boxes() -> st.SearchStrategy[Box]:
    return boxes().filter(lambda box: 0 not in box.shape)


def marked(*these: Box) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    for box in these:
        mask[box] = True
    return mask


@settings(deadline=None)
@given(one=boxes(), other=boxes())
def test_an_intersection_holds_what_both_hold(one: Box, other: Box) -> None:
    both = one.intersection(other)
    assert both.shape >= (0, 0, 0)
    np.testing.assert_array_equal(marked(both), marked(one) & marked(other))
    assert one.overlaps(other) == other.overlaps(one) == bool(marked(both).any())
    np.testing.assert_array_equal(marked(other.intersection(one)), marked(both))


@settings(deadline=None)
@given(one=boxes(), other=boxes())
def test_a_union_is_the_smallest_box_that_holds_both(one: Box, other: Box) -> None:
    union = one.union(other)
    assert union == other.union(one)
    assert one.union() == one.union(one) == one
    assert union.intersection(one) == one
    assert union.intersection(other) == other
    if 0 not in one.shape and 0 not in other.shape:
        assert union == Box.around(marked(one, other))


@settings(deadline=None)
@given(several=st.lists(filled_boxes(), min_size=1, max_size=5))
def test_the_union_of_many_is_that_of_pairs(several: list[Box]) -> None:
    assert several[0].union(*several[1:]) == Box.around(marked(*several))


@settings(deadline=None)
@given(box=boxes(), offset=OFFSETS)
def test_shifting_keeps_the_shape_and_can_be_undone(box: Box, offset: tuple[int, int, int]) -> None:
    there = box.shifted(offset)
    assert there.shape == box.shape
    assert there.seen_from(offset) == box
    assert there.origin == tuple(np.add(box.origin, offset))
    assert box.seen_from(box.origin) == Box.whole(box.shape)


@settings(deadline=None)
@given(outer=filled_boxes(), inner=boxes())
def test_a_box_seen_from_a_crop_holds_the_same_voxels(outer: Box, inner: Box) -> None:
    array = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    both = outer.intersection(inner)
    np.testing.assert_array_equal(array[outer][both.seen_from(outer.origin)], array[both])


@settings(deadline=None)
@given(box=filled_boxes(), margin=st.tuples(*[st.integers(0, 3)] * 3))
def test_growing_takes_what_the_margin_reaches_and_no_more(box: Box, margin: tuple[int, int, int]) -> None:
    grown = box.grown(margin, SHAPE)
    assert grown.intersection(box) == box
    assert grown.intersection(Box.whole(SHAPE)) == grown
    places = np.moveaxis(np.indices(SHAPE), 0, -1)
    away = np.maximum(np.array(box.origin) - places, places - np.add(box.origin, box.shape) + 1)
    np.testing.assert_array_equal(marked(grown), (away <= margin).all(axis=-1))
    assert box.grown((0, 0, 0), SHAPE) == box


@settings(deadline=None)
@given(box=filled_boxes())
def test_the_box_around_a_box_is_that_box(box: Box) -> None:
    assert Box.around(marked(box)) == box


@settings(deadline=None)
@given(mask=MASKS)
def test_the_box_around_a_mask_holds_all_of_it_and_no_empty_plane(mask: np.ndarray) -> None:
    box = Box.around(mask)
    if box is None:
        assert not mask.any()
        return
    assert mask[box].sum() == mask.sum()
    for axis in range(3):
        planes = np.moveaxis(mask[box], axis, 0)
        assert planes[0].any()
        assert planes[-1].any()
    assert Box.around(mask.astype(np.uint16) * 300) == box


def test_the_whole_of_a_grid() -> None:
    assert Box.whole(SHAPE).shape == SHAPE
    assert Box.whole(SHAPE).origin == (0, 0, 0)
    assert marked(Box.whole(SHAPE)).all()
    assert Box.around(marked()) is None


@pytest.mark.parametrize("axis", range(3))
def test_one_side_is_replaced(axis: int) -> None:
    box = Box.whole(SHAPE).with_side(axis, slice(1, 3))
    assert box[axis] == slice(1, 3)
    assert [n for n in range(3) if box[n] != Box.whole(SHAPE)[n]] == [axis]


@settings(deadline=None)
@given(box=boxes())
def test_arrays_and_tensors_are_indexed_alike(box: Box) -> None:
    array = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    assert array[box].shape == box.shape
    np.testing.assert_array_equal(torch.from_numpy(array)[box].numpy(), array[box])
    np.testing.assert_array_equal(array[None][:, *box][0], array[box])
