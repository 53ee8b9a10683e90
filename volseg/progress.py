"""How long work tells the outside world where it is, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Cancelled(Exception):  # noqa: N818  what happened, as asyncio and concurrent.futures name it
    """Raise it in a progress callback to end the work: what is finished stays, and the same call goes on from there."""


class Progress(Protocol):
    """Called by every verb as its work advances; the command line draws it, a notebook may ignore it."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Report that `done` of `total` steps of `stage` are finished.

        Args:
            stage: One or two words, stable while the stage lasts ("train", "predict").
            done: Finished steps, from 0.
            total: Steps in all; 0 when it is not known yet.
            note: A short remark on the last step, such as a Dice value.
        """


def ignore_progress(stage: str, done: int, total: int, note: str = "") -> None:
    """Ignore all progress: the default listener."""
