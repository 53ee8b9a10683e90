"""`volseg download`: public data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volseg.cli.console import print_line, progress_shown


def download(
    task: Annotated[str, typer.Argument(help="Name of a Medical Segmentation Decathlon task.")],
    output: Annotated[Path, typer.Option("--output", help="Folder in which the task's folder is made.")] = Path("data"),
    url: Annotated[str | None, typer.Option("--url", help="Another place to fetch the archive from.")] = None,
    md5: Annotated[
        str | None, typer.Option("--md5", help="Checksum of the archive, if it is not the known one.")
    ] = None,
) -> None:
    """Fetch a public data set, checked and resumable."""
    import volseg

    with progress_shown() as progress:
        folder = volseg.download(task, output, url=url, md5=md5, progress=progress)
    print_line(f"{folder}")
