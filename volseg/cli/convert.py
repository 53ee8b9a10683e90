"""`volseg convert`: write a model for other programs."""

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
    to: Annotated[str, typer.Option("--to", help="The form: bundle (a MONAI bundle), onnx or openvino.")],
    licence: Annotated[str, typer.Option("--licence", help="The licence under which the model may be used.")] = "",
    overwrite: OverwriteOption = False,
) -> None:
    """Convert a model to a MONAI bundle, ONNX or OpenVINO. The result runs without volseg."""
    import volseg

    folder = volseg.convert(model, output, to=to, licence=licence, overwrite=overwrite)  # type: ignore[arg-type]  # the library refuses
    if to == "bundle":
        print_line(f"wrote {folder}; run it there with")
        print_line("    python -m monai.bundle run --config_file configs/inference.json")
    else:
        print_line(f"wrote {folder}: run_model.py runs it, contract.json describes input and output")
