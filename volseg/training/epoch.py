"""Records of an epoch, as a row of history.csv and as a line of text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import fmean
from typing import Any

from volseg.errors import TrainingError
from volseg.training.agreement import Agreement
from volseg.training.step import StepResult

#: The run ends after this many consecutive steps with a loss that is not finite.
_MOST_SKIPPED_IN_A_ROW = 20


@dataclass
class EpochRecord:
    """A record of the steps of an epoch so far.

    Attributes:
        start_seconds: Time of the run when the epoch began.
        losses: Loss of each step, without skipped ones.
        gradient_norms: Gradient norm of each step before clipping, without skipped ones.
        learning_rate: Learning rate of the last step.
        skipped: Number of steps whose loss or gradient was not finite.
        skipped_in_a_row: Number of the last steps that were skipped in a row.
        voxels: Number of voxels trained on in all processes.
        waited_seconds: Time spent waiting for patches.
        agreement: Agreement of predictions and references over all steps, without skipped ones.
    """

    start_seconds: float
    losses: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    learning_rate: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    voxels: int = 0
    waited_seconds: float = 0.0
    agreement: Agreement | None = None

    @property
    def steps(self) -> int:
        """Number of steps, including skipped ones."""
        return len(self.losses) + self.skipped

    @property
    def recent_loss(self) -> float:
        """Mean loss of the last steps."""
        return fmean(self.losses[-20:])

    def add(self, result: StepResult, waited_seconds: float) -> None:
        """Add a step.

        Raises:
            TrainingError: If too many steps in a row were skipped.
        """
        self.learning_rate = result.learning_rate
        self.voxels += result.voxels
        self.waited_seconds += waited_seconds
        if result.is_finite:
            self.losses.append(result.loss)
            self.agreement = result.agreement if self.agreement is None else self.agreement + result.agreement
            self.gradient_norms.append(result.gradient_norm)
            self.skipped_in_a_row = 0
            return
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= _MOST_SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"the loss was not finite in {self.skipped_in_a_row} steps in a row",
                hint="lower training.learning_rate or set precision=fp32",
            )

    def history_row(self, seconds: float) -> dict[str, Any]:
        """Return the columns of history.csv that an epoch fills.

        Args:
            seconds: Time of the run at the end of the epoch.
        """
        trained = seconds - self.start_seconds
        return {
            "seconds": round(seconds, 2),
            "learning_rate": self.learning_rate,
            "loss": fmean(self.losses),
            **(self.agreement.columns if self.agreement else {}),
            "gradient_norm": fmean(self.gradient_norms),
            "skipped_steps": self.skipped,
            "steps_per_second": round(self.steps / trained, 3),
            "voxels_per_second": round(self.voxels / trained),
            "data_wait_share": round(self.waited_seconds / trained, 4),
        }


def epoch_line(row: Mapping[str, Any], seconds: float, seconds_left: float) -> str:
    """Summarise an epoch in a line that fits a terminal.

    Args:
        row: The row of history.csv; it has a Dice if the epoch was validated.
        seconds: Duration of the epoch, including validation.
        seconds_left: Time until the run ends.
    """
    dice = f", val Dice {row['dice']:.3f}" if "dice" in row else ""
    left = timedelta(seconds=round(seconds_left))
    return (
        f"epoch {row['epoch']}, step {row['step']}: loss {row['loss']:.3f}{dice}, lr {row['learning_rate']:.1e}, "
        f"{seconds:.0f} s, {left} left"
    )
