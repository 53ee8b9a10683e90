"""Rules that turn a fingerprint into a complete configuration.

The rules follow nnU-Net (Isensee et al. 2021, Nature Methods 18:203, supplementary note 2) where they concern spacing
and intensities; patch, network and batch follow from one memory budget.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.config import (
    IGNORE,
    STORED,
    Config,
    EncodedConfig,
    InferenceConfig,
    NetworkName,
    OptimizerName,
    TrainingConfig,
    validate,
)
from volseg.image.geometry import world_axis
from volseg.image.units import Units
from volseg.planning.domain import plan_domain, plan_modality
from volseg.planning.fingerprint import Fingerprint
from volseg.planning.laterality import lateral_pairs, partners
from volseg.planning.machine import CPU, Machine
from volseg.planning.plan import Plan
from volseg.planning.topology import divisor_of, plan_patch, with_features

#: An axis is coarse when its spacing exceeds the finest by more than this factor.
_ANISOTROPY = 3.0
#: Memory of training per patch voxel: activations of the first level, forward and backward, in bytes.
_BYTES_PER_VOXEL = {"unet": 2_500, "vnet": 5_000, "dynunet": 5_000, "segresnet": 4_000, "attention_unet": 4_000}
_BYTES_PER_VOXEL_OTHER = 8_000
#: Memory of each output beyond a few: logits on three levels, their probabilities, the reference, and gradients.
_BYTES_PER_OUTPUT, _FEW_OUTPUTS = 55, 8
#: Fewest patches of a step, each of which must fit into half of the memory.
_FEWEST_PATCHES = 2
#: Features of a V-Net at full resolution: the last is the paper's, the others suit slow processors.
_VNET_FEATURES = (4, 8, 16)
#: Features of encoders at full resolution: those to try, and those of the papers.
_ENCODED, _ENCODER_FEATURES = (16, 32, 64), 64
_ENCODED_NETWORKS = ("encoder_unet", "fcn", "deeplabv3plus")
#: For a run without a time limit: passes over the data, and the fewest and most steps.
_PASSES, _FEWEST_STEPS, _MOST_STEPS = 40, 2_000, 20_000
#: The best of the runs compared (benchmarks/TRAINING.md).
_LEARNING_RATE_OF_MUON = 8e-3
#: If more than this share of the labelled voxels is as dark as air, air is not skipped.
_DARK_LABELS = 0.05


def make_plan(  # noqa: PLR0913  what is decided already
    fingerprint: Fingerprint,
    network: NetworkName = "dynunet",
    machine: Machine = CPU,
    given_spacing_mm: tuple[float | None, float | None, float | None] | None = None,
    given_modality: Sequence[str] = (),
    optimizer: OptimizerName = "muon",
    most_voxels: float = math.inf,
    given_axes: str | None = None,
    *,
    planes: bool = False,
    neighbors: int = 0,
) -> Plan:
    """Plan every setting.

    Args:
        fingerprint: Of the data.
        network: The network.
        machine: Resources for training.
        given_spacing_mm: The voxel size, if already decided; volumes keep their own along axes where it is None.
        given_modality: Of each channel or of all, if already decided.
        optimizer: The optimiser.
        most_voxels: Limit for a patch, if there is no time for more.
        given_axes: Directions of the network's axes, if already decided.
        planes: Whether volumes are learned slice by slice.
        neighbors: Number of neighbouring slices on either side that networks of slices see (2.5D).

    Returns:
        The plan.

    Raises:
        DataError: If the cases differ in modality and none was given.
    """
    modalities, modality_reason = plan_modality(fingerprint, given_modality)
    axes, axes_reason = (given_axes, "given") if given_axes else _plan_axes(fingerprint, planes=planes)
    order = [world_axis(letter) for letter in axes] if axes != STORED else [0, 1, 2]
    spacing_mm, spacing_reason = _plan_spacing(fingerprint, order)
    if planes:  # slices are not resampled
        given_spacing_mm = given_spacing_mm or (None, *spacing_mm[1:])
    if fingerprint.unit == "px":
        given_spacing_mm = given_spacing_mm or (None, None, None)
    if given_spacing_mm:
        r, a, s = (
            planned if given is None else given for given, planned in zip(given_spacing_mm, spacing_mm, strict=True)
        )
        spacing_mm = (r, a, s)
        spacing_reason = "given" if fingerprint.unit == "mm" else "pictures are not resampled"
    shape = np.median((fingerprint.shapes * fingerprint.spacings_mm)[:, order] / spacing_mm, axis=0)
    outputs = len(fingerprint.regions) or len(fingerprint.labels) + 1
    fitting = machine.memory_gb * 1e9 / _FEWEST_PATCHES / _voxel_bytes(network, outputs)
    voxels = min(fitting, most_voxels)
    seen = np.array([1.0, *shape[1:]]) if planes else shape
    # Slices at the ends of a patch have no neighbours there: it holds as many others.
    thickness = 4 * neighbors if neighbors else 1
    patch, topology = plan_patch(seen, spacing_mm, network, voxels / thickness, _usual_features(network, machine))
    if neighbors:
        patch, topology = (thickness, *patch[1:]), {**topology, "neighbors": neighbors}
    batch = int(np.clip(_FEWEST_PATCHES * fitting // math.prod(patch), _FEWEST_PATCHES, machine.most_patches))
    steps, length_reason = _plan_steps(len(fingerprint.cases), shape, patch, batch)
    slices = f"; {_thick_slices(spacing_mm)}" if not planes and max(spacing_mm) > _ANISOTROPY * min(spacing_mm) else ""
    normalizations = [_plan_normalization(fingerprint, channel, word) for channel, word in enumerate(modalities)]
    flips, swaps, flip_reason = _plan_flips(fingerprint)
    mirrors, mirror_reason = _plan_mirrors(flips)
    air, air_reason = _plan_air(fingerprint, [entry for entry, _ in normalizations])
    tree: dict[str, Any] = {
        "data": {**_plan_data(fingerprint), "modality": modalities, "unit": fingerprint.unit},
        "preprocessing": {
            "axes": axes,
            "spacing_mm": given_spacing_mm or spacing_mm,
            "normalization": [entry for entry, _ in normalizations],
        },
        "patches": {"size": patch, "planes": planes},
        "network": topology,
        "augmentation": {"flip_axes": flips, "swap_labels": swaps},
        "training": {
            "batch_size": batch,
            "optimizer": optimizer,
            "learning_rate": _LEARNING_RATE_OF_MUON if optimizer == "muon" else TrainingConfig().learning_rate,
            "default_steps": steps,
            "workers": machine.workers,
        },
        "inference": {"air": air, "mirror_axes": mirrors},
        "domain": plan_domain(fingerprint),
    }
    median = " x ".join(f"{size:.0f}" for size in shape)
    reasons = {
        "data.modality": modality_reason,
        "data.labels": f"{len(fingerprint.cases)} cases; volumes: {_volumes(fingerprint)}",
        "preprocessing.axes": axes_reason,
        "preprocessing.spacing_mm": spacing_reason,
        "preprocessing.normalization": "; ".join(reason for _, reason in normalizations),
        "patches.size": f"the median volume is {median} voxels at this spacing; "
        + (f"{machine.memory_gb:g} GB allow" if voxels == fitting else "there is time for enough steps of")
        + f" {voxels:.2g} voxels in each of two patches; sides are divisible by {divisor_of(topology)}{slices}",
        "network.filters": _usual_width(network, machine),
        "network": "an axis is halved while it keeps at least 4 voxels and is not coarser than the others",
        "augmentation.flip_axes": flip_reason,
        "inference.air": air_reason,
        "inference.mirror_axes": mirror_reason,
        "training.batch_size": f"as many patches as fit, from {_FEWEST_PATCHES} to {machine.most_patches}; on a CPU "
        "time is better spent on more steps with few of them (benchmarks/TRAINING.md)",
        "training.optimizer": "reached the same Dice sooner than AdamW in the runs compared (benchmarks/TRAINING.md)",
        "training.learning_rate": "the best of those compared (benchmarks/TRAINING.md)",
        "training.default_steps": length_reason,
        "training.workers": "threads that make patches: one, and a GPU leaves them the other cores",
        "postprocess": "null: training chooses what raises the validation Dice of each label; [] means none",
        "domain": "the range of the cases; predict refuses images clearly outside (--allow-mismatch overrides this)",
    }
    return Plan(validate(tree, "the plan"), reasons)


def by_width(config: Config, machine: Machine) -> dict[int, Config]:
    """Return features at full resolution, ascending -> configuration with as many, as far as memory allows."""
    network = config.network.model_dump(mode="json")
    usual = _usual_features(config.network.name, machine)
    tree = config.model_dump(mode="json")
    if isinstance(config.network, EncodedConfig) and config.network.encoder.weights is None:
        shares = {features: {**network["encoder"], "width": features / _ENCODER_FEATURES} for features in _ENCODED}
        encoded = {each: {**tree, "network": {**network, "encoder": encoder}} for each, encoder in shares.items()}
        return {features: validate(each, "the plan") for features, each in encoded.items()}
    if "filters" not in network or isinstance(config.network, EncodedConfig):
        return {usual: config}
    fitting: Sequence[int] = _VNET_FEATURES
    if config.network.name != "vnet":
        voxel_bytes = _voxel_bytes(config.network.name, config.data.outputs)
        fitting = machine.features_that_fit(config.training.batch_size * math.prod(config.patches.size), voxel_bytes)
    trees = {features: {**tree, "network": with_features(network, features)} for features in fitting}
    return {features: validate(each, "the plan") for features, each in trees.items()}


def _usual_features(network: NetworkName, machine: Machine) -> int:
    """Return the default features at full resolution, without a time limit."""
    if network in _ENCODED_NETWORKS:
        return _ENCODER_FEATURES
    return _VNET_FEATURES[-1] if network == "vnet" else machine.features


def _voxel_bytes(network: NetworkName, outputs: int) -> float:
    """Return the training memory per voxel of all patches, with the default features."""
    voxel_bytes = _BYTES_PER_VOXEL.get(network, _BYTES_PER_VOXEL_OTHER)
    return voxel_bytes + _BYTES_PER_OUTPUT * max(0, outputs - _FEW_OUTPUTS)


def _plan_steps(cases: int, shape: NDArray[np.float64], patch: Sequence[int], batch: int) -> tuple[int, str]:
    """Return the steps of a run without a time limit, and the reason."""
    patches = cases * max(1.0, math.prod(shape) / math.prod(patch))
    steps = int(np.clip(_PASSES * patches / batch, _FEWEST_STEPS, _MOST_STEPS))
    rounded = math.ceil(steps / 50) * 50
    return rounded, (
        f"without a limit, {_PASSES} times as many patches as cover all {cases} cases, "
        f"but from {_FEWEST_STEPS} to {_MOST_STEPS} steps"
    )


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


def _thick_slices(spacing_mm: Sequence[float]) -> str:
    return (
        f"slices are {max(spacing_mm) / min(spacing_mm):.2g} times as thick as pixels: "
        "`volseg train --compare 2d,2.5d,3d` finds out whether they are better learned one by one"
    )


def _plan_axes(fingerprint: Fingerprint, *, planes: bool) -> tuple[str, str]:
    """Choose the network's axis order: a kernel of 1 x 3 x 3 is twice as fast as one of 3 x 3 x 1."""
    if fingerprint.is_flat:
        return "SPL", "a picture as it is looked at: one slice, its rows from the top, its columns from the left"
    if planes:
        across = int(np.median(fingerprint.spacings_mm, axis=0).argmax())
        first, second, third = "RAS"[across], *("RAS"[n] for n in range(3) if n != across)
        return first + second + third, "slice after slice: the first axis runs across them"
    return "RAS", "towards the patient's right, front and head"


def _plan_spacing(fingerprint: Fingerprint, order: Sequence[int]) -> tuple[tuple[float, float, float], str]:
    spacings = fingerprint.spacings_mm[:, order]
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
    nonzero = fingerprint.unit == "mm"  # black is a colour in pictures, but the unscanned area in scans
    entry = {"method": "zscore", "nonzero": nonzero}
    return entry, f"{name} has no fixed unit: each volume by its own mean and deviation"


def _plan_air(fingerprint: Fingerprint, normalizations: Sequence[Mapping[str, Any]]) -> tuple[float | None, str]:
    """Choose whether regions as dark as air may be skipped: not if labels are that dark."""
    if fingerprint.unit == "px":
        return None, "everything is computed: black is a colour in pictures, not air"
    share = InferenceConfig().air or 0.0
    dark = []
    for channel, normalization in enumerate(normalizations):
        if normalization["method"] == "ct":  # its range begins at the values of labels
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
        return [], [], f"none: {', '.join(alone)} states a side and has no partner to swap with"
    if pairs:
        # Mirrored, a body has its liver on the left: the network would lose the cue that tells the sides apart.
        return (
            [],
            pairs,
            f"none: {pairs[0][0]} and others state a side; if you add left-right, swap_labels keeps sides correct",
        )
    if fingerprint.unit == "px":
        return ["j", "k"], [], "pictures may be taken from any side; keep to [k] where up is always up"
    if nameless := partners(fingerprint.labels, fingerprint.cases):
        left, right = nameless[0]
        others = " (and others)" if len(nameless) > 1 else ""
        why = f"{left} and {right}{others} lie like a left and a right structure, which mirroring would confuse"
        return [], [], f"none: {why}; name them in data.labels, as in kidney_left and kidney_right"
    return ["left-right"], [], "no label states a side; up and down, front and back look different in a patient"


def _plan_mirrors(flips: Sequence[str]) -> tuple[list[str], str]:
    """Choose the axes along which to mirror for prediction."""
    if not flips:
        return [], "none: training does not mirror"
    return list(flips), "as in training; it costs nothing where a case is several windows, which then take turns"


def _volumes(fingerprint: Fingerprint) -> str:
    parts, units = [], Units.of(fingerprint.unit)
    for name, value in fingerprint.labels.items():
        if name == IGNORE:
            continue
        volumes = [case.label_ml[value] for case in fingerprint.cases if value in case.label_ml]
        shown = f"median {units.said(float(np.median(volumes)))} in {len(volumes)}" if volumes else "in no case"
        parts.append(f"{name} {shown}")
    return ", ".join(parts)


def _usual_width(network: NetworkName, machine: Machine) -> str:
    width = f"{_usual_features(network, machine)} features at full resolution"
    return f"{width}, as in the paper" if network == "vnet" else f"{width}, which learn most in little time"
