"""The progress callback, by which work reports how far it is without knowing who listens."""

from __future__ import annotations

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
