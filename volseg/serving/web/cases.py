"""The work list, cases, uploads and downloads."""

from __future__ import annotations

import json
from pathlib import Path
from sqlite3 import Row
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from pydantic import BaseModel

from volseg.exporting import FORMATS, OF_DICOM, OF_PICTURES
from volseg.serving.store import Store
from volseg.serving.store.audit import note
from volseg.serving.store.cases import remove_case
from volseg.serving.store.jobs import Job, add_job
from volseg.serving.uploads import store_uploads
from volseg.serving.views import image_view, mask_view, remove_views
from volseg.serving.web.parts import Admin, ConfigOf, Reviewer, StoreOf, Viewer, check_room, uploads_in

router = APIRouter(prefix="/api", tags=["cases"])

_MOST_FILES = 20_000


class LabelInfo(BaseModel):
    """A label of a mask."""

    value: int
    name: str
    color: str
    volume_ml: float


class DeliveryInfo(BaseModel):
    """What became of sending a result to a destination."""

    id: int
    destination: str
    status: str
    reason: str
    attempts: int


class ResultInfo(BaseModel):
    """A file that a job has made."""

    id: int
    series_uid: str
    format: str
    name: str
    labels: list[LabelInfo]
    deliveries: list[DeliveryInfo]


class JobInfo(BaseModel):
    """A job, and what it has made."""

    id: str
    case_id: str
    title: str
    model: str
    rule: str
    status: str
    reason: str
    priority: int
    progress: float
    created: float
    started: float | None
    ended: float | None
    labels: list[LabelInfo]
    remark: str
    results: list[ResultInfo]


class SeriesInfo(BaseModel):
    """A series of a study."""

    uid: str
    modality: str
    description: str
    objects: int


class CaseRow(BaseModel):
    """A line of the work list.

    Attributes:
        id: Of the case.
        title: The patient, or the name of an uploaded image.
        patient_id: PatientID.
        description: StudyDescription.
        date: StudyDate.
        modalities: Of its series.
        objects: Number of DICOM objects.
        status: How far the latest job is; "arriving" or "no job" if there is none.
        reason: Why it waits or failed.
        progress: Share of the job that is done.
        model: Of the latest job.
        job_id: The latest job.
        segmented: How many volumes of it the latest job has segmented.
        labels: With their volumes in ml, if there is one such volume; those of several do not add up.
        remark: Why somebody should look at it.
        picture: The result that is a small picture of it.
        created: When its first object arrived, in seconds since 1970.
    """

    id: str
    title: str
    patient_id: str
    description: str
    date: str
    modalities: list[str]
    objects: int
    status: str
    reason: str
    progress: float
    model: str
    job_id: str
    segmented: int
    labels: list[LabelInfo]
    remark: str
    picture: int | None
    created: float


class CaseDetail(CaseRow):
    """Everything about a case.

    Attributes:
        study_uid: StudyInstanceUID; empty if it is no study.
        formats: That its masks can be downloaded in.
        series: Of a study.
        jobs: The latest first.
        ohif: Where OHIF shows it; empty if it does not.
    """

    study_uid: str
    formats: list[str]
    series: list[SeriesInfo]
    jobs: list[JobInfo]
    ohif: str


class JobRequest(BaseModel):
    """What somebody wants to have segmented."""

    model: str
    formats: list[str] = []
    destinations: list[str] = []
    probabilities: bool = False


class Uploaded(BaseModel):
    """The cases that an upload became, and why files were left out."""

    case_ids: list[str]
    left_out: list[str]


@router.get("/cases")
def list_cases(_: Viewer, store: StoreOf, search: str = "", limit: int = 200) -> list[CaseRow]:
    """Return the work list, the latest first."""
    rows = store.rows(
        "SELECT * FROM cases WHERE instr(lower(patient || ' ' || patient_id || ' ' || description || ' ' || name), ?)"
        " OR ? = '' ORDER BY changed DESC LIMIT ?",
        *(search.lower(), search, max(1, min(limit, 1000))),
    )
    return [CaseRow(**_row(store, row)) for row in rows]


@router.get("/cases/{case_id}", responses={404: {}})
def show_case(case_id: str, user: Viewer, store: StoreOf, config: ConfigOf) -> CaseDetail:
    """Return everything about a case."""
    case = _case(store, case_id)
    note(store, user.user, "looked at", case_id)
    is_study = case["origin"] == "dicom"
    series = store.rows(
        "SELECT uid, modality, description, (SELECT count(*) FROM objects WHERE objects.case_id = series.case_id"
        " AND series_uid = uid) AS objects FROM series WHERE case_id = ? ORDER BY uid",
        case_id,
    )
    hidden = set(OF_PICTURES) | (set() if is_study else set(OF_DICOM))
    ohif = config.web.ohif
    base = "/ohif" if ohif and not ohif.startswith("https://") else (ohif or "").rstrip("/")
    jobs = store.rows("SELECT * FROM jobs WHERE case_id = ? ORDER BY created DESC", case_id)
    return CaseDetail(
        **_row(store, case),
        study_uid=case["name"] if is_study else "",
        formats=[form for form in FORMATS if form not in hidden],
        series=[SeriesInfo(**dict(row)) for row in series],
        jobs=[job_info(store, row) for row in jobs],
        ohif=f"{base}/viewer?StudyInstanceUIDs={case['name']}" if ohif and is_study else "",
    )


@router.delete("/cases/{case_id}", responses={404: {}})
def delete_case(case_id: str, user: Admin, store: StoreOf) -> None:
    """Remove a case with its images and results; what was sent stays where it is."""
    _case(store, case_id)
    remove_case(store, case_id)
    remove_views(store, case_id)
    note(store, user.user, "removed", case_id)


@router.post("/cases", responses={400: {}, 411: {}, 413: {}})
async def upload(request: Request, user: Reviewer, store: StoreOf, config: ConfigOf) -> Uploaded:
    """Keep uploaded images: multipart/form-data with `files`; with `model`, they are segmented."""
    largest = config.web.largest_upload_gb * 1e9
    length = request.headers.get("Content-Length", "")
    if not length.isdigit():
        raise HTTPException(411, "an upload has to say how long it is")
    if int(length) > largest:
        raise HTTPException(413, f"the upload is larger than {config.web.largest_upload_gb:g} GB")
    check_room(request, store, config)
    async with request.form(max_files=_MOST_FILES) as form:
        stored = await run_in_threadpool(store_uploads, store, uploads_in(form, "files"), user.user, largest)
        model = str(form.get("model") or "")
    for case_id in stored.case_ids:
        # Whoever uploads a study says what becomes of it; the rules are for what arrives by itself.
        store.change("UPDATE cases SET planned = revision, state = '' WHERE id = ?", case_id)
        note(store, user.user, "uploaded", case_id)
        if model:
            _segment(store, config, case_id, JobRequest(model=model), user.user)
    return Uploaded(case_ids=list(stored.case_ids), left_out=list(stored.left_out))


@router.post("/cases/{case_id}/jobs", responses={400: {}, 404: {}})
def add(case_id: str, wanted: JobRequest, user: Reviewer, store: StoreOf, config: ConfigOf) -> JobInfo:
    """Have a case segmented."""
    _case(store, case_id)
    job = _segment(store, config, case_id, wanted, user.user)
    return job_info(store, store.rows("SELECT * FROM jobs WHERE id = ?", job.id)[0])


@router.get("/cases/{case_id}/image.nii.gz", responses={400: {}, 404: {}}, response_class=FileResponse)
def show_image(case_id: str, user: Viewer, store: StoreOf, series: str = "") -> FileResponse:
    """Return a volume of a case as NIfTI."""
    case = _case(store, case_id)
    path = image_view(store, case_id, case["revision"], series)
    note(store, user.user, "looked at images of", case_id)
    return _download(path, "image.nii.gz")


@router.get("/results/{result_id}", responses={400: {}, 404: {}}, response_class=FileResponse)
def download(result_id: int, user: Viewer, store: StoreOf, format: str = "") -> FileResponse:  # noqa: A002  as in Python
    """Return a result, or the mask in another format."""
    result = _result(store, result_id)
    path = store.job_folder(result["job_id"]) / result["file"]
    if format and format != result["format"]:
        case = _case(store, result["case_id"])
        path = mask_view(store, case["id"], case["revision"], path, format)
    if result["format"] != "overlay":
        note(store, user.user, "downloaded", result["case_id"], format or result["format"])
    return _download(path, f"{result['case_id']}{''.join(path.suffixes[-2:])}")


def job_info(store: Store, job: Row) -> JobInfo:
    """Return a job and what it has made, for the page."""
    results = store.rows("SELECT * FROM results WHERE job_id = ? ORDER BY id", job["id"])
    deliveries = store.rows(
        "SELECT deliveries.* FROM deliveries JOIN results ON results.id = result_id WHERE job_id = ?", job["id"]
    )
    case = store.row("SELECT * FROM cases WHERE id = ?", job["case_id"])
    return JobInfo(
        **{name: job[name] for name in JobInfo.model_fields if name in job.keys()},  # noqa: SIM118  a row yields values
        title=_title(case) if case else "",
        labels=_labels(results),
        remark="; ".join(dict.fromkeys(row["remark"] for row in results if row["remark"])),
        results=[
            ResultInfo(
                id=row["id"],
                series_uid=row["case_name"],
                format=row["format"],
                name=Path(row["file"]).name,
                labels=_labels([row]),
                deliveries=[
                    DeliveryInfo(**{name: each[name] for name in DeliveryInfo.model_fields})
                    for each in deliveries
                    if each["result_id"] == row["id"]
                ],
            )
            for row in results
        ],
    )


def _row(store: Store, case: Row) -> dict[str, Any]:
    """Return the line of a case in the work list."""
    series = store.rows("SELECT DISTINCT modality FROM series WHERE case_id = ?", case["id"])
    objects = store.rows("SELECT count(*) FROM objects WHERE case_id = ?", case["id"])[0][0]
    job = store.row("SELECT * FROM jobs WHERE case_id = ? ORDER BY created DESC LIMIT 1", case["id"])
    results = store.rows("SELECT * FROM results WHERE job_id = ?", job["id"]) if job else []
    segmented = len({row["case_name"] for row in results})
    is_arriving = case["origin"] == "dicom" and case["planned"] < case["revision"]
    return {
        "id": case["id"],
        "title": _title(case),
        "patient_id": case["patient_id"],
        "description": case["description"],
        "date": case["date"],
        "modalities": [row["modality"] for row in series if row["modality"]],
        "objects": objects,
        "status": "arriving" if is_arriving else job["status"] if job else "no job",
        "reason": case["state"] or (job["reason"] if job else ""),
        "progress": job["progress"] if job else 0.0,
        "model": job["model"] if job else "",
        "job_id": job["id"] if job else "",
        "segmented": segmented,
        "labels": _labels(results) if segmented == 1 else [],
        "remark": "; ".join(dict.fromkeys(row["remark"] for row in results if row["remark"])),
        "picture": next((row["id"] for row in results if row["format"] == "overlay"), None),
        "created": case["created"],
    }


def _title(case: Row) -> str:
    return str(case["patient"] or case["name"])


def _labels(results: list[Row]) -> list[LabelInfo]:
    return [LabelInfo(**label) for label in json.loads(results[0]["labels"])] if results else []


def _case(store: Store, case_id: str) -> Row:
    case = store.row("SELECT * FROM cases WHERE id = ?", case_id)
    if case is None:
        raise HTTPException(404, "there is no such case")
    return case


def _result(store: Store, result_id: int) -> Row:
    if not 0 < result_id < 2**63:
        raise HTTPException(404, "there is no such result")
    row = store.row(
        "SELECT results.*, case_id FROM results JOIN jobs ON jobs.id = job_id WHERE results.id = ?", result_id
    )
    if row is None:
        raise HTTPException(404, "there is no such result")
    return row


def _segment(store: Store, config: ConfigOf, case_id: str, wanted: JobRequest, user: str) -> Job:
    from volseg.exporting import parse_formats

    case = _case(store, case_id)
    if wanted.model not in config.models:
        raise HTTPException(400, f"there is no model {wanted.model!r}; there are {', '.join(config.models)}")
    if unknown := [name for name in wanted.destinations if name not in config.destinations]:
        raise HTTPException(400, f"there is no destination {unknown[0]!r}")
    usual = ("dicom-seg",) if case["origin"] == "dicom" else ("nifti",)
    job = Job(
        case_id,
        wanted.model,
        parse_formats(wanted.formats) or usual,
        tuple(wanted.destinations),
        probabilities=wanted.probabilities,
        priority=1,
    )
    add_job(store, job)
    note(store, user, "asked to segment", case_id, wanted.model)
    return job


def _download(path: Path, name: str) -> FileResponse:
    if not path.is_file():
        raise HTTPException(404, "the file is not there any more")
    return FileResponse(path, filename=name)
