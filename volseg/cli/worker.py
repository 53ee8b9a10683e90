"""`volseg worker`: work for a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from volseg.cli.options import CertificatesOption, ThreadsOption
from volseg.errors import ConfigError


def worker(
    address: Annotated[str, typer.Argument(help="Of the scheduler: tls://host:8786.")],
    *,
    certificates: CertificatesOption = None,
    path_map: Annotated[
        list[str] | None,
        typer.Option(
            "--path-map",
            metavar="THERE=HERE",
            help="A folder on the machine that starts the work, and the same folder on this one. Repeatable.",
        ),
    ] = None,
    memory: Annotated[
        float | None, typer.Option("--memory", min=0.5, help="GB that it may use; by default all of the machine.")
    ] = None,
    threads: ThreadsOption = None,
) -> None:
    """Join a cluster with this machine, and work for it until it ends."""
    from volseg.cluster import run_worker

    folders = {}
    for text in path_map or []:
        there, equals, here = text.partition("=")
        if not equals:
            raise ConfigError(f"--path-map {text}: it names one folder", hint="for example --path-map /data=/mnt/data")
        folders[there] = here
    run_worker(address, certificates, threads=threads, memory_gb=memory, path_map=folders)
