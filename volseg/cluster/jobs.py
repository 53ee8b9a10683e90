"""Workers as jobs of a batch system, submitted by dask-jobqueue."""

from __future__ import annotations

import logging
import os
import platform
import secrets
import shlex
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread
from typing import Any

import distributed

from volseg.cluster.certificates import security_of, write_certificates
from volseg.cluster.config import ClusterConfig, System
from volseg.cluster.executor import ClusterExecutor
from volseg.cluster.settings import worker_settings
from volseg.errors import ConfigError, WorkerError
from volseg.io.written import remove_scratch
from volseg.system import is_running

#: How often jobs that have ended are replaced.
_REPLACE_SECONDS = 5.0
#: After how long without work jobs are ended, as while a network is trained.
_IDLE_SECONDS = 300.0
_CLASSES: dict[System, str] = {
    "htcondor": "HTCondorCluster",
    "lsf": "LSFCluster",
    "moab": "MoabCluster",
    "oar": "OARCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "slurm": "SLURMCluster",
}


def start_jobs(config: ClusterConfig, stack: ExitStack) -> tuple[Any, distributed.Client]:
    """Start a scheduler in this process, and submit jobs that run workers.

    Args:
        config: With a batch system.
        stack: Ends the jobs.

    Returns:
        The cluster of dask-jobqueue, and a client of its scheduler.

    Raises:
        ConfigError: If dask-jobqueue is missing, or refuses the options.
        WorkerError: If jobs cannot be submitted.
    """
    try:
        import dask_jobqueue
    except ImportError as error:
        raise ConfigError("jobs need dask-jobqueue", hint='pip install "volseg[cluster]"') from error
    ((system, options),) = (config.jobqueue or {}).items()
    security = security_of(config.certificates or _certificates_for_now(stack))
    try:
        cluster = getattr(dask_jobqueue, _CLASSES[system])(**_options(options), security=security)
    except (TypeError, ValueError, OSError) as error:
        raise ConfigError(
            f"jobqueue: {system}: {error}", hint="the options are those of dask-jobqueue, such as cores and memory"
        ) from error
    stack.enter_context(cluster)
    try:
        cluster.scale(jobs=config.jobs)
        cluster.sync(cluster._correct_state)  # noqa: SLF001  the only way to hear of a failure to submit
    except (OSError, RuntimeError) as error:
        raise WorkerError(
            f"cannot submit jobs: {error}", hint=f"is this a machine that submits to {system}?"
        ) from error
    return cluster, stack.enter_context(distributed.Client(cluster, security=security, set_as_default=False))


def _options(stated: dict[str, Any]) -> dict[str, Any]:
    """Return the options of dask-jobqueue for workers that do one case at a time, with all their cores."""
    processes = int(stated.get("processes", 1))
    settings = worker_settings(max(1, int(stated.get("cores", 1)) // processes))
    exports = [f"export {_variable(key)}={shlex.quote(str(value))}" for key, value in settings.items()]
    return {
        "death_timeout": 300,
        **stated,
        "processes": processes,
        "worker_extra_args": [
            *("--nthreads", "1", "--dashboard-address", "127.0.0.1:0"),
            *stated.get("worker_extra_args", ()),
        ],
        "job_script_prologue": [*exports, *stated.get("job_script_prologue", ())],
        "scheduler_options": {"dashboard_address": "127.0.0.1:0", **stated.get("scheduler_options", {})},
        "silence_logs": stated.get("silence_logs", logging.CRITICAL),
    }


def _variable(key: str) -> str:
    """Return the environment variable of a key of Dask's configuration."""
    return f"DASK_{key.upper().replace('.', '__').replace('-', '_')}"


def _certificates_for_now(stack: ExitStack) -> Path:
    """Write certificates for this run alone into the home folder, which the nodes of most clusters share."""
    home, machine = Path.home() / ".cache" / "volseg", platform.node()
    for earlier in home.glob(f"cluster-{machine}-*"):
        process = earlier.name.split("-")[-2]
        if process.isdecimal() and not is_running(int(process)):  # it was killed
            remove_scratch(earlier)
    folder = home / f"cluster-{machine}-{os.getpid()}-{secrets.token_hex(4)}"
    stack.callback(remove_scratch, write_certificates(folder, days=30))
    return folder


def keep_jobs(cluster: Any, jobs: int, executor: ClusterExecutor, stack: ExitStack) -> None:
    """Submit jobs anew that have ended, by their time limit or with their node; end them all if there is no work.

    Args:
        cluster: Of dask-jobqueue.
        jobs: How many run at the same time.
        executor: Knows whether there is work.
        stack: Ends this.
    """
    ended = Event()

    def keep() -> None:
        while not ended.wait(_REPLACE_SECONDS):
            cluster.scale(jobs=0 if executor.idle_seconds > _IDLE_SECONDS else jobs)

    thread = Thread(target=keep, name="volseg-jobs", daemon=True)
    thread.start()
    stack.callback(thread.join)
    stack.callback(ended.set)
