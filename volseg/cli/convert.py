"""`volseg convert`: a model in the form of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volseg.cli.console import print_line
from volseg.cli.options import OverwriteOption


def convert(
    model: Annotated[Path, typer.Argument(help="A run folder, or a model file.")],
    output: Annotated[Path, typer.Option("--output", help="The folder to write.")],
    *,
    to: Annotated[str, typer.Option("--to", help="onnx or openvino.")],
    overwrite: OverwriteOption = False,
) -> None:
    """Write the networks of a run as ONNX or OpenVINO, with what it takes to run them without volseg."""
    import volseg

    folder = volseg.convert(model, output, to=to, overwrite=overwrite)  # type: ignore[arg-type]  # the library refuses
    print_line(f"wrote {folder}: contract.json says what goes in and comes out, run_model.py runs it")
