"""What runs on a worker: its admission, and one piece of work after the other."""

from __future__ import annotations

import logging
import platform
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask
import distributed

from volseg.cluster.paths import PathMap, checked_path_map, inverse, mapped
from volseg.cluster.settings import PATH_MAP, THREADS
from volseg.errors import SHARE_FOLDERS, UnfitWorkerError, VolsegError
from volseg.io.files import appears
from volseg.memory import limit_memory, total_gb
from volseg.parallel import use_threads
from volseg.version import __version__

logger = logging.getLogger(__name__)

#: Programs that results depend on.
_PROGRAMS = ("torch", "monai")


def programs() -> dict[str, str]:
    """Return the versions that must be the same on every machine."""
    return {"volseg": __version__, **{name: version(name).partition("+")[0] for name in _PROGRAMS}}


def admit(wanted: Mapping[str, str]) -> tuple[str, float]:
    """Check that this worker runs the same programs, and keep it within its share of the machine.

    Args:
        wanted: Program -> version; a plain mapping, which other versions of volseg understand, too.

    Returns:
        The name of its machine, and the memory that it may use, in 10^9 bytes.

    Raises:
        UnfitWorkerError: If a version differs.
    """
    own = programs()
    for name, needed in wanted.items():
        if own.get(name) != needed:
            raise _unfit(
                f"it runs {name} {own.get(name, 'not at all')}, this batch {needed}",
                hint="install the same versions on every machine",
            )
    use_threads(dask.config.get(THREADS, None))
    limit_memory(distributed.get_worker().memory_manager.memory_limit)
    return platform.node(), total_gb()


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a piece of work.

    Attributes:
        result: What it returned.
        error: What it raised, else None.
        seconds: How long it took.
    """

    result: Any
    error: Exception | None
    seconds: float


def _unfit(reason: str, hint: str) -> UnfitWorkerError:
    """Return the error, and log it here, too, for whoever has started this worker."""
    error = UnfitWorkerError(reason, hint=hint)
    logger.warning("this worker is refused: %s", error.explanation)
    return error


def perform(works: Sequence[Callable[[], Any]], path_map: PathMap, witnesses: Sequence[Path]) -> list[Outcome]:
    """Do pieces of work.

    Args:
        works: Functions with their arguments.
        path_map: Where the folders of the coordinating machine lie here, unless this worker has a map of its own.
        witnesses: Files and folders of the work, which exist on the coordinating machine.

    Returns:
        The outcome of each, with the paths of the coordinating machine.

    Raises:
        UnfitWorkerError: If this worker does not see the files.
    """
    there = checked_path_map(dask.config.get(PATH_MAP, {}) or path_map)
    for path in mapped(tuple(witnesses), there):
        if not appears(path):
            raise _unfit(f"it does not see {path}", hint=SHARE_FOLDERS)
    return [_outcome(work, there) for work in works]


def _outcome(work: Callable[[], Any], path_map: PathMap) -> Outcome:
    began = time.perf_counter()
    try:
        result = mapped(mapped(work, path_map)(), inverse(path_map))
    except UnfitWorkerError as error:
        return Outcome(None, _unfit(str(error), error.hint), time.perf_counter() - began)
    except VolsegError as error:
        return Outcome(None, error, time.perf_counter() - began)
    except Exception as error:  # noqa: BLE001  passed on to whoever asked for the work
        error.add_note("".join(traceback.format_exception(error)))  # which is not sent otherwise
        return Outcome(None, error, time.perf_counter() - began)
    return Outcome(result, None, time.perf_counter() - began)
