"""Uploaded files: DICOM objects, images of other formats, and .zip archives of these."""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from volseg.errors import DataError
from volseg.io.images import image_suffix
from volseg.serving.dicom.objects import read_description, read_place
from volseg.serving.store import Store
from volseg.serving.store.cases import add_object, add_upload, study_id

#: What an archive may unpack to, as a multiple of the largest upload; and how many files.
_EXPANSION, _MOST_FILES = 4, 50_000
_PREAMBLE = 132
_CHUNK = 2**20
_BROKEN = (zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError, ValueError)
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


def store_uploads(store: Store, uploads: Sequence[Upload], user: str, largest_bytes: float) -> list[str]:
    """Keep uploaded images.

    Args:
        store: The store.
        uploads: The files.
        user: Who sends them.
        largest_bytes: Largest upload.

    Returns:
        The ids of their cases, each once.

    Raises:
        DataError: If a file is no image, or an archive is damaged or unpacks to too much.
        OSError: If they cannot be written.
    """
    case_ids = dict[str, None]()
    for upload in _unpacked(uploads, largest_bytes):
        case_ids[_store_one(store, upload, user)] = None
    if not case_ids:
        raise DataError("there is no image among the files", hint="upload DICOM, NIfTI, NRRD or MetaImage")
    return list(case_ids)


def base_name(name: str) -> str:
    """Return the last part of a path of whatever system."""
    return _SEPARATORS.split(name)[-1] or "image"


def _store_one(store: Store, upload: Upload, user: str) -> str:
    """Keep one file: an object of a study, or an image of its own."""
    head = upload.file.read(_PREAMBLE)
    upload.file.seek(0)
    name = base_name(upload.name)
    if head[128:] == b"DICM":
        content = upload.file.read()
        place = read_place(BytesIO(content))
        if not place.is_image:
            raise DataError(f"{name} is no image but a {place.modality or 'DICOM object'}", hint="leave it out")
        digest = hashlib.sha256(content).hexdigest()
        add_object(store, place, user, content, digest, lambda: read_description(BytesIO(content)))
        return study_id(place.study_uid)
    suffix = image_suffix(Path(name))
    if not suffix:
        raise DataError(f"{name} is no image that volseg reads", hint="upload DICOM, NIfTI, NRRD or MetaImage")

    def put(folder: Path) -> None:
        with (folder / f"image{suffix.lower()}").open("wb") as file:
            shutil.copyfileobj(upload.file, file, _CHUNK)

    return add_upload(store, name, put)


def _unpacked(uploads: Sequence[Upload], largest_bytes: float) -> Iterator[Upload]:
    """Yield the files, and those in archives; names in archives that are hidden or list a DICOMDIR are left out."""
    room = _EXPANSION * largest_bytes
    for upload in uploads:
        if not base_name(upload.name).lower().endswith(".zip"):
            yield upload
            continue
        name = base_name(upload.name)
        try:
            with zipfile.ZipFile(upload.file) as archive:
                entries = [entry for entry in archive.infolist() if not _is_left_out(entry)]
                if len(entries) > _MOST_FILES:
                    raise DataError(f"{name} holds more than {_MOST_FILES} files", hint="upload it in parts")
                for entry in entries:
                    content = _content(archive, entry, room)
                    room -= len(content)
                    yield Upload(entry.filename, BytesIO(content))
        except _BROKEN as error:
            raise DataError(f"{name} cannot be unpacked: {error}", hint="make the archive again") from error


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, room: float) -> bytes:
    """Unpack a file of an archive, which may lie about its size."""
    content = bytearray()
    with archive.open(entry) as file:
        while piece := file.read(_CHUNK):
            content += piece
            if len(content) > room:
                raise DataError("the archive unpacks to more than is allowed", hint="upload it in parts, unpacked")
    return bytes(content)


def _is_left_out(entry: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(entry.filename.replace("\\", "/")).parts
    hidden = any(part.startswith((".", "__MACOSX")) and part != ".." for part in parts)
    return entry.is_dir() or hidden or (bool(parts) and parts[-1].upper() == "DICOMDIR")
