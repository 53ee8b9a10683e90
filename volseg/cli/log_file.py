"""`--log`: append the output of a command to a file, line by line."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from volseg.cli.console import printed, say
from volseg.errors import OutputError
from volseg.text import readable

#: How every line begins. A log of which the older part was moved away may begin with any of them.
_BEGINNING = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d [A-Z]+ volseg\[\d+\]: ")
_LONGEST_BEGINNING = 80


class LogFile(logging.Handler):
    """Appends each record as a line: time with its distance from UTC, level, process, message.

    A line is written at once, at what is then the end of the file (O_APPEND), so that several commands can share it. A
    line that a full disk does not take is lost; that is said once, and the work goes on.

    Args:
        path: A new file, an empty one, or a log.

    Raises:
        OutputError: If it is something else, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._descriptor = _open(path)
        self._is_torn = self._was_told = False

    def emit(self, record: logging.LogRecord) -> None:
        """Append a record."""
        time = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="seconds")
        line = f"{time} {record.levelname} volseg[{record.process}]: {readable(record.getMessage())}\n"
        # What did not fit shall not run into the next line.
        content = b"\n" * self._is_torn + line.encode("utf-8", "backslashreplace")
        try:
            self._is_torn = os.write(self._descriptor, content) < len(content)
        except OSError as error:
            self._tell(error.strerror or str(error))
            return
        if self._is_torn:
            self._tell("it took a part of a line")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
        super().close()

    def _tell(self, reason: str) -> None:
        if not self._was_told:
            self._was_told = True
            say(f"warning: lines of the log {self._path} are lost: {reason}; the work goes on")


@contextmanager
def logged(path: Path | None, read: Iterable[Path]) -> Iterator[None]:
    """Append printed lines and the library's log records to a file until the block ends.

    Args:
        path: The log, if one is wanted.
        read: What the command reads; the log lies in none of these folders.

    Raises:
        OutputError: If the file is no log, lies in what is read, or cannot be written.
    """
    if path is None:
        yield
        return
    _check_place(path, read)
    file = LogFile(path)
    loggers = (printed, logging.getLogger("volseg"))
    for logger in loggers:
        logger.addHandler(file)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(file)
        file.close()


def _check_place(path: Path, read: Iterable[Path]) -> None:
    place = Path(os.path.realpath(path))
    for folder in read:
        if folder.is_dir() and place.is_relative_to(os.path.realpath(folder)):
            raise OutputError(f"the log {path} lies in {folder}, which is read", hint="choose another --log")


def _open(path: Path) -> int:
    """Open a log for appending; refuse a file that is not a log."""
    if path.exists() and not path.is_file():
        raise OutputError(f"the log {path} is no file", hint="choose another --log")
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except FileNotFoundError as error:
        raise OutputError(
            f"the folder of the log {path} does not exist", hint="make it, or choose another --log"
        ) from error
    except OSError as error:
        raise OutputError(f"cannot write the log {path}: {error.strerror}", hint="choose another --log") from error
    beginning = os.read(descriptor, _LONGEST_BEGINNING)
    if beginning and not _BEGINNING.match(beginning):
        os.close(descriptor)
        raise OutputError(f"{path} is no log of volseg", hint="choose another --log, or move the file away")
    return descriptor
