"""An executor on a Dask cluster: it gives each worker one piece of work at a time, and survives the loss of any.

Dask carries work to the workers; which of them gets what is decided here. So it is known what a worker was doing when
it died, no worker holds work that another could begin, and none gets any before it has been admitted.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar
from uuid import uuid4

import distributed

from volseg.cluster.paths import PathMap, checked_path_map, existing_files, with_paths
from volseg.cluster.work import Pace, Parcel, Piece, Worker, WorkerStatus
from volseg.cluster.worker import Outcome, admit, perform, programs
from volseg.errors import UnfitWorkerError, VolsegError, WorkerError, WorkerLostError
from volseg.progress import MILESTONES

#: How many files of each piece of work, and of a parcel, a worker must see, which proves that its folders are the same.
_WITNESSES, _MOST_WITNESSES = 3, 12
#: How many workers a piece of work may end; then it is given up.
_LIVES = 2
#: How often the list of workers is read.
_LOOK_SECONDS = 0.5
#: A worker gets no more than this share of what waits at a time, divided by the number of workers.
_SHARE_OF_WAITING = 0.25
#: How long the scheduler may be out of reach.
_SCHEDULER_SECONDS = 30.0
#: How long to wait for a fit worker after all others were refused.
_REFUSED_SECONDS = 30.0

#: How often to say that there is no worker.
_REMIND_SECONDS = 60.0
_AGAIN = "finished cases are kept; run the same command again to continue"

_Result = TypeVar("_Result")

logger = logging.getLogger(__name__)
milestones = logging.getLogger(MILESTONES)


@dataclass(frozen=True, eq=False)
class _Ended:
    """A message: a worker has ended a parcel, or its admission if there is none."""

    address: str
    future: distributed.Future
    result: Any = None
    error: Exception | None = None


@dataclass(frozen=True)
class _Close:
    """A message: no more work will come.

    Attributes:
        at_once: Whether to abandon what is not done.
    """

    at_once: bool


class ClusterExecutor(Executor):
    """Does pieces of work on the workers of a Dask cluster.

    A piece that ends two workers (for lack of memory, say) fails with `WorkerLostError`; errors that it raises are
    passed on. A worker that raises `UnfitWorkerError` gets no more work, and another one does the piece.

    Args:
        client: Connected to the scheduler.
        path_map: Folder here -> the same folder on workers that have no map of their own.
    """

    def __init__(self, client: distributed.Client, path_map: PathMap | None = None) -> None:
        self._client = client
        self._path_map = checked_path_map(path_map or {})
        self._messages: SimpleQueue[Piece | _Ended | _Close] = SimpleQueue()
        self._waiting: deque[Piece] = deque()
        self._workers: dict[str, Worker] = {}
        self._numbers = count(1)
        self._idle_since: float | None = None
        self._is_shut = self._closing = False
        self._looked = -_LOOK_SECONDS
        self._pace = Pace()
        self._failure: WorkerError | None = None
        self._refusal = ""
        self._heard = self._fit = time.monotonic()
        self._remind = self._heard + _LOOK_SECONDS * 20
        self._thread = Thread(target=self._run, name="volseg-cluster", daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[..., _Result], /, *args: Any, **kwargs: Any) -> Future[_Result]:
        """Queue a call; calls begin in their order, and relative paths in them are those of this process.

        Raises:
            RuntimeError: After `shutdown`.
        """
        if self._is_shut:
            raise RuntimeError("the executor was shut down, and takes no more work")
        piece = Piece(with_paths(partial(fn, *args, **kwargs), Path.absolute), Future())
        self._messages.put(piece)
        return piece.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; the cluster stays.

        Args:
            wait: Whether to wait for the end of all work.
            cancel_futures: Whether to abandon work that is not done.
        """
        self._is_shut = True
        self._messages.put(_Close(cancel_futures))
        if wait:
            self._thread.join()

    @property
    def idle_seconds(self) -> float:
        """For how long there has been no work."""
        return 0.0 if self._idle_since is None else time.monotonic() - self._idle_since

    @property
    def state(self) -> str:
        """What the workers do, in a few words."""
        workers = list(self._workers.values())
        ready = [worker for worker in workers if worker.status is WorkerStatus.READY]
        parts = [f"{len(ready)} worker{'s' * (len(ready) != 1)}"]
        if idle := sum(not worker.running for worker in ready):
            parts.append(f"{idle} idle")
        if joining := sum(worker.status is WorkerStatus.JOINING for worker in workers):
            parts.append(f"{joining} joining")
        if refused := sum(worker.status is WorkerStatus.REFUSED for worker in workers):
            parts.append(f"{refused} refused")
        return ", ".join(parts)

    def _run(self) -> None:
        """Handle all messages, then give out work, again and again; only this thread touches the state."""
        while not self._closing or self._has_work():
            try:
                with suppress(Empty):
                    self._handle(self._messages.get(timeout=_LOOK_SECONDS))
                    while True:
                        self._handle(self._messages.get_nowait())
                self._advance()
            except WorkerError as error:
                self._fail(error)
            except Exception as error:  # noqa: BLE001  whoever waits for a result must hear of it
                self._fail(WorkerError(f"the cluster cannot be used any more: {error!r}", hint=_AGAIN))
            if not self._has_work():
                self._idle_since = self._idle_since or time.monotonic()

    def _advance(self) -> None:
        if self._failure:
            raise self._failure
        if time.monotonic() - self._looked >= _LOOK_SECONDS:
            self._look()
            self._looked = time.monotonic()
        self._hand_out()

    def _handle(self, message: Piece | _Ended | _Close) -> None:
        match message:
            case Piece():
                self._waiting.append(message)
                self._idle_since = None
            case _Ended():
                self._end(message)
            case _Close():
                self._closing = True
                if message.at_once:
                    self._fail(WorkerError("the cluster was closed", hint=_AGAIN))

    def _has_work(self) -> bool:
        return bool(self._waiting) or any(worker.running for worker in self._workers.values())

    def _look(self) -> None:
        """Find out which workers have come and which have gone.

        Raises:
            WorkerError: If the scheduler is gone, or no worker is fit.
        """
        try:
            present: dict[str, int] = self._client.nthreads()
        except (OSError, RuntimeError, ValueError) as error:  # Dask raises any of them, after a while
            if time.monotonic() - self._heard > _SCHEDULER_SECONDS or self._client.status in {"closed", "closing"}:
                raise WorkerError(
                    "the scheduler of the cluster cannot be reached any more",
                    hint=f"start it; {_AGAIN}",
                ) from error
            return
        self._heard = time.monotonic()
        for address in self._workers.keys() - present.keys():
            self._lose(self._workers.pop(address))
        for address in present.keys() - self._workers.keys():
            self._workers[address] = Worker(next(self._numbers), present[address])
            self._send(address, partial(admit, programs()))
        self._check_that_one_is_fit()

    def _check_that_one_is_fit(self) -> None:
        if not self._workers and self._waiting and time.monotonic() > self._remind:
            milestones.info("waiting for a worker: none has joined")
            self._remind = time.monotonic() + _REMIND_SECONDS
        if {worker.status for worker in self._workers.values()} != {WorkerStatus.REFUSED} or not self._waiting:
            self._fit = time.monotonic()
        elif time.monotonic() - self._fit > _REFUSED_SECONDS:
            raise WorkerError(
                f"no worker can be used: {self._refusal}", hint="start others, then run the same command again"
            )

    def _hand_out(self) -> None:
        """Give work to free workers: to those with the least of it, or the most memory if it has ended one."""
        while self._waiting:
            free = [(address, worker) for address, worker in self._workers.items() if worker.can_take(self._waiting[0])]
            if not free:
                return
            if self._waiting[0].deaths:
                address, worker = max(free, key=lambda each: each[1].memory_gb)
            else:
                address, worker = min(free, key=lambda each: len(each[1].running))
            if pieces := self._next_pieces():
                works = [piece.work for piece in pieces]
                witnesses = [path for work in works for path in islice(existing_files(work), _WITNESSES)]
                task = partial(perform, works, self._path_map, witnesses[:_MOST_WITNESSES])
                try:
                    future = self._send(address, task)
                except Exception:
                    self._waiting.extendleft(reversed(pieces))  # whoever handles the error finds them there
                    raise
                worker.running.append(Parcel(pieces, future, time.monotonic()))

    def _next_pieces(self) -> tuple[Piece, ...]:
        """Take the pieces of the next parcel from the queue, without those that were cancelled."""
        first = self._waiting[0]
        ready = sum(worker.status is WorkerStatus.READY for worker in self._workers.values())
        fair = int(len(self._waiting) * _SHARE_OF_WAITING / max(ready, 1))
        most = 1 if first.deaths else max(1, min(self._pace.pieces_worth_sending(first.kind), fair))
        taken: list[Piece] = []
        while self._waiting and len(taken) < most:
            piece = self._waiting[0]
            if taken and (piece.deaths or piece.kind is not first.kind):
                break
            self._waiting.popleft()
            if piece.future.running() or piece.future.set_running_or_notify_cancel():
                taken.append(piece)
        return tuple(taken)

    def _send(self, address: str, work: Callable[[], Any]) -> distributed.Future:
        """Send work to one worker."""
        future = self._client.submit(
            work, key=f"volseg-{uuid4().hex}", workers=[address], allow_other_workers=False, pure=False
        )

        def tell(ended: distributed.Future) -> None:
            try:
                message = _Ended(address, ended, ended.result())
            except Exception as error:  # noqa: BLE001  passed on to whoever waits for the result
                message = _Ended(address, ended, error=error)
            self._messages.put(message)

        future.add_done_callback(tell)
        return future

    def _end(self, ended: _Ended) -> None:
        """Pass on results."""
        worker = self._workers.get(ended.address)
        if worker is None:
            return
        if worker.status is WorkerStatus.JOINING:
            self._admit(worker, ended)
            return
        parcel = next((each for each in worker.running if each.future is ended.future), None)
        if parcel is None:  # it was given to another worker in the meantime
            return
        worker.running.remove(parcel)
        match ended.error:
            case None:
                outcomes: list[Outcome] = ended.result
                took = sum(outcome.seconds for outcome in outcomes)
                self._pace.learn_overhead(time.monotonic() - parcel.sent - took)
                for piece, outcome in zip(parcel.pieces, outcomes, strict=True):
                    self._pass_on(piece, outcome, worker)
            case UnfitWorkerError():
                self._refuse(worker, ended.error)
                self._waiting.extendleft(reversed(parcel.pieces))
            case distributed.KilledWorker():
                self._blame(parcel)
            case CancelledError():  # the scheduler was started again
                self._waiting.extendleft(reversed(parcel.pieces))
            case error:  # it could not be sent, or its result could not
                for piece in parcel.pieces:
                    piece.future.set_exception(error)

    def _pass_on(self, piece: Piece, outcome: Outcome, worker: Worker) -> None:
        self._pace.learn(piece, outcome.seconds)
        match outcome.error:
            case None:
                piece.future.set_result(outcome.result)
            case UnfitWorkerError():
                if worker.status is WorkerStatus.READY:
                    self._refuse(worker, outcome.error)
                self._waiting.appendleft(piece)
            case error:
                piece.future.set_exception(error)

    def _admit(self, worker: Worker, ended: _Ended) -> None:
        match ended.error:
            case None:
                worker.status, (worker.machine, worker.memory_gb) = WorkerStatus.READY, ended.result
                milestones.info("%s has joined", worker)
            case CancelledError() | distributed.KilledWorker():  # the scheduler was started again, or the worker
                del self._workers[ended.address]  # if it is there, it is admitted anew
            case error:
                self._refuse(worker, error)

    def _refuse(self, worker: Worker, error: Exception) -> None:
        reason = error.explanation if isinstance(error, VolsegError) else f"it cannot do this work: {error!r}"
        worker.status = WorkerStatus.REFUSED
        self._refusal = f"{worker} is refused: {reason}"
        logger.warning("%s", self._refusal)

    def _lose(self, worker: Worker) -> None:
        """Take back the work of a worker that is gone."""
        for parcel in worker.running:
            self._blame(parcel)
            _forget(parcel)
        logger.log(logging.WARNING if worker.running else logging.INFO, "%s is lost", worker)

    def _blame(self, parcel: Parcel) -> None:
        """Count a worker that died with some work."""
        for piece in parcel.pieces:
            piece.deaths += 1
            if piece.deaths < _LIVES:
                self._waiting.append(piece)
            else:
                piece.future.set_exception(
                    WorkerLostError("it ended two workers (out of memory?)", hint="give it a worker with more memory")
                )

    def _fail(self, error: WorkerError) -> None:
        """End all work with an error."""
        self._failure = error
        for worker in self._workers.values():
            for parcel in worker.running:
                for piece in parcel.pieces:
                    piece.future.set_exception(error)
                _forget(parcel)
            worker.running.clear()
        for piece in self._waiting:
            if piece.future.running() or piece.future.set_running_or_notify_cancel():
                piece.future.set_exception(error)
        self._waiting.clear()


def _forget(parcel: Parcel) -> None:
    """Let Dask forget a parcel, as far as there still is a connection."""
    with suppress(Exception):
        parcel.future.cancel()
