"""`volseg evaluate`: masks and references in, tables out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from volseg.cli.console import print_comparison, print_line, print_summary, say
from volseg.cli.options import EXIT_SOME_FAILED, GapsOption, choice, only, progress_shown

if TYPE_CHECKING:
    from volseg.evaluation import Evaluation


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
    resample: Annotated[
        bool, typer.Option("--resample", help="Bring masks onto the grid of their reference instead of refusing.")
    ] = False,
    only_predicted: Annotated[
        bool,
        typer.Option("--only-predicted", help="Leave out references that have no prediction, instead of scoring 0."),
    ] = False,
    allow_gaps: GapsOption = False,
    report: Annotated[bool, typer.Option("--report", help="Also write report.html, with pictures.")] = False,
    images: Annotated[
        Path | None, typer.Option("--images", help="Images for the report, if REFERENCES is not a whole data set.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare two folders of scores of the same references, case by case.")
    ] = False,
) -> None:
    """Compare masks with references, case by case and label by label; or two models' scores."""
    if compare:
        only(context, {"predictions", "references", "output", "compare"}, "does not go with --compare")
        _compare_scores(predictions, references, output)
        return
    from volseg.about import read_about
    from volseg.cases import find_images, is_dataset
    from volseg.config import DicomRules
    from volseg.errors import ConfigError
    from volseg.evaluation import Protocol
    from volseg.evaluation import evaluate as score
    from volseg.evaluation.pairing import evaluation_labels, pair_cases
    from volseg.metrics import Conventions, Family, Hd95, Nsd
    from volseg.reporting import describe_evaluation, report_evaluation

    also: dict[Family, bool] = {"lesions": lesions, "centerline": centerline}
    conventions = Conventions(
        tolerances_mm=tuple(tolerance_mm or [2.0]),
        hd95=choice("percentile", hd95, get_args(Hd95)),
        nsd=choice("weight", nsd, get_args(Nsd)),
        lesion_iou=lesion_iou,
        also=frozenset(name for name, wanted in also.items() if wanted),
    )
    if images and not report:
        raise ConfigError("--images are those of the report: add --report")
    rules = DicomRules(allow_gaps=allow_gaps)
    with progress_shown() as progress:
        pairing = pair_cases(predictions, references, only_predicted=only_predicted, rules=rules, within=within)
        shown = images or (references if is_dataset(references) else None)
        known = find_images(shown, rules) if report and shown else {}
        labels = evaluation_labels(predictions, pairing.pairs, calibrated=probabilities, ignored=ignore)
        protocol = Protocol(
            labels,
            conventions,
            calibrated=probabilities,
            within=within is not None,
            ignored=ignore,
            resample=resample,
        )
        result = score(pairing.pairs, protocol, output, progress)
        describe_evaluation(result, protocol, read_about(predictions))
        if report:
            report_evaluation(result, pairing.pairs, protocol, known, progress)
    remarks = [*pairing.remarks]
    drawn_alone = [pair.case_id for pair in pairing.pairs if pair.case_id not in known]
    if report and drawn_alone:
        remarks.append(
            f"the report shows {len(drawn_alone)} cases without an image; --images names the folder they are in"
        )
    _tell_of(result, remarks, report=report)
    if result.failures:
        raise typer.Exit(EXIT_SOME_FAILED)


def _tell_of(result: Evaluation, remarks: Sequence[str], *, report: bool) -> None:
    """What an evaluation came to."""
    for failure in result.failures:
        say(f"failed: {failure.case_id}: {failure.reason}")
    for remark in remarks:
        say(f"note: {remark}")
    print_summary(result.summary)
    tables = "metrics.csv, summary.csv and statistics.csv"
    print_line(f"\nwrote {tables}{' and report.html' if report else ''} in {result.folder}")


def _compare_scores(first: Path, second: Path, output: Path) -> None:
    from volseg.evaluation import compare

    comparison = compare(first, second, output)
    print_comparison(comparison.table)
    print_line(f"\nwrote comparison.csv and differences.csv in {comparison.folder}")
