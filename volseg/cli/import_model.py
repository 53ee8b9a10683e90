"""`volseg import`: convert a model of another program to a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volseg.cli.console import print_line
from volseg.cli.options import OverwriteOption


def import_model(
    source: Annotated[
        Path,
        typer.Argument(
            help="A model folder of nnU-Net v2 (with plans.json, dataset.json, fold_0 ...), a MONAI bundle, or the "
            "folder of TotalSegmentator's weights."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", help="The run folder.")],
    *,
    axes: Annotated[
        str | None,
        typer.Option(
            "--axes",
            help="The axes the network was trained on, such as RAS or LPS, or stored; by default as the model says.",
        ),
    ] = None,
    folds: Annotated[
        list[str] | None, typer.Option("--fold", metavar="FOLD", help="A fold to import; by default all. Repeatable.")
    ] = None,
    previous: Annotated[
        Path | None,
        typer.Option(
            "--previous", help="For a cascade, the folder of its first network; by default the one beside it."
        ),
    ] = None,
    paint: Annotated[
        list[str] | None,
        typer.Option(
            "--paint",
            metavar="OUTPUT",
            help="For a bundle whose labels overlap, an output; the last one named is painted on top. Repeatable.",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", help="For TotalSegmentator's weights, the task: total, total_fast, total_mr ..."),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Import a model of nnU-Net, MONAI or TotalSegmentator. Its code is never executed."""
    import volseg

    run = volseg.import_model(
        source,
        output,
        axes=axes,
        folds=folds or (),
        previous=previous,
        paint=paint or (),
        task=task,
        overwrite=overwrite,
    )
    model = volseg.load(run)
    labels = ", ".join(label.name for label in model.labels)
    parts = len(model.networks[0].parts)
    count, thing = (parts, "part") if parts else (len(model.networks), "network")
    made = f"{count} {thing}{'s' if count > 1 else ''}"
    print_line(f"wrote {run}: {made} for {', '.join(model.channels)} -> {labels}")
    if model.licence:
        print_line(f"licence of the weights: {model.licence}")
