"""What a folder holds, before anything is done with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from volseg.errors import DataError
from volseg.io import SeriesSource, Source, discover, read_volume
from volseg.progress import Progress, silent


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        path: Relative to what was inspected.
        kind: "NIfTI", "NRRD", "DICOM series of 40 files" ...
        status: "ok", "odd" (usable, but look at `remark`), "unusable" or "set aside".
        remark: What is odd about it, or why it cannot be used.
        shape: Voxels along the stored axes, None if it cannot be read.
        spacing_mm: Voxel size along the stored axes.
        axis_codes: Directions in which the stored axes run.
        modality: As DICOM states it.
    """

    path: str
    kind: str
    status: str
    remark: str = ""
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    axis_codes: str = ""
    modality: str = ""


def inspect(path: Path, progress: Progress = silent) -> list[Finding]:
    """Look at everything below a path; every volume is read once.

    Args:
        path: A folder or a file.
        progress: Told per volume.

    Returns:
        One finding per volume and per thing that is none, in path order.

    Raises:
        DataError: If the path does not exist.
    """
    discovery = discover(path, progress)
    findings = []
    for done, source in enumerate(discovery.sources, start=1):
        findings.append(_look_at(source, path))
        progress("inspect", done, len(discovery.sources))
    aside = [Finding(_relative(item.path, path), "", "set aside", item.reason) for item in discovery.set_aside]
    return sorted([*findings, *aside], key=lambda finding: finding.path)


def _look_at(source: Source, root: Path) -> Finding:
    series = source if isinstance(source, SeriesSource) else None
    kind = f"DICOM series of {len(series.files)} files" if series else source.place.suffixes[0].lstrip(".")
    name, modality = _relative(source.place, root), series.modality if series else ""
    try:
        volume = read_volume(source)
    except DataError as error:
        return Finding(name, kind, "unusable", str(error), modality=modality)
    geometry = volume.geometry
    remark = _oddities(volume.array)
    status = "odd" if remark else "ok"
    return Finding(name, kind, status, remark, geometry.shape, geometry.spacing_mm, geometry.axis_codes, modality)


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
