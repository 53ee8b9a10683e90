"""How files are read where what they state leaves a choice."""

from __future__ import annotations

from typing import Literal

from volseg.config.section import Section

#: What may be held to be right of a NIfTI header that contradicts itself.
GeometryChoice = Literal["sform", "qform", "pixdim"]


class ReadingRules(Section):
    """How files are read.

    Attributes:
        allow_gaps: Whether missing or unevenly spaced slices of DICOM are bridged by interpolation rather than refused.
        geometry: What is right in NIfTI headers that contradict themselves, which are refused unless this is given:
            "sform" or "qform", where it is set; or "pixdim", voxel sizes by pixdim, while the directions of the axes
            and the position of the first voxel stay those of the transform that is used otherwise.
    """

    allow_gaps: bool = False
    geometry: GeometryChoice | None = None


#: Gaps and contradictions are refused.
AS_STATED = ReadingRules()
