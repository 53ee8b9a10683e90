"""What runs on a worker: its admission, and one piece of work after the other."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import dask
import distributed

from volseg.cluster.paths import PathMap, checked_path_map, inverse, mapped
from volseg.errors import UnfitWorkerError
from volseg.memory import limit_memory
from volseg.parallel import use_threads
from volseg.version import __version__

#: Key of Dask's configuration that holds the path map of a worker.
PATH_MAP = "volseg.path-map"
#: Programs that results depend on.
_PROGRAMS = ("torch", "monai")


def programs() -> dict[str, str]:
    """Return the versions that must be the same on every machine."""
    return {"volseg": __version__, **{name: version(name).partition("+")[0] for name in _PROGRAMS}}


def admit(wanted: Mapping[str, str]) -> str:
    """Check that this worker runs the same programs, and keep it within its share of the machine.

    Args:
        wanted: Program -> version; a plain mapping, which other versions of volseg understand, too.

    Returns:
        The name of its machine.

    Raises:
        UnfitWorkerError: If a version differs.
    """
    own = programs()
    for name, needed in wanted.items():
        if own.get(name) != needed:
            raise UnfitWorkerError(
                f"it runs {name} {own.get(name, 'not at all')}, this batch {needed}",
                hint="install the same versions on every machine",
            )
    if (stated := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
        use_threads(int(stated))
    limit_memory(distributed.get_worker().memory_manager.memory_limit)
    return platform.node()


def perform(work: Callable[[], Any], path_map: PathMap) -> Any:
    """Do a piece of work.

    Args:
        work: A function with its arguments.
        path_map: Where the folders of the coordinating machine lie here, unless this worker has a map of its own.

    Returns:
        Its result, with the paths of the coordinating machine.
    """
    there = checked_path_map(dask.config.get(PATH_MAP, {}) or path_map)
    return mapped(mapped(work, there)(), inverse(there))
