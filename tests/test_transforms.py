from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import STORAGE_ORDERS, make_case
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import Compose

from volseg.cases import Case
from volseg.config import (
    AugmentationConfig,
    Config,
    CtNormalization,
    DataConfig,
    MinMax,
    Normalization,
    Percentiles,
    PreprocessingConfig,
    Unchanged,
    Window,
    ZScore,
    validate,
)
from volseg.errors import GeometryError
from volseg.image.box import Box
from volseg.image.volume import Mask, Volume
from volseg.io import FileSource, write_mask, write_volume
from volseg.model.checkpoint import TrainedNetwork
from volseg.model.networks import build_network
from volseg.prediction.predictor import Predictor
from volseg.transforms import (
    IMAGE,
    REFERENCE,
    Canonicald,
    FillNonFinited,
    LoadVolumed,
    Normalized,
    Respaced,
    build_augmentation,
    geometry_of,
    normalize,
    preprocess,
)

DATA = DataConfig(labels={"ball": 1, "box": 2})
AT_1_MM = PreprocessingConfig(spacing_mm=(1.0, 1.0, 1.0), normalization=(ZScore(nonzero=False),))

STILL = AugmentationConfig(
    affine_probability=0,
    noise_probability=0,
    blur_probability=0,
    brightness_probability=0,
    contrast_probability=0,
    gamma_probability=0,
    low_resolution_probability=0,
)
EVERYTHING = AugmentationConfig(
    **{name: 1.0 for name in AugmentationConfig.model_fields if name.endswith("_probability")},
    flip_axes=("left-right", "posterior-anterior", "inferior-superior"),
    shear=0.1,
)


def write_case(folder: Path, image: Volume, mask: Mask) -> Case:
    write_volume(image, folder / "image.nii.gz")
    write_mask(mask, folder / "mask.nii.gz")
    return Case("case", {"image": FileSource(folder / "image.nii.gz")}, FileSource(folder / "mask.nii.gz"))


def test_preprocessing_gives_the_same_bits_whatever_the_storage_order(tmp_path: Path) -> None:
    image, mask = make_case(0)
    results = []
    for n, order in enumerate(STORAGE_ORDERS):
        geometry = image.geometry.reordered(order)
        stored = Volume(np.ascontiguousarray(order.apply(image.array)), geometry)
        stored_mask = Mask(np.ascontiguousarray(order.apply(mask.array)), geometry)
        case = write_case(tmp_path / str(n), stored, stored_mask)
        results.append(preprocess(case, DATA, AT_1_MM, reference=True))
    for result in results[1:]:
        assert torch.equal(result[IMAGE].as_tensor(), results[0][IMAGE].as_tensor())
        assert torch.equal(result[REFERENCE].as_tensor(), results[0][REFERENCE].as_tensor())
        assert geometry_of(result[IMAGE]).matches(geometry_of(results[0][IMAGE]), 1e-3)


def test_resampling_keeps_every_point_where_it_is(tmp_path: Path) -> None:
    """The image is a linear function of world coordinates, so it must be that same function afterwards."""
    geometry = make_case(0)[0].geometry
    slope = np.array([0.5, -0.25, 0.125])
    values = geometry.world(np.moveaxis(np.indices(geometry.shape), 0, -1)) @ slope
    case = write_case(
        tmp_path,
        Volume(values[np.newaxis].astype(np.float32), geometry),
        Mask(np.ones(geometry.shape, np.uint8), geometry),
    )
    for spacing_mm in ((1.0, 1.0, 1.0), (0.7, 1.3, 1.9)):
        identity = Window(low=0.0, high=1.0)
        config = PreprocessingConfig(spacing_mm=spacing_mm, normalization=(identity,))
        low, high = float(values.min()), float(values.max())
        config = config.model_copy(update={"normalization": (Window(low=low, high=high),)})
        sample = preprocess(case, DATA, config, reference=False)
        new = geometry_of(sample[IMAGE])
        assert new.spacing_mm == pytest.approx(spacing_mm)
        inside = (slice(3, -3),) * 3  # at the rim the value of the outermost voxel stays
        expected = new.world(np.moveaxis(np.indices(new.shape), 0, -1)) @ slope
        got = sample[IMAGE].numpy()[0] * (high - low) + low
        np.testing.assert_allclose(got[inside], expected[inside], atol=1e-3)


def test_errors_of_a_case_come_out_of_the_chain_as_they_are(tmp_path: Path) -> None:
    image, mask = make_case(0)
    moved = image.geometry.affine.copy()
    moved[0, 3] += 5
    other = type(image.geometry)(image.geometry.shape, moved)
    case = write_case(tmp_path, image, Mask(mask.array, other))
    with pytest.raises(GeometryError, match=r"case case: reference and image: .*5 mm apart"):
        preprocess(case, DATA, AT_1_MM, reference=True)


def test_voxels_that_are_not_finite_become_background(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image, mask = make_case(0)
    image.array[0, 0, 0, :3] = [np.nan, np.inf, -np.inf]
    case = write_case(tmp_path, image, mask)
    sample = preprocess(case, DATA, AT_1_MM, reference=False)
    assert torch.isfinite(sample[IMAGE].as_tensor()).all()
    assert "case case: 3 voxels are not finite" in caplog.text


@pytest.mark.parametrize(
    ("normalization", "values", "expected"),
    [
        (ZScore(nonzero=True), [0, 1, 3], [0, -1, 1]),
        (ZScore(nonzero=False), [1, 3, 1, 3], [-1, 1, -1, 1]),
        (CtNormalization(low=-100, high=300, mean=100, std=50), [-1000, 100, 200, 3000], [-4, 0, 2, 4]),
        (Window(low=0, high=200), [-50, 100, 250], [0, 0.5, 1]),
        (MinMax(), [2, 4, 6], [0, 0.5, 1]),
        (Percentiles(low=0, high=50), [0, 1, 2, 3, 4], [0, 0.5, 1, 1, 1]),
    ],
)
def test_normalizations(normalization: object, values: list[float], expected: list[float]) -> None:
    image = np.array(values, dtype=np.float32).reshape(1, -1, 1, 1)
    normalize(image, [normalization])  # type: ignore[list-item]
    np.testing.assert_allclose(image.ravel(), expected, atol=1e-5)


def test_statistics_are_those_of_the_whole_volume() -> None:
    """However it is cut into parts on the way."""
    image = np.random.default_rng(0).normal(40, 9, (1, 7, 5, 70)).astype(np.float32)
    image[0, 3] = 0
    whole, inside = image[0], image[0] != 0
    mean, deviation = whole[inside].mean(dtype=np.float64), whole[inside].std(dtype=np.float64)
    expected = np.where(inside, (whole - mean) / deviation, 0)
    normalize(image, [ZScore(nonzero=True)])
    np.testing.assert_allclose(image[0], expected, atol=1e-5)


@pytest.mark.parametrize("nonzero", [True, False])
def test_a_volume_without_contrast_is_left_as_it_is(nonzero: bool) -> None:
    image = np.zeros((1, 3, 3, 3), np.float32)
    normalize(image, [ZScore(nonzero=nonzero)])
    assert not image.any()


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_augmentation_makes_a_new_label_value(seed: int) -> None:
    augment = build_augmentation(EVERYTHING, {"a": 1, "b": 5}, (16, 16, 16))
    augment.set_random_state(seed=seed)
    reference = torch.zeros(1, 16, 16, 16)
    reference[:, 4:9, 4:12, 4:12] = 5
    reference[:, 9:12, 4:12, 4:12] = 1
    result = augment({IMAGE: torch.rand(1, 16, 16, 16), REFERENCE: reference})
    assert set(torch.as_tensor(result[REFERENCE]).unique().tolist()) <= {0.0, 1.0, 5.0}
    assert result[IMAGE].shape == result[REFERENCE].shape == (1, 16, 16, 16)
    assert torch.isfinite(torch.as_tensor(result[IMAGE])).all()


def test_spatial_changes_move_image_and_reference_alike() -> None:
    """Where image and reference are the same box, they must still be the same afterwards, up to interpolation."""
    config = STILL.model_copy(update={"affine_probability": 1.0, "flip_axes": ("inferior-superior",), "shear": 0.1})
    augment = build_augmentation(config, {"a": 1}, (24, 24, 24))
    box = torch.zeros(1, 24, 24, 24)
    box[:, 5:12, 8:18, 7:15] = 1
    for seed in range(8):
        augment.set_random_state(seed=seed)
        result = augment({IMAGE: box.clone(), REFERENCE: box.clone()})
        image, reference = torch.as_tensor(result[IMAGE]) > 0.5, torch.as_tensor(result[REFERENCE]) > 0.5
        assert 2 * (image & reference).sum() / (image.sum() + reference.sum()) > 0.97


def test_a_mirrored_patient_keeps_left_on_the_left() -> None:
    config = STILL.model_copy(
        update={"flip_axes": ("left-right",), "flip_probability": 1.0, "swap_labels": (("left", "right"),)}
    )
    augment = build_augmentation(config, {"left": 2, "right": 3, "middle": 1}, (5, 1, 1))
    image = torch.arange(5.0).reshape(1, 5, 1, 1)
    reference = torch.tensor([2.0, 2.0, 1.0, 0.0, 3.0]).reshape(1, 5, 1, 1)
    result = augment({IMAGE: image, REFERENCE: reference})
    assert torch.as_tensor(result[IMAGE]).flatten().tolist() == [4, 3, 2, 1, 0]
    assert torch.as_tensor(result[REFERENCE]).flatten().tolist() == [2, 0, 1, 3, 3]


def test_augmentation_follows_its_seed() -> None:
    augment = build_augmentation(EVERYTHING, {"a": 1}, (16, 16, 16))
    sample = {IMAGE: torch.rand(1, 16, 16, 16), REFERENCE: torch.ones(1, 16, 16, 16)}
    results = []
    for seed in (1, 1, 2):
        augment.set_random_state(seed=seed)
        results.append(torch.as_tensor(augment(dict(sample))[IMAGE]))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


NORMALIZATIONS = (
    ZScore(nonzero=True),
    ZScore(nonzero=False),
    CtNormalization(low=60.0, high=190.0, mean=110.0, std=35.0),
    Window(low=80.0, high=160.0),
    Percentiles(low=1.0, high=98.5),
    MinMax(),
)


RULES: list[dict[str, Any]] = [
    {"axes": "stored"},
    {"axes": "PIL", "grid": "extent"},
    {"crop": "nonzero", "interpolation": "cubic"},
    {"interpolation": "cubic", "coarse_axis": "nearest", "spacing_mm": (0.8, 0.7, 4.1)},
    {"axes": "stored", "crop": "nonzero", "grid": "extent", "interpolation": "cubic", "coarse_axis": "nearest"},
    {"spacing_mm": (0.9, None, None), "interpolation": "cubic"},
]


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_prediction_follows_the_rules_that_training_followed(rules: dict[str, Any], tmp_path: Path) -> None:
    image, _ = make_case(0)
    image.array[..., :3] = 0
    order = STORAGE_ORDERS[11]
    grid = image.geometry.reordered(order)
    write_volume(Volume(np.ascontiguousarray(order.apply(image.array)), grid), tmp_path / "c0.nii.gz")
    case = Case("case", {"c0": FileSource(tmp_path / "c0.nii.gz")})
    config = config_of(("c0",), ZScore(fill_holes=True), (1.3, 0.8, 2.0))
    tree = config.model_dump(mode="json")
    config = validate({**tree, "preprocessing": {**tree["preprocessing"], **rules}}, "the test")
    sample = preprocess(case, config.data, config.preprocessing, reference=False)
    network = build_network(config.network, 1, config.data.outputs).eval()
    prepared = Predictor([TrainedNetwork.of(network, config)]).prepare(case)
    (seen,) = prepared.inputs
    np.testing.assert_array_equal(seen.read(Box.whole(seen.shape)).numpy(), sample[IMAGE].numpy())
    # Both lie where the part of the volume lies that networks see.
    part = prepared.geometry.reordered(prepared.order).part(prepared.box)
    centre = [np.mean(each.corners_mm, axis=0) for each in (part, geometry_of(sample[IMAGE]))]
    np.testing.assert_allclose(*centre, atol=1e-4)
    whole = Box.whole(prepared.geometry.reordered(prepared.order).shape)
    assert ("nonzero" in rules.values()) == (prepared.box != whole)


def test_zeros_outside_are_left_out_of_a_zscore_and_zeros_inside_are_not() -> None:
    """One row: nothing, 3, a hole, 5, nothing; the mean of 3, 0 and 5 is 8 / 3."""
    array = np.zeros((2, 5, 3, 3), np.float32)
    array[0, 1:4] = 1
    array[0, 1, 1, 1], array[0, 2, 1, 1], array[0, 3, 1, 1] = 3, 0, 5
    array[1, 0, 0, 0] = 7  # another channel is not zero there, so that the corner is inside
    values = np.append(array[0, 1:4].ravel(), 0.0)
    normalize(array, [ZScore(fill_holes=True), Unchanged()])
    assert array[0, 2, 1, 1] == pytest.approx((0 - values.mean()) / values.std(), rel=1e-5)
    assert array[0, 0, 0, 0] == pytest.approx((0 - values.mean()) / values.std(), rel=1e-5)
    assert array[0, 4].max() == array[0, 4].min() == 0
    assert array[1, 0, 0, 0] == 7


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.1, 2.0), (1.0, 1.0, 1.0), (0.7, 1.9, 3.1)], ids=str)
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=lambda each: f"{each.method}-{each.model_dump()}")
def test_prediction_shows_the_network_what_training_showed_it(
    normalization: Normalization, channels: int, spacing_mm: tuple[float, float, float], tmp_path: Path
) -> None:
    """Bit for bit, whatever the storage order."""
    names = tuple(f"c{n}" for n in range(channels))
    order = STORAGE_ORDERS[7 * channels % len(STORAGE_ORDERS)]
    images = {}
    for n, name in enumerate(names):
        image, _ = make_case(n)
        image.array[0, n, 1, 2] = np.nan
        grid = make_case(0)[0].geometry.reordered(order)
        write_volume(Volume(np.ascontiguousarray(order.apply(image.array)), grid), tmp_path / f"{name}.nii.gz")
        images[name] = FileSource(tmp_path / f"{name}.nii.gz")
    case = Case("case", images)
    config = config_of(names, normalization, spacing_mm)
    trained = preprocess(case, config.data, config.preprocessing, reference=False)[IMAGE].numpy()
    network = build_network(config.network, channels, config.data.outputs).eval()
    (network_input,) = Predictor([TrainedNetwork.of(network, config)]).prepare(case).inputs
    np.testing.assert_array_equal(network_input.read(Box.whole(network_input.shape)).numpy(), trained)
    assert trained.shape == (channels, *network_input.shape)


def config_of(channels: tuple[str, ...], normalization: Normalization, spacing_mm: tuple[float, ...]) -> Config:
    tree = {
        "data": {"channels": channels, "labels": {"ball": 1, "box": 2}},
        "preprocessing": {"spacing_mm": spacing_mm, "normalization": [normalization.model_dump()] * len(channels)},
        "patches": {"size": (16, 16, 16)},
        "network": {"name": "unet", "channels": (8, 16), "strides": ((2, 2, 2),)},
    }
    return validate(tree, "a test")


def test_a_chain_of_somebody_elses_reads_and_prepares_any_keys(tmp_path: Path) -> None:
    image, mask = make_case(0)
    write_volume(image, tmp_path / "scan.nii.gz")
    write_mask(mask, tmp_path / "seg.nii.gz")
    chain = Compose(
        [
            LoadVolumed(("scan", "seg"), mask_keys="seg"),
            FillNonFinited("scan"),
            Canonicald(("scan", "seg")),
            Normalized((ZScore(),), "scan"),
            Respaced((2.0, 2.0, 2.0), ("scan", "seg"), mask_keys="seg"),
        ]
    )
    sample = chain({"scan": str(tmp_path / "scan.nii.gz"), "seg": tmp_path / "seg.nii.gz"})
    assert sample["scan"].shape == sample["seg"].shape
    assert geometry_of(sample["scan"]).spacing_mm == pytest.approx((2.0, 2.0, 2.0))
    assert set(sample["seg"].unique().tolist()) == {0, 1, 2}
    assert abs(float(sample["scan"].mean())) < 0.2
