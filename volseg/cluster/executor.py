"""An executor on a Dask cluster: it gives each worker one piece of work at a time, and survives the loss of any.

Dask carries work to the workers; which of them gets what is decided here. So it is known what a worker was doing when
it died, no worker holds work that another could begin, and none gets any before it has been admitted.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import count
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar
from uuid import uuid4

import distributed
from distributed.client import FutureCancelledError

from volseg.cluster.paths import PathMap, checked_path_map
from volseg.cluster.worker import admit, perform, programs
from volseg.errors import UnfitWorkerError, VolsegError, WorkerError, WorkerLostError
from volseg.progress import MILESTONES

#: How many workers a piece of work may end; then it is given up.
_LIVES = 2
#: How often the list of workers is read.
_LOOK_SECONDS = 0.5
#: How long the scheduler may be out of reach.
_SCHEDULER_SECONDS = 30.0
#: How long to wait for a fit worker after all others were refused.
_REFUSED_SECONDS = 30.0

_Result = TypeVar("_Result")

logger = logging.getLogger(__name__)
milestones = logging.getLogger(MILESTONES)


class WorkerStatus(Enum):
    """The status of a worker."""

    JOINING = "joining"
    READY = "ready"
    REFUSED = "refused"


@dataclass(eq=False)
class _Piece:
    """A piece of work.

    Attributes:
        work: A function with its arguments.
        future: Its result, for the caller.
        deaths: How many workers died while they had it.
    """

    work: Callable[[], Any]
    future: Future[Any]
    deaths: int = 0


@dataclass(eq=False)
class _Worker:
    """A worker.

    Attributes:
        number: By which messages call it.
        slots: How many pieces it may have at a time: its number of threads.
        machine: The name of its machine.
        running: Its work: the piece, and its future in Dask.
    """

    number: int
    slots: int
    status: WorkerStatus = WorkerStatus.JOINING
    machine: str = ""
    running: dict[_Piece, distributed.Future] = field(default_factory=dict)

    def can_take(self, piece: _Piece) -> bool:
        """Return whether it may have another piece; one that has ended a worker gets one for itself alone."""
        if self.status is not WorkerStatus.READY:
            return False
        if piece.deaths:
            return not self.running
        return len(self.running) < self.slots and not any(other.deaths for other in self.running)

    def __str__(self) -> str:
        return f"worker {self.number}" + (f" on {self.machine}" if self.machine else "")


@dataclass(frozen=True, eq=False)
class _Ended:
    """A message: a worker has ended a piece of work, or its admission if there is no piece."""

    address: str
    piece: _Piece | None
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
        self._messages: SimpleQueue[_Piece | _Ended | _Close] = SimpleQueue()
        self._waiting: deque[_Piece] = deque()
        self._workers: dict[str, _Worker] = {}
        self._numbers = count(1)
        self._failure: WorkerError | None = None
        self._refusal = ""
        self._heard = self._fit = time.monotonic()
        self._thread = Thread(target=self._run, name="volseg-cluster", daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[..., _Result], /, *args: Any, **kwargs: Any) -> Future[_Result]:
        """Queue a call; calls begin in their order."""
        piece = _Piece(partial(fn, *args, **kwargs), Future())
        self._messages.put(piece)
        return piece.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; the cluster stays.

        Args:
            wait: Whether to wait for the end of all work.
            cancel_futures: Whether to abandon work that is not done.
        """
        self._messages.put(_Close(cancel_futures))
        if wait:
            self._thread.join()

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
        """Handle one message after the other; only this thread touches the state."""
        looked, closing = -_LOOK_SECONDS, False
        while not (closing and not self._waiting and not any(worker.running for worker in self._workers.values())):
            try:
                message = self._messages.get(timeout=_LOOK_SECONDS)
                match message:
                    case _Piece():
                        self._waiting.append(message)
                    case _Ended():
                        self._end(message)
                    case _Close():
                        closing = True
                        if message.at_once:
                            self._fail(WorkerError("the cluster was closed", hint="run the same command again"))
            except Empty:
                pass
            if self._failure:
                self._fail(self._failure)
                continue
            try:
                if time.monotonic() - looked >= _LOOK_SECONDS:
                    self._look()
                    looked = time.monotonic()
                self._hand_out()
            except WorkerError as error:
                self._fail(error)

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
                    hint="finished cases are kept; start it, and run the same command again to continue",
                ) from error
            return
        self._heard = time.monotonic()
        for address in self._workers.keys() - present.keys():
            self._lose(self._workers.pop(address))
        for address in present.keys() - self._workers.keys():
            self._workers[address] = _Worker(next(self._numbers), present[address])
            self._send(address, None, partial(admit, programs()))
        self._check_that_one_is_fit()

    def _check_that_one_is_fit(self) -> None:
        if {worker.status for worker in self._workers.values()} != {WorkerStatus.REFUSED} or not self._waiting:
            self._fit = time.monotonic()
        elif time.monotonic() - self._fit > _REFUSED_SECONDS:
            raise WorkerError(
                f"no worker can be used: {self._refusal}", hint="start others, then run the same command again"
            )

    def _hand_out(self) -> None:
        """Give work to workers that are free, to those with the least work first."""
        while self._waiting:
            piece = self._waiting[0]
            free = [(address, worker) for address, worker in self._workers.items() if worker.can_take(piece)]
            if not free:
                return
            self._waiting.popleft()
            if piece.future.running() or piece.future.set_running_or_notify_cancel():
                address, worker = min(free, key=lambda each: len(each[1].running))
                worker.running[piece] = self._send(address, piece, partial(perform, piece.work, self._path_map))

    def _send(self, address: str, piece: _Piece | None, work: Callable[[], Any]) -> distributed.Future:
        """Send work to one worker."""
        future = self._client.submit(
            work, key=f"volseg-{uuid4().hex}", workers=[address], allow_other_workers=False, pure=False
        )

        def tell(ended: distributed.Future) -> None:
            try:
                message = _Ended(address, piece, ended, ended.result())
            except Exception as error:  # noqa: BLE001  passed on to whoever waits for the result
                message = _Ended(address, piece, ended, error=error)
            self._messages.put(message)

        future.add_done_callback(tell)
        return future

    def _end(self, ended: _Ended) -> None:
        """Pass on a result."""
        worker, piece = self._workers.get(ended.address), ended.piece
        if worker is None:
            return
        if piece is None:
            self._admit(worker, ended)
            return
        if worker.running.get(piece) is not ended.future:  # it was given to another worker in the meantime
            return
        del worker.running[piece]
        match ended.error:
            case None:
                piece.future.set_result(ended.result)
            case UnfitWorkerError():
                self._refuse(worker, ended.error)
                self._waiting.appendleft(piece)
            case distributed.KilledWorker():
                self._blame(piece)
            case FutureCancelledError():  # the scheduler was started again
                self._waiting.appendleft(piece)
            case error:
                piece.future.set_exception(error)

    def _admit(self, worker: _Worker, ended: _Ended) -> None:
        if ended.error is None:
            worker.status, worker.machine = WorkerStatus.READY, ended.result
            milestones.info("%s has joined", worker)
        elif not isinstance(ended.error, FutureCancelledError | distributed.KilledWorker):
            self._refuse(worker, ended.error)

    def _refuse(self, worker: _Worker, error: Exception) -> None:
        reason = error.explanation if isinstance(error, VolsegError) else f"it cannot do this work: {error!r}"
        worker.status = WorkerStatus.REFUSED
        self._refusal = f"{worker} is refused: {reason}"
        logger.warning("%s", self._refusal)

    def _lose(self, worker: _Worker) -> None:
        """Take back the work of a worker that is gone."""
        for piece, future in worker.running.items():
            future.cancel()
            self._blame(piece)
        logger.log(logging.WARNING if worker.running else logging.INFO, "%s is lost", worker)

    def _blame(self, piece: _Piece) -> None:
        """Count a worker that died with a piece of work."""
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
            for piece, future in worker.running.items():
                piece.future.set_exception(error)
                future.cancel()
            worker.running.clear()
        for piece in self._waiting:
            if piece.future.running() or piece.future.set_running_or_notify_cancel():
                piece.future.set_exception(error)
        self._waiting.clear()
