"""`volseg inspect`: what is in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from volseg.cli.console import print_line, print_table
from volseg.cli.options import ConfigOption, GapsOption, SetOption, overrides_of, progress_shown, with_gaps


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

    from volseg.cases.inspection import inspect as look
    from volseg.config import dicom_rules

    rules = dicom_rules(with_gaps(overrides_of(config, assignments), allow_gaps))
    with progress_shown() as progress:
        findings = look(path, tuple(rules.series) or ("image",), rules, progress)
    if as_json:
        print_line(json.dumps([asdict(finding) for finding in findings], indent=1))
        return
    rows = [
        (
            finding.path,
            finding.kind,
            "x".join(str(size) for size in finding.shape or ()),
            " x ".join(f"{size:.4g}" for size in finding.spacing_mm or ()),
            finding.axis_codes,
            finding.status,
            "; ".join(text for text in (finding.remark, finding.taken) if text),
        )
        for finding in findings
    ]
    print_table(("path", "kind", "voxels", "spacing in mm", "axes", "status", "remark"), rows)
