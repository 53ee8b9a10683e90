"""Advice for a run that learned next to nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from volseg.training.validation import Validation

#: A label with a lower validation Dice counts as not found.
_POOR_DICE = 0.1
#: A run with a higher Dice has learned, whatever its loss did: it may have started from trained weights.
_GOOD_DICE = 0.5
#: The loss has not fallen if its last epochs are above this share of the first one.
_HARDLY_FALLEN = 0.97
#: No network learns in fewer steps; with fewer than the second number, a poor one is most likely to gain from more.
_FEW_STEPS, _MORE_STEPS = 100, 500


def advise(validation: Validation, histories: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """Return a warning, with advice, if a run learned next to nothing.

    Args:
        validation: Scores of all its networks.
        histories: The rows of history.csv for each network.

    Returns:
        A sentence or two; empty if the run has learned.
    """
    steps = min(int(history[-1]["step"]) for history in histories)
    dice = zip(validation.labels, validation.per_label.tolist(), strict=True)
    missed = [name for name, value in dice if value < _POOR_DICE]
    if validation.mean < _POOR_DICE:
        problem = "the network learned next to nothing"
    elif missed:
        problem = f"the network finds almost nothing of {', '.join(missed)}"
    elif validation.mean < _GOOD_DICE and not all(map(_loss_fell, histories)):
        problem = "the loss did not fall"
    elif validation.mean < _GOOD_DICE and steps < _MORE_STEPS:
        problem = "the network has only begun to learn"
    else:
        return ""
    told = f"{'only ' * (steps < _FEW_STEPS)}{steps} step{'s' * (steps != 1)}"
    fewer_folds = ", or one fold instead of all" if len(histories) > 1 else ""
    return (
        f"{problem}: validation Dice {validation.mean:.3f} after {told}. Train longer (--minutes, --epochs)"
        f"{fewer_folds}, and check that the labels lie on their images (`volseg show DATA`)"
    )


def _loss_fell(history: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the last fifth of the epochs has a lower loss than the first; true for a single epoch."""
    losses = [float(row["loss"]) for row in history]
    last = losses[-max(1, len(losses) // 5) :]
    return len(losses) < 2 or fmean(last) < _HARDLY_FALLEN * losses[0]
