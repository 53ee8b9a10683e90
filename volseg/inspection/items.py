"""One item found in a folder, and anything unusual about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from volseg.cases.source_names import unknown_series
from volseg.errors import DataError, WorkerLostError
from volseg.image.geometry import Geometry
from volseg.io import (
    SegmentsSource,
    SeriesSource,
    SetAside,
    Source,
    header_remark,
    image_suffix,
    read_mask,
    read_shown,
)
from volseg.io.files import without_root


@dataclass(frozen=True)
class InspectedItem:
    """One item that was found.

    Attributes:
        path: Relative to the inspected folder.
        kind: "NIfTI", "NRRD", "DICOM series of 40 files" ...
        status: "ok", "odd" (usable, but see `remark`), "unusable", "set aside", "reference" (marks structures), or
            "result" (written by volseg).
        remark: What is odd about it, or why it cannot be used.
        shape: Voxels along the stored axes, None if it cannot be read.
        spacing_mm: Voxel size along the stored axes, None for a picture, whose grid is in pixels.
        axis_codes: Directions of the stored axes.
        modality: As DICOM states it.
        number: SeriesNumber.
        volume: Which of several volumes of the series.
        description: SeriesDescription.
        image_type: ImageType, its values joined by a slash.
        orientation: "axial", "coronal" or "sagittal", whichever the slices are closest to.
        taken: Whether prediction would choose it, and why or why not; empty for anything but a DICOM series.
        case_id: The case it belongs to, if the folder is labelled data or a model was named.
        role: Its role in that case: the name of a channel, or "reference".
        refusal: Why training, or prediction with the model, would not use it; empty if it would.
    """

    path: str
    kind: str
    status: str
    remark: str = ""
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    axis_codes: str = ""
    modality: str = ""
    number: int | None = None
    volume: str = ""
    description: str = ""
    image_type: str = ""
    orientation: str = ""
    taken: str = ""
    case_id: str = ""
    role: str = ""
    refusal: str = ""


def look_at(source: Source, root: Path) -> InspectedItem:
    """Read a volume, or the metadata of an object that marks structures.

    Args:
        source: The source found.
        root: The inspected folder.
    """
    match source:
        case SegmentsSource():
            return _look_at_segments(source, root)
        case SeriesSource():
            return _described(_look_at_volume(source, root), source)
        case _:
            return _look_at_volume(source, root)


def lost(source: Source, error: WorkerLostError, root: Path) -> InspectedItem:
    """Describe a volume that ended every worker that read it."""
    return InspectedItem(_relative(source.place, root), "", "unusable", error.explanation)


def not_a_volume(item: SetAside, root: Path) -> InspectedItem:
    """Describe an image-like item that is not a volume, with the reason."""
    return InspectedItem(_relative(item.path, root), "", "set aside", without_root(item.reason, root))


def own_results(paths: Iterable[Path], root: Path) -> list[InspectedItem]:
    """Describe what volseg wrote, one item per folder."""
    counts = Counter(path.parent for path in paths)
    return [
        InspectedItem(_relative(folder, root), "", "result", f"files that volseg wrote ({count}) are not input")
        for folder, count in counts.items()
    ]


def _described(item: InspectedItem, source: SeriesSource) -> InspectedItem:
    traits = source.traits
    return replace(
        item,
        modality=traits.modality,
        number=traits.number,
        volume=source.volume,
        description=traits.description,
        image_type="/".join(traits.image_type),
        orientation=traits.orientation,
    )


def _look_at_segments(source: SegmentsSource, root: Path) -> InspectedItem:
    name, marks = _relative(source.path, root), f"marks {', '.join(source.names) or 'nothing'}"
    match source.kind:
        case "nrrd":
            return _look_at_layers(source, name, marks, root)
        case "seg":
            kind = "DICOM Segmentation"
        case "rtstruct":
            kind = "RT Structure Set"
        case "geojson" | "coco":
            return InspectedItem(name, f"outlines ({source.kind})", "reference", f"{marks} in a picture")
    if source.series is None:
        on = f", {unknown_series(source)}"
    else:
        number = source.series.traits.number
        on = "" if number is None else f" in series {number}"
    faults = [f"cannot be used: {without_root(fault, root)}" for fault in _faults_of(source)] if source.series else []
    return InspectedItem(name, kind, "reference", "; ".join([marks + on, *faults]))


def _faults_of(source: SegmentsSource) -> list[str]:
    from volseg.io.references import unusable_segments

    try:
        return unusable_segments(source)
    except DataError as error:
        return [error.explanation]


def _look_at_layers(source: SegmentsSource, name: str, marks: str, root: Path) -> InspectedItem:
    """Describe a segmentation of 3D Slicer, which has its own grid."""
    kind = "3D Slicer segmentation"
    try:
        grid = read_mask(source).geometry
    except DataError as error:
        return InspectedItem(name, kind, "unusable", without_root(error.explanation, root))
    return InspectedItem(name, kind, "reference", marks, grid.shape, grid.spacing_mm, grid.axis_codes)


def _look_at_volume(source: Source, root: Path) -> InspectedItem:
    name, kind = _relative(source.place, root), _kind_of(source)
    try:
        volume = read_shown(source)
    except DataError as error:
        return InspectedItem(name, kind, "unusable", without_root(error.explanation, root))
    geometry = volume.geometry
    remark = "; ".join(
        text for text in (_doubts(source, geometry), _oddities(volume.array, flat=geometry.unit == "px")) if text
    )
    status = "odd" if remark else "ok"
    spacing_mm = None if geometry.unit == "px" else geometry.spacing_mm
    return InspectedItem(name, kind, status, remark, geometry.shape, spacing_mm, geometry.axis_codes)


def _doubts(source: Source, geometry: Geometry) -> str:
    """Describe what is read of a series only because gaps are allowed, and what a header states that is not used."""
    if not isinstance(source, SeriesSource):
        return header_remark(source)
    return "; ".join(text for text in (source.doubt, source.bridged(geometry.shape[2])) if text)


def _kind_of(source: Source) -> str:
    if not isinstance(source, SeriesSource):
        return image_suffix(source.place).lstrip(".")
    return f"DICOM series of {len(source.files)} files" + (f", {source.volume}" if source.volume else "")


def _oddities(array: np.ndarray, *, flat: bool) -> str:
    finite = np.isfinite(array)
    remarks = []
    if broken := array.size - int(finite.sum()):
        remarks.append(f"{broken} voxels are not finite")
    values = array[finite]
    if values.size and values.min() == values.max():
        remarks.append(f"every voxel is {values.flat[0]:g}")
    if 1 in array.shape[1:] and not flat:
        remarks.append("only one voxel along an axis")
    return "; ".join(remarks)


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path != root and path.is_relative_to(root) else path.name
