"""From what a data set looks like to a complete configuration.

The rules follow nnU-Net (Isensee et al. 2021, Nature Methods 18:203, supplementary note 2) where they concern spacing
and intensities; patch, network and batch follow from one memory budget.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from volseg.config import IGNORE, Config, InferenceConfig, NetworkName, TrainingConfig, validate
from volseg.planning.domain import plan_domain, plan_modality
from volseg.planning.fingerprint import Fingerprint
from volseg.planning.laterality import lateral_pairs, partners
from volseg.planning.machine import CPU, Machine
from volseg.planning.plan import Plan
from volseg.planning.topology import divisor_of, plan_patch, with_features
from volseg.planning.width import StepTimer, choose_width

#: An axis is coarse when its spacing exceeds the finest by more than this factor.
_ANISOTROPY = 3.0
#: Memory of training per patch voxel: activations of the first level, forward and backward, in bytes.
_BYTES_PER_VOXEL = {"unet": 2_500, "vnet": 5_000, "dynunet": 5_000, "segresnet": 4_000, "attention_unet": 4_000}
_BYTES_PER_VOXEL_OTHER = 8_000
#: Of each output beyond a few: logits on three levels, their probabilities, the reference, and their gradients.
_BYTES_PER_OUTPUT, _FEW_OUTPUTS = 55, 8
_LARGEST_BATCH = 4
#: Of a V-Net at full resolution: the paper's last, and what a slow processor has time for.
_VNET_FEATURES = (4, 8, 16)
#: V-Net answers from as many features as there are outputs: its few last weights have far to go.
_LEARNING_RATE = {"vnet": 5e-3}
#: Labels of which more than this share is as dark as air may be air.
_DARK_LABELS = 0.05


def make_plan(
    fingerprint: Fingerprint,
    network: NetworkName = "dynunet",
    machine: Machine = CPU,
    given_spacing_mm: tuple[float, float, float] | None = None,
    minutes: float | None = None,
    given_modality: Sequence[str] = (),
    timer: StepTimer | None = None,
) -> Plan:
    """Decide everything.

    Args:
        fingerprint: Of the data.
        network: Which network.
        machine: What training will run on.
        given_spacing_mm: The voxel size, if it is decided already.
        minutes: For training one network, if that is limited.
        given_modality: Of each channel or of all, if it is decided already.
        timer: Times a step of a network; without it, or without a limit, the usual width is taken.

    Returns:
        The plan.

    Raises:
        DataError: If the cases are not all of one modality, and nobody said what they are.
    """
    modalities, modality_reason = plan_modality(fingerprint, given_modality)
    spacing_mm, spacing_reason = (given_spacing_mm, "given") if given_spacing_mm else _plan_spacing(fingerprint)
    shape = np.median(fingerprint.shapes * fingerprint.spacings_mm / spacing_mm, axis=0)
    outputs = len(fingerprint.regions) or len(fingerprint.labels) + 1
    voxel_bytes = _BYTES_PER_VOXEL.get(network, _BYTES_PER_VOXEL_OTHER)
    voxel_bytes += _BYTES_PER_OUTPUT * max(0, outputs - _FEW_OUTPUTS)
    voxels = machine.memory_gb * 1e9 / 2 / voxel_bytes
    usual = _VNET_FEATURES[-1] if network == "vnet" else machine.features
    patch, topology = plan_patch(shape, spacing_mm, network, voxels, usual)
    batch = int(np.clip(2 * voxels // math.prod(patch), 2, _LARGEST_BATCH))
    normalizations = [_plan_normalization(fingerprint, channel, word) for channel, word in enumerate(modalities)]
    flips, swaps, flip_reason = _plan_flips(fingerprint)
    mirrors, mirror_reason = _plan_mirrors(flips)
    air, air_reason = _plan_air(fingerprint, [entry for entry, _ in normalizations])
    tree: dict[str, Any] = {
        "data": {**_plan_data(fingerprint), "modality": modalities},
        "preprocessing": {"spacing_mm": spacing_mm, "normalization": [entry for entry, _ in normalizations]},
        "patches": {"size": patch},
        "network": topology,
        "augmentation": {"flip_axes": flips, "swap_labels": swaps},
        "training": {
            "batch_size": batch,
            "learning_rate": _LEARNING_RATE.get(network, TrainingConfig().learning_rate),
            "workers": machine.workers,
        },
        "inference": {"air": air, "mirror_axes": mirrors},
        "domain": plan_domain(fingerprint),
    }
    config, width = validate(tree, "the plan"), _usual_width(network, usual)
    if minutes and timer and "filters" in topology:
        fitting = machine.features_that_fit(batch * math.prod(patch), voxel_bytes)
        configs = _by_width(tree, _VNET_FEATURES if network == "vnet" else fitting)
        config, width = choose_width(configs, timer, minutes)
    median = " x ".join(f"{size:.0f}" for size in shape)
    reasons = {
        "data.modality": modality_reason,
        "data.labels": f"{len(fingerprint.cases)} cases; volumes: {_volumes(fingerprint)}",
        "preprocessing.spacing_mm": spacing_reason,
        "preprocessing.normalization": "; ".join(reason for _, reason in normalizations),
        "patches.size": f"the median volume is {median} voxels at this spacing; {machine.memory_gb:g} GB allow "
        f"{voxels:.2g} voxels in each of two patches; the network divides by {divisor_of(topology)}",
        "network": f"{width}; an axis is halved while it keeps at least 4 voxels and is not coarser than the others",
        "augmentation.flip_axes": flip_reason,
        "inference.air": air_reason,
        "inference.mirror_axes": mirror_reason,
        "training.batch_size": f"as many patches as fit, from 2 to {_LARGEST_BATCH}",
        "training.optimizer": "in the runs compared it came to a Dice sooner than AdamW (benchmarks/TRAINING.md)",
        "training.learning_rate": "larger for V-Net, whose few last weights have far to go",
        "training.workers": "threads that make patches: one, and a GPU leaves them the other cores",
        "postprocess": "null: training chooses for each label what raises the Dice of held-out cases; [] is none",
        "domain": "what the cases span; predict refuses images clearly outside (--allow-mismatch lifts it)",
    }
    return Plan(config, reasons)


def _plan_data(fingerprint: Fingerprint) -> dict[str, Any]:
    # A later region is painted over an earlier one: the order is from the outermost to the innermost.
    regions = sorted(fingerprint.regions.items(), key=lambda item: -len(item[1]))
    return {
        "channels": fingerprint.channels,
        "labels": dict(fingerprint.labels),
        "regions": [
            {"name": name, "labels": labels, "value": value} for value, (name, labels) in enumerate(regions, start=1)
        ],
    }


def _plan_spacing(fingerprint: Fingerprint) -> tuple[tuple[float, float, float], str]:
    spacings = fingerprint.spacings_mm
    target = np.median(spacings, axis=0)
    coarsest = int(target.argmax())
    reason = "the median voxel size"
    if target[coarsest] / target.min() > _ANISOTROPY:
        target[coarsest] = max(np.percentile(spacings[:, coarsest], 10), np.delete(target, coarsest).max())
        reason += "; along the coarse axis its 10th percentile, so that fine cases keep their detail"
    r, a, s = (float(f"{size:.4g}") for size in target)
    return (r, a, s), reason


def _plan_normalization(fingerprint: Fingerprint, channel: int, modality: str) -> tuple[dict[str, Any], str]:
    name = fingerprint.channels[channel]
    if modality == "CT":
        values = np.concatenate([case.values[channel] for case in fingerprint.cases])
        values = values[np.isfinite(values)]
        low, high = np.percentile(values, [0.5, 99.5])
        if high > low:
            clipped = np.clip(values, low, high)
            numbers = {"low": low, "high": high, "mean": clipped.mean(), "std": clipped.std()}
            entry = {"method": "ct", **{key: round(float(value), 2) for key, value in numbers.items()}}
            return entry, f"{name} is CT: percentiles 0.5 and 99.5, mean and deviation of all labelled voxels"
    return {"method": "zscore", "nonzero": True}, f"{name} has no fixed unit: each volume by its own mean and deviation"


def _plan_air(fingerprint: Fingerprint, normalizations: Sequence[Mapping[str, Any]]) -> tuple[float | None, str]:
    """Whether what is as dark as air may be passed over: not where labels are that dark."""
    share = InferenceConfig().air or 0.0
    dark = []
    for channel, normalization in enumerate(normalizations):
        if normalization["method"] == "ct":  # its range begins where labels do
            continue
        for case in (case for case in fingerprint.cases if case.values[channel].size):
            seen = case.intensities[channel]
            limit = seen.low + share * (seen.high - seen.low)
            dark.append(float((case.values[channel] <= limit).mean()))
    if max(dark, default=0.0) > _DARK_LABELS:
        return None, f"everything is computed: {max(dark):.0%} of a case's labelled voxels are as dark as air"
    return share, "patches of nothing but air are not computed; no label is that dark"


def _plan_flips(fingerprint: Fingerprint) -> tuple[list[str], list[tuple[str, str]], str]:
    pairs, alone = lateral_pairs(list(fingerprint.labels))
    if alone:
        return [], [], f"none: {', '.join(alone)} states a side and has no partner to change places with"
    if pairs:
        # Mirrored, a body has its liver on the left: the network would lose the cue that tells the sides apart.
        return (
            [],
            pairs,
            f"none: {pairs[0][0]} and others state a side; should you add left-right, swap_labels keeps it true",
        )
    if nameless := partners(fingerprint.labels, fingerprint.cases):
        left, right = nameless[0]
        others = " (and others)" if len(nameless) > 1 else ""
        why = f"{left} and {right}{others} lie like a left and a right structure, which mirroring would confuse"
        return [], [], f"none: {why}; name them in data.labels, as in kidney_left and kidney_right"
    return ["left-right"], [], "no label states a side; up and down, front and back look different in a patient"


def _plan_mirrors(flips: Sequence[str]) -> tuple[list[str], str]:
    """Along which axes cases are segmented mirrored, too."""
    if not flips:
        return [], "none: training does not mirror"
    return list(flips), "as in training; it costs nothing where a case is several windows, which then take turns"


def _volumes(fingerprint: Fingerprint) -> str:
    parts = []
    for name, value in fingerprint.labels.items():
        if name == IGNORE:
            continue
        volumes = [case.label_ml[value] for case in fingerprint.cases if value in case.label_ml]
        shown = f"median {np.median(volumes):.3g} ml in {len(volumes)}" if volumes else "in no case"
        parts.append(f"{name} {shown}")
    return ", ".join(parts)


def _by_width(tree: Mapping[str, Any], widths: Sequence[int]) -> dict[int, Config]:
    """Features at full resolution -> the configuration with as many."""
    trees = {features: {**tree, "network": with_features(tree["network"], features)} for features in widths}
    return {features: validate(each, "the plan") for features, each in trees.items()}


def _usual_width(network: NetworkName, features: int) -> str:
    match network:
        case "vnet":
            return f"{features} features at full resolution, as in the paper"
        case "dynunet" | "plain_unet" | "residual_encoder_unet":
            return f"{features} features at full resolution, which learn most in little time"
        case _:
            return "chosen"
