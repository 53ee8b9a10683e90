"""`volseg merge`: one table from the parts of a batch."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from volseg.cli.console import print_line, say
from volseg.cli.options import EXIT_SOME_FAILED


def merge(
    output: Annotated[Path, typer.Argument(help="The folder that the jobs were given as --output.")],
) -> None:
    """Make one cases.csv from what the jobs of an array have segmented, and name the parts that are not finished."""
    import volseg

    merged = volseg.merge(output)
    for part in merged.undone:
        say(str(part), logging.WARNING)
    segmented, skipped, failed = (merged.counts[status] for status in ("segmented", "skipped", "failed"))
    total = sum(merged.counts.values())
    print_line(f"{segmented} segmented, {skipped} skipped, {failed} failed of {total}; see {merged.table}")
    if merged.undone:
        again = ",".join(str(undone.part.number) for undone in merged.undone)
        print_line(f"run these parts again: {again}")
    if failed or merged.undone:
        raise typer.Exit(EXIT_SOME_FAILED)
