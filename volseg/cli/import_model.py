"""`volseg import`: a model of another program in, a run out."""

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
            help="A model folder of nnU-Net v2 (plans.json, dataset.json, fold_0 ...), a bundle of MONAI, or the "
            "folder of TotalSegmentator's weights."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", help="The run folder.")],
    *,
    axes: Annotated[
        str | None,
        typer.Option(
            "--axes", help="Axes the network was trained on: RAS, LPS ..., or stored. By default what the model says."
        ),
    ] = None,
    folds: Annotated[
        list[str] | None, typer.Option("--fold", help="One of its folds; may be repeated. By default all there are.")
    ] = None,
    previous: Annotated[
        Path | None,
        typer.Option("--previous", help="Of a cascade, the folder of its first network. By default the one beside."),
    ] = None,
    paint: Annotated[
        list[str] | None,
        typer.Option("--paint", help="An output of a bundle, in the order of painting where they may overlap."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task", help="Of TotalSegmentator, in the folder of its weights: total, total_fast, total_mr ..."
        ),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Make a run of a model of nnU-Net, MONAI or TotalSegmentator: the same masks; nothing in it is executed."""
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
