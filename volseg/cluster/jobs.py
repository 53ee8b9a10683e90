"""Workers as jobs of a batch system, submitted by dask-jobqueue."""

from __future__ import annotations

import logging
import os
import platform
import secrets
import shlex
import time
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

#: How long it may take to submit the jobs.
_SUBMIT_SECONDS = 120
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
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        why = str(error).strip().split("\n")[0][:200]
        raise ConfigError(
            f"jobqueue: {system}: {why}", hint="the options are those of dask-jobqueue, such as cores and memory"
        ) from error
    stack.enter_context(cluster)
    cluster.scale(jobs=config.jobs)
    _check_submission(cluster, system)
    return cluster, stack.enter_context(distributed.Client(cluster, security=security, set_as_default=False))


def _check_submission(cluster: Any, system: System) -> None:
    """Check that the jobs were submitted: Dask logs a failure, and then waits for ever.

    Raises:
        WorkerError: If one was not.
    """
    end = time.monotonic() + _SUBMIT_SECONDS
    while len(cluster.workers) < len(cluster.worker_spec) and time.monotonic() < end:
        time.sleep(0.1)
    failed = [job for job in cluster._created if job.job_id is None]  # noqa: SLF001  there is no other way
    for job in failed:
        try:
            cluster.sync(job.start)  # which fails in the same way, and says why
        except (OSError, RuntimeError, ValueError) as error:
            for each in failed:
                each.status = distributed.core.Status.closed  # or the cluster could not be closed
            why = str(error).strip().split("\n")[-1][:300]
            raise WorkerError(f"cannot submit jobs to {system}: {why}", hint="submit one by hand to test it") from error


def _options(stated: dict[str, Any]) -> dict[str, Any]:
    """Return the options of dask-jobqueue for workers that do one case at a time, with all their cores."""
    processes, cores = (stated.get(name, 1) for name in ("processes", "cores"))
    for name, number in (("processes", processes), ("cores", cores)):
        if not isinstance(number, int) or number < 1:
            raise ConfigError(f"jobqueue: {name} must be a whole number from 1, not {number!r}", hint="for example 8")
    if own := {"security", "protocol"} & stated.keys():
        raise ConfigError(f"jobqueue: {own.pop()} is chosen by volseg", hint="name certificates: a folder, if need be")
    exports = [
        f"export {_variable(key)}={shlex.quote(str(value))}"
        for key, value in worker_settings(max(1, cores // processes)).items()
    ]
    own_arguments = ("--nthreads", "1", "--dashboard-address", "127.0.0.1:0")  # the last ones count
    return {
        "death_timeout": 300,
        **stated,
        "processes": processes,
        "worker_extra_args": [*stated.get("worker_extra_args", ()), *own_arguments],
        "job_script_prologue": [*exports, *stated.get("job_script_prologue", ())],
        "scheduler_options": {**stated.get("scheduler_options", {}), "dashboard_address": "127.0.0.1:0"},
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
