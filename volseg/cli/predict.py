"""`volseg predict`: a model and cases in, masks out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volseg.cli.console import print_line, say
from volseg.cli.options import (
    EXIT_SOME_FAILED,
    ConfigOption,
    EncodingOption,
    FormatOption,
    GapsOption,
    SetOption,
    choice,
    formats_of,
    overrides_of,
    progress_shown,
    with_gaps,
)


def predict(  # noqa: PLR0913  each is an option
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A data set, a file, a DICOM folder, or a tree of these.")
    ],
    model: Annotated[list[Path], typer.Option("--model", help="A run folder or model file. Repeatable: averaged.")],
    output: Annotated[Path, typer.Option("--output", help="Folder for the masks.")],
    *,
    formats: FormatOption = None,
    encoding: EncodingOption = "binary",
    config: ConfigOption = None,
    assignments: SetOption = None,
    allow_gaps: GapsOption = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write how likely each label is, as 4D NIfTI.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Also write report.html: what somebody should look at, with pictures.")
    ] = False,
) -> None:
    """Segment every case in a folder. An interrupted batch goes on with the same command."""
    from volseg.exporting import ENCODINGS
    from volseg.prediction.batch import Request, open_batch, segment_batch
    from volseg.prediction.cases_csv import CASES_FILE, CaseResult, CaseStatus
    from volseg.reporting import describe_batch, report_batch

    def tell(one: CaseResult) -> None:
        if one.status is CaseStatus.SEGMENTED:
            say(f"{one.case_id}: {one.effort}")

    request = Request(output, tuple(formats_of(formats)), choice("encoding", encoding, ENCODINGS), probabilities)
    overrides = with_gaps(overrides_of(config, assignments), allow_gaps)
    with progress_shown() as progress:
        batch = open_batch(source, model, overrides, progress)
        reports = segment_batch(batch, request, progress, tell)
        describe_batch(batch, output)
        if report and any(one.status is CaseStatus.SEGMENTED for one in reports):
            report_batch(batch, reports, output, progress)
    counts = {status: sum(one.status == status for one in reports) for status in CaseStatus}
    for one in reports:
        if one.status is not CaseStatus.SEGMENTED:
            say(f"{one.status}: {one.case_id}: {one.reason}")
    print_line(
        f"{counts[CaseStatus.SEGMENTED]} segmented, {counts[CaseStatus.SKIPPED]} skipped, "
        f"{counts[CaseStatus.FAILED]} failed of {len(reports)} discovered; see {output / CASES_FILE}"
    )
    if counts[CaseStatus.FAILED] or not counts[CaseStatus.SEGMENTED]:
        raise typer.Exit(EXIT_SOME_FAILED)
