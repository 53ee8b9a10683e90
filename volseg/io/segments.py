"""One structure of a Segmentation, an RT Structure Set or a segmentation of 3D Slicer, in a common form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volseg.image.terminology import Code


@dataclass(frozen=True)
class Segment:
    """The description of a segment or region of interest in its file.

    Attributes:
        number: SegmentNumber or ROINumber; in a segmentation of 3D Slicer the value of its voxels.
        name: SegmentLabel, ROIName or Name, as stated.
        type: Code of the segmented property type, None if not stated.
        modifier: Code of its modifier (laterality), None if not stated.
        color: Display colour, (red, green, blue) of 0 to 255, None if not stated.
        origin: How it was drawn: "AUTOMATIC", "SEMIAUTOMATIC" or "MANUAL", empty if not stated.
        algorithm: Name of the algorithm that drew it, empty if not stated.
    """

    number: int
    name: str
    type: Code | None = None
    modifier: Code | None = None
    color: tuple[int, int, int] | None = None
    origin: str = ""
    algorithm: str = ""


@dataclass(frozen=True, eq=False)
class Marked:
    """A structure and its voxels, which are computed on request, so that an error in one does not affect the others.

    Attributes:
        segment: Its description.
        voxels: Returns the (I, J, K) voxels on the grid; raises DataError or GeometryError if the structure is
            unusable.
    """

    segment: Segment
    voxels: Callable[[], NDArray[np.bool_]]
