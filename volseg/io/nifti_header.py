"""The position of the voxels as stated in a NIfTI header, and contradictions in it.

A header holds voxel sizes (pixdim), an arbitrary affine (sform) and a transform of a rotation and pixdim (qform), each
with a code for its target space (nifti1.h, "3D IMAGE (VOLUME) ORIENTATION AND LOCATION IN SPACE"). Programs disagree
about which of them to use, so a header whose statements differ puts the image in several places at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import nibabel as nib
import numpy as np
from nibabel.quaternions import fillpositive, quat2mat
from numpy.typing import NDArray

from volseg.config.reading import GeometryChoice
from volseg.errors import GeometryError
from volseg.image.geometry import Geometry

#: Voxel sizes are the same when they differ by no more than this share: float32 rounds to 1e-7, and 1e-4 moves the far
#: end of 500 voxels by a twentieth of one, which is the tolerance of `Geometry.matches`.
SAME_SIZE = 1e-4
#: Of a quaternion (a, b, c, d) the last three are stored, in float32: so much of a² = 1 - b² - c² - d² may be rounding.
#: nibabel takes a for 0 where a² is smaller.
_QUATERNION_ROUNDING = 3 * 2.0**-23
#: Units beside mm in the lower bits of xyzt_units. Some readers respect them and some do not.
_OTHER_UNITS = {1: "metres", 3: "micrometres"}
_SPACES = {1: "scanner", 2: "aligned", 3: "Talairach", 4: "MNI", 5: "template"}
_OTHER_UNIT = "convert it to mm; if its numbers are mm already, correct the unit (xyzt_units)"
_BY_HAND = "set sform or qform from the source of the image"


@dataclass(frozen=True, eq=False)
class Transforms:
    """The statements of a header, exactly as stored.

    Attributes:
        path: The file, for errors.
        shape: Voxels along (i, j, k).
        sizes_mm: (3,) pixdim[1:4] without signs, NaN where there is no size.
        sizes_fault: What is wrong with them; empty if nothing is.
        dimensions: Number of axes of the file: pixdim is not reliable beyond these.
        sform_code: Target space of the sform; 0 if not set.
        sform: (4, 4) voxel index -> RAS+ mm, whatever its code.
        qform_code: Target space of the qform; 0 if not set.
        rotation: (3, 3) directions of the axes by the qform, the third flipped by qfac; None if it states none.
        offset_mm: (3,) first voxel by the qform.
        rounding: Angle in radians by which rounding may have turned the qform.
    """

    path: Path
    shape: tuple[int, int, int]
    sizes_mm: NDArray[np.float64]
    sizes_fault: str
    dimensions: int
    sform_code: int
    sform: NDArray[np.float64]
    qform_code: int
    rotation: NDArray[np.float64] | None
    offset_mm: NDArray[np.float64]
    rounding: float


@dataclass(frozen=True, eq=False)
class Placement:
    """The position of the voxels of a file as used by volseg.

    Attributes:
        geometry: The grid.
        remark: A remark on the header for the user; empty if the header is consistent.
    """

    geometry: Geometry
    remark: str = ""


class _ContradictionError(GeometryError):
    """The header is broken or contradictory, but a choice by the user may override it."""


def transforms_of(path: Path, raw: nib.Nifti1Header, shape: tuple[int, int, int]) -> Transforms:
    """Read the statements of a header.

    Args:
        path: The file, for errors.
        raw: The header exactly as stored.
        shape: Voxels along (i, j, k).

    Raises:
        GeometryError: If it states positions in another unit than mm.
    """
    if unit := _OTHER_UNITS.get(int(raw["xyzt_units"]) & 0b111):
        raise GeometryError(f"{path} states its positions in {unit}, volseg takes mm", hint=_OTHER_UNIT)
    pixdim = np.array(raw["pixdim"][:4], dtype=np.float64)
    sizes = pixdim[1:]
    axes = np.arange(3) < int(raw["dim"][0])
    vector = np.array([raw[f"quatern_{part}"] for part in "bcd"])
    offset_mm = np.array([raw[f"qoffset_{axis}"] for axis in "xyz"], dtype=np.float64)
    rotation = _rotation(vector, pixdim[0]) if np.isfinite(offset_mm).all() else None
    rest = 0.0 if rotation is None else max(1.0 - float(vector @ vector), 0.0)
    a = math.sqrt(rest) if rest >= _QUATERNION_ROUNDING else 0.0
    return Transforms(
        path,
        shape,
        sizes_mm=np.where(np.isfinite(sizes) & (sizes != 0), np.abs(sizes), np.nan),
        sizes_fault=_fault_of(sizes[axes]),
        dimensions=int(raw["dim"][0]),
        sform_code=_code(raw["sform_code"]),
        sform=np.array([*(raw[f"srow_{axis}"] for axis in "xyz"), (0, 0, 0, 1)], dtype=np.float64),
        qform_code=_code(raw["qform_code"]),
        rotation=rotation,
        offset_mm=offset_mm,
        rounding=2 * (math.sqrt(rest + _QUATERNION_ROUNDING) - a),
    )


def _fault_of(sizes: NDArray[np.float64]) -> str:
    valid = np.isfinite(sizes) & (sizes > 0)
    return "" if valid.all() else f"its voxel sizes are {sizes.tolist()} by pixdim, which are invalid"


def _code(stored: int) -> int:
    """Return a code of the standard; any other counts as 0, as in nibabel."""
    return int(stored) if int(stored) in _SPACES else 0


def _rotation(vector: NDArray[np.floating], qfac: float) -> NDArray[np.float64] | None:
    """Compute a rotation from the last three numbers of a unit quaternion; a qfac of 0 means 1 (nifti1.h, method 2)."""
    if qfac not in {-1.0, 0.0, 1.0} or not (np.abs(vector) <= 1 + SAME_SIZE).all():
        return None  # for another qfac some readers use its sign, and some use 1
    try:
        quaternion = fillpositive(vector, w2_thresh=-_QUATERNION_ROUNDING)
    except ValueError:
        return None
    return np.asarray(quat2mat(quaternion) * (1, 1, qfac or 1))


def placement(stated: Transforms, choice: GeometryChoice | None = None) -> Placement:
    """Determine where the voxels lie: by the sform if its code is set, else by the qform if its code is set.

    If the codes differ, the sform has another target space than the qform, and the two may differ: this becomes a
    remark. So does a sheared sform, which no qform can express.

    Args:
        stated: The statements of the header.
        choice: Which part is correct if the header contradicts itself; see `ReadingRules`.

    Raises:
        GeometryError: If neither transform is set, the one that is used is broken, or the header contradicts itself and
            no choice resolves it.
    """
    if not (stated.sform_code or stated.qform_code):
        # Voxel sizes alone (method 1 of the standard) do not determine which side is left.
        raise GeometryError(
            f"{stated.path} does not state where its voxels lie (sform and qform codes are both 0)",
            hint="set one of them from the source of the image",
        )
    try:
        return _placement(stated, choice)
    except _ContradictionError as error:
        ways = [way for way in get_args(GeometryChoice) if way != choice and _is_way_out(stated, way)]
        hint = (
            f"find out which is correct, and state it with --geometry or data.geometry: {' or '.join(ways)}"
            if ways
            else _BY_HAND
        )
        raise GeometryError(str(error), hint=hint) from error


def _is_way_out(stated: Transforms, choice: GeometryChoice) -> bool:
    try:
        _placement(stated, choice)
    except GeometryError:
        return False
    return True


def _placement(stated: Transforms, choice: GeometryChoice | None) -> Placement:
    if not stated.sform_code:
        return Placement(_qform(stated))
    if choice == "qform" and stated.qform_code:
        return Placement(_qform(stated), _passed_over(stated))
    sform = _sform(stated)
    resized = _resized(stated, sform)
    sizes, place = _other_sizes(stated, sform), _other_place(stated, resized)
    match choice:
        case "sform":
            unsettled = []
        case "pixdim":
            unsettled = [place]
        case _:
            unsettled = [sizes, place]
    if any(unsettled):
        raise _ContradictionError(f"{stated.path} contradicts itself: {_listed(*unsettled)}")
    if sizes or place:
        used = resized if choice == "pixdim" and sizes else sform
        return Placement(used, f"it contradicts itself: {_listed(sizes, place)}; {choice} is used, as chosen")
    return Placement(sform, _listed(_disagreement(stated, sform), stated.sizes_fault))


def _sform(stated: Transforms) -> Geometry:
    try:
        return Geometry(stated.shape, stated.sform)
    except GeometryError as error:
        raise _ContradictionError(f"{stated.path} has a broken orientation: its sform is set, but {error}") from error


def _qform(stated: Transforms) -> Geometry:
    if fault := stated.sizes_fault or _fault_of(stated.sizes_mm):
        raise _ContradictionError(f"{stated.path} has a broken orientation: {fault}")
    return _by_rotation(stated, stated.sizes_mm)


def _by_rotation(stated: Transforms, sizes_mm: NDArray[np.float64]) -> Geometry:
    if stated.rotation is None:
        raise _ContradictionError(f"{stated.path} has a broken orientation: its qform is set, but is not a rotation")
    affine = np.eye(4)
    affine[:3, :3] = stated.rotation * sizes_mm
    affine[:3, 3] = stated.offset_mm
    return Geometry(stated.shape, affine)


def _resized(stated: Transforms, sform: Geometry) -> Geometry:
    """Return the sform with the voxel sizes of pixdim, keeping the first voxel and the directions."""
    known = ~np.isnan(stated.sizes_mm) & (np.arange(3) < stated.dimensions)
    affine = sform.affine.copy()
    affine[:3, :3] = sform.direction * np.where(known, stated.sizes_mm, sform.spacing_mm)
    return Geometry(sform.shape, affine)


def _other_sizes(stated: Transforms, sform: Geometry) -> str:
    """Describe how pixdim contradicts the voxel sizes of the sform; empty if it does not.

    For sheared axes it may state the distance along them, or that of the planes which the other axes span.
    """
    ratio = (stated.sizes_mm / sform.spacing_mm)[: stated.dimensions]
    smallest = math.cos(_shear(sform)) * (1 - SAME_SIZE)
    if not ((ratio < smallest) | (ratio > 1 + SAME_SIZE)).any():  # values that are not stated match neither
        return ""
    by_sform, by_pixdim = (" x ".join(f"{size:.5g}" for size in sizes) for sizes in (sform.spacing_mm, stated.sizes_mm))
    return f"its voxels are {by_sform} mm by the sform, but {by_pixdim} mm by pixdim"


def _other_place(stated: Transforms, sform: Geometry) -> str:
    """Describe how a qform of the same code contradicts the sform; empty if it does not."""
    if stated.qform_code != stated.sform_code:
        return ""
    if stated.rotation is None:
        return "its sform is valid, but its qform is not"
    apart = _apart(stated, sform)
    if not apart or _is_shear_alone(stated, sform):
        return ""
    return f"sform and qform are both set for the same space ({_space(stated.sform_code)}), but lie {apart}"


def _disagreement(stated: Transforms, sform: Geometry) -> str:
    """Describe where other programs may place the image elsewhere, although the header does not contradict itself."""
    if not stated.qform_code:
        return ""
    if stated.rotation is None:
        return "its qform is not a rotation; the sform is used"
    apart = _apart(stated, sform)
    if not apart:
        return ""
    spaces = f"sform ({_space(stated.sform_code)}) and qform ({_space(stated.qform_code)})"
    why = ", as the sform is sheared" if _is_shear_alone(stated, sform) else ""
    return f"{spaces} disagree{why}: they lie {apart}; the sform is used"


def _passed_over(stated: Transforms) -> str:
    """Describe the sform if the qform was chosen."""
    try:
        sform = _sform(stated)
    except GeometryError:
        return "its sform is broken; the qform is used, as chosen"
    apart = _apart(stated, sform)
    return f"sform and qform disagree: they lie {apart}; the qform is used, as chosen" if apart else ""


def _apart(stated: Transforms, sform: Geometry) -> str:
    """Describe the distance of the qform from the sform; empty if rounding explains it."""
    qform = _by_rotation(stated, np.where(np.isnan(stated.sizes_mm), sform.spacing_mm, stated.sizes_mm))
    distance_mm = qform.distance_mm(sform)
    diagonal_mm = float(np.linalg.norm(sform.corners_mm[-1] - sform.corners_mm[0]))
    if distance_mm <= sform.tolerance_mm + stated.rounding * diagonal_mm:
        return ""
    ways = "" if qform.axis_codes == sform.axis_codes else f" ({sform.axis_codes} and {qform.axis_codes})"
    return f"up to {distance_mm:.3g} mm apart{ways}"


def _is_shear_alone(stated: Transforms, sform: Geometry) -> bool:
    """Return whether the qform is as close to a sheared sform as a rotation can be: no axis is turned further."""
    shear = _shear(sform)
    if stated.rotation is None or shear <= stated.rounding:
        return False
    cosines = np.clip((sform.direction * stated.rotation).sum(axis=0), -1, 1)
    turned = float(np.arccos(cosines).max())
    moved_mm = float(np.linalg.norm(stated.offset_mm - sform.affine[:3, 3]))
    return turned <= 1.01 * shear + stated.rounding and moved_mm <= sform.tolerance_mm


def _shear(geometry: Geometry) -> float:
    """Return the largest angle in radians between an axis and the normal of the other two."""
    i, j, k = geometry.direction.T
    normals = [np.cross(j, k), np.cross(k, i), np.cross(i, j)]
    cosines = [abs(axis @ normal) / np.linalg.norm(normal) for axis, normal in zip((i, j, k), normals, strict=True)]
    return math.acos(min(*cosines, 1.0))


def _space(code: int) -> str:
    return _SPACES.get(code, f"code {code}")


def _listed(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
