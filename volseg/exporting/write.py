"""Writing of a mask in the formats of viewers and archives."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from volseg.exporting.description import USUAL, Description
from volseg.exporting.formats import MESHES, OF_DICOM, Encoding, Format, check_formats, is_flat_picture
from volseg.image.volume import Label, Mask
from volseg.io import SeriesSource, Source, read_volume, write_mask
from volseg.io.written import NO_INPUTS, Inputs, claim

if TYPE_CHECKING:
    from volseg.io.dicom import Instances  # it needs pydicom, unlike most formats

_log = logging.getLogger("volseg")


def write(
    mask: Mask,
    image: Source,
    path: Path,
    form: Format,
    encoding: Encoding = "binary",
    description: Description = USUAL,
) -> None:
    """Write a mask in one format; see `write_all`."""
    write_all(mask, image, {form: path}, encoding, description=description)


def write_all(
    mask: Mask,
    image: Source,
    paths: Mapping[Format, Path],
    encoding: Encoding = "binary",
    instances: Instances | None = None,
    description: Description = USUAL,
) -> None:
    """Write a mask in several formats; the headers of its DICOM images are read once for all of them.

    Args:
        mask: The mask on the grid of the image.
        image: Its image.
        paths: Format -> path, from `output_path`.
        encoding: Encoding of a Segmentation, and of the one that a report refers to.
        instances: The headers of the image, if they have been read already.
        description: Series description and model for DICOM objects.

    Raises:
        DataError: If a format needs DICOM images, and the image is not DICOM or lacks required information.
        GeometryError: If the mask does not lie on the image.
        OutputError: If it cannot be written.
    """
    check_formats(image, list(paths))
    if isinstance(image, SeriesSource) and set(paths) & {*OF_DICOM, "png", "overlay"}:
        from volseg.io.dicom import read_instances
        from volseg.io.dicom.quiet import quiet_dicom

        instances = instances or read_instances(image)
        with quiet_dicom():
            _warn_of_burned_in(instances)
            objects = {form: path for form, path in paths.items() if form in OF_DICOM}
            _write_dicom(mask, instances, objects, encoding, description)
    for form, path in paths.items():
        if form not in OF_DICOM:
            _write_file(mask, image, path, form)


def claim_masks(
    paths: Mapping[Format, Path], labels: Sequence[Label], inputs: Inputs = NO_INPUTS, *, overwrite: bool = False
) -> None:
    """Check that a mask can be written without replacing files that volseg did not write.

    Args:
        paths: Format -> path, from `output_path`.
        labels: Labels of the mask, which name its meshes.
        inputs: Files that are never replaced.
        overwrite: Whether to replace existing files.

    Raises:
        OutputExistsError: If a file or a folder is in the way.
    """
    claim([path for form, path in paths.items() if form not in MESHES], inputs, overwrite=overwrite)
    for form, path in paths.items():
        if form == "stl" or form == "ply":  # noqa: PLR1714  mypy knows the types by it
            from volseg.exporting.mesh import claim_meshes

            claim_meshes(labels, path, form, inputs, overwrite=overwrite)


def _write_dicom(
    mask: Mask, instances: Instances, paths: Mapping[Format, Path], encoding: Encoding, description: Description
) -> None:
    if paths:
        _warn_of_studies(instances)
    for form, path in paths.items():
        match form:
            case "dicom-seg":
                from volseg.exporting.seg import write_seg

                write_seg(mask, instances, path, encoding, description)
            case "dicom-sr":
                from volseg.exporting.sr import write_sr

                write_sr(mask, instances, path, encoding, description)
            case _:
                from volseg.exporting.rtstruct import write_rtstruct

                write_rtstruct(mask, instances, path, description)


def _write_file(mask: Mask, image: Source, path: Path, form: Format) -> None:
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
        case "geojson":
            from volseg.exporting.outlines import write_geojson

            write_geojson(mask, path)
        case "coco":
            from volseg.exporting.outlines import write_coco

            write_coco(mask, image.place.name, path)
        case "svg":
            from volseg.exporting.outlines import write_svg

            write_svg(mask, path)
        case "overlay" if is_flat_picture(image):
            from volseg.exporting.overlay import write_overlay

            write_overlay(mask, image, path)
        case "png" | "overlay" if not is_flat_picture(image):
            from volseg.exporting.preview import write_preview

            write_preview(mask, read_volume(image), path)
        case _:
            write_mask(mask, path, image, role="result")


def _warn_of_burned_in(instances: Instances) -> None:
    """Warn about burned-in text: it may name the patient, and the exported object refers to the images."""
    if any(header.words("BurnedInAnnotation") == ("YES",) for header in instances.headers.values()):
        _log.warning("%s: BurnedInAnnotation is YES: the images may show who the patient is", instances.folder)


def _warn_of_studies(instances: Instances) -> None:
    """Warn if the images of one series state several studies: an exported object can belong to one only."""
    studies = {header.text("StudyInstanceUID") for header in instances.headers.values()}
    if len(studies) > 1:
        _log.warning(
            "%s: its images state %d studies; the export belongs to that of the first", instances.folder, len(studies)
        )
