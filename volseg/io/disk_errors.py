"""Messages for disk errors: what cannot be written, why, and what to do about it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from volseg.errors import ItemOutputError, OutputError

#: A disk with less free space than this counts as full, whatever a library reports about its failed write.
_FULL_BYTES = 1_000_000
#: Access denied and sharing violation: Windows replaces and removes no file that a viewer or a spreadsheet has open.
_HELD_OPEN = (5, 32)


def output_error(path: Path, error: OSError) -> OutputError:
    """Build the error for a `path` that cannot be written, with a hint.

    Returns:
        An `ItemOutputError` if it concerns this path alone, so that others may still be written.
    """
    if error.errno is None and isinstance(error.__cause__, OSError):  # a library wrapped it in its own message
        error = error.__cause__
    if error.errno is None and _is_full(path.parent):  # numpy only reports how many bytes it could not write
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    kind = OutputError
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            hint = "free some space or choose another --output; what is already there is complete"
        case errno.EACCES | errno.EPERM if os.access(path.parent, os.W_OK | os.X_OK):
            held = getattr(error, "winerror", None) in _HELD_OPEN
            why = "close the program that has it open, or" if held else "it is protected:"
            kind, hint = ItemOutputError, f"{why} choose an --output that you can write to"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            hint = "choose an --output that you can write to"
        case errno.ENOTDIR | errno.EEXIST:
            kind, hint = ItemOutputError, "a file stands where a folder is needed; choose another --output"
        case errno.EISDIR | errno.ENOTEMPTY | errno.ELOOP:
            kind, hint = ItemOutputError, "a folder stands where a file is needed; choose another --output"
        case errno.ENAMETOOLONG:
            kind, hint = ItemOutputError, "shorten the names of the folders that the image lies in, or of --output"
        case errno.EINVAL | errno.EILSEQ:
            kind, hint = ItemOutputError, "the disk cannot store that name: rename the image, or choose another disk"
        case _:
            hint = "choose another --output"
    return kind(f"cannot write {path}: {error.strerror or error}", hint=hint)


def _is_full(folder: Path) -> bool:
    return folder.is_dir() and shutil.disk_usage(folder).free < _FULL_BYTES
