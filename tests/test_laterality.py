"""Labels without names that lie like a left and a right structure rule out mirroring, however images are stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import STORAGE_ORDERS, rotation

from volseg.cases import find_dataset
from volseg.config import PartialConfig
from volseg.image.geometry import Geometry
from volseg.image.intensities import Intensities
from volseg.image.volume import Mask, Volume
from volseg.io import write_mask, write_volume
from volseg.planning import CasePrint, Fingerprint, make_plan, plan_folder, take_fingerprint
from volseg.planning.laterality import partners

Point = tuple[float, float, float]
LABELS = {"label_1": 1, "label_2": 2}


def case_print(centers_mm: dict[int, Point], volumes_ml: dict[int, float]) -> CasePrint:
    """A body of 320 x 240 x 200 mm."""
    seen = (Intensities(0.0, 10.0, 50.0, 100.0),)
    values = np.full((1, 10), 80, np.float32)
    return CasePrint((160, 120, 100), (2.0, 2.0, 2.0), ("MR",), seen, values, volumes_ml, centers_mm)


def kidneys(shift_mm: float = 0.0, volume_ml: float = 150.0) -> CasePrint:
    return case_print({1: (-60 + shift_mm, -30, 5), 2: (58 + shift_mm, -28, -15)}, {1: 160.0, 2: volume_ml})


def flips(names: dict[str, int], *cases: CasePrint) -> tuple[str, ...]:
    return make_plan(Fingerprint(("image",), names, {}, cases)).config.augmentation.flip_axes


def test_two_nameless_kidneys_are_not_mirrored_and_the_plan_asks_for_names() -> None:
    plan = make_plan(Fingerprint(("image",), LABELS, {}, (kidneys(), kidneys(20), kidneys(-25, 110))))
    assert plan.config.augmentation.flip_axes == ()
    assert plan.config.inference.mirror_axes == ()
    reason = plan.reasons["augmentation.flip_axes"]
    assert "label_1 and label_2 lie like a left and a right structure" in reason
    assert "name them in data.labels" in reason


def test_a_body_may_lie_off_the_middle_of_its_image() -> None:
    assert flips(LABELS, kidneys(95), kidneys(99)) == ()


def test_the_one_nearer_to_the_left_is_the_left_one() -> None:
    turned = {"first": 2, "second": 1}
    assert partners(LABELS, [kidneys()]) == [("label_1", "label_2")]
    assert partners(turned, [kidneys()]) == [("second", "first")]


@pytest.mark.parametrize(
    "cases",
    [
        # head and tail: one in front of the other, hardly beside it
        [case_print({1: (2, 10, 0), 2: (-2, -12, 3)}, {1: 1.7, 2: 1.5})] * 4,
        # core and edema: around one place
        [case_print({1: (side * 40, 5, 5), 2: (side * 44, 6, 4)}, {1: 30.0, 2: 40.0}) for side in (-1, 1, 1, -1)],
        # a lesion and another, on whichever side
        [case_print({1: (side * 50, 0, 0), 2: (-side * 45, 5, 9)}, {1: 9.0, 2: 8.0}) for side in (-1, 1, 1, -1)],
        # liver and spleen: of other sizes
        [case_print({1: (60, 0, 20), 2: (-70, -20, 30)}, {1: 1500.0, 2: 200.0})] * 4,
        # two parts of something in one half of the image
        [case_print({1: (90, 0, 0), 2: (120, 0, 0)}, {1: 3.0, 2: 3.0})] * 4,
        # one above the other
        [case_print({1: (-20, 0, 60), 2: (20, 0, -60)}, {1: 30.0, 2: 30.0})] * 4,
        # never together
        [case_print({1: (-60, 0, 0)}, {1: 30.0}), case_print({2: (60, 0, 0)}, {2: 30.0})],
    ],
    ids=["head-tail", "core-edema", "lesions", "sizes", "one-half", "above", "apart"],
)
def test_what_does_not_look_like_partners_is_mirrored(cases: list[CasePrint]) -> None:
    assert flips(LABELS, *cases) == ("left-right",)


def test_one_case_in_ten_may_disagree() -> None:
    swapped = case_print({2: (-60, -30, 5), 1: (58, -28, -15)}, {1: 160.0, 2: 150.0})
    assert flips(LABELS, *[kidneys()] * 19, swapped) == ()
    assert flips(LABELS, *[kidneys()] * 4, swapped) == ("left-right",)


def test_names_with_a_meaning_are_taken_by_it() -> None:
    assert flips({"kidney_left": 1, "kidney_right": 2}, kidneys()) == ()  # for their names
    assert flips({"spleen": 1, "liver": 2}, kidneys()) == ("left-right",)  # not named as partners
    assert flips({"roi A": 1, "roi B": 2}, kidneys()) == ()  # names that say nothing
    assert flips({"ignore": 1, "roi B": 2}, kidneys()) == ("left-right",)


def pair(geometry: Geometry) -> tuple[Volume, Mask]:
    """Two balls, the one of value 7 to the left, in noise."""
    points = geometry.world(np.stack(np.indices(geometry.shape), axis=-1))
    mask = np.zeros(geometry.shape, np.uint8)
    for value, center in ((7, (-14, 2, 3)), (300 % 256, (15, -2, -4))):
        mask[((points - center) ** 2).sum(-1) < 36] = value
    image = np.random.default_rng(0).normal(100, 5, geometry.shape) + 50 * (mask > 0)
    return Volume(image.astype(np.float32)[np.newaxis], geometry), Mask(mask, geometry)


def test_storage_order_and_tilt_change_nothing(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[:3, :3] = rotation(2, 12) @ rotation(0, 8) @ np.diag([2.0, 2.0, 3.0])
    affine[:3, 3] = -affine[:3, :3] @ [12, 10, 6]
    image, mask = pair(Geometry((25, 21, 13), affine))
    for n, order in enumerate(STORAGE_ORDERS[::5]):
        geometry = image.geometry.reordered(order)
        stored = [np.ascontiguousarray(order.apply(array)) for array in (image.array, mask.array)]
        write_volume(Volume(stored[0], geometry), tmp_path / "images" / f"case_{n}.nii.gz")
        write_mask(Mask(stored[1].astype(np.uint8), geometry), tmp_path / "labels" / f"case_{n}.nii.gz")
    seen = take_fingerprint(find_dataset(tmp_path))
    for case in seen.cases:
        assert case.centers_mm[7] == pytest.approx(seen.cases[0].centers_mm[7], abs=0.1)
        assert case.centers_mm[7][0] < 0 < case.centers_mm[44][0]
        assert case.intensities == seen.cases[0].intensities
    _, plan = plan_folder(tmp_path, PartialConfig.of({}))
    assert plan.config.augmentation.flip_axes == ()
    _, named = plan_folder(tmp_path, PartialConfig.of({"data": {"labels": {"spleen": 7, "liver": 44}}}))
    assert named.config.augmentation.flip_axes == ("left-right",)


@pytest.mark.real_data
def test_real_kidneys_are_found_and_the_halves_of_a_hippocampus_are_not(real_data: Path) -> None:
    abdomen = take_fingerprint(find_dataset(real_data / "chaos_t2"))
    assert ("label_3", "label_2") in partners(abdomen.labels, abdomen.cases)  # the left kidney is 3
    hippocampus = take_fingerprint(find_dataset(real_data / "hippocampus"))
    assert partners(hippocampus.labels, hippocampus.cases) == []
    assert make_plan(hippocampus).config.inference.mirror_axes == ("left-right",)
