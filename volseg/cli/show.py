"""`volseg show`: write a page about a labelled data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volseg.cli.console import print_line, progress_shown
from volseg.cli.options import ConfigOption, GapsOption, GeometryOption, OverwriteOption, SetOption, changes_of


def show(
    data: Annotated[Path, typer.Argument(help="A labelled data set; docs/data.md shows the layouts.")],
    output: Annotated[Path, typer.Option("--output", help="The HTML file to write.")],
    *,
    config: ConfigOption = None,
    assignments: SetOption = None,
    allow_gaps: GapsOption = False,
    geometry: GeometryOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a page about a labelled data set: cases, labels, intensities, patches."""
    import volseg

    with progress_shown() as progress:
        page = volseg.show(
            data,
            output,
            config=config,
            changes=changes_of(assignments, geometry),
            allow_gaps=allow_gaps,
            overwrite=overwrite,
            progress=progress,
        )
    print_line(f"wrote {page}; it holds pictures of patients")
