"""What can be opened at all: regular files and links to them.

A named pipe would wait for ever, a device may do anything and has no end, and so may what Linux shows of itself as
files without a size. They lie in folders of patients all the same: of viewers, of synchronisation, of containers.
"""

from __future__ import annotations

import errno
import stat
from pathlib import Path

from volseg.errors import DataError
from volseg.system import is_of_the_kernel

#: What can be done about a file that is not as it was written.
COPY_AGAIN = "copy or export the file again"

_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def special_kind(path: Path) -> str:
    """What a path is, if that must not be opened ("a named pipe"); empty for all else, also where nothing is."""
    try:
        found = path.stat()
    except OSError:  # who opens it learns why it cannot be
        return ""
    if stat.S_ISREG(found.st_mode) and not found.st_size and is_of_the_kernel(path):
        return "a file of the kernel"
    return _SPECIAL.get(stat.S_IFMT(found.st_mode), "")


def refuse_special(path: Path) -> None:
    """Refuse what must not be opened.

    Raises:
        DataError: If it is a named pipe, a socket, a device or a file of the kernel, or a link to one.
    """
    if kind := special_kind(path):
        raise DataError(f"{path} is {kind}, no file", hint="store its content in a file, or take it out of the folder")


def check_there(path: Path) -> None:
    """Refuse a path at which nothing is.

    Raises:
        DataError: If it does not exist, or cannot be looked at.
    """
    try:
        path.stat()
    except OSError as error:
        raise unreadable(path, error) from error


def check_file(path: Path) -> None:
    """Refuse what is no regular file, nor a link to one; nothing is opened.

    Raises:
        DataError: Says what it is instead.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise DataError(f"{str(path)!r} has a NUL in it, which no path has", hint=COPY_AGAIN) from error
    refuse_special(path)
    if stat.S_ISDIR(mode):
        raise DataError(f"{path} is a folder, no file", hint="rename it, or give the file in it")


def unreadable(path: Path, error: OSError) -> DataError:
    """Say why a file cannot be read, and what to do about it."""
    match error.errno:
        case errno.ENOENT if path.is_symlink():
            return DataError(f"{path} is a link to nothing", hint="put the file itself there, or mend the link")
        case errno.ENOENT:
            return DataError(f"{path} does not exist", hint="check the path: it may have been moved or renamed")
        case errno.ELOOP:
            return DataError(f"{path} is a link that leads back to itself", hint="put the file itself there")
        case errno.EACCES | errno.EPERM:
            return DataError(f"{path} cannot be read: {error.strerror}", hint="give yourself the right to read it")
        case errno.ENAMETOOLONG:
            return DataError(f"{path} cannot be read: {error.strerror}", hint="shorten the names of its folders")
    return DataError(f"{path} cannot be read: {error.strerror or error}", hint=COPY_AGAIN)
