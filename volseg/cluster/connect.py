"""From `--cluster` to an executor: workers on this machine, those of a scheduler, or jobs of a batch system."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path

import dask
import distributed

from volseg.cluster.certificates import security_of
from volseg.cluster.config import ClusterConfig, check_address, parse_cluster
from volseg.cluster.executor import ClusterExecutor
from volseg.cluster.jobs import keep_jobs, start_jobs
from volseg.cluster.settings import quiet_dask, worker_settings
from volseg.errors import WorkerError
from volseg.memory import total_gb
from volseg.parallel import allowed_threads
from volseg.progress import MILESTONES

_CONNECT_SECONDS = 20
#: What to do if a scheduler cannot be reached.
UNREACHABLE = "is it running, is the address right, and are the certificates those of its cluster?"
#: What workers of this machine import before they start, which takes seconds.
_PRELOADED = "volseg.cluster.preload"

milestones = logging.getLogger(MILESTONES)


@contextmanager
def connect(cluster: str | ClusterConfig) -> Iterator[ClusterExecutor]:
    """Connect to a cluster, or start one.

    Args:
        cluster: "local:4" for four workers on this machine, the address of a scheduler, or a YAML file; see
            docs/cluster.md.

    Yields:
        Its executor; what was started for it ends with the block.

    Raises:
        ConfigError: If it is described wrongly.
        WorkerError: If it cannot be reached.
    """
    config = parse_cluster(cluster) if isinstance(cluster, str) else cluster
    quiet_dask()
    with ExitStack() as stack:
        jobs = None
        if config.local is not None:
            client = _local(config.local, stack)
        elif config.address is not None:
            client = _remote(config.address, config.certificates, stack)
        else:
            jobs, client = start_jobs(config, stack)
        if config.address is None and client.scheduler_info().get("services", {}).get("dashboard"):
            milestones.info("dashboard: %s", client.dashboard_link)
        executor = ClusterExecutor(client, config.path_map)
        stack.callback(executor.shutdown, cancel_futures=True)
        if jobs is not None:
            keep_jobs(jobs, config.jobs, executor, stack)
        yield executor


def on(client: distributed.Client, path_map: dict[str, str] | None = None) -> ClusterExecutor:
    """Return an executor on a Dask cluster that is already running.

    Args:
        client: Connected to its scheduler.
        path_map: Folder on this machine -> the same folder on the workers.

    Returns:
        The executor, for `predict_folder`, `evaluate`, `inspect`, `plan` and `train`; used in a `with` statement, it
        waits at the end for all work. It does not close the client.
    """
    return ClusterExecutor(client, path_map)


def _local(workers: int, stack: ExitStack) -> distributed.Client:
    stack.enter_context(dask.config.set(worker_settings(max(1, allowed_threads() // workers))))
    if "forkserver" in multiprocessing.get_all_start_methods():
        stack.enter_context(dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}))
        _import_for_all()
    security = distributed.Security.temporary()  # on a shared machine other users could connect to it
    try:
        cluster = distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=int(total_gb() * 1e9 / workers),
            host="127.0.0.1",
            protocol="tls://",
            security=security,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        )
    except (OSError, TimeoutError, RuntimeError) as error:
        raise WorkerError(
            f"cannot start {workers} workers: {_last_line(error)}", hint="start fewer, or none: leave out --cluster"
        ) from error
    stack.enter_context(cluster)
    return stack.enter_context(distributed.Client(cluster, security=security, set_as_default=False))


def _import_for_all() -> None:
    """Import what workers need into a process that they will be copies of, and meanwhile into this one."""
    from multiprocessing import forkserver

    distributed.utils.get_mp_context()  # which would replace the list later
    multiprocessing.set_forkserver_preload([_PRELOADED])
    stated = dask.config.get("distributed.nanny.pre-spawn-environ")
    with _environment({name: str(value) for name, value in stated.items() if value is not None}):
        forkserver.ensure_running()
    import_module(_PRELOADED)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for processes that are started."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _remote(address: str, certificates: Path | None, stack: ExitStack) -> distributed.Client:
    security = security_for(address, certificates)
    try:
        client = distributed.Client(address, security=security, set_as_default=False, timeout=_CONNECT_SECONDS)
    except (OSError, TimeoutError, RuntimeError, ValueError) as error:
        raise WorkerError(
            f"cannot connect to the scheduler at {address}: {_last_line(error)}",
            hint=UNREACHABLE,
        ) from error
    return stack.enter_context(client)


def security_for(address: str, certificates: Path | None) -> distributed.Security:
    """Return the certificates for an address: those of a folder, or of Dask's own configuration.

    Raises:
        ConfigError: If the address needs some and there are none, or anybody could connect to it.
    """
    security = distributed.Security() if certificates is None else security_of(certificates)
    check_address(address, is_protected=bool(security.tls_ca_file and security.tls_client_cert))
    return security


def _last_line(error: BaseException) -> str:
    """Return the cause of an error, which Dask wraps in others."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error) or type(error).__name__).strip().splitlines()[-1]
