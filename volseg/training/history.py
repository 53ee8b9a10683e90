"""Records of a run for people: history.csv, validation.csv and TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from volseg.config import Config, dump
from volseg.io.tables import read_table, write_table
from volseg.model.label_encoding import label_values, winners
from volseg.training.preparation import PreparedCase
from volseg.training.validation import Validation

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

#: Outlines on TensorBoard slices; distinguishable with any colour vision.
_REFERENCE_COLOR = (0, 158, 115)
_PREDICTION_COLOR = (230, 159, 0)


def write_history(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write one row per epoch.

    Raises:
        OutputError: If it cannot be written.
    """
    write_table(rows, path)


def write_validation(validation: Validation, path: Path) -> None:
    """Write Dice per held-out case and label; a cell is empty where there is nothing to compare.

    The column `views` says how many views of a case were averaged, itself and its mirror images: 0 of one that there
    was no time for.

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
        DataError: If it is not of that form.
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


class Board:
    """TensorBoard of a run.

    Args:
        folder: Where its event files lie.
        epoch: The last epoch to keep of an interrupted run; its later ones are dropped.
        config: Shown as text.
    """

    def __init__(self, folder: Path, epoch: int, config: Config) -> None:
        self._folder, self._epoch, self._config = folder, epoch, config

    @cached_property
    def _writer(self) -> SummaryWriter:
        """Created at the first entry: only the leader of a group writes any."""
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(self._folder), purge_step=self._epoch + 1)
        writer.add_text("configuration", f"```yaml\n{dump(self._config)}```", self._epoch)
        return writer

    def add_epoch(self, epoch: int, row: dict[str, Any]) -> None:
        """Show the numbers of an epoch under the names of history.csv."""
        for name, value in row.items():
            if name not in {"epoch", "step"} and value is not None:
                group = "dice" if "dice" in name else "training"
                self._writer.add_scalar(f"{group}/{name}", value, epoch)
        self._writer.flush()

    def add_slices(self, epoch: int, case: PreparedCase, logits: torch.Tensor) -> None:
        """Show the axial slice of a case that has the most labelled voxels, with both outlines.

        Args:
            epoch: Which epoch it belongs to.
            case: With the reference.
            logits: (outputs, R, A, S), the prediction.
        """
        data = self._config.data
        predicted = label_values(data)[winners(logits.movedim(0, -1), data).numpy()]
        level = int(np.count_nonzero(case.reference, axis=(0, 1)).argmax())
        picture = outlined_slice(case.image[0, :, :, level], case.reference[:, :, level], predicted[:, :, level])
        self._writer.add_image("reference green, prediction orange", picture, epoch, dataformats="HWC")

    def close(self) -> None:
        """Flush the entries; without any, no file is created, whose header would erase the earlier ones."""
        if "_writer" in vars(self):
            self._writer.close()


def outlined_slice(
    image: NDArray[np.float32], reference: NDArray[np.integer], prediction: NDArray[np.integer]
) -> NDArray[np.uint8]:
    """Draw a slice as radiologists see it: the patient's right on the left, anterior on top.

    Args:
        image: (R, A) intensities.
        reference: (R, A) label values.
        prediction: (R, A) label values.

    Returns:
        (A, R, 3) colours.
    """
    low, high = np.percentile(image, [1, 99])
    gray = np.clip((image - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    picture = np.repeat(gray[..., np.newaxis], 3, axis=-1)
    picture[_outline(reference)] = _REFERENCE_COLOR
    picture[_outline(prediction)] = _PREDICTION_COLOR
    return np.ascontiguousarray(picture[::-1, ::-1].transpose(1, 0, 2))


def _outline(values: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Labelled pixels with a neighbour of another value."""
    padded = np.pad(values, 1, mode="edge")
    neighbours = (padded[2:, 1:-1], padded[:-2, 1:-1], padded[1:-1, 2:], padded[1:-1, :-2])
    return (values > 0) & np.any([values != neighbour for neighbour in neighbours], axis=0)
