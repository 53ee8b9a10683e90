"""`volseg train`: a data set in, a run out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volseg.cli.console import print_line, print_table, progress_shown
from volseg.cli.epoch_lines import EpochLines
from volseg.cli.options import (
    EXIT_SOME_FAILED,
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

if TYPE_CHECKING:
    from volseg import Choice, Run

#: Options of `--compare`.
_OF_A_COMPARISON = {
    *("data", "output", "config", "assignments", "minutes", "epochs", "compare", "show_epochs", "resume"),
    *("overwrite", "threads", "device"),
}


def train(  # noqa: PLR0913  each is an option
    context: typer.Context,
    data: Annotated[Path, typer.Argument(help="A labelled data set; data/README.md shows the layouts.")],
    output: Annotated[Path, typer.Option("--output", help="The run folder.")],
    *,
    config: ConfigOption = None,
    assignments: SetOption = None,
    minutes: Annotated[float | None, typer.Option("--minutes", min=0.1, help="Time for the whole run.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Rounds of training.steps_per_epoch.")] = None,
    target_dice: Annotated[
        float | None, typer.Option("--target-dice", min=0, max=1, help="Stop as soon as validation reaches it.")
    ] = None,
    fold: Annotated[
        str | None, typer.Option("--fold", help="Which fold is held out, or all, one after another.")
    ] = None,
    start_from: Annotated[
        str | None, typer.Option("--from", help="A run, model or file of weights to start with, as far as it fits.")
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            "--compare",
            help="2d,3d: train both for all folds, slice by slice and in volumes; 2.5d sees slices on either side.",
        ),
    ] = None,
    allow_gaps: GapsOption = False,
    geometry: GeometryOption = None,
    validate_all: Annotated[
        bool, typer.Option("--validate-all", help="Score all held-out cases at the end, however long it takes.")
    ] = False,
    show_epochs: Annotated[
        bool, typer.Option("--show-epochs", help="Print each epoch: its loss as a bar, accuracy, Dice and IoU.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    overwrite: OverwriteOption = False,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Train a network: a U-Net fitted to the data unless the configuration says otherwise."""
    began = time.monotonic()  # importing takes seconds
    import volseg

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
    with progress_shown() as progress:
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
            on_epoch_done=EpochLines() if show_epochs else None,
        )
    if not run.is_leader:
        return
    _print_run(run)
    if run.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _print_choice(choice: Choice) -> None:
    """What networks of planes and of volumes came to."""
    rows = [
        (str(row["kind"]), f"{row['dice_mean']:.4f}", f"{row['low']:.4f} to {row['high']:.4f}")
        for row in choice.summary.to_dict("records")
    ]
    print_table(("networks", "dice of cases they never saw", "95 % interval"), rows)
    print_line(f"\nchosen: {' and '.join(choice.chosen)}; predict with --model {choice.folder}")


def _print_run(run: Run) -> None:
    """What a training came to."""
    validation = run.validation
    rows = [(name, f"{dice:.4f}") for name, dice in zip(validation.labels, validation.per_label.tolist(), strict=True)]
    print_table(("label", "validation dice"), [*rows, ("mean", f"{validation.mean:.4f}")])
    if validation.left_out:
        print_line(f"of {len(validation.case_ids)} held-out cases; {len(validation.left_out)} were left out for time")
    for split, result in zip(run.splits, run.results, strict=True):
        print_line(f"\n{len(split.train)} cases taught, {len(split.val)} were held out, {len(run.not_used)} not used")
        print_line(f"best of {result.epochs} epochs: {result.best_epoch}; model: {result.model}")
    decided = run.decided
    if run.config.postprocess is None:
        steps = {rule.label: rule.model_dump(exclude_defaults=True, exclude={"label"}) for rule in decided.rules}
        chosen = "; ".join(f"{label}: {', '.join(step)}" for label, step in steps.items())
        print_line(f"post-processing that raised the Dice: {chosen or 'none'}")
    if decided.data.regions != run.config.data.regions:
        chosen = ", ".join(f"{region.name}: {region.threshold}" for region in decided.data.regions if region.threshold)
        print_line(f"thresholds that raised the Dice: {chosen}")
    print_line(f"curves: tensorboard --logdir {run.folder}")
