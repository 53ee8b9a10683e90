"""Uploaded files: DICOM objects, images of other formats, and .zip archives of these."""

from __future__ import annotations

import lzma
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import SEEK_END
from pathlib import Path, PurePosixPath
from tempfile import SpooledTemporaryFile
from typing import IO, BinaryIO, cast

from volseg.errors import DataError
from volseg.io.images import image_suffix
from volseg.serving.dicom.keeping import keep_object
from volseg.serving.dicom.objects import begins_like_dicom, read_place
from volseg.serving.store import Store
from volseg.serving.store.cases import Place, add_upload, study_id

#: What an archive may unpack to, as a multiple of the largest upload, and as a share of the free disk.
_EXPANSION, _SHARE_OF_DISK = 4, 0.5
#: Files in an archive, and bytes of its list of them, which is read at once.
_MOST_FILES, _LONGEST_LIST = 50_000, 2**24
#: Largest DICOM object, which is kept in memory on its way to the disk.
_LARGEST_OBJECT = 2**31
_CHUNK, _IN_MEMORY = 2**20, 2**24
#: What zipfile raises for archives that are damaged, or made to do damage.
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, NotImplementedError),
    *(ValueError, OverflowError, LookupError),
)
_SEPARATORS = re.compile(r"[/\\]")


@dataclass(frozen=True)
class Upload:
    """A file that somebody sends.

    Attributes:
        name: What they call it; perhaps with folders of their machine, which mean nothing here.
        file: Its content.
    """

    name: str
    file: BinaryIO


@dataclass(frozen=True)
class Stored:
    """What became of an upload.

    Attributes:
        case_ids: The ids of its cases, each once.
        left_out: Why files were not kept, a sentence for each.
    """

    case_ids: tuple[str, ...]
    left_out: tuple[str, ...]


def store_uploads(store: Store, uploads: Sequence[Upload], user: str, largest_bytes: float) -> Stored:
    """Keep uploaded images; other files, such as those that come along on a disc for patients, are left out.

    Args:
        store: The store.
        uploads: The files.
        user: Who sends them.
        largest_bytes: Largest upload.

    Raises:
        DataError: If there is no image among the files, or an archive is damaged or unpacks to too much.
        OSError: If they cannot be written.
    """
    # First all are looked at: of an upload that is refused, nothing is kept.
    reasons = [_why_left_out(upload) for upload in _unpacked(store, uploads, largest_bytes)]
    left_out = tuple(reason for reason in reasons if reason)
    if len(left_out) == len(reasons):
        why = left_out[0] if left_out else "there is no image among the files"
        raise DataError(why, hint="upload DICOM, NIfTI, NRRD or MetaImage")
    case_ids = dict[str, None]()
    for upload, reason in zip(_unpacked(store, uploads, largest_bytes), reasons, strict=True):
        if not reason:
            case_ids[_keep(store, upload, user)] = None
    return Stored(tuple(case_ids), left_out)


def _why_left_out(upload: Upload) -> str:
    """Return why a file is no image; empty if it is one."""
    try:
        _check(upload)
    except DataError as error:
        return str(error)
    return ""


def base_name(name: str) -> str:
    """Return the last part of a path of whatever system."""
    return _SEPARATORS.split(name)[-1] or "image"


def _check(upload: Upload) -> Place | str:
    """Return where an object belongs, or the suffix of an image of another format.

    Raises:
        DataError: If it is neither.
    """
    name = base_name(upload.name)
    if begins_like_dicom(upload.file):
        if upload.file.seek(0, SEEK_END) > _LARGEST_OBJECT:
            raise DataError(f"{name} is larger than 2 GB", hint="upload its frames as a series of images")
        upload.file.seek(0)
        place = read_place(upload.file)
        if not place.is_image:
            raise DataError(f"{name} is no image but a {place.modality or 'DICOM object'}", hint="leave it out")
        return place
    if not (suffix := image_suffix(Path(name))):
        raise DataError(f"{name} is no image that volseg reads", hint="upload DICOM, NIfTI, NRRD or MetaImage")
    return suffix


def _keep(store: Store, upload: Upload, user: str) -> str:
    """Keep one file, and return the id of its case."""
    found = _check(upload)
    upload.file.seek(0)
    if isinstance(found, Place):
        keep_object(store, found, upload.file.read(), user)
        return study_id(found.study_uid)

    def put(folder: Path) -> None:
        with (folder / f"image{found.lower()}").open("wb") as file:
            shutil.copyfileobj(upload.file, file, _CHUNK)

    return add_upload(store, base_name(upload.name), put, replaces=False)


def _unpacked(store: Store, uploads: Sequence[Upload], largest_bytes: float) -> Iterator[Upload]:
    """Yield the files, and those in archives; names in archives that are hidden or list a DICOMDIR are left out."""
    room = min(_EXPANSION * largest_bytes, _SHARE_OF_DISK * store.free_bytes)
    for upload in uploads:
        name = base_name(upload.name)
        if not name.lower().endswith(".zip"):
            yield upload
            continue
        with _explained(name), _opened(name, upload.file) as archive:
            for entry in _entries(archive, name):
                with SpooledTemporaryFile(_IN_MEMORY, dir=str(store.work)) as file:
                    room -= _unpack(archive, entry, file, room)
                    yield Upload(entry.filename, cast("BinaryIO", file))


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Say of errors in an archive what to do about them."""
    try:
        yield
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno:  # of our disk
            raise
        raise DataError(f"{name} cannot be unpacked: {error}", hint="make the archive again") from error


def _opened(name: str, file: BinaryIO) -> zipfile.ZipFile:
    """Open an archive whose list of files is not too long for the memory."""
    file.seek(0)
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # noqa: SLF001  ZipFile itself reads all of the list
    if end and end[zipfile._ECD_SIZE] > _LONGEST_LIST:  # type: ignore[attr-defined]  # noqa: SLF001
        raise _too_many(name)
    return zipfile.ZipFile(file)


def _entries(archive: zipfile.ZipFile, name: str) -> list[zipfile.ZipInfo]:
    entries = [entry for entry in archive.infolist() if not _is_left_out(entry)]
    if len(entries) > _MOST_FILES:
        raise _too_many(name)
    return entries


def _too_many(name: str) -> DataError:
    return DataError(f"{name} holds more than {_MOST_FILES} files", hint="upload it in parts")


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file: IO[bytes], room: float) -> int:
    """Unpack a file of an archive, which may lie about its size, and return that."""
    size = 0
    with archive.open(entry) as packed:
        while piece := packed.read(_CHUNK):
            size += file.write(piece)
            if size > room:
                raise DataError("the archive unpacks to more than is allowed", hint="upload it in parts, unpacked")
    return size


def _is_left_out(entry: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(entry.filename.replace("\\", "/")).parts
    hidden = any(part.startswith((".", "__MACOSX")) and part != ".." for part in parts)
    return entry.is_dir() or hidden or (bool(parts) and parts[-1].upper() == "DICOMDIR")
