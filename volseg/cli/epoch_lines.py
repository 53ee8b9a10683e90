"""`--show-epochs`: a line per epoch with the loss as a bar, accuracy, Dice and IoU."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from typing import Any

from volseg.cli.console import print_line

#: Characters of the bar, and on a terminal that is narrow.
_LENGTH, _NARROW_LENGTH, _NARROW = 24, 10, 120
_NUMBERS = (("accuracy", "accuracy"), ("dice", "Dice"), ("iou", "IoU"))


class EpochLines:
    """Prints each epoch's row of history.csv; the bar is full at the largest loss so far."""

    def __init__(self) -> None:
        self._largest = 0.0

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Print an epoch."""
        loss = float(row["loss"])
        self._largest = max(self._largest, loss)
        is_narrow = sys.stdout.isatty() and shutil.get_terminal_size().columns < _NARROW
        length = _NARROW_LENGTH if is_narrow else _LENGTH
        filled = max(0, round(length * loss / self._largest)) if self._largest > 0 else 0
        bar = "#" * filled + "." * (length - filled)
        network = "".join(f"{words}{row[name]}, " for name, words in (("kind", ""), ("fold", "fold ")) if name in row)
        line = f"{network}epoch {row['epoch']}: loss {loss:.4f} [{bar}]{_told(row, 'train_')}"
        validated = _told(row, "")
        if validated and is_narrow:
            print_line(f"{line};")
            print_line(f"    validation:{validated}")
        else:
            print_line(f"{line}; validation:{validated}" if validated else line)


def _told(row: Mapping[str, Any], beginning: str) -> str:
    known = ((words, row.get(f"{beginning}{name}")) for name, words in _NUMBERS)
    return "".join(f" {words} {number:.4f}" for words, number in known if number is not None)
