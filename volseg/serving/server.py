"""The server, and sending of files to a DICOM node: what the commands `serve` and `send` call."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from threading import Event

from volseg.errors import ConfigError, DataError, OutputError
from volseg.io.record import owned
from volseg.progress import MILESTONES, Progress, ignore_progress
from volseg.serving.config import ServerConfig, destination_of
from volseg.serving.dicom.objects import check_keywords, is_dicom
from volseg.serving.dicom.receiver import run_receiver
from volseg.serving.dicom.sender import echo
from volseg.serving.dicom.sender import send as send_objects
from volseg.serving.housekeeping import run_planner
from volseg.serving.outbox import run_outbox
from volseg.serving.processes import Task, run_processes
from volseg.serving.store import Store, open_store
from volseg.serving.store.users import has_users
from volseg.serving.training import run_trainer
from volseg.serving.web.app import run_web
from volseg.serving.worker import run_worker

milestones = logging.getLogger(MILESTONES)


def serve(config: ServerConfig, on_ready: Callable[[list[str]], None] | None = None, stop: Event | None = None) -> None:
    """Serve until the process is asked to end.

    Args:
        config: What is served.
        on_ready: Called with a few lines about what listens where, when it does; by default they are logged.
        stop: Ends the server when it is set.

    Raises:
        ConfigError: If it would be open to anybody on the network, or something in it is not possible.
        OutputError: If its store cannot be written, or another server uses it, or it cannot listen.
        WorkerError: If a model cannot be loaded.
    """
    store = open_store(config.store)
    _check(config, store)
    tasks: dict[str, Task] = {"web": run_web}
    if config.dicom.port:
        tasks["receiver"] = run_receiver
    tasks |= {"worker": run_worker, "trainer": run_trainer, "planner": run_planner}
    if config.destinations:
        tasks["outbox"] = run_outbox
    with owned(config.store) as is_mine:
        if not is_mine:
            raise OutputError(f"another server uses {config.store}", hint="end it, or choose another --store")
        for leftover in store.work.iterdir():  # of a server that was killed
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        run_processes(tasks, config, on_ready or _log, stop or Event())


def check_server(config: ServerConfig) -> list[str]:
    """Check whether a server could start, and whether its destinations answer, without starting it.

    Returns:
        A line about each part.

    Raises:
        ConfigError: If something is not possible.
        OutputError: If the store cannot be written.
        CheckpointError: If a model cannot be loaded.
        DeliveryError: If a destination does not answer.
    """
    from volseg.loaded_model import load

    store = open_store(config.store)
    _check(config, store)
    lines = [f"store {config.store}: {store.free_bytes / 1e9:.1f} GB free"]
    for name, path in config.models.items():
        lines.append(f"model {name}: {load(path, device=config.device)!r}")
    for name, destination in config.destinations.items():
        echo(destination, config.dicom.ae_title)
        lines.append(f"destination {name}: {destination.to} answers")
    return lines


def send(
    source: str | PathLike[str], to: str, *, ae_title: str = "VOLSEG", progress: Progress = ignore_progress
) -> list[tuple[Path, str]]:
    """Send every DICOM file in a folder to a DICOM node or a DICOMweb service.

    Args:
        source: A folder, or a file.
        to: AE@host:port, or the https:// address of a DICOMweb service.
        ae_title: What this side is called.
        progress: Called per file.

    Returns:
        Each DICOM file with the reason why it was not accepted; empty if it was.

    Raises:
        ConfigError: If the address has another form.
        DataError: If there is no DICOM file.
        DeliveryError: If it cannot be reached.
    """
    place = Path(source)
    if not place.exists():
        raise DataError(f"there is nothing at {place}", hint="check the path")
    destination = destination_of(to)
    found = sorted(path for path in (place.rglob("*") if place.is_dir() else [place]) if is_dicom(path))
    if not found:
        raise DataError(f"there is no DICOM file in {place}", hint="`volseg export` makes one of a mask")
    outcome = []
    for path, refusal in send_objects(found, destination, ae_title):
        outcome.append((path, refusal))
        progress("send", len(outcome), len(found))
    return outcome


def _check(config: ServerConfig, store: Store) -> None:
    config.check_protection(has_users=has_users(store))
    for rule in config.rules:
        check_keywords(rule.tags)
    for name, path in config.models.items():
        if not path.exists():
            raise ConfigError(f"model {name}: there is nothing at {path}", hint="name a run folder or a model file")


def _log(lines: list[str]) -> None:
    for line in lines:
        milestones.info("%s", line)
