"""Windows larger than patches, where volumes are much longer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import train_folder

import volseg
from volseg.errors import ConfigError
from volseg.inference.windows import wide_window
from volseg.training.validation import Validator


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(36, 50, 35)], None),  # a crop a little longer than a patch
        ([(64, 96, 64)], (64, 96, 64)),
        ([(64, 95, 63)], (64, 48, 32)),
        ([(200, 48, 20), (190, 50, 22), (20, 50, 22)], (64, 48, 32)),  # the median decides
    ],
)
def test_windows_are_twice_a_patch_where_volumes_are_that_long(
    shapes: list[tuple[int, int, int]], expected: tuple[int, int, int] | None
) -> None:
    assert wide_window((32, 48, 32), shapes) == expected


SHORT = {"epochs": 1, "steps_per_epoch": 2, "folds": 3}
SMALL = {"patches": {"size": [8, 8, 8]}, "network": {"name": "unet", "channels": [8, 16], "strides": [[2, 2, 2]]}}


@pytest.mark.parametrize("better", [True, False])
def test_training_keeps_the_windows_that_held_out_cases_like_better(
    better: bool, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scores of one kind of windows are spoiled, and the other is kept."""
    sizes = []
    decide = Validator._dice

    def spoiled(self: Validator, prediction: torch.Tensor, case: Any) -> list[float]:
        window = self._config.window
        sizes.append(window)
        dice = decide(self, prediction, case)
        return [0.0 for _ in dice] if better == (window == (8, 8, 8)) else [1.0 for _ in dice]

    monkeypatch.setattr(Validator, "_dice", spoiled)
    run = train_folder(dataset, tmp_path / "run", {**SMALL, "training": SHORT})
    model = volseg.load(run.folder)
    assert set(sizes) == {(8, 8, 8), (16, 16, 16)}
    assert model.config.window == ((16, 16, 16) if better else (8, 8, 8))
    assert sizes[-1] == model.config.window  # what is said to be its Dice is that of these windows
    monkeypatch.undo()
    case = dataset / "images" / "case_0.nii.gz"
    mask = model.predict(case, allow_mismatch=True).mask.array
    by_hand = volseg.load(run.folder, changes={"inference.window": list(model.config.window)})
    np.testing.assert_array_equal(mask, by_hand.predict(case, allow_mismatch=True).mask.array)


def test_a_window_that_does_not_fit_is_refused(trained_run: Path) -> None:
    with pytest.raises(ConfigError, match=r"inference.window: \[9, 9, 9\] does not fit network"):
        volseg.load(trained_run, changes={"inference.window": [9, 9, 9]})


def test_a_window_that_was_chosen_is_not_tried_against_another(dataset: Path, tmp_path: Path) -> None:
    tree = {**SMALL, "training": SHORT, "inference": {"window": [8, 8, 8]}}
    assert volseg.load(train_folder(dataset, tmp_path / "run", tree).folder).config.inference.window == (8, 8, 8)
