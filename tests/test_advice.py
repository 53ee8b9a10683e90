"""Advice for trainings that learned next to nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from volseg.training.advice import advise
from volseg.training.validation import Validation

FALLING = (1.0, 0.8, 0.5, 0.4, 0.35)


def history(losses: Sequence[float], steps: int) -> list[dict[str, Any]]:
    return [{"step": steps * (n + 1) // len(losses), "loss": loss} for n, loss in enumerate(losses)]


def validation(*dice: float) -> Validation:
    names = tuple(["liver", "spleen", "kidney"][: len(dice)])
    return Validation(("p1",), names, np.array([dice]))


def test_a_run_that_learned_gets_none() -> None:
    assert advise(validation(0.7, 0.4), [history(FALLING, 50)]) == ""  # it was enough
    assert advise(validation(0.7, math.nan), [history(FALLING, 50)]) == ""  # of a label that no case has
    assert advise(validation(0.3), [history(FALLING, 1000)]) == ""
    assert advise(validation(0.9), [history([0.2, 0.2, 0.21], 5000)]) == ""  # begun with trained weights


@pytest.mark.parametrize(
    ("dice", "losses", "problem"),
    [
        ((0.03, 0.08), FALLING, "the network learned next to nothing"),
        ((0.8, 0.02, 0.7), FALLING, "the network finds almost nothing of spleen"),
        ((0.3,), (1.0, 1.01, 0.99, 1.0), "the loss did not fall"),
    ],
)
def test_the_problem_is_named_with_its_numbers(dice: tuple[float, ...], losses: Sequence[float], problem: str) -> None:
    told = advise(validation(*dice), [history(losses, 4000)])
    assert told.startswith(f"{problem}: validation Dice {np.mean(dice):.3f} after 4000 steps. ")
    assert "only" not in told
    assert "volseg show" in told


def test_few_steps_and_many_folds_are_told() -> None:
    told = advise(validation(0.01), [history(FALLING, 41), history(FALLING, 44)])
    assert "after only 41 steps" in told
    assert "one fold instead of all" in told
    told = advise(validation(0.3), [history(FALLING, 41)])
    assert told.startswith("the network has only begun to learn: validation Dice 0.300 after only 41 steps")
    assert "only begun to learn: validation Dice 0.390 after 142 steps" in advise(
        validation(0.39), [history(FALLING, 142)]
    )
