"""Deliveries: a result, a destination, and how often it was tried."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from volseg.serving.store.database import Store

#: Longest time between two attempts.
_LONGEST_WAIT_SECONDS = 3600.0
#: Deliveries that are sent over one connection.
_MOST_AT_ONCE = 100


class DeliveryStatus(StrEnum):
    """How far a delivery is: `failed` ones are not tried again before a person asks for it."""

    WAITING = "waiting"
    SENT = "sent"
    FAILED = "failed"


@dataclass(frozen=True)
class Delivery:
    """A delivery that is due.

    Attributes:
        id: Its number.
        file: What is sent.
        attempts: How often it was tried.
        case_id: For the audit.
    """

    id: int
    file: Path
    attempts: int
    case_id: str


def due_deliveries(store: Store, destination: str) -> list[Delivery]:
    """Return what is to be sent to a destination now, the oldest first."""
    rows = store.rows(
        "SELECT deliveries.id, job_id, file, deliveries.attempts, case_id FROM deliveries"
        " JOIN results ON results.id = result_id JOIN jobs ON jobs.id = job_id"
        " WHERE destination = ? AND deliveries.status = 'waiting' AND deliveries.due <= ?"
        " ORDER BY deliveries.id LIMIT ?",
        *(destination, time.time(), _MOST_AT_ONCE),
    )
    return [
        Delivery(row["id"], store.job_folder(row["job_id"]) / row["file"], row["attempts"], row["case_id"])
        for row in rows
    ]


def note_sent(store: Store, delivery: Delivery, reason: str = "") -> None:
    """Note that a destination has a result.

    Args:
        store: The store.
        delivery: What was sent.
        reason: A warning of the destination.
    """
    store.change(
        "UPDATE deliveries SET status = 'sent', attempts = attempts + 1, reason = ?, ended = ? WHERE id = ?",
        *(reason, time.time(), delivery.id),
    )


def note_failure(store: Store, delivery: Delivery, reason: str, attempts: int, retry_seconds: float) -> None:
    """Note that a destination could not be given a result, and when to try again.

    Args:
        store: The store.
        delivery: What was not sent.
        reason: Why.
        attempts: After how many attempts it is given up.
        retry_seconds: How long to wait after the first one.
    """
    tried, now = delivery.attempts + 1, time.time()
    wait = min(retry_seconds * 2.0 ** (tried - 1), _LONGEST_WAIT_SECONDS)
    status, ended = (DeliveryStatus.WAITING, None) if tried < attempts else (DeliveryStatus.FAILED, now)
    store.change(
        "UPDATE deliveries SET status = ?, attempts = ?, reason = ?, due = ?, ended = ? WHERE id = ?",
        *(str(status), tried, reason, now + wait, ended, delivery.id),
    )


def retry_delivery(store: Store, delivery_id: int) -> bool:
    """Send a result again that was given up; return False if there is none."""
    return bool(
        store.change(
            "UPDATE deliveries SET status = 'waiting', attempts = 0, reason = '', due = ?, ended = NULL WHERE id = ?"
            " AND status = 'failed'",
            *(time.time(), delivery_id),
        )
    )


def add_delivery(store: Store, result_id: int, destination: str) -> None:
    """Send a result to a destination, again if it was sent there before."""
    store.change(
        "INSERT INTO deliveries (result_id, destination, due) VALUES (?, ?, ?) ON CONFLICT (result_id, destination)"
        " DO UPDATE SET status = 'waiting', attempts = 0, reason = '', due = excluded.due, ended = NULL",
        *(result_id, destination, time.time()),
    )
