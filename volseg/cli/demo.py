"""`volseg demo`: run the whole pipeline on phantoms."""

from __future__ import annotations

import logging
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volseg.cli.console import print_line, print_table, print_text, progress_shown, say
from volseg.cli.options import DeviceOption, ThreadsOption
from volseg.system import file_opener

if TYPE_CHECKING:
    import pandas as pd


def demo(
    output: Annotated[Path, typer.Option("--output", help="New folder for everything it makes.")] = Path("volseg-demo"),
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, help="Time for training.")] = 3.0,
    *,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Make phantoms, train on them, segment held-out ones, score and draw them. Takes minutes on a laptop.

    If it is interrupted, the same command goes on.
    """
    import volseg
    from volseg.demo import DRAWN_CASE

    with progress_shown() as progress:
        made = volseg.run_demo(output, minutes, progress, threads=threads, device=device)
    _print_scores(made.evaluation.summary)
    print_line(f"\nphantoms  {output / 'train'}, {output / 'test'}")
    print_line(f"model     {made.run.results[0].model}")
    print_line(f"masks     {made.batch.folder}")
    print_line(f"scores    {made.evaluation.folder}")
    print_line(f"picture   {made.picture}")
    print_line(f"curves    tensorboard --logdir {output / 'run' / 'tensorboard'}")
    if made.run.advice:
        say(f"warning: {made.run.advice}", logging.WARNING)
    _print_next(output, DRAWN_CASE)


def _print_scores(summary: pd.DataFrame) -> None:
    """Print the scores, with as many columns as fit into any terminal."""
    counts, means = ["scored", "missed"], ["dice_mean", "hd95_mm_mean"]
    rows = [
        (str(row["label"]), *(f"{row[name]:.0f}" for name in counts), *(f"{row[name]:.3g}" for name in means))
        for row in summary.to_dict("records")
    ]
    print_table(("label", *counts, *means), rows)


def _print_next(output: Path, case_id: str) -> None:
    """Print three commands to try next."""
    command = shlex.quote("volseg" if shutil.which("volseg") else sys.argv[0])
    report, mask, image = (
        shlex.quote(str(output / name))
        for name in ("scores/report.html", f"masks/{case_id}.nii.gz", f"test/images/{case_id}")
    )
    print_text(f"\nLook at the report:\n  {file_opener()} {report}")
    print_text(
        f"Write a segmentation that 3D Slicer opens:\n  {command} export {mask} \\\n"
        f"    --reference {image} \\\n    --format seg-nrrd --output {case_id}.seg.nrrd"
    )
    print_text(f"Train on your own images and labels:\n  {command} train DATA --output runs/mine --minutes 30")
