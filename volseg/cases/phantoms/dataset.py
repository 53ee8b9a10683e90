"""Phantoms on realistic scan grids, one by one or as a data set on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volseg.cases.phantoms.anatomy import LABELS, paint_all
from volseg.cases.phantoms.patient import Patient
from volseg.cases.phantoms.scan import scan
from volseg.cases.phantoms.shapes import rotation
from volseg.errors import ConfigError, OutputExistsError
from volseg.image.geometry import AxisOrder, Geometry
from volseg.image.volume import Mask, Volume
from volseg.progress import Progress, ignore_progress

#: Field of view of a scan along right, anterior and superior.
FIELD_OF_VIEW_MM = (160.0, 140.0, 128.0)

_SMALLEST_SIDE = 8

Array = NDArray[np.float64]


def write_dataset(folder: Path, cases: int = 12, seed: int = 0, progress: Progress = ignore_progress) -> None:
    """Write phantoms as a training data set: `images/` and `labels/` with equal names.

    Cases are NIfTI files named phantom_01 and so on, every other one stored in LPS order as by DICOM converters. The
    image of the last case is a DICOM series, a folder of slices. Voxel sizes differ, and some grids are oblique.

    Args:
        folder: Folder for `images/` and `labels/`.
        cases: Number of cases.
        seed: Random seed: equal seeds write equal data.
        progress: Called per case.

    Raises:
        ConfigError: If the number of cases is below one.
        OutputExistsError: If the folder is not empty.
        OutputError: If they cannot be written.
    """
    from volseg.io import write_mask, write_volume
    from volseg.io.dicom import write_series

    if cases < 1:
        raise ConfigError(f"a data set cannot have {cases} cases", hint="ask for at least one")
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
    """Create one phantom.

    Args:
        seed: Seed of anatomy, contrast, noise and position: equal seeds create equal phantoms. The anatomy is the same
            on any grid.
        shape: Voxels along axes that run to the right, anterior and superior, tilted for half of the seeds. Times the
            spacing, it should cover `FIELD_OF_VIEW_MM` to show the whole body.
        spacing_mm: Distance of voxel centres along the same axes.

    Returns:
        The image, (1, I, J, K) float32 integers from 0 in arbitrary units like those of an MR scanner, and its
        reference, uint8.

    Raises:
        ConfigError: If the shape is too small.
    """
    if min(shape) < _SMALLEST_SIDE:
        raise ConfigError(
            f"a phantom of {tuple(shape)} voxels is too small", hint=f"give each axis at least {_SMALLEST_SIDE} voxels"
        )
    rng = np.random.default_rng(seed)
    center_mm = rng.uniform(-30, 30, size=3)
    geometry = _tilted_grid(rng, shape, spacing_mm, center_mm)
    patient = Patient(rng, _body_points(rng, geometry, center_mm), edge_mm=float(np.cbrt(np.prod(spacing_mm))))
    paint_all(patient)
    image = scan(rng, patient.tissue.reshape(shape), geometry.spacing_mm)
    return Volume(image[np.newaxis], geometry), Mask(patient.labels.reshape(shape), geometry, LABELS)


def _varied_phantom(rng: np.random.Generator) -> tuple[Volume, Mask]:
    """Create a phantom on a grid that covers the field of view with voxels of a random size."""
    in_plane_mm = round(rng.uniform(2.3, 2.8), 2)
    spacing_mm = (in_plane_mm, in_plane_mm, round(rng.uniform(3.6, 4.6), 1))
    i, j, k = (round(extent / size) for extent, size in zip(FIELD_OF_VIEW_MM, spacing_mm, strict=True))
    return make_phantom(int(rng.integers(2**32)), (i, j, k), spacing_mm)


def _stored_as_lps(volume: Volume, mask: Mask) -> tuple[Volume, Mask]:
    """Store the same voxels in LPS order, as DICOM does, with unchanged positions."""
    order = AxisOrder((0, 1, 2), (True, True, False))
    geometry = volume.geometry.reordered(order)
    image, labels = (np.ascontiguousarray(order.apply(array)) for array in (volume.array, mask.array))
    return Volume(image, geometry), Mask(labels, geometry, mask.labels)


def _tilted_grid(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing_mm: Sequence[float], center_mm: Array
) -> Geometry:
    """Return a grid around the body; half of all grids are tilted by up to 12 degrees, like scans along an organ."""
    tilt_deg = rng.uniform(4, 12) if rng.random() < 0.5 else 0.0
    axis = rng.standard_normal(3)
    affine = np.eye(4)
    affine[:3, :3] = rotation(np.deg2rad(tilt_deg) * axis / np.linalg.norm(axis)) * spacing_mm
    affine[:3, 3] = center_mm - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Geometry(shape, affine)


def _body_points(rng: np.random.Generator, geometry: Geometry, center_mm: Array) -> NDArray[np.float32]:
    """Return the position of each voxel in the average body: bodies differ in size and are smoothly deformed.

    Returns:
        (3, N) RAS+ millimetres from the centre of the body.
    """
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    straight_mm = ((geometry.world(index) - center_mm) / rng.uniform(0.92, 1.08, size=3)).T.astype(np.float32)
    bent_mm = straight_mm.copy()
    # Plane waves, most of them 70 to 240 mm long, that add up to a displacement of about 2 mm along each axis.
    for _ in range(8):
        wave, start, push = rng.normal(scale=0.035, size=3), rng.uniform(0, 2 * np.pi), rng.standard_normal(3)
        phase = wave.astype(np.float32) @ straight_mm + np.float32(start)
        bent_mm += push.astype(np.float32)[:, np.newaxis] * np.sin(phase)
    return bent_mm
