"""The end of a run: by its schedule, or by early stopping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from volseg.config import TrainingConfig
from volseg.training.state import State

#: In its second half, a run ends after this many consecutive validations that are worse than the best by this much. In
#: the first half, a network that learns one label may lose another for a while.
_WORSE_VALIDATIONS, _WORSE_DICE, _FROM_PROGRESS = 5, 0.02, 0.5


def is_finished(state: State, settings: TrainingConfig) -> bool:
    """Return whether a run ends here; never before its first epoch.

    Args:
        state: The state of the run between two epochs.
        settings: Steps or minutes, patience and target Dice.
    """
    if state.epoch == 0:
        return False
    out_of_patience = 0 < settings.patience <= state.stale
    on_target = settings.target_dice is not None and state.best_dice >= settings.target_dice
    progress = state.clock.progress(state.step)
    overfitting = progress >= _FROM_PROGRESS and is_overfitting(state.history)
    return progress >= 1.0 or on_target or out_of_patience or overfitting


def is_overfitting(history: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the validation Dice has stayed clearly below its best for several validations in a row."""
    dice = [row["dice"] for row in history if "dice" in row]
    return len(dice) > _WORSE_VALIDATIONS and max(dice[-_WORSE_VALIDATIONS:]) < max(dice) - _WORSE_DICE
