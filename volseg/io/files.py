"""Atomic files, which appear whole or not at all."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from volseg.errors import OutputError
from volseg.io import written
from volseg.io.disk_errors import output_error
from volseg.io.record import Role, locked, owned
from volseg.io.written import claim, discard, put_in_place, put_where_nothing_is, unfinished
from volseg.system import flush

T = TypeVar("T")

logger = logging.getLogger(__name__)


@contextmanager
def atomic_path(path: Path, role: Role = "result") -> Iterator[Path]:
    """Provide a temporary path beside `path`, moved onto it when the block succeeds and removed when it does not.

    The temporary name keeps the suffix, because libraries choose the format by it. The file is recorded as volseg's,
    and only such files are replaced.

    Args:
        path: The final path. Missing parent folders are created.
        role: Whether it is a result, which is not an input of the next run.

    Yields:
        The path to write to.

    Raises:
        OutputExistsError: If a file is in the way that volseg did not write, or that was changed since.
        OutputError: If the folder or the file cannot be written (permission, full disk).
    """
    with _moved(path, partial(put_in_place, role=role)) as temporary:
        yield temporary


@contextmanager
def new_path(path: Path) -> Iterator[Path]:
    """Provide a temporary path as `atomic_path` does, for data rather than results: it replaces and records nothing.

    Raises:
        OutputExistsError: If there is anything at `path`.
        OutputError: If the folder or the file cannot be written (permission, full disk).
    """
    with _moved(path, put_where_nothing_is) as temporary:
        yield temporary


@contextmanager
def _moved(path: Path, put: Callable[[Path, Path], None]) -> Iterator[Path]:
    temporary = unfinished(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        flush(temporary)
        put(temporary, path)
        flush(path.parent)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        _remove(temporary)


def appears(path: Path, patience_seconds: float = 10.0) -> bool:
    """Return whether something exists at a path, or comes to: network file systems show new files after seconds."""
    end = time.monotonic() + patience_seconds
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
        if path.parent.is_dir():
            list(path.parent.iterdir())  # makes NFS ask its server again
    return True


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text file; undecodable bytes of file names are escaped.

    Raises:
        OutputError: If it cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_private_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text file that only its owner may read, even while it is being written.

    Windows has no such mode: the permissions of the folder apply.

    Raises:
        OutputError: If it cannot be written.
    """
    with atomic_path(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)


def append_text(path: Path, text: str) -> None:
    """Append to a UTF-8 text file of volseg's, or create it.

    Raises:
        OutputExistsError: If a file is in the way that volseg did not write, or that was changed since.
        OutputError: If it cannot be written.
    """
    with locked_folder(path.parent):
        claim([path])
        earlier = path.read_text(encoding="utf-8") if path.exists() else ""
        write_text(path, earlier + text)


def make_folder(folder: Path) -> None:
    """Create an output folder and check that files can be written into it, before hours of work.

    Raises:
        OutputError: If it cannot be created or written.
    """
    probe = unfinished(folder / "probe")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
    except OSError as error:
        raise output_error(folder, error) from error
    finally:
        _remove(probe)


def remove_leftovers(folder: Path) -> None:
    """Remove the half-written files of killed processes from an output folder; those of running processes stay.

    Raises:
        OutputError: If one cannot be removed.
    """
    if elsewhere := written.remove_leftovers(folder):
        logger.warning(
            "%s holds %d unfinished files of other machines; if nothing is writing there, remove them: %s*",
            folder,
            elsewhere,
            written.TEMPORARY_PREFIX,
        )


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes and threads while it is read and then written; for a short time only.

    Raises:
        OutputError: If the folder cannot be written, or another process hangs while it holds the lock.
    """
    with _held(folder, locked):
        yield


@contextmanager
def owned_folder(folder: Path) -> Iterator[None]:
    """Reserve a folder for this process.

    Raises:
        OutputError: If another process or thread has it, or it cannot be written.
    """
    with _held(folder, owned) as is_mine:
        if not is_mine:
            raise OutputError(
                f"another process is writing a run into {folder}", hint="wait until it ends, or choose another --output"
            )
        yield


@contextmanager
def _held(folder: Path, lock: Callable[[Path], AbstractContextManager[T]]) -> Iterator[T]:
    """Create a folder and hold a lock on it; only errors of the lock itself become output errors."""
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held = stack.enter_context(lock(folder))
        except OSError as error:
            raise output_error(folder, error) from error
        yield held


def file_name(text: str) -> str:
    """Convert a text to a file name whose bytes on disk are UTF-8 whatever the locale says."""
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def without_root(text: str, root: Path) -> str:
    """Shorten paths below the user's path to the part within it, since the rest may identify a patient."""
    folder = root if root.is_dir() else root.parent
    return text.replace(f"{folder}{os.sep}", "").replace(f"{folder}:", "the images:")


def _remove(temporary: Path) -> None:
    try:
        discard(temporary)
    except OSError:  # volseg cannot write to the folder, so nothing of it is there
        return
