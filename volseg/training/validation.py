"""Dice of whole held-out volumes at the voxel size of the network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from volseg.config import Config, LabelRule
from volseg.image.geometry import Geometry
from volseg.image.volume import Mask
from volseg.inference.engines import Engine, mirrored, start, subtract_cutoffs
from volseg.inference.sliding import InferFn, sliding_window
from volseg.model.label_encoding import cutoffs, decide, encode, label_values, winners
from volseg.prediction.postprocess import postprocess
from volseg.progress import Progress, ignore_progress
from volseg.training.preparation import PreparedCase
from volseg.training.team import ALONE, Team


@dataclass(frozen=True)
class Trials:
    """What is tried on the answers of a network, to see what raises the Dice.

    Attributes:
        rules: Post-processing, by name.
        thresholds: Of regions, by name.
    """

    rules: Mapping[str, LabelRule] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all."""
        return (*self.rules, *self.thresholds)


NOTHING = Trials()


@dataclass(frozen=True, eq=False)
class Validation:
    """Dice of some cases.

    Attributes:
        case_ids: The cases.
        labels: Names of the labels or regions.
        dice: (cases, labels); NaN where neither the reference nor the prediction has the label, or where the reference
            does not say.
        dice_by_trial: Name of what was tried -> the same with it.
    """

    case_ids: tuple[str, ...]
    labels: tuple[str, ...]
    dice: NDArray[np.float64]
    dice_by_trial: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def per_label(self) -> NDArray[np.float64]:
        """(labels,) mean over the cases that were scored; NaN for a label that none has."""
        scored = ~np.isnan(self.dice)
        count = scored.sum(axis=0)
        total = np.where(scored, self.dice, 0.0).sum(axis=0)
        return np.divide(total, count, out=np.full(len(self.labels), np.nan), where=count > 0)

    @property
    def mean(self) -> float:
        """Mean over the labels; 0 if none was scored."""
        values = self.per_label[~np.isnan(self.per_label)]
        return float(values.mean()) if values.size else 0.0


def joined(parts: Sequence[Validation]) -> Validation:
    """The scores of several folds as one table."""
    case_ids = tuple(case_id for part in parts for case_id in part.case_ids)
    by_trial = {name: np.concatenate([part.dice_by_trial[name] for part in parts]) for name in parts[0].dice_by_trial}
    return Validation(case_ids, parts[0].labels, np.concatenate([part.dice for part in parts]), by_trial)


def validate(
    network: nn.Module,
    cases: Sequence[PreparedCase],
    config: Config,
    dtype: torch.dtype,
    progress: Progress = ignore_progress,
    team: Team = ALONE,
    trials: Trials = NOTHING,
) -> Validation:
    """Segment whole volumes and compare them with their references.

    Args:
        network: What is validated; it is left in evaluation mode.
        cases: Held-out cases.
        config: Labels, patch and inference.
        dtype: Arithmetic of the network.
        progress: Told per case.
        team: Each member takes a part of the cases.
        trials: What is tried besides.

    Returns:
        The Dice values of all cases. A label that was missed or made up scores 0.
    """
    rows = []
    run = as_infer_fn(network, config, dtype)
    own = team.deal(cases)
    for done, case in enumerate(own, start=1):
        logits = logits_of(run, case, config)
        answers = [decide(logits, config.data), *_tried(logits, case, config, trials)]
        rows.append([_dice(answer, case, config) for answer in answers])
        progress("validate", done, len(own), case.case_id)
    labels = tuple(label.name for label in config.data.output_labels)
    dice = np.array(team.collect(rows)).reshape(len(cases), 1 + len(trials.names), len(labels))
    by_trial = {name: dice[:, place] for place, name in enumerate(trials.names, start=1)}
    return Validation(tuple(case.case_id for case in cases), labels, dice[:, 0], by_trial)


def _tried(logits: torch.Tensor, case: PreparedCase, config: Config, trials: Trials) -> list[torch.Tensor]:
    """What belongs to each label or region in each trial, (labels, R, A, S) bool."""
    by_threshold = [logits > math.log(p / (1 - p)) for p in trials.thresholds.values()]
    if not trials.rules:
        return by_threshold
    values = label_values(config.data)
    array = values[winners(logits.movedim(0, -1), config.data).numpy()]
    mask = Mask(array, Geometry(array.shape, np.diag([*case.spacing_mm, 1.0])), config.data.output_labels)
    ruled = [postprocess(mask, [rule]).array for rule in trials.rules.values()]
    by_rule = [torch.stack([torch.from_numpy(each == value) for value in values[1:]]) for each in ruled]
    return by_rule + by_threshold


def seconds_to_try(trials: Trials, network: nn.Module, case: PreparedCase, config: Config, dtype: torch.dtype) -> float:
    """How long the trials on one case take, their scores included."""
    logits = logits_of(as_infer_fn(network, config, dtype), case, config)
    began = perf_counter()
    for answer in _tried(logits, case, config, trials):
        _dice(answer, case, config)
    return perf_counter() - began


def as_infer_fn(network: nn.Module, config: Config, dtype: torch.dtype) -> InferFn:
    """A network as it is now, ready to segment."""
    device = next(network.parameters()).device
    run = start(Engine.of(dtype), network, len(config.data.channels), config.patches.size, device)
    return mirrored(subtract_cutoffs(run, cutoffs(config.data)), config.inference.mirror_axes)


def logits_of(run: InferFn, case: PreparedCase, config: Config) -> torch.Tensor:
    """(outputs, R, A, S) float32 logits of a whole volume."""
    image = torch.from_numpy(np.array(case.image))
    return sliding_window(run, config.data.outputs, image, config.patches.size, config.inference.overlap)


def _dice(predicted: torch.Tensor, case: PreparedCase, config: Config) -> list[float]:
    """Dice per label or region over the voxels that the reference says something of."""
    reference = torch.from_numpy(case.reference.astype(np.int32))
    wanted = encode(reference[None, None], config.data)[0]
    wanted = wanted if config.data.regions else wanted[1:]
    if config.data.ignored_value is not None:
        predicted = predicted & (reference != config.data.ignored_value)
    values = []
    for one, other, unknown in zip(predicted, wanted, case.unknown[-len(wanted) :], strict=True):
        total = 0 if unknown else int(one.sum()) + int(other.sum())
        values.append(2 * int((one & other).sum()) / total if total else float("nan"))
    return values
