"""The progress callback, by which work reports how far it is without knowing who listens."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol

#: The logger of the lines that a person who waits wants to read, such as one per epoch, at the level INFO. The command
#: line prints them; of everything else at that level it does so with --verbose only.
MILESTONES = "volseg.milestones"
#: The `total` of work that is measured by its share of the time, not counted.
THOUSANDTHS = 1000


class Cancelled(Exception):  # noqa: N818  what happened, as asyncio and concurrent.futures name it
    """Raise this in a progress callback to stop: finished results are kept, and the same call continues from there."""


class Progress(Protocol):
    """A callback that every verb calls as it advances; the command line shows it, a notebook may ignore it."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Report that `done` of `total` steps of `stage` are finished.

        Args:
            stage: One or two words, stable while the stage lasts ("train", "predict").
            done: Finished steps, from 0.
            total: Steps in all; 0 when it is not known yet.
            note: A short remark on the last step, such as a Dice value. If it ends with "left", it states the remaining
                time of the stage, and a listener should show no estimate of its own.
        """


def ignore_progress(stage: str, done: int, total: int, note: str = "") -> None:
    """Ignore all progress: the default listener."""


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  what the caller has asked for


class ProgressLines:
    """A progress callback that prints a line every few seconds at most, and one when a stage is finished.

    Args:
        tell: Called with each line; by default it is printed on stderr.
    """

    _EVERY_SECONDS = 15.0

    def __init__(self, tell: Callable[[str], None] = _print) -> None:
        self._tell = tell
        self._last = time.monotonic()
        self._stage, self._done, self._is_finished = "", 0, False

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Print a line if it is time."""
        if stage != self._stage or done < self._done:
            self._is_finished = False
        finishes = done == total > 0 and not self._is_finished
        self._stage, self._done, self._is_finished = stage, done, self._is_finished or finishes
        now = time.monotonic()
        if finishes or now - self._last >= self._EVERY_SECONDS:
            self._last = now
            self._tell(f"{stage} {shown_count(done, total)} {note}".rstrip())


def shown_count(done: int, total: int) -> str:
    """Return "3/10", "30%" of a share of the time, or "3" if the total is unknown."""
    if total == THOUSANDTHS:
        return f"{done / total:.0%}"
    return f"{done}/{total}" if total else str(done)
