"""Files inside .zip and .gz archives: their paths simply continue into the archive, as in `study.zip/IM0001`.

Compression is detected by the first bytes of a file, whatever its name says.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from volseg.errors import DataError
from volseg.io.gzip_files import MAGIC, unpack, unpack_head
from volseg.io.readable import refuse_special

#: Largest size of an unpacked file; anything larger is not a DICOM file but an attack on memory (zip bomb).
_LARGEST_BYTES = 2**32
#: If a packed file is larger than this, its head is read without the rest, and without its checksum.
_LARGE_BYTES = 2**28
#: How many times a file may be gzipped: once on purpose, and once more by a browser or an upload.
_MOST_TIMES = 2
#: Enough bytes of a file to see how many times it is gzipped.
_LARGE_HEAD = 2**16
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, MemoryError, OSError, RuntimeError, NotImplementedError)


def is_archive(path: Path) -> bool:
    """Return whether a file is a .zip, by its name."""
    return path.name.lower().endswith(".zip")


def members(archive: Path) -> Iterator[Path]:
    """Yield the files in a .zip, as paths that continue into it; hidden ones are left out.

    Raises:
        DataError: If the archive is damaged, or a name in it leads out of it.
    """
    names = [name for name in _opened(archive, archive.stat().st_mtime_ns).namelist() if not name.endswith("/")]
    if outside := [name for name in names if name.startswith(("/", "\\")) or ".." in Path(name).parts]:
        raise DataError(f"{archive} holds a name that leads out of it: {outside[0]!r}", hint="unpack it with care")
    for name in dict.fromkeys(names):
        if not any(part.startswith((".", "__MACOSX")) for part in Path(name).parts):
            yield archive / name


def open_stored(path: Path) -> BinaryIO:
    """Open a file, or a file in a .zip, for reading its bytes.

    Raises:
        DataError: If the archive is damaged or encrypted, holds several files of that name, or the path is not a
            regular file.
        OSError: As `Path.open`.
    """
    refuse_special(path)
    try:
        return path.open("rb")
    except NotADirectoryError:  # the path continues after a file
        return io.BytesIO(_member(path))


def read_head(path: Path, size: int) -> bytes:
    """Read the first bytes of a file, unpacked as by `open_file`; of a damaged .gz, as many as can be unpacked.

    Raises:
        DataError: If it lies in an archive that is damaged, or is not a regular file.
        OSError: As `Path.open`.
    """
    refuse_special(path)
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(size)
    except NotADirectoryError:
        head = _member(path, size)
    for _ in range(_MOST_TIMES):
        head = unpack_head(head, size) if head.startswith(MAGIC) else head
    return head


def gzip_depth(path: Path) -> int:
    """Return how many times a file is gzipped: 0 if it is not, one more than can be read if too many times.

    Raises:
        DataError: If it lies in an archive that is damaged, or is not a regular file.
        OSError: As `Path.open`.
    """
    with open_stored(path) as file:
        head = file.read(_LARGE_HEAD)
    depth = 0
    while head.startswith(MAGIC) and depth <= _MOST_TIMES:
        head, depth = unpack_head(head, _LARGE_HEAD), depth + 1
    return depth


def open_file(path: Path) -> BinaryIO:
    """Open a file, or a file in a .zip, and unpack it if it is gzipped.

    Raises:
        DataError: If it cannot be unpacked.
        OSError: As `Path.open`.
    """
    file = open_stored(path)
    for _ in range(_MOST_TIMES):
        magic = file.read(len(MAGIC))
        file.seek(0)
        if magic == MAGIC:
            file = io.BytesIO(_unpacked(file, path))
    return file


def _unpacked(file: BinaryIO, path: Path) -> bytes:
    try:
        with file:
            unpacked = unpack(file, _LARGEST_BYTES + 1)
    except _BROKEN as error:
        raise DataError(f"{path} cannot be unpacked: {error}", hint="copy the file again") from error
    if unpacked.trailing:
        raise DataError(
            f"{path} cannot be unpacked: {unpacked.trailing} bytes after its end are not gzip", hint="copy it again"
        )
    if len(unpacked.content) > _LARGEST_BYTES:
        raise DataError(
            f"{path} unpacks to more than {_LARGEST_BYTES} bytes", hint="unpack it yourself if you trust it"
        )
    return unpacked.content


def _member(path: Path, head: int | None = None) -> bytes:
    """Read a file in a .zip; if it is large, only the first `head` bytes, if those are enough."""
    archive = next(parent for parent in path.parents if parent.is_file())
    name, modified_ns = path.relative_to(archive).as_posix(), archive.stat().st_mtime_ns
    try:
        packed = _opened(archive, modified_ns)
        if name in _contested(archive, modified_ns):
            raise DataError(f"{archive} holds several files called {name}", hint="unpack them into several folders")
        info = packed.getinfo(name)
        if head is not None and info.file_size > _LARGE_BYTES:
            with packed.open(info) as file:
                return file.read(head)
        if info.file_size > _LARGEST_BYTES:
            raise DataError(f"{path} would unpack to {info.file_size} bytes", hint="unpack it yourself if you trust it")
        return packed.read(info)[:head]
    except (*_BROKEN, KeyError) as error:
        raise DataError(f"{path} cannot be unpacked: {error}", hint="unpack the archive, or copy it again") from error


@lru_cache(maxsize=4)
def _opened(archive: Path, modified_ns: int) -> zipfile.ZipFile:  # noqa: ARG001  another file of that name is another key
    try:
        return zipfile.ZipFile(archive)
    except _BROKEN as error:
        raise DataError(f"{archive} is a damaged archive: {error}", hint="copy it again") from error


@lru_cache(maxsize=4)
def _contested(archive: Path, modified_ns: int) -> frozenset[str]:
    """Return names in a .zip that are used for different contents; copies of one content are one file."""
    contents: dict[str, set[tuple[int, int]]] = {}
    for info in _opened(archive, modified_ns).infolist():
        contents.setdefault(info.filename, set()).add((info.CRC, info.file_size))
    return frozenset(name for name, found in contents.items() if len(found) > 1)
