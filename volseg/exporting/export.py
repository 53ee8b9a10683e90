"""Export of a mask: put it onto the grid of its image and write it in another format."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import fastremap

from volseg.cases.content import VoxelValues
from volseg.cases.series import choose_series, named
from volseg.cases.stated_names import of_masks
from volseg.config import AS_STATED, NO_RULES, DicomRules, ReadingRules
from volseg.errors import ConfigError, DataError, GeometryError, OutputExistsError
from volseg.exporting.description import USUAL, Description, MaskOrigin
from volseg.exporting.formats import (
    MESHES,
    SUFFIXES,
    Encoding,
    Format,
    output_path,
    warn_of_private_codes,
    with_needed,
)
from volseg.exporting.write import claim_masks, write_all
from volseg.image.geometry import Geometry
from volseg.image.short_names import short_name
from volseg.image.terminology import lookup
from volseg.image.volume import Label, Mask
from volseg.io import MasksSource, SegmentsSource, SeriesSource, Source, discover, read_grid, read_mask, single_source
from volseg.io.labels import read_labels
from volseg.io.own_results import without_results
from volseg.io.segments import Segment
from volseg.io.written import Inputs, remove_written_in

if TYPE_CHECKING:
    from volseg.io.dicom import Instances

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Export:
    """A request to export one mask, or every mask in a folder.

    Attributes:
        mask: A label map, a DICOM Segmentation or an RT Structure Set.
        reference: The image it belongs to: a file, or a folder that may hold several series.
        output: The file to write, or the folder for meshes.
        form: The format.
        labels: Names of the values; by default those in the mask itself, else in the labels.json next to it, else in
            nnU-Net's dataset.json.
        encoding: Encoding of a Segmentation.
        rules: How mask and image are read.
        overwrite: Whether to replace what is at the output; never an input.
        description: Series description and model for DICOM objects.
        made_from: SeriesInstanceUID of the images that the mask was made from, if known.
    """

    mask: Path
    reference: Path
    output: Path
    form: Format = "nifti"
    labels: Path | None = None
    encoding: Encoding = "binary"
    rules: DicomRules = NO_RULES
    overwrite: bool = False
    description: Description = USUAL
    made_from: str = ""

    @property
    def inputs(self) -> Inputs:
        """Return all files that are read."""
        return Inputs.of(self.mask, self.reference, self.labels)


@dataclass(frozen=True, eq=False)
class Exported:
    """An exported mask.

    Attributes:
        mask: The mask on the grid of its image.
        paths: The files or the folder: a report comes with the Segmentation it refers to.
    """

    mask: Mask
    paths: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class Placed:
    """A mask on the grid of its image.

    Attributes:
        mask: The mask on the grid of the image.
        image: The image, a file or a DICOM series.
        instances: The headers of a DICOM series, if they have been read already.
    """

    mask: Mask
    image: Source
    instances: Instances | None = None


def export(request: Export) -> Exported:
    """Put a mask onto the grid of its image, in the image's storage order, and write it without resampling.

    Returns:
        The mask as written, and its paths.

    Raises:
        ConfigError: If the name of the output does not fit the format.
        GeometryError: If the mask lies on none of the images.
        DataError: If one of them cannot be read, or lacks what the format must state.
        OutputError: If it cannot be written.
    """
    suffix = SUFFIXES[request.form]
    if not request.output.name.endswith(suffix):
        raise ConfigError(
            f"{request.output.name} does not fit --format {request.form}", hint=f"use a name that ends with {suffix}"
        )
    source = single_source(request.mask, rules=request.rules)
    images = images_at(request.reference, request.rules)
    files = (file for image in images for file in image.files)
    exported = export_on(source, images, request, Inputs.of(*request.inputs.paths, *source.files, *files))
    warn_of_private_codes(exported.mask.labels, [request.form])
    return exported


def images_at(path: Path, rules: ReadingRules = AS_STATED) -> tuple[Source, ...]:
    """Find the images at a path, without results of volseg.

    Raises:
        DataError: If there is none.
    """
    images = without_results(discover(path, rules=rules), path).sources
    if not images:
        raise DataError(f"{path} holds no image", hint="give the image that the mask belongs to")
    return images


def export_on(source: Source, images: Sequence[Source], request: Export, inputs: Inputs) -> Exported:
    """Export a mask on the one of several images that it lies on.

    Args:
        source: Source of the mask.
        images: One or more; of several, the one that the mask refers to, or else that would be segmented, is used.
        request: The request.
        inputs: Files that are never replaced.

    Returns:
        The mask as written, and its paths.

    Raises:
        GeometryError: If the mask lies on none of the images.
        DataError: If one of them cannot be read, or lacks what the format must state.
        OutputError: If it cannot be written.
    """
    from volseg.io.references import described_segments

    described = described_segments(source) if isinstance(source, SegmentsSource) else ()
    labels = _labels_of(source, described, request)
    placed = _placed(source, labels, images, request)
    if reason := VoxelValues.of(placed.mask.array).why_no_labels:
        raise DataError(
            f"{request.mask} holds an image, not a mask: {reason}", hint="give the mask, and its image as --reference"
        )
    paths = write_placed(
        placed,
        request.output,
        request.form,
        request.encoding,
        _as_stated(request.description, source, described),
        inputs=inputs,
        overwrite=request.overwrite,
    )
    return Exported(placed.mask, paths)


def write_placed(
    placed: Placed,
    path: Path,
    form: Format,
    encoding: Encoding,
    description: Description,
    *,
    inputs: Inputs,
    overwrite: bool = False,
) -> tuple[Path, ...]:
    """Write a mask in one format, with the Segmentation that a structured report refers to.

    Args:
        placed: The mask on its image.
        path: The file, or the folder of meshes; its name ends with the format's suffix.
        form: The format.
        encoding: Encoding of a Segmentation.
        description: Series description and model for DICOM objects.
        inputs: Files that are never replaced.
        overwrite: Whether to replace existing files.

    Returns:
        The written files or folders.

    Raises:
        OutputExistsError: If the output is an input, was not written by volseg or was changed since, or holds meshes of
            another mask.
    """
    case_id = path.name.removesuffix(SUFFIXES[form])
    paths = {each: output_path(path.parent, case_id, each) for each in with_needed([form])}
    if form in MESHES and not overwrite and any(path.glob(f"*.{form}")):
        raise OutputExistsError(
            f"{path} already holds meshes",
            hint="choose another --output, or replace those of volseg with --overwrite",
        )
    claim_masks(paths, placed.mask.labels, inputs, overwrite=overwrite)
    if form in MESHES:
        remove_written_in(path, f"*.{form}")
    write_all(placed.mask, placed.image, paths, encoding, placed.instances, description)
    return tuple(paths.values())


def _as_stated(description: Description, source: Source, segments: Sequence[Segment]) -> Description:
    """Add to a description how a mask was made, as its segments state; those that state nothing were drawn by hand.

    A mask in a format without segments (NIfTI, say) states nothing, and is most often the output of a program. A known
    model says more than the segments, and so does a correction.
    """
    if not isinstance(source, SegmentsSource) or description.model is not None:
        return description
    stated = {segment.origin or "MANUAL" for segment in segments}
    names = {segment.algorithm for segment in segments if segment.algorithm}
    origin: MaskOrigin = "SEMIAUTOMATIC"  # of segments that differ
    for known in get_args(MaskOrigin):
        if stated <= {known}:
            origin = known
    if description.origin == "SEMIAUTOMATIC":
        origin = description.origin
    return replace(description, origin=origin, algorithm=short_name(" + ".join(sorted(names))) if names else "")


def _labels_of(source: Source, segments: Sequence[Segment], request: Export) -> tuple[Label, ...]:
    """Return the labels that are known before the mask is read."""
    if request.labels:
        return read_labels(request.labels)
    if isinstance(source, SegmentsSource) and source.has_grid:
        return read_mask(source).labels
    if not isinstance(source, SegmentsSource | MasksSource):
        return of_masks(request.mask.parent)
    colors = {segment.name: segment.color for segment in segments}
    named = enumerate(dict.fromkeys(filter(None, source.names)), start=1)
    return tuple(Label(value, name, colors.get(name), structure=lookup(name)) for value, name in named)


def _placed(source: Source, labels: Sequence[Label], images: Sequence[Source], request: Export) -> Placed:
    """Read a mask and find the image that it lies on."""
    if isinstance(source, SegmentsSource) and not source.has_grid:
        return _placed_segments(source, labels, images, request)
    stored = _with_all_labels(read_mask(source, labels))
    return place(stored.on, images, source, request.made_from)


def place(
    on: Callable[[Geometry], Mask], images: Sequence[Source], source: Source | None = None, made_from: str = ""
) -> Placed:
    """Find the image that a mask lies on; of several, the one that it refers to, or else that would be segmented.

    Args:
        on: Returns the mask on a grid, or raises a GeometryError.
        images: One or more images.
        source: Source of the mask.
        made_from: SeriesInstanceUID of the images that the mask was made from, if known.

    Raises:
        GeometryError: If the mask lies on none of them, or belongs to other images.
        DataError: If the only image cannot be read.
    """
    faults: list[DataError] = []
    fitting: dict[Source, Placed] = {}
    for image in images:
        try:
            _refuse_others(source, made_from, image)
            instances = _instances_of(image)  # the pixels of a DICOM series are not read
            fitting[image] = Placed(on(instances.geometry if instances else read_grid(image)), image, instances)
        except DataError as error:
            faults.append(error)
    if fitting:
        return fitting[_preferred(list(fitting), source)]
    if len(faults) == 1:
        raise faults[0]
    raise GeometryError(f"the mask fits none of {len(faults)} images; the first: {faults[0]}", hint=faults[0].hint)


def _placed_segments(
    source: SegmentsSource, labels: Sequence[Label], images: Sequence[Source], request: Export
) -> Placed:
    """Read the structures of a DICOM object: all requested ones, or all usable ones if none are requested."""
    from volseg.io.references import read_usable_segments

    try:
        return place(lambda grid: read_mask(source, labels, on=grid), images, source, request.made_from)
    except DataError:
        if request.labels:
            raise
    return place(lambda grid: read_usable_segments(source, labels, grid), images, source, request.made_from)


def _refuse_others(source: Source | None, made_from: str, image: Source) -> None:
    """Refuse images of another examination, which may be of another patient: an equal grid does not tell them apart.

    Raises:
        GeometryError: If the frames of reference differ, or the mask is known to be of another series.
    """
    if not isinstance(image, SeriesSource):
        return
    space = image.traits.frame_of_reference_uid
    if isinstance(source, SegmentsSource) and source.spaces and space and space not in source.spaces:
        raise GeometryError(
            f"{source.path.name} states another frame of reference than {image}", hint="give the images it was drawn on"
        )
    if made_from and image.series_uid and made_from != image.series_uid:
        raise GeometryError(
            f"the mask was made from another series than {image}",
            hint="give the images that were segmented, or copy the mask to another folder to export it on other images",
        )


def _preferred(images: Sequence[Source], source: Source | None) -> Source:
    """Choose one of several images that a mask lies on."""
    series = [image for image in images if isinstance(image, SeriesSource)]
    if isinstance(source, SegmentsSource):
        series = [image for image in series if image.series_uid in source.series_uids] or series
    if len(images) == 1 or not series:
        return images[0]
    chosen = choose_series(series, ("image",), NO_RULES).chosen["image"]
    if len(series) > 1:
        logger.warning(
            "the mask fits %d series; using %s, as prediction would; to use another one, give its folder",
            len(series),
            named(chosen),
        )
    return chosen


def _with_all_labels(mask: Mask) -> Mask:
    """Give every value of a mask a label; unnamed values are named by their number."""
    named = {label.value for label in mask.labels}
    values = (int(value) for value in fastremap.unique(mask.array))
    more = [Label(value, f"label_{value}") for value in values if value and value not in named]
    return Mask(mask.array, mask.geometry, (*mask.labels, *more))


def _instances_of(image: Source) -> Instances | None:
    if not isinstance(image, SeriesSource):
        return None
    from volseg.io.dicom import read_instances

    return read_instances(image)
