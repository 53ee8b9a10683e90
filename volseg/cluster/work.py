"""Pieces of work, the workers that have them, and how long they take."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any

import distributed

#: Sending work and hearing of its end should take no more than this share of the time.
_OVERHEAD_SHARE = 0.04


class WorkerStatus(Enum):
    """The status of a worker."""

    JOINING = "joining"
    READY = "ready"
    REFUSED = "refused"


@dataclass(eq=False)
class Piece:
    """A piece of work.

    Attributes:
        work: A function with its arguments.
        future: Its result, for the caller.
        deaths: How many workers died while they had it.
    """

    work: partial[Any]
    future: Future[Any]
    deaths: int = 0

    @property
    def kind(self) -> Any:
        """The function: pieces of one kind take about as long."""
        return self.work.func


@dataclass(frozen=True, eq=False)
class Parcel:
    """Pieces of work that are sent together: one, or several if each is done faster than it is sent.

    Attributes:
        pieces: The pieces.
        future: Their outcomes, in Dask.
        sent: When, by the monotonic clock.
    """

    pieces: tuple[Piece, ...]
    future: distributed.Future
    sent: float


@dataclass(eq=False)
class Worker:
    """A worker.

    Attributes:
        number: By which messages call it.
        slots: How many parcels it may have at a time: its number of threads.
        status: Whether it was admitted.
        machine: The name of its machine.
        memory_gb: What it may use, in 10^9 bytes.
        running: Its work.
    """

    number: int
    slots: int
    status: WorkerStatus = WorkerStatus.JOINING
    machine: str = ""
    memory_gb: float = 0.0
    running: list[Parcel] = field(default_factory=list)

    def can_take(self, piece: Piece) -> bool:
        """Return whether it may have another piece; one that has ended a worker gets one for itself alone."""
        if self.status is not WorkerStatus.READY:
            return False
        if piece.deaths:
            return not self.running
        suspects = any(other.deaths for parcel in self.running for other in parcel.pieces)
        return len(self.running) < self.slots and not suspects

    def __str__(self) -> str:
        return f"worker {self.number}" + (f" on {self.machine}" if self.machine else "")


class Pace:
    """How long pieces of work take, by the function that does them, and how long it takes to send one and hear of it.

    Both are measured as the work goes on.
    """

    def __init__(self) -> None:
        self._seconds: dict[Any, float] = {}
        self._overhead = 0.0

    def learn(self, piece: Piece, seconds: float) -> None:
        """Take the duration of a piece into account."""
        self._seconds[piece.kind] = _average(self._seconds.get(piece.kind), seconds)

    def learn_overhead(self, seconds: float) -> None:
        """Take into account how much longer a parcel was away than its pieces took."""
        self._overhead = _average(self._overhead or None, max(seconds, 0.0))

    def pieces_worth_sending(self, kind: Any) -> int:
        """Return how many pieces to send together, so that sending takes a small share of the time."""
        seconds = self._seconds.get(kind)
        return 1 if seconds is None else max(1, round(self._overhead / _OVERHEAD_SHARE / max(seconds, 1e-6)))


def _average(before: float | None, now: float) -> float:
    """Return a running average."""
    return now if before is None else 0.8 * before + 0.2 * now
