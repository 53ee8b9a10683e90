"""`volseg download`: fetch public data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volseg.cli.console import print_line, progress_shown


def download(
    task: Annotated[
        str, typer.Argument(help="A task of the Medical Segmentation Decathlon, such as Task04_Hippocampus.")
    ],
    output: Annotated[Path, typer.Option("--output", help="The folder to put the task's folder into.")] = Path("data"),
    url: Annotated[str | None, typer.Option("--url", help="Another URL of the archive.")] = None,
    md5: Annotated[
        str | None, typer.Option("--md5", help="MD5 checksum of the archive, if it is not the known one.")
    ] = None,
) -> None:
    """Download a public data set; an interrupted download continues."""
    import volseg

    with progress_shown() as progress:
        folder = volseg.download(task, output, url=url, md5=md5, progress=progress)
    print_line(f"{folder}")
