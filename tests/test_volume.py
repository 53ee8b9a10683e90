from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from conftest import STORAGE_ORDERS, rotation
from hypothesis import given
from hypothesis import strategies as st

from volseg.errors import DataError, GeometryError
from volseg.image.geometry import Geometry
from volseg.image.volume import Label, Mask, Volume

GRID = Geometry((4, 3, 2), np.eye(4))


@pytest.mark.parametrize("value", [0, -1])
def test_a_label_is_no_background(value: int) -> None:
    with pytest.raises(DataError, match=f"'liver' has value {value}"):
        Label(value, "liver")


@pytest.mark.parametrize("shape", [(4, 3, 2), (1, 2, 3, 4), (1, 4, 3), (1, 1, 4, 3, 2)])
def test_a_volume_has_channels_on_its_grid(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"\(C, I, J, K\)"):
        Volume(np.zeros(shape, np.float32), GRID)


def test_a_volume_may_have_many_channels() -> None:
    assert Volume(np.zeros((7, 4, 3, 2), np.float32), GRID).array.shape[0] == 7


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 4, 3, 2), (4, 3)])
def test_a_mask_has_the_shape_of_its_grid(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="needs an array of that shape"):
        Mask(np.zeros(shape, np.uint8), GRID)


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.bool_])
def test_a_mask_is_of_unsigned_integers(dtype: type) -> None:
    with pytest.raises(DataError, match="unsigned integers"):
        Mask(np.zeros((4, 3, 2), dtype), GRID)


def test_value_types_are_frozen() -> None:
    for thing in (Label(1, "liver"), Volume(np.zeros((1, 4, 3, 2), np.float32), GRID), GRID):
        with pytest.raises(FrozenInstanceError):
            thing.geometry = GRID  # type: ignore[union-attr]


# Masks of a part of an image


@given(st.data())
def test_a_cropped_mask_is_placed_where_it_was_cut(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(*[st.integers(3, 6)] * 3))
    ends = [sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in shape]
    affine = np.eye(4)
    affine[:3, :3] = rotation(0, 12) @ rotation(2, 31) @ np.diag([0.7, 1.1, 3.0])
    whole = Geometry(shape, affine)
    array = np.zeros(shape, np.uint8)
    box = tuple(slice(*pair) for pair in ends)
    array[box] = np.random.default_rng(0).integers(0, 3, array[box].shape)
    moved = affine.copy()
    moved[:3, 3] = whole.world([begin for begin, _ in ends])
    part = Mask(array[box], Geometry(array[box].shape, moved), (Label(1, "one"),))
    order = data.draw(st.sampled_from(STORAGE_ORDERS))
    stored = Mask(order.apply(part.array), part.geometry.reordered(order), part.labels)
    placed = stored.placed_on(whole)
    assert placed.geometry is whole
    assert placed.labels == part.labels
    assert np.array_equal(placed.array, array)


def test_what_a_mask_marks_outside_its_image_is_not_lost() -> None:
    image = Geometry((4, 4, 4), np.eye(4))
    larger = np.zeros((6, 4, 4), np.uint8)
    larger[1, 2, 3] = 5
    assert Mask(larger, Geometry((6, 4, 4), np.eye(4))).placed_on(image).array[1, 2, 3] == 5
    larger[4:, 0, 0] = 1
    with pytest.raises(GeometryError, match=r"marks 2 voxels outside the image") as caught:
        Mask(larger, Geometry((6, 4, 4), np.eye(4))).placed_on(image)
    assert "crop" in caught.value.hint


def test_a_mask_of_equal_shape_is_not_moved() -> None:
    moved = np.eye(4)
    moved[0, 3] = 1
    with pytest.raises(GeometryError, match=r"different grids, up to 1 mm apart \(1 voxels\)"):
        Mask(np.ones((4, 4, 4), np.uint8), Geometry((4, 4, 4), moved)).placed_on(Geometry((4, 4, 4), np.eye(4)))
