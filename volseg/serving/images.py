"""Images as clients of MONAI Label call them: a name of their own, or the SeriesInstanceUID of a series."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Lock

from volseg.errors import DataError
from volseg.io import Source
from volseg.io.images import image_suffix
from volseg.serving.config import ServerConfig
from volseg.serving.dicom.keeping import keep_object
from volseg.serving.dicom.objects import begins_like_dicom, read_place
from volseg.serving.dicom.web import retrieve_series, search
from volseg.serving.store import Store
from volseg.serving.store.cases import add_upload, image_id, remove_case, study_id
from volseg.serving.store.database import new_id
from volseg.serving.uploads import Upload, base_name
from volseg.serving.views import image_view, volume_source

#: UIDs (PS3.5 section 9.1).
_UID = re.compile(r"[0-9.]{1,64}")
_STUDY_UID = "0020000D"
_CHUNK = 2**20
_LOCKS = [Lock() for _ in range(16)]


@dataclass(frozen=True)
class Image:
    """An image.

    Attributes:
        name: What clients call it.
        case_id: The case it belongs to.
        series_uid: Of a study: which series; empty for an uploaded image.
        study_uid: Of a study: its StudyInstanceUID.
        modality: Of a series.
    """

    name: str
    case_id: str
    series_uid: str = ""
    study_uid: str = ""
    modality: str = ""


def list_images(store: Store) -> list[Image]:
    """Return all images, except those of sessions, the oldest first."""
    uploads = store.rows(
        "SELECT id, name FROM cases WHERE origin = 'upload' AND id NOT IN (SELECT case_id FROM image_sessions)"
        " ORDER BY created"
    )
    series = store.rows(
        "SELECT case_id, uid, name, modality FROM series JOIN cases ON cases.id = case_id ORDER BY created, uid"
    )
    return [
        *(Image(row["name"], row["id"]) for row in uploads),
        *(Image(row["uid"], row["case_id"], row["uid"], row["name"], row["modality"]) for row in series),
    ]


def find_image(store: Store, name: str) -> Image | None:
    """Return an image; None if there is none of that name."""
    upload = store.row("SELECT id FROM cases WHERE id = ? AND origin = 'upload'", image_id(name))
    if upload is not None:
        return Image(name, upload["id"])
    series = store.row(
        "SELECT case_id, uid, name, modality FROM series JOIN cases ON cases.id = case_id WHERE uid = ?", name
    )
    return None if series is None else Image(name, series["case_id"], name, series["name"], series["modality"])


def fetch_image(store: Store, config: ServerConfig, name: str) -> Image | None:
    """Return an image; a series that is not here is retrieved from the DICOMweb service that images are taken from.

    Returns:
        None if there is no such image there, either.

    Raises:
        DeliveryError: If the service cannot be reached.
        DataError: If what it answers cannot be read.
    """
    with _LOCKS[hash(name) % len(_LOCKS)]:  # a series is known from its first object on
        known = find_image(store, name)
        if known is not None or config.web.dicomweb is None or not _UID.fullmatch(name):
            return known
        service = config.destinations[config.web.dicomweb]
        for found in search(service, "series", SeriesInstanceUID=name, includefield=_STUDY_UID):
            study_uid = str(found[_STUDY_UID]["Value"][0])
            for content in retrieve_series(service, study_uid, name):
                _keep_object(store, content, config.web.dicomweb)
        return find_image(store, name)


def keep_image(store: Store, name: str, files: Sequence[Upload]) -> Image:
    """Keep an image that somebody sends: one file, or the slices of a DICOM series.

    Args:
        store: The store.
        name: What it is called: any text.
        files: Its files.

    Raises:
        DataError: If one of them is no image that volseg reads.
    """
    names = [f"{number:05d}{_suffix(file)}" for number, file in enumerate(files)]

    def put(folder: Path) -> None:
        for file, inside in zip(files, names, strict=True):
            with (folder / inside).open("wb") as copy:
                shutil.copyfileobj(file.file, copy, _CHUNK)

    return Image(name, add_upload(store, name, put))


def source_of(store: Store, image: Image) -> Source:
    """Return what reads an image.

    Raises:
        DataError: If it is not there.
    """
    return volume_source(store.case_folder(image.case_id), image.series_uid)


def image_file(store: Store, image: Image) -> Path:
    """Return an image as a file: as it was sent, or a series as NIfTI.

    Raises:
        DataError: If it cannot be read.
    """
    files = sorted(store.case_folder(image.case_id).iterdir())
    if not image.series_uid and len(files) == 1:
        return files[0]
    case = store.row("SELECT revision FROM cases WHERE id = ?", image.case_id)
    return image_view(store, image.case_id, case["revision"] if case else 0, image.series_uid)


def file_name(image: Image, file: Path) -> str:
    """Return a name for the file of an image, by which a viewer recognises its format."""
    suffix = image_suffix(file) or file.suffix
    stem = base_name(image.name).removesuffix(suffix)
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', stem) or 'image'}{suffix}"


def begin_session(store: Store, files: Sequence[Upload], seconds: float) -> str:
    """Keep an image that a client works on for a while.

    Args:
        store: The store.
        files: Its files.
        seconds: How long it is kept after its last use.

    Returns:
        The id of the session.

    Raises:
        DataError: If a file is no image that volseg reads.
    """
    for row in store.rows("SELECT id FROM image_sessions WHERE used + seconds < ?", time.time()):
        end_session(store, row["id"])
    session_id = new_id()
    image = keep_image(store, f"session {session_id}", files)
    store.change(
        "INSERT INTO image_sessions (id, case_id, seconds, used) VALUES (?, ?, ?, ?)",
        *(session_id, image.case_id, seconds, time.time()),
    )
    return session_id


def session_image(store: Store, session_id: str) -> Image | None:
    """Return the image of a session, which is used now; None if there is no such session."""
    store.change("UPDATE image_sessions SET used = ? WHERE id = ?", time.time(), session_id)
    row = store.row("SELECT case_id FROM image_sessions WHERE id = ?", session_id)
    return None if row is None else Image(f"session {session_id}", row["case_id"])


def end_session(store: Store, session_id: str) -> None:
    """Remove a session and its image."""
    row = store.row("SELECT case_id FROM image_sessions WHERE id = ?", session_id)
    if row is not None:
        remove_case(store, row["case_id"])


def _keep_object(store: Store, content: bytes, sender: str) -> None:
    """Keep an object that somebody has asked for: the rules are for what arrives by itself."""
    place = read_place(BytesIO(content))
    case_id = study_id(place.study_uid)
    is_awaited = store.row("SELECT 1 FROM cases WHERE id = ? AND planned < revision", case_id) is not None
    keep_object(store, place, content, sender)
    if not is_awaited:
        store.change("UPDATE cases SET planned = revision WHERE id = ?", case_id)


def _suffix(file: Upload) -> str:
    """Return the suffix that a file is kept under: what it is, not what somebody calls it.

    Raises:
        DataError: If it is no image that volseg reads.
    """
    suffix = ".dcm" if begins_like_dicom(file.file) else image_suffix(Path(base_name(file.name)))
    if not suffix:
        raise DataError(f"{base_name(file.name)} is no image that volseg reads", hint="send NIfTI, NRRD or DICOM")
    return suffix
