"""`volseg train`: train a network on a data set."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volseg.cli.console import print_line, print_table, progress_shown, say
from volseg.cli.epoch_lines import EpochLines
from volseg.cli.options import (
    EXIT_SOME_FAILED,
    ClusterOption,
    ConfigOption,
    DeviceOption,
    GapsOption,
    GeometryOption,
    OverwriteOption,
    SetOption,
    ThreadsOption,
    changes_of,
    only,
)
from volseg.cli.workers import work_shown
from volseg.progress import MILESTONES

if TYPE_CHECKING:
    from volseg import Choice, Run

#: Options of `--compare`.
_OF_A_COMPARISON = {
    *("data", "output", "config", "assignments", "minutes", "epochs", "compare", "show_epochs", "resume"),
    *("overwrite", "threads", "device"),
}


def train(  # noqa: PLR0913  each is an option
    context: typer.Context,
    data: Annotated[Path, typer.Argument(help="A labelled data set; docs/data.md shows the layouts.")],
    output: Annotated[Path, typer.Option("--output", help="The run folder to write.")],
    *,
    config: ConfigOption = None,
    assignments: SetOption = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", min=0.1, help="Time for the whole run, planning and validation included."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Number of epochs, of training.steps_per_epoch steps each.")
    ] = None,
    target_dice: Annotated[
        float | None,
        typer.Option("--target-dice", min=0, max=1, help="Stop as soon as the validation Dice reaches this value."),
    ] = None,
    fold: Annotated[
        str | None,
        typer.Option("--fold", help="The fold to validate on, from 0; or all, which trains a network per fold."),
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Fine-tune: start from the weights of a run, a model or a file of weights, as far as they fit.",
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            "--compare",
            help="Cross-validate networks of several dimensions and choose the best: 2d,3d or 2d,2.5d,3d. A 2.5d "
            "network sees a slice with its neighbours.",
        ),
    ] = None,
    allow_gaps: GapsOption = False,
    geometry: GeometryOption = None,
    validate_all: Annotated[
        bool, typer.Option("--validate-all", help="Score all validation cases at the end, however long it takes.")
    ] = False,
    show_epochs: Annotated[
        bool,
        typer.Option("--show-epochs", help="Print each epoch to stdout: the loss as a bar, accuracy, Dice and IoU."),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    overwrite: OverwriteOption = False,
    cluster: ClusterOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Train a network; by default a U-Net planned for the data."""
    began = time.monotonic()  # importing takes seconds
    import volseg

    # Either form of a line per epoch is enough.
    logging.getLogger(MILESTONES).setLevel(logging.WARNING if show_epochs else logging.NOTSET)
    if compare is not None:
        only(context, _OF_A_COMPARISON, "does not go with --compare")
        with progress_shown() as progress:
            choice = volseg.choose_dimensions(
                data,
                output,
                compare,
                config=config,
                changes=changes_of(assignments),
                minutes=minutes,
                epochs=epochs,
                resume=resume,
                overwrite=overwrite,
                threads=threads,
                device=device,
                progress=progress,
                on_epoch_done=EpochLines() if show_epochs else None,
            )
        _print_choice(choice)
        return
    with work_shown(cluster, threads) as (progress, executor):
        run = volseg.train(
            data,
            output,
            config=config,
            changes=changes_of(assignments, geometry),
            minutes=minutes,
            epochs=epochs,
            target_dice=target_dice,
            fold=fold,
            start_from=start_from,
            allow_gaps=allow_gaps,
            validate_all=validate_all,
            resume=resume,
            overwrite=overwrite,
            began=began,
            threads=threads,
            device=device,
            progress=progress,
            executor=executor,
            on_epoch_done=EpochLines() if show_epochs else None,
        )
    if not run.is_leader:
        return
    _print_run(run)
    if run.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _print_choice(choice: Choice) -> None:
    """Print the Dice of each kind of network, and the choice."""
    rows = [
        (str(row["kind"]), f"{row['dice_mean']:.4f}", f"{row['low']:.4f} to {row['high']:.4f}")
        for row in choice.summary.to_dict("records")
    ]
    print_table(("networks", "out-of-fold dice", "95 % interval"), rows)
    print_line(f"\nchosen: {' and '.join(choice.chosen)}; predict with --model {choice.folder}")
    for kind, run in choice.runs.items():
        if run.advice:
            say(f"warning: {kind}: {run.advice}", logging.WARNING)


def _print_run(run: Run) -> None:
    """Print the scores of a run and the path of its model."""
    validation = run.validation
    rows = [(name, f"{dice:.4f}") for name, dice in zip(validation.labels, validation.per_label.tolist(), strict=True)]
    print_table(("label", "validation dice"), [*rows, ("mean", f"{validation.mean:.4f}")])
    if validation.left_out:
        all_cases = len(validation.case_ids) + len(validation.left_out)
        print_line(f"Dice of {len(validation.case_ids)} of {all_cases} validation cases: time was too short for all")
    count = len(run.not_used)
    unused = f"{count} file{'s' * (count != 1)} not used"
    for split, result in zip(run.splits, run.results, strict=True):
        print_line(f"\n{len(split.train)} training cases, {len(split.val)} validation cases, {unused}")
        print_line(f"best epoch: {result.best_epoch} of {result.epochs}; model: {result.model}")
    decided = run.decided
    if run.config.postprocess is None and not run.chose_postprocessing:
        print_line("post-processing: none; it is chosen only with at least five validation cases")
    elif run.config.postprocess is None:
        steps = {rule.label: rule.model_dump(exclude_defaults=True, exclude={"label"}) for rule in decided.rules}
        chosen = "; ".join(f"{label}: {', '.join(step)}" for label, step in steps.items())
        print_line(f"post-processing that raised the Dice: {chosen or 'none'}")
    if decided.data.regions != run.config.data.regions:
        chosen = ", ".join(f"{region.name}: {region.threshold}" for region in decided.data.regions if region.threshold)
        print_line(f"thresholds that raised the Dice: {chosen}")
    print_line(f"curves: tensorboard --logdir {run.folder}")
    if run.advice:
        say(f"warning: {run.advice}", logging.WARNING)
