"""`volseg inspect`: show what a folder holds."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volseg.cli.console import print_text, printed
from volseg.cli.options import ClusterOption, ConfigOption, GapsOption, GeometryOption, SetOption, changes_of
from volseg.cli.workers import work_shown
from volseg.text import readable

if TYPE_CHECKING:
    from volseg import InspectedItem, Inspection

_INDENT = " " * 4
#: Of voxels, voxel size, axes and status; the path has what is left of the line.
_WIDTHS = (12, 22, 5, 9)


def inspect(
    path: Annotated[Path, typer.Argument(help="A folder, a file, or a CSV manifest.")],
    *,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", help="Show what `volseg predict` with this model would segment, and what it would skip."
        ),
    ] = None,
    config: ConfigOption = None,
    assignments: SetOption = None,
    allow_gaps: GapsOption = False,
    geometry: GeometryOption = None,
    cluster: ClusterOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show what a folder holds, and what training or prediction would use."""
    from dataclasses import asdict

    import volseg

    with work_shown(cluster) as (progress, executor):
        found = volseg.inspect(
            path,
            model=model,
            config=config,
            changes=changes_of(assignments, geometry),
            allow_gaps=allow_gaps,
            progress=progress,
            executor=executor,
        )
    if as_json:
        print_text(json.dumps([asdict(item) for item in found], indent=1))
        return
    width = shutil.get_terminal_size().columns
    for item in found:
        for line in _lines_of(item, width):
            print_text(line)
    for line in _totals(found):
        print_text(textwrap.fill(readable(line), width, subsequent_indent=_INDENT, break_on_hyphens=False))
        printed.info("%s", line)


def _lines_of(item: InspectedItem, width: int) -> Iterator[str]:
    """Yield the lines about an item: its grid, with remarks below."""
    grid = (
        "x".join(str(size) for size in item.shape or ()),
        " x ".join(f"{size:.4g}" for size in item.spacing_mm or ()) + (" mm" if item.spacing_mm else ""),
        item.axis_codes,
        item.status,
    )
    columns = " ".join(cell.ljust(least) for cell, least in zip(grid, _WIDTHS, strict=True)).rstrip()
    room = max(10, width - sum(_WIDTHS) - len(_WIDTHS))
    path = readable(item.path)
    if len(path) <= room:
        yield f"{path.ljust(room)} {columns}".rstrip()
    else:
        yield path
        yield f"{' ' * room} {columns}".rstrip()
    series = (item.modality, f"series {item.number}" if item.number is not None else "", item.description)
    about = (*series, item.orientation, item.image_type, f"{item.kind}" if "DICOM" in item.kind else "")
    remarks = (
        ", ".join(text for text in about if text),
        _use_of(item),
        item.remark,
        f"not used: {item.refusal}" if item.refusal and item.refusal != item.remark else "",
    )
    for remark in filter(None, remarks):
        yield from textwrap.wrap(
            readable(remark), width, initial_indent=_INDENT, subsequent_indent=2 * _INDENT, break_on_hyphens=False
        )


def _use_of(item: InspectedItem) -> str:
    """Return the role of an item in its case and, for a series, why it was chosen or not."""
    if not item.case_id:
        return item.taken
    role = "reference" if item.role == "reference" else f"channel {item.role}"
    return f"case {item.case_id}, {role}" + item.taken.removeprefix(f"chosen for {role}")


def _totals(found: Inspection) -> Iterator[str]:
    counts = ", ".join(f"{count} {status}" for status, count in sorted(found.counts.items()))
    yield f"{len(found)} found" + (f": {counts}" if counts else "")
    if found.readiness is None:
        return
    verb, dataset = found.readiness.verb, found.readiness.dataset
    refusal = found.readiness.refusal
    if dataset is not None:
        yield f"layout: {dataset.layout}; channels: {', '.join(dataset.channels)}"
    if found.readiness.labels:
        yield "labels: " + ", ".join(f"{name} in {count}" for name, count in found.readiness.labels.items())
    if refusal:
        yield f"{verb} would refuse it: {refusal}"
    else:
        yield f"{verb} would use {found.readiness.usable} of {len(found.readiness.cases)} cases"
    for one in found.readiness.cases:
        if one.refusal and one.refusal != refusal:
            yield f"{verb} would refuse case {one.case.case_id}: {one.refusal}"
