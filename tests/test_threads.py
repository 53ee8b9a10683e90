"""The number of threads follows what the machine has to spare."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from volseg.training.threads import ThreadChoice, choice_for


def take(choice: ThreadChoice, steps: int, seconds: Callable[[int], float]) -> list[int]:
    """Take steps whose duration depends on the number of threads, and tell with how many each was taken."""
    taken = []
    for _ in range(steps):
        taken.append(choice.threads)
        choice.took(seconds(choice.threads))
    return taken


def quiet(threads: int) -> float:
    return 1.6 / threads


def busy(threads: int) -> float:
    """Whoever is more than one waits for a core."""
    return 1.6 if threads == 1 else 3.0


def test_each_number_is_tried_and_the_fastest_is_kept() -> None:
    choice = ThreadChoice([8, 4, 2, 1])
    assert take(choice, 8, quiet) == [8, 8, 4, 4, 2, 2, 1, 1]
    assert set(take(choice, 50, quiet)) == {8}
    assert set(take(ThreadChoice([8, 4, 2, 1]), 60, busy)[8:]) == {1}


def test_a_machine_that_becomes_busy_and_quiet_again_is_followed() -> None:
    choice = ThreadChoice([2, 1])
    assert take(choice, 20, quiet)[-1] == 2
    assert take(choice, 20, busy)[-1] == 1  # three slow steps are enough
    assert take(choice, 120, quiet)[-1] == 2  # and nothing tells of idle cores but a trial


def test_one_slow_step_is_no_reason() -> None:
    choice = ThreadChoice([2, 1])
    take(choice, 10, quiet)
    choice.took(100.0)
    assert set(take(choice, 20, quiet)) == {2}


def test_a_single_core_leaves_no_choice() -> None:
    assert set(take(ThreadChoice([1]), 300, busy)) == {1}


@pytest.mark.parametrize(("device", "minutes"), [("cpu", None), ("cuda", 5.0)])
def test_runs_that_must_repeat_and_gpus_keep_their_threads(device: str, minutes: float | None) -> None:
    assert choice_for(torch.device(device), minutes) is None
