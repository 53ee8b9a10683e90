"""What is served, logging in, and the log."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse

from volseg.serving.config import ServerConfig
from volseg.serving.store import Store
from volseg.serving.store.audit import note
from volseg.serving.store.trainings import list_trainings
from volseg.serving.store.users import add_token
from volseg.serving.web.login import Login, check_login
from volseg.serving.web.monai_label.active_learning import STRATEGIES
from volseg.serving.web.monai_label.datastore import statistics
from volseg.serving.web.monai_label.parts import ClientAdmin, ClientViewer, all_labels, model_labels
from volseg.serving.web.monai_label.training import DEFAULT_EPOCHS
from volseg.serving.web.parts import ConfigOf, StoreOf, access_of
from volseg.version import __version__

router = APIRouter(tags=["MONAI Label"])


@router.get("/info/")
def show_info(_: ClientViewer, store: StoreOf, config: ConfigOf) -> dict[str, Any]:
    """Return what is served. There is no key `config`: 3D Slicer takes it for a server that is too old."""
    return {
        "name": "volseg",
        "description": "Segmentation with volseg; research use only",
        "version": __version__,
        "labels": all_labels(store, config),
        "models": {name: _model(store, name) for name in config.models},
        "trainers": {
            name: {"description": f"Fine-tuning of {name}", "config": {"max_epochs": DEFAULT_EPOCHS}}
            for name in config.models
        },
        "strategies": {name: {"description": text, "config": {}} for name, text in STRATEGIES.items()},
        "scoring": {},
        "train_stats": _training_statistics(store, config),
        "datastore": statistics(store),
    }


@router.get("/auth/", responses={404: {}})
def show_login(request: Request, config: ConfigOf) -> dict[str, Any]:
    """Return that a client has to log in; clients take 404 for a server where nobody has to."""
    _check_login_is_needed(request, config)
    return {"enabled": True, "client_id": "volseg", "realm": ""}


@router.post("/auth/token", responses={401: {}, 404: {}, 422: {}, 429: {}})
async def log_in(request: Request, store: StoreOf, config: ConfigOf) -> dict[str, str]:
    """Return a token for a name and a password (RFC 6749 section 4.3)."""
    _check_login_is_needed(request, config)
    async with request.form(max_files=0) as form:
        name, password = form.get("username"), form.get("password")
    if not isinstance(name, str) or not isinstance(password, str) or len(name) > 200 or len(password) > 1000:
        raise HTTPException(422, "the form needs a username and a password")
    return {
        "access_token": await run_in_threadpool(_token, name, password, request, store, config),
        "token_type": "bearer",
    }


@router.get("/auth/token/valid", responses={401: {}})
def show_user(user: ClientViewer) -> dict[str, Any]:
    """Return whose token it is."""
    return {"username": user.user, "email": None, "name": user.user, "roles": [str(user.role)]}


@router.get("/logs/", response_class=PlainTextResponse)
def show_log(user: ClientAdmin, store: StoreOf, lines: int = 300) -> PlainTextResponse:
    """Return the latest lines of the audit; the processes themselves log to where they were started."""
    note(store, user.user, "looked at the audit")
    rows = store.rows("SELECT * FROM audit ORDER BY id DESC LIMIT ?", max(1, min(lines, 10_000)))
    text = "".join(
        f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(row['at']))} {row['who']} {row['what']} {row['case_id']}"
        f" {row['detail']}".rstrip()
        + "\n"
        for row in reversed(rows)
    )
    return PlainTextResponse(text)


def _check_login_is_needed(request: Request, config: ServerConfig) -> None:
    if access_of(request).is_open or config.web.behind_proxy is not None:
        raise HTTPException(404, "nobody has to log in here")


def _token(name: str, password: str, request: Request, store: Store, config: ServerConfig) -> str:
    check_login(Login(name=name, password=password), request, store, config)
    return add_token(store, name, config.web.session_hours * 3600)


def _model(store: Store, name: str) -> dict[str, Any]:
    """Return what clients want to know of a model: both need `type`, and OHIF needs `labels` as a list."""
    labels = model_labels(store, name)
    description = f"Draws {', '.join(labels)}" if labels else "Is being loaded"
    return {"type": "segmentation", "labels": labels, "dimension": 3, "description": description, "config": {}}


def _training_statistics(store: Store, config: ServerConfig) -> dict[str, Any]:
    """Return how far the latest training of each model is; clients read the first entry as that of all."""
    return {
        training.model: {
            "epoch": training.epoch,
            "total_epochs": training.epochs,
            "best_metric": training.dice or 0.0,
            "start_ts": training.started or training.created,
            **({} if training.ended is None else {"total_time": training.ended - (training.started or training.ended)}),
        }
        for training in list_trainings(store)
        if training.model in config.models
    }
