"""Output of the command line: results on stdout, progress and messages on stderr, plain when redirected."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from volseg.cli.fitting import aligned_lines, fitted_lines
from volseg.cli.signals import stop_is_requested
from volseg.progress import Progress, ProgressLines, shown_count
from volseg.text import readable

if TYPE_CHECKING:
    import pandas as pd

    from volseg import Comparison

#: The metrics of a comparison that are looked at first.
_COMPARED = ("dice", "hd95_mm", "hd95_px", "assd_mm", "assd_px", "nsd")

#: All that is printed, for --log. What the library remarks is in its own logger, "volseg".
printed = logging.getLogger("volseg.printed")
printed.propagate = False
printed.setLevel(logging.INFO)
printed.addHandler(logging.NullHandler())

_PARTICULAR = re.compile(r"\S*[\d./\\]\S*")


@contextlib.contextmanager
def progress_shown() -> Iterator[Progress]:
    """Show progress: as a bar on a terminal; elsewhere, and in the log, as an occasional line."""
    if not sys.stderr.isatty():
        yield _stoppable(ProgressLines(say))
        return
    from volseg.cli.stage_bar import StageBar

    logged = ProgressLines(printed.info)
    with StageBar() as bar:

        def update(stage: str, done: int, total: int, note: str = "") -> None:
            bar.show(stage, done, total, shown_count(done, total), note)
            logged(stage, done, total, note)

        try:
            yield _stoppable(update)
        finally:
            bar.end_stage()


def _stoppable(progress: Progress) -> Progress:
    """Return a progress callback that raises KeyboardInterrupt once a signal has asked the process to end.

    Code that cannot raise, such as a destructor, may have swallowed the first one.
    """

    def update(stage: str, done: int, total: int, note: str = "") -> None:
        if stop_is_requested():
            raise KeyboardInterrupt
        progress(stage, done, total, note)

    return update


def print_summary(summary: pd.DataFrame) -> None:
    """Print the columns of an evaluation's summary that fit; summary.csv has all of them."""
    counts = ["scored", "missed", "false_alarm", "absent", "not_predicted", "failed"]
    wanted = ("dice_mean", "hd95_mm_mean", "hd95_px_mean", "assd_mm_mean", "assd_px_mean", "nsd_mean")
    means = [name for name in wanted if name in summary]
    rows = [
        (str(row["label"]), *(f"{row[name]:.0f}" for name in counts), *(f"{row[name]:.4g}" for name in means))
        for row in summary.to_dict("records")
    ]
    print_table(("label", *counts, *means), rows, (*reversed(counts), *means[1:-1]))


def print_comparison(comparison: Comparison) -> None:
    """Print a comparison of evaluations for the most common metrics."""
    if len(comparison.names) > 2:
        means = comparison.means[comparison.means["metric"].isin(_COMPARED)]
        names = [str(name) for name in comparison.names]
        rows = [
            (str(row["label"]), str(row["metric"]), *(f"{row[name]:.4g}" for name in names))
            for row in means.to_dict("records")
        ]
        print_table(("label", "metric", *names), rows)
        return
    first, second = comparison.names
    say(f"first: {first}; second: {second}")
    numbers = ["first_mean", "second_mean", "difference_mean", "ci95_low", "ci95_high", "p_value"]
    counts = ["n", "missing", "better", "worse", "equal"]
    shown = comparison.table[comparison.table["metric"].isin(_COMPARED)]
    rows = [
        (
            *(str(row[name]) for name in ("label", "metric")),
            *(f"{row[name]:.0f}" for name in counts),
            *(f"{row[name]:.3g}" for name in numbers),
        )
        for row in shown.to_dict("records")
    ]
    print_table(("label", "metric", *counts, *numbers), rows, ("missing", "equal", "worse", "better"))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], dispensable: Sequence[str] = ()) -> None:
    """Print a table whose columns a person can read and a script can split.

    On a terminal the rows fit: long headers take two lines, and columns are left out.

    Args:
        header: Names of the columns.
        rows: Their cells.
        dispensable: Names of columns that may be left out, the first ones first.
    """
    table = [tuple(map(readable, row)) for row in rows]
    if sys.stdout.isatty():
        lines = fitted_lines(header, table, shutil.get_terminal_size().columns, dispensable)
    else:
        lines = aligned_lines([tuple(header), *table])
    for line in lines:
        print_text(line)


def print_line(text: str) -> None:
    """Print a line on stdout, and log it."""
    print_text(_wrapped(text, sys.stdout))
    printed.info("%s", text.strip())


def print_text(text: str) -> None:
    """Print text that is too long for a log on stdout: tables, JSON."""
    print(text)  # noqa: T201  results go to stdout


def say(text: str, level: int = logging.INFO) -> None:
    """Print a line on stderr, and log it."""
    printed.log(level, "%s", text)
    show_line(text)


def show_line(text: str) -> None:
    """Print a line on stderr, without logging it."""
    with contextlib.suppress(OSError):  # of a terminal that was closed; what is in the log is not lost
        print(_wrapped(readable(text), sys.stderr), file=sys.stderr)  # noqa: T201  everything else goes to stderr


def say_by_reason(reasons: Mapping[str, str], level: int = logging.WARNING) -> None:
    """Print the reasons why cases failed: each once, with the first case and the number of others.

    Args:
        reasons: Case id -> its reason, which begins with its kind ("failed: ...").
        level: Of the lines in the log, which has every case.
    """
    cases: dict[str, list[str]] = {}
    for case_id, reason in reasons.items():
        kind, _, told = reason.partition(": ")
        printed.log(level, "%s: %s: %s", kind, case_id, told)
        cases.setdefault(without_particulars(reason.replace(case_id, "")), []).append(case_id)
    for case_ids in cases.values():
        kind, _, told = reasons[case_ids[0]].partition(": ")
        others = f" (and {len(case_ids) - 1} more)" if len(case_ids) > 1 else ""
        show_line(f"{kind}: {case_ids[0]}: {told}{others}")


def without_particulars(text: str) -> str:
    """Remove file names and numbers from a message, so that messages of the same kind are equal."""
    return _PARTICULAR.sub("", text)


def _wrapped(text: str, stream: TextIO) -> str:
    """Break a long line between words, on a terminal."""
    width = shutil.get_terminal_size().columns
    if not stream.isatty() or len(text) <= width:
        return text
    return "\n".join(
        textwrap.fill(line, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    )


def take_any_text() -> None:
    """Escape characters that a console cannot show, so that names in other scripts do not end the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
