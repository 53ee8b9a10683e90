"""Write a volume as a classic series of single-frame CT or MR images (PS3.3 sections A.3 and A.4)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from volseg.errors import DataError, GeometryError
from volseg.image.geometry import Geometry
from volseg.image.volume import Volume
from volseg.io.dicom.dataset import decimal_string
from volseg.io.dicom.quiet import quiet_dicom
from volseg.io.files import new_path

_SOP_CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage}
_LARGEST_STORED = 65535
#: Cosine of the angle between rows and columns below which they count as orthogonal.
_ORTHOGONAL_TOLERANCE = 1e-4
_LONGEST_DESCRIPTION = 64


def write_series(volume: Volume, folder: Path, *, modality: str = "MR", series_description: str = "") -> list[Path]:
    """Write one file per slice, uncompressed, 16 bits, without any patient data.

    Integers that span at most 65536 values are restored exactly; others are rounded to 65536 steps between the smallest
    and the largest. Slices are written in the order of k; if k runs against the normal i x j, a reader will find them
    reversed, at the same positions in the patient.

    Args:
        volume: One channel; i and j must be orthogonal, k may be sheared.
        folder: Created if missing.
        modality: "CT" or "MR".
        series_description: Free text, 64 characters at most.

    Returns:
        The files, in the order of k.

    Raises:
        GeometryError: If i and j are not orthogonal, which DICOM cannot express.
        DataError: If the volume has several channels or values that are not finite, or an argument is invalid.
        OutputError: If a file cannot be written.
    """
    if modality not in _SOP_CLASSES:
        raise DataError(f"a series cannot be written as {modality!r}", hint=f"write it as {' or '.join(_SOP_CLASSES)}")
    if len(series_description) > _LONGEST_DESCRIPTION:
        raise DataError(
            f"a series description is too long for DICOM: {series_description!r}",
            hint=f"use {_LONGEST_DESCRIPTION} characters at most",
        )
    if volume.array.shape[0] != 1:
        raise DataError(
            f"a DICOM series holds one channel, the volume has {volume.array.shape[0]}", hint="write a series for each"
        )
    stored, slope, intercept = _quantized(volume.array[0])
    template = _series_header(volume.geometry, modality, series_description)
    _describe_values(template, stored.dtype, slope, intercept)
    paths = [folder / f"{k + 1:04d}.dcm" for k in range(volume.geometry.shape[2])]
    with quiet_dicom():
        for k, path in enumerate(paths):
            _write_slice(template, volume.geometry, stored[:, :, k], k, path)
    return paths


def _quantized(array: NDArray[np.float32]) -> tuple[NDArray[np.integer], float, float]:
    """Return 16-bit integers, and a slope and intercept, representable in DICOM, that restore the values."""
    if not np.isfinite(array).all():
        raise DataError(
            "the volume has values that are not finite, which DICOM cannot store", hint="replace them first"
        )
    values = array.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    whole = np.array_equal(values, np.rint(values))
    if whole and low >= np.iinfo(np.int16).min and high <= np.iinfo(np.int16).max:
        return values.astype(np.int16), 1.0, 0.0
    exact = whole and high - low <= _LARGEST_STORED
    slope = 1.0 if exact or high == low else float(decimal_string((high - low) / _LARGEST_STORED))
    intercept = float(decimal_string(low))
    stored = np.clip(np.rint((values - intercept) / slope), 0, _LARGEST_STORED)
    return stored.astype(np.uint16), slope, intercept


def _series_header(geometry: Geometry, modality: str, series_description: str) -> Dataset:
    """Build the header that all slices share, except for the values. Type 2 elements that are unknown are empty."""
    _, directions = _axes(geometry)
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    header.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if modality == "CT" else "OTHER"]
    header.SOPClassUID = _SOP_CLASSES[modality]
    header.Modality = modality
    header.Manufacturer = "volseg"
    header.SeriesDescription = series_description
    header.PatientName = "ANONYMOUS"
    header.PatientID = "ANONYMOUS"
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(header, keyword, generate_uid(entropy_srcs=None))
    _leave_empty(header, "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID")
    _leave_empty(header, "PatientBirthDate", "PatientSex", "PatientPosition", "PositionReferenceIndicator")
    if modality == "CT":
        _leave_empty(header, "KVP", "AcquisitionNumber")
    else:
        header.ScanningSequence, header.SequenceVariant = "RM", "NONE"
        _leave_empty(header, "ScanOptions", "MRAcquisitionType", "EchoTime", "EchoTrainLength", "RepetitionTime")
    header.SeriesNumber = 1
    header.Columns, header.Rows = geometry.shape[:2]
    header.ImageOrientationPatient = [decimal_string(cosine) for cosine in directions[:, :2].T.ravel()]
    spacing_i, spacing_j, _ = geometry.spacing_mm
    header.PixelSpacing = [decimal_string(spacing_j), decimal_string(spacing_i)]
    _describe_step(header, geometry, directions)
    return header


def _describe_step(header: Dataset, geometry: Geometry, directions: NDArray[np.float64]) -> None:
    """State the distance of slices along their normal, which is shorter than a sheared step."""
    normal = np.cross(directions[:, 0], directions[:, 1])
    between_mm = abs(float(normal @ directions[:, 2])) * geometry.spacing_mm[2]
    header.SliceThickness = header.SpacingBetweenSlices = decimal_string(between_mm)


def _describe_values(header: Dataset, dtype: np.dtype[np.integer], slope: float, intercept: float) -> None:
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit = 15
    header.PixelRepresentation = int(np.issubdtype(dtype, np.signedinteger))
    header.RescaleSlope, header.RescaleIntercept = decimal_string(slope), decimal_string(intercept)


def _write_slice(template: Dataset, geometry: Geometry, stored: NDArray[np.integer], k: int, path: Path) -> None:
    """Write slice `k`, whose (I, J) stored values are given."""
    affine, _ = _axes(geometry)
    dataset = Dataset()
    dataset.update(template)
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=None)
    dataset.InstanceNumber = k + 1
    dataset.ImagePositionPatient = [decimal_string(x) for x in affine[:3, 3] + k * affine[:3, 2]]
    dataset.PixelData = stored.T.astype(stored.dtype.newbyteorder("<")).tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with new_path(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)


def _axes(geometry: Geometry) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the LPS affine and, as columns, its unit vectors.

    Raises:
        GeometryError: If rows and columns are not orthogonal.
    """
    affine = geometry.lps_affine
    directions = affine[:3, :3] / np.asarray(geometry.spacing_mm)
    if abs(directions[:, 0] @ directions[:, 1]) > _ORTHOGONAL_TOLERANCE:
        raise GeometryError(
            "the rows and columns of the volume are not orthogonal, which DICOM cannot express",
            hint="resample it to an orthogonal grid",
        )
    return affine, directions


def _leave_empty(header: Dataset, *keywords: str) -> None:
    for keyword in keywords:
        setattr(header, keyword, None)
