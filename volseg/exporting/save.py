"""Saving a mask from memory, in the format of the file name."""

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
    made_from: str = "",
    overwrite: bool = False,
) -> list[Path]:
    """Write a mask, with the Segmentation that a structured report refers to.

    Args:
        mask: The mask to write.
        path: The file, or the folder of meshes.
        image: Its image, or the path of it; required for DICOM objects and previews.
        form: The format; by default that of the path's suffix.
        encoding: Encoding of a Segmentation.
        description: Series description and model for DICOM objects.
        made_from: SeriesInstanceUID of the images that the mask was made from, if known.
        overwrite: Whether to replace what is at the path; never the image.

    Returns:
        The written files or folders.

    Raises:
        ConfigError: If the path does not fit the format.
        DataError: If the format needs an image, and there is none or one of another kind.
        GeometryError: If the mask does not lie on the image.
        OutputExistsError: If a file there was not written by volseg, or was changed since.
        OutputError: If it cannot be written.
    """
    (form,) = parse_formats(form or format_of(path))
    suffix = SUFFIXES[form]
    if not path.name.endswith(suffix):
        raise ConfigError(f"{path.name} does not fit format {form}", hint=f"use a name that ends with {suffix}")
    if image is None and (form in {*OF_DICOM, "overlay"} or (form == "png" and not mask.geometry.is_flat)):
        raise DataError(f"{form} needs the images of the mask", hint="give them as `images`")
    # Formats that need no image ignore it.
    placed = (
        place(mask.on, images_at(image), None, made_from)
        if isinstance(image, Path)
        else Placed(mask, image or FileSource(path))
    )
    inputs = Inputs.of(image) if isinstance(image, Path) else Inputs.of(*(image.files if image else ()))
    warn_of_private_codes(mask.labels, [form])
    return list(
        write_placed(placed, path, form, parse_encoding(encoding), description, inputs=inputs, overwrite=overwrite)
    )
