"""Measurements on this machine, kept between runs, each in a file in the user's cache folder."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from volseg.errors import DataError, OutputError
from volseg.io.json_files import read_json, write_json
from volseg.system import processor_name
from volseg.version import __version__

#: How long a measurement may take.
_PATIENCE_SECONDS = 120

_Result = TypeVar("_Result")

logger = logging.getLogger(__name__)


def cache_folder(kind: str) -> Path:
    """Return the default folder for measurements of a kind."""
    return Path.home() / ".cache" / "volseg" / kind


def measurement_key(*circumstances: Any) -> str:
    """Hash everything a measurement depends on: the circumstances, the processor, and versions of the libraries.

    Args:
        circumstances: Values that JSON can hold.
    """
    versions = [__version__, importlib.metadata.version("torch")]
    if importlib.util.find_spec("openvino") is not None:
        versions.append(importlib.metadata.version("openvino"))
    machine = f"{processor_name()} x {os.cpu_count()}"
    content = json.dumps([circumstances, versions, machine])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def recall(folder: Path, key: str, make: Callable[[dict[str, Any]], _Result]) -> _Result | None:
    """Read an earlier measurement.

    Args:
        folder: Folder for measurements of its kind.
        key: Of the measurement.
        make: Converts the content of the file.

    Returns:
        The measurement; None if there is none, or it cannot be read.
    """
    try:
        return read_json(folder / f"{key}.json", make, "is not a measurement", "delete it")
    except DataError:
        return None


@contextmanager
def measuring(folder: Path, key: str) -> Iterator[None]:
    """Let other processes wait for a measurement instead of making it, too, while both take each other's time.

    Args:
        folder: Folder for measurements of its kind.
        key: Of the measurement.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / f"{key}.lock", timeout=_PATIENCE_SECONDS)
    with ExitStack() as stack:
        with suppress(OSError, Timeout):  # without a folder that can be written, or with a process that hangs
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock)
        yield


def keep(folder: Path, key: str, content: dict[str, Any]) -> None:
    """Store a measurement; if that fails, log a warning and continue."""
    try:
        write_json(folder / f"{key}.json", content)
    except OutputError as error:
        logger.warning("a measurement cannot be stored for the next time: %s", error)
