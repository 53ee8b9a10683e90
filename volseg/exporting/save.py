"""A mask in memory, in the format that the name of its file says."""

from __future__ import annotations

from pathlib import Path

from volseg.errors import ConfigError, DataError
from volseg.exporting.export import place
from volseg.exporting.formats import (
    OF_DICOM,
    SUFFIXES,
    Encoding,
    Format,
    format_of,
    output_path,
    parse_encoding,
    parse_formats,
    warn_of_private_codes,
    with_needed,
)
from volseg.exporting.write import write_all
from volseg.image.volume import Mask
from volseg.io import FileSource, Source


def save_mask(
    mask: Mask,
    path: Path,
    image: Source | Path | None = None,
    form: Format | None = None,
    encoding: Encoding = "binary",
) -> list[Path]:
    """Write a mask, with the Segmentation that a structured report refers to.

    Args:
        mask: What to write.
        path: The file, or the folder of meshes.
        image: What it was made from, or a path where that lies; without it there are no DICOM objects and no preview.
        form: The format; by default the one that the path's suffix names.
        encoding: Of a Segmentation.

    Returns:
        What was written.

    Raises:
        ConfigError: If the path does not go with the format.
        DataError: If the format refers to the image and there is none, or of another kind.
        GeometryError: If the mask does not lie on the image.
        OutputError: If it cannot be written.
    """
    (form,) = parse_formats(form or format_of(path))
    suffix = SUFFIXES[form]
    if not path.name.endswith(suffix):
        raise ConfigError(f"a file of format {form} ends with {suffix}, given {path.name}")
    if image is None and form in {*OF_DICOM, "png"}:
        raise DataError(f"{form} needs the images that the mask was made from", hint="name them with `images`")
    placed = place(mask.on, image) if isinstance(image, Path) else None
    source = placed.image if placed else image if isinstance(image, Source) else FileSource(path)
    warn_of_private_codes(mask.labels, [form])
    case_id = path.name.removesuffix(suffix)
    paths = {each: output_path(path.parent, case_id, each) for each in with_needed([form])}
    write_all(
        placed.mask if placed else mask, source, paths, parse_encoding(encoding), placed.instances if placed else None
    )
    return list(paths.values())
