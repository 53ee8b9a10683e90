"""A mask in memory, in the format that the name of its file says."""

from __future__ import annotations

from pathlib import Path

from volseg.errors import ConfigError, DataError
from volseg.exporting.description import USUAL, Description
from volseg.exporting.export import Placed, images_at, place, write_placed
from volseg.exporting.formats import (
    OF_DICOM,
    SUFFIXES,
    Encoding,
    Format,
    format_of,
    parse_encoding,
    parse_formats,
    warn_of_private_codes,
)
from volseg.image.volume import Mask
from volseg.io import FileSource, Source
from volseg.io.written import Inputs


def save_mask(
    mask: Mask,
    path: Path,
    image: Source | Path | None = None,
    form: Format | None = None,
    encoding: Encoding = "binary",
    description: Description = USUAL,
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Write a mask, with the Segmentation that a structured report refers to.

    Args:
        mask: What to write.
        path: The file, or the folder of meshes.
        image: What it was made from, or a path where that lies; without it there are no DICOM objects and no preview.
        form: The format; by default the one that the path's suffix names.
        encoding: Of a Segmentation.
        description: What DICOM objects say of themselves.
        overwrite: Whether the user gave up what lies at the path; never the image.

    Returns:
        What was written.

    Raises:
        ConfigError: If the path does not go with the format.
        DataError: If the format refers to the image and there is none, or of another kind.
        GeometryError: If the mask does not lie on the image.
        OutputExistsError: If there is a file that volseg did not write or that was changed since.
        OutputError: If it cannot be written.
    """
    (form,) = parse_formats(form or format_of(path))
    suffix = SUFFIXES[form]
    if not path.name.endswith(suffix):
        raise ConfigError(f"{path.name} does not fit the format {form}", hint=f"let its name end with {suffix}")
    if image is None and (form in {*OF_DICOM, "overlay"} or (form == "png" and not mask.geometry.is_flat)):
        raise DataError(f"{form} needs the images that the mask was made from", hint="give them with `images`")
    # A format that needs no image does not look at it.
    placed = place(mask.on, images_at(image)) if isinstance(image, Path) else Placed(mask, image or FileSource(path))
    inputs = Inputs.of(image) if isinstance(image, Path) else Inputs.of(*(image.files if image else ()))
    warn_of_private_codes(mask.labels, [form])
    return list(
        write_placed(placed, path, form, parse_encoding(encoding), description, inputs=inputs, overwrite=overwrite)
    )
