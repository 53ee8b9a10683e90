"""Every metric beside the independent implementation of the same convention, on random and on real pairs.

MedPy, MONAI, DeepMind's surface-distance, SimpleITK and scikit-learn are the oracles. Where their conventions differ,
docs/metrics.md says which is whose and why.
"""

from __future__ import annotations

import math
import warnings
from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  the library's own short name
from numpy.typing import NDArray

from volseg.metrics import (
    SurfacePair,
    count_overlap,
    match_lesions,
    measure_areas,
    measure_surfaces,
    pattern_areas_mm2,
    score_probability,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import surface_distance
    import torch
    from medpy.metric import binary
    from monai import metrics as monai_metrics
    from surface_distance import lookup_tables

#: What the oracles' own code complains about is not our subject.
pytestmark = pytest.mark.filterwarnings("ignore")
TOLERANCES_MM = (0.5, 1.0, 2.0, 3.7)
#: Random pairs in each of as many tests.
_GROUPS, _PAIRS = 10, 16

Pair = tuple[NDArray[np.bool_], NDArray[np.bool_]]
Spacing = tuple[float, float, float]


def blobs(rng: np.random.Generator) -> NDArray[np.bool_]:
    """Overlapping lumps that may touch the edge of the grid."""
    grid = np.stack(np.meshgrid(*map(np.arange, (22, 18, 14)), indexing="ij"), axis=-1)
    lumps = [
        np.linalg.norm((grid - rng.uniform(3, 15, 3)) / rng.uniform(0.5, 1.5, 3), axis=-1) < rng.uniform(2, 6)
        for _ in range(rng.integers(1, 4))
    ]
    return np.any(lumps, axis=0)


def random_pairs(group: int) -> list[tuple[Pair, Spacing]]:
    rng = np.random.default_rng(group)
    found: list[tuple[Pair, Spacing]] = []
    while len(found) < _PAIRS:
        noise = rng.random((22, 18, 14)) < rng.choice([0.0, 0.02])
        pair = blobs(rng) ^ noise, blobs(rng)
        if pair[0].any() and pair[1].any():
            r, a, s = (float(size) for size in rng.choice([0.4, 0.7, 1.0, 1.5, 3.0, 5.0], 3))
            found.append((pair, (r, a, s)))
    return found


def assert_like_all_oracles(pair: Pair, spacing_mm: Spacing) -> None:
    surfaces = measure_surfaces(*pair, spacing_mm)
    assert_like_medpy(pair, spacing_mm, surfaces)
    assert_like_monai(pair, spacing_mm, surfaces)
    assert_like_deepmind(pair, spacing_mm)
    assert_like_simpleitk(pair)


def assert_like_medpy(pair: Pair, spacing_mm: Spacing, surfaces: SurfacePair) -> None:
    distances = surfaces.distances
    assert distances.hd_mm == pytest.approx(binary.hd(*pair, spacing_mm), abs=1e-4)
    assert distances.pooled_hd95_mm == pytest.approx(binary.hd95(*pair, spacing_mm), abs=1e-4)
    assert distances.assd_mm == pytest.approx(binary.assd(*pair, spacing_mm), abs=1e-4)
    directed = [binary.asd(one, other, spacing_mm) for one, other in (pair, pair[::-1])]
    assert distances.masd_mm == pytest.approx(sum(directed) / 2, abs=1e-4)
    assert count_overlap(*pair).sensitivity == pytest.approx(binary.recall(*pair), abs=1e-6)
    assert count_overlap(*pair).precision == pytest.approx(binary.precision(*pair), abs=1e-6)


def assert_like_monai(pair: Pair, spacing_mm: Spacing, surfaces: SurfacePair) -> None:
    distances = surfaces.distances
    one_hot = [torch.from_numpy(mask[None, None].astype(np.uint8)) for mask in pair]  # (batch, channel, I, J, K)
    at = {"include_background": True, "spacing": spacing_mm}
    hd95 = monai_metrics.compute_hausdorff_distance(*one_hot, percentile=95, **at).item()
    assd = monai_metrics.compute_average_surface_distance(*one_hot, symmetric=True, **at).item()
    assert distances.hd95_mm == pytest.approx(hd95, abs=1e-4)
    assert distances.assd_mm == pytest.approx(assd, abs=1e-4)
    for tolerance_mm in TOLERANCES_MM:
        nsd = monai_metrics.compute_surface_dice(*one_hot, class_thresholds=[tolerance_mm], **at).item()
        assert distances.nsd(tolerance_mm) == pytest.approx(nsd, abs=1e-6)


def assert_like_deepmind(pair: Pair, spacing_mm: Spacing) -> None:
    areas = measure_areas(*pair, spacing_mm)
    prediction, reference = pair
    oracle = surface_distance.compute_surface_distances(reference, prediction, spacing_mm)
    assert areas.hd95_mm == pytest.approx(surface_distance.compute_robust_hausdorff(oracle, 95), abs=1e-4)
    for tolerance_mm in TOLERANCES_MM:
        nsd = surface_distance.compute_surface_dice_at_tolerance(oracle, tolerance_mm)
        assert areas.nsd(tolerance_mm) == pytest.approx(nsd, abs=1e-6)


def assert_like_simpleitk(pair: Pair) -> None:
    oracle = sitk.LabelOverlapMeasuresImageFilter()
    # The filter's "source" is the prediction, its "target" the reference.
    oracle.Execute(*(sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in pair))
    overlap = count_overlap(*pair)
    assert overlap.dice == pytest.approx(oracle.GetDiceCoefficient(1), abs=1e-6)
    assert overlap.iou == pytest.approx(oracle.GetJaccardCoefficient(1), abs=1e-6)
    assert 1 - overlap.sensitivity == pytest.approx(oracle.GetFalseNegativeError(1), abs=1e-6)
    assert 1 - overlap.specificity == pytest.approx(oracle.GetFalsePositiveError(1), abs=1e-6)


@pytest.mark.parametrize("group", range(_GROUPS))
def test_random_pairs(group: int) -> None:
    for pair, spacing_mm in random_pairs(group):
        assert_like_all_oracles(pair, spacing_mm)


@pytest.mark.slow
@pytest.mark.real_data
def test_real_pairs(real_data) -> None:
    """Neighbours in the alphabet, cut to a common shape; a label against another case's."""
    files = sorted((real_data / "hippocampus" / "labels").glob("*.nii.gz"))[:41]
    images = [nib.load(path) for path in files]
    for one, other in pairwise(images):
        arrays = [np.asarray(image.dataobj) for image in (one, other)]
        common = tuple(slice(0, min(sizes)) for sizes in zip(*(array.shape for array in arrays), strict=True))
        for value in (1, 2):
            pair = arrays[0][common] == value, arrays[1][common] == value
            r, a, s = (float(size) for size in one.header.get_zooms())
            assert_like_all_oracles(pair, (r, a, s))


@pytest.mark.real_data
@pytest.mark.parametrize("shift", [(1, 0, 0), (0, 2, -1), (3, 1, 1)])
def test_real_oblique_and_anisotropic_pairs(real_data, shift: tuple[int, int, int]) -> None:
    image = nib.load(real_data / "spine" / "t2s" / "t2s_seg.nii.gz")
    reference = np.asarray(image.dataobj) > 0
    r, a, s = (float(size) for size in image.header.get_zooms())
    assert_like_all_oracles((np.roll(reference, shift, axis=(0, 1, 2)), reference), (r, a, s))


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.7, 1.3, 2.9)])
def test_areas_of_all_patterns(spacing_mm: Spacing) -> None:
    """No table of ours, but the rule behind theirs."""
    theirs = np.array(lookup_tables.create_table_neighbour_code_to_surface_area(spacing_mm))
    kernel = np.array(lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL)
    ours = pattern_areas_mm2(spacing_mm)
    for pattern in range(256):
        voxels = np.array([pattern >> bit & 1 for bit in range(8)]).reshape(2, 2, 2)
        assert ours[pattern] == pytest.approx(theirs[(voxels * kernel).sum()], abs=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_flat_masks_are_measured_as_in_two_dimensions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    prediction, reference = (blobs(rng).any(axis=2) for _ in range(2))
    at = (0.7, 1.6)
    flat = measure_surfaces(prediction[..., None], reference[..., None], (*at, 9.0), axes=(0, 1)).distances
    assert flat.hd_mm == pytest.approx(binary.hd(prediction, reference, at), abs=1e-4)
    assert flat.assd_mm == pytest.approx(binary.assd(prediction, reference, at), abs=1e-4)
    areas = measure_areas(prediction[..., None], reference[..., None], (*at, 9.0), axes=(0, 1))
    oracle = surface_distance.compute_surface_distances(reference, prediction, at)
    assert areas.hd95_mm == pytest.approx(surface_distance.compute_robust_hausdorff(oracle, 95), abs=1e-4)
    for tolerance_mm in TOLERANCES_MM:
        nsd = surface_distance.compute_surface_dice_at_tolerance(oracle, tolerance_mm)
        assert areas.nsd(tolerance_mm) == pytest.approx(nsd, abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_probabilities_agree_with_scikit_learn(seed: int) -> None:
    from sklearn import metrics as oracle

    rng = np.random.default_rng(seed)
    reference = rng.random(4000) < rng.uniform(0.05, 0.6)
    stated = np.clip(rng.normal(0.3 + 0.3 * reference, 0.2), 0, 1).astype(np.float32)
    if seed % 2:
        stated = np.round(stated * 255) / 255  # many voxels of one probability
    numbers = score_probability(stated, reference)
    assert numbers.auroc == pytest.approx(oracle.roc_auc_score(reference, stated), abs=1e-6)
    assert numbers.average_precision == pytest.approx(oracle.average_precision_score(reference, stated), abs=1e-6)
    assert numbers.brier == pytest.approx(oracle.brier_score_loss(reference, stated), abs=1e-6)


def test_lesions_agree_with_an_exhaustive_search() -> None:
    """Above an iou of a half no part has two partners, so that all pairs may simply be tried."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        reference = np.zeros((16, 16, 16), bool)
        for corner in rng.integers(0, 12, (4, 3)):
            reference[tuple(slice(start, start + 3) for start in corner)] = True
        prediction = np.roll(reference, 1, axis=int(rng.integers(3))) & (rng.random(reference.shape) < 0.95)
        parts = [
            sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True))
            for mask in (prediction, reference)
        ]
        ious = []
        for found in range(1, parts[0].max() + 1):
            for real in range(1, parts[1].max() + 1):
                one, other = parts[0] == found, parts[1] == real
                iou = (one & other).sum() / (one | other).sum()
                ious += [iou] if iou > 0.5 else []
        lesions = match_lesions(prediction, reference, 0.5)
        assert (lesions.tp, lesions.fp, lesions.fn) == (
            len(ious),
            parts[0].max() - len(ious),
            parts[1].max() - len(ious),
        )
        assert lesions.iou_sum == pytest.approx(math.fsum(ious))
