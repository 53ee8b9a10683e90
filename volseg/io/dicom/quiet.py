"""Silence pydicom and highdicom while volseg uses them, and nowhere else.

Real files deviate from the standard in many harmless ways, about which pydicom warns and logs; highdicom does so about
patient names, in full. What is not harmless is found by our own checks and raised.

A warnings filter and a filter of log records stay installed; both let everything pass except in a context (PEP 567)
that asked for quiet. No setting of the process changes while files are read, so threads need not wait for each other,
and a program that uses pydicom itself still gets its messages.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

#: Where the warnings come from: nibabel warns the importer of its reader of Siemens headers, which has not changed in
#: years, that it is experimental.
_MODULES = ("pydicom", "highdicom", "volseg.io.dicom.mosaic")

_is_quiet: ContextVar[bool] = ContextVar("volseg_is_quiet", default=False)


class _ModulesToSilence:
    """Takes the place of the module pattern in a warnings filter."""

    def match(self, module: str) -> bool:
        return _is_quiet.get() and module.startswith(_MODULES)


_FILTER = ("ignore", None, Warning, _ModulesToSilence(), 0)


@contextmanager
def quiet_dicom() -> Iterator[None]:
    """Silence warnings and logs of pydicom and highdicom in this context; a thread started in it has its own."""
    _put_filter_first()
    token = _is_quiet.set(True)
    try:
        yield
    finally:
        _is_quiet.reset(token)


def filter_loggers(library: str) -> None:
    """Make the loggers of a library drop all records in a quiet context.

    Args:
        library: Its name; it must have been imported, since a filter applies only to the logger it is attached to.
    """
    for name in list(logging.root.manager.loggerDict):
        if name == library or name.startswith(f"{library}."):
            logging.getLogger(name).addFilter(_is_loud)


def _is_loud(record: logging.LogRecord) -> bool:  # noqa: ARG001  what it says does not matter
    return not _is_quiet.get()


def _put_filter_first() -> None:
    """Move the filter to the front, since others may have inserted theirs before it, or restored earlier filters."""
    filters = cast("list[Any]", warnings.filters)  # `warnings.filterwarnings` takes a pattern of modules as text only
    if not filters or filters[0] is not _FILTER:
        filters.insert(0, _FILTER)


_put_filter_first()
