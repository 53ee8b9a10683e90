"""The verb `export`: a mask in the formats of viewers and archives, exactly on the images it belongs to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import fastremap

from volseg.cases.series import choose_series, named
from volseg.config import NO_RULES
from volseg.errors import ConfigError, DataError, GeometryError, OutputError
from volseg.exporting.labels import LABELS_FILE, read_labels
from volseg.image.geometry import Geometry
from volseg.image.terminology import is_private, lookup, private
from volseg.image.volume import Label, Mask
from volseg.io import (
    FileSource,
    SegmentsSource,
    SeriesSource,
    Source,
    discover,
    read_mask,
    read_volume,
    single_source,
    write_mask,
)

Format = Literal["nifti", "nrrd", "mha", "seg-nrrd", "dicom-seg", "rtstruct", "dicom-sr", "stl", "ply", "glb", "png"]
#: How a DICOM Segmentation holds its voxels: a bit per segment, or a number per voxel.
Encoding = Literal["binary", "labelmap"]

FORMATS: tuple[Format, ...] = get_args(Format)
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
#: What is written is a file whose name ends so; a mesh format makes a folder of files.
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
}
#: Formats that are a folder of files, one per label with voxels.
MESHES: tuple[Format, ...] = ("stl", "ply")
#: Formats that refer to the DICOM images a mask was made from.
_OF_DICOM: tuple[Format, ...] = ("dicom-seg", "rtstruct", "dicom-sr")

logger = logging.getLogger(__name__)


def output_path(folder: Path, case_id: str, form: Format) -> Path:
    """Where the mask of a case is written in a format: a file, or a folder of meshes."""
    return folder / f"{case_id}{SUFFIXES[form]}"


def with_needed(formats: Sequence[Format]) -> list[Format]:
    """The formats, each once, with the Segmentation that a structured report refers to."""
    needed: list[Format] = ["dicom-seg"] if "dicom-sr" in formats else []
    return list(dict.fromkeys([*needed, *formats]))


def check_formats(image: Source, formats: Sequence[Format]) -> None:
    """Refuse formats that a mask of this image cannot have, before it is made.

    Raises:
        DataError: If one refers to DICOM images, and the image is none.
    """
    for form in formats:
        if form in _OF_DICOM:
            _series(image, form)


def write(mask: Mask, image: Source, path: Path, form: Format, encoding: Encoding = "binary") -> None:
    """Write a mask in one format.

    Args:
        mask: On the grid of the image.
        image: What it was made from.
        path: From `output_path`.
        form: The format.
        encoding: Of a Segmentation, and of the one that a report refers to.

    Raises:
        DataError: If the format refers to DICOM images and the image is none, or they lack what it must state.
        GeometryError: If the mask does not lie on the image.
        OutputError: If it cannot be written.
    """
    if form in _OF_DICOM:
        _write_dicom(mask, _series(image, form), path, form, encoding)
        return
    match form:
        case "seg-nrrd":
            from volseg.exporting.seg_nrrd import write_seg_nrrd

            write_seg_nrrd(mask, path)
        case "stl" | "ply":
            from volseg.exporting.mesh import write_meshes

            write_meshes(mask, path, form)
        case "glb":
            from volseg.exporting.mesh import write_glb

            write_glb(mask, path)
        case "png":
            from volseg.exporting.preview import write_preview

            _warn_of_burned_in(image)
            write_preview(mask, read_volume(image), path)
        case _:
            write_mask(mask, path)


def _write_dicom(mask: Mask, series: SeriesSource, path: Path, form: Format, encoding: Encoding) -> None:
    match form:
        case "dicom-seg":
            from volseg.exporting.seg import write_seg

            write_seg(mask, series, path, encoding)
        case "dicom-sr":
            from volseg.exporting.sr import write_sr

            write_sr(mask, series, path, encoding)
        case _:
            from volseg.exporting.rtstruct import write_rtstruct

            write_rtstruct(mask, series, path)


def _warn_of_burned_in(image: Source) -> None:
    if isinstance(image, SeriesSource):
        from volseg.exporting.described import warn_of_burned_in
        from volseg.io.dicom import read_instances

        warn_of_burned_in(read_instances(image), image.folder)


def _series(image: Source, form: Format) -> SeriesSource:
    if not isinstance(image, SeriesSource):
        raise DataError(f"{form} refers to the DICOM images of the case, but {image.place.name} is none")
    return image


@dataclass(frozen=True)
class Export:
    """What the verb `export` is asked for.

    Attributes:
        mask: A label map, a DICOM Segmentation or an RT Structure Set.
        reference: The image it was made from: a file, or a folder that may hold several series.
        output: The file to write, or the folder for meshes.
        form: The format.
        labels: What the values mean; by default the labels.json beside the mask, else what the mask says itself.
        encoding: Of a Segmentation.
        allow_gaps: Whether DICOM series with missing slices are bridged.
    """

    mask: Path
    reference: Path
    output: Path
    form: Format = "nifti"
    labels: Path | None = None
    encoding: Encoding = "binary"
    allow_gaps: bool = False


def export(request: Export) -> tuple[Mask, list[Path]]:
    """Put a mask onto the grid of its image, in the image's storage order, and write it; nothing is resampled.

    Returns:
        What was written, and the files or the folder: a report comes with the Segmentation it refers to.

    Raises:
        ConfigError: If the name of the output does not go with the format.
        GeometryError: If the mask lies on none of the images.
        DataError: If one of them cannot be read, or lacks what the format must state.
        OutputError: If it cannot be written.
    """
    suffix = SUFFIXES[request.form]
    if not request.output.name.endswith(suffix):
        raise ConfigError(f"--output of --format {request.form} ends with {suffix}, given {request.output.name}")
    source = single_source(request.mask)
    labels = _labels_of(source, request)
    mask, image = _placed(source, labels, request)
    warn_of_private_codes(mask.labels, [request.form])
    if request.form in MESHES and any(request.output.glob(f"*.{request.form}")):
        raise OutputError(f"{request.output} already holds meshes", hint="choose_series another --output")
    case = request.output.name.removesuffix(suffix)
    paths = {form: output_path(request.output.parent, case, form) for form in with_needed([request.form])}
    for form, path in paths.items():
        write(mask, image, path, form, request.encoding)
    return mask, list(paths.values())


def _labels_of(source: Source, request: Export) -> tuple[Label, ...]:
    """What is known of the values before the mask is read."""
    beside = request.mask.parent / LABELS_FILE
    if request.labels:
        return read_labels(request.labels)
    if beside.is_file() and not isinstance(source, SegmentsSource):
        return read_labels(beside)
    if isinstance(source, SegmentsSource):
        named = enumerate(dict.fromkeys(source.names), start=1)
        return tuple(Label(value, name, structure=lookup(name)) for value, name in named)
    return ()


def _placed(source: Source, labels: Sequence[Label], request: Export) -> tuple[Mask, Source]:
    """The mask on the grid of the image at the reference that it lies on, and that image.

    Where it lies on several, the one is taken that it says to belong to, else the one that would be segmented.
    """
    stored = None if isinstance(source, SegmentsSource) else _with_all_labels(read_mask(source, labels))
    faults: list[DataError] = []
    fitting: dict[Source, Mask] = {}
    for image in discover(request.reference, fill_gaps=request.allow_gaps).sources:
        try:
            geometry = _grid_of(image)
            fitting[image] = stored.on(geometry) if stored else read_mask(source, labels, on=geometry)
        except DataError as error:
            faults.append(error)
    if fitting:
        image = _preferred(list(fitting), source)
        return fitting[image], image
    if len(faults) == 1:
        raise faults[0]
    if not faults:
        raise DataError(f"{request.reference} holds no image", hint="give the image that the mask was made from")
    raise GeometryError(
        f"the mask lies on none of the {len(faults)} volumes in {request.reference}; the first: {faults[0]}",
        hint=faults[0].hint,
    )


def _preferred(images: Sequence[Source], source: Source) -> Source:
    """One of several images that a mask lies on."""
    series = [image for image in images if isinstance(image, SeriesSource)]
    if isinstance(source, SegmentsSource):
        series = [image for image in series if image.series_uid in source.series_uids] or series
    if len(images) == 1 or not series:
        return images[0]
    chosen = choose_series(series, ("image",), NO_RULES).chosen["image"]
    if len(series) > 1:
        logger.warning(
            "the mask lies on %d series; %s is taken, as it would be for prediction: give the folder of another one",
            len(series),
            named(chosen),
        )
    return chosen


def _with_all_labels(mask: Mask) -> Mask:
    """The mask with a label for every value; those that nobody named are called by their number."""
    named = {label.value for label in mask.labels}
    values = (int(value) for value in fastremap.unique(mask.array))
    more = [Label(value, f"label_{value}") for value in values if value and value not in named]
    return Mask(mask.array, mask.geometry, (*mask.labels, *more))


def warn_of_private_codes(labels: Sequence[Label], formats: Sequence[Format]) -> None:
    """Say which labels other programs will know by name alone."""
    unknown = [label.name for label in labels if is_private(label.structure or private(label.name))]
    if unknown and set(formats) & {*_OF_DICOM, "seg-nrrd"}:
        logger.warning(
            "no code is known for %s: private codes are written; data.structures can say what they are when training",
            ", ".join(unknown),
        )


def _grid_of(source: Source) -> Geometry:
    """Where the voxels lie; the pixels of a DICOM series are not read for it."""
    match source:
        case SeriesSource():
            from volseg.io.dicom import read_instances

            return read_instances(source).geometry
        case FileSource() | SegmentsSource():
            return read_volume(source).geometry
