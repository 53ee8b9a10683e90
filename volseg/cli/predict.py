"""`volseg predict`: segment cases with a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volseg.cli.console import print_line, say, say_by_reason
from volseg.cli.options import (
    EXIT_SOME_FAILED,
    ClusterOption,
    ConfigOption,
    DeviceOption,
    EncodingOption,
    FormatOption,
    GapsOption,
    GeometryOption,
    OverwriteOption,
    SeriesDescriptionOption,
    SetOption,
    ThreadsOption,
    changes_of,
)
from volseg.cli.workers import work_shown
from volseg.errors import ConfigError

if TYPE_CHECKING:
    from volseg import CaseResult


def predict(  # noqa: PLR0913  each is an option
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="An image, a DICOM folder, a data set, or a folder of any of these.")
    ],
    model: Annotated[
        list[Path],
        typer.Option(
            "--model", metavar="PATH", help="A run folder or model file. Repeat it to average several models."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", help="The folder to write the masks to.")],
    *,
    formats: FormatOption = None,
    encoding: EncodingOption = "binary",
    series_description: SeriesDescriptionOption = None,
    model_name: Annotated[
        str | None,
        typer.Option("--model-name", help="What DICOM objects call the model; by default the name of its run folder."),
    ] = None,
    config: ConfigOption = None,
    assignments: SetOption = None,
    allow_gaps: GapsOption = False,
    geometry: GeometryOption = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write the probability of each label, as 4D NIfTI.")
    ] = False,
    allow_mismatch: Annotated[
        bool,
        typer.Option(
            "--allow-mismatch",
            help="Segment images of another kind than the model was trained on, such as another modality, with a "
            "warning in cases.csv, instead of failing them.",
        ),
    ] = False,
    case_id: Annotated[
        str,
        typer.Option(
            "--case-id",
            help="What names a case: its path, its series (SeriesInstanceUID), or hash, a pseudonym listed in "
            "pseudonyms.csv.",
        ),
    ] = "path",
    report: Annotated[
        bool,
        typer.Option("--report", help="Also write report.html, which shows the masks that need review, with pictures."),
    ] = False,
    cluster: ClusterOption = None,
    part: Annotated[
        str | None,
        typer.Option(
            "--part", metavar="K/N", help="Segment part K of N, as a job of an array; then run `volseg merge OUTPUT`."
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Segment every case in a folder. Run the same command again to continue."""
    import volseg

    def show(one: CaseResult) -> None:
        if one.status == "segmented":
            say(f"{one.case_id}: {one.effort}")

    if part is not None and cluster is not None:
        raise ConfigError("--part and --cluster exclude each other", hint="a job of an array needs no cluster")
    with work_shown(cluster, threads) as (progress, executor):
        changes = changes_of(assignments, geometry)
        loaded = volseg.load(
            model,
            device=device,
            config=config,
            changes=changes,
            allow_gaps=allow_gaps,
            threads=threads,
            name=model_name,
        )
        batch = loaded.predict_folder(
            source,
            output,
            formats=formats or None,  # type: ignore[arg-type]  # the library refuses what is none
            encoding=encoding,  # type: ignore[arg-type]
            probabilities=probabilities,
            report=report,
            allow_mismatch=allow_mismatch,
            overwrite=overwrite,
            case_id=case_id,  # type: ignore[arg-type]
            series_description=series_description,
            progress=progress,
            on_case_done=show,
            executor=executor,
            part=part,
        )
    say_by_reason(
        {
            name: f"{'warning' if case.status == 'segmented' else case.status}: {case.reason}"
            for name, case in batch.items()
            if case.reason
        }
    )
    if not batch:
        say(f"{source} holds nothing to segment yet")
    segmented, skipped, failed = (batch.count(status) for status in ("segmented", "skipped", "failed"))
    unchanged = sum(case.is_unchanged for case in batch.values())
    print_line(
        f"{segmented} segmented, {skipped} skipped, {failed} failed of {len(batch)} discovered; "
        f"{segmented - unchanged} new, {unchanged} unchanged; "
        + (f"see {output / 'cases.csv'}" if part is None else f"part {part}: `volseg merge {output}` makes the table")
    )
    if batch.report:
        print_line(f"report: {batch.report}")
    if failed or any(case.is_fault for case in batch.values()) or (batch and not segmented):
        raise typer.Exit(EXIT_SOME_FAILED)
