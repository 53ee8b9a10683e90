"""The same work on many machines, by Dask (`pip install "volseg[cluster]"`); see docs/cluster.md.

    import volseg, volseg.cluster

    with volseg.cluster.connect("local:4") as executor:
        volseg.load("runs/a").predict_folder("patients", "masks", executor=executor)

Importing it needs Dask, and fails with a `ConfigError` without it.
"""

from __future__ import annotations

from importlib.util import find_spec

from volseg.errors import ConfigError

if any(find_spec(name) is None for name in ("distributed", "cryptography")):
    raise ConfigError("a cluster needs Dask", hint='pip install "volseg[cluster]"')

from volseg.cluster.certificates import write_certificates
from volseg.cluster.config import ClusterConfig
from volseg.cluster.connect import connect, on
from volseg.cluster.executor import ClusterExecutor
from volseg.cluster.service import run_scheduler, run_worker

__all__ = ["ClusterConfig", "ClusterExecutor", "connect", "on", "run_scheduler", "run_worker", "write_certificates"]
