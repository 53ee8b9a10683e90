"""`volseg card`: write a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volseg.cli.console import print_line
from volseg.cli.options import OverwriteOption


def card(
    model: Annotated[Path, typer.Argument(help="A run folder, or a model file.")],
    *,
    output: Annotated[Path | None, typer.Option("--output", help="Folder. By default that of the run.")] = None,
    licence: Annotated[str, typer.Option("--licence", help="Under which the model may be used.")] = "",
    overwrite: OverwriteOption = False,
) -> None:
    """Write a model card: data, labels, Dice, intended images, recipe and hashes, as Markdown and JSON."""
    import volseg

    print_line(f"wrote {volseg.card(model, output, licence=licence, overwrite=overwrite)}")
