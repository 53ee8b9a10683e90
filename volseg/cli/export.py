"""`volseg export`: a mask in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volseg.cli.console import print_line
from volseg.cli.options import FORMATS, EncodingOption, GapsOption, GeometryOption, OverwriteOption


def export(  # noqa: PLR0913  each is an option
    mask: Annotated[Path, typer.Argument(help="A mask.")],
    reference: Annotated[Path, typer.Option("--reference", help="The image it was made from: a file or DICOM folder.")],
    output: Annotated[Path, typer.Option("--output", help="The file to write; for stl and ply a folder.")],
    *,
    form: Annotated[str, typer.Option("--format", help=FORMATS)] = "nifti",
    labels: Annotated[
        Path | None, typer.Option("--labels", help="What its values mean; by default the labels.json beside it.")
    ] = None,
    encoding: EncodingOption = "binary",
    allow_gaps: GapsOption = False,
    geometry: GeometryOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a mask in another format, exactly on the images it was made from."""
    import volseg

    exported = volseg.export(
        mask,
        reference,
        output,
        format=form,  # type: ignore[arg-type]  # the library refuses what is none
        labels=labels,
        encoding=encoding,  # type: ignore[arg-type]
        allow_gaps=allow_gaps,
        geometry=geometry,  # type: ignore[arg-type]
        overwrite=overwrite,
    )
    for path in exported.paths:
        print_line(f"wrote {path}: {exported.mask.geometry}")
