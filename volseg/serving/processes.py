"""The process tree: one process for each task, started again if it ends; all of them end with their parent."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Event

from volseg.errors import VolsegError
from volseg.serving.config import ServerConfig
from volseg.serving.store import Store, open_store

#: Called once a process does its task, with a line about it for whoever has started the server; perhaps an empty one.
Ready = Callable[[str], None]
#: What a process does until the event is set.
Task = Callable[[ServerConfig, Store, Event, Ready], None]

#: How long processes have to put their work in order when the server ends.
_STOP_SECONDS = 30.0
#: How long to wait before a process is started again that has just been started.
_AGAIN_SECONDS = 5.0
#: Exit code of a process that would end the same way if it were started again: something outside volseg is wrong.
_EXIT_REFUSED = 2

logger = logging.getLogger(__name__)


class _Child:
    """A process with a task.

    Args:
        name: Of the process, and in its log lines.
        task: What it does.
        config: For the task.
    """

    def __init__(self, name: str, task: Task, config: ServerConfig) -> None:
        self.name, self._task, self._config = name, task, config
        self._started = 0.0
        self._says: Connection | None = None
        self._refusal: VolsegError | None = None
        self.process: BaseProcess | None = None
        self.line: str | None = None

    def start(self) -> None:
        """Start it."""
        context = multiprocessing.get_context("spawn")
        self._says, says = context.Pipe(duplex=False)
        self.process = context.Process(target=_run, args=(self.name, self._task, self._config, says), name=self.name)
        self.process.start()
        says.close()
        self._started = time.monotonic()

    def keep_alive(self) -> None:
        """Start it again if it has ended.

        Raises:
            VolsegError: What it has refused to start for.
        """
        if self.process is None or self.process.is_alive():
            return
        self.listen()
        if self._refusal is not None:
            raise self._refusal
        if time.monotonic() - self._started > _AGAIN_SECONDS:
            logger.warning("the %s has ended (exit code %s) and is started again", self.name, self.process.exitcode)
            self.start()

    def listen(self) -> None:
        """Take note of what it has said."""
        while self._says is not None and self._says.poll():
            try:
                said: str | VolsegError = self._says.recv()
            except EOFError:
                self._says.close()
                self._says = None
            else:
                if isinstance(said, str):
                    self.line = said
                else:
                    self._refusal = said

    def stop(self, deadline: float) -> None:
        """Wait until it has ended, and kill it if that takes too long."""
        if self.process is not None:
            self.process.join(max(0.0, deadline - time.monotonic()))
            if self.process.is_alive():
                self.process.kill()
                self.process.join()


def run_processes(
    tasks: Mapping[str, Task], config: ServerConfig, on_ready: Callable[[list[str]], None], stop: Event
) -> None:
    """Run each task in a process of its own until `stop` is set, or an exception ends the wait.

    Args:
        tasks: Name -> what it does.
        config: For all of them.
        on_ready: Called once, with their lines, when all of them do their task.
        stop: Ends all of them.

    Raises:
        VolsegError: If one of them refuses to start.
    """
    children = [_Child(name, task, config) for name, task in tasks.items()]
    is_ready = False
    try:
        for child in children:
            child.start()
        while not stop.wait(0.2):
            for child in children:
                child.keep_alive()
                child.listen()
            lines = [child.line for child in children]
            if not is_ready and None not in lines:
                is_ready = True
                on_ready([line for line in lines if line])
    finally:
        for child in children:
            if child.process is not None and child.process.is_alive():
                child.process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for child in children:
            child.stop(deadline)


def _run(name: str, task: Task, config: ServerConfig, says: Connection) -> None:
    """Do a task in this process until it is asked to end, or its parent has ended."""
    stop = Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent passes it on in order
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log_to_stderr(name)
    try:
        task(config, open_store(config.store), stop, says.send)
    except VolsegError as error:
        says.send(error)
        sys.exit(_EXIT_REFUSED)


def _end_with_parent() -> None:
    """End this process when its parent was killed: whatever it was doing is done again by the next one."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def log_to_stderr(name: str) -> None:
    """Log to stderr with time and task: for a terminal, a file or a journal. Nothing in it identifies a patient."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"%(asctime)s {name} %(levelname)s %(message)s"))
    ours = logging.getLogger("volseg")
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    # These tell what was sent, in full.
    for library in ("pynetdicom", "pydicom"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
