"""`volseg send`: DICOM files to a PACS."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volseg.cli.console import print_line, progress_shown, say_by_reason
from volseg.cli.options import EXIT_SOME_FAILED


def send(
    folder: Annotated[Path, typer.Argument(help="A folder with DICOM files, or one file.")],
    to: Annotated[str, typer.Option("--to", help="AE@host:port, or the https:// address of a DICOMweb service.")],
    *,
    ae_title: Annotated[str, typer.Option("--ae-title", help="What this side is called.")] = "VOLSEG",
) -> None:
    """Send DICOM files, such as masks in dicom-seg, to a PACS."""
    from volseg import serving

    with progress_shown() as progress:
        sent = serving.send(folder, to, ae_title=ae_title, progress=progress)
    refused = {path.name: f"refused: {reason}" for path, reason in sent if reason}
    say_by_reason(refused)
    print_line(f"{len(sent) - len(refused)} of {len(sent)} objects sent to {to}")
    if refused:
        raise typer.Exit(EXIT_SOME_FAILED)
