"""The training schedule: progress by steps or minutes, and the learning rate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from volseg.config import TrainingConfig

#: A run with a time budget is divided into this many epochs.
_EPOCHS_OF_A_BUDGET = 40
#: Share of a time budget that validation may take during training.
_VALIDATION_SHARE = 0.08
#: Share of a time budget that a single validation during training may take.
_SINGLE_VALIDATION_SHARE = 0.1
#: Share of a time budget that the final validation may take, and by how much the run may exceed its budget for it.
_FINAL_SHARE, _FINAL_SLACK = 0.1, 0.03
#: Largest share of a time budget that is reserved for the validation of the last epoch and the final one.
_LARGEST_RESERVE = 0.5
#: Share of the time that saving checkpoints may take.
_SAVING_SHARE = 0.03
#: Number of validations in a run without a time budget.
_VALIDATIONS = 20
#: Largest share of a run that warm-up takes.
_WARMUP_SHARE = 0.1


@dataclass(frozen=True)
class FinalValidation:
    """The extent of the final validation of a run.

    Attributes:
        cases: Number of validation cases.
        views: Number of views of each: the case itself and its mirror images.
        seconds: Expected duration.
    """

    cases: int
    views: int
    seconds: float

    def compared_with(self, whole: FinalValidation) -> str:
        """Return "3 of 12 cases", "1 of 8 mirrored views" or both, whichever are fewer than in a whole validation."""
        cases = f"{self.cases} of {whole.cases} cases" if self.cases < whole.cases else ""
        views = f"{self.views} of {whole.views} mirrored views" if self.views < whole.views else ""
        return " and ".join(filter(None, (cases, views)))

    @classmethod
    def within(
        cls, allowed_seconds: float, cases: int, seconds_by_views: Mapping[int, float], trial_seconds: float
    ) -> FinalValidation:
        """Plan all cases in all views if there is time, else in one view, else as many cases as there is time for.

        Args:
            allowed_seconds: Longest duration.
            cases: Number of all validation cases.
            seconds_by_views: Number of views, the largest first -> duration of a case with that many views.
            trial_seconds: Additional duration of the trials per case.
        """
        for views, seconds in seconds_by_views.items():
            each = seconds + trial_seconds
            if each * cases <= allowed_seconds:
                return cls(cases, views, each * cases)
        fitting = max(1, int(allowed_seconds / each))
        return cls(fitting, views, each * fitting)


@dataclass
class Clock:
    """The clock of a run: time spent, time left, and what is due.

    Attributes:
        config: Epochs and minutes.
        spent_seconds: Duration of earlier, interrupted parts of the run.
        validation_seconds: Time spent on validation so far.
        validated_cases: Number of cases scored in each validation during training; 0 until it is chosen.
        saving_seconds: Time spent on saving checkpoints so far.
        view_seconds: Duration of the last validation per case and view; 0 until it is measured.
        trial_seconds: Duration of the trials on one validation case; 0 until it is measured.
        reserve_seconds: Time reserved for the final validation.
        reached: The largest progress so far, since progress by time would fall when the reserve grows.
        warm_from: Progress at the first step of the run, since preparation takes a part of the time.
        started: `time.monotonic` at the start of this part.
        broadcast: Replaces a number by the leader's, so that the clocks of all processes show the same time.
        elapsed_seconds: Time of the whole run up to the last `sample`.
        origin: Seconds and steps of the run when this part took its first step.
    """

    config: TrainingConfig
    spent_seconds: float = 0.0
    validation_seconds: float = 0.0
    validated_cases: int = 0
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
        """Read the time, in all processes at once; it stays the same until the next reading.

        Decisions that depend on the time are then the same in every process.
        """
        self.elapsed_seconds = self.broadcast(self.spent_seconds + time.monotonic() - self.started)

    @property
    def _budget_seconds(self) -> float:
        whole = (self.config.minutes or 0.0) * 60.0
        return whole - min(self.reserve_seconds, _LARGEST_RESERVE * whole)

    def cases_in_time(self, cases: int, case_seconds: float) -> int:
        """Return how many of `cases` cases, of `case_seconds` each, a validation during training can score in time."""
        if self.config.minutes is None:
            return cases
        fitting = int(_SINGLE_VALIDATION_SHARE * 60.0 * self.config.minutes / max(case_seconds, 1e-3))
        return max(1, min(cases, fitting))

    @property
    def final_seconds(self) -> float:
        """Time for the final validation: a share of the budget, unless all validation cases are requested."""
        if self.config.minutes is None or self.config.validate_all:
            return math.inf
        return _FINAL_SHARE * 60.0 * self.config.minutes

    @property
    def final_seconds_left(self) -> float:
        """Time that is left for the final validation when it begins."""
        if math.isinf(self.final_seconds):
            return math.inf
        whole = 60.0 * (self.config.minutes or 0.0)
        return whole * (1 + _FINAL_SLACK) - self.elapsed_seconds

    def progress(self, step: int) -> float:
        """Return the finished share of training after `step` steps, from 0 to 1; it never decreases."""
        by_steps = step / self.config.steps if self.config.steps is not None else 0.0
        by_time = self.elapsed_seconds / self._budget_seconds if self.config.minutes is not None else 0.0
        self.reached = min(max(by_steps, by_time, self.reached), 1.0)
        return self.reached

    def start_steps(self, step: int) -> None:
        """Record the time of the first step of this part, from which steps per second are measured."""
        self.origin = (self.elapsed_seconds, step)
        if step == 0:
            self.warm_from = self.progress(step)

    def seconds_left(self, step: int) -> float:
        """Estimate the time until the run is finished, including the final validation."""
        left = [60.0 * self.config.minutes - self.elapsed_seconds] if self.config.minutes is not None else []
        if self.config.steps is not None:
            seconds, first = self.origin
            rate = (self.elapsed_seconds - seconds) / max(1, step - first)
            left.append(rate * (self.config.steps - step) + self.reserve_seconds)
        return max(0.0, min(left))

    def epoch_is_over(self, step: int, epoch_step: int, epoch_began: float) -> bool:
        """Return whether an epoch ends here: after its steps, or its share of the time.

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
        """Return whether to save the state after this epoch: always, unless saving takes too much of the time.

        A run that is resumed from an earlier epoch repeats the later ones exactly, so no result changes.
        """
        return self.saving_seconds <= _SAVING_SHARE * self.elapsed_seconds

    def validation_is_due(self, epoch: int) -> bool:
        """Return whether epoch number `epoch`, from 1, ends with a validation."""
        if self.config.validation_interval:
            return epoch % self.config.validation_interval == 0
        if self.config.minutes is None and self.config.steps is not None:
            return epoch % max(1, self.config.steps // self.config.steps_per_epoch // _VALIDATIONS) == 0
        return self.validation_seconds <= _VALIDATION_SHARE * self.elapsed_seconds


def learning_rate(config: TrainingConfig, step: int, progress: float, warm_from: float = 0.0) -> float:
    """Compute the learning rate of a step: linear warm-up, then half a cosine or (1 - progress)^0.9.

    Args:
        config: Peak learning rate, warm-up and shape.
        step: Number of steps so far.
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
