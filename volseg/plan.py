"""From what a data set looks like to a complete configuration.

The rules follow nnU-Net (Isensee et al. 2021, Nature Methods 18:203, supplementary note 2) where they concern spacing
and intensities; patch, network and batch follow from one memory budget.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from volseg.cases import Case, Dataset, read_images, read_reference
from volseg.config import IGNORE, Config, InferenceConfig, NetworkConfig, NetworkName, validate
from volseg.errors import DataError
from volseg.io import SeriesSource
from volseg.networks import patch_divisor
from volseg.parallel import side_by_side
from volseg.progress import Progress, silent
from volseg.volume import Label

logger = logging.getLogger(__name__)

_NETWORK: TypeAdapter[NetworkConfig] = TypeAdapter(NetworkConfig)
#: Voxels per label and case whose intensities enter the statistics.
_SAMPLES = 5_000
#: An axis is coarse when its spacing exceeds the finest by more than this factor.
_ANISOTROPY = 3.0
#: Memory of training per patch voxel: activations of the first level, forward and backward, in bytes.
_BYTES_PER_VOXEL = {"unet": 2_500, "vnet": 5_000, "dynunet": 5_000, "segresnet": 4_000, "attention_unet": 4_000}
_BYTES_PER_VOXEL_OTHER = 8_000
_LARGEST_BATCH = 4
_SMALLEST_FEATURE_MAP = 4
_LARGEST_WIDTH = 320
#: Padding an axis by more than this share costs more than what cutting it off loses.
_WASTE = 0.25
#: Up to so many patches a case, being segmented twice is a small price.
_FEW_PATCHES = 8
#: Labels of which more than this share is as dark as air may be air.
_DARK_LABELS = 0.05

_LEFT = {"left", "l", "lt", "lh", "sinister", "sin"}
_RIGHT = {"right", "r", "rt", "rh", "dexter", "dex"}


@dataclass(frozen=True, eq=False)
class CasePrint:
    """What one case looks like, axes in R, A, S order.

    Attributes:
        shape: Voxels.
        spacing_mm: Voxel size.
        modalities: Per channel "CT", "MR" or empty, as the file states it.
        low: The 0.5th percentile of each channel.
        high: The 99th.
        values: (C, N) intensities of a sample of labelled voxels.
        label_ml: Label value -> volume in millilitres.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    modalities: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    values: NDArray[np.float32]
    label_ml: Mapping[int, float]


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What a data set looks like.

    Attributes:
        channels: Channel names.
        labels: Label name -> value.
        regions: Region name -> label values; empty if there are none.
        cases: One entry per readable case.
    """

    channels: tuple[str, ...]
    labels: Mapping[str, int]
    regions: Mapping[str, tuple[int, ...]]
    cases: tuple[CasePrint, ...]

    @property
    def spacings_mm(self) -> NDArray[np.float64]:
        """(N, 3) voxel sizes."""
        return np.array([case.spacing_mm for case in self.cases])

    @property
    def shapes(self) -> NDArray[np.int64]:
        """(N, 3) voxels."""
        return np.array([case.shape for case in self.cases])


@dataclass(frozen=True)
class Plan:
    """A planned configuration.

    Attributes:
        config: Complete and valid.
        reasons: Key path -> why it has its value, for the comments of the written file.
    """

    config: Config
    reasons: Mapping[str, str]


def take_fingerprint(
    dataset: Dataset, labels: Mapping[str, int] | None = None, progress: Progress = silent
) -> Fingerprint:
    """Look at every case once.

    Args:
        dataset: Labelled cases.
        labels: Name -> value where it is already decided; otherwise as the data set states it, else as found.
        progress: Told per case.

    Returns:
        The fingerprint of all cases that can be read; the others are logged.

    Raises:
        DataError: If none can be read.
        ConfigError: If a reference holds a value that is not among the labels.
    """
    labels = dict(labels or dataset.labels)
    known = tuple(Label(value, name) for name, value in labels.items())
    prints: list[CasePrint] = []
    looks = side_by_side(lambda case: _attempt(case, dataset.channels, known), dataset.cases)
    for done, (case, look) in enumerate(zip(dataset.cases, looks, strict=True), start=1):
        if isinstance(look, CasePrint):
            prints.append(look)
        else:
            logger.warning("case %s is left out of the plan: %s", case.case_id, look)
        progress("look", done, len(dataset.cases), case.case_id)
    if not prints:
        raise DataError("no case could be read")
    found = sorted({value for case in prints for value in case.label_ml})
    if not found:
        raise DataError("all references are empty, there is nothing to learn")
    return Fingerprint(
        dataset.channels, labels or {f"label_{value}": value for value in found}, dataset.regions, tuple(prints)
    )


def make_plan(
    fingerprint: Fingerprint,
    network: NetworkName = "unet",
    memory_gb: float = 4.0,
    given_spacing_mm: tuple[float, float, float] | None = None,
) -> Plan:
    """Decide everything.

    Args:
        fingerprint: Of the data.
        network: Which network.
        memory_gb: What a training step may take.
        given_spacing_mm: The voxel size, if it is decided already.

    Returns:
        The plan.
    """
    spacing_mm, spacing_reason = (given_spacing_mm, "given") if given_spacing_mm else _plan_spacing(fingerprint)
    shape = np.median(fingerprint.shapes * fingerprint.spacings_mm / spacing_mm, axis=0)
    voxels = memory_gb * 1e9 / 2 / _BYTES_PER_VOXEL.get(network, _BYTES_PER_VOXEL_OTHER)
    patch, topology = _plan_patch(shape, spacing_mm, network, voxels)
    batch = int(np.clip(2 * voxels // math.prod(patch), 2, _LARGEST_BATCH))
    normalizations = [_plan_normalization(fingerprint, channel) for channel in range(len(fingerprint.channels))]
    flips, swaps, flip_reason = _plan_flips(list(fingerprint.labels))
    mirrors, mirror_reason = _plan_mirrors(flips, shape, patch)
    air, air_reason = _plan_air(fingerprint, [entry for entry, _ in normalizations])
    tree: dict[str, Any] = {
        "data": _plan_data(fingerprint),
        "preprocessing": {"spacing_mm": spacing_mm, "normalization": [entry for entry, _ in normalizations]},
        "patches": {"size": patch},
        "network": topology,
        "augmentation": {"flip_axes": flips, "swap_labels": swaps},
        "training": {"batch_size": batch},
        "inference": {"air": air, "mirror_axes": mirrors},
    }
    median = " x ".join(f"{size:.0f}" for size in shape)
    reasons = {
        "data.labels": f"{len(fingerprint.cases)} cases; volumes: {_volumes(fingerprint)}",
        "preprocessing.spacing_mm": spacing_reason,
        "preprocessing.normalization": "; ".join(reason for _, reason in normalizations),
        "patches.size": f"the median volume is {median} voxels at this spacing; {memory_gb:g} GB allow "
        f"{voxels:.2g} voxels in each of two patches; the network divides by {_divisor(topology)}",
        "network": "an axis is halved while it keeps at least 4 voxels and is not coarser than the others",
        "augmentation.flip_axes": flip_reason,
        "inference.air": air_reason,
        "inference.mirror_axes": mirror_reason,
        "training.batch_size": f"as many patches as fit, from 2 to {_LARGEST_BATCH}",
        "postprocess": "null: training chooses for each label what raises the Dice of held-out cases; [] is none",
    }
    return Plan(validate(tree, "the plan"), reasons)


def lateral_pairs(names: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Find labels that name a side.

    Args:
        names: Label names.

    Returns:
        Pairs of (left, right) names that differ in the side alone, and names that state a side but have no partner.
    """
    sided = {name: side for name in names if (side := _side(name))}
    keys = {(_sideless(name), side): name for name, side in sided.items()}
    pairs = [
        (name, keys[_sideless(name), "right"])
        for name, side in sided.items()
        if side == "left" and (_sideless(name), "right") in keys
    ]
    paired = {name for pair in pairs for name in pair}
    return pairs, [name for name in sided if name not in paired]


def _attempt(case: Case, channels: tuple[str, ...], labels: tuple[Label, ...]) -> CasePrint | DataError:
    try:
        return _look_at(case, channels, labels)
    except DataError as error:
        return error


def _look_at(case: Case, channels: tuple[str, ...], labels: tuple[Label, ...]) -> CasePrint:
    image = read_images(case, channels)
    mask = read_reference(case, image, labels)
    geometry = image.geometry.reordered(image.geometry.to_canonical)
    ignored = [label.value for label in labels if label.name == IGNORE]
    taught = mask.array * ~np.isin(mask.array, ignored) if ignored else mask.array
    values, counts = np.unique(taught, return_counts=True)
    inside = np.flatnonzero(taught)
    chosen = np.random.default_rng(0).choice(inside, min(_SAMPLES, len(inside)), replace=False)
    sources = [case.images[channel] for channel in channels]
    finite = np.where(np.isfinite(image.array), image.array, np.nan).reshape(len(channels), -1)
    low, high = np.nanpercentile(finite[:, :: max(1, finite.shape[1] // 100_000)], [0.5, 99], axis=1).tolist()
    return CasePrint(
        shape=geometry.shape,
        spacing_mm=geometry.spacing_mm,
        modalities=tuple(source.traits.modality if isinstance(source, SeriesSource) else "" for source in sources),
        low=tuple(low),
        high=tuple(high),
        values=finite[:, chosen],
        label_ml={
            int(value): float(count) * geometry.voxel_volume_ml
            for value, count in zip(values, counts, strict=True)
            if value
        },
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


def _plan_normalization(fingerprint: Fingerprint, channel: int) -> tuple[dict[str, Any], str]:
    name = fingerprint.channels[channel]
    stated = name.lower() == "ct" or {case.modalities[channel] for case in fingerprint.cases} == {"CT"}
    # Air is -1000 in CT; MR and PET have no values far below zero.
    if stated or np.median([case.low[channel] for case in fingerprint.cases]) < -200:
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
        for case in fingerprint.cases:
            limit = case.low[channel] + share * (case.high[channel] - case.low[channel])
            dark.append(float((case.values[channel] <= limit).mean()))
    if max(dark, default=0.0) > _DARK_LABELS:
        return None, f"everything is computed: {max(dark):.0%} of a case's labelled voxels are as dark as air"
    return share, "patches of nothing but air are not computed; no label is that dark"


def _plan_patch(
    shape: NDArray[np.float64], spacing_mm: tuple[float, float, float], network: NetworkName, voxels: float
) -> tuple[tuple[int, int, int], dict[str, Any]]:
    """The largest patch up to the median volume that the budget allows, and the network that fits it."""
    size = np.maximum(shape, _SMALLEST_FEATURE_MAP)
    while True:
        topology = _topology(network, size, spacing_mm)
        r, a, s = (_round_to(length, step) for length, step in zip(size, _divisor(topology), strict=True))
        if r * a * s <= voxels or size.max() <= _SMALLEST_FEATURE_MAP:
            return _more_than_one_voxel((r, a, s), _divisor(topology), size), topology
        longest = int(np.where(size > _SMALLEST_FEATURE_MAP, size * spacing_mm, 0).argmax())
        size = size.copy()
        size[longest] = max(size[longest] * 0.95, _SMALLEST_FEATURE_MAP)


def _more_than_one_voxel(
    patch: tuple[int, int, int], divisor: tuple[int, int, int], size: NDArray[np.float64]
) -> tuple[int, int, int]:
    """Double the longest side where the deepest level would hold one voxel, which no layer can normalise."""
    if patch != divisor or divisor == (1, 1, 1):
        return patch
    longest = int(size.argmax())
    r, a, s = (2 * side if axis == longest else side for axis, side in enumerate(patch))
    return r, a, s


def _topology(
    network: NetworkName, size: NDArray[np.float64], spacing_mm: tuple[float, float, float]
) -> dict[str, Any]:
    match network:
        case "unet":
            strides = _strides(size, spacing_mm)
            return {"name": network, "strides": strides, "channels": _widths(len(strides) + 1)}
        case "dynunet":
            strides = _strides(size, spacing_mm)
            strides += [(1, 1, 1)] * (2 - len(strides))  # MONAI's takes no fewer
            return {"name": network, "strides": strides, "filters": _widths(len(strides) + 1)}
        case _:
            return {"name": network}


def _strides(size: NDArray[np.float64], spacing_mm: tuple[float, float, float]) -> list[tuple[int, int, int]]:
    """Halve an axis while enough voxels remain, coarse axes only once the fine ones have caught up."""
    remaining, spacing = size.copy(), np.asarray(spacing_mm)
    strides: list[tuple[int, int, int]] = []
    while len(strides) < 5:
        fine = spacing < 2 * spacing.min()
        r, a, s = np.where((remaining / 2 >= _SMALLEST_FEATURE_MAP) & fine, 2, 1).tolist()
        if r * a * s == 1:
            break
        strides.append((r, a, s))
        remaining, spacing = remaining / (r, a, s), spacing * (r, a, s)
    return strides or [(1, 1, 1)]


def _widths(levels: int) -> list[int]:
    return [min(32 * 2**level, _LARGEST_WIDTH) for level in range(levels)]


def _divisor(topology: Mapping[str, Any]) -> tuple[int, int, int]:
    return patch_divisor(_NETWORK.validate_python(topology))


def _round_to(length: float, step: int) -> int:
    """Up to a multiple of `step` where that pads little, else down; never below one step."""
    up = math.ceil(round(length, 3) / step) * step
    return up if up <= length * (1 + _WASTE) else max(up - step, step)


def _plan_flips(names: Sequence[str]) -> tuple[list[str], list[tuple[str, str]], str]:
    pairs, alone = lateral_pairs(names)
    if alone:
        return [], [], f"none: {', '.join(alone)} states a side and has no partner to change places with"
    if pairs:
        # Mirrored, a body has its liver on the left: the network would lose the cue that tells the sides apart.
        return (
            [],
            pairs,
            f"none: {pairs[0][0]} and others state a side; should you add left-right, swap_labels keeps it true",
        )
    return ["left-right"], [], "no label states a side; up and down, front and back look different in a patient"


def _plan_mirrors(
    flips: Sequence[str], shape: NDArray[np.float64], patch: tuple[int, int, int]
) -> tuple[list[str], str]:
    """Whether cases are segmented mirrored, too, which takes as long again."""
    patches = math.prod(math.ceil(length / size) for length, size in zip(shape, patch, strict=True))
    if not flips:
        return [], "none: training does not mirror"
    if patches > _FEW_PATCHES:
        return [], f"none: it would double the time, and a case is {patches} patches"
    return list(flips), f"as in training; averaging both views costs little where a case is {patches} patches or fewer"


def _side(name: str) -> str:
    words = set(_words(name))
    if words & _LEFT and not words & _RIGHT:
        return "left"
    return "right" if words & _RIGHT and not words & _LEFT else ""


def _sideless(name: str) -> tuple[str, ...]:
    return tuple(word for word in _words(name) if word not in _LEFT | _RIGHT)


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def _volumes(fingerprint: Fingerprint) -> str:
    parts = []
    for name, value in fingerprint.labels.items():
        if name == IGNORE:
            continue
        volumes = [case.label_ml[value] for case in fingerprint.cases if value in case.label_ml]
        shown = f"median {np.median(volumes):.3g} ml in {len(volumes)}" if volumes else "in no case"
        parts.append(f"{name} {shown}")
    return ", ".join(parts)
