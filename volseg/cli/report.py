"""`volseg report`: write report.html again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volseg.cli.console import print_line
from volseg.cli.options import OverwriteOption


def report(
    folder: Annotated[
        Path, typer.Argument(help="A run, or a folder that `volseg evaluate` or `predict --report` wrote.")
    ],
    *,
    overwrite: OverwriteOption = False,
) -> None:
    """Write report.html again from a folder of results."""
    import volseg

    print_line(f"wrote {volseg.report(folder, overwrite=overwrite)}")
