from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # the library's own short name
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from volseg.errors import ConfigError, DataError, GeometryError
from volseg.geometry import Geometry
from volseg.metrics import (
    Status,
    count_overlap,
    measure_surfaces,
    score_label,
    score_masks,
    surface_of,
    worst_distance_mm,
)
from volseg.volume import Label, Mask

SPACING_MM = (1.0, 2.0, 4.0)
SHAPE = (6, 5, 4)
#: norm(6 * 1, 5 * 2, 4 * 4) = sqrt(36 + 100 + 256)
DIAGONAL_MM = math.sqrt(392)

RATIOS = ("dice", "iou", "sensitivity", "specificity", "precision", "nsd")
DISTANCES = ("hd_mm", "hd95_mm", "assd_mm")


def voxels(*indices, shape=SHAPE):
    mask = np.zeros(shape, dtype=bool)
    for index in indices:
        mask[index] = True
    return mask


def block(*ranges, shape=SHAPE):
    return voxels(tuple(slice(*ends) for ends in ranges), shape=shape)


def mask_of(array, spacing_mm=SPACING_MM):
    return Mask(np.asarray(array, dtype=np.uint8), Geometry(np.shape(array), np.diag([*spacing_mm, 1.0])))


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
    score = score_label(voxels((2, 2, 2)), voxels(other), SPACING_MM, 0.0)
    assert (score.hd_mm, score.hd95_mm, score.assd_mm) == (distance_mm, distance_mm, distance_mm)


def test_two_voxels_apart():
    # 3 steps of 1 mm, 2 of 2 mm, 1 of 4 mm: sqrt(9 + 16 + 16)
    score = score_label(voxels((0, 0, 0)), voxels((3, 2, 1)), SPACING_MM, 2.0)
    assert score.hd_mm == pytest.approx(math.sqrt(41), rel=1e-6)
    assert score.assd_mm == pytest.approx(math.sqrt(41), rel=1e-6)
    assert (score.dice, score.iou, score.nsd) == (0.0, 0.0, 0.0)
    assert (score.tp, score.fp, score.fn, score.tn) == (0, 1, 1, 118)
    # one voxel is 1 * 2 * 4 mm3
    assert (score.reference_ml, score.predicted_ml) == pytest.approx((0.008, 0.008))
    assert score.volume_difference_ml == 0.0


def test_two_parallel_plates():
    # 5 x 4 voxels each, 3 steps of 0.5 mm apart: every distance is 1.5 mm
    near, far = block((0, 1), (0, 5), (0, 4)), block((3, 4), (0, 5), (0, 4))
    distances = measure_surfaces(near, far, (0.5, 1.0, 1.0))
    assert (distances.hd_mm, distances.hd95_mm, distances.assd_mm) == (1.5, 1.5, 1.5)
    assert (distances.nsd(1.4), distances.nsd(1.5)) == (0.0, 1.0)


@pytest.mark.parametrize("spacing", [1.0, 2.5])
def test_a_rod_twice_as_long_as_the_other(spacing):
    # Prediction k = 0..20, reference k = 0..10. From the prediction: 11 times 0, then 1..10 steps; from the reference:
    # 11 times 0. The 95th percentile of 21 sorted numbers is the one with index 0.95 * 20 = 19: 9 steps.
    long, short = block((0, 1), (0, 1), (0, 21), shape=(1, 1, 25)), block((0, 1), (0, 1), (0, 11), shape=(1, 1, 25))
    score = score_label(long, short, (1.0, 1.0, spacing), 3 * spacing)
    assert score.hd_mm == pytest.approx(10 * spacing)
    assert score.hd95_mm == pytest.approx(9 * spacing)
    assert score.assd_mm == pytest.approx(55 / 32 * spacing)
    assert score.nsd == (14 + 11) / 32
    assert score.dice == 2 * 11 / 32
    assert score.iou == 11 / 21
    assert (score.sensitivity, score.precision) == (1.0, 11 / 21)
    assert score.specificity == 4 / 14
    assert score.volume_difference_ml == pytest.approx(10 * spacing / 1000)


def test_a_block_shifted_by_one_voxel():
    # 3 x 4 x 4 voxels against the same one step along i: 2 of 3 layers agree.
    score = score_label(block((1, 4), (0, 4), (0, 4)), block((2, 5), (0, 4), (0, 4)), SPACING_MM, 1.0)
    assert (score.tp, score.fp, score.fn) == (32, 16, 16)
    assert score.dice == 64 / 96
    assert score.iou == 32 / 64
    assert score.hd_mm == 1.0  # nothing needs more than the step along i
    assert score.nsd == 1.0


def test_hd95_is_the_worse_direction_and_not_the_pool():
    # The prediction is right but for one far island among its 4 voxels; seen from the reference's 100 all is near.
    reference = block((0, 100), (0, 1), (0, 1), shape=(200, 1, 1))
    prediction = voxels((0, 0, 0), (33, 0, 0), (66, 0, 0), (199, 0, 0), shape=(200, 1, 1))
    distances = measure_surfaces(prediction, reference, (1.0, 1.0, 1.0))
    # distances 0, 0, 0, 100: index 0.95 * 3 = 2.85 -> 85
    assert distances.hd95_mm == pytest.approx(85.0)
    pooled = np.concatenate([distances.from_prediction_mm, distances.from_reference_mm])
    assert np.percentile(pooled, 95) < 40


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
    score = score_label(voxels((0, 0, 0)), voxels((3, 0, 0)), (0.6, 1.0, 1.0), 1.8)
    assert score.nsd == 1.0


# Edge cases: status, and the numbers that depend on it

NAN = math.nan


@pytest.mark.parametrize(
    ("prediction", "reference", "status", "numbers"),  # dice, sensitivity, specificity, precision, nsd, hd_mm
    [
        (NOTHING, NOTHING, Status.BOTH_EMPTY, (NAN, NAN, 1.0, NAN, NAN, NAN)),
        (NOTHING, ONE, Status.MISSED, (0.0, 0.0, 1.0, 0.0, 0.0, DIAGONAL_MM)),
        (NOTHING, EVERYTHING, Status.MISSED, (0.0, 0.0, NAN, 0.0, 0.0, DIAGONAL_MM)),
        (ONE, NOTHING, Status.FALSE_ALARM, (0.0, NAN, 119 / 120, 0.0, 0.0, DIAGONAL_MM)),
        (EVERYTHING, NOTHING, Status.FALSE_ALARM, (0.0, NAN, 0.0, 0.0, 0.0, DIAGONAL_MM)),
        (ONE, ONE, Status.OK, (1.0, 1.0, 1.0, 1.0, 1.0, 0.0)),
        (CORNER, CORNER, Status.OK, (1.0, 1.0, 1.0, 1.0, 1.0, 0.0)),
        (EVERYTHING, EVERYTHING, Status.OK, (1.0, 1.0, NAN, 1.0, 1.0, 0.0)),
        # The full grid's surface is a shell of 96 voxels, all 8 voxels of the corner block are its surface. 7 voxels
        # are in both; (1, 1, 1) is a step of 1 mm inside the shell. The far corner of the grid is (4, 3, 2) steps from
        # it: sqrt(4^2 + 6^2 + 8^2) mm.
        (EVERYTHING, CORNER, Status.OK, (16 / 128, 1.0, 0.0, 8 / 120, 14 / 104, math.sqrt(116))),
    ],
)
def test_edge_cases(prediction, reference, status, numbers):
    score = score_label(prediction, reference, SPACING_MM, 0.5)
    assert score.status is status
    got = (score.dice, score.sensitivity, score.specificity, score.precision, score.nsd, score.hd_mm)
    assert got == pytest.approx(numbers, nan_ok=True)
    assert score.tp + score.fp + score.fn + score.tn == prediction.size


@pytest.mark.parametrize("reference", [NOTHING, ONE])
def test_a_case_without_prediction_is_worth_nothing(reference):
    (score,) = score_masks(None, mask_of(reference), [Label(1, "organ")], 2.0)
    assert score.status is Status.NOT_PREDICTED
    assert (score.dice, score.iou, score.precision, score.nsd) == (0.0, 0.0, 0.0, 0.0)
    assert (score.hd_mm, score.hd95_mm, score.assd_mm) == pytest.approx((DIAGONAL_MM,) * 3)
    assert (score.tp, score.fp, score.fn) == (0, 0, int(reference.sum()))


def test_a_huge_tolerance_does_not_excuse_a_missed_structure():
    assert score_label(NOTHING, ONE, SPACING_MM, 1e6).nsd == 0.0


def test_nothing_has_no_distance():
    with pytest.raises(ValueError, match="not empty"):
        measure_surfaces(NOTHING, ONE, SPACING_MM)


def test_a_negative_tolerance_is_refused():
    with pytest.raises(ConfigError, match="negative"):
        score_label(ONE, ONE, SPACING_MM, -1.0)


# Many labels


def test_each_label_scores_as_if_it_were_alone():
    rng = np.random.default_rng(0)
    labels = [Label(7, "c"), Label(2, "a"), Label(4, "nowhere"), Label(250, "b")]
    prediction, reference = rng.choice(np.array([0, 2, 7, 250], dtype=np.uint8), (2, 8, 7, 6))
    scores = score_masks(mask_of(prediction), mask_of(reference), labels, 1.0)
    assert [score.label for score in scores] == labels
    for label, score in zip(labels, scores, strict=True):
        alone = score_label(prediction == label.value, reference == label.value, SPACING_MM, 1.0)
        assert score.status is alone.status
        for name in (*RATIOS, *DISTANCES, "reference_ml", "predicted_ml", "tp", "fp", "fn", "tn"):
            assert getattr(score, name) == pytest.approx(getattr(alone, name), nan_ok=True), name


def test_views_and_wide_integers_score_the_same():
    rng = np.random.default_rng(1)
    prediction, reference = rng.integers(0, 3, (2, 8, 7, 6), dtype=np.uint8)
    labels = [Label(1, "a"), Label(2, "b")]
    plain = score_masks(mask_of(prediction), mask_of(reference), labels, 1.0)
    geometry = mask_of(reference).geometry
    fortran = Mask(np.asfortranarray(prediction).astype(np.uint16), geometry)
    strided = Mask(np.repeat(reference, 2, axis=2)[:, :, ::2], geometry)
    assert score_masks(fortran, strided, labels, 1.0) == plain


@pytest.mark.parametrize(("role", "swap"), [("prediction", False), ("reference", True)])
def test_a_value_that_is_no_label_is_refused(role, swap):
    odd, good = mask_of(ONE * 3), mask_of(ONE)
    with pytest.raises(DataError, match=rf"the {role} holds 3, .*1 organ"):
        score_masks(*((good, odd) if swap else (odd, good)), [Label(1, "organ")], 1.0)


def test_masks_on_other_grids_are_refused_with_both_grids():
    reference = mask_of(ONE)
    moved = np.array(reference.geometry.affine)
    moved[0, 3] = 0.5
    with pytest.raises(GeometryError, match=r"6x5x4 voxels of 1 x 2 x 4 mm.*6x5x4.*0.5 mm apart"):
        score_masks(Mask(reference.array, Geometry(SHAPE, moved)), reference, [Label(1, "organ")], 1.0)
    with pytest.raises(GeometryError, match=r"5x5x4 voxels.*6x5x4 voxels.*different grids$"):
        score_masks(mask_of(ONE[:-1]), reference, [Label(1, "organ")], 1.0)


def test_rounding_of_a_file_is_no_other_grid():
    reference = mask_of(ONE)
    nearly = Geometry(SHAPE, np.array(reference.geometry.affine) + np.diag([1e-4, 0, 0, 0]))
    assert score_masks(Mask(reference.array, nearly), reference, [Label(1, "organ")], 1.0)[0].dice == 1.0


def test_volume_of_a_sheared_grid_is_base_times_height():
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    affine[1, 2] = 2.0  # gantry tilt: the slices slide, their volume stays
    mask = Mask(ONE.astype(np.uint8), Geometry(SHAPE, affine))
    assert score_masks(mask, mask, [Label(1, "organ")], 1.0)[0].reference_ml == pytest.approx(0.005)


# Properties


@given(pairs(), spacings)
@settings(deadline=None, max_examples=60)
def test_distances_are_those_of_all_pairs_of_surface_voxels(pair, spacing_mm):
    first, second = (np.argwhere(_has_outside_neighbour(mask)) * np.asarray(spacing_mm) for mask in pair)
    between = np.linalg.norm(first[:, None] - second[None], axis=-1)
    distances = measure_surfaces(*pair, spacing_mm)
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
@settings(deadline=None, max_examples=60)
def test_storage_order_changes_no_score(pair, spacing_mm, axes, flips):
    step = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    turned = [mask.transpose(axes)[step] for mask in pair]
    before = score_label(*pair, spacing_mm, 1.0)
    after = score_label(*turned, tuple(spacing_mm[axis] for axis in axes), 1.0)
    for name in (*RATIOS, *DISTANCES, "reference_ml"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), rel=1e-5, abs=1e-5, nan_ok=True), name


@given(pairs(), spacings)
@settings(deadline=None, max_examples=60)
def test_swapping_the_masks_swaps_sensitivity_and_precision_and_nothing_else(pair, spacing_mm):
    one, other = score_label(*pair, spacing_mm, 1.0), score_label(*reversed(pair), spacing_mm, 1.0)
    assert (one.sensitivity, one.fp, one.reference_ml) == (other.precision, other.fn, other.predicted_ml)
    assert one.volume_difference_ml == -other.volume_difference_ml
    for name in ("dice", "iou", "nsd", *DISTANCES):
        assert getattr(one, name) == getattr(other, name), name


@given(pairs(), spacings)
@settings(deadline=None, max_examples=60)
def test_scores_stay_in_their_bounds(pair, spacing_mm):
    score = score_label(*pair, spacing_mm, 1.0)
    for name in RATIOS:
        value = getattr(score, name)
        assert math.isnan(value) or 0.0 <= value <= 1.0, name
    assert score.dice == pytest.approx(2 * score.iou / (1 + score.iou))
    worst = worst_distance_mm(Geometry(pair[0].shape, np.diag([*spacing_mm, 1.0])))
    assert max(score.hd95_mm, score.assd_mm) <= score.hd_mm < worst


# Independent oracles


def blobs(seed):
    """Two overlapping lumps that also touch the edge of the grid."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*map(np.arange, (24, 20, 16)), indexing="ij"), axis=-1)
    return [
        np.any(
            [np.linalg.norm((grid - rng.uniform(4, 16, 3)) / [1.5, 1.0, 0.7], axis=-1) < 6 for _ in range(2)], axis=0
        )
        for _ in range(2)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_overlap_agrees_with_simpleitk(seed):
    prediction, reference = blobs(seed)
    oracle = sitk.LabelOverlapMeasuresImageFilter()
    # The filter's "source" is the prediction, its "target" the reference.
    oracle.Execute(*(sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (prediction, reference)))
    overlap = count_overlap(prediction, reference)
    assert overlap.dice == pytest.approx(oracle.GetDiceCoefficient(1))
    assert overlap.iou == pytest.approx(oracle.GetJaccardCoefficient(1))
    assert 1 - overlap.sensitivity == pytest.approx(oracle.GetFalseNegativeError(1))
    assert 1 - overlap.specificity == pytest.approx(oracle.GetFalsePositiveError(1))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.5, 1.3, 4.0)])
def test_distances_agree_with_medpy(seed, spacing_mm):
    from medpy.metric import binary

    masks = blobs(seed)
    distances = measure_surfaces(*masks, spacing_mm)
    assert distances.hd_mm == pytest.approx(binary.hd(*masks, spacing_mm), rel=1e-5)
    assert distances.assd_mm == pytest.approx(binary.assd(*masks, spacing_mm), rel=1e-5)
    pooled = np.concatenate([distances.from_prediction_mm, distances.from_reference_mm])
    assert np.percentile(pooled, 95) == pytest.approx(binary.hd95(*masks, spacing_mm), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.5, 1.3, 4.0)])
def test_distances_agree_with_monai(seed, spacing_mm):
    masks = blobs(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the oracle's own imports complain about is not our subject
        import torch
        from monai import metrics as oracle

        # MONAI wants one-hot (batch, channel, I, J, K).
        one_hot = [torch.from_numpy(mask[None, None].astype(np.uint8)) for mask in masks]
        at = {"include_background": True, "spacing": spacing_mm}
        hd95 = oracle.compute_hausdorff_distance(*one_hot, percentile=95, **at).item()
        assd = oracle.compute_average_surface_distance(*one_hot, symmetric=True, **at).item()
        nsd = oracle.compute_surface_dice(*one_hot, class_thresholds=[1.5], **at).item()
    distances = measure_surfaces(*masks, spacing_mm)
    assert distances.hd95_mm == pytest.approx(hd95, rel=1e-5)
    assert distances.assd_mm == pytest.approx(assd, rel=1e-5)
    assert distances.nsd(1.5) == pytest.approx(nsd, rel=1e-6)


def test_regions_are_scored_as_unions_of_their_parts() -> None:
    """A mask shows the inner region where two overlap; the outer one is scored with it."""
    whole, core = Label(1, "whole", parts=(1, 2, 4)), Label(2, "core", parts=(2, 4))
    reference = np.zeros((1, 1, 8), np.uint8)
    reference[0, 0, 1:7] = [1, 1, 2, 2, 4, 4]
    painted = np.zeros((1, 1, 8), np.uint8)
    painted[0, 0, 1:7] = [1, 1, 2, 2, 2, 0]
    geometry = Geometry((1, 1, 8), np.eye(4))
    scores = score_masks(Mask(painted, geometry), Mask(reference, geometry), [whole, core], 1.0)
    assert (scores[0].tp, scores[0].fp, scores[0].fn) == (5, 0, 1)
    assert (scores[1].tp, scores[1].fp, scores[1].fn) == (3, 0, 1)
