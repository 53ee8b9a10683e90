"""Dice of whole held-out volumes at the voxel size of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from volseg.config import Config
from volseg.outputs import activate, decide, encode
from volseg.patches import sliding_window
from volseg.preparation import PreparedCase
from volseg.progress import Progress, silent


@dataclass(frozen=True, eq=False)
class Validation:
    """Dice of some cases.

    Attributes:
        case_ids: The cases.
        labels: Names of the labels or regions.
        dice: (cases, labels); NaN where neither the reference nor the prediction has the label.
    """

    case_ids: tuple[str, ...]
    labels: tuple[str, ...]
    dice: NDArray[np.float64]

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


def validate(
    network: nn.Module,
    cases: Sequence[PreparedCase],
    config: Config,
    dtype: torch.dtype,
    progress: Progress = silent,
) -> Validation:
    """Segment whole volumes and compare them with their references.

    Args:
        network: What is validated; it is left in evaluation mode.
        cases: Held-out cases.
        config: Labels, patch and inference.
        dtype: Arithmetic of the network.
        progress: Told per case.

    Returns:
        The Dice values. A label that was missed or made up scores 0.
    """
    rows = []
    for done, case in enumerate(cases, start=1):
        image = torch.from_numpy(np.array(case.image))
        logits = sliding_window(network, image, config.patches.size, config.inference, dtype)
        rows.append(_dice(decide(activate(logits, config.data), config.data), case, config))
        progress("validate", done, len(cases), case.case_id)
    labels = tuple(label.name for label in config.data.output_labels)
    return Validation(tuple(case.case_id for case in cases), labels, np.array(rows).reshape(len(cases), len(labels)))


def _dice(predicted: torch.Tensor, case: PreparedCase, config: Config) -> list[float]:
    reference = torch.from_numpy(case.reference.astype(np.int32))[None, None]
    wanted = encode(reference, config.data)[0]
    wanted = wanted if config.data.regions else wanted[1:]
    values = []
    for one, other in zip(predicted, wanted, strict=True):
        total = int(one.sum()) + int(other.sum())
        values.append(2 * int((one & other).sum()) / total if total else float("nan"))
    return values
