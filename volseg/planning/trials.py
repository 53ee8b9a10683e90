"""Timed trials: which network to train in the available time, and how to compute it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from volseg.config import Config
from volseg.planning.plan import Plan

#: The seconds that a training step takes with a configuration, measured.
StepTimer = Callable[[Config], float]

#: Share of a run that its steps take, beside preparation and validation.
_SHARE_OF_STEPS = 0.8
#: Limits of trials: a share of the time limit, and a number of seconds.
_SHARE_OF_TRIALS, _LONGEST_TRIALS = 0.03, 20.0
#: Steps after which twice the features had learned more in the runs compared (benchmarks/TRAINING.md).
_STEPS_OF_A_WIDER_NETWORK = 1_200
#: With fewer steps than this, more steps of smaller patches gave better results; and the smallest patches tried.
_STEPS_OF_LARGE_PATCHES, FEWEST_VOXELS = 500, 100_000
#: Doubling the features takes four times the multiplications, and at least this many times as long.
_LEAST_FACTOR, _FACTOR = 2.5, 4.0
#: An alternative computation must be faster by this factor: smaller differences may be noise of a busy machine.
_WORTHWHILE = 1.05
#: With fewer steps networks learned next to nothing; with the second number they were useful (benchmarks/TRAINING.md).
_LEAST_STEPS, _USEFUL_STEPS = 100, 200

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """A configuration with a timed step.

    Attributes:
        config: Complete.
        seconds: Of a step.
        steps: Steps that fit into the available time.
        reasons: Key -> why it has its value.
    """

    config: Config
    seconds: float
    steps: int
    reasons: Mapping[str, str] = field(default_factory=dict)


class Trials:
    """Times configurations, within a limit on the total time.

    Args:
        timer: Times a step.
        minutes: For training the network.
    """

    def __init__(self, timer: StepTimer, minutes: float) -> None:
        self._timer = timer
        self._minutes = minutes
        self._end = time.monotonic() + min(_SHARE_OF_TRIALS * 60.0 * minutes, _LONGEST_TRIALS)
        self._longest = 0.0

    def run(self, config: Config) -> Trial:
        """Time a step."""
        began = time.monotonic()
        seconds = self._timer(config)
        self._longest = max(self._longest, time.monotonic() - began)
        return Trial(config, seconds, round(_SHARE_OF_STEPS * 60.0 * self._minutes / seconds))

    def has_time(self, factor: float = 1.0) -> bool:
        """Return whether there is time for a trial that takes `factor` times as long as the longest one so far."""
        return time.monotonic() + factor * self._longest <= self._end


def fit_to_time(
    plan: Plan,
    widths: Mapping[int, Config],
    alternatives: Sequence[tuple[str, str]],
    timer: StepTimer,
    minutes: float,
) -> Plan:
    """Choose how to compute a step, then the widest network that has time for enough steps.

    Args:
        plan: With the default network.
        widths: Features at full resolution, ascending -> configuration with as many.
        alternatives: Keys of `training` and values that may make a step faster.
        timer: Times a step.
        minutes: For training the network.

    Returns:
        The plan with the best choices that there was time to try.
    """
    (features, narrowest), *others = widths.items()
    trials = Trials(timer, minutes)
    best = trials.run(narrowest)
    for key, value in alternatives:
        if trials.has_time():
            best = _faster(best, trials.run(_with(best.config, {key: value})), key, value)
    computed = {key: getattr(best.config.training, key) for key, _ in alternatives}
    too_wide = ""
    for wider, config in others:
        if best.steps < _LEAST_FACTOR * _STEPS_OF_A_WIDER_NETWORK or not trials.has_time(_FACTOR):
            break
        trial = trials.run(_with(config, computed))
        if trial.steps < _STEPS_OF_A_WIDER_NETWORK:
            too_wide = f"; with {wider} they would be {trial.steps}, too few to make use of them"
            break
        features, best = wider, replace(trial, reasons=best.reasons)
    told = f"{minutes:g} min allow about {best.steps} steps of {best.seconds:.2g} s here"
    if best.steps < _LEAST_STEPS:
        needed = _minutes(_USEFUL_STEPS, best.seconds)
        logger.warning("%s, too few to learn from: allow %s or more", told, needed)
    reasons = {**plan.reasons, **best.reasons, "network": f"{told}; {plan.reasons['network']}"}
    if others:
        reasons["network.filters"] = f"{features} features at full resolution, as many as there is time for{too_wide}"
    return replace(plan, config=best.config, reasons=reasons, outlook=told)


def warn_of_few_steps(config: Config, timer: StepTimer) -> None:
    """Warn if the minutes of a complete configuration, which is not planned for them, are too few for its network.

    Args:
        config: The configuration; without a time limit, or with a number of epochs, nothing is timed.
        timer: Times a step.
    """
    minutes = config.training.minutes
    if minutes is None or config.training.epochs is not None:
        return
    found = Trials(timer, minutes).run(config)
    if found.steps < _LEAST_STEPS:
        logger.warning(
            "%g min allow about %d steps of %.2g s here, too few to learn from: allow %s or more, or plan for the same "
            "minutes",
            *(minutes, found.steps, found.seconds, _minutes(_USEFUL_STEPS, found.seconds)),
        )


def voxels_in_time(config: Config, timer: StepTimer, minutes: float) -> float:
    """Return the number of voxels a patch may have so that there is time for enough steps.

    Args:
        config: With small patches, of which a step is timed; the time is proportional to their voxels.
        timer: Times a step.
        minutes: For training the network.
    """
    seconds = _SHARE_OF_STEPS * 60.0 * minutes / _STEPS_OF_LARGE_PATCHES
    return max(FEWEST_VOXELS, math.prod(config.patches.size) * seconds / timer(config))


def tell_time(plan: Plan, steps: int, timer: StepTimer) -> Plan:
    """Add to a plan how long training takes without a time limit.

    Args:
        plan: With the network.
        steps: Of its training.
        timer: Times a step.
    """
    seconds = timer(plan.config)
    return replace(plan, outlook=f"{steps} steps of {seconds:.2g} s take some {_minutes(steps, seconds)} here")


def _faster(trial: Trial, other: Trial, key: str, value: str) -> Trial:
    """Return the faster trial, and the reason."""
    better = other.seconds * _WORTHWHILE < trial.seconds
    usual = getattr(trial.config.training, key)
    why = f"a step takes {trial.seconds:.2g} s here; with {value} instead of {usual}, {other.seconds:.2g} s"
    return replace(other if better else trial, reasons={**trial.reasons, f"training.{key}": why})


def _with(config: Config, changes: Mapping[str, str]) -> Config:
    """Return a configuration whose training is computed in another way."""
    return config.model_copy(update={"training": config.training.model_copy(update=changes)})


def _minutes(steps: int, seconds: float) -> str:
    """Format how long a run of so many steps takes."""
    minutes = steps * seconds / _SHARE_OF_STEPS / 60
    return f"{minutes:.2g} min" if minutes < 90 else f"{minutes / 60:.2g} h"
