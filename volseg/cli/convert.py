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
    to: Annotated[str, typer.Option("--to", help="bundle (of MONAI), onnx or openvino.")],
    licence: Annotated[str, typer.Option("--licence", help="Under which the model may be used.")] = "",
    overwrite: OverwriteOption = False,
) -> None:
    """Write a run as a bundle of MONAI, as ONNX or as OpenVINO, with what it takes to run it without volseg."""
    import volseg

    folder = volseg.convert(model, output, to=to, licence=licence, overwrite=overwrite)  # type: ignore[arg-type]  # the library refuses
    if to == "bundle":
        print_line(f"wrote {folder}: there, `python -m monai.bundle run --config_file configs/inference.json` runs it")
    else:
        print_line(f"wrote {folder}: contract.json says what goes in and comes out, run_model.py runs it")
