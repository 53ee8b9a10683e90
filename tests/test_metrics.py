from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from volseg.errors import ConfigError, DataError, GeometryError
from volseg.evaluation import Better, columns_of
from volseg.image.geometry import Geometry
from volseg.image.volume import Label, Mask
from volseg.metrics import (
    Conventions,
    LabelStatus,
    centerline_dice,
    count_overlap,
    match_lesions,
    measure_areas,
    measure_surfaces,
    score_label,
    score_masks,
    score_probability,
    surface_of,
    worst_distance_mm,
)

SPACING_MM = (1.0, 2.0, 4.0)
SHAPE = (6, 5, 4)
#: norm(6 * 1, 5 * 2, 4 * 4) = sqrt(36 + 100 + 256)
DIAGONAL_MM = math.sqrt(392)

RATIOS = ("dice", "iou", "sensitivity", "specificity", "precision", "accuracy", "nsd", "boundary_iou")
DISTANCES = ("hd_mm", "hd95_mm", "assd_mm", "masd_mm", "centroid_distance_mm")


def voxels(*indices, shape=SHAPE):
    mask = np.zeros(shape, dtype=bool)
    for index in indices:
        mask[index] = True
    return mask


def block(*ranges, shape=SHAPE):
    return voxels(tuple(slice(*ends) for ends in ranges), shape=shape)


def mask_of(array, spacing_mm=SPACING_MM):
    return Mask(np.asarray(array, dtype=np.uint8), Geometry(np.shape(array), np.diag([*spacing_mm, 1.0])))


def within_mm(tolerance_mm):
    return Conventions((tolerance_mm,))


def number(score, name):
    """A number of a score, wherever it stands."""
    if name == "nsd":
        return score.surface.nsds[0]
    return next(getattr(part, name) for part in (score, score.overlap, score.surface) if hasattr(part, name))


NOTHING = voxels()
ONE = voxels((2, 2, 2))
CORNER = block((0, 2), (0, 2), (0, 2))
EVERYTHING = ~NOTHING

booleans = hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6))
spacings = st.tuples(*[st.sampled_from([0.3, 0.7, 1.0, 2.5, 6.0])] * 3)


@st.composite
def pairs(draw):
    """Two masks of one shape, neither empty."""
    first = draw(booleans)
    second = draw(hnp.arrays(bool, first.shape))
    assume(first.any() and second.any())
    return first, second


# Hand-derived numbers


@pytest.mark.parametrize(("axis", "distance_mm"), list(enumerate(SPACING_MM)))
def test_each_axis_is_measured_in_its_own_spacing(axis, distance_mm):
    other = tuple(2 + (n == axis) for n in range(3))
    score = score_label(voxels((2, 2, 2)), voxels(other), SPACING_MM, within_mm(0.0))
    assert (score.surface.hd_mm, score.surface.hd95_mm, score.surface.assd_mm) == (
        distance_mm,
        distance_mm,
        distance_mm,
    )


def test_two_voxels_apart():
    # 3 steps of 1 mm, 2 of 2 mm, 1 of 4 mm: sqrt(9 + 16 + 16)
    score = score_label(voxels((0, 0, 0)), voxels((3, 2, 1)), SPACING_MM, within_mm(2.0))
    assert score.surface.hd_mm == pytest.approx(math.sqrt(41), rel=1e-6)
    assert score.surface.assd_mm == pytest.approx(math.sqrt(41), rel=1e-6)
    assert (score.overlap.dice, score.overlap.iou, score.surface.nsds[0]) == (0.0, 0.0, 0.0)
    assert (score.overlap.tp, score.overlap.fp, score.overlap.fn, score.overlap.tn) == (0, 1, 1, 118)
    # one voxel is 1 * 2 * 4 mm3
    assert (score.reference_ml, score.predicted_ml) == pytest.approx((0.008, 0.008))
    assert score.volume_difference_ml == 0.0


def test_two_parallel_plates():
    # 5 x 4 voxels each, 3 steps of 0.5 mm apart: every distance is 1.5 mm
    near, far = block((0, 1), (0, 5), (0, 4)), block((3, 4), (0, 5), (0, 4))
    distances = measure_surfaces(near, far, (0.5, 1.0, 1.0)).distances
    assert (distances.hd_mm, distances.hd95_mm, distances.assd_mm) == (1.5, 1.5, 1.5)
    assert (distances.nsd(1.4), distances.nsd(1.5)) == (0.0, 1.0)


@pytest.mark.parametrize("spacing", [1.0, 2.5])
def test_a_rod_twice_as_long_as_the_other(spacing):
    # Prediction k = 0..20, reference k = 0..10. From the prediction: 11 times 0, then 1..10 steps; from the reference:
    # 11 times 0. The 95th percentile of 21 sorted numbers is the one with index 0.95 * 20 = 19: 9 steps.
    long, short = (block((1, 2), (1, 2), (0, end), shape=(3, 3, 25)) for end in (21, 11))
    score = score_label(long, short, (1.0, 1.0, spacing), within_mm(3 * spacing))
    assert score.surface.hd_mm == pytest.approx(10 * spacing)
    assert score.surface.hd95_mm == pytest.approx(9 * spacing)
    assert score.surface.assd_mm == pytest.approx(55 / 32 * spacing)
    assert score.surface.masd_mm == pytest.approx(55 / 21 / 2 * spacing)
    assert score.centroid_distance_mm == pytest.approx(5 * spacing)
    # both are surface through and through
    assert score.surface.boundary_iou == score.overlap.iou
    assert score.surface.nsds[0] == (14 + 11) / 32
    assert score.overlap.dice == 2 * 11 / 32
    assert score.overlap.iou == 11 / 21
    assert (score.overlap.sensitivity, score.precision) == (1.0, 11 / 21)
    assert score.overlap.specificity == (225 - 21) / (225 - 11)
    assert score.volume_difference_ml == pytest.approx(10 * spacing / 1000)


def test_a_block_shifted_by_one_voxel():
    # 3 x 4 x 4 voxels against the same one step along i: 2 of 3 layers agree.
    score = score_label(block((1, 4), (0, 4), (0, 4)), block((2, 5), (0, 4), (0, 4)), SPACING_MM, within_mm(1.0))
    assert (score.overlap.tp, score.overlap.fp, score.overlap.fn) == (32, 16, 16)
    assert score.overlap.dice == 64 / 96
    assert score.overlap.iou == 32 / 64
    assert score.surface.hd_mm == 1.0  # nothing needs more than the step along i
    assert score.surface.nsds[0] == 1.0


def test_hd95_is_the_worse_direction_and_not_the_pool():
    # The prediction is right but for one far island among its 4 voxels; seen from the reference's 100 all is near.
    reference = block((0, 100), (0, 1), (0, 1), shape=(200, 1, 1))
    prediction = voxels((0, 0, 0), (33, 0, 0), (66, 0, 0), (199, 0, 0), shape=(200, 1, 1))
    distances = measure_surfaces(prediction, reference, (1.0, 1.0, 1.0)).distances
    # distances 0, 0, 0, 100: index 0.95 * 3 = 2.85 -> 85
    assert distances.hd95_mm == pytest.approx(85.0)
    assert distances.pooled_hd95_mm < 40


def test_surface_of_a_cube_is_its_shell():
    shape = (7, 7, 7)
    cube, core = block((1, 6), (1, 6), (1, 6), shape=shape), block((2, 5), (2, 5), (2, 5), shape=shape)
    assert np.array_equal(surface_of(cube), cube & ~core)


def test_the_edge_of_the_grid_is_surface():
    assert surface_of(EVERYTHING).sum() == 6 * 5 * 4 - 4 * 3 * 2


def test_a_diagonal_neighbour_outside_makes_no_surface():
    cube = np.ones((3, 3, 3), dtype=bool)
    cube[0, 0, 0] = False
    assert not surface_of(np.pad(cube, 1, mode="edge"))[2, 2, 2]


def test_a_distance_of_exactly_the_tolerance_is_within_it():
    # 3 steps of 0.6 mm are 1.8000001 in float32
    score = score_label(voxels((0, 0, 0)), voxels((3, 0, 0)), (0.6, 1.0, 1.0), within_mm(1.8))
    assert score.surface.nsds[0] == 1.0


# Edge cases: status, and the numbers that depend on it

NAN = math.nan


@pytest.mark.parametrize(
    ("prediction", "reference", "status", "numbers"),  # dice, sensitivity, specificity, precision, nsd, hd_mm
    [
        (NOTHING, NOTHING, LabelStatus.BOTH_EMPTY, (NAN, NAN, 1.0, NAN, NAN, NAN)),
        (NOTHING, ONE, LabelStatus.MISSED, (0.0, 0.0, 1.0, 0.0, 0.0, DIAGONAL_MM)),
        (NOTHING, EVERYTHING, LabelStatus.MISSED, (0.0, 0.0, NAN, 0.0, 0.0, DIAGONAL_MM)),
        (ONE, NOTHING, LabelStatus.FALSE_ALARM, (0.0, NAN, 119 / 120, 0.0, 0.0, DIAGONAL_MM)),
        (EVERYTHING, NOTHING, LabelStatus.FALSE_ALARM, (0.0, NAN, 0.0, 0.0, 0.0, DIAGONAL_MM)),
        (ONE, ONE, LabelStatus.OK, (1.0, 1.0, 1.0, 1.0, 1.0, 0.0)),
        (CORNER, CORNER, LabelStatus.OK, (1.0, 1.0, 1.0, 1.0, 1.0, 0.0)),
        (EVERYTHING, EVERYTHING, LabelStatus.OK, (1.0, 1.0, NAN, 1.0, 1.0, 0.0)),
        # The full grid's surface is a shell of 96 voxels, all 8 voxels of the corner block are its surface. 7 voxels
        # are in both; (1, 1, 1) is a step of 1 mm inside the shell. The far corner of the grid is (4, 3, 2) steps from
        # it: sqrt(4^2 + 6^2 + 8^2) mm.
        (EVERYTHING, CORNER, LabelStatus.OK, (16 / 128, 1.0, 0.0, 8 / 120, 14 / 104, math.sqrt(116))),
    ],
)
def test_edge_cases(prediction, reference, status, numbers):
    score = score_label(prediction, reference, SPACING_MM, within_mm(0.5))
    assert score.status is status
    got = (
        score.overlap.dice,
        score.overlap.sensitivity,
        score.overlap.specificity,
        score.precision,
        score.surface.nsds[0],
        score.surface.hd_mm,
    )
    assert got == pytest.approx(numbers, nan_ok=True)
    assert score.overlap.tp + score.overlap.fp + score.overlap.fn + score.overlap.tn == prediction.size


@pytest.mark.parametrize("reference", [NOTHING, ONE])
def test_a_case_without_prediction_is_worth_nothing(reference):
    (score,) = score_masks(None, mask_of(reference), [Label(1, "organ")])
    assert score.status is LabelStatus.NOT_PREDICTED
    assert (score.dice, score.iou, score.precision, score.surface.nsds[0]) == (0.0, 0.0, 0.0, 0.0)
    assert (score.surface.hd_mm, score.surface.hd95_mm, score.surface.assd_mm) == pytest.approx((DIAGONAL_MM,) * 3)
    assert (score.overlap.tp, score.overlap.fp, score.overlap.fn) == (0, 0, int(reference.sum()))


def test_a_huge_tolerance_does_not_excuse_a_missed_structure():
    assert score_label(NOTHING, ONE, SPACING_MM, within_mm(1e6)).surface.nsds == (0.0,)


def test_nothing_has_no_distance():
    with pytest.raises(ValueError, match="not empty"):
        measure_surfaces(NOTHING, ONE, SPACING_MM)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"tolerances_mm": (1.0, -1.0)}, "not a valid surface tolerance"),
        ({"tolerances_mm": (math.inf,)}, "not a valid surface tolerance"),
        ({"tolerances_mm": (1.0, 2.0, 2.0)}, "given twice"),
        ({"tolerances_mm": ()}, "no surface tolerance"),
        ({"lesion_iou": 1.0}, r"lesion_iou cannot be 1\.0"),
    ],
)
def test_conventions_that_make_no_sense_are_refused(made, message):
    with pytest.raises(ConfigError, match=message):
        Conventions(**made)


# Many labels


def test_each_label_scores_as_if_it_were_alone():
    rng = np.random.default_rng(0)
    labels = [Label(7, "c"), Label(2, "a"), Label(4, "nowhere"), Label(250, "b")]
    prediction, reference = rng.choice(np.array([0, 2, 7, 250], dtype=np.uint8), (2, 8, 7, 6))
    scores = score_masks(mask_of(prediction), mask_of(reference), labels)
    assert [score.label for score in scores] == labels
    for label, score in zip(labels, scores, strict=True):
        alone = score_label(prediction == label.value, reference == label.value, SPACING_MM)
        assert score.status is alone.status
        for name in (*RATIOS, *DISTANCES, "reference_ml", "predicted_ml", "tp", "fp", "fn", "tn"):
            assert number(score, name) == pytest.approx(number(alone, name), nan_ok=True), name


def test_views_and_wide_integers_score_the_same():
    rng = np.random.default_rng(1)
    prediction, reference = rng.integers(0, 3, (2, 8, 7, 6), dtype=np.uint8)
    labels = [Label(1, "a"), Label(2, "b")]
    plain = score_masks(mask_of(prediction), mask_of(reference), labels)
    geometry = mask_of(reference).geometry
    fortran = Mask(np.asfortranarray(prediction).astype(np.uint16), geometry)
    strided = Mask(np.repeat(reference, 2, axis=2)[:, :, ::2], geometry)
    assert score_masks(fortran, strided, labels) == plain


@pytest.mark.parametrize(("role", "swap"), [("prediction", False), ("reference", True)])
def test_a_value_that_is_no_label_is_refused(role, swap):
    odd, good = mask_of(ONE * 3), mask_of(ONE)
    with pytest.raises(DataError, match=rf"the {role} holds 3, .*1 organ"):
        score_masks(*((good, odd) if swap else (odd, good)), [Label(1, "organ")])


def test_masks_on_other_grids_are_refused_with_both_grids():
    reference = mask_of(ONE)
    moved = np.array(reference.geometry.affine)
    moved[0, 3] = 0.5
    with pytest.raises(GeometryError, match=r"6x5x4 voxels of 1 x 2 x 4 mm.*6x5x4.*0.5 mm apart"):
        score_masks(Mask(reference.array, Geometry(SHAPE, moved)), reference, [Label(1, "organ")])
    with pytest.raises(GeometryError, match=r"(?m)5x5x4 voxels.*6x5x4 voxels.*different grids$"):
        score_masks(mask_of(ONE[:-1]), reference, [Label(1, "organ")])


def test_rounding_of_a_file_is_no_other_grid():
    reference = mask_of(ONE)
    nearly = Geometry(SHAPE, np.array(reference.geometry.affine) + np.diag([1e-4, 0, 0, 0]))
    assert score_masks(Mask(reference.array, nearly), reference, [Label(1, "organ")])[0].overlap.dice == 1.0


def test_volume_of_a_sheared_grid_is_base_times_height():
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    affine[1, 2] = 2.0  # gantry tilt: the slices slide, their volume stays
    mask = Mask(ONE.astype(np.uint8), Geometry(SHAPE, affine))
    assert score_masks(mask, mask, [Label(1, "organ")])[0].reference_ml == pytest.approx(0.005)


# Properties


@given(pairs(), spacings)
@settings(max_examples=60)
def test_distances_are_those_of_all_pairs_of_surface_voxels(pair, spacing_mm):
    first, second = (np.argwhere(_has_outside_neighbour(mask)) * np.asarray(spacing_mm) for mask in pair)
    between = np.linalg.norm(first[:, None] - second[None], axis=-1)
    distances = measure_surfaces(*pair, spacing_mm).distances
    np.testing.assert_allclose(distances.from_prediction_mm, between.min(axis=1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(distances.from_reference_mm, between.min(axis=0), rtol=1e-5, atol=1e-5)


def _has_outside_neighbour(mask):
    """Brute force: look at the six neighbours of every voxel."""
    found = np.zeros_like(mask)
    steps = [tuple(sign * (axis == n) for n in range(3)) for axis in range(3) for sign in (-1, 1)]
    for index in np.argwhere(mask):
        neighbours = [tuple(index + step) for step in steps]
        inside = [all(0 <= at < size for at, size in zip(n, mask.shape, strict=True)) and mask[n] for n in neighbours]
        found[tuple(index)] = not all(inside)
    return found


@given(pairs(), spacings, st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
@settings(max_examples=60)
def test_storage_order_changes_no_score(pair, spacing_mm, axes, flips):
    step = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    turned = [mask.transpose(axes)[step] for mask in pair]
    before = score_label(*pair, spacing_mm)
    after = score_label(*turned, tuple(spacing_mm[axis] for axis in axes))
    for name in (*RATIOS, *DISTANCES, "reference_ml"):
        assert number(after, name) == pytest.approx(number(before, name), rel=1e-5, abs=1e-5, nan_ok=True), name


@given(pairs(), spacings)
@settings(max_examples=60)
def test_swapping_the_masks_swaps_sensitivity_and_precision_and_nothing_else(pair, spacing_mm):
    one, other = score_label(*pair, spacing_mm), score_label(*reversed(pair), spacing_mm)
    assert (one.overlap.sensitivity, one.overlap.fp, one.reference_ml) == (
        other.precision,
        other.overlap.fn,
        other.predicted_ml,
    )
    assert one.volume_difference_ml == -other.volume_difference_ml
    for name in ("dice", "iou", "nsd", *DISTANCES):
        assert number(one, name) == number(other, name), name


@given(pairs(), spacings)
@settings(max_examples=60)
def test_scores_stay_in_their_bounds(pair, spacing_mm):
    score = score_label(*pair, spacing_mm)
    for name in RATIOS:
        value = number(score, name)
        assert math.isnan(value) or 0.0 <= value <= 1.0, name
    assert score.overlap.dice == pytest.approx(2 * score.overlap.iou / (1 + score.overlap.iou))
    worst = worst_distance_mm(Geometry(pair[0].shape, np.diag([*spacing_mm, 1.0])))
    assert max(score.surface.hd95_mm, score.surface.assd_mm) <= score.surface.hd_mm < worst


# The other families


@given(pairs(), spacings, st.sampled_from([0.0, 1.0, 2.5]))
@settings(max_examples=40)
def test_the_boundary_is_what_lies_near_the_own_surface(pair, spacing_mm, width_mm):
    boundaries = []
    for mask in pair:
        surface = np.argwhere(_has_outside_neighbour(mask)) * np.asarray(spacing_mm)
        near = [
            index
            for index in np.argwhere(mask)
            if np.linalg.norm(surface - index * np.asarray(spacing_mm), axis=1).min() <= width_mm + 1e-4
        ]
        boundaries.append({tuple(index) for index in near})
    expected = len(boundaries[0] & boundaries[1]) / len(boundaries[0] | boundaries[1])
    assert measure_surfaces(*pair, spacing_mm).boundary_iou(width_mm) == pytest.approx(expected)


def test_an_error_at_the_end_of_a_cube_weighs_more_in_its_boundary():
    # 10 layers of 100 voxels against the first 9 of them: an iou of 0.9. Shells have two lids of 100 and 36 on each
    # layer between: 100 + 8 * 36 + 100 and 100 + 7 * 36 + 100. Both have the near lid, the 36 of 7 layers, and the rim
    # of the 9th, which is a lid in the one and a layer in the other.
    shape = (12, 12, 12)
    long, short = (block((1, end), (1, 11), (1, 11), shape=shape) for end in (11, 10))
    shared = 100 + 7 * 36 + 36
    assert measure_surfaces(short, long, (1.0, 1.0, 1.0)).boundary_iou(0.0) == shared / (488 + 452 - shared)
    assert count_overlap(short, long).iou == 0.9


def test_lesions_are_matched_one_to_one_and_the_best_first():
    # Along a line of 40: reference 0-9, 12-15, 20-29, 35; prediction 0-9 (iou 1), 12-20 (4 of 9 with 12-15, 1 of 18
    # with 20-29), 22-25 (4 of 10), 38.
    reference, prediction = (np.zeros((40, 3, 3), bool) for _ in range(2))
    for start, stop in ((0, 10), (12, 16), (20, 30), (35, 36)):
        reference[start:stop, 1, 1] = True
    for start, stop in ((0, 10), (12, 21), (22, 26), (38, 39)):
        prediction[start:stop, 1, 1] = True
    strict, loose = (match_lesions(prediction, reference, least) for least in (0.5, 0.0))
    assert (strict.tp, strict.fp, strict.fn) == (1, 3, 3)
    assert (strict.sensitivity, strict.precision, strict.f1) == (0.25, 0.25, 2 / 8)
    assert (loose.tp, loose.fp, loose.fn) == (3, 1, 1)
    assert loose.segmentation_quality == pytest.approx((1 + 4 / 9 + 4 / 10) / 3)
    assert loose.panoptic_quality == pytest.approx(6 / 8 * (1 + 4 / 9 + 4 / 10) / 3)


def test_a_voxel_that_touches_by_a_corner_belongs_to_the_lesion():
    both = voxels((0, 0, 0), (1, 1, 1))
    assert match_lesions(both, both, 0.5).tp == 1


@pytest.mark.parametrize(
    ("prediction", "reference", "numbers"),  # sensitivity, precision, f1, segmentation and panoptic quality
    [
        (NOTHING, NOTHING, (NAN, NAN, NAN, NAN, NAN)),
        (NOTHING, ONE, (0.0, 0.0, 0.0, 0.0, 0.0)),
        (ONE, NOTHING, (NAN, 0.0, 0.0, 0.0, 0.0)),
        (CORNER, ONE, (0.0, 0.0, 0.0, 0.0, 0.0)),
        (ONE, ONE, (1.0, 1.0, 1.0, 1.0, 1.0)),
    ],
)
def test_lesions_at_the_edge(prediction, reference, numbers):
    found = match_lesions(prediction, reference, 0.5)
    got = (found.sensitivity, found.precision, found.f1, found.segmentation_quality, found.panoptic_quality)
    assert got == pytest.approx(numbers, nan_ok=True)


def test_centre_lines_forgive_thickness_and_not_length():
    # A tube of 5 x 5 against one of 3 x 3 of the same course, and against one of half the length.
    shape = (9, 9, 40)
    thick, thin, half = (
        block((low, high), (low, high), (2, end), shape=shape)
        for low, high, end in ((2, 7, 38), (3, 6, 38), (3, 6, 20))
    )
    assert centerline_dice(thin, thick) == pytest.approx(1.0, abs=0.02)
    assert count_overlap(thin, thick).dice == pytest.approx(2 * 9 / (9 + 25))
    # all of the half's line is right and half of the reference's is found: 2 * 1 * 0.5 / 1.5
    assert centerline_dice(half, thick) == pytest.approx(2 / 3, abs=0.05)


def test_centre_lines_that_never_meet():
    shape = (12, 12, 12)
    apart = block((0, 3), (0, 3), (0, 12), shape=shape), block((8, 11), (8, 11), (0, 12), shape=shape)
    assert centerline_dice(*apart) == 0.0


@pytest.mark.parametrize("size", range(1, 8))
@pytest.mark.parametrize("length", [1, 2, 9])
def test_a_centre_line_is_never_thinned_away(size, length):
    """scikit-image leaves nothing of what is two, four or six voxels thick."""
    rod = np.zeros((9, 9, 12), bool)
    rod[1 : 1 + size, 1 : 1 + size, 1 : 1 + length] = True
    other = np.zeros_like(rod)
    other[8, 8, 11] = True
    assert centerline_dice(rod, rod) == 1.0
    assert centerline_dice(rod, other) == 0.0


@given(pairs())
@settings(max_examples=60)
def test_a_centre_line_lies_in_its_mask(pair):
    prediction, reference = pair
    dice = centerline_dice(prediction, reference)
    assert 0 <= dice <= 1
    assert centerline_dice(reference, prediction) == pytest.approx(dice)
    assert centerline_dice(prediction, prediction) == 1.0


def test_probabilities_by_hand():
    # 4 voxels of 0.1, 0.4, 0.4, 0.9 of which the third and the last are the label. Pairs of label and rest: (0.4, 0.1)
    # right, (0.4, 0.4) half, (0.9, 0.1) and (0.9, 0.4) right: 3.5 of 4. Precision is 1 at 0.9 (half of the label), 2 of
    # 3 at 0.4. Bins: |0.1 - 0|, 2 * |0.4 - 0.5|, |0.9 - 1|, over 4.
    numbers = score_probability(np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, False, True, True]))
    assert numbers.auroc == pytest.approx(3.5 / 4)
    assert numbers.average_precision == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert numbers.calibration_error == pytest.approx((0.1 + 0.2 + 0.1) / 4)
    assert numbers.brier == pytest.approx((0.01 + 0.16 + 0.36 + 0.01) / 4)


def test_probabilities_of_a_label_that_is_nowhere():
    numbers = score_probability(np.array([0.0, 0.5]), np.array([False, False]))
    assert math.isnan(numbers.auroc)
    assert math.isnan(numbers.average_precision)
    assert (numbers.calibration_error, numbers.brier) == (0.25, 0.125)
    with pytest.raises(ValueError, match="no voxels to score"):
        score_probability(np.array([]), np.array([], dtype=bool))


def test_certain_and_right_is_perfect():
    numbers = score_probability(np.array([0.0, 1.0, 1.0]), np.array([False, True, True]))
    assert (numbers.auroc, numbers.average_precision) == (1.0, 1.0)
    assert (numbers.calibration_error, numbers.brier) == (0.0, 0.0)


def test_nothing_counts_outside_the_region_of_interest():
    prediction, reference = block((0, 2), (0, 5), (0, 4)), block((1, 4), (0, 5), (0, 4))
    within = block((0, 3), (0, 5), (0, 4))
    labels = [Label(1, "organ")]
    score = score_masks(mask_of(prediction), mask_of(reference), labels, within=within)[0]
    cut = score_label(prediction[:3], reference[:3], SPACING_MM)
    assert score.overlap == cut.overlap
    assert score.surface == dataclasses.replace(score.surface, hd_mm=cut.surface.hd_mm, nsds=cut.surface.nsds)
    beyond = score_masks(mask_of(prediction), mask_of(reference), labels, within=~(prediction | reference))[0]
    assert beyond.status is LabelStatus.BOTH_EMPTY


def test_conventions_choose_the_percentile_and_the_weights():
    rng = np.random.default_rng(5)
    prediction, reference = rng.random((2, 9, 8, 7)) < 0.1
    pair = measure_surfaces(prediction, reference, SPACING_MM).distances
    areas = measure_areas(prediction, reference, SPACING_MM)
    expected = {"max_of_directed": pair.hd95_mm, "pooled": pair.pooled_hd95_mm, "area_weighted": areas.hd95_mm}
    for hd95, value_mm in expected.items():
        score = score_label(prediction, reference, SPACING_MM, Conventions((2.0, 1.0), hd95=hd95))
        assert score.surface.hd95_mm == value_mm
        assert score.surface.nsds == (pair.nsd(2.0), pair.nsd(1.0))
    score = score_label(prediction, reference, SPACING_MM, Conventions((2.0, 1.0), nsd="area_weighted"))
    assert score.surface.nsds == (areas.nsd(2.0), areas.nsd(1.0))


def test_families_are_measured_where_they_are_asked_for():
    plain = score_label(ONE, ONE, SPACING_MM)
    assert (plain.lesions, plain.centerline_dice, plain.probability) == (None, None, None)
    asked = Conventions(also=frozenset({"lesions", "centerline"}))
    full = score_label(ONE, ONE, SPACING_MM, asked)
    assert (full.lesions.tp, full.centerline_dice) == (1, 1.0)
    assert score_label(NOTHING, ONE, SPACING_MM, asked).centerline_dice == 0.0
    assert math.isnan(score_label(NOTHING, NOTHING, SPACING_MM, asked).centerline_dice)


@pytest.mark.parametrize(
    ("prediction", "reference"), [(ONE, ONE), (NOTHING, ONE), (ONE, NOTHING), (NOTHING, NOTHING), (ONE, ~ONE)]
)
@pytest.mark.parametrize("hd95", ["max_of_directed", "area_weighted"])
def test_what_has_a_direction_is_known_unless_there_is_nothing_to_know(prediction, reference, hd95):
    conventions = Conventions((1.0, 2.0), hd95=hd95, also=frozenset({"lesions", "centerline"}))
    score = score_label(prediction, reference, SPACING_MM, conventions)
    empty = score.status is LabelStatus.BOTH_EMPTY
    free = {"specificity", "accuracy", "volume_difference_ml", "absolute_volume_difference_ml"}  # of an empty pair
    if score.status is LabelStatus.FALSE_ALARM:
        free |= {"sensitivity", "relative_volume_difference", "lesion_sensitivity"}
    for column in columns_of(conventions):
        if column.better is not Better.NEITHER and column.name not in free:
            value = column.value(score)
            assert value is not None, column.name
            assert math.isnan(value) == empty, column.name
    assert score.lesions is not None
    assert min(score.lesions.tp, score.lesions.fp, score.lesions.fn) >= 0


def test_a_missing_structure_is_further_away_than_any_two_voxels_of_a_sheared_grid():
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 1] = [math.cos(math.pi / 3), math.sin(math.pi / 3), 0.0]
    grid = Geometry((20, 20, 2), affine)
    ends = [np.zeros(grid.shape, np.uint8) for _ in range(3)]
    ends[0][0, 0, 0] = ends[1][-1, -1, -1] = 1
    hit, missed = (
        score_masks(Mask(array, grid), Mask(ends[0], grid), [Label(1, "organ")])[0].centroid_distance_mm
        for array in ends[1:]
    )
    # 19 steps along each of two axes that enclose 60 degrees, and one across both
    assert hit == pytest.approx(math.sqrt(3 * 19**2 + 1))
    assert missed == pytest.approx(math.sqrt(3 * 20**2 + 2**2))


def test_centroids_of_a_sheared_grid_are_apart_in_space():
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    affine[1, 2] = 2.0
    low, high = (Mask(voxels((2, 2, k)).astype(np.uint8), Geometry(SHAPE, affine)) for k in (0, 1))
    assert score_masks(low, high, [Label(1, "organ")])[0].centroid_distance_mm == pytest.approx(math.sqrt(29))


def test_regions_are_scored_as_unions_of_their_parts() -> None:
    """A mask shows the inner region where two overlap; the outer one is scored with it."""
    whole, core = Label(1, "whole", parts=(1, 2, 4)), Label(2, "core", parts=(2, 4))
    reference = np.zeros((1, 1, 8), np.uint8)
    reference[0, 0, 1:7] = [1, 1, 2, 2, 4, 4]
    painted = np.zeros((1, 1, 8), np.uint8)
    painted[0, 0, 1:7] = [1, 1, 2, 2, 2, 0]
    geometry = Geometry((1, 1, 8), np.eye(4))
    scores = score_masks(Mask(painted, geometry), Mask(reference, geometry), [whole, core])
    assert (scores[0].overlap.tp, scores[0].overlap.fp, scores[0].overlap.fn) == (5, 0, 1)
    assert (scores[1].overlap.tp, scores[1].overlap.fp, scores[1].overlap.fn) == (3, 0, 1)
