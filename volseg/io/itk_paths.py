"""Paths for ITK, which crashes the process if one is not UTF-8.

Names on old disks and in archives from other systems may be other bytes. Such a file is accessed through a link in a
temporary folder.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from volseg.errors import DataError
from volseg.io.written import TEMPORARY_PREFIX


@contextmanager
def readable_path(path: Path, beside: Iterable[Path] = ()) -> Iterator[str]:
    """Provide a path by which ITK can read a file.

    Args:
        path: The file.
        beside: Files that its header refers to.

    Yields:
        The path, or that of a link.

    Raises:
        DataError: If the name is not UTF-8 and no link can be made.
    """
    if (text := _as_utf8(path)) is not None:
        yield text
        return
    with tempfile.TemporaryDirectory(prefix="volseg-") as folder:
        try:
            link = Path(folder) / f"image{path.suffix.lower()}"
            link.symlink_to(path.absolute())
            for other in beside:
                if other.is_file() and other.parent == path.parent:
                    (Path(folder) / other.name).symlink_to(other.absolute())
        except OSError as error:
            raise DataError(f"{path} has a name that is not UTF-8: {error.strerror}", hint="rename it") from error
        yield str(link)


@contextmanager
def writable_path(path: Path) -> Iterator[str]:
    """Provide a path by which ITK can write a file, which is moved to `path` when the block succeeds.

    Its suffix is in lower case: ITK puts the voxels of any other MetaImage file beside it.

    Raises:
        OSError: If it cannot be moved there.
    """
    if (text := _as_utf8(path)) is not None and path.suffix.islower():
        yield text
        return
    with ExitStack() as stack:
        folder = path.parent
        if text is None:  # by a link, which Windows, whose names are all UTF-8, lets few users make
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="volseg-"))) / "output"
            folder.symlink_to(path.parent.absolute(), target_is_directory=True)
        suffix = ".seg.nrrd" if path.name.lower().endswith(".seg.nrrd") else path.suffix.lower()
        written = folder / f"{TEMPORARY_PREFIX}{os.getpid()}-itk{suffix}"
        try:
            yield str(written)
            written.replace(path)
        finally:
            written.unlink(missing_ok=True)


def _as_utf8(path: Path) -> str | None:
    """Return the path as text whose UTF-8 is its name on disk, whatever the locale says; None if there is none."""
    try:
        return os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        return None
