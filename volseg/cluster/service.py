"""A scheduler, and a worker that joins it from this machine: each serves until it is ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import dask
import distributed

from volseg.cluster.connect import UNREACHABLE, security_for
from volseg.cluster.paths import checked_path_map
from volseg.cluster.settings import PATH_MAP, quiet_dask, worker_settings
from volseg.errors import WorkerError
from volseg.memory import total_gb
from volseg.parallel import allowed_threads
from volseg.progress import MILESTONES
from volseg.system import is_loopback

_CONNECT_SECONDS = 30

milestones = logging.getLogger(MILESTONES)


def run_scheduler(address: str, certificates: Path | None = None) -> None:
    """Run a scheduler until the process is ended.

    Args:
        address: Where it listens: tls://host:8786, with 0.0.0.0 as host for every address of this machine; or
            tcp://127.0.0.1:8786.
        certificates: Folder that `write_certificates` wrote.

    Raises:
        ConfigError: If anybody on the network could connect to it.
        WorkerError: If it cannot listen there.
    """
    quiet_dask()
    security = security_for(address, certificates)
    parts = urlsplit(address)

    async def serve() -> None:
        scheduler = distributed.Scheduler(
            host=parts.hostname,
            port=parts.port,
            protocol=f"{parts.scheme}://",
            security=security,
            dashboard=True,
            dashboard_address="127.0.0.1:0",
        )
        async with scheduler:
            milestones.info("the scheduler listens at %s", scheduler.address)
            if dashboard := scheduler.services.get("dashboard"):
                milestones.info("dashboard on this machine: http://127.0.0.1:%d/status", dashboard.port)
            await scheduler.finished()

    try:
        asyncio.run(serve())
    except OSError as error:
        raise WorkerError(f"cannot listen at {address}: {error}", hint="choose another port") from error


def run_worker(
    address: str,
    certificates: Path | None = None,
    *,
    threads: int | None = None,
    memory_gb: float | None = None,
    path_map: Mapping[str, str] | None = None,
) -> None:
    """Work for a scheduler until it ends.

    Args:
        address: Of the scheduler.
        certificates: Folder that `write_certificates` wrote.
        threads: With how many threads it computes; by default all that this process may use.
        memory_gb: Memory that it may use, in 10^9 bytes; by default all of the machine.
        path_map: Folder on the coordinating machine -> the same folder here.

    Raises:
        ConfigError: If anybody on the network could connect to it.
        WorkerError: If the scheduler cannot be reached.
    """
    quiet_dask()
    security = security_for(address, certificates)
    settings = worker_settings(threads or allowed_threads())
    settings[PATH_MAP] = checked_path_map(path_map or {})

    async def serve() -> None:
        nanny = distributed.Nanny(
            address,
            nthreads=1,
            memory_limit=int((memory_gb or total_gb()) * 1e9),
            security=security,
            host="127.0.0.1" if is_loopback(urlsplit(address).hostname or "") else None,
            death_timeout=_CONNECT_SECONDS,
            dashboard_address="127.0.0.1:0",
        )
        async with nanny:
            milestones.info("the worker has joined %s", address)
            await nanny.finished()
        milestones.info("the scheduler at %s has ended", address)

    try:
        with dask.config.set(settings):
            asyncio.run(serve())
    except (OSError, TimeoutError, RuntimeError) as error:
        raise WorkerError(
            f"cannot join the scheduler at {address}: {error}",
            hint=UNREACHABLE,
        ) from error
