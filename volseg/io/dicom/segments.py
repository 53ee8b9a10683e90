"""One structure of a DICOM Segmentation or RT Structure Set, whatever the object."""

from __future__ import annotations

from dataclasses import dataclass

from volseg.image.terminology import Code


@dataclass(frozen=True)
class Segment:
    """What a segment or region of interest says of itself.

    Attributes:
        number: SegmentNumber or ROINumber.
        name: SegmentLabel or ROIName, as it is stated.
        type: Code of the segmented property type, None when it is not stated.
        modifier: Code of its modifier (laterality), None when it is not stated.
        color: Display colour, (red, green, blue) of 0 to 255, None when it is not stated.
    """

    number: int
    name: str
    type: Code | None = None
    modifier: Code | None = None
    color: tuple[int, int, int] | None = None
