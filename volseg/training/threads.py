"""Choice of the fastest number of threads: all of them on an idle machine, fewer when other programs run."""

from __future__ import annotations

from collections.abc import Sequence

import torch

#: Number of steps for which each number of threads is tried; the fastest step counts, as the least disturbed one.
_TRIAL_STEPS = 2
#: Trials are repeated after this many steps, and at once when steps become slower by this factor.
_STEPS_BETWEEN_TRIALS, _SLOWER = 100, 1.5
#: Number of consecutive steps that must be slower, as a single one may have been disturbed.
_SLOW_STEPS = 3


class ThreadChoice:
    """A choice of the number of threads, which tries several during training and keeps the fastest.

    Threads share a step evenly and wait for the slowest: if another program uses a core, fewer threads may be faster.

    Args:
        numbers: Numbers of threads to try.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = numbers
        self._untried: list[int] = []
        self._seconds: dict[int, list[float]] = {}
        self._since_trial = self._slow = 0
        self._start_trial()

    @property
    def threads(self) -> int:
        """Number of threads for the next step."""
        return self._untried[0] if self._untried else self._best

    def took(self, seconds: float) -> None:
        """Record the duration of the step that was taken with `threads`."""
        if len(self._numbers) == 1:
            return
        if self._untried:
            self._seconds[self.threads].append(seconds)
            if len(self._seconds[self.threads]) == _TRIAL_STEPS:
                self._untried.pop(0)
            return
        self._since_trial += 1
        self._slow = self._slow + 1 if seconds > _SLOWER * min(self._seconds[self._best]) else 0
        if self._slow >= _SLOW_STEPS or self._since_trial >= _STEPS_BETWEEN_TRIALS:
            self._start_trial()

    @property
    def _best(self) -> int:
        return min(self._numbers, key=lambda number: min(self._seconds[number], default=0.0))

    def _start_trial(self) -> None:
        self._untried = list(self._numbers) if len(self._numbers) > 1 else []
        self._seconds = {number: [] for number in self._numbers}
        self._since_trial = self._slow = 0


def numbers_of_threads(device: torch.device) -> list[int]:
    """Return the numbers to try on a device: on a CPU all available threads, half of them, and so on down to one."""
    numbers = [torch.get_num_threads()]
    while device.type == "cpu" and numbers[-1] > 1:
        numbers.append(numbers[-1] // 2)
    return numbers


def choice_for(device: torch.device, minutes: float | None) -> ThreadChoice | None:
    """Return a choice for a CPU run with a time budget; other runs must not depend on the load of the machine."""
    if device.type != "cpu" or minutes is None:
        return None
    return ThreadChoice(numbers_of_threads(device))
