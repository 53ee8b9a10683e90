"""Files inside .zip and .gz: their paths simply go on into the archive, as in `study.zip/IM0001`."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from volseg.errors import DataError
from volseg.io.readable import refuse_special

_GZIP_MAGIC = b"\x1f\x8b"
#: What one packed file may hold; more is no DICOM file but an attack on the memory.
_LARGEST_BYTES = 2**32
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)


def is_archive(path: Path) -> bool:
    """Whether a file is a .zip, by its name."""
    return path.name.lower().endswith(".zip")


def members(archive: Path) -> Iterator[Path]:
    """The files in a .zip, as paths that go on into it; hidden ones are left out.

    Raises:
        DataError: If the archive is damaged, or a name in it leads out of it or stands for two files.
    """
    names = [name for name in _opened(archive, archive.stat().st_mtime_ns).namelist() if not name.endswith("/")]
    if outside := [name for name in names if name.startswith(("/", "\\")) or ".." in Path(name).parts]:
        raise DataError(f"{archive} holds a name that leads out of it: {outside[0]!r}", hint="unpack it with care")
    if len(set(names)) < len(names):
        raise DataError(f"{archive} holds several files of one name", hint="unpack them into several folders")
    for name in names:
        if not any(part.startswith((".", "__MACOSX")) for part in Path(name).parts):
            yield archive / name


def open_stored(path: Path) -> BinaryIO:
    """Open a file, or a file in a .zip, for reading its bytes.

    Raises:
        DataError: If the archive is damaged or encrypted, or the path is no regular file.
        OSError: As `Path.open`.
    """
    refuse_special(path)
    try:
        return path.open("rb")
    except NotADirectoryError:  # the path goes on behind a file
        archive = next(parent for parent in path.parents if parent.is_file())
    try:
        packed = _opened(archive, archive.stat().st_mtime_ns)
        info = packed.getinfo(path.relative_to(archive).as_posix())
        if info.file_size > _LARGEST_BYTES:
            raise DataError(f"{path} would unpack to {info.file_size} bytes", hint="unpack it yourself if you trust it")
        return io.BytesIO(packed.read(info))
    except (*_BROKEN, KeyError) as error:
        raise DataError(f"{path} cannot be unpacked: {error}", hint="unpack the archive, or copy it again") from error


def read_head(path: Path, size: int) -> bytes:
    """The first bytes of a file, unpacked as `open_file` does; of a damaged .gz as many as can be unpacked.

    Raises:
        DataError: If it lies in an archive that is damaged, or is no regular file.
        OSError: As `Path.open`.
    """
    refuse_special(path)
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(size)
    except NotADirectoryError:
        with open_stored(path) as packed:
            head = packed.read(size)
    if not head.startswith(_GZIP_MAGIC):
        return head
    try:
        return zlib.decompressobj(wbits=31).decompress(head, size)
    except zlib.error:
        return b""


def open_file(path: Path) -> BinaryIO:
    """Open a file, or a file in a .zip, and unpack it if it is gzipped.

    Raises:
        DataError: If it cannot be unpacked.
        OSError: As `Path.open`.
    """
    file = open_stored(path)
    magic = file.read(len(_GZIP_MAGIC))
    file.seek(0)
    if magic != _GZIP_MAGIC:
        return file
    try:
        with file, gzip.open(file) as packed:
            content = packed.read(_LARGEST_BYTES + 1)
    except _BROKEN as error:
        raise DataError(f"{path} cannot be unpacked: {error}", hint="copy the file again") from error
    if len(content) > _LARGEST_BYTES:
        raise DataError(
            f"{path} unpacks to more than {_LARGEST_BYTES} bytes", hint="unpack it yourself if you trust it"
        )
    return io.BytesIO(content)


@lru_cache(maxsize=4)
def _opened(archive: Path, modified_ns: int) -> zipfile.ZipFile:  # noqa: ARG001  another file of that name is another key
    try:
        return zipfile.ZipFile(archive)
    except _BROKEN as error:
        raise DataError(f"{archive} is a damaged archive: {error}", hint="copy it again") from error
