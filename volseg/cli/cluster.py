"""`volseg cluster`: what a pool of machines needs, certificates and a scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volseg.cli.console import print_line
from volseg.cli.options import CertificatesOption


def certificates(
    output: Annotated[Path, typer.Option("--output", help="The folder to write.")],
    *,
    days: Annotated[int, typer.Option("--days", min=1, help="How long they are valid.")] = 365,
) -> None:
    """Write certificates for all machines of a cluster: without them nobody can connect."""
    from volseg.cluster import write_certificates

    folder = write_certificates(output, days)
    print_line(
        f"certificates for {days} days: {folder}; copy the folder to every machine of the cluster, and only there"
    )


def scheduler(
    address: Annotated[
        str,
        typer.Argument(help="Where it listens: tls://0.0.0.0:8786, or tcp://127.0.0.1:8786 for this machine alone."),
    ],
    *,
    certificates: CertificatesOption = None,
) -> None:
    """Run the scheduler that workers and commands connect to."""
    from volseg.cluster import run_scheduler

    run_scheduler(address, certificates)
