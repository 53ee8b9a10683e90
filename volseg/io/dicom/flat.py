"""DICOM images of one plane: radiographs, ultrasound, photographs. They have pixels, but no position in the patient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from volseg.config.reading import AS_IT_IS, FileRules
from volseg.errors import DataError, GeometryError
from volseg.image.geometry import Geometry
from volseg.io.dicom.dataset import read_dataset, read_header
from volseg.io.dicom.header import BROKEN, Header, one_line
from volseg.io.dicom.pixels import decode
from volseg.io.dicom.quiet import quiet_dicom
from volseg.io.readable import COPY_AGAIN

#: Modalities of images of one plane (PS3.3 section C.7.3.1.1.1), including those of document scanners and others.
MODALITIES = frozenset({"CR", "DX", "MG", "IO", "PX", "XA", "RF", "US", "OP", "ES", "XC", "GM", "DG", "SC", "OT"})
#: Pixel spacing at the patient, then at the detector behind the patient (PS3.3 section 10.7.1.3).
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
#: RegionSpatialFormat of a plane of tissue, and PhysicalUnits of centimetres (PS3.3 section C.8.5.5.1).
_TISSUE, _CM, _MM_PER_CM = 1, 3, 10.0
_COLORS = 3


def flat_modality(header: Header) -> str:
    """Return the modality of an image of one plane; empty for anything else."""
    modality = header.text("Modality").upper()
    single = (header.count("NumberOfFrames") or 1) == 1
    return modality if modality in MODALITIES and single and "Rows" in header else ""


def read_array(path: Path, rules: FileRules = AS_IT_IS) -> tuple[NDArray[np.generic], Geometry]:
    """Read an image of one plane.

    Args:
        path: The file.
        rules: States the pixel spacing, if decided.

    Returns:
        (channels, columns, rows, 1): grey with larger values brighter, or red, green and blue; and the grid, in
        millimetres if the header states the pixel spacing, else in pixels.

    Raises:
        DataError: If it is damaged.
        GeometryError: If the pixel spacing is not a pair of numbers, or is required but not stated.
    """
    with quiet_dicom():
        header = read_dataset(path)
        pixels = _colors(header) if _is_colored(header) else _brightness(decode(header)[0], header)[..., np.newaxis]
    rows, columns = pixels.shape[:2]
    return pixels.transpose(2, 1, 0)[..., np.newaxis], _grid(columns, rows, header, rules)


def channel_count(path: Path) -> int:
    """Return the number of channels of an image of one plane, by its header.

    Raises:
        DataError: If it is damaged.
    """
    return _COLORS if _is_colored(read_header(path)) else 1


def _is_colored(header: Header) -> bool:
    palette = header.words("PhotometricInterpretation") == ("PALETTE COLOR",)
    return palette or (header.count("SamplesPerPixel") or 1) > 1


def _colors(header: Header) -> NDArray[np.generic]:
    """Convert stored colours of any kind to (rows, columns, 3) red, green and blue."""
    dataset = header.dataset
    try:
        pixels: NDArray[np.generic] = pydicom.pixels.pixel_array(dataset)
        if header.words("PhotometricInterpretation") == ("PALETTE COLOR",):
            pixels = pydicom.pixels.apply_color_lut(pixels, dataset)
    except BROKEN as error:
        raise DataError(f"the pixels of {header.path} cannot be decoded: {one_line(error)}", hint=COPY_AGAIN) from error
    if pixels.ndim != 3 or pixels.shape[-1] < _COLORS:
        raise DataError(
            f"{header.path} holds {pixels.shape} samples, not one image", hint="export its frames separately"
        )
    return pixels[..., :_COLORS]


def _brightness(stored: NDArray[np.generic], header: Header) -> NDArray[np.generic]:
    """Convert stored values so that larger is brighter: MONOCHROME1 shows the smallest as white (C.7.6.3.1.2)."""
    values: NDArray[Any] = stored
    if header.words("PhotometricInterpretation") == ("MONOCHROME1",):
        signed = header.count("PixelRepresentation") == 1
        values = np.asarray(-1 if signed else 2 ** (header.count("BitsStored") or 8) - 1, np.int64) - values
    if "RescaleSlope" in header or "RescaleIntercept" in header:
        (slope,), (intercept,) = header.numbers("RescaleSlope", 1), header.numbers("RescaleIntercept", 1)
        values = values * slope + intercept
    return values


def _grid(columns: int, rows: int, header: Header, rules: FileRules) -> Geometry:
    if isinstance(rules.pixel_mm, float):
        return Geometry.of_picture(columns, rows, (rules.pixel_mm, rules.pixel_mm))
    for keyword in _SPACINGS:
        if header.words(keyword):
            down_mm, across_mm = header.numbers(keyword, 2)  # row spacing comes first (PS3.3 section 10.7.1.3)
            return Geometry.of_picture(columns, rows, (across_mm, down_mm))
    regions_mm = {_of_region(region) for region in header.dataset.get("SequenceOfUltrasoundRegions") or ()} - {None}
    if len(regions_mm) == 1:  # a second region at another depth has another spacing
        return Geometry.of_picture(columns, rows, regions_mm.pop())
    if rules.pixel_mm == "stated":
        raise GeometryError(
            f"{header.path} states no pixel spacing", hint="--set data.pixel_mm=0.5 sets it for all pictures"
        )
    return Geometry.of_picture(columns, rows)


def _of_region(region: Any) -> tuple[float, float] | None:
    """Return the column and row spacing of a tissue image within an ultrasound picture (PS3.3 section C.8.5.5)."""
    units = region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection")
    deltas = region.get("PhysicalDeltaX"), region.get("PhysicalDeltaY")
    if region.get("RegionSpatialFormat") != _TISSUE or units != (_CM, _CM) or not all(deltas):
        return None
    across_mm, down_mm = (abs(float(delta)) * _MM_PER_CM for delta in deltas)
    return across_mm, down_mm
