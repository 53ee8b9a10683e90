"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from volseg.errors import OutputError

#: Marks files that are being written. Discovery never sees hidden files, and a killed run's leftovers are recognised.
TEMPORARY_PREFIX = ".volseg-part-"
#: A disk with less room than this is full, whatever a library says of its failed write.
_FULL_BYTES = 1_000_000


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, moved onto it when the block succeeds and removed when it does not.

    The temporary name keeps the suffix, because libraries choose the format by it.

    Args:
        path: Where the file will be. Missing parent folders are made.

    Yields:
        The path to write to.

    Raises:
        OutputError: If the folder or the file cannot be written (permission, full disk).
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        _remove(temporary)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text file.

    Raises:
        OutputError: If it cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def make_folder(folder: Path) -> None:
    """Make an output folder and prove that files can be written into it, before hours of work are put in.

    Raises:
        OutputError: If it cannot be made or written.
    """
    probe = folder / f"{TEMPORARY_PREFIX}{os.getpid()}-probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
    except OSError as error:
        raise output_error(folder, error) from error
    finally:
        _remove(probe)


def remove_leftovers(folder: Path) -> None:
    """Remove the half-written files that a killed process left in an output folder.

    Raises:
        OutputError: If one cannot be removed.
    """
    for leftover in folder.rglob(f"{TEMPORARY_PREFIX}*"):
        try:
            leftover.unlink()
        except OSError as error:
            raise output_error(leftover, error) from error


def without_root(text: str, root: Path) -> str:
    """Shorten paths below what the user named to what they are within it; the rest may say who a case is."""
    folder = root if root.is_dir() else root.parent
    return text.replace(f"{folder}{os.sep}", "").replace(f"{folder}:", "the images:")


def output_error(path: Path, error: OSError) -> OutputError:
    """Say why `path` cannot be written, and what to do about it."""
    if error.errno is None and isinstance(error.__cause__, OSError):  # a library put words of its own around it
        error = error.__cause__
    if error.errno is None and _is_full(path.parent):  # numpy says only how many bytes it could not write
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            hint = "free some space or choose another --output; what is already there is complete"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            hint = "choose an --output that you may write to"
        case errno.ENOTDIR | errno.EEXIST:
            hint = "a file stands where a folder is needed; choose another --output"
        case _:
            hint = "choose another --output"
    return OutputError(f"cannot write {path}: {error.strerror or error}", hint=hint)


def _is_full(folder: Path) -> bool:
    return folder.is_dir() and shutil.disk_usage(folder).free < _FULL_BYTES


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # the folder is not ours to write, so nothing of ours is in it
        return
