"""Settings for reading files that are ambiguous."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from volseg.config.section import Section

#: Parts of a NIfTI header that may be trusted if it contradicts itself.
GeometryChoice = Literal["sform", "qform", "pixdim"]
#: Meaning of the pages of a file of several pictures.
Pages = Literal["slices", "channels"]
#: Content of the voxels of a reference.
Values = Literal["labels", "objects", "colors"]


class FileRules(Section):
    """Settings for reading image files that are ambiguous.

    Attributes:
        geometry: Which part of a NIfTI header to use if its parts contradict each other: `sform`, `qform`, or `pixdim`
            (voxel sizes from pixdim, directions and origin from the transform); null refuses such files.
        pixel_mm: Pixel size of 2D images (PNG, JPEG, TIFF ...) in mm, or `stated` for the resolution in each file; null
            measures them in pixels, because the stored resolution is usually a print setting.
        pages: How to read the pages of a TIFF or GIF that does not say: `slices` of a volume, or `channels` of an
            image; null refuses files of several pages.
        values: Content of references: `labels`, their values; `objects`, instance ids that all belong to the only
            label; `colors`, those of `data.colors`.
        threshold: Probability above which a voxel belongs to the only label, for soft masks, which store probabilities
            from 0 to 1, or whole numbers from 0 to `certain`.
        certain: Whole number that stands for a probability of 1 in soft masks; null takes the largest of the file's
            type, or 1 if the file holds only 0 and 1.
    """

    geometry: GeometryChoice | None = None
    pixel_mm: Annotated[float, Field(gt=0)] | Literal["stated"] | None = None
    pages: Pages | None = None
    values: Values = "labels"
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    certain: Literal[1, 255, 65535] | None = None


class ReadingRules(FileRules):
    """Settings for reading files and DICOM series.

    Attributes:
        allow_gaps: Interpolate missing or unevenly spaced DICOM slices instead of refusing the series.
    """

    allow_gaps: bool = False

    @property
    def of_files(self) -> FileRules:
        """Return the rules for single files."""
        return FileRules(**{key: getattr(self, key) for key in FileRules.model_fields})


#: Contradictions are refused.
AS_IT_IS = FileRules()
#: Gaps and contradictions are refused.
AS_STATED = ReadingRules()
