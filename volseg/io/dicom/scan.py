"""Find the series among any files, from their headers alone."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from volseg.errors import DataError
from volseg.io.archives import read_head
from volseg.io.dicom.classify import Found, Unused, examine
from volseg.io.dicom.completeness import doubts_of
from volseg.io.dicom.fast_scan import LONG_HEAD_BYTES, QuickLook
from volseg.io.dicom.quiet import quiet_dicom
from volseg.io.dicom.volumes import Image, Part, by_depth, plane_of, split
from volseg.io.readable import refuse_special, unreadable
from volseg.io.signatures import HEAD_BYTES, looks_like_dicom, was_dicom
from volseg.io.source import SegmentsSource, SeriesSource, SeriesTraits, SetAside
from volseg.progress import Progress, ignore_progress

_NUMBERED = re.compile(r"\d+")
_AXES = ("sagittal", "coronal", "axial")
#: Progress is reported once per this many files: reporting each would take longer than reading it.
_FILES_PER_REPORT = 64


@dataclass(frozen=True)
class Scan:
    """The classified files; each is in exactly one of these.

    Attributes:
        series: The volumes, by their folder and number.
        segments: Objects that mark structures, by path, each with the volume it lies on if that was found.
        set_aside: DICOM files that are not part of any volume, by path.
        ignored: Number of files that are not DICOM.
        flat: Files set aside that are images of one plane, with their modality.
    """

    series: tuple[SeriesSource, ...]
    segments: tuple[SegmentsSource, ...]
    set_aside: tuple[SetAside, ...]
    ignored: int
    flat: tuple[tuple[Path, str], ...] = ()


def scan_dicom(files: Iterable[Path], progress: Progress = ignore_progress, *, fill_gaps: bool = False) -> Scan:
    """Sort files into volumes by their headers; no pixels are read.

    A series is split by matrix, pixel spacing, orientation and kind, and where several images lie at one position by
    what distinguishes them (`volumes`). An image whose position is missing or broken stays with its series, so that
    reading it fails by name instead of giving a smaller volume; so does a series whose completeness other files put in
    doubt (`doubts`).

    Args:
        files: Candidates; those that are not DICOM are counted.
        progress: Called with the number of files examined.
        fill_gaps: Whether gaps in the series are filled when they are read.
    """
    candidates = list(files)
    looked: list[Found | None] = []
    look = QuickLook()
    with quiet_dicom():
        for done, path in enumerate(candidates, start=1):
            looked.append(_look_at(path, look))
            if done % _FILES_PER_REPORT == 0 or done == len(candidates):
                progress("scan", done, len(candidates))
    images = [image for found in looked if isinstance(found, tuple) for image in found]
    unused = [found for found in looked if isinstance(found, Unused)]
    others = [path for path, found in zip(candidates, looked, strict=True) if found is None]
    lost = _named_like_images(others, images)
    unused += lost
    parts = _parts(images)
    doubts = doubts_of(parts, unused)
    series = [_source(part, doubt, fill_gaps) for part, doubt in zip(parts, doubts, strict=True)]
    series.sort(key=lambda source: (source.folder, source.traits.number or 0, source.files))
    segments = [_with_series(found, series) for found in looked if isinstance(found, SegmentsSource)]
    return Scan(
        tuple(series),
        tuple(sorted(segments, key=lambda source: source.path)),
        tuple(
            SetAside(item.path, item.reason, is_fault=item.is_fault)
            for item in sorted(unused, key=lambda item: item.path)
        ),
        len(others) - len(lost),
        tuple(sorted((item.path, item.flat_modality) for item in unused if item.flat_modality)),
    )


def _look_at(path: Path, look: QuickLook) -> Found | None:
    """Classify a file; None if it is not DICOM."""
    try:
        refuse_special(path)
    except DataError as error:  # no slice was ever stored there
        return Unused(path, error.explanation, suspect=False)
    try:
        head = read_head(path, HEAD_BYTES)
    except OSError as error:
        return Unused(path, unreadable(path, error).explanation)
    except DataError as error:
        return Unused(path, error.explanation)
    if looks_like_dicom(head):
        found = look(head, path)
        if found is None and len(head) == HEAD_BYTES:
            found = look(read_head(path, LONG_HEAD_BYTES), path)
        return found or examine(path)
    if was_dicom(path, head):
        return Unused(path, f"{path} is not a DICOM file, or its beginning is lost")
    return None


def _named_like_images(paths: Iterable[Path], images: Iterable[Image]) -> list[Unused]:
    """Return files that are not DICOM, but named like the images beside them: IM0007 among IM0001, IM0002 ..."""
    shapes = {_name_shape(image.path) for image in images}
    lost = (path for path in paths if _NUMBERED.search(path.name) and _name_shape(path) in shapes)
    return [Unused(path, f"{path} is not a DICOM file, though it is named like the images beside it") for path in lost]


def _name_shape(path: Path) -> tuple[Path, str]:
    return path.parent, _NUMBERED.sub("#", path.name)


def _parts(images: Sequence[Image]) -> list[Part]:
    """Return all volumes; an image without a position joins the largest of its series, casting doubt on the others."""
    with_slices = {image.series_uid for image in images if image.plane and not image.per_file}
    groups: defaultdict[tuple[str, str, Path | None], list[Image]] = defaultdict(list)
    for image in images:
        alone = image.per_file and (image.plane is not None or image.series_uid not in with_slices)
        groups[image.series_uid, image.patient_id, image.path if alone else None].append(image)
    return [part for members in groups.values() for part in _parts_of_series(members)]


def _parts_of_series(members: Sequence[Image]) -> list[Part]:
    homeless = tuple(image for image in members if image.plane is None)
    found = split([image for image in members if image.plane is not None]) or [Part("", ())]
    if not homeless:
        return found
    doubt = f"{homeless[0].path.name} may be one of its slices, but does not state where it lies"
    largest = max(found, key=lambda part: len(part.images))
    return [
        replace(part, images=part.images + homeless) if part is largest else replace(part, doubt=doubt)
        for part in found
    ]


def _source(part: Part, doubt: str, fill_gaps: bool) -> SeriesSource:
    images = _by_depth(part.images)
    files = tuple(dict.fromkeys(image.path for image in images))
    whole_files = not images[0].per_file or images[0].plane is None
    return SeriesSource(
        folder=Path(os.path.commonpath({path.parent for path in files})),
        files=files,
        series_uid=images[0].series_uid,
        frames=() if whole_files else (tuple(image.index for image in images),),
        volume=part.name,
        traits=_traits(images),
        doubt=doubt,
        fill_gaps=fill_gaps,
    )


def _by_depth(images: Sequence[Image]) -> list[Image]:
    """Sort images along the common normal, those without a position last."""
    by_path = sorted(images, key=lambda image: image.path)
    return [*by_depth([image for image in by_path if image.plane]), *(image for image in by_path if not image.plane)]


def _traits(images: Sequence[Image]) -> SeriesTraits:
    """Return traits stated in headers, and those that follow from the positions."""
    placed = [plane_of(image) for image in images if image.plane]
    if not placed:
        return replace(images[0].traits, slices=len(images))
    first, last = placed[0], placed[-1]
    depths = sorted({round(first.depth_mm(plane), 2) for plane in placed})
    gap_mm = (first.depth_mm(last) - first.depth_mm(first)) / (len(depths) - 1) if len(depths) > 1 else 0.0
    return replace(
        images[0].traits,
        orientation=_AXES[int(np.abs(first.normal).argmax())],
        slices=len(depths),
        spacing_mm=(*first.spacing_mm, gap_mm) if gap_mm else None,
    )


def _with_series(segments: SegmentsSource, series: Sequence[SeriesSource]) -> SegmentsSource:
    """Attach the volume that an object refers to; none if there are several, or it is missing."""
    on = [source for source in series if source.series_uid in segments.series_uids]
    return replace(segments, series=on[0]) if len(on) == 1 else segments
