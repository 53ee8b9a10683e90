"""Classify a file by its header: images that may be slices of a volume, marked structures, or something else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import uid
from pydicom.datadict import tag_for_keyword

from volseg.errors import DataError
from volseg.io.dicom.dataset import read_header
from volseg.io.dicom.flat import flat_modality
from volseg.io.dicom.frames import frames_of, plane_of
from volseg.io.dicom.header import EXPORT_AGAIN, Header
from volseg.io.dicom.mosaic import is_mosaic, tiles_of
from volseg.io.dicom.separators import SEPARATORS, classic_values, frame_values
from volseg.io.dicom.volumes import Image
from volseg.io.source import SegmentsSource, SeriesTraits

_KEYWORDS = (
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "PatientID",
    "SeriesDescription",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "FrameOfReferenceUID",
    "SliceThickness",
    "SpacingBetweenSlices",
    "PixelSpacing",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "DirectoryRecordSequence",
    "SegmentSequence",
    "ReferencedSeriesSequence",
    "StructureSetROISequence",
    "ReferencedFrameOfReferenceSequence",
    *(separator.keyword for separator in SEPARATORS),
)
TAGS = tuple(tag for keyword in _KEYWORDS if (tag := tag_for_keyword(keyword)) is not None)

#: Images of these classes are slices of a volume; one without a position is a fault, not another kind of image.
CLASSIC_CLASSES = (uid.CTImageStorage, uid.MRImageStorage, uid.PositronEmissionTomographyImageStorage)
_SLICE_CLASSES = (
    *CLASSIC_CLASSES,
    uid.EnhancedCTImageStorage,
    uid.LegacyConvertedEnhancedCTImageStorage,
    uid.EnhancedMRImageStorage,
    uid.LegacyConvertedEnhancedMRImageStorage,
    uid.EnhancedPETImageStorage,
    uid.LegacyConvertedEnhancedPETImageStorage,
)
#: These have pixels on a grid, but do not show the patient.
_DERIVED_CLASSES = (uid.RTDoseStorage, uid.RTImageStorage, uid.ParametricMapStorage)
#: Values of ImageType for images that are not slices of the patient.
_NOT_SLICES = {
    "LOCALIZER": "a localizer (ImageType LOCALIZER)",
    "PROJECTION IMAGE": "a projection (ImageType PROJECTION IMAGE), not a slice",
    "MIP": "a projection (ImageType MIP), not a slice",
    "MINIP": "a projection (ImageType MINIP), not a slice",
    "SCREEN SAVE": "a screenshot (ImageType SCREEN SAVE)",
    "DOSE_INFO": "a dose page (ImageType DOSE_INFO)",
    "DOSE": "a dose page (ImageType DOSE)",
}
_REFORMATTED = "MPR"
#: Elements in which a structure set states the frame of reference of its contours.
_SPACES = ("FrameOfReferenceUID", "ReferencedFrameOfReferenceUID")


@dataclass(frozen=True)
class Unused:
    """A file that is not a usable slice of a volume.

    Attributes:
        path: The file.
        reason: Why.
        series_uid: Its SeriesInstanceUID, empty when that cannot be read.
        suspect: Whether it may be a damaged slice, rather than a file that states it is something else.
        a_slice: Whether it states that it is a slice, so that it is certainly damaged.
        may_be_image: Whether it may hold an image as far as it states, which can be nothing; a report states what it
            is.
        flat_modality: For an image of one plane, such as a radiograph or a photograph, its modality; else empty.
    """

    path: Path
    reason: str
    series_uid: str = ""
    suspect: bool = True
    a_slice: bool = False
    may_be_image: bool = True
    flat_modality: str = ""

    @property
    def is_fault(self) -> bool:
        """True if it may be an image that cannot be read."""
        return self.suspect and self.may_be_image


Found = tuple[Image, ...] | SegmentsSource | Unused


def examine(path: Path) -> Found:
    """Classify a DICOM file."""
    try:
        header = read_header(path, TAGS)
    except DataError as error:
        return Unused(path, error.explanation)
    return classify(header)


def classify(header: Header) -> Found:
    """Classify a DICOM file by the elements `TAGS` of its header."""
    try:
        sop_class = uid.UID(header.text("SOPClassUID"))
        if "SegmentSequence" in header or "StructureSetROISequence" in header:
            return _segments(header)
        series_uid = header.text("SeriesInstanceUID")
        if reason := _special(header):
            return Unused(header.path, reason, series_uid, suspect=False)
        if reason := _no_slice(header, sop_class):
            a_slice = sop_class in _SLICE_CLASSES
            flat = "" if a_slice or sop_class in _DERIVED_CLASSES else flat_modality(header)
            may_be_image = a_slice or not sop_class
            return Unused(header.path, reason, series_uid, True, a_slice, may_be_image, flat)
        return tuple(_images(header, series_uid))
    except DataError as error:
        return Unused(header.path, error.explanation)


def _special(header: Header) -> str:
    """Return what the file states to be, if that is not a slice of a patient; else empty."""
    if "DirectoryRecordSequence" in header:
        return _index(header)
    return next((_NOT_SLICES[word] for word in map(_known_word, header.words("ImageType")) if word), "")


def _no_slice(header: Header, sop_class: uid.UID) -> str:
    """Return why the file cannot be a slice; empty if it can. Errors in its position are found when it is read."""
    kind = sop_class.name or "an object that states no SOP class"
    a_slice = sop_class in _SLICE_CLASSES
    if "Rows" not in header:
        return f"{kind} without Rows: its header is truncated or damaged" if a_slice else f"{kind}: holds no image"
    if sop_class in _DERIVED_CLASSES:
        return f"{kind}: not an image of the patient"
    if _is_coloured(header):
        return f"{kind}: a colour image"
    if not a_slice and not _states_position(header):
        return f"{kind}: not a slice, it has no ImagePositionPatient"
    if not header.words("SeriesInstanceUID"):
        return f"{kind} without SeriesInstanceUID: its series is unknown; {EXPORT_AGAIN}"
    return ""


def _known_word(word: str) -> str:
    """Normalise a word of ImageType to those of `_NOT_SLICES`: vendors add prefixes, as in "CT_SOM5 MIP"."""
    word = word.upper()
    return next((known for known in _NOT_SLICES if word == known or word.endswith(f" {known}")), "")


def _index(header: Header) -> str:
    """Describe a DICOMDIR: its files are found without it, but it also lists missing ones."""
    records = header.items("DirectoryRecordSequence")
    listed = [record.words("ReferencedFileID") for record in records if "ReferencedFileID" in record]
    gone = sum(not header.path.parent.joinpath(*parts).exists() for parts in listed)
    return "a DICOMDIR, the index of a medium" + (
        f"; {gone} of the {len(listed)} files it lists are missing" * bool(gone)
    )


def _is_coloured(header: Header) -> bool:
    palette = header.words("PhotometricInterpretation") == ("PALETTE COLOR",)
    return palette or (header.count("SamplesPerPixel") or 1) > 1


def _states_position(header: Header) -> bool:
    return "PerFrameFunctionalGroupsSequence" in header or header.value("ImagePositionPatient") is not None


def _images(header: Header, series_uid: str) -> Iterator[Image]:
    image_type = header.words("ImageType")
    first = Image(
        path=header.path,
        index=0,
        plane=None,
        uid=header.text("SOPInstanceUID"),
        kind=_kind(image_type),
        number=_number(header, "InstanceNumber"),
        values=classic_values(header),
        series_uid=series_uid,
        traits=_traits(header, image_type),
        patient_id=header.text("PatientID"),
    )
    multi_frame = "PerFrameFunctionalGroupsSequence" in header or (header.count("NumberOfFrames") or 1) > 1
    try:
        if multi_frame:
            yield from list(_frames(header, first))
        elif is_mosaic(header):
            yield from list(_tiles(header.path, first))
        else:
            yield replace(first, plane=plane_of(header))
    except DataError:  # `read_series` raises it again, for the series as a whole
        yield replace(first, per_file=multi_frame)


def _frames(header: Header, first: Image) -> Iterator[Image]:
    shared = header.first_item("SharedFunctionalGroupsSequence")
    groups = header.items("PerFrameFunctionalGroupsSequence")
    for frame, own in zip(frames_of(header), groups, strict=True):
        values = frame_values(own, shared)
        kind = _kind(tuple("\\".join(values).split("\\"))) or first.kind
        yield replace(first, index=frame.index, plane=frame.plane, values=values, kind=kind, per_file=True)


def _tiles(path: Path, first: Image) -> Iterator[Image]:
    header = read_header(path)  # private elements state where the slices of a mosaic lie
    for number, tile in enumerate(tiles_of(header, frames_of(header)[0])):
        yield replace(first, index=number, plane=tile.plane, per_file=True)


def _kind(image_type: tuple[str, ...]) -> str:
    return _REFORMATTED if any(word.upper().split()[-1:] == [_REFORMATTED] for word in image_type) else ""


def _traits(header: Header, image_type: tuple[str, ...]) -> SeriesTraits:
    return SeriesTraits(
        modality=header.text("Modality"),
        number=_number(header, "SeriesNumber"),
        description=" ".join(header.words("SeriesDescription")),
        image_type=image_type,
        study_uid=header.text("StudyInstanceUID"),
        frame_of_reference_uid=header.text("FrameOfReferenceUID"),
    )


def _number(header: Header, keyword: str) -> int | None:
    try:
        return header.count(keyword)
    except DataError:  # it only serves to distinguish series and images; the image is usable without it
        return None


def _segments(header: Header) -> SegmentsSource:
    """Describe a Segmentation or a Structure Set: the series it refers to and the structures it marks."""
    return _segmentation(header) if "SegmentSequence" in header else _structure_set(header)


def _segmentation(header: Header) -> SegmentsSource:
    segments = header.items("SegmentSequence")
    names = [  # number 0 is the background of a label map
        item.text("SegmentLabel") for item in segments if item.count("SegmentNumber") != 0
    ]
    series = header.items("ReferencedSeriesSequence")
    return SegmentsSource(header.path, "seg", _series_uids(series), header.words("FrameOfReferenceUID"), tuple(names))


def _structure_set(header: Header) -> SegmentsSource:
    regions = header.items("StructureSetROISequence")
    spaces = header.items("ReferencedFrameOfReferenceSequence")
    everything = (header, *spaces, *regions)
    stated = dict.fromkeys(uid for item in everything for keyword in _SPACES for uid in item.words(keyword))
    series = [
        item
        for space in spaces
        for study in space.items("RTReferencedStudySequence")
        for item in study.items("RTReferencedSeriesSequence")
    ]
    names = tuple(item.text("ROIName") for item in regions)
    return SegmentsSource(header.path, "rtstruct", _series_uids(series), tuple(stated), names)


def _series_uids(items: Iterable[Header]) -> tuple[str, ...]:
    return tuple(item.text("SeriesInstanceUID") for item in items)
