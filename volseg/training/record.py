"""What a run leaves behind for people: history.csv, validation.csv and TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from volseg.config import Config, dump
from volseg.io.files import atomic_path
from volseg.model.label_encoding import label_values, winners
from volseg.training.preparation import PreparedCase
from volseg.training.validation import Validation, as_infer_fn, logits_of

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

HISTORY_FILE, VALIDATION_FILE = "history.csv", "validation.csv"

#: Outlines on TensorBoard slices; distinguishable with any colour vision.
_REFERENCE_COLOR = (0, 158, 115)
_PREDICTION_COLOR = (230, 159, 0)


def write_history(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write one row per epoch.

    Raises:
        OutputError: If it cannot be written.
    """
    with atomic_path(path) as temporary:
        pd.DataFrame(list(rows)).to_csv(temporary, index=False, float_format="%.6g")


def write_validation(validation: Validation, path: Path) -> None:
    """Write Dice per held-out case and label; an empty cell where neither has the label, or the reference does not say.

    Raises:
        OutputError: If it cannot be written.
    """
    columns = {"dice": validation.dice, **{f"dice_{name}": dice for name, dice in validation.dice_by_trial.items()}}
    index = pd.MultiIndex.from_product([validation.case_ids, validation.labels], names=["case_id", "label"])
    table = pd.DataFrame({name: dice.ravel() for name, dice in columns.items()}, index=index)
    with atomic_path(path) as temporary:
        table.to_csv(temporary, float_format="%.6f")


def read_validation(path: Path) -> Validation:
    """Read what `write_validation` wrote."""
    table = pd.read_csv(path, dtype={"case_id": str, "label": str}).set_index(["case_id", "label"])
    case_ids, labels = (tuple(level.unique()) for level in (table.index.get_level_values(n) for n in range(2)))
    columns = {
        str(name).removeprefix("dice_"): values.to_numpy(np.float64).reshape(len(case_ids), len(labels))
        for name, values in table.items()
    }
    return Validation(case_ids, labels, columns.pop("dice"), columns)


class Board:
    """TensorBoard of a run.

    Args:
        folder: Where its event files lie.
        epoch: Epochs that are already there; later ones of an interrupted run are dropped.
        config: Shown as text.
    """

    def __init__(self, folder: Path, epoch: int, config: Config) -> None:
        self._folder, self._epoch, self._config = folder, epoch, config

    @cached_property
    def _writer(self) -> SummaryWriter:
        """Made when something is written: only one process of a team does."""
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

    def add_slices(
        self, epoch: int, network: nn.Module, case: PreparedCase, config: Config, dtype: torch.dtype
    ) -> None:
        """Show the axial slice with the most reference of one case, outlined."""
        logits = logits_of(as_infer_fn(network, config, dtype), case, config)
        predicted = label_values(config.data)[winners(logits.movedim(0, -1), config.data).numpy()]
        level = int(np.count_nonzero(case.reference, axis=(0, 1)).argmax())
        picture = outlined_slice(case.image[0, :, :, level], case.reference[:, :, level], predicted[:, :, level])
        self._writer.add_image("reference green, prediction orange", picture, epoch, dataformats="HWC")

    def close(self) -> None:
        """Write what is left; a file that nothing was written to is not begun: its header would erase the others."""
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
