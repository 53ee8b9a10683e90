"""What several verbs share: options, what they stand for, and exit codes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from volseg.errors import ConfigError

EXIT_OK, EXIT_DEFECT, EXIT_USAGE, EXIT_SOME_FAILED, EXIT_INTERRUPTED = 0, 1, 2, 3, 130

ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file of some or all configuration keys.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="One key, such as training.epochs=100. Repeatable.")]
#: Written out, because importing them from `volseg.exporting` would make --help slow.
FORMATS = (
    "nifti, nrrd, mha, seg-nrrd, dicom-seg, rtstruct, dicom-sr, stl, ply, glb, png or overlay; of pictures geojson, "
    "coco or svg, too."
)
FormatOption = Annotated[list[str] | None, typer.Option("--format", help=f"{FORMATS} Repeatable.")]
EncodingOption = Annotated[
    str, typer.Option("--encoding", help="Of dicom-seg: binary (every viewer) or labelmap (small, DICOM of 2024).")
]
SeriesDescriptionOption = Annotated[
    str | None,
    typer.Option(
        "--series-description",
        help="Of DICOM objects; {format}, {labels} and {model} are filled in. By default 'volseg: {labels}'.",
    ),
]
GapsOption = Annotated[
    bool,
    typer.Option("--allow-gaps", help="Bridge missing or uneven DICOM slices by interpolation instead of refusing."),
]

GeometryOption = Annotated[
    str | None,
    typer.Option("--geometry", help="What is right of NIfTI headers that contradict themselves: sform, qform, pixdim."),
]

ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", help="CPU threads to compute with, rather than all that machine and container allow."),
]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", help="Where networks run: cpu, cuda, cuda:N or mps, rather than CUDA if there is any."),
]

OverwriteOption = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace files that volseg did not write, or that you changed; never the input."),
]


def changes_of(assignments: list[str] | None, geometry: str | None = None) -> dict[str, Any]:
    """The keys of `--set`, and of `--geometry`."""
    from volseg.config import merge, parse_assignments

    keys = parse_assignments(assignments or [])
    return keys if geometry is None else merge(keys, {"data": {"geometry": geometry}})


def only(context: typer.Context, names: Collection[str], otherwise: str) -> None:
    """Refuse options that were given and would be ignored."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in names and source is not None and source.name == "COMMANDLINE":
            raise ConfigError(f"--{name.replace('_', '-')} {otherwise}", hint="leave one of them out")
