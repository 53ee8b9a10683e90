"""Synthetic abdomens: something to train on within minutes, without anybody's images.

A phantom is a body the size of a newborn's with four labelled organs, and unlabelled things of the same brightness
beside them. It is defined in patient millimetres and only then sampled on a grid, so that left is left whatever the
orientation of the scan. Anatomy, contrast, coil sensitivity, noise, resolution and orientation differ from case to
case as they do in real scans; a score on phantoms still says nothing about patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from volseg.errors import ConfigError, OutputExistsError
from volseg.image.geometry import AxisOrder, Geometry
from volseg.image.volume import Label, Mask, Volume
from volseg.progress import Progress, ignore_progress

#: What is labelled. "left" and "right" are the patient's.
LABELS: tuple[Label, ...] = (
    Label(1, "liver", (221, 130, 101)),
    Label(2, "kidney_left", (185, 102, 83)),
    Label(3, "kidney_right", (150, 70, 60)),
    Label(4, "spleen", (157, 108, 162)),
)

#: What a scan covers along right, anterior and superior.
FIELD_OF_VIEW_MM = (160.0, 140.0, 128.0)

_BODY_RADII_MM = (66.0, 50.0)
_BODY_INTENSITY = 90.0
_SMALLEST_SIDE = 8

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Organ:
    """An ellipsoid in the average body, in RAS+ millimetres from the body's centre.

    Attributes:
        label: Its value in the mask, 0 for what is not labelled.
        center_mm: Centre; x grows towards the patient's right.
        radii_mm: Half axes.
        intensity: Mean brightness over all cases.
    """

    label: int
    center_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    intensity: float


#: Where two overlap the earlier one keeps the place.
_ORGANS = (
    _Organ(2, (-26, -24, -18), (14, 12, 22), 165),  # left kidney, the higher one
    _Organ(3, (26, -24, -26), (14, 12, 21), 165),  # right kidney, below the liver
    _Organ(4, (-45, -10, 20), (14, 19, 19), 140),  # spleen
    _Organ(1, (24, 8, 16), (32, 28, 27), 150),  # liver
    _Organ(0, (0, -32, 0), (11, 11, 90), 125),  # spine
    _Organ(0, (-6, -16, 0), (5, 5, 90), 175),  # aorta
    _Organ(0, (-22, 20, 22), (18, 14, 15), 145),  # stomach, next to spleen and liver
    _Organ(0, (-32, 12, -20), (12, 12, 18), 140),  # bowel, in front of the left kidney
    _Organ(0, (8, 22, -32), (20, 12, 12), 150),  # bowel, below the liver
    _Organ(0, (38, 4, -34), (10, 12, 13), 145),  # bowel, in front of the right kidney
)


def write_dataset(folder: Path, cases: int = 12, seed: int = 0, progress: Progress = ignore_progress) -> None:
    """Write phantoms as a data set to train on: `images/` and `labels/` with equal names.

    Cases are NIfTI files called phantom_01 and so on, every other one stored in LPS order as DICOM converters do; the
    image of the last is a DICOM series, a folder of slices. Voxels differ in size, and some grids are oblique.

    Args:
        folder: Where `images/` and `labels/` will lie.
        cases: How many.
        seed: Of all randomness: equal seeds write equal data.
        progress: Told each case that is written.

    Raises:
        ConfigError: If there is no case to write.
        OutputExistsError: If the folder holds something.
        OutputError: If they cannot be written.
    """
    from volseg.io import write_mask, write_volume
    from volseg.io.dicom import write_series

    if cases < 1:
        raise ConfigError(f"{cases} cases are no data set", hint="ask for at least one")
    if folder.is_dir() and any(folder.iterdir()):
        raise OutputExistsError(f"{folder} is not empty", hint="choose another --output: no data is ever replaced")
    digits = max(2, len(str(cases)))
    for number in range(1, cases + 1):
        case_id = f"phantom_{number:0{digits}}"
        volume, mask = _varied_phantom(np.random.default_rng([seed, number]))
        if number % 2 == 0 or number == cases:
            volume, mask = _stored_as_lps(volume, mask)
        if number == cases:
            write_series(volume, folder / "images" / case_id, modality="MR")
        else:
            write_volume(volume, folder / "images" / f"{case_id}.nii.gz")
        write_mask(mask, folder / "labels" / f"{case_id}.nii.gz")
        progress("phantoms", number, cases, case_id)


def make_phantom(
    seed: int, shape: tuple[int, int, int] = (64, 56, 32), spacing_mm: tuple[float, float, float] = (2.5, 2.5, 4.0)
) -> tuple[Volume, Mask]:
    """Make one phantom.

    Args:
        seed: Of its anatomy, contrast, noise and position: equal seeds make equal phantoms. The anatomy is the same on
            any grid.
        shape: Voxels along axes that run to the right, anterior and superior, up to a tilt that half of the seeds have.
            Times the spacing it should reach `FIELD_OF_VIEW_MM`, for the whole body to be seen.
        spacing_mm: Distance of voxel centres along the same axes.

    Returns:
        The image, (1, I, J, K) float32 whole numbers from 0 in arbitrary units like those of an MR scanner, and its
        reference, uint8.

    Raises:
        ConfigError: If the shape is too small to hold anything.
    """
    if min(shape) < _SMALLEST_SIDE:
        raise ConfigError(
            f"a phantom of {tuple(shape)} voxels is too small", hint=f"give each axis {_SMALLEST_SIDE} voxels at least"
        )
    rng = np.random.default_rng(seed)
    center_mm = rng.uniform(-30, 30, size=3)
    geometry = _tilted_grid(rng, shape, spacing_mm, center_mm)
    tissue, labels = _paint(rng, _body_points(rng, geometry, center_mm))
    image = _scan(rng, tissue, geometry.spacing_mm)
    return Volume(image[np.newaxis], geometry), Mask(labels, geometry, LABELS)


def _varied_phantom(rng: np.random.Generator) -> tuple[Volume, Mask]:
    """A phantom on a grid that covers the field of view with voxels of a random size."""
    in_plane_mm = round(rng.uniform(2.3, 2.8), 2)
    spacing_mm = (in_plane_mm, in_plane_mm, round(rng.uniform(3.6, 4.6), 1))
    i, j, k = (round(extent / size) for extent, size in zip(FIELD_OF_VIEW_MM, spacing_mm, strict=True))
    return make_phantom(int(rng.integers(2**32)), (i, j, k), spacing_mm)


def _stored_as_lps(volume: Volume, mask: Mask) -> tuple[Volume, Mask]:
    """The same voxels at the same places, stored from right to left and from front to back, as DICOM has them."""
    order = AxisOrder((0, 1, 2), (True, True, False))
    geometry = volume.geometry.reordered(order)
    image, labels = (np.ascontiguousarray(order.apply(array)) for array in (volume.array, mask.array))
    return Volume(image, geometry), Mask(labels, geometry, mask.labels)


def _tilted_grid(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing_mm: Sequence[float], center_mm: Array
) -> Geometry:
    """A grid around the body; half of them are tilted by up to 12 degrees, as scans along an organ are."""
    tilt_deg = rng.uniform(4, 12) if rng.random() < 0.5 else 0.0
    axis = rng.standard_normal(3)
    affine = np.eye(4)
    affine[:3, :3] = _rotation(np.deg2rad(tilt_deg) * axis / np.linalg.norm(axis)) * spacing_mm
    affine[:3, 3] = center_mm - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Geometry(shape, affine)


def _body_points(rng: np.random.Generator, geometry: Geometry, center_mm: Array) -> Array:
    """Where each voxel lies in the average body: bodies differ in size and are smoothly deformed.

    Returns:
        (I, J, K, 3) RAS+ millimetres from the body's centre.
    """
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1)
    straight_mm = (geometry.world(index) - center_mm) / rng.uniform(0.92, 1.08, size=3)
    bent_mm = straight_mm.copy()
    # Plane waves, most of them 70 to 240 mm long, that add up to a displacement of about 2 mm along each axis.
    for _ in range(8):
        phase = straight_mm @ rng.normal(scale=0.035, size=3) + rng.uniform(0, 2 * np.pi)
        bent_mm += np.sin(phase)[..., np.newaxis] * rng.standard_normal(3)
    return bent_mm


def _paint(rng: np.random.Generator, points_mm: Array) -> tuple[Array, NDArray[np.uint8]]:
    """Fill the body with organs.

    Returns:
        The brightness of the tissue and the label of each voxel, both (I, J, K).
    """
    body = ((points_mm[..., :2] / _BODY_RADII_MM) ** 2).sum(axis=-1) < 1
    tissue = np.where(body, _BODY_INTENSITY * rng.uniform(0.85, 1.15), 0.0)
    labels = np.zeros(body.shape, dtype=np.uint8)
    free = body.copy()
    for organ in _ORGANS:
        inside = free & _inside(rng, organ, points_mm)
        tissue[inside] = organ.intensity + rng.uniform(-15, 15)
        labels[inside] = organ.label
        free &= ~inside
    return tissue, labels


def _inside(rng: np.random.Generator, organ: _Organ, points_mm: Array) -> NDArray[np.bool_]:
    """The voxels of one body's version of an organ: moved, turned and resized a little."""
    center_mm = organ.center_mm + rng.uniform(-4, 4, size=3)
    radii_mm = organ.radii_mm * rng.uniform(0.87, 1.13, size=3)
    along = (points_mm - center_mm) @ _rotation(np.deg2rad(rng.uniform(-12, 12, size=3)))
    return np.asarray(((along / radii_mm) ** 2).sum(axis=-1) < 1)


def _scan(rng: np.random.Generator, tissue: Array, spacing_mm: Sequence[float]) -> NDArray[np.float32]:
    """What a scanner makes of the tissue: texture, coil sensitivity, limited resolution and noise.

    The noise is Rician, as in the magnitude of a complex signal (Gudbjartsson and Patz, MRM 34, 1995).
    """
    shape = tissue.shape
    texture = 1 + 0.06 * _smooth_noise(rng, shape, spacing_mm, sigma_mm=3)
    sensitivity = np.exp(0.12 * _smooth_noise(rng, shape, spacing_mm, sigma_mm=50))
    # Half a voxel of blur is the partial volume effect: a border voxel holds both tissues.
    signal = _blurred(tissue * texture * sensitivity, spacing_mm, 0.5 * np.asarray(spacing_mm))
    noise = rng.normal(scale=9.0, size=(2, *shape))
    magnitude = np.hypot(signal + noise[0], noise[1])
    return np.asarray(np.rint(magnitude * rng.uniform(2, 6)), dtype=np.float32)


def _rotation(vector: ArrayLike) -> Array:
    """(3, 3) rotation about a vector by its length in radians (Rodrigues' formula)."""
    x, y, z = np.asarray(vector, dtype=np.float64)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = float(np.sqrt(x * x + y * y + z * z))
    # sinc(t) is sin(pi t) / (pi t): sin(a) / a and (1 - cos(a)) / a^2 = sinc(a/2)^2 / 2, defined at 0 too.
    half = np.sinc(angle / (2 * np.pi))
    return np.asarray(np.eye(3) + np.sinc(angle / np.pi) * cross + half**2 / 2 * cross @ cross)


def _smooth_noise(
    rng: np.random.Generator, shape: Sequence[int], spacing_mm: Sequence[float], sigma_mm: float
) -> Array:
    """(I, J, K) random field of mean 0 and standard deviation 1 that varies over about `sigma_mm`."""
    field = _blurred(rng.standard_normal(tuple(shape)), spacing_mm, (sigma_mm,) * 3)
    return np.asarray((field - field.mean()) / field.std())


def _blurred(array: Array, spacing_mm: Sequence[float], sigma_mm: ArrayLike) -> Array:
    """Gaussian blur by the Fourier transform, in millimetres; the array continues at its opposite side."""
    spectrum = np.fft.fftn(array)
    for axis, (size, step_mm, sigma) in enumerate(zip(array.shape, spacing_mm, np.asarray(sigma_mm), strict=True)):
        # The transform of a Gaussian of width s is exp(-2 (pi s f)^2).
        gain = np.exp(-2 * (np.pi * sigma * np.fft.fftfreq(size, step_mm)) ** 2)
        spectrum *= np.expand_dims(gain, tuple(other for other in range(3) if other != axis))
    return np.fft.ifftn(spectrum).real
