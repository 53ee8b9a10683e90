"""`volseg inspect`: what is in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from volseg.cli.console import print_line, print_table
from volseg.cli.options import ConfigOption, GapsOption, SetOption, changes_of, progress_shown


def inspect(
    path: Annotated[Path, typer.Argument(help="A folder or a file.")],
    *,
    config: ConfigOption = None,
    assignments: SetOption = None,
    allow_gaps: GapsOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show what is in a folder: volumes or DICOM series, where they lie, what is odd, and which would be taken."""
    from dataclasses import asdict

    import volseg

    with progress_shown() as progress:
        items = volseg.inspect(
            path, config=config, changes=changes_of(assignments), allow_gaps=allow_gaps, progress=progress
        )
    if as_json:
        print_line(json.dumps([asdict(item) for item in items], indent=1))
        return
    rows = [
        (
            item.path,
            item.kind,
            "x".join(str(size) for size in item.shape or ()),
            " x ".join(f"{size:.4g}" for size in item.spacing_mm or ()),
            item.axis_codes,
            item.status,
            "; ".join(text for text in (item.remark, item.taken) if text),
        )
        for item in items
    ]
    print_table(("path", "kind", "voxels", "spacing in mm", "axes", "status", "remark"), rows)
