"""What a folder holds, before anything is done with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from volseg.cases.series import choose_series, studies_of
from volseg.config import NO_RULES, DicomRules
from volseg.errors import DataError
from volseg.image.geometry import Geometry
from volseg.io import SegmentsSource, SeriesSource, Source, discover, image_suffix, read_volume, stands_for
from volseg.io.files import without_root
from volseg.progress import Progress, ignore_progress


@dataclass(frozen=True)
class InspectedItem:
    """One thing that was found.

    Attributes:
        path: Relative to what was inspected.
        kind: "NIfTI", "NRRD", "DICOM series of 40 files" ...
        status: "ok", "odd" (usable, but look at `remark`), "unusable", "set aside", or "reference" (marks structures).
        remark: What is odd about it, or why it cannot be used.
        shape: Voxels along the stored axes, None if it cannot be read.
        spacing_mm: Voxel size along the stored axes.
        axis_codes: Directions in which the stored axes run.
        modality: As DICOM states it.
        number: SeriesNumber.
        volume: Which of several volumes of the series.
        description: SeriesDescription.
        image_type: ImageType, its values joined by a slash.
        orientation: "axial", "coronal" or "sagittal", whichever the slices are closest to.
        taken: Whether prediction would take it, and why or why not; empty for what is no DICOM series.
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


def inspect(
    path: Path, channels: Sequence[str] = ("image",), rules: DicomRules = NO_RULES, progress: Progress = ignore_progress
) -> list[InspectedItem]:
    """Look at everything below a path; every volume is read once.

    Args:
        path: A folder or a file.
        channels: What a model would need, to say which series would be taken.
        rules: Which series of a study is meant, and how it is read.
        progress: Told per volume.

    Returns:
        One finding per volume and per thing that is none, in path order.

    Raises:
        DataError: If the path does not exist.
    """
    path = stands_for(path)
    discovery = discover(path, progress, fill_gaps=rules.allow_gaps)
    series = [source for source in discovery.sources if isinstance(source, SeriesSource)]
    studies = [choose_series(study, channels, rules) for study in studies_of(series)]
    taken = {source: why for choice in studies for source, why in choice.reasons.items()}
    findings = []
    for done, source in enumerate(discovery.sources, start=1):
        found = _look_at(source, path)
        findings.append(_described(found, source, taken[source]) if isinstance(source, SeriesSource) else found)
        progress("inspect", done, len(discovery.sources))
    aside = [InspectedItem(_relative(item.path, path), "", "set aside", item.reason) for item in discovery.set_aside]
    marked = [_look_at_segments(source, path) for source in discovery.segments]
    return sorted([*findings, *aside, *marked], key=lambda finding: finding.path)


def _described(finding: InspectedItem, source: SeriesSource, taken: str) -> InspectedItem:
    traits = source.traits
    return replace(
        finding,
        modality=traits.modality,
        number=traits.number,
        volume=source.volume,
        description=traits.description,
        image_type="/".join(traits.image_type),
        orientation=traits.orientation,
        taken=taken,
    )


def _look_at_segments(source: SegmentsSource, root: Path) -> InspectedItem:
    kind = {"seg": "DICOM Segmentation", "rtstruct": "RT Structure Set"}[source.kind]
    on = f" in series {source.series.traits.number}" if source.series else ", of a series that is not here"
    return InspectedItem(
        _relative(source.path, root), kind, "reference", f"marks {', '.join(source.names) or 'nothing'}{on}"
    )


def _look_at(source: Source, root: Path) -> InspectedItem:
    name, kind = _relative(source.place, root), _kind_of(source)
    try:
        volume = read_volume(source)
    except DataError as error:
        return InspectedItem(name, kind, "unusable", without_root(str(error), root))
    geometry = volume.geometry
    remark = "; ".join(text for text in (_doubts(source, geometry), _oddities(volume.array)) if text)
    status = "odd" if remark else "ok"
    return InspectedItem(name, kind, status, remark, geometry.shape, geometry.spacing_mm, geometry.axis_codes)


def _doubts(source: Source, geometry: Geometry) -> str:
    """What of a series is read only because gaps are allowed."""
    if not isinstance(source, SeriesSource):
        return ""
    made = geometry.shape[2] - source.traits.slices
    bridged = f"{made} slices are interpolated over gaps" if source.fill_gaps and made > 0 else ""
    return "; ".join(text for text in (source.doubt, bridged) if text)


def _kind_of(source: Source) -> str:
    if not isinstance(source, SeriesSource):
        return image_suffix(source.place).lstrip(".")
    return f"DICOM series of {len(source.files)} files" + (f", {source.volume}" if source.volume else "")


def _oddities(array: np.ndarray) -> str:
    finite = np.isfinite(array)
    remarks = []
    if broken := array.size - int(finite.sum()):
        remarks.append(f"{broken} voxels are not finite")
    values = array[finite]
    if values.size and values.min() == values.max():
        remarks.append(f"every voxel is {values.flat[0]:g}")
    if 1 in array.shape[1:]:
        remarks.append("only one voxel along an axis")
    return "; ".join(remarks)


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path != root and path.is_relative_to(root) else path.name
