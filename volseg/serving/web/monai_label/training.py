"""Fine-tuning of models with the masks that people have finished."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool

from volseg.serving.config import ServerConfig
from volseg.serving.store import Store
from volseg.serving.store.audit import note
from volseg.serving.store.trainings import (
    Training,
    TrainingStatus,
    add_training,
    list_trainings,
    stop_trainings,
)
from volseg.serving.web.monai_label.parts import ClientAdmin, ClientViewer, known_model
from volseg.serving.web.parts import ConfigOf, StoreOf

router = APIRouter(prefix="/train", tags=["MONAI Label"])

DEFAULT_EPOCHS = 50
_MOST_EPOCHS = 10_000
#: What clients call it; they compare with RUNNING.
_STATUS = {
    TrainingStatus.WAITING: "RUNNING",
    TrainingStatus.RUNNING: "RUNNING",
    TrainingStatus.DONE: "DONE",
    TrainingStatus.FAILED: "ERROR",
    TrainingStatus.STOPPED: "STOPPED",
}


@router.get("/", responses={404: {}})
def show_training(_: ClientViewer, store: StoreOf, *, all: bool = False, check_if_running: bool = False) -> Any:  # noqa: A002  as clients call it
    """Return the latest training, or all; with `check_if_running` the one that is running."""
    trainings = list_trainings(store)
    if check_if_running:
        trainings = [training for training in trainings if training.is_active]
    if not trainings:
        raise HTTPException(404, "no training is running" if check_if_running else "there was no training")
    return [_told(training) for training in trainings] if all else _told(trainings[-1])


@router.post("/", responses={400: {}, 404: {}, 429: {}})
async def train_all(request: Request, user: ClientAdmin, store: StoreOf, config: ConfigOf) -> dict[str, Any]:
    """Fine-tune all models; the body may state parameters for each of them."""
    params = await _params(request)
    stated = {name: value if isinstance(value := params.get(name), dict) else params for name in config.models}
    begun = await run_in_threadpool(_begin, store, config, stated, user.user)
    return {name: {"result": _told(training), "detail": None} for name, training in begun.items()}


@router.post("/{model}", responses={400: {}, 404: {}, 429: {}})
async def train_model(
    model: str, request: Request, user: ClientAdmin, store: StoreOf, config: ConfigOf
) -> dict[str, Any]:
    """Fine-tune a model."""
    known_model(config, model)
    begun = await run_in_threadpool(_begin, store, config, {model: await _params(request)}, user.user)
    return _told(begun[model])


@router.delete("/")
def stop_training(user: ClientAdmin, store: StoreOf) -> dict[str, Any] | None:
    """Stop all trainings."""
    stopped = stop_trainings(store)
    note(store, user.user, "stopped trainings", detail=str(len(stopped)))
    return _told(stopped[0]) if stopped else None


async def _params(request: Request) -> dict[str, Any]:
    """Return the body, if there is one."""
    if not await request.body():
        return {}
    try:
        params = await request.json()
    except (ValueError, RecursionError):
        params = None
    if not isinstance(params, dict):
        raise HTTPException(400, "the parameters are no JSON object")
    return params


def _begin(
    store: Store, config: ServerConfig, params: Mapping[str, Mapping[str, Any]], user: str
) -> dict[str, Training]:
    """Add a training for each model, with its parameters; they run one after the other."""
    if any(training.is_active for training in list_trainings(store)):
        raise HTTPException(429, "a training is running; stop it first")
    begun = {name: Training(name, str(config.models[name]), _epochs(stated), user) for name, stated in params.items()}
    for training in begun.values():
        add_training(store, training)
        note(store, user, "asked to train", detail=training.model)
    return begun


def _epochs(params: Mapping[str, Any]) -> int:
    epochs = params.get("max_epochs", DEFAULT_EPOCHS)
    if not isinstance(epochs, int) or not 0 < epochs <= _MOST_EPOCHS:
        raise HTTPException(400, f"max_epochs is a number from 1 to {_MOST_EPOCHS}")
    return epochs


def _told(training: Training) -> dict[str, Any]:
    """Return a training as clients read it; 3D Slicer shows the last of `details`, which must not be empty."""
    progress = f"epoch {training.epoch} of {training.epochs}"
    return {
        "id": training.id,
        "status": _STATUS[training.status],
        "request": {"model": training.model, "max_epochs": training.epochs},
        "start_ts": _stamp(training.started or training.created),
        **({} if training.ended is None else {"end_ts": _stamp(training.ended)}),
        "details": [progress, *([training.remark] if training.remark else [])],
    }


def _stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
