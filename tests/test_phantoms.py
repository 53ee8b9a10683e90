from __future__ import annotations

import itertools
from pathlib import Path

import cc3d
import numpy as np
import pytest
from scipy import ndimage

from volseg.cases.phantoms import LABELS, make_phantom, write_dataset
from volseg.cases.phantoms.scan import blurred
from volseg.cases.phantoms.shapes import ENDLESS, ellipsoid, rotation, tube, union, without
from volseg.errors import ConfigError
from volseg.image.volume import Mask, Volume
from volseg.io import FileSource, SeriesSource, discover, read_mask, read_volume

Dataset = dict[str, tuple[Volume, Mask]]
CASES = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("phantoms")
    write_dataset(path, cases=CASES, seed=3)
    return path


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    """What is on disk, read back."""
    images = {}
    for source in discover(folder / "images").sources:
        path = source.folder if isinstance(source, SeriesSource) else source.path
        images[path.name.removesuffix(".nii.gz")] = read_volume(source)
    return {
        case_id: (image, read_mask(FileSource(folder / "labels" / f"{case_id}.nii.gz"), LABELS))
        for case_id, image in images.items()
    }


def center_mm(mask: Mask, name: str) -> np.ndarray:
    """RAS+ centre of gravity of a label."""
    value = next(label.value for label in mask.labels if label.name == name)
    return mask.geometry.world(np.argwhere(mask.array == value).mean(axis=0))


def test_equal_seeds_make_equal_phantoms():
    (image, mask), (same_image, same_mask), (other_image, _) = make_phantom(7), make_phantom(7), make_phantom(8)
    assert np.array_equal(image.array, same_image.array)
    assert np.array_equal(mask.array, same_mask.array)
    assert image.geometry.distance_mm(same_image.geometry) == 0
    assert not np.array_equal(image.array, other_image.array)


@pytest.mark.parametrize("seed", range(10))
def test_organs_lie_where_they_belong(seed: int):
    _, mask = make_phantom(seed)
    where = {label.name: center_mm(mask, label.name) for label in LABELS}
    # RAS+: x grows towards the patient's right, z towards the head.
    assert where["kidney_left"][0] < where["kidney_right"][0] - 20
    assert where["spleen"][0] < where["kidney_left"][0]
    assert where["kidney_right"][0] - 20 < where["liver"][0]
    assert where["liver"][0] > where["spleen"][0] + 40
    assert where["liver"][2] > where["kidney_right"][2] + 15
    assert where["kidney_left"][1] < where["liver"][1]


@pytest.mark.parametrize("seed", range(10))
def test_every_label_is_there_at_its_size(seed: int):
    image, mask = make_phantom(seed)
    assert mask.array.dtype == np.uint8
    assert image.array.dtype == np.float32
    volume_ml = np.bincount(mask.array.ravel(), minlength=5)[1:] * mask.geometry.voxel_volume_ml
    # A kidney is an ellipsoid of half axes 12.5 x 11 x 21 mm without its hilum; each axis varies by 20 %.
    expected_ml = np.array([100, 11.5, 11.5, 14])
    assert np.all(volume_ml > 0.5 * expected_ml)
    assert np.all(volume_ml < 2.0 * expected_ml)
    # Organs are in one piece, up to crumbs that other organs cut off.
    for label in LABELS:
        sizes = cc3d.statistics(cc3d.connected_components(mask.array == label.value))["voxel_counts"][1:]
        assert sizes.max() > 0.95 * sizes.sum()


def test_the_grid_is_the_one_asked_for():
    image, mask = make_phantom(1, shape=(20, 22, 24), spacing_mm=(8.0, 6.5, 5.0))
    assert image.array.shape == (1, 20, 22, 24)
    assert image.geometry.spacing_mm == pytest.approx((8.0, 6.5, 5.0))
    assert image.geometry.axis_codes == "RAS"
    assert mask.geometry is image.geometry


def test_the_anatomy_does_not_depend_on_the_grid():
    _, fine = make_phantom(5, shape=(64, 56, 32), spacing_mm=(2.5, 2.5, 4))
    _, coarse = make_phantom(5, shape=(40, 28, 36), spacing_mm=(4, 5, 3.5))
    for label in LABELS:
        assert np.linalg.norm(center_mm(coarse, label.name) - center_mm(fine, label.name)) < 1
        volume_ml = [np.sum(mask.array == label.value) * mask.geometry.voxel_volume_ml for mask in (coarse, fine)]
        assert volume_ml[0] == pytest.approx(volume_ml[1], rel=0.1)


def test_intensity_alone_does_not_tell_organs_apart():
    image, mask = make_phantom(2)
    voxels = image.array[0]
    for label in LABELS:
        low, high = np.percentile(voxels[mask.array == label.value], [10, 90])
        band = (voxels >= low) & (voxels <= high)
        # Most of what is as bright as the organ is something else, yet the organ is brighter than its surroundings.
        assert np.mean(mask.array[band] == label.value) < 0.6
    body = voxels[(mask.array == 0) & (voxels > np.percentile(voxels, 40))]
    assert np.median(voxels[mask.array > 0]) > np.median(body)


@pytest.mark.parametrize("seed", range(5))
def test_organs_lie_in_the_body(seed: int):
    image, mask = make_phantom(seed)
    brightness = image.array[0]
    organs = ndimage.binary_dilation(mask.array > 0)
    corners = np.array([brightness[i, j].mean() for i in (0, -1) for j in (0, -1)])
    # Around organs are muscles, fat and other organs; air of the lungs and of the bowel is never most of it.
    around = organs & (mask.array == 0)
    assert np.mean(brightness[around] < 2 * corners.max()) < 0.2
    # Above the diaphragm there is more air than below, but no organ.
    top = mask.geometry.to_canonical.apply(mask.array)[..., -3:]
    assert not top.any()


def test_images_are_what_a_scanner_stores():
    image, _ = make_phantom(4)
    assert np.array_equal(image.array, np.rint(image.array))
    assert image.array.min() >= 0
    assert 200 < image.array.max() < 32768


@pytest.mark.parametrize("shape", [(7, 64, 64), (64, 64, 1)])
def test_a_grid_too_small_is_refused(shape: tuple[int, int, int]):
    with pytest.raises(ConfigError, match="too small"):
        make_phantom(0, shape)


def test_the_folder_has_the_layout_it_promises(folder: Path):
    assert sorted(path.name for path in (folder / "labels").glob("[!.]*")) == [
        f"phantom_{n:02d}.nii.gz" for n in range(1, 7)
    ]
    images = sorted((folder / "images").glob("[!.]*"))
    assert [path.name for path in images] == [*(f"phantom_{n:02d}.nii.gz" for n in range(1, 6)), "phantom_06"]
    assert images[-1].is_dir()


def test_the_dataset_reads_back(dataset: Dataset):
    assert sorted(dataset) == [f"phantom_{number:02d}" for number in range(1, CASES + 1)]
    for image, mask in dataset.values():
        assert image.geometry.matches(mask.geometry)
        assert np.unique(mask.array).tolist() == [0, 1, 2, 3, 4]
        assert center_mm(mask, "kidney_left")[0] < center_mm(mask, "kidney_right")[0] - 20
        # The image belongs to the reference: organs are brighter than the body on average.
        assert image.array[0][mask.array > 0].mean() > 1.2 * image.array[0][mask.array == 0].mean()


def test_cases_differ_in_geometry(dataset: Dataset):
    geometries = [image.geometry for image, _ in dataset.values()]
    assert len({geometry.shape for geometry in geometries}) > 2
    assert len({np.round(geometry.spacing_mm, 3).tobytes() for geometry in geometries}) == CASES
    assert {geometry.axis_codes for geometry in geometries} == {"RAS", "LPS"}
    tilted = [np.abs(geometry.direction).max(axis=0).min() < 0.999 for geometry in geometries]
    assert any(tilted)
    assert not all(tilted)
    for geometry in geometries:
        extent_mm = np.multiply(geometry.shape, geometry.spacing_mm)
        assert np.allclose(extent_mm, (160, 140, 128), atol=3)


def test_the_series_holds_what_the_file_would(dataset: Dataset, tmp_path: Path):
    write_dataset(tmp_path, cases=CASES + 1, seed=3)  # The sixth case is not the last here, so it is a file.
    as_file = read_volume(FileSource(tmp_path / "images" / "phantom_06.nii.gz"))
    as_series, _ = dataset["phantom_06"]
    assert as_series.geometry.matches(as_file.geometry)
    assert np.array_equal(as_series.array, as_file.array)


def test_progress_counts_cases(tmp_path: Path):
    steps = []
    write_dataset(
        tmp_path, cases=2, progress=lambda stage, done, total, note="": steps.append((stage, done, total, note))
    )
    assert steps == [("phantoms", 1, 2, "phantom_01"), ("phantoms", 2, 2, "phantom_02")]


def test_no_cases_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="0 cases"):
        write_dataset(tmp_path, cases=0)


def test_blur_agrees_with_scipy():
    array = np.random.default_rng(0).random((12, 16, 20))
    spacing_mm, sigma_mm = (1.0, 2.0, 0.5), (1.5, 4.0, 1.0)
    expected = ndimage.gaussian_filter(array, np.divide(sigma_mm, spacing_mm), mode="wrap", truncate=8)
    assert np.allclose(blurred(array, spacing_mm, sigma_mm), expected, atol=1e-6)


def test_rotation_turns_by_the_right_hand():
    quarter = rotation([0, 0, np.pi / 2])
    assert np.allclose(quarter @ [1, 0, 0], [0, 1, 0])
    turned = rotation([0.3, -0.2, 0.5])
    assert np.allclose(turned @ turned.T, np.eye(3))
    assert np.linalg.det(turned) == pytest.approx(1)
    assert np.array_equal(rotation([0, 0, 0]), np.eye(3))


def points_around(n: int = 500) -> np.ndarray:
    return np.random.default_rng(0).uniform(-20, 20, size=(3, n)).astype(np.float32)


def test_distance_to_a_sphere_and_a_cylinder_is_exact():
    points = points_around()
    x, y, z = points - np.array([[3], [-2], [1]])
    sphere = ellipsoid(points, (3, -2, 1), (7, 7, 7))
    assert np.allclose(sphere, np.sqrt(x * x + y * y + z * z) - 7, atol=1e-3, rtol=1e-3)
    cylinder = ellipsoid(points, (3, -2, 1), (7, 7, ENDLESS))
    assert np.allclose(cylinder, np.hypot(x, y) - 7, atol=0.02, rtol=1e-3)
    assert ellipsoid(np.zeros((3, 1), np.float32), (0, 0, 0), (7, 9, 8))[0] == pytest.approx(-7, rel=0.01)


def test_distance_to_an_ellipsoid_is_exact_at_its_surface():
    radii = np.array([[5.0], [8.0], [13.0]])
    direction = points_around()
    direction /= np.linalg.norm(direction, axis=0)
    surface = radii * direction
    normal = direction / radii
    normal /= np.linalg.norm(normal, axis=0)
    for step_mm in (-0.5, 0.0, 0.5):
        moved = (surface + step_mm * normal).astype(np.float32)
        assert np.allclose(ellipsoid(moved, (0, 0, 0), (5, 8, 13)), step_mm, atol=0.05)


def test_distance_to_a_tube_is_that_to_its_middle_less_its_radius():
    points = points_around()
    path = ((-10.0, 0.0, 0.0), (5.0, 0.0, 0.0), (5.0, 12.0, 0.0))
    dense = np.concatenate([np.linspace(a, b, 2000) for a, b in itertools.pairwise(path)])
    middle = np.array([np.linalg.norm(dense - point, axis=1).min() for point in points.T])
    assert np.allclose(tube(points, path, 2.0), middle - 2, atol=0.01)
    narrowing = tube(np.array([[-10, 5], [3, 12], [0, 3]], np.float32), path, (2.0, 2.0, 1.0))
    assert narrowing == pytest.approx([1.0, 2.0])


def test_smooth_shapes_agree_with_sharp_ones_away_from_where_they_meet():
    points = points_around()
    first, second = (ellipsoid(points, (x, 0, 0), (9, 9, 9)) for x in (-5, 5))
    apart = np.abs(first - second) > 4
    assert np.allclose(union(first, second, 4)[apart], np.minimum(first, second)[apart])
    assert np.all(union(first, second, 4) <= np.minimum(first, second) + 1e-5)
    apart = np.abs(first + second) > 4
    assert np.allclose(without(first, second, 4)[apart], np.maximum(first, -second)[apart])
