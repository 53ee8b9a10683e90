"""For who runs the server: health, numbers, the audit, models and destinations."""

from __future__ import annotations

import time

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, Field

from volseg.serving.store.audit import note
from volseg.serving.store.cases import study_id
from volseg.serving.web.parts import Admin, ConfigOf, Reviewer, StoreOf, Viewer, access_of

router = APIRouter(tags=["operation"])


class ModelInfo(BaseModel):
    """A model that is served."""

    name: str
    is_default: bool


class DestinationInfo(BaseModel):
    """Somewhere that results are sent."""

    name: str
    to: str
    formats: list[str]
    waiting: int
    failed: int


class Answer(BaseModel):
    """Whether something worked, in a sentence."""

    is_well: bool
    text: str


class FetchRequest(BaseModel):
    """A study."""

    study_uid: str = Field(pattern=r"^[0-9.]{1,64}$")


class AuditLine(BaseModel):
    """What somebody did."""

    at: float
    who: str
    what: str
    case_id: str
    detail: str


@router.get("/healthz")
def check_health(request: Request, store: StoreOf, config: ConfigOf) -> Answer:
    """Return whether the server works: its store answers, and there is room on its disk. Strangers learn no more."""
    store.row("SELECT count(*) FROM cases")
    free = store.free_bytes
    text = f"{free / 1e9:.1f} GB free" if access_of(request).may_see_numbers(request) else ""
    return Answer(is_well=free > config.keep.reserve_gb * 1e9, text=text)


@router.get("/metrics", response_class=PlainTextResponse, responses={401: {}})
def show_metrics(request: Request, store: StoreOf) -> str:
    """Return numbers for Prometheus; to this machine, or to users."""
    if not access_of(request).may_see_numbers(request):
        raise HTTPException(401, "log in first", {"WWW-Authenticate": "Bearer"})
    jobs = store.rows("SELECT status, count(*) AS n FROM jobs GROUP BY status")
    sent = store.rows("SELECT destination, status, count(*) AS n FROM deliveries GROUP BY destination, status")
    lines = [
        "# TYPE volseg_jobs gauge",
        *(f'volseg_jobs{{status="{row["status"]}"}} {row["n"]}' for row in jobs),
        "# TYPE volseg_deliveries gauge",
        *(
            f'volseg_deliveries{{destination="{row["destination"]}",status="{row["status"]}"}} {row["n"]}'
            for row in sent
        ),
    ]
    oldest = store.row("SELECT min(created) AS at FROM jobs WHERE status = 'waiting'")
    waited = time.time() - oldest["at"] if oldest and oldest["at"] else 0.0
    numbers = {
        "volseg_cases": store.rows("SELECT count(*) FROM cases")[0][0],
        "volseg_objects": store.rows("SELECT count(*) FROM objects")[0][0],
        "volseg_associations": store.rows("SELECT count(*) FROM associations")[0][0],
        "volseg_oldest_waiting_job_seconds": f"{waited:.0f}",
        "volseg_disk_free_bytes": store.free_bytes,
    }
    for name, value in numbers.items():
        lines += [f"# TYPE {name} gauge", f"{name} {value}"]
    return "\n".join(lines) + "\n"


@router.get("/api/models")
def list_models(_: Viewer, config: ConfigOf) -> list[ModelInfo]:
    """Return the models."""
    return [ModelInfo(name=name, is_default=number == 0) for number, name in enumerate(config.models)]


@router.get("/api/models/{name}/card", response_class=PlainTextResponse, responses={404: {}})
def show_card(name: str, _: Viewer, config: ConfigOf) -> str:
    """Return the card of a model, as Markdown: what it learned from, how good it is, its licence."""
    from volseg.reporting.card import make_card

    if name not in config.models:
        raise HTTPException(404, f"there is no model {name!r}")
    return make_card(config.models[name]).markdown


@router.get("/api/destinations")
def list_destinations(_: Viewer, config: ConfigOf, store: StoreOf) -> list[DestinationInfo]:
    """Return the destinations, and what waits for each."""
    counts = {
        (row["destination"], row["status"]): row["n"]
        for row in store.rows("SELECT destination, status, count(*) AS n FROM deliveries GROUP BY destination, status")
    }
    return [
        DestinationInfo(
            name=name,
            to=destination.to,
            formats=list(destination.formats),
            waiting=counts.get((name, "waiting"), 0),
            failed=counts.get((name, "failed"), 0),
        )
        for name, destination in config.destinations.items()
    ]


@router.post("/api/destinations/{name}/echo", responses={404: {}})
def echo_destination(name: str, _: Reviewer, config: ConfigOf) -> Answer:
    """Ask whether a destination is there."""
    from volseg.errors import DeliveryError
    from volseg.serving.dicom.sender import echo

    if name not in config.destinations:
        raise HTTPException(404, f"there is no destination {name!r}")
    try:
        echo(config.destinations[name], config.dicom.ae_title)
    except DeliveryError as error:
        return Answer(is_well=False, text=error.explanation)
    return Answer(is_well=True, text=f"{name} answers")


@router.post("/api/destinations/{name}/fetch", responses={400: {}, 404: {}})
def fetch(name: str, wanted: FetchRequest, user: Reviewer, config: ConfigOf, store: StoreOf) -> Answer:
    """Fetch a study from a destination; the rules apply to it as to any other that arrives."""
    from volseg.serving.fetching import fetch_study

    if name not in config.destinations:
        raise HTTPException(404, f"there is no destination {name!r}")
    note(store, user.user, "fetched a study", study_id(wanted.study_uid), name)
    count = fetch_study(store, config, name, wanted.study_uid)
    return Answer(is_well=True, text=f"{count} objects are new" if count else f"{name} has sent it")


@router.get("/api/audit")
def show_audit(user: Admin, store: StoreOf, before: float | None = None) -> list[AuditLine]:
    """Return the latest lines of the audit, or those before a time."""
    note(store, user.user, "looked at the audit")
    rows = store.rows("SELECT * FROM audit WHERE at < ? ORDER BY id DESC LIMIT 200", before or time.time() + 1)
    return [AuditLine(**{name: row[name] for name in AuditLine.model_fields}) for row in rows]
