"""Readable records of a run: history.csv, validation.csv, train.log and TensorBoard."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from volseg.config import Config, dump
from volseg.errors import OutputExistsError
from volseg.io.files import append_text
from volseg.io.tables import read_table, write_table
from volseg.model.label_encoding import label_values, winners
from volseg.progress import MILESTONES
from volseg.training.preparation import PreparedCase
from volseg.training.slice_picture import compared_slice
from volseg.training.validation import Validation

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

#: The metrics by which TensorBoard compares runs with different hyperparameters.
_SCORES = ("dice/dice", "training/loss")

#: Called with the row of history.csv of an epoch.
OnEpochDone = Callable[[Mapping[str, Any]], None]

logger = logging.getLogger(__name__)
milestones = logging.getLogger(MILESTONES)


def with_names(on_epoch_done: OnEpochDone, **names: int | str) -> OnEpochDone:
    """Return a callback that puts what tells networks apart, a kind or a fold, before the values of each row."""
    return lambda row: on_epoch_done({**names, **row})


def ignore_epochs(row: Mapping[str, Any]) -> None:
    """Ignore finished epochs."""


def write_history(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write one row per epoch.

    Raises:
        OutputError: If it cannot be written.
    """
    write_table(rows, path)


def write_validation(validation: Validation, path: Path) -> None:
    """Write Dice per validation case and label; a cell is empty where there is nothing to compare.

    The column `views` holds the number of views that were averaged, the case and its mirror images: 0 for a case that
    was left out for lack of time.

    Raises:
        OutputError: If it cannot be written.
    """
    columns = {"dice": validation.dice, **{f"dice_{name}": dice for name, dice in validation.dice_by_trial.items()}}
    rows = [
        {
            "case_id": case_id,
            "label": label,
            "views": views,
            **{name: dice[case, number] for name, dice in columns.items()},
        }
        for case, (case_id, views) in enumerate(zip_longest(validation.case_ids, validation.views))
        for number, label in enumerate(validation.labels)
    ]
    rows += [
        {"case_id": case_id, "label": label, "views": 0}
        for case_id in validation.left_out
        for label in validation.labels
    ]
    write_table(rows, path, ["case_id", "label", *columns, "views"], float_format="%.6f")


def read_validation(path: Path) -> Validation:
    """Read what `write_validation` wrote.

    Raises:
        DataError: If it has another format.
    """
    table = read_table(path, ["case_id", "label", "dice"])
    views = table.pop("views") if "views" in table else pd.Series(np.nan, table.index)  # version 0.1.0 took all
    left_out = tuple(table["case_id"][views == 0].unique())
    table, views = table[views != 0], views[views != 0]
    case_ids, labels = (tuple(table.pop(name).unique()) for name in ("case_id", "label"))
    of_cases = tuple(int(number) for number in views[:: len(labels)].dropna())
    columns = {
        str(name).removeprefix("dice_"): values.to_numpy(np.float64).reshape(len(case_ids), len(labels))
        for name, values in table.items()
    }
    return Validation(case_ids, labels, columns.pop("dice"), columns, of_cases, left_out)


class RunLog:
    """The train.log of a run: a line with the time per epoch and event; a resumed run appends to it.

    The same lines go to the logger `volseg.milestones`.

    Args:
        path: The file.
        is_leader: Whether this process writes; of several that train together, only one does.
    """

    def __init__(self, path: Path, *, is_leader: bool = True) -> None:
        self._path, self._is_leader = path, is_leader

    def add(self, line: str) -> None:
        """Write a line. A file that somebody else has changed stays as it is; a warning is logged, the run continues.

        Raises:
            OutputError: If it cannot be written.
        """
        if not self._is_leader:
            return
        milestones.info("%s", line)
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        try:
            append_text(self._path, f"{now} {line}\n")
        except OutputExistsError as error:
            logger.warning("lines of %s cannot be written: %s", self._path.name, error)


class Board:
    """The TensorBoard log of a run, over its optimiser steps.

    Args:
        folder: Folder of its event files.
        step: The last step to keep of an interrupted run; later ones are dropped.
        config: Shown as text and as hyperparameters.
    """

    def __init__(self, folder: Path, step: int, config: Config) -> None:
        self._folder, self._step, self._config = folder, step, config

    @cached_property
    def _writer(self) -> SummaryWriter:
        """The writer, created at the first entry: only the leader of a group writes any."""
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        writer = SummaryWriter(str(self._folder), purge_step=self._step + 1)
        writer.add_text("configuration", f"```yaml\n{dump(self._config)}```", self._step)
        # SummaryWriter.add_hparams would create a separate run for them.
        for entry in hparams(_hyperparameters(self._config), dict.fromkeys(_SCORES, 0.0)):
            writer.file_writer.add_summary(entry)
        return writer

    def add_epoch(self, row: Mapping[str, Any]) -> None:
        """Log the numbers of an epoch under the column names of history.csv."""
        for name, value in row.items():
            if name != "step" and value is not None:
                group = "dice" if "dice" in name else "training"
                self._writer.add_scalar(f"{group}/{name}", value, row["step"])
        self._writer.flush()

    def add_slices(self, step: int, case: PreparedCase, logits: torch.Tensor) -> None:
        """Log the slice of a case with the most labelled voxels, with both outlines.

        Args:
            step: The step it belongs to.
            case: The case, with its reference.
            logits: (outputs, R, A, S), the prediction.
        """
        data = self._config.data
        predicted = label_values(data)[winners(logits.movedim(0, -1), data).numpy()]
        picture = compared_slice(
            case.image[0],
            case.reference,
            predicted,
            self._config.preprocessing.axes,
            case.spacing_mm,
            {label.value: label.display_color for label in (*data.reference_labels, *data.output_labels)},
        )
        self._writer.add_image("reference left, prediction right", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Flush the entries; without any, no file is created, as its header would erase the earlier ones."""
        if "_writer" in vars(self):
            self._writer.close()


def _hyperparameters(config: Config) -> dict[str, bool | int | float | str]:
    """Return the values of a configuration by which runs are told apart, by name."""
    names = ("network", "patches", "loss", "training")
    sections = {name: getattr(config, name).model_dump(mode="json") for name in names}
    return {
        f"{section}.{key}": value if isinstance(value, bool | int | float | str) else str(value)
        for section, keys in sections.items()
        for key, value in keys.items()
        if value is not None
    }
