"""Formats of masks, and which of them an image allows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from volseg.config import one_of
from volseg.errors import ConfigError, DataError
from volseg.image.terminology import is_private, private
from volseg.image.volume import Label
from volseg.io import FileSource, SeriesSource, Source, is_picture
from volseg.io.files import file_name

Format = Literal[
    "nifti",
    "nrrd",
    "mha",
    "seg-nrrd",
    "dicom-seg",
    "rtstruct",
    "dicom-sr",
    "stl",
    "ply",
    "glb",
    "png",
    "overlay",
    "geojson",
    "coco",
    "svg",
]
#: Encoding of a DICOM Segmentation: a bit per segment and voxel, or a number per voxel.
Encoding = Literal["binary", "labelmap"]

FORMATS: tuple[Format, ...] = get_args(Format)
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
#: Suffix of each format; for mesh formats, the suffix of a folder of files.
SUFFIXES: dict[Format, str] = {
    "nifti": ".nii.gz",
    "nrrd": ".nrrd",
    "mha": ".mha",
    "seg-nrrd": ".seg.nrrd",
    "dicom-seg": ".seg.dcm",
    "rtstruct": ".rtstruct.dcm",
    "dicom-sr": ".sr.dcm",
    "stl": "",
    "ply": "",
    "glb": ".glb",
    "png": ".png",
    "overlay": ".overlay.png",
    "geojson": ".geojson",
    "coco": ".coco.json",
    "svg": ".svg",
}
#: Formats with a folder of files, one per label with voxels.
MESHES: tuple[Format, ...] = ("stl", "ply")
#: Formats that refer to the DICOM images of a mask.
OF_DICOM: tuple[Format, ...] = ("dicom-seg", "rtstruct", "dicom-sr")
#: Outline formats for 2D images.
OF_PICTURES: tuple[Format, ...] = ("geojson", "coco", "svg")

logger = logging.getLogger(__name__)


def usual_formats(images: Sequence[Source]) -> tuple[Format, ...]:
    """Return the default formats for masks of images: PNG if all are 2D images, else NIfTI."""
    return ("png",) if images and all(map(is_flat_picture, images)) else ("nifti",)


def is_flat_picture(image: Source) -> bool:
    """Return whether an image is a 2D image, so that its mask is one, too."""
    return isinstance(image, FileSource) and is_picture(image.path) and image.rules.pages != "slices"


def output_path(folder: Path, case_id: str, form: Format) -> Path:
    """Return the path for the mask of a case in a format: a file, or a folder of meshes."""
    return folder / file_name(f"{case_id}{SUFFIXES[form]}")


def parse_formats(names: str | Sequence[str]) -> tuple[Format, ...]:
    """Return formats by name, each once.

    Raises:
        ConfigError: If one is unknown.
    """
    words = [names] if isinstance(names, str) else names
    return tuple(dict.fromkeys(one_of("format", name, FORMATS) for name in words))


def parse_encoding(name: str) -> Encoding:
    """Return an encoding of DICOM Segmentations by name.

    Raises:
        ConfigError: If it is unknown.
    """
    encoding: Encoding = one_of("encoding", name, ENCODINGS)
    return encoding


def format_of(path: Path) -> Format:
    """Return the format with the suffix of a file or mesh folder, preferring ".seg.nrrd" over ".nrrd".

    Raises:
        ConfigError: If no format has this suffix.
    """
    suffixes = {form: SUFFIXES[form] or f".{form}" for form in FORMATS}
    fitting = [form for form, suffix in suffixes.items() if path.name.lower().endswith(suffix)]
    if not fitting:
        raise ConfigError(
            f"the suffix of {path} states no format",
            hint=f"end it with {', '.join(suffixes.values())}, or give the format",
        )
    return max(fitting, key=lambda form: len(suffixes[form]))


def with_needed(formats: Sequence[Format]) -> list[Format]:
    """Return the formats, each once, with the Segmentation that a structured report refers to."""
    needed: list[Format] = ["dicom-seg"] if "dicom-sr" in formats else []
    return list(dict.fromkeys([*needed, *formats]))


def check_formats(image: Source, formats: Sequence[Format]) -> None:
    """Refuse formats that this image does not allow, before its mask is predicted.

    Raises:
        DataError: If a format needs a DICOM image or a 2D image, and the image is not one.
    """
    for form in formats:
        if form in OF_PICTURES and not is_flat_picture(image):
            raise DataError(
                f"{form} is for 2D images, and {image.place.name} is not one",
                hint="for volumes, use rtstruct for contours or stl for surfaces",
            )
        if form in OF_DICOM and not isinstance(image, SeriesSource):
            raise DataError(
                f"{form} refers to DICOM images, but {image.place.name} is not DICOM",
                hint="use --format nifti for images that are not DICOM",
            )


def warn_of_private_codes(labels: Sequence[Label], formats: Sequence[Format]) -> None:
    """Warn about labels that other programs can only identify by name."""
    unknown = [label.name for label in labels if is_private(label.structure or private(label.name))]
    if unknown and set(formats) & {*OF_DICOM, "seg-nrrd"}:
        logger.warning(
            "no standard code is known for %s: private codes are written; state their meaning in data.structures when "
            "training",
            ", ".join(unknown),
        )
