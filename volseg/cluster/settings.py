"""Dask's settings."""

from __future__ import annotations

import logging
from typing import Any

import dask

#: A worker that takes this share of its memory is ended before the machine runs out, so that its case is known.
_MOST_MEMORY = 0.95
#: Keys of volseg's own: with how many threads a worker computes, and where folders lie on its machine.
THREADS, PATH_MAP = "volseg.threads", "volseg.path-map"
#: The variables by which libraries learn how many threads they may use.
_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def worker_settings(threads: int) -> dict[str, Any]:
    """Return keys of Dask's configuration, with their values.

    Args:
        threads: With how many threads a worker computes.
    """
    return {
        # Dask's memory management is for its own collections; a worker that it pauses here would never go on.
        **{f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")},
        "distributed.worker.memory.terminate": _MOST_MEMORY,
        "distributed.worker.profile.enabled": False,
        **{f"distributed.nanny.pre-spawn-environ.{name}": str(threads) for name in _COUNTS},
        THREADS: threads,
    }


def quiet_dask() -> None:
    """Leave it to volseg to say what happens to workers, in this process and in those that it starts."""
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    dask.config.set({"distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical"})
