"""Dice of whole held-out volumes at the voxel size of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from volseg.config import Config, LabelRule
from volseg.geometry import Geometry
from volseg.inference.engines import Engine, mirrored, start
from volseg.inference.sliding import Run, sliding_window
from volseg.outputs import decide, encode, label_values, winners
from volseg.postprocess import postprocess
from volseg.preparation import PreparedCase
from volseg.progress import Progress, silent
from volseg.training.team import ALONE, Team
from volseg.volume import Mask


@dataclass(frozen=True, eq=False)
class Validation:
    """Dice of some cases.

    Attributes:
        case_ids: The cases.
        labels: Names of the labels or regions.
        dice: (cases, labels); NaN where neither the reference nor the prediction has the label, or where the reference
            does not say.
        dice_by_rule: Name of a post-processing rule -> the same after it, for the rules that were tried.
    """

    case_ids: tuple[str, ...]
    labels: tuple[str, ...]
    dice: NDArray[np.float64]
    dice_by_rule: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

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
    by_rule = {rule: np.concatenate([part.dice_by_rule[rule] for part in parts]) for rule in parts[0].dice_by_rule}
    return Validation(case_ids, parts[0].labels, np.concatenate([part.dice for part in parts]), by_rule)


def validate(
    network: nn.Module,
    cases: Sequence[PreparedCase],
    config: Config,
    dtype: torch.dtype,
    progress: Progress = silent,
    team: Team = ALONE,
    rules: Mapping[str, LabelRule] = MappingProxyType({}),
) -> Validation:
    """Segment whole volumes and compare them with their references.

    Args:
        network: What is validated; it is left in evaluation mode.
        cases: Held-out cases.
        config: Labels, patch and inference.
        dtype: Arithmetic of the network.
        progress: Told per case.
        team: Each member takes a part of the cases.
        rules: Post-processing that is tried, by name.

    Returns:
        The Dice values of all cases. A label that was missed or made up scores 0.
    """
    rows = []
    run = answering(network, config, dtype)
    own = team.deal(cases)
    for done, case in enumerate(own, start=1):
        logits = logits_of(run, case, config)
        ruled = _after_rules(logits, case, config, list(rules.values())) if rules else []
        rows.append([_dice(each, case, config) for each in (decide(logits, config.data), *ruled)])
        progress("validate", done, len(own), case.case_id)
    labels = tuple(label.name for label in config.data.output_labels)
    dice = np.array(team.collect(rows)).reshape(len(cases), 1 + len(rules), len(labels))
    by_rule = {rule: dice[:, place] for place, rule in enumerate(rules, start=1)}
    return Validation(tuple(case.case_id for case in cases), labels, dice[:, 0], by_rule)


def _after_rules(
    logits: torch.Tensor, case: PreparedCase, config: Config, rules: Sequence[LabelRule]
) -> list[torch.Tensor]:
    """What each post-processing rule leaves of the labels or regions, (labels, R, A, S) bool."""
    values = label_values(config.data)
    array = values[winners(logits.movedim(0, -1), config.data).numpy()]
    mask = Mask(array, Geometry(array.shape, np.diag([*case.spacing_mm, 1.0])), config.data.output_labels)
    ruled = [postprocess(mask, [rule]).array for rule in rules]
    return [torch.stack([torch.from_numpy(each == value) for value in values[1:]]) for each in ruled]


def answering(network: nn.Module, config: Config, dtype: torch.dtype) -> Run:
    """A network as it is now, ready to segment."""
    device = next(network.parameters()).device
    run = start(Engine.of(dtype), network, len(config.data.channels), config.patches.size, device)
    return mirrored(run, config.inference.mirror_axes)


def logits_of(run: Run, case: PreparedCase, config: Config) -> torch.Tensor:
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
