"""The queue: jobs and deliveries, and what people do about them."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, Field

from volseg.serving.store import Store
from volseg.serving.store.audit import note
from volseg.serving.store.deliveries import add_delivery, retry_delivery
from volseg.serving.store.jobs import cancel_job, retry_job
from volseg.serving.web.cases import JobInfo, job_info
from volseg.serving.web.parts import ConfigOf, Reviewer, StoreOf, Viewer

router = APIRouter(prefix="/api", tags=["queue"])

_LARGEST = 2**63


class DeliveryRow(BaseModel):
    """A delivery that waits or was given up."""

    id: int
    case_id: str
    title: str
    destination: str
    format: str
    status: str
    reason: str
    attempts: int
    due: float


class Priority(BaseModel):
    """How urgent a job is: higher ones first."""

    priority: int = Field(ge=-100, le=100)


class SendRequest(BaseModel):
    """Where a result is to be sent."""

    destination: str


@router.get("/jobs")
def list_jobs(_: Viewer, store: StoreOf, case_id: str = "") -> list[JobInfo]:
    """Return the jobs that wait and run, and the latest of the others; perhaps of one case."""
    rows = store.rows(
        "SELECT * FROM jobs WHERE case_id = ? OR ? = ''"
        " ORDER BY CASE status WHEN 'running' THEN 0 WHEN 'waiting' THEN 1 ELSE 2 END,"
        " CASE WHEN status = 'waiting' THEN -priority ELSE 0 END, CASE WHEN status = 'waiting' THEN created"
        " ELSE -created END LIMIT 200",
        *(case_id, case_id),
    )
    return [job_info(store, row) for row in rows]


@router.post("/jobs/{job_id}/cancel", responses={404: {}})
def cancel(job_id: str, user: Reviewer, store: StoreOf) -> None:
    """Cancel a job."""
    _done(cancel_job(store, job_id), "job that waits or runs")
    note(store, user.user, "cancelled", _case_of(store, job_id))


@router.post("/jobs/{job_id}/retry", responses={404: {}})
def retry(job_id: str, user: Reviewer, store: StoreOf) -> None:
    """Do a job again that failed or was cancelled."""
    _done(retry_job(store, job_id), "job that failed or was cancelled")
    note(store, user.user, "retried", _case_of(store, job_id))


@router.post("/jobs/{job_id}/priority", responses={404: {}})
def prioritise(job_id: str, wanted: Priority, user: Reviewer, store: StoreOf) -> None:
    """Say how urgent a job is."""
    changed = store.change("UPDATE jobs SET priority = ? WHERE id = ? AND status = 'waiting'", wanted.priority, job_id)
    _done(bool(changed), "job that waits")
    note(store, user.user, "prioritised", _case_of(store, job_id), str(wanted.priority))


@router.get("/deliveries")
def list_deliveries(_: Viewer, store: StoreOf) -> list[DeliveryRow]:
    """Return the deliveries that wait or were given up."""
    rows = store.rows(
        "SELECT deliveries.*, case_id, format, coalesce(nullif(patient, ''), name) AS title FROM deliveries"
        " JOIN results ON results.id = result_id JOIN jobs ON jobs.id = job_id JOIN cases ON cases.id = case_id"
        " WHERE deliveries.status != 'sent' ORDER BY deliveries.id DESC LIMIT 500"
    )
    return [DeliveryRow(**{name: row[name] for name in DeliveryRow.model_fields}) for row in rows]


@router.post("/deliveries/{delivery_id}/retry", responses={404: {}})
def retry_sending(delivery_id: int, user: Reviewer, store: StoreOf) -> None:
    """Send a result again that was given up."""
    _done(0 < delivery_id < _LARGEST and retry_delivery(store, delivery_id), "delivery that was given up")
    note(store, user.user, "retried a delivery", detail=str(delivery_id))


@router.post("/results/{result_id}/deliveries", responses={400: {}, 404: {}})
def send(result_id: int, wanted: SendRequest, user: Reviewer, store: StoreOf, config: ConfigOf) -> None:
    """Send a result to a destination."""
    row = store.row(
        "SELECT case_id, format FROM results JOIN jobs ON jobs.id = job_id WHERE results.id = ?",
        result_id if 0 < result_id < _LARGEST else 0,
    )
    if row is None:
        raise HTTPException(404, "there is no such result")
    if wanted.destination not in config.destinations:
        raise HTTPException(400, f"there is no destination {wanted.destination!r}")
    if row["format"] not in config.destinations[wanted.destination].formats:
        raise HTTPException(400, f"{wanted.destination} does not take {row['format']}")
    add_delivery(store, result_id, wanted.destination)
    note(store, user.user, "asked to send", row["case_id"], wanted.destination)


def _done(is_done: bool, what: str) -> None:
    if not is_done:
        raise HTTPException(404, f"there is no such {what}")


def _case_of(store: Store, job_id: str) -> str:
    row = store.row("SELECT case_id FROM jobs WHERE id = ?", job_id)
    return "" if row is None else str(row["case_id"])
