"""Warnings of the library on stderr: each kind once, then the number of repetitions."""

from __future__ import annotations

import logging
from collections import Counter

from volseg.cli.console import show_line, without_particulars
from volseg.progress import MILESTONES


class Remarks(logging.Handler):
    """Prints each kind of warning once; with `is_verbose`, prints every record."""

    def __init__(self) -> None:
        super().__init__()
        self.is_verbose = False
        self._first: dict[tuple[str, ...], str] = {}
        self._counts: Counter[tuple[str, ...]] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record unless it repeats an earlier one, which is counted."""
        if record.name == MILESTONES:
            show_line(record.getMessage())
        elif self.is_verbose or (record.levelno >= logging.WARNING and self._is_new(record)):
            show_line(_line(record))

    def _is_new(self, record: logging.LogRecord) -> bool:
        """Count a record, and return whether it is the first of its kind."""
        kind = _kind(record)
        self._first.setdefault(kind, _line(record))
        self._counts[kind] += 1
        return self._counts[kind] == 1

    def tell_repeated(self) -> None:
        """Print how many warnings of each kind were not printed, and reset the counts."""
        for kind, count in self._counts.items():
            if count > 1:
                show_line(f"{count - 1} more like this (--verbose prints all): {self._first[kind]}")
        self._first.clear()
        self._counts.clear()


remarks = Remarks()


def show_remarks(*, verbose: bool) -> None:
    """Print warnings from now on, or with `verbose` every record of the library's log."""
    remarks.is_verbose = verbose
    logger = logging.getLogger("volseg")
    logger.addHandler(remarks)
    logger.setLevel(logging.INFO)  # for a log, which has all of it


def _line(record: logging.LogRecord) -> str:
    return f"{record.levelname.lower()}: {record.getMessage()}"


def _kind(record: logging.LogRecord) -> tuple[str, ...]:
    """Return the kind of a warning: its words without numbers and without the file or case at its beginning."""
    told = record.args if isinstance(record.args, tuple) else ()
    words = [without_particulars(str(word)) for word in told]
    is_all_there_is = len(words) == 1 and str(record.msg).endswith("%s")
    return (record.name, str(record.msg), *(words if is_all_there_is else words[1:]))
