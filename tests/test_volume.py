from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from volseg.errors import DataError
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
