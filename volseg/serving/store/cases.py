"""Cases: studies that are received object by object, and images that somebody uploads."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from volseg.about import hash_of
from volseg.cases.case_ids import pseudonym
from volseg.io.itk_header import check_alone
from volseg.serving.store.database import Store, new_id
from volseg.system import flush

_ENDING = ".dcm"


@dataclass(frozen=True)
class Place:
    """Where an object belongs.

    Attributes:
        sop_uid: SOPInstanceUID.
        study_uid: StudyInstanceUID.
        series_uid: SeriesInstanceUID.
        modality: Modality.
        is_image: Whether it is an image, and no segmentation, structure set, report or presentation state.
    """

    sop_uid: str
    study_uid: str
    series_uid: str
    modality: str
    is_image: bool


@dataclass(frozen=True)
class Description:
    """Whose study it is, and what it is called.

    Attributes:
        patient: PatientName, as a person reads it.
        patient_id: PatientID.
        study: StudyDescription.
        date: StudyDate.
        series: SeriesDescription.
    """

    patient: str = ""
    patient_id: str = ""
    study: str = ""
    date: str = ""
    series: str = ""


def study_id(study_uid: str) -> str:
    """Return the id of the case of a study."""
    return pseudonym(f"study {study_uid}")


def image_id(name: str) -> str:
    """Return the id of the case of an uploaded image."""
    return pseudonym(f"image {name}")


def add_object(
    store: Store, place: Place, sender: str, content: bytes, digest: str, describe: Callable[[], Description]
) -> bool:
    """Keep an object: its file is on disk, then its row is.

    Args:
        store: The store.
        place: Where it belongs.
        sender: AE title of who sent it.
        content: A whole DICOM file (PS3.10).
        digest: Identifies its data set, whoever sends it.
        describe: Reads what it says of the patient; called for the first object of a series.

    Returns:
        False if the same object is there already, so that nothing has changed.

    Raises:
        OSError: If it cannot be written.
    """
    object_id, digest = pseudonym(place.sop_uid), digest[:16]
    known = store.row("SELECT digest FROM objects WHERE id = ?", object_id)
    if known is not None and known["digest"] == digest:
        return False
    name = f"{object_id}-{digest}{_ENDING}"
    folder = store.case_folder(study_id(place.study_uid))
    folder.mkdir(exist_ok=True)
    _write(content, store.incoming / new_id(), folder / name)
    _add_row(store, place, sender, name, len(content), describe)
    return True


def recover(store: Store, read: Callable[[Path], tuple[Place, str]], describe: Callable[[Path], Description]) -> int:
    """Take back objects whose file was written but whose row was lost, and remove what was half received.

    Args:
        store: The store.
        read: Reads from a file where it belongs, and who sent it.
        describe: Reads from a file what it says of the patient.

    Returns:
        How many there were.
    """
    for leftover in store.incoming.iterdir():
        leftover.unlink()
    known = {row["file"] for row in store.rows("SELECT file FROM objects")}
    lost = [path for path in _files(store) if path.name not in known]
    for path in sorted(lost, key=lambda path: path.stat().st_mtime):
        _add_row(store, *read(path), path.name, path.stat().st_size, partial(describe, path))
    return len(lost)


def restart_quiet_time(store: Store) -> None:
    """Let no study have been quiet until now: while nothing could be received, its sender was not done, but waited."""
    store.change("UPDATE cases SET changed = ? WHERE origin = 'dicom' AND planned < revision", time.time())


def add_upload(store: Store, name: str, put: Callable[[Path], None], *, replaces: bool = True) -> str:
    """Keep an uploaded image.

    Args:
        store: The store.
        name: What whoever uploads it calls it: any text.
        put: Writes the image into a folder.
        replaces: Whether another image of that name is replaced, with its masks, which do not lie on the new one;
            otherwise the new one gets a number. The same image is the same case in both.

    Returns:
        The id of its case.

    Raises:
        DataError: If it names other files for its voxels.
    """
    made = store.work / new_id()
    made.mkdir()
    try:
        put(made)
        files = sorted(made.iterdir())
        for path in files:
            check_alone(path)
        digest = "".join(hash_of(path) for path in files)
        with store.transaction():
            name = name if replaces else _free_name(store, name, digest)
            if not _is_there(store, name, digest):
                remove_case(store, image_id(name))
                made.rename(store.case_folder(image_id(name)))
                now = time.time()
                store.change(
                    "INSERT INTO cases (id, origin, name, digest, revision, created, changed)"
                    " VALUES (?, 'upload', ?, ?, 1, ?, ?)",
                    *(image_id(name), name, digest, now, now),
                )
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return image_id(name)


def _free_name(store: Store, name: str, digest: str) -> str:
    """Return a name that no other image has: "scan.nii.gz", else "2 scan.nii.gz" ..."""
    candidate = name
    for number in count(2):
        taken = store.row("SELECT digest FROM cases WHERE id = ?", image_id(candidate))
        if taken is None or taken["digest"] == digest:
            break
        candidate = f"{number} {name}"
    return candidate


def _is_there(store: Store, name: str, digest: str) -> bool:
    row = store.row("SELECT digest FROM cases WHERE id = ?", image_id(name))
    return row is not None and row["digest"] == digest


def link_images(store: Store, case_id: str, folder: Path, series_uid: str = "") -> None:
    """Show the images of a case as they are now in a folder, whatever arrives meanwhile.

    Args:
        store: The store.
        case_id: The case.
        folder: The folder, which is created.
        series_uid: Of a study: the only series that is wanted; empty for all.

    Raises:
        OSError: If that cannot be done.
    """
    images = store.case_folder(case_id)
    rows = store.rows("SELECT file, series_uid FROM objects WHERE case_id = ?", case_id)
    wanted = (row for row in rows if series_uid in {"", row["series_uid"]})
    names = [(pseudonym(row["series_uid"]), row["file"]) for row in wanted]
    if not rows:  # it was uploaded
        shutil.copytree(images, folder, copy_function=_link)
    for series, name in names:
        (folder / series).mkdir(parents=True, exist_ok=True)
        _link(str(images / name), str(folder / series / name))


def remove_case(store: Store, case_id: str) -> None:
    """Remove a case, with its images, jobs and results."""
    jobs = [row["id"] for row in store.rows("SELECT id FROM jobs WHERE case_id = ?", case_id)]
    store.change("DELETE FROM cases WHERE id = ?", case_id)  # first, since a row never lacks its file
    for folder in (store.case_folder(case_id), store.annotation_folder(case_id), *map(store.job_folder, jobs)):
        shutil.rmtree(folder, ignore_errors=True)


def _write(content: bytes, temporary: Path, path: Path) -> None:
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


def _add_row(
    store: Store, place: Place, sender: str, file: str, size: int, describe: Callable[[], Description]
) -> None:
    """Note an object whose file is on disk, in place of an earlier version of it."""
    object_id, _, digest = file.removesuffix(_ENDING).partition("-")
    case_id, now = study_id(place.study_uid), time.time()
    with store.transaction():
        earlier = store.row("SELECT case_id, file FROM objects WHERE id = ?", object_id)
        known = store.row("SELECT 1 FROM series WHERE case_id = ? AND uid = ?", case_id, place.series_uid)
        if known is None or earlier is not None:  # names may have been corrected
            _describe(store, place, describe(), now)
        changed = {case_id} if earlier is None else {case_id, earlier["case_id"]}
        for each in changed:
            store.change("UPDATE cases SET revision = revision + 1, changed = ? WHERE id = ?", now, each)
        store.change(
            "INSERT OR REPLACE INTO objects (id, case_id, series_uid, sender, digest, file, size) VALUES"
            " (?, ?, ?, ?, ?, ?, ?)",
            *(object_id, case_id, place.series_uid, sender, digest, file, size),
        )
    if earlier is not None and earlier["file"] != file:
        (store.case_folder(earlier["case_id"]) / earlier["file"]).unlink(missing_ok=True)


def _describe(store: Store, place: Place, description: Description, now: float) -> None:
    """Note whose study it is, and what the series is called."""
    case_id = study_id(place.study_uid)
    store.change(
        "INSERT INTO cases (id, origin, name, patient, patient_id, description, date, created, changed)"
        " VALUES (?, 'dicom', ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET patient = excluded.patient,"
        " patient_id = excluded.patient_id, description = excluded.description, date = excluded.date",
        *(case_id, place.study_uid, description.patient, description.patient_id, description.study, description.date),
        *(now, now),
    )
    store.change(
        "INSERT OR REPLACE INTO series (case_id, uid, modality, description) VALUES (?, ?, ?, ?)",
        *(case_id, place.series_uid, place.modality, description.series),
    )


def _files(store: Store) -> Iterator[Path]:
    """Yield the files of all received objects."""
    for folder in (store.folder / "cases").iterdir():
        yield from folder.glob(f"*-*{_ENDING}")


def _link(source: str, target: str) -> None:
    """Give a file a second name, or copy it where the disk knows no links."""
    with suppress(OSError):
        os.link(source, target)
        return
    shutil.copyfile(source, target)
