"""One structure of a Segmentation, an RT Structure Set or a segmentation of 3D Slicer, whatever the object."""

from __future__ import annotations

from dataclasses import dataclass

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
