"""Export of a mask as an RT Structure Set (PS3.3 section A.19), with contours on its images.

Contours run along the edges of voxels and lie exactly in the planes of the images; holes are joined to the contour
around them by keyholes. The object states of the patient only what the standard requires. It states no time of its own,
so that the same mask always gives the same object, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

from volseg.exporting.description import USUAL, Description
from volseg.exporting.dicom_metadata import (
    MANUFACTURER,
    algorithm,
    check_grid,
    check_values,
    coded,
    contributing_equipment,
    numbered,
    object_uids,
    reference,
    study_header,
)
from volseg.image.contours import Polygon, fill, trace, with_keyholes
from volseg.image.naming import short_names
from volseg.image.short_names import short_name
from volseg.image.terminology import Structure, is_anatomical
from volseg.image.volume import Label, Mask
from volseg.io.dicom import Instances
from volseg.io.dicom.frames import Frame, Plane
from volseg.io.dicom.quiet import quiet_dicom
from volseg.io.files import atomic_path
from volseg.version import __version__

#: Retired, but expected by readers as the class of a referenced study; its instance is the study itself.
_DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"
#: Longest StructureSetLabel (value representation SH, PS3.5 section 6.2).
_LONGEST_LABEL = 16
_CONTOUR_DATA = Tag("ContourData")
_SERIES_NUMBER = 302
#: Most points of a contour that fit into 65534 bytes: three numbers each, of at most 11 characters and a separator.
_MOST_POINTS = 65534 // 36


def write_rtstruct(
    mask: Mask,
    instances: Instances,
    path: Path,
    description: Description = USUAL,
) -> None:
    """Write an RT Structure Set with one ROI per label; a label without voxels is an ROI without contours.

    Coordinates are rounded to 1e-5 mm. A contour of more than 64 KiB, the limit of a decimal string in explicit
    transfer syntaxes, is written as several that touch.

    Args:
        mask: The mask on the grid of its series.
        instances: Its images.
        path: The file to write.
        description: Series description and model.

    Raises:
        GeometryError: If the mask is not on the grid of the series, or the images state several frames of reference.
        DataError: If the series lacks an identifier, or the labels of the mask do not cover its values or cannot be
            stated.
        OutputError: If the file cannot be written.
    """
    check_grid(mask, instances)
    check_values(mask)
    with quiet_dicom():
        dataset = _structure_set(mask, instances, description)
        with atomic_path(path) as temporary:
            dataset.save_as(temporary, enforce_file_format=True)


def _structure_set(mask: Mask, instances: Instances, description: Description) -> Dataset:
    uids = object_uids("RTSTRUCT", mask, instances, "rtstruct", description)
    dataset = study_header(instances)
    space_uid = dataset.FrameOfReferenceUID
    dataset.ReferencedFrameOfReferenceSequence = [_frame_of_reference(instances, dataset)]
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = RTStructureSetStorage
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = uids.instance, uids.series
    dataset.Modality = "RTSTRUCT"
    dataset.Manufacturer = dataset.ManufacturerModelName = MANUFACTURER
    dataset.SoftwareVersions = __version__
    if equipment := contributing_equipment(description.model):
        dataset.ContributingEquipmentSequence = equipment
    dataset.SeriesDescription = description.series_of("rtstruct", mask.labels)
    dataset.SeriesNumber, dataset.InstanceNumber = _SERIES_NUMBER, 1
    dataset.OperatorsName = dataset.PositionReferenceIndicator = None
    dataset.StructureSetLabel = (
        short_name(description.model.name, _LONGEST_LABEL) if description.model else MANUFACTURER
    )
    dataset.StructureSetName = dataset.SeriesDescription
    # The time of the images, as in a Segmentation.
    dataset.StructureSetDate, dataset.StructureSetTime = dataset.StudyDate, dataset.StudyTime
    labels = [label for _, label in numbered(mask.labels)]
    names = short_names(labels)
    dataset.StructureSetROISequence = [
        _roi(label.value, names[label.value], space_uid, description) for label in labels
    ]
    dataset.ROIContourSequence = _roi_contours(mask, labels, instances)
    dataset.RTROIObservationsSequence = [_observation(label) for label in labels]
    dataset.ApprovalStatus = "UNAPPROVED"
    return dataset


def _frame_of_reference(instances: Instances, first: Dataset) -> Dataset:
    """Refer to all images of the series, including those without a contour and copies."""
    series = Dataset()
    series.SeriesInstanceUID = first.SeriesInstanceUID
    files = dict.fromkeys([*(frame.path for frame in instances.frames), *instances.headers])
    series.ContourImageSequence = [reference(instances.headers[file]) for file in files]
    study = Dataset()
    study.ReferencedSOPClassUID = _DETACHED_STUDY
    study.ReferencedSOPInstanceUID = first.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame_of_reference = Dataset()
    frame_of_reference.FrameOfReferenceUID = first.FrameOfReferenceUID
    frame_of_reference.RTReferencedStudySequence = [study]
    return frame_of_reference


def _roi(number: int, name: str, frame_of_reference_uid: str, description: Description) -> Dataset:
    roi = Dataset()
    roi.ROINumber = number
    roi.ReferencedFrameOfReferenceUID = frame_of_reference_uid
    roi.ROIName = name
    roi.ROIGenerationAlgorithm = description.origin
    if identified := algorithm(description):
        roi.ROIDerivationAlgorithmIdentificationSequence = identified
    return roi


def _observation(label: Label) -> Dataset:
    observation = Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = label.value
    observation.RTROIInterpretedType = "ORGAN" if label.structure and is_anatomical(label.structure) else None
    observation.ROIInterpreter = None
    if label.structure is not None:
        observation.SegmentedPropertyCategoryCodeSequence = [coded(label.structure.category)]
        observation.RTROIIdentificationCodeSequence = [_coded_type(label.structure)]
    return observation


def _coded_type(structure: Structure) -> Dataset:
    item = coded(structure.type)
    if structure.modifier is not None:
        item.SegmentedPropertyTypeModifierCodeSequence = [coded(structure.modifier)]
    return item


def _roi_contours(mask: Mask, labels: Sequence[Label], instances: Instances) -> list[Dataset]:
    slices = np.ascontiguousarray(mask.array.transpose(2, 0, 1))
    return [_roi_contour(label, slices, instances) for label in labels]


def _roi_contour(label: Label, slices: NDArray[np.unsignedinteger], instances: Instances) -> Dataset:
    item = Dataset()
    item.ReferencedROINumber = label.value
    item.ROIDisplayColor = list(label.display_color)
    contours = list(_contours(label.value, slices, instances))
    if contours:
        item.ContourSequence = contours
        for number, contour in enumerate(contours, start=1):
            contour.ContourNumber = number
    return item


def _contours(value: int, slices: NDArray[np.unsignedinteger], instances: Instances) -> Iterator[Dataset]:
    for frame, k in zip(instances.frames, instances.slices, strict=True):
        for polygon in _polygons(slices[k] == value):
            yield _contour(polygon, frame, instances)


def _polygons(region: NDArray[np.bool_]) -> list[Polygon]:
    """Trace a region by polygons without holes; a polygon with too many points is split in two, side by side."""
    polygons: list[Polygon] = []
    for polygon in with_keyholes(trace(region)):
        if len(polygon) <= _MOST_POINTS:
            polygons.append(polygon)
            continue
        area = fill([polygon], region.shape)
        half = np.zeros_like(area)
        middle = int(np.median(np.flatnonzero(area.any(axis=1))))
        half[: middle + 1] = True
        polygons += [*_polygons(area & half), *_polygons(area & ~half)]
    return polygons


def _contour(polygon: Polygon, frame: Frame, instances: Instances) -> Dataset:
    image = reference(instances.header_of(frame))
    if instances.is_multi_frame:
        image.ReferencedFrameNumber = frame.index + 1
    contour = Dataset()
    contour.ContourImageSequence = [image]
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.NumberOfContourPoints = len(polygon)
    contour[_CONTOUR_DATA] = _decimals(_in_patient(polygon, frame.plane))
    return contour


def _in_patient(polygon: Polygon, plane: Plane) -> NDArray[np.float64]:
    """Convert (N, 2) voxel indices of an image to (N, 3) LPS+ mm (PS3.3 section C.7.6.2.1.1)."""
    return np.asarray(plane.origin_mm) + polygon * plane.spacing_mm @ np.reshape(plane.orientation, (2, 3))


def _decimals(points_mm: NDArray[np.float64]) -> DataElement:
    """Write decimal strings as one text, since pydicom would slowly create an object for each of millions."""
    numbers = (points_mm.round(5) + 0.0).ravel().tolist()  # + 0.0: no minus zero
    text = "\\".join([f"{number:.5f}".rstrip("0").rstrip(".") for number in numbers])
    return DataElement(_CONTOUR_DATA, "DS", text, already_converted=True)
