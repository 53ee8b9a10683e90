"""Check what may be opened at all: regular files and links to them.

A named pipe would block for ever, a device may do anything and has no end, and the same goes for Linux kernel files
without a size. Yet they occur in patient folders: of viewers, of synchronisation, of containers.
"""

from __future__ import annotations

import errno
import stat
from pathlib import Path

from volseg.errors import DataError
from volseg.system import is_of_the_kernel

#: Hint for a file that is not as it was written.
COPY_AGAIN = "copy or export the file again"

_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def special_kind(path: Path) -> str:
    """Return the kind of a path that must not be opened ("a named pipe"); empty for anything else, even if missing."""
    try:
        found = path.stat()
    except OSError:  # opening it reports why that is impossible
        return ""
    if stat.S_ISREG(found.st_mode) and not found.st_size and is_of_the_kernel(path):
        return "a file of the kernel"
    return _SPECIAL.get(stat.S_IFMT(found.st_mode), "")


def refuse_special(path: Path) -> None:
    """Check that a path may be opened.

    Raises:
        DataError: If it is a named pipe, a socket, a device or a file of the kernel, or a link to one.
    """
    if kind := special_kind(path):
        raise DataError(
            f"{path} is {kind}, not a file", hint="store its content in a file, or remove it from the folder"
        )


def check_there(path: Path) -> None:
    """Check that a path exists.

    Raises:
        DataError: If it does not exist, or cannot be accessed.
    """
    try:
        path.stat()
    except OSError as error:
        raise unreadable(path, error) from error


def check_file(path: Path) -> None:
    """Check that a path is a regular file or a link to one, without opening it.

    Raises:
        DataError: If not; says what it is instead.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise DataError(f"{str(path)!r} contains NUL, which a path cannot", hint=COPY_AGAIN) from error
    refuse_special(path)
    if stat.S_ISDIR(mode):
        raise DataError(f"{path} is a folder, not a file", hint="rename it, or give the file in it")


def unreadable(path: Path, error: OSError) -> DataError:
    """Build the error for a file that cannot be read, with a hint."""
    match error.errno:
        case errno.ENOENT if path.is_symlink():
            return DataError(f"{path} is a broken link", hint="put the file itself there, or repair the link")
        case errno.ENOENT:
            return DataError(f"{path} does not exist", hint="check the path: it may have been moved or renamed")
        case errno.ELOOP:
            return DataError(f"{path} is a link that leads back to itself", hint="put the file itself there")
        case errno.EACCES | errno.EPERM:
            return DataError(f"{path} cannot be read: {error.strerror}", hint="give yourself read permission")
        case errno.ENAMETOOLONG:
            return DataError(f"{path} cannot be read: {error.strerror}", hint="shorten the names of its folders")
    return DataError(f"{path} cannot be read: {error.strerror or error}", hint=COPY_AGAIN)
