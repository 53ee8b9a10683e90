"""`volseg evaluate`: masks and references in, tables out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volseg.cli.console import print_comparison, print_line, print_summary, progress_shown, say
from volseg.cli.options import (
    EXIT_SOME_FAILED,
    GapsOption,
    GeometryOption,
    OverwriteOption,
    SetOption,
    ThreadsOption,
    changes_of,
    only,
)

if TYPE_CHECKING:
    from volseg import Evaluation


def evaluate(  # noqa: PLR0913  each is an option
    context: typer.Context,
    predictions: Annotated[
        Path, typer.Argument(help="Folder of masks, as `volseg predict` writes it; with --compare, of scores.")
    ],
    references: Annotated[
        Path, typer.Argument(help="Folder of label maps, or a labelled data set; with --compare, of other scores.")
    ],
    output: Annotated[Path, typer.Option("--output", help="Folder for the tables.")],
    *,
    tolerance_mm: Annotated[
        list[float] | None,
        typer.Option("--tolerance-mm", min=0, help="Of the normalised surface Dice: 2 unless given. Repeatable."),
    ] = None,
    hd95: Annotated[
        str, typer.Option("--hd95", help="Which 95th percentile: max_of_directed, pooled or area_weighted.")
    ] = "max_of_directed",
    nsd: Annotated[
        str, typer.Option("--nsd", help="What the normalised surface Dice counts: voxels or area_weighted.")
    ] = "voxels",
    lesions: Annotated[bool, typer.Option("--lesions", help="Also match separate parts one to one.")] = False,
    lesion_iou: Annotated[
        float, typer.Option("--lesion-iou", min=0, max=0.99, help="Parts that overlap by more than this are the same.")
    ] = 0.5,
    centerline: Annotated[bool, typer.Option("--centerline", help="Also compare centre lines: for vessels.")] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also judge the probabilities beside the masks.")
    ] = False,
    within: Annotated[
        Path | None, typer.Option("--within", help="Folder of masks, one per case, outside of which nothing counts.")
    ] = None,
    ignore: Annotated[
        int | None, typer.Option("--ignore", help="Value of references where nothing is known and nothing counts.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", min=0, max=1, help="Masks say how likely the one label is: above this they have it."
        ),
    ] = None,
    resample: Annotated[
        bool, typer.Option("--resample", help="Bring masks onto the grid of their reference instead of refusing.")
    ] = False,
    only_predicted: Annotated[
        bool,
        typer.Option("--only-predicted", help="Leave out references that have no prediction, instead of scoring 0."),
    ] = False,
    assignments: SetOption = None,
    allow_gaps: GapsOption = False,
    geometry: GeometryOption = None,
    report: Annotated[bool, typer.Option("--report", help="Also write report.html, with pictures.")] = False,
    images: Annotated[
        Path | None, typer.Option("--images", help="Images for the report, if REFERENCES is not a whole data set.")
    ] = None,
    overwrite: OverwriteOption = False,
    threads: ThreadsOption = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare two folders of scores of the same references, case by case.")
    ] = False,
) -> None:
    """Compare masks with references, case by case and label by label; or two models' scores."""
    if compare:
        only(context, {"predictions", "references", "output", "overwrite", "compare"}, "does not go with --compare")
        _compare_scores(predictions, references, output, overwrite=overwrite)
        return
    import volseg

    with progress_shown() as progress:
        result = volseg.evaluate(
            predictions,
            references,
            output,
            tolerance_mm=tolerance_mm or [2.0],
            hd95=hd95,  # type: ignore[arg-type]  # the library refuses what is none
            nsd=nsd,  # type: ignore[arg-type]
            lesions=lesions,
            lesion_iou=lesion_iou,
            centerline=centerline,
            probabilities=probabilities,
            within=within,
            ignore=ignore,
            threshold=threshold,
            changes=changes_of(assignments),
            resample=resample,
            only_predicted=only_predicted,
            allow_gaps=allow_gaps,
            geometry=geometry,  # type: ignore[arg-type]
            report=report,
            images=images,
            overwrite=overwrite,
            threads=threads,
            progress=progress,
        )
    _print_evaluation(result, report=report)
    if result.failures:
        raise typer.Exit(EXIT_SOME_FAILED)


def _print_evaluation(result: Evaluation, *, report: bool) -> None:
    for failure in result.failures:
        say(f"failed: {failure.case_id}: {failure.reason}", logging.WARNING)
    for remark in result.remarks:
        say(f"note: {remark}")
    print_summary(result.summary)
    tables = "metrics.csv, summary.csv and statistics.csv"
    print_line(f"\nwrote {tables}{' and report.html' if report else ''} in {result.folder}")


def _compare_scores(first: Path, second: Path, output: Path, *, overwrite: bool) -> None:
    import volseg

    comparison = volseg.compare(first, second, output, overwrite=overwrite)
    print_comparison(comparison.table)
    print_line(f"\nwrote comparison.csv and differences.csv in {comparison.folder}")
