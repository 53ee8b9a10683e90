"""Siemens mosaics: all slices of a volume tiled into one MR image.

The tiles are laid out row by row in the smallest square that holds them. The private CSA header states their number and
the direction of the next slice; ImagePositionPatient is that of the whole picture, as if it were one slice as large as
all tiles (nipy.org/nibabel/dicom/dicom_mosaic.html).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from volseg.errors import DataError, GeometryError
from volseg.io.dicom.frames import Frame
from volseg.io.dicom.header import BROKEN, EXPORT_AGAIN, Header, one_line
from volseg.io.dicom.quiet import quiet_dicom


def is_mosaic(header: Header) -> bool:
    """Return whether the image is a mosaic, by its ImageType."""
    return "MOSAIC" in header.words("ImageType")


def tiles_of(header: Header, whole: Frame) -> list[Frame]:
    """Return the slices of a mosaic.

    Args:
        header: Its header, private elements included.
        whole: The mosaic as one image.

    Returns:
        One frame per slice, in the order of the tiles, each with the corner of its tile.

    Raises:
        GeometryError: If the header does not state the number of slices, or where they lie.
    """
    count, towards = _csa(header)
    per_side = math.ceil(math.sqrt(count))
    columns, rows = (size // per_side for size in whole.plane.shape)
    if (columns * per_side, rows * per_side) != whole.plane.shape:
        raise GeometryError(
            f"{whole.path} states {count} slices, which do not tile its {whole.plane.shape} pixels",
            hint=EXPORT_AGAIN,
        )
    orientation = np.array(whole.plane.orientation).reshape(2, 3)
    margin = (np.array(whole.plane.shape) - (columns, rows)) / 2 * whole.plane.spacing_mm
    first = np.array(whole.plane.origin_mm) + margin @ orientation
    step = math.copysign(whole.stated_step_mm(), float(towards @ whole.plane.normal)) * whole.plane.normal
    tiles = []
    for n in range(count):
        plane = replace(whole.plane, shape=(columns, rows), origin_mm=tuple((first + n * step).tolist()))
        tiles.append(replace(whole, plane=plane, corner=(n % per_side * columns, n // per_side * rows)))
    return tiles


def _csa(header: Header) -> tuple[int, NDArray[np.float64]]:
    """Return the number of slices, and the direction in which the second lies from the first."""
    with quiet_dicom():
        from nibabel.nicom import csareader
    try:
        tags = (csareader.get_csa_header(header.dataset, "image") or {}).get("tags", {})
        count = int(tags["NumberOfImagesInMosaic"]["items"][0])
        normal = np.array([float(x) for x in tags["SliceNormalVector"]["items"]])
    except (*BROKEN, csareader.CSAReadError) as error:
        raise GeometryError(
            f"{header.path} is a Siemens mosaic whose private header does not state where its slices lie: "
            f"{one_line(error)}",
            hint="convert it to NIfTI, for example with dcm2niix, from data that were not stripped of private elements",
        ) from error
    if count < 1 or normal.shape != (3,) or not np.isclose(np.linalg.norm(normal), 1, atol=1e-3):
        raise DataError(
            f"{header.path} is a Siemens mosaic of {count} slices along {normal.tolist()}: its header is damaged",
            hint=EXPORT_AGAIN,
        )
    return count, normal
