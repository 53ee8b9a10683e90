"""The record of a finished run: configuration, cases, course of training, and Dice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from volseg.about import About, read_about
from volseg.cases import Split, read_splits
from volseg.config import Config, read_config
from volseg.evaluation.summary import MEAN_ROW
from volseg.io.tables import read_table
from volseg.metrics.bootstrap import NO_INTERVAL, bootstrap_means, interval
from volseg.model.checkpoint import TrainedNetwork, load_model
from volseg.model.devices import choose_device
from volseg.model.files import model_files
from volseg.training.files import CONFIG_FILE, HISTORY_FILE, SPLITS_FILE, VALIDATION_FILE

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Course:
    """The training of one network.

    Attributes:
        steps: Of the optimiser.
        epochs: That were finished.
        best_epoch: The one with the best validation Dice, whose weights were kept.
        seconds: Until the last epoch was trained: preparation and the validations before it included.
    """

    steps: int
    epochs: int
    best_epoch: int
    seconds: float


@dataclass(frozen=True)
class ValidationDice:
    """Dice of the validation cases, at the voxel size of the network and before post-processing.

    Attributes:
        label: Its name; "mean" for the mean over the labels.
        mean: Over the cases that were scored.
        low: Lower end of the 95 % interval of the mean (bootstrap over cases); NaN of a single case.
        high: Upper end.
        cases: How many were scored.
    """

    label: str
    mean: float
    low: float
    high: float
    cases: int


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A run, read from its folder; the training of an imported model is unknown.

    Attributes:
        files: Of its networks, whose answers are averaged.
        model: The first of them, with what training decided.
        about: Versions and hardware.
        splits: Of each network; empty where the training is not known.
        courses: Of each network; empty where it is not known.
        dice: Of each label; empty where nothing is known.
        mean_dice: Over the labels; None where nothing is known.
    """

    files: tuple[Path, ...]
    model: TrainedNetwork
    about: About
    splits: tuple[Split, ...] = ()
    courses: tuple[Course, ...] = ()
    dice: tuple[ValidationDice, ...] = ()
    mean_dice: ValidationDice | None = None
    asked: Config | None = None

    @property
    def config(self) -> Config:
        """The configuration, with the post-processing chosen on the validation cases."""
        return self.model.config

    @property
    def cases(self) -> frozenset[str]:
        """Ids of all training and validation cases."""
        return frozenset(case_id for split in self.splits for case_id in (*split.train, *split.val))

    @property
    def chose_postprocessing(self) -> bool:
        """True if post-processing or thresholds were chosen on the validation cases."""
        return self.asked is not None and (
            (self.asked.postprocess is None and bool(self.config.rules))
            or self.asked.data.regions != self.config.data.regions
        )


def read_record(run: Path) -> RunRecord:
    """Read the record of a run.

    Args:
        run: A run folder, or a model file in it.

    Raises:
        CheckpointError: If it holds no model.
        DataError: If its tables are damaged.
    """
    files = tuple(model_files(run))
    folder = run if run.is_dir() else run.parent
    model = load_model(files[0], choose_device("cpu"))
    splits = read_splits(folder / SPLITS_FILE) if (folder / SPLITS_FILE).is_file() else ()
    fold = model.config.training.fold
    asked = folder / CONFIG_FILE
    per_label, mean = _validation_dice(folder / VALIDATION_FILE)
    histories = [file.parent / HISTORY_FILE for file in files]
    return RunRecord(
        files=files,
        model=model,
        about=read_about(folder),
        splits=splits if len(files) > 1 or not isinstance(fold, int) or not splits else (splits[fold],),
        courses=tuple(_course(path) for path in histories if path.is_file()),
        dice=per_label,
        mean_dice=mean,
        asked=read_config(asked) if asked.is_file() else None,
    )


def _course(path: Path) -> Course:
    rows = read_table(path, ["epoch", "step", "seconds", "dice"])
    last, best = rows.iloc[-1], rows.iloc[rows["dice"].argmax()]  # of equal ones the first, which was kept
    return Course(int(last["step"]), int(last["epoch"]), int(best["epoch"]), float(last["seconds"]))


def _validation_dice(path: Path) -> tuple[tuple[ValidationDice, ...], ValidationDice | None]:
    """Return the Dice of each label, and their mean."""
    rows = read_table(path, ["case_id", "label", "dice"]).dropna(subset="dice") if path.is_file() else None
    if rows is None or rows.empty:
        return (), None
    table = rows.pivot_table("dice", "case_id", "label", sort=False)
    draws = bootstrap_means(table.to_numpy(np.float64))
    labels = tuple(
        _with_interval(str(label), table[label].dropna(), draws[:, n]) for n, label in enumerate(table.columns)
    )
    overall = float(np.mean([label.mean for label in labels]))
    low, high = interval(np.nanmean(draws, axis=1)) if len(table) > 1 else NO_INTERVAL
    return labels, ValidationDice(MEAN_ROW, overall, low, high, len(table))


def _with_interval(label: str, dice: pd.Series[float], draws: np.ndarray) -> ValidationDice:
    low, high = interval(draws) if len(dice) > 1 else NO_INTERVAL
    return ValidationDice(label, float(dice.mean()), low, high, len(dice))
