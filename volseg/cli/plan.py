"""`volseg plan`: plan a configuration for a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volseg.cli.console import print_line
from volseg.cli.options import (
    ClusterOption,
    ConfigOption,
    DeviceOption,
    GapsOption,
    GeometryOption,
    OverwriteOption,
    SetOption,
    ThreadsOption,
    changes_of,
)
from volseg.cli.workers import work_shown


def plan(  # noqa: PLR0913  each is an option
    data: Annotated[Path, typer.Argument(help="A labelled data set; docs/data.md shows the layouts.")],
    output: Annotated[Path, typer.Option("--output", help="The YAML file to write.")],
    *,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", min=0.1, help="Plan for a run of this duration, planning and validation included."),
    ] = None,
    config: ConfigOption = None,
    assignments: SetOption = None,
    allow_gaps: GapsOption = False,
    geometry: GeometryOption = None,
    overwrite: OverwriteOption = False,
    cluster: ClusterOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Plan a complete configuration for a data set, and write it as YAML."""
    import volseg

    with work_shown(cluster, threads) as (progress, executor):
        made = volseg.plan(
            data,
            minutes=minutes,
            config=config,
            changes=changes_of(assignments, geometry),
            allow_gaps=allow_gaps,
            output=output,
            overwrite=overwrite,
            threads=threads,
            device=device,
            progress=progress,
            executor=executor,
        )
    found = made.dataset
    if found is not None:
        print_line(f"{len(found.cases)} cases ({found.layout}), {len(found.set_aside)} files not used; wrote {output}")
