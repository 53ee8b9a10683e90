"""The tasks of TotalSegmentator 2: the models of each, and the part of a volume they see."""

from __future__ import annotations

from dataclasses import dataclass

from volseg.errors import CheckpointError

Spacing = tuple[float, float, float]

_OPEN = "Apache-2.0"
_LICENSED = "free for non-commercial use alone, with a licence of TotalSegmentator; see its web page"
_LUNGS = (
    "lung_upper_lobe_left",
    "lung_lower_lobe_left",
    "lung_upper_lobe_right",
    "lung_middle_lobe_right",
    "lung_lower_lobe_right",
)
_NECK = ("clavicula_left", "clavicula_right", "vertebrae_C1", "vertebrae_C5", "vertebrae_T1", "vertebrae_T4")


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        datasets: Numbers of the models whose masks are painted one over the other, in this order.
        spacing_mm: Voxel size to which volumes are resampled, along R, A, S; None leaves that to the models' own plans.
        configuration: Of the plan.
        coarse: The task that finds the region of interest; empty if the models see whole volumes.
        inside: Labels of that task that make up the region of interest.
        step: Distance of neighbouring windows, as a share of a window.
        licence: Of the weights.
        margin_mm: Around the region of interest.
    """

    datasets: tuple[int, ...]
    spacing_mm: Spacing | None = None
    configuration: str = "3d_fullres"
    coarse: str = ""
    inside: tuple[str, ...] = ()
    step: float = 0.5
    licence: str = _OPEN
    margin_mm: float = 20.0


def _cube(size_mm: float) -> Spacing:
    return size_mm, size_mm, size_mm


def _total(*datasets: int, spacing_mm: float) -> Task:
    return Task(datasets, _cube(spacing_mm), step=0.8)


def _within(dataset: int, inside: tuple[str, ...], spacing_mm: Spacing | None, configuration: str = "3d_fullres",
            coarse: str = "total_fastest", licence: str = _OPEN) -> Task:  # fmt: skip
    return Task((dataset,), spacing_mm, configuration, coarse, inside, licence=licence)


_HIGH = "3d_fullres_high"
_TASKS = {
    "total": _total(291, 292, 293, 294, 295, spacing_mm=1.5),
    "total_fast": _total(297, spacing_mm=3.0),
    "total_fastest": _total(298, spacing_mm=6.0),
    "total_v3": _total(831, 832, 833, 834, 835, spacing_mm=1.5),
    "total_v3_fast": _total(836, spacing_mm=3.0),
    "total_v3_fastest": _total(837, spacing_mm=6.0),
    "total_mr": _total(850, 851, spacing_mm=1.5),
    "total_mr_fast": _total(852, spacing_mm=3.0),
    "total_mr_fastest": _total(853, spacing_mm=6.0),
    "vertebrae_mr": Task((756,), _cube(1.5)),
    "vertebrae_body": Task((305,), _cube(1.5)),
    "breasts": Task((527,), _cube(1.5)),
    "trunk_cavities": Task((343,), _cube(1.5)),
    "brain_aneurysm": Task((615,), (0.390625, 0.390625, 0.5000016391277313)),
    "lung_vessels": _within(117, _LUNGS, (0.703125, 0.703125, 1.0), coarse="total_fast"),
    "lung_nodules": _within(913, _LUNGS, _cube(1.5)),
    "pleural_pericard_effusion": _within(315, _LUNGS, None),
    "cerebral_bleed": _within(150, ("brain",), None),
    "ventricle_parts": _within(552, ("brain",), (0.4384765625, 0.4345703125, 1.0)),
    "hip_implant": _within(260, ("femur_left", "femur_right", "hip_left", "hip_right"), None),
    "liver_vessels": _within(8, ("liver",), None),
    "liver_segments": _within(570, ("liver",), (0.8046879768371582, 0.8046879768371582, 1.5)),
    "liver_lesions": _within(591, ("liver",), (0.75, 0.75, 1.0), _HIGH, "total_fast"),
    "liver_segments_mr": _within(576, ("liver",), (1.1250001788139343, 1.1875, 3.0), coarse="total_mr_fast"),
    "liver_lesions_mr": _within(589, ("liver",), (0.8603515625, 0.857421875, 1.0), coarse="total_mr_fast"),
    "kidney_cysts": _within(789, ("kidney_left", "kidney_right", "liver", "spleen", "colon"), _cube(1.5)),
    "head_glands_cavities": _within(775, ("skull",), (0.75, 0.75, 1.0), _HIGH),
    "head_muscles": _within(777, ("skull",), (0.75, 0.75, 1.0), _HIGH),
    "headneck_bones_vessels": _within(776, _NECK, (0.75, 0.75, 1.0), _HIGH),
    "headneck_muscles": Task((778, 779), (0.75, 0.75, 1.0), _HIGH, "total_fastest", _NECK),
    "oculomotor_muscles": _within(351, ("skull",), (0.47251562774181366, 0.47251562774181366, 0.8500002026557922)),
    "craniofacial_structures": _within(115, ("skull",), _cube(0.5)),
    "tissue_types": Task((481,), _cube(1.5), licence=_LICENSED),
    "tissue_types_mr": Task((925,), _cube(1.5), licence=_LICENSED),
    "tissue_4_types": Task((485,), _cube(1.5), licence=_LICENSED),
    "face": Task((303,), _cube(1.5), licence=_LICENSED),
    "face_mr": Task((856,), _cube(1.5), licence=_LICENSED),
    "thigh_shoulder_muscles": Task((857,), _cube(1.5), licence=_LICENSED),
    "renal_arteries": Task((710,), _cube(1.5), licence=_LICENSED),
    "brain_structures": _within(409, ("brain",), (0.5, 0.5, 1.0), _HIGH, licence=_LICENSED),
    "coronary_arteries": _within(509, ("heart",), _cube(0.7), _HIGH, licence=_LICENSED),
    "aortic_sinuses": _within(920, ("heart",), _cube(0.7), _HIGH, licence=_LICENSED),
}
#: Tasks that need more: extra steps after the network, or a preceding task made of parts.
_OTHERS = {
    "abdominal_muscles",
    "aorta_annulus",
    "aortic_dissection",
    "appendicular_bones",
    "appendicular_bones_mr",
    "body",
    "body_mr",
    "coronary_arteries_LEGACY",
    "heartchambers_highres",
    "lung_vessels_LEGACY",
    "pulmonary_artery_landmarks",
    "teeth",
    "vertebrae_pp",
    "vertebrae_pp_refined",
}


def find_task(name: str) -> Task:
    """Find a task by name.

    Raises:
        CheckpointError: If there is none, or it consists of more than its models.
    """
    if name in _TASKS:
        return _TASKS[name]
    known = f"there are: {', '.join(_TASKS)}"
    if name in _OTHERS:
        raise CheckpointError(f"task {name} needs steps beyond its models, which volseg does not support", hint=known)
    raise CheckpointError(f"there is no task {name!r}", hint=known)
