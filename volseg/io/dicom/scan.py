"""Finding the series in a heap of files, from their headers alone."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from volseg.errors import DataError
from volseg.io.dicom.dataset import count_of, is_dicom, quiet_pydicom, read_header, value_of, words_of
from volseg.io.dicom.frames import Plane, plane_of
from volseg.io.source import SeriesSource, SetAside
from volseg.progress import Progress, silent

_KEYWORDS = (
    "ImageType",
    "SOPClassUID",
    "Modality",
    "SeriesInstanceUID",
    "SeriesNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "DirectoryRecordSequence",
)
_TAGS = tuple(tag for keyword in _KEYWORDS if (tag := tag_for_keyword(keyword)) is not None)

#: Images of these classes are slices of a volume; one without a position is a fault, not another kind of image.
_SLICE_CLASSES = (
    uid.CTImageStorage,
    uid.EnhancedCTImageStorage,
    uid.LegacyConvertedEnhancedCTImageStorage,
    uid.MRImageStorage,
    uid.EnhancedMRImageStorage,
    uid.LegacyConvertedEnhancedMRImageStorage,
    uid.PositronEmissionTomographyImageStorage,
    uid.EnhancedPETImageStorage,
    uid.LegacyConvertedEnhancedPETImageStorage,
)
#: These have pixels on a grid, but no image of the patient in them.
_DERIVED_CLASSES = (
    uid.SegmentationStorage,
    uid.UID("1.2.840.10008.5.1.4.1.1.66.7"),  # Label Map Segmentation, newer than the dictionary
    uid.RTDoseStorage,
    uid.RTImageStorage,
    uid.ParametricMapStorage,
)
_NOT_SLICES = {
    "LOCALIZER": "a localizer (ImageType LOCALIZER)",
    "PROJECTION IMAGE": "a projection (ImageType PROJECTION IMAGE), not a slice",
}


@dataclass(frozen=True)
class _Image:
    """What the header of an image says.

    Attributes:
        path: The file.
        series_uid: SeriesInstanceUID.
        modality: Modality, empty when not stated.
        number: SeriesNumber, None when not stated.
        multi_frame: Whether the file is a series of its own.
        plane: Where it lies; None when it is multi-frame or the header does not say so.
    """

    path: Path
    series_uid: str
    modality: str
    number: int | None
    multi_frame: bool
    plane: Plane | None


def scan_dicom(files: Iterable[Path], progress: Progress = silent) -> tuple[list[SeriesSource], list[SetAside]]:
    """Sort files into series by their headers; every DICOM file ends up in exactly one item of the result.

    Images with one SeriesInstanceUID are split by matrix, pixel spacing and orientation. An image whose geometry is
    missing or broken stays with its series, so that reading it fails by name instead of giving a smaller volume.

    Args:
        files: Candidates; those that are no DICOM are passed over.
        progress: Told after each file.

    Returns:
        The series, by their folder and number, and what is no volume at all, by path.
    """
    candidates = list(files)
    images: list[_Image] = []
    set_aside: list[SetAside] = []
    with quiet_pydicom():
        for done, path in enumerate(candidates, start=1):
            if is_dicom(path):
                found = _examine(path)
                (images if isinstance(found, _Image) else set_aside).append(found)  # type: ignore[arg-type]
            progress("scan", done, len(candidates))
    series = [_source(group) for group in _grouped(images)]
    series.sort(key=lambda source: (source.folder, source.number or 0, source.files))
    return series, sorted(set_aside, key=lambda item: item.path)


def _examine(path: Path) -> _Image | SetAside:
    try:
        header = read_header(path, _TAGS)
        reason = _why_no_volume(header, path)
        return SetAside(path, reason) if reason else _image(header, path)
    except DataError as error:
        return SetAside(path, str(error))


def _why_no_volume(header: Dataset, path: Path) -> str:
    """The reason to set a file aside; empty when it is an image with a place in the patient, or should be one."""
    sop_class = uid.UID("".join(words_of(header, "SOPClassUID", path)))
    kind = sop_class.name or "an object that states no SOP class"
    a_slice = sop_class in _SLICE_CLASSES
    special = next((word for word in words_of(header, "ImageType", path) if word in _NOT_SLICES), "")
    findings = (
        ("DirectoryRecordSequence" in header, "a DICOMDIR, the index of a medium"),
        ("Rows" not in header and a_slice, f"{kind} without Rows: its header is cut off or damaged"),
        ("Rows" not in header, f"{kind}: holds no image"),
        (sop_class in _DERIVED_CLASSES, f"{kind}: not an image of the patient"),
        (_is_coloured(header, path), f"{kind}: a colour image"),
        (bool(special), _NOT_SLICES.get(special, "")),
        (not a_slice and not _states_position(header, path), f"{kind}: no slice, it has no ImagePositionPatient"),
        (
            not words_of(header, "SeriesInstanceUID", path),
            f"{kind} without SeriesInstanceUID: what belongs together is unknown",
        ),
    )
    return next((reason for applies, reason in findings if applies), "")


def _is_coloured(header: Dataset, path: Path) -> bool:
    palette = words_of(header, "PhotometricInterpretation", path) == ("PALETTE COLOR",)
    return palette or (count_of(header, "SamplesPerPixel", path) or 1) > 1


def _states_position(header: Dataset, path: Path) -> bool:
    return "PerFrameFunctionalGroupsSequence" in header or value_of(header, "ImagePositionPatient", path) is not None


def _image(header: Dataset, path: Path) -> _Image:
    multi_frame = "PerFrameFunctionalGroupsSequence" in header or (count_of(header, "NumberOfFrames", path) or 1) > 1
    return _Image(
        path=path,
        series_uid="".join(words_of(header, "SeriesInstanceUID", path)),
        modality="".join(words_of(header, "Modality", path)),
        number=_series_number(header, path),
        multi_frame=multi_frame,
        plane=None if multi_frame else _plane_if_stated(header, path),
    )


def _series_number(header: Dataset, path: Path) -> int | None:
    try:
        return count_of(header, "SeriesNumber", path)
    except DataError:  # it only serves to tell series apart for people, no image is worse for it
        return None


def _plane_if_stated(header: Dataset, path: Path) -> Plane | None:
    try:
        return plane_of(header, path)
    except DataError:  # `read_series` raises it again, for the series as a whole
        return None


def _grouped(images: Iterable[_Image]) -> list[list[_Image]]:
    """Split into one group per volume."""
    groups: list[list[_Image]] = []
    series: defaultdict[str, list[_Image]] = defaultdict(list)
    for image in images:
        if image.multi_frame:
            groups.append([image])
        else:
            series[image.series_uid].append(image)
    for members in series.values():
        groups.extend(_split_by_plane(members))
    return groups


def _split_by_plane(members: Sequence[_Image]) -> list[list[_Image]]:
    """Split one series by matrix, spacing and orientation; images without a place join its largest part."""
    parts: list[tuple[Plane, list[_Image]]] = []
    homeless: list[_Image] = []
    for image in members:
        if image.plane is None:
            homeless.append(image)
            continue
        part = next((group for plane, group in parts if plane.is_parallel_to(image.plane)), None)
        if part is None:
            parts.append((image.plane, [image]))
        else:
            part.append(image)
    groups = [group for _, group in parts] or [[]]
    max(groups, key=len).extend(homeless)
    return groups


def _source(group: Sequence[_Image]) -> SeriesSource:
    first = group[0]
    return SeriesSource(
        folder=Path(os.path.commonpath([image.path.parent for image in group])),
        files=tuple(_by_depth(group)),
        series_uid=first.series_uid,
        modality=first.modality,
        number=first.number,
    )


def _by_depth(group: Sequence[_Image]) -> list[Path]:
    """In order along the common normal, images without a place last."""
    placed = [(image.plane, image.path) for image in group if image.plane is not None]
    normal = placed[0][0].normal if placed else np.zeros(3)
    placed.sort(key=lambda item: (float(np.dot(item[0].origin_mm, normal)), item[1]))
    return [path for _, path in placed] + sorted(image.path for image in group if image.plane is None)
