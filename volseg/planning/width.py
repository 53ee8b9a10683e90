"""How wide a network pays in the time there is: by steps that were timed on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def choose_width(configs: Mapping[int, Config], timer: StepTimer, minutes: float) -> tuple[Config, str]:
    """The widest network of which there is time for enough steps, else the narrowest.

    Args:
        configs: Features at full resolution, from the fewest -> the configuration with as many.
        timer: Times a step.
        minutes: For training the network.

    Returns:
        The configuration, and why it is this.
    """
    narrowest, *others = configs
    chosen = Width.timed(narrowest, timer(configs[narrowest]), minutes)
    too_wide = None
    for features in others:
        if chosen.steps < _LEAST_FACTOR * _STEPS_OF_A_WIDER_NETWORK:  # not worth the time of a trial
            break
        wider = Width.timed(features, timer(configs[features]), minutes)
        if wider.steps < _STEPS_OF_A_WIDER_NETWORK:
            too_wide = wider
            break
        chosen = wider
    why = (
        f"{chosen.features} features at full resolution: a step takes {chosen.seconds:.2g} s here, so that "
        f"{minutes:g} minutes are some {chosen.steps} steps"
    )
    if too_wide:
        why = f"{why}; with {too_wide.features} features they would be {too_wide.steps}, too few to make use of them"
    return configs[chosen.features], why
