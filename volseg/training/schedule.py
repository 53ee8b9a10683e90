"""The schedule of training: its progress in steps or minutes, and the learning rate that follows from it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from volseg.config import TrainingConfig

#: A run with a time budget is divided into this many epochs.
_EPOCHS_OF_A_BUDGET = 40
#: Share of a time budget that validation may take while training.
_VALIDATION_SHARE = 0.08
#: Share of a time budget that the final validation may take, and by how much it may miss that at the end.
_FINAL_SHARE, _FINAL_SLACK = 0.1, 0.03
#: Largest share of a time budget that is kept for the validation of the last epoch and the final one.
_LARGEST_RESERVE = 0.5
#: Share of the time that saving checkpoints may take.
_SAVING_SHARE = 0.03
#: Validations of a run without a time budget.
_VALIDATIONS = 20
#: Largest share of a run that warm-up takes.
_WARMUP_SHARE = 0.1


@dataclass(frozen=True)
class FinalValidation:
    """How the best model of a run is scored at its end.

    Attributes:
        cases: How many of the held-out cases.
        views: Of each, itself and its mirror images.
        seconds: What it is expected to take.
    """

    cases: int
    views: int
    seconds: float

    @classmethod
    def within(
        cls, allowed_seconds: float, cases: int, seconds_by_views: Mapping[int, float], trial_seconds: float
    ) -> FinalValidation:
        """All cases in all views if there is time, else in one view, else as many cases as there is time for.

        Args:
            allowed_seconds: What it may take.
            cases: All held-out cases.
            seconds_by_views: Numbers of views, the largest first -> duration of a case in so many.
            trial_seconds: What the trials add to each case.
        """
        for views, seconds in seconds_by_views.items():
            each = seconds + trial_seconds
            if each * cases <= allowed_seconds:
                return cls(cases, views, each * cases)
        fitting = max(1, int(allowed_seconds / each))
        return cls(fitting, views, each * fitting)


@dataclass
class Clock:
    """Time spent and time left.

    Attributes:
        config: Epochs and minutes.
        spent_seconds: Duration of earlier, interrupted parts of the run.
        validation_seconds: Spent on validation so far.
        saving_seconds: Spent on saving checkpoints so far.
        view_seconds: Duration of the last validation per case and view; 0 until it is measured.
        trial_seconds: Duration of the trials on one validation case; 0 until it is measured.
        reserve_seconds: Kept for the final validation.
        reached: The largest progress so far; progress by time would fall when the reserve does.
        warm_from: Progress at the first step of the run: preparation takes a part of the time.
        started: `time.monotonic` at the start of this part.
        broadcast: Replaces a number by that of the leader, so that the clocks of all processes show the same time.
        elapsed_seconds: Time of the whole run up to the last `sample`.
        origin: Seconds and steps of the run when this part took its first one.
    """

    config: TrainingConfig
    spent_seconds: float = 0.0
    validation_seconds: float = 0.0
    saving_seconds: float = 0.0
    view_seconds: float = 0.0
    trial_seconds: float = 0.0
    reserve_seconds: float = 0.0
    reached: float = 0.0
    warm_from: float = 0.0
    started: float = field(default_factory=time.monotonic)
    broadcast: Callable[[float], float] = float
    elapsed_seconds: float = field(init=False)
    origin: tuple[float, int] = (0.0, 0)

    def __post_init__(self) -> None:
        self.sample()

    def sample(self) -> None:
        """Read the time, in all processes at once; it stands still until the next reading.

        What follows from the time is then the same in every process.
        """
        self.elapsed_seconds = self.broadcast(self.spent_seconds + time.monotonic() - self.started)

    @property
    def _budget_seconds(self) -> float:
        whole = (self.config.minutes or 0.0) * 60.0
        return whole - min(self.reserve_seconds, _LARGEST_RESERVE * whole)

    @property
    def final_seconds(self) -> float:
        """What the final validation may take: a share of the time, unless all held-out cases are asked for."""
        if self.config.minutes is None or self.config.validate_all:
            return math.inf
        return _FINAL_SHARE * 60.0 * self.config.minutes

    @property
    def final_seconds_left(self) -> float:
        """What it may take when it begins."""
        if math.isinf(self.final_seconds):
            return math.inf
        whole = 60.0 * (self.config.minutes or 0.0)
        return whole * (1 + _FINAL_SLACK) - self.elapsed_seconds

    def progress(self, step: int) -> float:
        """The finished share of training after `step` steps, from 0 to 1; it never goes back."""
        by_steps = step / self.config.steps if self.config.steps is not None else 0.0
        by_time = self.elapsed_seconds / self._budget_seconds if self.config.minutes is not None else 0.0
        self.reached = min(max(by_steps, by_time, self.reached), 1.0)
        return self.reached

    def start_steps(self, step: int) -> None:
        """Note the time of the first step of this part: steps per second are measured from there."""
        self.origin = (self.elapsed_seconds, step)
        if step == 0:
            self.warm_from = self.progress(step)

    def seconds_left(self, step: int) -> float:
        """Estimate the time until the run is finished, the final validation included."""
        left = [60.0 * self.config.minutes - self.elapsed_seconds] if self.config.minutes is not None else []
        if self.config.steps is not None:
            seconds, first = self.origin
            rate = (self.elapsed_seconds - seconds) / max(1, step - first)
            left.append(rate * (self.config.steps - step) + self.reserve_seconds)
        return max(0.0, min(left))

    def epoch_is_over(self, step: int, epoch_step: int, epoch_began: float) -> bool:
        """Whether an epoch ends here: after its steps, or its part of the time.

        Args:
            step: Steps of the run so far.
            epoch_step: Steps of this epoch so far.
            epoch_began: `elapsed_seconds` at its start.
        """
        if self.progress(step) >= 1.0:
            return True
        if self.config.minutes is None:
            return epoch_step >= self.config.steps_per_epoch
        return self.elapsed_seconds - epoch_began >= self._budget_seconds / _EPOCHS_OF_A_BUDGET

    def saving_is_due(self) -> bool:
        """Whether the state should be saved after this epoch: always, unless saving takes too much of the time.

        A run that is resumed from an earlier epoch repeats the later ones exactly, so this changes no result.
        """
        return self.saving_seconds <= _SAVING_SHARE * self.elapsed_seconds

    def validation_is_due(self, epoch: int) -> bool:
        """Whether epoch number `epoch`, from 1, ends with a validation."""
        if self.config.validation_interval:
            return epoch % self.config.validation_interval == 0
        if self.config.minutes is None and self.config.steps is not None:
            return epoch % max(1, self.config.steps // self.config.steps_per_epoch // _VALIDATIONS) == 0
        return self.validation_seconds <= _VALIDATION_SHARE * self.elapsed_seconds


def learning_rate(config: TrainingConfig, step: int, progress: float, warm_from: float = 0.0) -> float:
    """The learning rate of a step: linear warm-up, then half a cosine or (1 - progress)^0.9.

    Args:
        config: Peak, warm-up and shape.
        step: Steps so far.
        progress: Finished share of training.
        warm_from: The share that was finished before the first step.

    Returns:
        The learning rate.
    """
    warmup = 1.0
    if config.warmup_steps:
        by_share = (progress - warm_from) / (_WARMUP_SHARE * (1.0 - warm_from)) if warm_from < 1.0 else 1.0
        warmup = min(1.0, max((step + 1) / config.warmup_steps, by_share))
    match config.schedule:
        case "cosine":
            decay = 0.5 * (1.0 + math.cos(math.pi * progress))
        case "poly":
            decay = (1.0 - progress) ** 0.9
    return config.learning_rate * warmup * decay
