"""`volseg plan`: a data set in, a configuration out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volseg.cli.console import print_line
from volseg.cli.options import ConfigOption, GapsOption, SetOption, overrides_of, progress_shown, with_gaps


def plan(
    data: Annotated[Path, typer.Argument(help="A labelled data set; data/README.md shows the layouts.")],
    output: Annotated[Path, typer.Option("--output", help="The YAML file to write.")],
    *,
    config: ConfigOption = None,
    assignments: SetOption = None,
    allow_gaps: GapsOption = False,
) -> None:
    """Look at a data set and write a complete, commented configuration."""
    from volseg.io.files import write_text
    from volseg.training.run import plan_folder, render

    with progress_shown() as progress:
        dataset, made = plan_folder(data, with_gaps(overrides_of(config, assignments), allow_gaps), progress)
    write_text(output, render(made))
    print_line(
        f"{len(dataset.cases)} cases ({dataset.layout}), {len(dataset.set_aside)} files not used; wrote {output}"
    )
