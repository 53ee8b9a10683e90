"""One structure of a Segmentation, an RT Structure Set or a segmentation of 3D Slicer, whatever the object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volseg.image.terminology import Code


@dataclass(frozen=True)
class Segment:
    """What a segment or region of interest says of itself.

    Attributes:
        number: SegmentNumber or ROINumber; in a segmentation of 3D Slicer the value of its voxels.
        name: SegmentLabel, ROIName or Name, as it is stated.
        type: Code of the segmented property type, None when it is not stated.
        modifier: Code of its modifier (laterality), None when it is not stated.
        color: Display colour, (red, green, blue) of 0 to 255, None when it is not stated.
    """

    number: int
    name: str
    type: Code | None = None
    modifier: Code | None = None
    color: tuple[int, int, int] | None = None


@dataclass(frozen=True, eq=False)
class Marked:
    """A structure and what it marks, which is looked at only when it is asked for: no structure costs another one.

    Attributes:
        segment: What it says of itself.
        voxels: Gives the (I, J, K) voxels on the grid; raises DataError, GeometryError if the structure is unusable.
    """

    segment: Segment
    voxels: Callable[[], NDArray[np.bool_]]
