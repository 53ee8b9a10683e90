"""Export of a mask as a DICOM Segmentation (PS3.3 sections A.51 and C.8.20)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from highdicom import PlanePositionSequence
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from volseg.exporting.description import USUAL, Description
from volseg.exporting.dicom_metadata import (
    ObjectUids,
    algorithm,
    check_grid,
    check_values,
    coded,
    contributing_equipment,
    image_headers,
    made_by_volseg,
    numbered,
    object_uids,
    reference,
    structure_of,
    without_own_time,
)
from volseg.exporting.formats import Encoding
from volseg.exporting.uids import derived_uid
from volseg.image.naming import short_names
from volseg.image.volume import Label, Mask
from volseg.io.dicom import Instances
from volseg.io.dicom.quiet import quiet_dicom
from volseg.io.files import atomic_path

_SERIES_NUMBER = 300


def write_seg(
    mask: Mask,
    instances: Instances,
    path: Path,
    encoding: Encoding = "binary",
    description: Description = USUAL,
) -> None:
    """Write a mask as a Segmentation of its series.

    Each frame matches its image pixel by pixel, and refers to it. Every label is a segment; numbers follow the order of
    the label values. Slices without labels have no frame; slices of the grid without an image are left out.

    Args:
        mask: The mask on the grid of its series.
        instances: Its images.
        path: The file, written atomically. Its identifiers depend only on its content.
        encoding: "binary" (a frame per segment and image, which every viewer reads) or "labelmap" (a frame per image,
            DICOM of 2024 and later, SOP class 1.2.840.10008.5.1.4.1.1.66.7).
        description: Series description and model.

    Raises:
        GeometryError: If the mask does not lie on the grid of the series.
        DataError: If a voxel has no label, or an image lacks an element that the object must copy.
        OutputError: If the file cannot be written.
    """
    check_grid(mask, instances)
    check_values(mask)
    with quiet_dicom():
        headers = image_headers(instances)
        segmentation = _segmentation(mask, instances, headers, encoding, description)
        _refer_to_images(segmentation, instances, headers)
        if encoding == "labelmap":
            _compress(segmentation)
        with atomic_path(path) as temporary:
            segmentation.save_as(temporary)


def seg_uids(mask: Mask, instances: Instances, encoding: Encoding, description: Description) -> ObjectUids:
    """Return the identifiers that `write_seg` gives to the Segmentation of a mask."""
    return object_uids(f"SEG {encoding}", mask, instances, "dicom-seg", description)


def tracking_uid(number: int, instance_uid: str) -> str:
    """Return the UID that identifies one segment, in the Segmentation and in reports on it."""
    return derived_uid(instance_uid, "segment", str(number))


def _segmentation(
    mask: Mask, instances: Instances, headers: list[Dataset], encoding: Encoding, description: Description
) -> Segmentation:
    """Create a Segmentation that refers to the stand-ins from `image_headers`."""
    uids = seg_uids(mask, instances, encoding, description)
    segments, names = numbered(mask.labels), short_names(mask.labels)
    planes = _segment_numbers(mask, segments)[:, :, list(instances.slices)].transpose(2, 1, 0)
    positions = None
    if not planes.any():  # an object must have a frame: an empty one for the first image, rather than one for each
        planes, positions = planes[:1], [PlanePositionSequence("PATIENT", headers[0].ImagePositionPatient)]
    segmentation = Segmentation(
        source_images=headers,
        pixel_array=np.ascontiguousarray(planes),
        plane_positions=positions,
        segmentation_type=encoding.upper(),
        segment_descriptions=[
            _described(number, label, names[label.value], uids.instance, description) for number, label in segments
        ],
        content_label="SEGMENTATION",
        series_description=description.series_of("dicom-seg", mask.labels),
        contributing_equipment=contributing_equipment(description.model),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **made_by_volseg(uids, _SERIES_NUMBER),
    )
    segmentation.ContentCreatorName = ""  # nobody, but the element is required (type 2)
    without_own_time(segmentation, headers[0])
    _identify_dimensions(segmentation, derived_uid(uids.instance, "dimensions"))
    return segmentation


def _segment_numbers(mask: Mask, segments: list[tuple[int, Label]]) -> NDArray[np.unsignedinteger]:
    """Replace each label value by its segment number: (I, J, K) uint8 or uint16."""
    largest = max(label.value for _, label in segments)
    numbers = np.zeros(largest + 1, dtype=np.uint8 if len(segments) < 256 else np.uint16)
    for number, label in segments:
        numbers[label.value] = number
    return numbers[mask.array]


def _described(number: int, label: Label, name: str, instance_uid: str, description: Description) -> SegmentDescription:
    structure = structure_of(label)
    segment = SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=coded(structure.category),
        segmented_property_type=coded(structure.type),
        algorithm_type=description.origin,
        algorithm_identification=algorithm(description),
        tracking_uid=tracking_uid(number, instance_uid),
        tracking_id=name,
        anatomic_regions=None if structure.region is None else [coded(structure.region)],
        display_color=CIELabColor.from_rgb(*label.display_color),
    )
    if structure.modifier is not None:
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [coded(structure.modifier)]
    if structure.region is not None and structure.region_modifier is not None:
        segment.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [coded(structure.region_modifier)]
    return segment


def _compress(segmentation: Dataset) -> None:
    """Compress losslessly by RLE.

    JPEG-LS would take as long and 0.6 of the space, but DCMTK, and thus 3D Slicer, refuses it in a Segmentation. GDCM's
    encoder is ten times as fast as pydicom's, but aborts the whole process if the number of pixels is odd.
    """
    plugin = "pydicom" if segmentation.Rows * segmentation.Columns % 2 else "gdcm"
    segmentation.compress(RLELossless, encoding_plugin=plugin, generate_instance_uid=False)


def _identify_dimensions(segmentation: Dataset, uid: str) -> None:
    """Replace the random identifier of dimensions, so that the same object is the same file."""
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid


def _refer_to_images(segmentation: Dataset, instances: Instances, headers: list[Dataset]) -> None:
    """Replace the references to stand-ins by references to the real images, per frame in multi-frame files."""
    files = {path: reference(header) for path, header in instances.headers.items()}
    segmentation.SourceImageSequence = list(files.values())
    segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence = list(files.values())
    frames = dict(zip((str(header.SOPInstanceUID) for header in headers), instances.frames, strict=True))
    for groups in segmentation.PerFrameFunctionalGroupsSequence:
        item = groups.DerivationImageSequence[0].SourceImageSequence[0]
        frame = frames.get(str(item.ReferencedSOPInstanceUID))
        if frame is not None:  # the frames of several segments share one item
            item.update(files[frame.path])
            if instances.is_multi_frame:
                item.ReferencedFrameNumber = frame.index + 1
