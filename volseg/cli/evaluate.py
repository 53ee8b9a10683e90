"""`volseg evaluate`: score masks against references."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volseg.cli.console import print_comparison, print_line, print_summary, say, say_by_reason
from volseg.cli.options import (
    EXIT_SOME_FAILED,
    ClusterOption,
    GapsOption,
    GeometryOption,
    OverwriteOption,
    SetOption,
    ThreadsOption,
    changes_of,
    only,
)
from volseg.cli.workers import work_shown
from volseg.errors import ConfigError

if TYPE_CHECKING:
    from volseg import Evaluation


def evaluate(  # noqa: PLR0913  each is an option
    context: typer.Context,
    predictions: Annotated[
        Path,
        typer.Argument(help="The folder of masks, as `volseg predict` writes it; with --compare, a folder of scores."),
    ],
    references: Annotated[
        Path,
        typer.Argument(
            help="The folder of reference label maps, or a labelled data set; with --compare, another folder of scores."
        ),
    ],
    others: Annotated[
        list[Path] | None, typer.Argument(metavar="SCORES", help="With --compare, more folders of scores.")
    ] = None,
    *,
    output: Annotated[Path, typer.Option("--output", help="Folder for the tables.")],
    tolerance_mm: Annotated[
        list[float] | None,
        typer.Option(
            "--tolerance-mm",
            metavar="MM",
            min=0,
            help="Tolerance of the normalised surface Dice; 2 if left out. Repeatable.",
        ),
    ] = None,
    hd95: Annotated[
        str,
        typer.Option(
            "--hd95",
            help="Definition of the 95th percentile of distances: max_of_directed, pooled or area_weighted.",
        ),
    ] = "max_of_directed",
    nsd: Annotated[
        str,
        typer.Option(
            "--nsd", help="What the normalised surface Dice counts: surface voxels, or their area (area_weighted)."
        ),
    ] = "voxels",
    lesions: Annotated[
        bool, typer.Option("--lesions", help="Also match connected components (lesions) one to one.")
    ] = False,
    lesion_iou: Annotated[
        float, typer.Option("--lesion-iou", min=0, max=0.99, help="IoU above which two lesions match.")
    ] = 0.5,
    centerline: Annotated[bool, typer.Option("--centerline", help="Also compare centre lines, for vessels.")] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also score the probabilities written beside the masks.")
    ] = False,
    within: Annotated[
        Path | None,
        typer.Option(
            "--within", help="A folder of regions of interest, one mask per case; nothing outside them counts."
        ),
    ] = None,
    ignore: Annotated[
        int | None, typer.Option("--ignore", help="Reference value of voxels that are not annotated and do not count.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            min=0,
            max=1,
            help="The masks hold probabilities of a single label; take those above this value.",
        ),
    ] = None,
    resample: Annotated[
        bool,
        typer.Option("--resample", help="Resample masks onto the grid of their reference instead of refusing them."),
    ] = False,
    only_predicted: Annotated[
        bool,
        typer.Option(
            "--only-predicted", help="Leave out references that have no prediction, instead of scoring them 0."
        ),
    ] = False,
    assignments: SetOption = None,
    allow_gaps: GapsOption = False,
    geometry: GeometryOption = None,
    report: Annotated[bool, typer.Option("--report", help="Also write report.html, with pictures.")] = False,
    images: Annotated[
        Path | None, typer.Option("--images", help="The images to show in the report, if REFERENCES holds none.")
    ] = None,
    overwrite: OverwriteOption = False,
    cluster: ClusterOption = None,
    threads: ThreadsOption = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare folders of scores of the same references, case by case.")
    ] = False,
) -> None:
    """Score masks against references, or compare the scores of several models."""
    if compare:
        wanted = {"predictions", "references", "others", "output", "overwrite", "compare"}
        only(context, wanted, "does not go with --compare")
        _compare_scores([predictions, references, *(others or [])], output, overwrite=overwrite)
        return
    import volseg

    if others:
        raise ConfigError(
            f"evaluate takes one folder of masks and one of references, and {others[0]} is a third",
            hint="--compare takes several folders of scores",
        )

    with work_shown(cluster, threads) as (progress, executor):
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
            executor=executor,
        )
    _print_evaluation(result)
    if result.failures:
        raise typer.Exit(EXIT_SOME_FAILED)


def _print_evaluation(result: Evaluation) -> None:
    say_by_reason({failure.case_id: f"failed: {failure.reason}" for failure in result.failures})
    for remark in result.remarks:
        say(f"note: {remark}")
    print_summary(result.summary)
    tables = "metrics.csv, summary.csv and statistics.csv"
    print_line(f"\nwrote {tables} in {result.folder}")
    if result.report:
        print_line(f"report: {result.report}")


def _compare_scores(scores: list[Path], output: Path, *, overwrite: bool) -> None:
    import volseg

    first, second, *others = scores
    comparison = volseg.compare(first, second, output, others=others, overwrite=overwrite)
    print_comparison(comparison)
    print_line(f"\n{comparison.verdict}")
    print_line(f"\nwrote comparison.csv and differences.csv in {comparison.folder}")
