"""Exit codes, and options of several commands."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from volseg.errors import ConfigError

EXIT_OK, EXIT_DEFECT, EXIT_USAGE, EXIT_SOME_FAILED, EXIT_INTERRUPTED = 0, 1, 2, 3, 130

ConfigOption = Annotated[Path | None, typer.Option("--config", help="A YAML file of some or all configuration keys.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set one configuration key, such as training.epochs=100. Repeatable."
    ),
]
#: Written out, because importing them from `volseg.exporting` would make --help slow.
FORMATS = (
    "nifti, nrrd, mha, seg-nrrd, dicom-seg, rtstruct, dicom-sr, stl, ply, glb, png or overlay; for 2D images "
    "also geojson, coco or svg."
)
FormatOption = Annotated[list[str] | None, typer.Option("--format", metavar="FORMAT", help=f"{FORMATS} Repeatable.")]
EncodingOption = Annotated[
    str,
    typer.Option("--encoding", help="How dicom-seg is encoded: binary (every viewer) or labelmap (small, DICOM 2024)."),
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
    typer.Option("--allow-gaps", help="Interpolate over missing or uneven DICOM slices instead of refusing them."),
]

GeometryOption = Annotated[
    str | None,
    typer.Option("--geometry", help="Which entry of a contradictory NIfTI header to trust: sform, qform or pixdim."),
]

ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", help="Number of CPU threads; by default all that the machine or container allows."),
]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", help="Where networks run: cpu, cuda, cuda:N or mps; by default CUDA if available."),
]

ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="WHERE",
        help="Work on many processes or machines: local:4, the address of a scheduler, or a file such as cluster.yaml.",
    ),
]
CertificatesOption = Annotated[
    Path | None, typer.Option("--certificates", help="The folder that `volseg cluster certificates` wrote.")
]

#: Of every verb.
LogOption = Annotated[
    Path | None, typer.Option("--log", help="A file to append everything that is said to, each line with the time.")
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Print more on stderr.")]

OverwriteOption = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Replace files that volseg did not write or that were changed since; never the input."
    ),
]


def changes_of(assignments: list[str] | None, geometry: str | None = None) -> dict[str, Any]:
    """Return the configuration keys set by `--set` and `--geometry`."""
    from volseg.config import merge, parse_assignments

    keys = parse_assignments(assignments or [])
    return keys if geometry is None else merge(keys, {"data": {"geometry": geometry}})


def only(context: typer.Context, names: Collection[str], otherwise: str) -> None:
    """Refuse options that would be ignored."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in names and source is not None and source.name == "COMMANDLINE":
            raise ConfigError(f"--{name.replace('_', '-')} {otherwise}", hint="leave one of them out")
