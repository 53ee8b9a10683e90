"""Export of volumes and diameters of labels as a DICOM structured report (PS3.16 TID 1500)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    ReferencedSegment,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import SegmentationStorage

from volseg.exporting.description import USUAL, Description
from volseg.exporting.dicom_metadata import (
    ALGORITHM_FAMILY,
    MANUFACTURER,
    UNKNOWN_VERSION,
    algorithm_parameters,
    check_grid,
    coded,
    contributing_equipment,
    made_by_volseg,
    numbered,
    object_uids,
    structure_of,
    study_header,
    without_own_time,
)
from volseg.exporting.formats import Encoding
from volseg.exporting.seg import seg_uids, tracking_uid
from volseg.exporting.uids import derived_uid
from volseg.image.geometry import Geometry
from volseg.image.naming import short_names
from volseg.image.terminology import Code, Structure
from volseg.image.volume import Label, Mask
from volseg.io.dicom import Instances
from volseg.io.dicom.quiet import quiet_dicom
from volseg.io.files import atomic_path
from volseg.version import __version__

_SOP_CLASSES = {"binary": SegmentationStorage, "labelmap": "1.2.840.10008.5.1.4.1.1.66.7"}
_SERIES_NUMBER = 301
_PROCEDURES = {
    "CT": codes.cid100.CTUnspecifiedBodyRegion,
    "MR": codes.cid100.MRIUnspecifiedBodyRegion,
    "PT": codes.cid100.PETUnspecifiedBodyRegion,
}
_MILLILITRE = Code("mL", "UCUM", "milliliter")
#: Size of the blocks in which distances between points are compared.
_BLOCK = 256


def write_sr(
    mask: Mask,
    instances: Instances,
    path: Path,
    encoding: Encoding = "binary",
    description: Description = USUAL,
) -> None:
    """Write the volume of every label, and the diameter of labels with voxels, as a TID 1500 report.

    Numbers are rounded to a meaningful precision: volumes to four significant digits, diameters to 0.1 mm. The report
    refers to the segments of the Segmentation that `write_seg` writes for the same mask, series, encoding and
    description; it need not exist yet.

    Args:
        mask: The mask on the grid of its series.
        instances: Its images.
        path: The file, written atomically.
        encoding: Encoding of the Segmentation it refers to.
        description: Series description and model.

    Raises:
        GeometryError: If the mask does not lie on the grid of the series.
        DataError: If the mask has no labels, or an image lacks an element that the object must copy.
        OutputError: If the file cannot be written.
    """
    check_grid(mask, instances)
    with quiet_dicom():
        uids = object_uids(f"SR {encoding}", mask, instances, "dicom-sr", description)
        segmentation = _segmentation_header(mask, instances, encoding, description)
        report = Comprehensive3DSR(
            evidence=[segmentation],
            content=_report(mask, segmentation, study_header(instances), description)[0],
            series_description=description.series_of("dicom-sr", mask.labels),
            contributing_equipment=contributing_equipment(description.model),
            is_complete=True,
            **made_by_volseg(uids, _SERIES_NUMBER),
        )
        without_own_time(report, segmentation)
        with atomic_path(path) as temporary:
            report.save_as(temporary)


def volume_ml(mask: NDArray[np.bool_], geometry: Geometry) -> float:
    """Return the volume of a mask: the number of voxels times their volume."""
    return int(np.count_nonzero(mask)) * geometry.voxel_volume_ml


def diameter_mm(mask: NDArray[np.bool_], geometry: Geometry) -> float:
    """Return the largest distance between two points of a mask of solid voxels, which is between two corners.

    Args:
        mask: (I, J, K), at least one voxel.
        geometry: Its grid.
    """
    points = _outer_corners(mask) @ geometry.affine[:3, :3].T
    one = int(_distances(points, points[:1]).argmax())
    other = int(_distances(points, points[one : one + 1]).argmax())
    longest = float(np.linalg.norm(points[one] - points[other]))
    radii = np.linalg.norm(points - (points[one] + points[other]) / 2, axis=1)
    order = np.argsort(-radii)
    points, radii = points[order], radii[order]
    for first in range(0, len(points), _BLOCK):
        # Two points are no further apart than the sum of their distances from the centre.
        end = int(np.searchsorted(-radii, radii[first] - longest, side="right"))
        if end <= first:
            break
        longest = max(longest, float(_distances(points[first : first + _BLOCK], points[first:end]).max()))
    return longest


def _outer_corners(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return (N, 3) voxel indices of the corners that are first or last on their line along every axis.

    The points furthest apart are vertices of the convex hull, and those are among these.
    """
    corners = np.zeros([size + 1 for size in mask.shape], dtype=bool)
    for shift in np.ndindex(2, 2, 2):
        corners[tuple(slice(n, n + size) for n, size in zip(shift, mask.shape, strict=True))] |= mask
    outer = _ends(corners, 0) & _ends(corners, 1) & _ends(corners, 2)
    return np.argwhere(outer).astype(np.float64) - 0.5


def _ends(points: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Keep the first and the last of the points on each line along an axis."""
    ends = np.zeros_like(points)
    hit = points.any(axis=axis, keepdims=True)
    last = points.shape[axis] - 1 - np.flip(points, axis).argmax(axis=axis, keepdims=True)
    np.put_along_axis(ends, points.argmax(axis=axis, keepdims=True), hit, axis)
    np.put_along_axis(ends, last, hit, axis)
    return ends


def _distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N, M) distances between (N, 3) and (M, 3) points."""
    squares = np.zeros((len(a), len(b)))
    for axis in range(3):
        squares += np.subtract.outer(a[:, axis], b[:, axis]) ** 2
    return np.sqrt(squares, out=squares)


def _cropped(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cut out the part of a mask between its first and its last voxel along each axis."""
    for axis in range(3):
        inside = np.flatnonzero(mask.any(axis=tuple(n for n in range(3) if n != axis)))
        mask = mask.take(range(inside[0], inside[-1] + 1), axis) if len(inside) else mask
    return mask


def _segmentation_header(mask: Mask, instances: Instances, encoding: Encoding, description: Description) -> Dataset:
    """Return the elements of the Segmentation that the report refers to."""
    uids = seg_uids(mask, instances, encoding, description)
    header = study_header(instances)
    header.Modality = "SEG"
    header.SOPClassUID = _SOP_CLASSES[encoding]
    header.SOPInstanceUID, header.SeriesInstanceUID = uids.instance, uids.series
    return header


def _report(mask: Mask, segmentation: Dataset, images: Dataset, description: Description) -> MeasurementReport:
    names = short_names(mask.labels)
    device = DeviceObserverIdentifyingAttributes(
        uid=derived_uid("volseg", __version__), name="volseg", manufacturer_name=MANUFACTURER, model_name=MANUFACTURER
    )
    return MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=ObserverContext(
                observer_type=codes.DCM.Device, observer_identifying_attributes=device
            )
        ),
        procedure_reported=_PROCEDURES.get(images.Modality, codes.cid100.ImagingProcedure),
        imaging_measurements=[
            _group(number, label, names[label.value], mask, segmentation, images.SeriesInstanceUID, description)
            for number, label in numbered(mask.labels)
        ],
    )


def _group(
    number: int,
    label: Label,
    name: str,
    mask: Mask,
    segmentation: Dataset,
    series_uid: str,
    description: Description,
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    """Return the measurements of one segment (TID 1411)."""
    structure = structure_of(label)
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=tracking_uid(number, segmentation.SOPInstanceUID), identifier=name),
        referenced_segment=ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_series=SourceSeriesForSegmentation(series_uid),
        ),
        finding_category=coded(structure.category),
        finding_type=coded(structure.type),
        finding_sites=_sites(structure),
        algorithm_id=_algorithm(description),
        measurements=_measurements(_cropped(mask.array == label.value), mask.geometry),
    )


def _algorithm(description: Description) -> AlgorithmIdentification | None:
    """Identify the algorithm of a segment (TID 4019); none if it is manual."""
    model = description.model
    if description.origin == "MANUAL":
        return None
    if description.algorithm:
        return AlgorithmIdentification(name=description.algorithm, version=UNKNOWN_VERSION, family=ALGORITHM_FAMILY)
    parameters = algorithm_parameters(model) if model else {}
    return AlgorithmIdentification(
        name=model.name if model else MANUFACTURER,
        version=model.version if model else __version__,
        parameters=[f"{name}={value}" for name, value in parameters.items()] or None,
        family=ALGORITHM_FAMILY,
        manufacturer=MANUFACTURER,
    )


def _sites(structure: Structure) -> list[FindingSite] | None:
    """Return the anatomical region and its side, if the structure states more than its type."""
    if structure.region is not None:
        place, side = structure.region, structure.region_modifier
    elif structure.modifier is not None:
        place, side = structure.type, structure.modifier
    else:
        return None
    return [FindingSite(coded(place), laterality=None if side is None else coded(side))]


def _measurements(mask: NDArray[np.bool_], geometry: Geometry) -> list[Measurement]:
    volume = volume_ml(mask, geometry)
    stated = [_measurement(codes.SCT.Volume, f"{float(f'{volume:.4g}'):g}", coded(_MILLILITRE))]
    if mask.any():
        diameter = diameter_mm(mask, geometry)
        text = f"{diameter:.1f}" if diameter >= 1 else f"{diameter:.2g}"
        stated.append(_measurement(codes.cid7470.Maximum3DDiameterOfAMesh, text, codes.UCUM.Millimeter))
    return stated


def _measurement(name: Any, text: str, unit: Any) -> Measurement:
    """State a number by exactly these digits, without the nearest float, which would show more digits."""
    measurement = Measurement(name, float(text), unit)
    item = measurement[0].MeasuredValueSequence[0]
    item.NumericValue = text
    del item.FloatingPointValue
    return measurement
