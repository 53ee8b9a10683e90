"""Segmentation while somebody waits for it."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from volseg.errors import DeliveryError
from volseg.image.volume import Mask
from volseg.io import FileSource, read_mask, write_mask
from volseg.serving.config import ServerConfig
from volseg.serving.images import Image, begin_session, end_session, fetch_image, session_image
from volseg.serving.labelling import numbered
from volseg.serving.store import Store
from volseg.serving.store.audit import note
from volseg.serving.store.jobs import Job, JobStatus, add_job, cancel_job
from volseg.serving.store.models import labels_from
from volseg.serving.web.monai_label.parts import ClientReviewer, json_in, known_model
from volseg.serving.web.parts import ConfigOf, StoreOf, check_room, uploads_in

router = APIRouter(prefix="/infer", tags=["MONAI Label"])

#: Before everything that nobody waits for.
_PRIORITY = 50
_EVERY_SECONDS = 0.1
#: How long an image that comes along is kept if the server ends meanwhile.
_LONGEST_SECONDS = 86400.0
_NOT_ENDED = frozenset({JobStatus.WAITING, JobStatus.RUNNING})


class Answer(StrEnum):
    """What is answered: the mask, what is known of it, or both in one form."""

    ALL = "all"
    IMAGE = "image"
    JSON = "json"
    DICOM_SEG = "dicom_seg"


@router.post("/{model}", responses={400: {}, 404: {}, 422: {}, 502: {}, 507: {}})
async def infer(
    model: str,
    request: Request,
    user: ClientReviewer,
    store: StoreOf,
    config: ConfigOf,
    image: str = "",
    session_id: str = "",
    output: Answer = Answer.ALL,
) -> Response:
    """Segment an image: one that is here or at the DICOMweb service, that of a session, or one that comes along."""
    known_model(config, model)
    check_room(request, store, config)
    async with request.form() as form:
        params, files = json_in(form, "params"), uploads_in(form, "file")
        suffix = _suffix(params)
        comes_along = bool(files) and not session_id
        if comes_along:
            session_id = await run_in_threadpool(begin_session, store, files, _LONGEST_SECONDS)
    try:
        found = await run_in_threadpool(_find, store, config, image, session_id)
        if output is Answer.DICOM_SEG and not found.series_uid:
            raise HTTPException(400, "a DICOM Segmentation needs a DICOM series; ask for another output")
        formats = ("dicom-seg",) if output is Answer.DICOM_SEG else ("nifti",)
        job = Job(found.case_id, model, formats, series_uid=found.series_uid, priority=_PRIORITY)
        await _done(store, job, user.user, request)
        return await run_in_threadpool(_answer, store, job, found, output, suffix)
    finally:
        if comes_along:
            await run_in_threadpool(end_session, store, session_id)


def _find(store: Store, config: ServerConfig, name: str, session_id: str) -> Image:
    """Return the image of a session, or the one of a name.

    Raises:
        HTTPException: 404 if there is none, 502 if the DICOMweb service cannot be asked.
    """
    try:
        found = session_image(store, session_id) if session_id else fetch_image(store, config, name)
    except DeliveryError as error:
        raise HTTPException(502, error.explanation) from error
    if found is None:
        raise HTTPException(404, "there is no such image")
    return found


async def _done(store: Store, job: Job, user: str, request: Request) -> None:
    """Add a job and wait until it is done; a client that does not wait any more cancels it.

    Raises:
        HTTPException: 422 if it failed or was cancelled.
    """
    await run_in_threadpool(_begin, store, job, user)
    while True:
        row = store.row("SELECT status, reason FROM jobs WHERE id = ?", job.id)  # a reader never waits for a writer
        if row is None or row["status"] not in _NOT_ENDED:
            break
        if await request.is_disconnected():
            await run_in_threadpool(cancel_job, store, job.id)
        await asyncio.sleep(_EVERY_SECONDS)
    if row is None or row["status"] != JobStatus.DONE:
        raise HTTPException(422, (row["reason"] if row else "") or "it was cancelled")


def _begin(store: Store, job: Job, user: str) -> None:
    add_job(store, job)
    note(store, user, "asked to segment", job.case_id, job.model)


def _answer(store: Store, job: Job, image: Image, output: Answer, suffix: str) -> Response:
    """Answer what a job has made of an image."""
    form = "dicom-seg" if output is Answer.DICOM_SEG else "nifti"
    results = store.rows("SELECT * FROM results WHERE job_id = ? AND format = ?", job.id, form)
    row = next((row for row in results if row["case_name"] == image.series_uid), results[0] if results else None)
    if row is None:
        raise HTTPException(422, "the images have no mask")
    file = store.job_folder(job.id) / row["file"]
    if output is Answer.DICOM_SEG:
        return _file(file.read_bytes(), f"{job.id}.dcm", "application/dicom")
    labels = labels_from(row["labels"])
    told = {
        "label_names": {label.name: number for number, label in enumerate(labels, 1)},
        "latencies": {"total": round(row["seconds"], 3)},
        "remark": row["remark"],
    }
    if output is Answer.JSON:
        return JSONResponse(told)
    saved = read_mask(FileSource(file))
    content = _encoded(store, numbered(Mask(saved.array, saved.geometry, labels)), suffix)
    if output is Answer.IMAGE:
        return _file(content, f"{job.id}{suffix}", "application/octet-stream")
    return _form(told, content, f"{job.id}{suffix}")


def _suffix(params: Mapping[str, Any]) -> str:
    """Return the format of the mask that a client asks for, by its suffix."""
    stated = str(params.get("result_extension") or ".nii.gz")
    suffix = stated if stated.startswith(".") else f".{stated}"
    if suffix not in {".nii.gz", ".nii", ".nrrd"}:
        raise HTTPException(400, "result_extension is .nrrd, .nii or .nii.gz")
    return suffix


def _encoded(store: Store, mask: Mask, suffix: str) -> bytes:
    """Return a mask as a file; NRRD is not compressed, since OHIF expects the voxels as they are."""
    from volseg.io.itk import write_mask as write_itk_mask

    with TemporaryDirectory(dir=store.work) as room:
        path = Path(room) / f"mask{suffix}"
        if suffix == ".nrrd":
            write_itk_mask(mask, path, compressed=False)
        else:
            write_mask(mask, path)
        return path.read_bytes()


def _file(content: bytes, name: str, kind: str) -> Response:
    return Response(content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _form(params: Mapping[str, Any], content: bytes, name: str) -> Response:
    """Return a form (RFC 7578) with `params`, and a file under the name that a client saves it under."""
    boundary = secrets.token_hex(16)
    parts = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="params"\r\nContent-Type: application/json\r\n\r\n'
        f"{json.dumps(params)}\r\n--{boundary}\r\n"
        f'Content-Disposition: form-data; name="image"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = parts.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return Response(body, media_type=f"multipart/form-data; boundary={boundary}")
