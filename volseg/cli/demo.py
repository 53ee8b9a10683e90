"""`volseg demo`: all of it on phantoms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volseg.cli.console import print_line, print_summary, progress_shown
from volseg.cli.options import DeviceOption, ThreadsOption


def demo(
    output: Annotated[Path, typer.Option("--output", help="New folder for everything it makes.")] = Path("volseg-demo"),
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, help="Time for training.")] = 3.0,
    *,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Make phantoms, train on them, segment held-out ones, score them. Takes minutes on a laptop."""
    import volseg

    with progress_shown() as progress:
        made = volseg.run_demo(output, minutes, progress, threads=threads, device=device)
    print_summary(made.evaluation.summary)
    print_line(f"\nphantoms  {output / 'train'}, {output / 'test'}")
    print_line(f"model     {made.run.results[0].model}")
    print_line(f"masks     {output / 'masks'}")
    print_line(f"scores    {made.evaluation.folder}")
    print_line(f"report    {made.evaluation.report}")
    print_line(f"curves    tensorboard --logdir {output / 'run' / 'tensorboard'}")
