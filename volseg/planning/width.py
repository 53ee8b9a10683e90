"""How wide a network pays in the time there is: by steps that were timed on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from volseg.config import Config

#: The seconds that a training step takes with a configuration, measured.
StepTimer = Callable[[Config], float]

#: Of a time limit, what is left for steps beside preparation and validation.
_SHARE_OF_STEPS = 0.8
#: Steps after which twice the features had learned more in the runs compared (benchmarks/TRAINING.md).
_STEPS_OF_A_WIDER_NETWORK = 600
#: Twice the features take four times the multiplications, and at least so many times as long.
_LEAST_FACTOR = 2.5


@dataclass(frozen=True)
class Width:
    """A number of features, and what a run with it comes to.

    Attributes:
        features: At full resolution.
        seconds: Of a step.
        steps: That there is time for.
    """

    features: int
    seconds: float
    steps: int

    @classmethod
    def timed(cls, features: int, seconds: float, minutes: float) -> Width:
        """From the seconds of a step."""
        return cls(features, seconds, round(_SHARE_OF_STEPS * 60.0 * minutes / seconds))


def choose_width(
    features: Sequence[int], config_of: Callable[[int], Config], timer: StepTimer, minutes: float
) -> tuple[Width, str]:
    """The most features of which there is time for enough steps, else the fewest.

    Args:
        features: What may be chosen, from the fewest.
        config_of: The configuration with so many features.
        timer: Times a step.
        minutes: For training the network.

    Returns:
        The width, and why it is this.
    """
    chosen = Width.timed(features[0], timer(config_of(features[0])), minutes)
    wider = None
    for more in features[1:]:
        if chosen.steps < _LEAST_FACTOR * _STEPS_OF_A_WIDER_NETWORK:  # not worth the time of a trial
            break
        wider = Width.timed(more, timer(config_of(more)), minutes)
        if wider.steps < _STEPS_OF_A_WIDER_NETWORK:
            break
        chosen, wider = wider, None
    why = f"a step takes {chosen.seconds:.2g} s here, so that {minutes:g} minutes are some {chosen.steps} steps"
    if wider:
        why = f"{why}; with {wider.features} features they would be {wider.steps}, too few to make use of them"
    return chosen, why
