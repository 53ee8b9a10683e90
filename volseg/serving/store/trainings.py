"""Trainings: fine-tuning of a model with what people have saved."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from sqlite3 import Row

from volseg.image.volume import Label
from volseg.serving.store.database import Store, new_id
from volseg.serving.store.jobs import MOST_ATTEMPTS
from volseg.serving.store.models import note_model


class TrainingStatus(StrEnum):
    """How far a training is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Training:
    """A training.

    Attributes:
        model: Name of the model.
        origin: What the configuration of the server names for the model, whatever it was trained to since.
        epochs: How many.
        user: Who asked for it.
        id: Its name, and that of its run.
        status: How far it is.
        remark: What came of it, in a sentence.
        epoch: How many epochs are done.
        dice: On the validation cases, the best so far.
        is_served: Whether its run has become the model.
        created: When somebody asked for it, in seconds since 1970.
        started: When it began.
        ended: When it ended.
    """

    model: str
    origin: str
    epochs: int
    user: str
    id: str = field(default_factory=new_id)
    status: TrainingStatus = TrainingStatus.WAITING
    remark: str = ""
    epoch: int = 0
    dice: float | None = None
    is_served: bool = False
    created: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None

    @property
    def is_active(self) -> bool:
        """Whether it waits or runs."""
        return self.status in {TrainingStatus.WAITING, TrainingStatus.RUNNING}


def add_training(store: Store, training: Training) -> None:
    """Add a training, which the trainer begins as soon as it has time."""
    store.change(
        "INSERT INTO trainings (id, model, origin, epochs, user, created) VALUES (?, ?, ?, ?, ?, ?)",
        *(training.id, training.model, training.origin, training.epochs, training.user, training.created),
    )


def claim_training(store: Store) -> Training | None:
    """Take the next training; one that a trainer had begun before it ended is continued."""
    now = time.time()
    store.change(
        "UPDATE trainings SET status = 'failed', remark = ?, ended = ? WHERE status = 'running' AND attempts >= ?",
        *(f"it ended the trainer {MOST_ATTEMPTS} times (out of memory?)", now, MOST_ATTEMPTS),
    )
    row = store.row("SELECT * FROM trainings WHERE status IN ('running', 'waiting') ORDER BY created LIMIT 1")
    if row is None:
        return None
    store.change(
        "UPDATE trainings SET status = 'running', attempts = attempts + 1, started = coalesce(started, ?) WHERE id = ?"
        " AND status IN ('running', 'waiting')",
        *(now, row["id"]),
    )
    return _training(row)


def interrupt_training(store: Store, training: Training) -> None:
    """Note that the server ends while it trains: it is not the fault of the training, so the attempt does not count."""
    store.change("UPDATE trainings SET attempts = attempts - 1 WHERE id = ?", training.id)


def is_running(store: Store, training: Training) -> bool:
    """Return whether nobody has stopped a training."""
    return store.row("SELECT 1 FROM trainings WHERE id = ? AND status = 'running'", training.id) is not None


def note_epoch(store: Store, training: Training, epoch: int, dice: float) -> None:
    """Note how far a training is."""
    store.change(
        "UPDATE trainings SET epoch = ?, dice = max(coalesce(dice, 0), ?) WHERE id = ?", epoch, dice, training.id
    )


def finish_training(
    store: Store, training: Training, remark: str, dice: float, *, serves: Sequence[Label] | None
) -> None:
    """Note what came of a training.

    Args:
        store: The store.
        training: The training, whose run is in its folder.
        remark: What came of it, in a sentence.
        dice: On the validation cases.
        serves: The labels of its run, if that is what is served from now on.
    """
    with store.transaction():
        done = store.change(
            "UPDATE trainings SET status = 'done', remark = ?, dice = ?, is_served = ?, ended = ? WHERE id = ?"
            " AND status = 'running'",
            *(remark, dice, serves is not None, time.time(), training.id),
        )
        if done and serves is not None:
            note_model(store, training.model, serves)


def fail_training(store: Store, training: Training, reason: str) -> None:
    """Note why a training failed."""
    store.change(
        "UPDATE trainings SET status = 'failed', remark = ?, ended = ? WHERE id = ? AND status = 'running'",
        *(reason, time.time(), training.id),
    )


def stop_trainings(store: Store) -> list[Training]:
    """Stop all trainings, and return them; one that is running stops at its next step."""
    with store.transaction():
        rows = store.rows("SELECT * FROM trainings WHERE status IN ('waiting', 'running')")
        store.change(
            "UPDATE trainings SET status = 'stopped', remark = 'somebody has stopped it', ended = ?"
            " WHERE status IN ('waiting', 'running')",
            time.time(),
        )
    return [training for row in rows if (training := find_training(store, row["id"])) is not None]


def find_training(store: Store, training_id: str) -> Training | None:
    """Return a training; None if there is none."""
    row = store.row("SELECT * FROM trainings WHERE id = ?", training_id)
    return None if row is None else _training(row)


def list_trainings(store: Store) -> list[Training]:
    """Return all trainings, the oldest first."""
    return [_training(row) for row in store.rows("SELECT * FROM trainings ORDER BY created")]


def served_path(store: Store, name: str, origin: Path) -> Path:
    """Return the run or model file that is served under a name.

    Args:
        store: The store.
        name: Of the model.
        origin: What the configuration names for it; if that has changed, what it was trained to no longer counts.
    """
    row = store.row(
        "SELECT id FROM trainings WHERE model = ? AND origin = ? AND is_served ORDER BY ended DESC LIMIT 1",
        *(name, str(origin)),
    )
    return origin if row is None else store.run_folder(row["id"])


def _training(row: Row) -> Training:
    told = {each.name: row[each.name] for each in fields(Training)}
    return Training(**told | {"status": TrainingStatus(row["status"]), "is_served": bool(row["is_served"])})
