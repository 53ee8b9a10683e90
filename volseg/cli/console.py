"""What the command line shows: results on stdout, progress and everything else on stderr, plain when redirected."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from volseg.cli.signals import stop_is_requested
from volseg.progress import Progress
from volseg.text import readable

if TYPE_CHECKING:
    import pandas as pd


#: All that is printed, for --log. What the library remarks is in its own logger, "volseg".
printed = logging.getLogger("volseg.printed")
printed.propagate = False
printed.setLevel(logging.INFO)
printed.addHandler(logging.NullHandler())


@contextlib.contextmanager
def progress_shown() -> Iterator[Progress]:
    """A bar per stage on a terminal, now and then a line elsewhere and in the log."""
    if not sys.stderr.isatty():
        yield _PlainProgress(say)
        return
    logged = _PlainProgress(printed.info)
    with _bar() as bar:

        def update(stage: str, done: int, total: int, note: str = "") -> None:
            bar(stage, done, total, note)
            logged(stage, done, total, note)

        yield update


@contextlib.contextmanager
def _bar() -> Iterator[Progress]:
    """A bar per stage, for a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, TaskID] = {}

        def update(stage: str, done: int, total: int, note: str = "") -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total or None, note=note)
            bar.update(tasks[stage], completed=done, total=total or None, note=note)

        yield update


class _PlainProgress:
    """For anything but a terminal: at most one line every few seconds, and one when a stage is finished."""

    _EVERY_SECONDS = 15.0

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._last = time.monotonic()

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        if stop_is_requested():  # and code that cannot raise, a destructor say, has swallowed it
            raise KeyboardInterrupt
        now = time.monotonic()
        if now - self._last >= self._EVERY_SECONDS or (done == total and total > 0):
            self._last = now
            self._tell(f"{stage} {done}/{total or '?'} {note}".rstrip())


def print_summary(summary: pd.DataFrame) -> None:
    """The summary of an evaluation, without what needs more room."""
    counts = ["scored", "missed", "false_alarm", "absent", "not_predicted", "failed"]
    wanted = ("dice_mean", "hd95_mm_mean", "hd95_px_mean", "assd_mm_mean", "assd_px_mean", "nsd_mean")
    means = [name for name in wanted if name in summary]
    rows = [
        (str(row["label"]), *(f"{row[name]:.0f}" for name in counts), *(f"{row[name]:.4g}" for name in means))
        for row in summary.to_dict("records")
    ]
    print_table(("label", *counts, *means), rows)


def print_comparison(comparison: pd.DataFrame) -> None:
    """Two evaluations against each other, for the metrics that are looked at first."""
    numbers = ["first_mean", "second_mean", "difference_mean", "ci95_low", "ci95_high", "p_value"]
    counts = ["n", "missing", "better", "worse", "equal"]
    shown = comparison[comparison["metric"].isin(["dice", "hd95_mm", "hd95_px", "assd_mm", "assd_px", "nsd"])]
    rows = [
        (
            *(str(row[name]) for name in ("label", "metric")),
            *(f"{row[name]:.0f}" for name in counts),
            *(f"{row[name]:.3g}" for name in numbers),
        )
        for row in shown.to_dict("records")
    ]
    print_table(("label", "metric", *counts, *numbers), rows)


def print_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Aligned columns that a person can read and a script can split."""
    rows = [tuple(map(readable, row)) for row in rows]
    widths = [max(len(row[n]) for row in [header, *rows]) for n in range(len(header))]
    for row in [header, *rows]:
        print_text("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_line(text: str) -> None:
    """A result in a line, which the log has, too."""
    print_text(text)
    printed.info("%s", text.strip())


def print_text(text: str) -> None:
    """A result that is too much for a log: tables, JSON."""
    print(text)  # noqa: T201  results go to stdout


def say(text: str, level: int = logging.INFO) -> None:
    """Anything else, in one line."""
    printed.log(level, "%s", text)
    with contextlib.suppress(OSError):  # of a terminal that was closed; what is in the log is not lost
        print(readable(text), file=sys.stderr)  # noqa: T201  everything else goes to stderr


def take_any_text() -> None:
    """Escape what a console cannot show: a name in Chinese is no reason to end on one that takes ASCII only."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class OneLine(logging.Formatter):
    """A message of the log in one line, whatever the names in it are made of."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  what it is called in logging
        """What stands before a traceback."""
        return readable(super().formatMessage(record))
