"""`volseg export`: write masks in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from volseg.cli.console import print_line, print_table, progress_shown
from volseg.cli.options import (
    EXIT_SOME_FAILED,
    FORMATS,
    EncodingOption,
    GapsOption,
    GeometryOption,
    OverwriteOption,
    SeriesDescriptionOption,
)
from volseg.errors import ConfigError


def export(  # noqa: PLR0913  each is an option
    mask: Annotated[Path, typer.Argument(help="A mask, or a folder of masks, such as predict writes it.")],
    reference: Annotated[
        Path,
        typer.Option(
            "--reference", help="The image it was made from, a file or DICOM folder; of a folder of masks, the images."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", help="The file to write; for stl and ply, and for a folder of masks, a folder.")
    ],
    *,
    form: Annotated[
        str | None, typer.Option("--format", help=f"{FORMATS} By default what the suffix of the output says.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="What its values mean; by default the labels.json beside it.")
    ] = None,
    encoding: EncodingOption = "binary",
    series_description: SeriesDescriptionOption = None,
    allow_gaps: GapsOption = False,
    geometry: GeometryOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a mask, or every mask in a folder, in another format, exactly on the images it was made from."""
    import volseg

    options: dict[str, Any] = {
        "labels": labels,
        "encoding": encoding,
        "series_description": series_description,
        "allow_gaps": allow_gaps,
        "geometry": geometry,
        "overwrite": overwrite,
    }
    if not mask.is_dir() or _names_a_file(output):
        exported = volseg.export(mask, reference, output, format=form, **options)  # type: ignore[arg-type]
        for path in exported.paths:
            print_line(f"wrote {path}: {exported.mask.geometry}")
        print_line(f"values: {', '.join(f'{label.value} {label.name}' for label in exported.mask.labels)}")
        return
    if form is None:
        raise ConfigError(
            f"{mask} is a folder of masks, and {output} states no format", hint=f"give --format: {FORMATS}"
        )
    with progress_shown() as progress:
        cases = volseg.export_folder(mask, reference, output, format=form, progress=progress, **options)  # type: ignore[arg-type]
    failed = [(case.case_id, case.reason) for case in cases if case.status == "failed"]
    if failed:
        print_table(("failed", "reason"), failed)
    print_line(
        f"{len(cases) - len(failed)} exported, {len(failed)} failed of {len(cases)} masks; see {output / 'exports.csv'}"
    )
    if failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _names_a_file(output: Path) -> bool:
    """Return whether the output is one file: it has a suffix and is not a folder."""
    return bool(output.suffix) and not output.is_dir()
