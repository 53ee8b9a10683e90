"""How many threads a step is fastest with: all of them on a quiet machine, fewer where other programs run, too."""

from __future__ import annotations

from collections.abc import Sequence

import torch

#: Steps that each number of threads is tried for; the fastest of them counts, which nothing disturbed.
_TRIAL_STEPS = 2
#: The numbers are tried again after so many steps, and at once when steps become so much slower.
_STEPS_BETWEEN_TRIALS, _SLOWER = 100, 1.5
#: Steps in a row that must be slower: one may have been disturbed.
_SLOW_STEPS = 3


class ThreadChoice:
    """Tries out numbers of threads while steps are taken, and keeps the fastest.

    Threads share a step evenly and wait for the last of them: where another program takes a core, that one is late, and
    fewer threads may be done sooner.

    Args:
        numbers: Those to try.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = numbers
        self._untried: list[int] = []
        self._seconds: dict[int, list[float]] = {}
        self._since_trial = self._slow = 0
        self._start_trial()

    @property
    def threads(self) -> int:
        """The number for the next step."""
        return self._untried[0] if self._untried else self._best

    def took(self, seconds: float) -> None:
        """Learn how long the step took that was taken with `threads`."""
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
    """The numbers that are tried on a device: of a CPU as many as there may be, half of them, and so on down to one."""
    numbers = [torch.get_num_threads()]
    while device.type == "cpu" and numbers[-1] > 1:
        numbers.append(numbers[-1] // 2)
    return numbers


def choice_for(device: torch.device, minutes: float | None) -> ThreadChoice | None:
    """A choice for a run on a CPU that follows the clock; what other runs compute must not depend on what else runs."""
    if device.type != "cpu" or minutes is None:
        return None
    return ThreadChoice(numbers_of_threads(device))
