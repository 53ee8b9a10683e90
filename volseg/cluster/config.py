"""What `--cluster` says: how many workers on this machine, the address of a scheduler, or a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import Field, ValidationError

from volseg.config.section import Section
from volseg.errors import ConfigError
from volseg.system import is_loopback

#: Dask-jobqueue's names of the batch systems.
System = Literal["slurm", "pbs", "lsf", "sge", "oar", "moab", "htcondor"]
_FORMS = "local:4, tls://host:8786, or a file such as cluster.yaml"


class ClusterConfig(Section):
    """Where work is done: exactly one of `local`, `address` and `jobqueue`.

    Attributes:
        local: Number of workers on this machine.
        address: Of a running scheduler: tls://host:8786, or tcp://127.0.0.1:8786 on this machine.
        jobqueue: Name of a batch system -> options of dask-jobqueue for its jobs.
        jobs: Number of jobs that run at the same time.
        certificates: Folder that `volseg cluster certificates` wrote; in a file, relative to the folder of the file.
        path_map: Folder on this machine -> the same folder on the workers.
    """

    local: int | None = Field(default=None, ge=1, strict=True)
    address: str | None = None
    jobqueue: dict[System, dict[str, Any]] | None = None
    jobs: int = Field(default=1, ge=1)
    certificates: Path | None = None
    path_map: dict[str, str] = Field(default_factory=dict)


def parse_cluster(text: str) -> ClusterConfig:
    """Read what `--cluster` says.

    Args:
        text: "local:4", an address, or the path of a YAML file.

    Raises:
        ConfigError: If it is none of them, or not possible.
    """
    if local := re.fullmatch(r"local:(\d+)", text):
        return _checked({"local": int(local[1])}, "--cluster")
    if "://" in text:
        return _checked({"address": text}, "--cluster")
    path = Path(text)
    if not path.is_file():
        raise ConfigError(f"--cluster {text}: there is no such file", hint=f"give {_FORMS}")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not a YAML file: {error}", hint=f"give {_FORMS}") from error
    config = _checked(tree, str(path))
    if config.certificates is None:
        return config
    return config.model_copy(update={"certificates": path.parent / config.certificates.expanduser()})


def _checked(tree: Any, place: str) -> ClusterConfig:
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{place} has no keys", hint=f"state one of {', '.join(ClusterConfig.model_fields)}")
    try:
        config = ClusterConfig.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{place}: {where}: {first['msg']}", hint=f"possible keys: {', '.join(ClusterConfig.model_fields)}"
        ) from error
    stated = [name for name in ("local", "address", "jobqueue") if getattr(config, name) is not None]
    if len(stated) != 1:
        raise ConfigError(
            f"{place}: it must state one of local, address and jobqueue, not {' and '.join(stated) or 'none'}",
            hint="leave one",
        )
    if config.jobqueue is not None and len(config.jobqueue) != 1:
        raise ConfigError(f"{place}: jobqueue must name one batch system", hint="for example slurm")
    if config.address is not None:
        check_address(config.address, is_protected=True if config.certificates else None)
    return config


def check_address(address: str, *, is_protected: bool | None) -> None:
    """Check that an address is one of a scheduler, and that whoever listens there is protected.

    Args:
        address: Of the scheduler.
        is_protected: Whether there are certificates; None if Dask's own configuration may name some.

    Raises:
        ConfigError: If it has another form, or a connection beyond this machine would be open to anybody.
    """
    parts = urlsplit(address)
    try:
        is_whole = parts.scheme in {"tcp", "tls"} and parts.hostname and parts.port
    except ValueError:
        is_whole = False
    if not is_whole:
        raise ConfigError(f"{address} is not the address of a scheduler", hint="for example tls://host:8786")
    if parts.scheme == "tcp" and not is_loopback(parts.hostname or ""):
        raise ConfigError(
            f"{address}: anybody on the network could run programs on the workers",
            hint=f"use tls://{parts.netloc} with certificates: `volseg cluster certificates` makes them",
        )
    if parts.scheme == "tls" and is_protected is False:
        raise ConfigError(f"{address} needs certificates", hint="name their folder: --certificates, or certificates:")
