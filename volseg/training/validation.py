"""Validation on whole volumes at the voxel size of the network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from volseg.config import Config, LabelRule
from volseg.image.geometry import Geometry
from volseg.image.volume import Mask
from volseg.inference.engines import Engine, start, subtract_cutoffs
from volseg.inference.mirroring import Mirroring
from volseg.inference.sliding import InferFn, sliding_window
from volseg.inference.windows import SlidingWindow, Windows, lay
from volseg.model.label_encoding import cutoffs, decide, encode, label_values, winners
from volseg.progress import Progress, ignore_progress
from volseg.training.distributed import SINGLE_PROCESS, ProcessGroup
from volseg.training.preparation import PreparedCase


@dataclass(frozen=True)
class Trials:
    """Post-processing and thresholds to try on the predictions of a network, to see which raise the Dice.

    Attributes:
        rules: Name -> post-processing of every label.
        thresholds: Name -> probability above which a voxel belongs to a region.
    """

    rules: Mapping[str, LabelRule] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all trials, in the order of their scores."""
        return (*self.rules, *self.thresholds)


NO_TRIALS = Trials()


@dataclass(frozen=True, eq=False)
class Validation:
    """The scores of some cases.

    Attributes:
        case_ids: Ids of the cases.
        labels: Names of the labels or regions.
        dice: (cases, labels) Dice; NaN if neither the reference nor the prediction has the label, or if it is not
        annotated.
        dice_by_trial: Name of a trial -> Dice with that trial applied.
        views: Number of averaged views per case, itself and its mirror images; empty if unknown.
        left_out: Validation cases that were left out for lack of time.
        accuracy: (cases,) share of the annotated voxels where every label is right; empty if unknown.
    """

    case_ids: tuple[str, ...]
    labels: tuple[str, ...]
    dice: NDArray[np.float64]
    dice_by_trial: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    views: tuple[int, ...] = ()
    left_out: tuple[str, ...] = ()
    accuracy: tuple[float, ...] = ()

    @property
    def per_label(self) -> NDArray[np.float64]:
        """(labels,) mean over the scored cases; NaN for a label that occurs in none."""
        return _per_label(self.dice)

    @property
    def mean(self) -> float:
        """Mean Dice over the labels; 0 if none was scored."""
        return _mean(self.per_label)

    @property
    def history_columns(self) -> dict[str, float]:
        """Columns of history.csv: mean Dice, IoU and accuracy, and the Dice of each label."""
        by_label = zip(self.labels, self.per_label.tolist(), strict=True)
        iou = _mean(_per_label(self.dice / (2 - self.dice)))  # IoU = Dice / (2 - Dice), for each case and label
        accuracy = {"accuracy": float(np.mean(self.accuracy))} if self.accuracy else {}
        return {"dice": self.mean, "iou": iou, **accuracy, **{f"dice_{label}": dice for label, dice in by_label}}


def _per_label(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over cases without NaN: (cases, labels) -> (labels,)."""
    scored = ~np.isnan(numbers)
    count = scored.sum(axis=0)
    total = np.where(scored, numbers, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(numbers.shape[1], np.nan), where=count > 0)


def _mean(per_label: NDArray[np.float64]) -> float:
    values = per_label[~np.isnan(per_label)]
    return float(values.mean()) if values.size else 0.0


def joined(parts: Sequence[Validation]) -> Validation:
    """Concatenate the validations of several folds."""
    case_ids = tuple(case_id for part in parts for case_id in part.case_ids)
    by_trial = {name: np.concatenate([part.dice_by_trial[name] for part in parts]) for name in parts[0].dice_by_trial}
    views = tuple(number for part in parts for number in part.views)
    left_out = tuple(case_id for part in parts for case_id in part.left_out)
    return Validation(
        case_ids, parts[0].labels, np.concatenate([part.dice for part in parts]), by_trial, views, left_out
    )


class Validator:
    """A validator, which scores networks on whole volumes.

    Args:
        config: Labels, patch and inference.
        dtype: Floating-point type of the network.
        group: Each process scores its shard of the cases.
    """

    def __init__(self, config: Config, dtype: torch.dtype, group: ProcessGroup = SINGLE_PROCESS) -> None:
        self._config = config
        self._dtype = dtype
        self._group = group

    def validate(
        self,
        network: nn.Module,
        cases: Sequence[PreparedCase],
        trials: Trials = NO_TRIALS,
        progress: Progress = ignore_progress,
    ) -> Validation:
        """Score a network.

        Args:
            network: The network, on any device.
            cases: Validation cases.
            trials: Post-processing and thresholds that are also applied and scored.
            progress: Called per case.

        Returns:
            The scores of all cases. A label that is missed or falsely predicted scores 0.
        """
        own = self._group.shard(cases)
        rows = []
        progress("validate", 0, len(own))
        for done, (case, logits) in enumerate(zip(own, self._predict(network, own), strict=True), start=1):
            rows.append(self._score(logits, case, trials))
            progress("validate", done, len(own), case.case_id)
        labels = tuple(label.name for label in self._config.data.output_labels)
        gathered = self._group.gather(rows)
        accuracy = tuple(share for _, share in gathered)
        dice = np.array([each for each, _ in gathered]).reshape(len(cases), 1 + len(trials.names), len(labels))
        by_trial = {name: dice[:, place] for place, name in enumerate(trials.names, start=1)}
        case_ids = tuple(case.case_id for case in cases)
        return Validation(case_ids, labels, dice[:, 0], by_trial, accuracy=accuracy)

    def passes(self, case: PreparedCase) -> int:
        """Return the number of network passes per window of a case, including mirror images."""
        return Mirroring.of(self._config).passes(self._windows(case))

    def logits(self, network: nn.Module, case: PreparedCase) -> torch.Tensor:
        """Compute the logits of a case, (outputs, R, A, S) float32 on the CPU."""
        return next(self._predict(network, [case]))

    def time_case(self, network: nn.Module, case: PreparedCase, trials: Trials) -> tuple[float, float]:
        """Measure the seconds that a case takes, and the seconds that trials and their scores add to it."""
        began = perf_counter()
        logits = self.logits(network, case)
        predicted = perf_counter()
        for prediction in self._apply(trials, logits, case):
            self._dice(prediction, case)
        return predicted - began, perf_counter() - predicted

    def _predict(self, network: nn.Module, cases: Sequence[PreparedCase]) -> Iterator[torch.Tensor]:
        """Yield the logits of each case: (outputs, R, A, S) float32 on the CPU."""
        data, device = self._config.data, next(network.parameters()).device
        run = start(Engine.of(self._dtype), network, len(data.channels), self._config.window, device)
        run = subtract_cutoffs(run, cutoffs(data))
        for case in cases:
            yield self._slide(run, case, device)

    def _slide(self, run: InferFn, case: PreparedCase, device: torch.device) -> torch.Tensor:
        """Run a network over a case, with the sums on the same GPU if they fit there."""
        image, inference = torch.from_numpy(np.array(case.image)), self._config.inference
        windows = self._windows(case)
        run, turns = Mirroring.of(self._config).applied(run, windows)
        slide = partial(sliding_window, run, self._config.data.outputs, image, windows, turns)
        if device.type == "cuda":
            with suppress(torch.OutOfMemoryError):  # sums of many labels may need more memory than a training step
                return slide(device, inference.batch_size)
        return slide()

    def _windows(self, case: PreparedCase) -> Windows:
        _, r, a, s = case.image.shape
        return lay((r, a, s), SlidingWindow.of(self._config))

    def _score(self, logits: torch.Tensor, case: PreparedCase, trials: Trials) -> tuple[list[list[float]], float]:
        """Return the Dice per label or region, of the unchanged prediction and of each trial; and the accuracy."""
        predictions = [decide(logits, self._config.data), *self._apply(trials, logits, case)]
        return [self._dice(prediction, case) for prediction in predictions], self._accuracy(predictions[0], case)

    def _accuracy(self, prediction: torch.Tensor, case: PreparedCase) -> float:
        """Return the share of the annotated voxels where every annotated label is right."""
        reference, target = self._wanted(case)
        annotated = ~torch.tensor(case.unknown[-len(target) :])[:, None, None, None]
        known = torch.ones_like(prediction[0])
        if self._config.data.ignored_value is not None:
            known = reference != self._config.data.ignored_value
        right = known & (prediction & annotated == target & annotated).all(dim=0)
        return int(right.sum()) / max(1, int(known.sum()))

    def _wanted(self, case: PreparedCase) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the reference: (R, A, S) label values, and (labels, R, A, S) the voxels of each label or region."""
        reference = torch.from_numpy(case.reference.astype(np.int32))
        target = encode(reference[None, None], self._config.data)[0]
        return reference, target if self._config.data.regions else target[1:]

    def _apply(self, trials: Trials, logits: torch.Tensor, case: PreparedCase) -> list[torch.Tensor]:
        """Return the prediction of each trial, (labels, R, A, S) bool: the voxels of each label or region."""
        data = self._config.data
        by_threshold = [logits > math.log(p / (1 - p)) for p in trials.thresholds.values()]
        if not trials.rules:
            return by_threshold
        from volseg.prediction.postprocess import postprocess

        values = label_values(data)
        array = values[winners(logits.movedim(0, -1), data).numpy()]
        mask = Mask(array, Geometry(array.shape, np.diag([*case.spacing_mm, 1.0])), data.output_labels)
        processed = [postprocess(mask, [rule]).array for rule in trials.rules.values()]
        by_rule = [torch.stack([torch.from_numpy(each == value) for value in values[1:]]) for each in processed]
        return by_rule + by_threshold

    def _dice(self, prediction: torch.Tensor, case: PreparedCase) -> list[float]:
        """Return the Dice per label or region over the annotated voxels; NaN if there is nothing to compare."""
        data = self._config.data
        reference, target = self._wanted(case)
        if data.ignored_value is not None:
            prediction = prediction & (reference != data.ignored_value)
        dice = []
        for one, other, unknown in zip(prediction, target, case.unknown[-len(target) :], strict=True):
            total = 0 if unknown else int(one.sum()) + int(other.sum())
            dice.append(2 * int((one & other).sum()) / total if total else float("nan"))
        return dice


def evenly_spaced(cases: Sequence[PreparedCase], count: int) -> list[PreparedCase]:
    """Return at most `count` cases, evenly spaced."""
    step = max(1.0, len(cases) / count)
    return [cases[int(n * step)] for n in range(min(count, len(cases)))]
