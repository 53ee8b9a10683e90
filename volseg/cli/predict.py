"""`volseg predict`: a model and cases in, masks out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volseg.cli.console import print_line, progress_shown, say
from volseg.cli.options import (
    EXIT_SOME_FAILED,
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

if TYPE_CHECKING:
    from volseg import CaseResult


def predict(  # noqa: PLR0913  each is an option
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A data set, a file, a DICOM folder, or a tree of these.")
    ],
    model: Annotated[list[Path], typer.Option("--model", help="A run folder or model file. Repeatable: averaged.")],
    output: Annotated[Path, typer.Option("--output", help="Folder for the masks.")],
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
        bool, typer.Option("--probabilities", help="Also write how likely each label is, as 4D NIfTI.")
    ] = False,
    allow_mismatch: Annotated[
        bool,
        typer.Option(
            "--allow-mismatch",
            help="Segment images that the model was not made for (another modality, say), with a warning in cases.csv.",
        ),
    ] = False,
    case_id: Annotated[
        str,
        typer.Option(
            "--case-id",
            help="What cases are called by: path, series (SeriesInstanceUID), or hash, a pseudonym; "
            "pseudonyms.csv says whose.",
        ),
    ] = "path",
    report: Annotated[
        bool, typer.Option("--report", help="Also write report.html: what somebody should look at, with pictures.")
    ] = False,
    overwrite: OverwriteOption = False,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Segment every case in a folder. An interrupted batch goes on with the same command."""
    import volseg

    def show(one: CaseResult) -> None:
        if one.status == "segmented":
            say(f"{one.case_id}: {one.effort}")

    with progress_shown() as progress:
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
        )
    for name, case in batch.items():
        if case.reason:
            say(f"{'warning' if case.status == 'segmented' else case.status}: {name}: {case.reason}", logging.WARNING)
    if not batch:
        say(f"{source} holds nothing to segment yet")
    segmented, skipped, failed = (batch.count(status) for status in ("segmented", "skipped", "failed"))
    unchanged = sum(case.is_unchanged for case in batch.values())
    print_line(
        f"{segmented} segmented, {skipped} skipped, {failed} failed of {len(batch)} discovered; "
        f"{segmented - unchanged} new, {unchanged} unchanged; see {output / 'cases.csv'}"
    )
    if failed or any(case.is_fault for case in batch.values()) or (batch and not segmented):
        raise typer.Exit(EXIT_SOME_FAILED)
