from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from volseg.training.patches import cut, draw_corner, find_locations

SIDES = st.tuples(*[st.integers(1, 12)] * 3)


@given(shape=SIDES, patch=SIDES, data=st.data())
def test_cut_equals_padding_and_slicing(
    shape: tuple[int, int, int], patch: tuple[int, int, int], data: st.DataObject
) -> None:
    """Wherever a patch touches the volume, be it from outside."""
    r, a, s = (data.draw(st.integers(-length, size)) for length, size in zip(patch, shape, strict=True))
    array = np.arange(1, 1 + np.prod(shape)).reshape(shape)
    padded = np.pad(array, 12)
    expected = padded[tuple(slice(12 + begin, 12 + begin + size) for begin, size in zip((r, a, s), patch, strict=True))]
    np.testing.assert_array_equal(cut(array, (r, a, s), patch), expected)
    np.testing.assert_array_equal(cut(array, (r, a, s), patch, 7)[expected == 0], 7)


@given(shape=SIDES, patch=SIDES, seed=st.integers(0, 1000))
def test_a_drawn_patch_lies_within_the_volume_or_around_it(
    shape: tuple[int, int, int], patch: tuple[int, int, int], seed: int
) -> None:
    corner = draw_corner(shape, patch, {}, 0.5, np.random.default_rng(seed))
    for begin, length, size in zip(corner, patch, shape, strict=True):
        assert 0 <= begin <= size - length or begin == (size - length) // 2 < 0


def test_foreground_patches_hold_a_label_and_all_labels_get_their_turn() -> None:
    reference = np.zeros((30, 30, 30), np.uint8)
    reference[2, 3, 4] = 7
    reference[10:25, 10:25, 10:25] = 1
    locations = find_locations(reference, seed=0)
    assert {value: len(places) for value, places in locations.items()} == {1: 27_000 // 20, 7: 1}
    rng = np.random.default_rng(0)
    seen = {1: 0, 7: 0}
    for _ in range(200):
        patch = cut(reference, draw_corner((30, 30, 30), (4, 4, 4), locations, 1.0, rng), (4, 4, 4))
        assert patch.any()
        seen[int(patch.max())] += 1
    assert min(seen.values()) > 70


def test_locations_are_true_and_take_little_room() -> None:
    reference = np.zeros((60, 60, 60), np.uint16)
    reference[5:35] = 300
    reference[40:, :30] = 7
    found = find_locations(reference, seed=3)
    assert {value: len(places) for value, places in found.items()} == {7: 10_000, 300: 10_000}
    for value, places in found.items():
        assert (reference.ravel()[places] == value).all()
        assert len(np.unique(places)) == len(places)
    small = find_locations(reference[:, :30, :30], seed=3)
    float32_bytes = 4 * reference[:, :30, :30].size
    assert 0.09 * float32_bytes < sum(places.nbytes for places in small.values()) <= 0.1 * float32_bytes
