"""How files are read where what they state leaves a choice."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from volseg.config.section import Section

#: What may be held to be right of a NIfTI header that contradicts itself.
GeometryChoice = Literal["sform", "qform", "pixdim"]
#: What the pages of a file of several pictures are.
Pages = Literal["slices", "channels"]
#: What the voxels of a reference hold.
Values = Literal["labels", "objects", "colors"]


class FileRules(Section):
    """How an image file is read.

    Attributes:
        geometry: What is right in NIfTI headers that contradict themselves, which are refused unless this is given:
            "sform" or "qform", where it is set; or "pixdim", voxel sizes by pixdim, while the directions of the axes
            and the position of the first voxel stay those of the transform that is used otherwise.
        pixel_mm: How far the pixels of pictures (PNG, JPEG, TIFF ...) are apart: a number, or "stated", as each file
            says in its resolution. Left out, pictures are measured in pixels: most resolutions are of a printer.
        pages: What the pages of a TIFF or GIF are, slices of a volume or channels of a picture, where the file does not
            say; several pages are refused unless this is given.
        values: What references hold: numbers of `labels`; numbers of `objects`, which all are of the one label there
            is; or `colors`, those of data.colors.
        threshold: Above which a voxel has the one label, in files that say how likely that is, from 0 to 1 or in whole
            steps up to `certain`.
        certain: The whole number that says so for sure. Left out, it is the most that the type of a file holds, and 1
            where a file holds 0 and 1 alone; `volseg evaluate --threshold` finds one for all of its masks.
    """

    geometry: GeometryChoice | None = None
    pixel_mm: Annotated[float, Field(gt=0)] | Literal["stated"] | None = None
    pages: Pages | None = None
    values: Values = "labels"
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    certain: Literal[1, 255, 65535] | None = None


class ReadingRules(FileRules):
    """How files and series of DICOM are read.

    Attributes:
        allow_gaps: Whether missing or unevenly spaced slices of DICOM are bridged by interpolation rather than refused.
    """

    allow_gaps: bool = False

    @property
    def of_files(self) -> FileRules:
        """What concerns a file by itself."""
        return FileRules(**{key: getattr(self, key) for key in FileRules.model_fields})


#: Contradictions are refused.
AS_IT_IS = FileRules()
#: Gaps and contradictions are refused.
AS_STATED = ReadingRules()
